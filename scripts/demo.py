"""From a link to a running notebook, on this machine (`make demo`).

Serves examples/chirp from a git server on loopback, builds from that URL, and runs its notebook through the kernel that
came out: as an ordinary user, in Apptainer or Charliecloud, with no network but `lo`. Everything it makes is in .demo/.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from tests.rig import Rig
from tests.rig.githttp import commit_folder, serve

ROOT = Path(__file__).resolve().parent.parent
DEMO = ROOT / ".demo"
HPCBINDER = ROOT / ".venv" / "bin" / "hpcbinder"
PORT = 4817
"""Of the git server: the same in every run, since the URL is part of an image's identity."""

RUNNER = """
import os, sys, nbformat
from nbclient import NotebookClient
source, kernel, target = sys.argv[1:]
notebook = nbformat.read(source, as_version=4)
NotebookClient(notebook, kernel_name=kernel, timeout=600).execute()
nbformat.write(notebook, target)
for cell in notebook.cells:
    for output in cell.get("outputs", []):
        if output.output_type == "stream":
            sys.stdout.write("".join("    " + line + "\\n" for line in output.text.splitlines()))
        elif "image/png" in output.get("data", {}):
            print("    [a picture]")
        elif "text/html" in output.get("data", {}) and "<audio" in output.data["text/html"]:
            print("    [sound]")
"""


def main() -> None:
    """Run the demo."""
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    parser.add_argument("--runtime", default="auto", help="apptainer or charliecloud instead of what is found")
    arguments = parser.parse_args()
    os.umask(0o022)
    start = time.monotonic()
    timings: dict[str, float] = {}

    step("the machine: packages that are missing, and a container engine of our own")
    mark = time.monotonic()
    host = start_engine()
    timings["set up"] = time.monotonic() - mark
    try:
        kernel = build(host, arguments.runtime, timings)
        step("run the notebook through the kernel: an ordinary user, no network but lo")
        mark = time.monotonic()
        executed = run_notebook(kernel)
        timings["notebook"] = time.monotonic() - mark
    finally:
        rig("down", "dockerd")

    step("done")
    for phase, seconds in timings.items():
        print(f"    {phase:<10}{seconds:8.1f} s")
    print(f"    {'in all':<10}{time.monotonic() - start:8.1f} s")
    print(f"\nThe executed notebook:  {executed}")
    print(f"JupyterLab on it:       {HPCBINDER} --store {DEMO}/store run {kernel['id']}")
    print(f"What is in it, and why: {HPCBINDER} --store {DEMO}/store show {kernel['id']}")
    print(f"All of it away again:   rm -rf {DEMO}")


def step(text: str) -> None:
    """Announce what comes."""
    print(f"\n== {text}", flush=True)


def sudo(*command: str) -> list[str]:
    """The command as root."""
    return list(command) if os.getuid() == 0 else ["sudo", "--", *command]


def rig(*arguments: str) -> None:
    """Call the rig that the tests use; its state lies in our folder."""
    command = sudo("env", f"HPCBINDER_RIG={DEMO / 'rig'}", sys.executable, "-m", "tests.rig", *arguments)
    if subprocess.run(command, cwd=ROOT).returncode:
        sys.exit(f"error: the rig could not be brought {arguments[0]} (see above)")


def start_engine() -> str:
    """Install what is missing, start a dockerd of our own and return its address."""
    DEMO.mkdir(exist_ok=True)
    rig("up", "dockerd", "charliecloud")
    host = Rig(DEMO / "rig").dockerd.host
    socket = host.removeprefix("unix://")
    # It is ours alone, so whoever runs the demo may talk to it.
    subprocess.run(sudo("chown", f"{os.getuid()}:{os.getgid()}", socket), check=True)
    return host


def build(host: str, runtime: str, timings: dict[str, float]) -> dict[str, str]:
    """Serve the example and build it from its URL; returns the image's id and its kernel's name and folder."""
    (DEMO / "git").mkdir(exist_ok=True)
    repository = DEMO / "git" / "chirp.git"
    commit = commit_folder(ROOT / "examples" / "chirp", repository, message="A chirp in the noise")
    with serve(DEMO / "git", port=PORT) as url:
        command = [str(HPCBINDER), "--store", str(DEMO / "store"), "build", f"{url}/chirp.git", "--ref", commit]
        command += ["--prefix", str(DEMO / "jupyter"), "--runtime", runtime, "--json"]
        step(" ".join(["hpcbinder", *command[1:]]))
        done = subprocess.run(
            command, env={**os.environ, "DOCKER_HOST": host, "CI": "1"}, stdout=subprocess.PIPE, text=True
        )
    if done.returncode:
        sys.exit(done.returncode)
    result = json.loads(done.stdout)
    timings.update(result["timings"])
    kernel = result["kernels"][0]
    print(f"    {result['id']}: {result['size'] / 2**20:.0f} MiB, commit {result['commit'][:10]}")
    for name, path in result["formats"].items():
        print(f"    {name:<10}{path}")
    print(f"    kernel    {kernel['name']}: {kernel['display_name']}")
    return {"id": result["id"], "name": kernel["name"], "path": kernel["path"]}


def run_notebook(kernel: dict[str, str]) -> Path:
    """Execute the notebook as an ordinary user in a network namespace of its own."""
    home = DEMO / "home"
    home.mkdir(exist_ok=True)
    notebook = home / "chirp.ipynb"
    executed = home / "chirp.executed.ipynb"
    subprocess.run(sudo("rm", "-rf", str(notebook), str(executed)), check=True)
    shutil.copyfile(ROOT / "examples" / "chirp" / "chirp.ipynb", notebook)
    uid, gid = (os.getuid(), os.getgid()) if os.getuid() else (65534, 65534)
    subprocess.run(sudo("chown", "-R", f"{uid}:{gid}", str(home)), check=True)
    # In namespaces of its own nothing of the machine changes: an own /dev/fuse stands in where the device node is
    # closed to ordinary users (machines without udev), and of the network there is only lo.
    inside = (
        'ip link set lo up; if [ "$(stat -c %a /dev/fuse)" != 666 ]; then mount -t tmpfs none /mnt; '
        'mknod -m 666 /mnt/fuse c 10 229; mount --bind /mnt/fuse /dev/fuse; fi; exec "$@"'
    )
    environment = {
        "HOME": str(home),
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "LANG": "C.UTF-8",
        "JUPYTER_PATH": str(DEMO / "jupyter" / "share" / "jupyter"),
    }
    command = ["unshare", "--net", "--mount", "sh", "-euc", inside, "sh"]
    command += ["setpriv", "--reuid", str(uid), "--regid", str(gid), "--clear-groups", "--"]
    command += ["env", "-i", *(f"{k}={v}" for k, v in environment.items())]
    command += [sys.executable, "-c", RUNNER, str(notebook), kernel["name"], str(executed)]
    if subprocess.run(sudo(*command), cwd=home).returncode:
        sys.exit("error: the notebook did not run")
    return executed


if __name__ == "__main__":
    main()
