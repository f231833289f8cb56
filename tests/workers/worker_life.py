"""Lives of a notebook that has workers, run as an ordinary user by test_workers.py: `worker_life.py SCENARIO KERNEL
FOLDER`. Prints one JSON object: what the notebook saw."""

from __future__ import annotations

import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

sys.path.insert(0, str(Path(__file__).parent.parent / "register"))

from jupyter_client.blocking.client import BlockingKernelClient
from kernel_life import execute, start

WHERE = """
import json, os, socket
def where():
    import os, socket
    known = os.environ
    return [socket.gethostname(), known["IMAGE_ID"], known["SLURM_JOB_ID"], known.get("HPCBINDER_HELPER")]
def show(value):
    print("RESULT", json.dumps(value))
def answer_of(cluster, path):
    import urllib.error, urllib.request
    try:
        url = f"http://127.0.0.1:{cluster.scheduler.http_server.port}{path}"
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=60) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code
"""

DASK = """
from hpcbinder_workers import dask_cluster, jobs
# Two of them do not fit on one node.
cluster = dask_cluster(workers=2, memory="4500M", asked={"time": "10"})
client = cluster.get_client()
client.wait_for_workers(2, timeout=120)
squares = sum(client.gather(client.map(lambda number: number * number, range(100))))
show([list(client.run(where).values()), squares, cluster.scheduler_address, [job["state"] for job in jobs()],
      answer_of(cluster, "/json/counts.json")])
"""
SCALED = """
import time
cluster.scale(1)
end = time.monotonic() + 120
while sorted(job["state"] for job in jobs())[0] != "ENDED" and time.monotonic() < end:
    time.sleep(0.1)
show([sorted(job["state"] for job in jobs()), client.submit(lambda: 6 * 7).result()])
"""
ENGINES = """
from hpcbinder_workers import ipyparallel_cluster
engines = ipyparallel_cluster(2, asked={"nodes": 2, "time": "10"})
clients = engines.start_and_connect_sync()
connection = clients._config
show([clients[:].apply_sync(where), clients[:].map_sync(lambda number: number * number, range(4)),
      sorted(name for name in ("key", "curve_serverkey") if connection[name]), connection["interface"]])
engines.stop_cluster_sync()
"""
MAGIC = """
%load_ext slurm_magic
_ = %slurm display raw
queue = %squeue --me --noheader --format=%j
number = get_ipython().run_cell_magic("sbatch", "--parsable --output=told", "#!/bin/sh\\npwd\\nid -u\\n")
show([queue.split(), number.strip(), os.getcwd()])
"""
JOBQUEUE = """
from dask_jobqueue import SLURMCluster
host = cluster.scheduler_address.split("//")[1].rsplit(":", 1)[0]
stock = SLURMCluster(
    cores=1, memory="300MB", processes=1, walltime="00:10:00", log_directory=os.getcwd(), nanny=False,
    scheduler_options={"host": host},
)
stock.scale(jobs=1)
from distributed import Client
with Client(stock) as other:
    other.wait_for_workers(1, timeout=120)
    show(list(other.run(where).values()))
stock.close()
"""
LEFT = """
more = dask_cluster(workers=3, memory="4500M", asked={"time": "10"}, dashboard="127.0.0.1:0")
end = time.monotonic() + 120
while len(jobs()) < 2 + 3 and time.monotonic() < end:
    time.sleep(0.1)
show([[job["state"] for job in jobs()], answer_of(more, "/json/counts.json")])
"""
BOUND = """
import subprocess
def said(*words):
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()
step = said("srun", "--overlap", "--ntasks=1", "printenv", "SLURM_JOB_ID")
show([said("squeue", "--me", "--noheader", "--format=%j"), step, os.environ["SLURM_JOB_ID"]])
"""


def told(client: BlockingKernelClient, code: str) -> Any:
    printed = execute(client, code)
    results = [line for line in printed.splitlines() if line.startswith("RESULT ")]
    assert results, printed
    return json.loads(results[-1].removeprefix("RESULT "))


def stranger(address: str) -> str:
    """What somebody on the network gets from a scheduler, who has no key."""
    place = urlsplit(address)
    context = ssl._create_unverified_context()
    try:
        with context.wrap_socket(socket.create_connection((place.hostname, place.port), 30)) as connection:
            # Nothing is sent: who is turned away with something unread hears of a reset, and not why.
            return f"read {len(connection.recv(4096))}"
    except ssl.SSLError as error:
        return f"{type(error).__name__} {error}"


def arguments() -> list[str]:
    """What all of this user's processes have in their arguments."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and entry.stat().st_uid == os.getuid():
                found.append((entry / "cmdline").read_text(errors="replace"))
        except OSError:
            pass
    return found


def all_of_it(kernel: str, folder: str) -> dict[str, Any]:
    """Dask, ipyparallel, slurm-magic and dask-jobqueue from one notebook, which ends with workers at work."""
    manager, client = start(kernel, folder)
    execute(client, WHERE)
    seen: dict[str, Any] = {"notebook": told(client, "show(where())"), "dask": told(client, DASK)}
    seen["stranger"] = stranger(seen["dask"][2])
    state = Path.home() / ".local/state/hpcbinder/workers"
    (shared,) = state.iterdir()
    files = [path for path in shared.iterdir() if path.is_file() and "PRIVATE KEY" in path.read_text()]
    seen["keys"] = [f"{path.stat().st_mode & 0o777:o}" for path in (state, shared, *files)]
    seen["told"] = [line for line in arguments() if "PRIVATE KEY" in line]
    seen["scaled"] = told(client, SCALED)
    seen["jobqueue"] = told(client, JOBQUEUE)
    seen["magic"] = told(client, MAGIC)
    seen["engines"] = told(client, ENGINES)
    seen["left"] = told(client, LEFT.replace("2 + 3", "3 + 3"))
    manager.shutdown_kernel(now=True)
    return seen


def killed(kernel: str, folder: str) -> dict[str, Any]:
    """The program that has the notebook dies by SIGKILL, with workers at work and waiting."""
    here = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    code = "import sys, time, worker_life; worker_life.begin(*sys.argv[1:]); time.sleep(600)"
    with subprocess.Popen([sys.executable, "-c", code, kernel, folder], env=here, stdout=subprocess.PIPE) as front_end:
        assert front_end.stdout is not None
        line = front_end.stdout.readline()
        front_end.send_signal(signal.SIGKILL)
    jobs, _, bound = json.loads(line)
    return {"jobs": jobs, "bound": bound}


def begin(kernel: str, folder: str) -> None:
    _, client = start(kernel, folder)
    execute(client, WHERE)
    code = "import time\nfrom hpcbinder_workers import dask_cluster, jobs\n" + LEFT.replace("2 + 3", "3")
    seen = told(client, code)
    print(json.dumps([*seen, told(client, BOUND)]), flush=True)


SCENARIOS: dict[str, Callable[[str, str], dict[str, Any]]] = {"all": all_of_it, "killed": killed}


def main(scenario: str, kernel: str, folder: str) -> None:
    begun = time.monotonic()
    seen = SCENARIOS[scenario](kernel, folder)
    print(json.dumps({**seen, "seconds": time.monotonic() - begun}))


if __name__ == "__main__":
    main(*sys.argv[1:])
