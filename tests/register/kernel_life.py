"""Lives of one kernel, run as an ordinary user by test_kernel_life.py: `python kernel_life.py SCENARIO KERNEL FOLDER`.

Prints one JSON object: what the scenario saw, and what was left behind (processes, core dumps).
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.manager import KernelManager

WAIT = 120
Processes = dict[int, str]
"""Process id -> command line."""

LOOK = """
import os, json
print(json.dumps({"cwd": os.getcwd(), "uid": os.getuid(), "environ": dict(os.environ), "here": os.listdir(".")}))
"""
DAEMON = "import subprocess; daemon = subprocess.Popen(['sleep', '1000'], start_new_session=True)"

FRONT_END = """
import sys, time, kernel_life
kernel_life.start(*sys.argv[1:])
print("ready", flush=True)
time.sleep(600)
"""


def start(kernel: str, folder: str) -> tuple[KernelManager, BlockingKernelClient]:
    manager = KernelManager(kernel_name=kernel)
    manager.start_kernel(cwd=folder)
    client = manager.client()
    client.start_channels()
    client.wait_for_ready(timeout=WAIT)
    return manager, client


def execute(client: BlockingKernelClient, code: str) -> str:
    """What the code prints (or the error it ends with)."""
    printed: list[str] = []

    def hook(message: dict[str, Any]) -> None:
        if message["msg_type"] == "stream" and message["content"]["name"] == "stdout":
            printed.append(message["content"]["text"])
        if message["msg_type"] == "error":
            printed.append("\n".join(message["content"]["traceback"]))

    client.execute_interactive(code, output_hook=hook, timeout=WAIT)
    return "".join(printed)


def reply(client: BlockingKernelClient, asked: str) -> dict[str, Any]:
    while True:
        message: dict[str, Any] = client.get_shell_msg(timeout=WAIT)
        if message["parent_header"].get("msg_id") == asked:
            return message


def processes() -> Processes:
    """Every living process of this user but this one."""
    found = {}
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and entry.stat().st_uid == os.getuid() and int(entry.name) != os.getpid():
                status = (entry / "stat").read_text()
                if status[status.rindex(")") + 2] not in "ZX":
                    found[int(entry.name)] = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()[:200]
        except OSError:
            pass
    return found


def since(before: Processes) -> Processes:
    return {pid: line for pid, line in processes().items() if pid not in before}


def left_over(before: Processes, seconds: float = 60.0) -> list[str]:
    """What started since `before` and is still there after at most `seconds`."""
    end = time.monotonic() + seconds
    while since(before) and time.monotonic() < end:
        time.sleep(0.05)
    return sorted(since(before).values())


def look(kernel: str, folder: str) -> dict[str, Any]:
    """Start, look around, leave a daemon, shut down."""
    begun = time.monotonic()
    manager, client = start(kernel, folder)
    ready = time.monotonic() - begun
    seen = json.loads(execute(client, LOOK))
    execute(client, "open('written', 'w').write('by the kernel')")
    execute(client, DAEMON)
    manager.shutdown_kernel()
    return {**seen, "ready": ready, "written": (Path(folder) / "written").read_text()}


def interrupt(kernel: str, folder: str) -> dict[str, Any]:
    """Interrupt Python, then a program that Python waits for; restart; all of it with the same manager."""
    manager, client = start(kernel, folder)
    answers = []
    for code in (
        "import time; open('begun', 'w').close(); time.sleep(600)",
        "import subprocess; subprocess.run(['sh', '-c', 'touch begun; exec sleep 600'])",
    ):
        asked = client.execute(code)
        begun = Path(folder) / "begun"
        end = time.monotonic() + WAIT
        while not begun.exists() and time.monotonic() < end:
            time.sleep(0.05)
        begun.unlink()
        manager.interrupt_kernel()
        answers.append(reply(client, asked)["content"].get("ename"))
        time.sleep(0.5)  # right after an error ipykernel drops what is queued
    still = execute(client, "answer = 6 * 7; print(answer)").strip()
    manager.restart_kernel()
    client.wait_for_ready(timeout=WAIT)
    fresh = execute(client, "print('answer' in globals())").strip()
    manager.shutdown_kernel()
    return {"answers": answers, "still": still, "fresh": fresh}


def shutdown_now(kernel: str, folder: str) -> dict[str, Any]:
    """jupyter_client's own SIGKILL."""
    manager, client = start(kernel, folder)
    execute(client, DAEMON)
    manager.shutdown_kernel(now=True)
    return {}


def front_end_killed(kernel: str, folder: str) -> dict[str, Any]:
    """The program that has the kernel dies by SIGKILL."""
    here = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    command = [sys.executable, "-c", FRONT_END, kernel, folder]
    with subprocess.Popen(command, env=here, stdout=subprocess.PIPE, text=True) as front_end:
        assert front_end.stdout is not None
        line = front_end.stdout.readline()
        front_end.kill()
    return {"line": line}


