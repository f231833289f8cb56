"""From a link to a running notebook, on this machine (`make demo`).

Serves the examples from a git server on loopback, builds each from its URL, and runs its notebook through the kernel
that came out: as an ordinary user, in Apptainer, with no network but `lo`. No container engine is needed: the images
are assembled of squashed packages, and what has to be run (Debian's packages, a postBuild) is run by Apptainer.
Everything it makes is in .demo/.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
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
    arguments = parser.parse_args()
    if unknown := [name for name in arguments.examples if name not in EXAMPLES]:
        parser.error(f"no example {unknown[0]!r}: there are {', '.join(EXAMPLES)}")
    os.umask(0o022)
    start = time.monotonic()
    timings: dict[str, dict[str, float]] = {}
    executed: dict[str, tuple[str, Path]] = {}

    step("the machine: packages that are missing")
    DEMO.mkdir(exist_ok=True)
    if not shutil.which("apptainer"):
        rig("up", "apptainer")
    set_up = time.monotonic() - start
    for example in arguments.examples or EXAMPLES:
        timings[example] = {}
        kernel = build(example, timings[example])
        step(f"run {example}.ipynb through the kernel: an ordinary user, no network but lo")
        mark = time.monotonic()
        executed[example] = kernel["id"], run_notebook(example, kernel)
        timings[example]["notebook"] = time.monotonic() - mark

    step("done")
    print(f"    {'set up':<10}{set_up:8.1f} s")
    for example, phases in timings.items():
        print(
            f"    {example:<10}{sum(phases.values()):8.1f} s  ({', '.join(f'{k} {v:.1f}' for k, v in phases.items())})"
        )
    print(f"    {'in all':<10}{time.monotonic() - start:8.1f} s")
    for example, (id_, notebook) in executed.items():
        print(f"\n{example}: the executed notebook is {notebook}")
        print(f"    JupyterLab on it:       PATH={apptainer()}:$PATH {HPCBINDER} --store {DEMO}/store run {id_}")
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
    settings = [f"HPCBINDER_RIG={DEMO / 'rig'}", "HPCBINDER_RIG_APPTAINER_ANY=1"]  # today's, should it be a newer one
    command = sudo("env", *settings, sys.executable, "-m", "tests.rig", *arguments)
    if subprocess.run(command, cwd=ROOT).returncode:
        sys.exit(f"error: the rig could not be brought {arguments[0]} (see above)")


def apptainer() -> Path:
    """The folder with Apptainer."""
    found = shutil.which("apptainer")
    return Path(found).parent if found else Rig(DEMO / "rig").apptainer.bin


def path() -> str:
    """Where programs are."""
    return f"{apptainer()}:/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin"


def with_subordinate_ids(command: list[str]) -> list[str]:
    """The command as whoever runs the demo; root has subordinate ids there.

    Apptainer makes no namespace for a root without some, which ordinary users get with their accounts and root does
    not. The files that say so are others' only in a mount namespace: nothing of the machine changes.
    """
    if os.getuid() or any(line.startswith(("root:", "0:")) for line in _lines(Path("/etc/subuid"))):
        return command
    ids = DEMO / "subordinate-ids"
    ids.write_text("root:100000:65536\n")
    mounts = "".join(f"mount --bind {shlex.quote(str(ids))} /etc/{name}; " for name in ("subuid", "subgid"))
    for name in ("subuid", "subgid"):
        Path("/etc", name).touch()  # something to mount over
    return ["unshare", "--mount", "sh", "-euc", f'{mounts}exec "$@"', "sh", *command]


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def build(example: str, timings: dict[str, float]) -> dict[str, str]:
    """Serve an example and build it from its URL; returns the image's id and its kernel's name and folder."""
    (DEMO / "git").mkdir(exist_ok=True)
    repository = DEMO / "git" / f"{example}.git"
    commit = commit_folder(ROOT / "examples" / example, repository, message=EXAMPLES[example])
    with serve(DEMO / "git", port=PORT) as url:
        command = [str(HPCBINDER), "--store", str(DEMO / "store"), "build", f"{url}/{example}.git", "--ref", commit]
        command += ["--prefix", str(DEMO / "jupyter"), "--engine", "none", "--runtime", "apptainer", "--json"]
        step(" ".join(["hpcbinder", *command[1:]]))
        environment = {**os.environ, "CI": "1", "PATH": path()}
        done = subprocess.run(with_subordinate_ids(command), env=environment, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(done.returncode)
    result = json.loads(done.stdout)
    timings.update(result["timings"])
    kernel = result["kernels"][0]
    print(f"    {result['id']}: {result['size'] / 2**20:.0f} MiB, commit {result['commit'][:10]}")
    for name, file in result["formats"].items():
        print(f"    {name:<10}{file}")
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
        "PATH": path(),
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
