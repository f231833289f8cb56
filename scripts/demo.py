"""From a link to a running notebook, on this machine (`make demo`).

Serves the examples from a git server on loopback, builds each from its URL, and runs its notebook through the kernel
that came out: as an ordinary user, in Apptainer or Charliecloud, with no network but `lo`. An example of nothing but
packages and files is assembled of them; the first that has more to it brings up a dockerd of the demo's own. Everything
it makes is in .demo/.
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

EXAMPLES = {
    "pendulum": "Two pendulums, one below the other",
    "chirp": "A chirp in the noise",
    "tsunami": "A wave over the sea",
}
"""Folder below examples/, with a notebook of the same name -> its title."""

NEED_ENGINE = {"chirp": "sox of Debian, and a postBuild", "tsunami": "Debian's compilers, and a postBuild"}
"""Example -> what of it has to be run, and is not just data."""

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
    parser.add_argument("examples", nargs="*", metavar="EXAMPLE", help=f"{' or '.join(EXAMPLES)} (default: all)")
    parser.add_argument("--runtime", default="auto", help="apptainer or charliecloud instead of what is found")
    arguments = parser.parse_args()
    if unknown := [name for name in arguments.examples if name not in EXAMPLES]:
        parser.error(f"no example {unknown[0]!r}: there are {', '.join(EXAMPLES)}")
    os.umask(0o022)
    start = time.monotonic()
    timings: dict[str, dict[str, float]] = {}
    executed: dict[str, tuple[str, Path]] = {}

    step("the machine: packages that are missing")
    DEMO.mkdir(exist_ok=True)
    rig("up", "charliecloud")
    set_up = time.monotonic() - start
    host = None
    try:
        for example in arguments.examples or EXAMPLES:
            timings[example] = {}
            if example in NEED_ENGINE and host is None:
                step(f"a container engine of our own; {example} needs it: {NEED_ENGINE[example]}")
                mark = time.monotonic()
                host = start_engine()
                timings[example]["engine"] = time.monotonic() - mark
            kernel = build(example, host, arguments.runtime, timings[example])
            step(f"run {example}.ipynb through the kernel: an ordinary user, no network but lo")
            mark = time.monotonic()
            executed[example] = kernel["id"], run_notebook(example, kernel)
            timings[example]["notebook"] = time.monotonic() - mark
    finally:
        if host is not None:
            rig("down", "dockerd")

    step("done")
    print(f"    {'set up':<10}{set_up:8.1f} s")
    for example, phases in timings.items():
        print(
            f"    {example:<10}{sum(phases.values()):8.1f} s  ({', '.join(f'{k} {v:.1f}' for k, v in phases.items())})"
        )
    print(f"    {'in all':<10}{time.monotonic() - start:8.1f} s")
    for example, (id_, notebook) in executed.items():
        print(f"\n{example}: the executed notebook is {notebook}")
        print(f"    JupyterLab on it:       {HPCBINDER} --store {DEMO}/store run {id_}")
        print(f"    What is in it, and why: {HPCBINDER} --store {DEMO}/store show {id_}")
    print(f"\nAll of it away again: rm -rf {DEMO}")


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
    rig("up", "dockerd")
    host = Rig(DEMO / "rig").dockerd.host
    socket = host.removeprefix("unix://")
    # It is ours alone, so whoever runs the demo may talk to it.
    subprocess.run(sudo("chown", f"{os.getuid()}:{os.getgid()}", socket), check=True)
    return host


def build(example: str, host: str | None, runtime: str, timings: dict[str, float]) -> dict[str, str]:
    """Serve an example and build it from its URL; returns the image's id and its kernel's name and folder.

    Args:
        host: Address of the engine; None if it needs none.
    """
    (DEMO / "git").mkdir(exist_ok=True)
    repository = DEMO / "git" / f"{example}.git"
    commit = commit_folder(ROOT / "examples" / example, repository, message=EXAMPLES[example])
    with serve(DEMO / "git", port=PORT) as url:
        command = [str(HPCBINDER), "--store", str(DEMO / "store"), "build", f"{url}/{example}.git", "--ref", commit]
        command += ["--prefix", str(DEMO / "jupyter"), "--runtime", runtime, "--json"]
        step(" ".join(["hpcbinder", *command[1:]]))
        environment = {**os.environ, "CI": "1", **({"DOCKER_HOST": host} if host else {})}
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True)
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


def run_notebook(example: str, kernel: dict[str, str]) -> Path:
    """Execute an example's notebook as an ordinary user in a network namespace of its own."""
    home = DEMO / "home"
    home.mkdir(exist_ok=True)
    notebook = home / f"{example}.ipynb"
    executed = home / f"{example}.executed.ipynb"
    subprocess.run(sudo("rm", "-rf", str(notebook), str(executed)), check=True)
    shutil.copyfile(ROOT / "examples" / example / f"{example}.ipynb", notebook)
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
