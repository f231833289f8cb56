"""A repository for Python 2.7, from the URL to a cell that is interrupted: its kernel on the last CPython 2, out of the
packages of an older Debian release, beside the notebook server and a kernel of today's Python.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from hpcbinder.config import SiteConfig, load, mirrors
from hpcbinder.source import Reach, web_session
from images import Line
from rig import Apptainer, User

pytestmark = pytest.mark.heavy

DRIVE = """
import json, sys, threading
from jupyter_client import KernelManager

manager = KernelManager(kernel_name=sys.argv[1])
manager.start_kernel()
client = manager.client()
client.start_channels()
client.wait_for_ready(timeout=120)

def run(code):
    said = []
    def heard(message):
        content = message["content"]
        if message["msg_type"] in ("stream", "error"):
            said.append(content.get("text") or content["ename"])
        if "waiting" in "".join(said[-1:]):
            manager.interrupt_kernel()
    client.execute_interactive(code, output_hook=heard, timeout=120)
    return "".join(said)

print(json.dumps([run(code) for code in sys.argv[2:]]))
client.stop_channels()
manager.shutdown_kernel()
"""

WHICH = "import sys; sys.stdout.write('%d.%d %s' % (sys.version_info[0], sys.version_info[1], sys.executable))"
WAIT = "import sys, time; sys.stdout.write('waiting'); sys.stdout.flush(); time.sleep(600)"


@pytest.fixture(scope="module")
def built(line: Line) -> str:
    real = load({}, user_file=Path("/nonexistent"), site_file=Path("/nonexistent")).site
    _mirror_has("bullseye", real)
    result = line.build(line.repository("python-2-server"), "--format", "sif", "--no-register")
    return str(result["id"])


def _mirror_has(suite: str, site: SiteConfig) -> None:
    address, name = mirrors(site).sources(suite)[0]
    answer = web_session(site, Reach((), ("*",))).get(f"{address}/dists/{name}/InRelease", stream=True)
    if answer.status_code == 404:
        pytest.skip(f"the Debian mirror no longer has {suite}")


def test_its_kernel_runs_and_is_interrupted(line: Line, built: str, apptainer: Apptainer, user: User) -> None:
    prefix = line.folder / "jupyter-old-python"
    environment = {**line.environment, "PATH": f"{Path(apptainer.path).parent}:{os.environ['PATH']}"}
    command = [sys.executable, "-m", "hpcbinder", "--store", str(line.folder / "store"), "register", "--kernel", built]
    command += ["--prefix", str(prefix), "--runtime", "apptainer"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    specs = {
        json.loads((folder / "kernel.json").read_text())["metadata"]["hpcbinder"]["kernel"]: folder.name
        for folder in (prefix / "share/jupyter/kernels").iterdir()
    }
    assert set(specs) == {"python2", "python3"}
    path = {"JUPYTER_PATH": str(prefix / "share/jupyter"), "PATH": f"{Path(apptainer.path).parent}:/usr/bin:/bin"}

    def drive(kernel: str, *cells: str) -> list[str]:
        done = user.run([sys.executable, "-c", DRIVE, specs[kernel], *cells], env=path, network=False)
        said = json.loads(done.stdout.splitlines()[-1])
        assert isinstance(said, list)
        return said

    which, installed, interrupted, alive = drive(
        "python2", WHICH, "import six; print six.__version__", WAIT, "print 7 / 2"
    )
    assert which == "2.7 /opt/env/bin/python"
    assert installed == "1.16.0\n"
    assert interrupted == "waitingKeyboardInterrupt"
    assert alive == "3\n"
    # requirements3.txt: for the server, and a kernel on the server's Python.
    which, installed = drive("python3", WHICH, "import iniconfig; print(iniconfig.__file__.partition('lib/')[0])")
    assert which == "3.11 /opt/jupyter/bin/python"
    assert installed == "/opt/env/\n"


def test_the_plan_says_where_it_comes_from(line: Line, built: str) -> None:
    shown = json.loads(line.hpcbinder("show", built, "--json").stdout)
    assert (shown["python"]["full"], shown["python"]["origin"]) == ("2.7.18", "packages")
    names = {package["name"].lower() for package in shown["packages"]["python"]}
    assert {"six", "ipykernel", "pip"} <= names
    reasons = {decision["file"]: decision["reason"] for decision in shown["decisions"]}
    assert reasons["runtime.txt"] == "Python 2.7"
    assert reasons["requirements3.txt"].endswith("for the notebook server and a kernel of its Python")