def killed(kernel: str, folder: str, chosen: Callable[[Processes, int], list[int]]) -> dict[str, Any]:
    """SIGKILL `chosen(the kernel's processes, the launcher's id)`; the front end must notice and nothing may stay."""
    before = processes()
    manager, client = start(kernel, folder)
    execute(client, DAEMON)
    launcher = getattr(manager.provisioner, "pid", 0)  # a kernel in a job has none here
    victims = chosen(since(before), launcher)
    for pid in victims:
        os.kill(pid, signal.SIGKILL)
    end = time.monotonic() + 60
    while manager.is_alive() and time.monotonic() < end:
        time.sleep(0.05)
    return {"victims": len(victims), "alive": manager.is_alive()}


def overheard(kernel: str, folder: str) -> dict[str, Any]:
    """What somebody else on the network hears of a kernel, who knows where it is and none of its keys."""
    import zmq

    manager, client = start(kernel, folder)
    info = manager.get_connection_info()
    with zmq.Context() as context, context.socket(zmq.SUB) as ear:
        ear.linger = 0
        ear.subscribe(b"")
        ear.connect(f"tcp://{info['ip']}:{info['iopub_port']}")
        heard = 0
        for _ in range(4):
            execute(client, "print('a secret')")
            heard += bool(ear.poll(500))
    manager.shutdown_kernel()
    return {"ip": info["ip"], "keys": sorted(key for key in info if key.startswith("curve")), "heard": heard}


def extended(kernel: str, folder: str) -> dict[str, Any]:
    """Another image takes the place of the kernel's, by the command in EXTEND; its restart is in that one."""
    look = """
import os
try:
    from added import HERE
except ImportError:
    HERE = "no"
print(HERE, os.environ["SLURMD_NODENAME"], os.environ["SLURM_JOB_ID"], os.environ["IMAGE_ID"])
"""
    manager, client = start(kernel, folder)
    before = execute(client, look).split()
    told = subprocess.run(json.loads(os.environ["EXTEND"]), check=True, stdout=subprocess.PIPE, text=True).stdout
    manager.restart_kernel()
    client.wait_for_ready(timeout=WAIT)
    after = execute(client, look).split()
    manager.shutdown_kernel()
    return {"before": before, "after": after, "told": json.loads(told)}


def no_node(kernel: str, folder: str) -> dict[str, Any]:
    """A cluster whose nodes are all taken, and somebody who does not wait for ever."""
    from traitlets.config import Config

    taking = ["sbatch", "--parsable", "--exclusive", "--nodes=2", "--output=/dev/null", "--wrap=sleep 1000"]
    job = subprocess.run(taking, check=True, capture_output=True, text=True).stdout.strip()
    state = ["squeue", "--noheader", f"--jobs={job}", "--format=%T"]
    while subprocess.run(state, capture_output=True, text=True).stdout.strip() != "RUNNING":
        time.sleep(0.1)
    manager = KernelManager(kernel_name=kernel, config=Config({"SlurmProvisioner": {"start_timeout": 8}}))
    said = ""
    try:
        manager.start_kernel(cwd=folder)
    except RuntimeError as error:
        said = str(error)
    mine = subprocess.run(["squeue", "--noheader", "--me", "--format=%i"], capture_output=True, text=True).stdout
    subprocess.run(["scancel", job], check=True)
    return {"said": said, "queue": mine.split(), "taking": job}


def named(*words: str) -> Callable[[Processes, int], list[int]]:
    return lambda lines, _: [pid for pid, line in lines.items() if any(word in line for word in words)]


def keeper(lines: Processes, launcher: int) -> list[int]:
    return [pid for pid in named("launch.py")(lines, launcher) if pid != launcher]


SCENARIOS: dict[str, Callable[[str, str], dict[str, Any]]] = {
    "look": look,
    "interrupt": interrupt,
    "shutdown-now": shutdown_now,
    "overheard": overheard,
    "extended": extended,
    "no-node": no_node,
    "front-end-killed": front_end_killed,
    "launcher-killed": lambda *a: killed(*a, lambda _, launcher: [launcher]),
    "keeper-killed": lambda *a: killed(*a, keeper),
    "runtime-killed": lambda *a: killed(*a, named("Apptainer runtime parent", "ch-run")),
    "kernel-killed": lambda *a: killed(*a, named("ipykernel_launcher")),
}


def main(scenario: str, kernel: str, folder: str) -> None:
    before = processes()
    result = SCENARIOS[scenario](kernel, folder)
    cores = [str(path) for path in Path(folder).rglob("core*")]
    print(json.dumps({**result, "left": left_over(before), "cores": cores}))


if __name__ == "__main__":
    main(*sys.argv[1:])
