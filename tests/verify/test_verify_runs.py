"""Notebooks run in a real image, by Apptainer, as an ordinary user who has the image from a site's store."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from notebook_files import cell, notebook

from images import Line
from rig import Apptainer, Rig, RigError, User

SLEEP = "98765.25"
"""Seconds that only processes of these tests sleep."""

NOTEBOOKS = {
    "1 works.ipynb": notebook(
        "%matplotlib_is_no_magic?\nimport os, six, near\nprint(os.getcwd())",
        cell("1/0", saved="ZeroDivisionError"),
        cell("raise KeyError(1)", tags=("raises-exception",)),
        "open('made', 'w').write('by the first')",
        f"import subprocess\nsubprocess.Popen(['setsid', 'sleep', '{SLEEP}'], start_new_session=True)",
        "for _ in range(20_000):\n    print('x' * 200)",
        cell("print(object(), '  as it was')", said="<object object at 0x7f0011223344> as it\nwas\n"),
        cell("import random\nprint(random.random())", said="0.5\n"),
        kernel="debug180313",
    ),
    "2 fails.ipynb": notebook(
        "# the copy is one for all, the repository and /tmp are nobody else's\nprint(open('made').read())",
        "import tool_that_is_not_there",
        "class Dataset:\n    pass\n\nDataset().value",
    ),
    "3 network.ipynb": notebook(
        "import socket, threading\n"
        "with socket.create_server(('127.0.0.1', 0)) as server:\n"
        "    socket.create_connection(server.getsockname()).close()",
        "import urllib.request\nurllib.request.urlopen('http://example.org/data.csv')",
    ),
    "4 data.ipynb": notebook("open('data/large.h5')"),
    "5 dies.ipynb": notebook(
        "import sys\nprint('\\033[31mthe very last word\\033[0m', file=sys.stderr)",
        "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)",
    ),
    "deep.ipynb": b"[" * 100_000,
    "julia.ipynb": notebook("x = 1", kernel="julia-1.9", language="julia"),
}
NAMES = sorted(NOTEBOOKS)


@dataclass
class Found:
    """What one run of `verify` said and wrote."""

    code: int
    told: dict[str, Any]
    junit: bytes
    page: str
    said: str

    def of(self, name: str) -> dict[str, Any]:
        return next(verdict for verdict in self.told["notebooks"] if verdict["notebook"] == name)


class Person:
    """An ordinary user with a store of their own, and the images of `line` from a site's."""

    def __init__(self, line: Line, user: User, apptainer: Apptainer) -> None:
        self.user, self.store = user, user.home / "store"
        self.environment = {
            "PATH": f"{Path(apptainer.path).parent}:/usr/bin:/bin",
            "HPCBINDER_STORE_SITE": str(line.folder / "store"),
        }

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "hpcbinder", "--store", str(self.store), *arguments]

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return self.user.run(self.command(*arguments), env=self.environment, check=False, timeout=580)


@pytest.fixture(scope="module")
def person(line: Line, rig: Rig, apptainer: Apptainer) -> Iterator[Person]:
    try:
        user = rig.user
    except RigError as error:
        pytest.skip(f"rig: {error}")
    yield Person(line, user, apptainer)
    user.clean()


@pytest.fixture(scope="module")
def found(person: Person, contract_image: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Found:
    folder = person.user.home / "checkout"
    folder.mkdir()
    for name, raw in NOTEBOOKS.items():
        (folder / name).write_bytes(raw)
    (folder / "near.py").write_text("try:\n    import optional_one\nexcept ImportError:\n    pass\n")
    (folder / "script.py").write_text("from os import nothing_of_that_name\nimport os._exit_is_no_module\n")
    person.user.own(folder)
    junit, page = person.user.home / "junit.xml", person.user.home / "page.html"
    options = ["--checkout", str(folder), "--json", "--junit", str(junit), "--html", str(page)]
    done = person.run("verify", contract_image["id"], *options)
    assert done.stdout, done.stderr
    assert sorted(path.name for path in folder.iterdir()) == sorted([*NAMES, "near.py", "script.py"])
    return Found(done.returncode, json.loads(done.stdout), junit.read_bytes(), page.read_text(), done.stderr)


def test_each_notebook_has_its_verdict(found: Found) -> None:
    assert found.code == 12
    assert {name: found.of(name)["status"] for name in NAMES} == {
        "1 works.ipynb": "runs",
        "2 fails.ipynb": "fails",
        "3 network.ipynb": "network",
        "4 data.ipynb": "data",
        "5 dies.ipynb": "fails",
        "deep.ipynb": "unreadable",
        "julia.ipynb": "kernel",
    }
    assert [verdict["notebook"] for verdict in found.told["notebooks"]] == NAMES
    assert found.told["summary"].startswith("1 of 7 notebooks run")
    assert (found.told["runtime"], found.told["network"], found.told["passed"]) == ("apptainer", "off", False)


def test_an_error_on_purpose_and_a_kernel_of_another_name(found: Found) -> None:
    verdict = found.of("1 works.ipynb")
    assert verdict["line"] == "runs (8 cells, 2 of them fail on purpose: ZeroDivisionError, KeyError)"
    assert verdict["notes"][0] == "names kernel debug180313, which is not there: run with python3"
    assert (verdict["cells"], verdict["ran"]) == (8, 8)


def test_another_text_than_was_saved_is_told_and_is_no_failure(found: Found) -> None:
    verdict = found.of("1 works.ipynb")
    assert (verdict["compared"], verdict["changed"]) == (2, [8])
    assert verdict["notes"][1:] == ["cell 8: another text than was saved (of 2 that were compared)"]


def test_what_failed_where(found: Found) -> None:
    failure = found.of("2 fails.ipynb")["failure"]
    assert (failure["cell"], failure["name"]) == (2, "ModuleNotFoundError")
    assert failure["line"] == "import tool_that_is_not_there"
    assert found.of("2 fails.ipynb")["cause"].startswith("tool_that_is_not_there is not in the image: add")
    assert found.of("3 network.ipynb")["failure"]["cell"] == 2
    assert found.of("4 data.ipynb")["line"] == "needs a data file: cell 1 wants data/large.h5"
    verdict = found.of("5 dies.ipynb")
    assert verdict["line"] == "fails at cell 2: the kernel died (SIGKILL)"
    assert "memory" in verdict["cause"]
    assert verdict["notes"] == ["the kernel's last words: the very last word"]


def test_imports_that_are_missing(found: Found) -> None:
    missing = {entry["module"]: entry for entry in found.told["missing"]}
    assert missing.keys() == {"tool_that_is_not_there", "os", "os._exit_is_no_module"}
    one = missing["tool_that_is_not_there"]
    assert (one["file"], one["cell"], one["line"]) == ("2 fails.ipynb", 2, 1)
    assert (missing["os"]["name"], missing["os"]["distribution"]) == ("nothing_of_that_name", "")
    assert missing["os"]["error"] == "ImportError"


def test_the_files(found: Found) -> None:
    suite = ElementTree.fromstring(found.junit)[0]
    assert (suite.attrib["tests"], suite.attrib["failures"]) == ("7", "6")
    assert all(name in found.page for name in NAMES)


def test_nothing_is_left_of_it(found: Found, person: Person) -> None:
    assert _sleeping() == []
    assert list((person.store / "tmp").iterdir()) == []
    shown = person.run("show", found.told["id"])
    assert "verified" not in shown.stdout  # with other files than the image's


def test_the_image_s_own_notebook_and_what_show_says_then(person: Person, contract_image: dict[str, Any]) -> None:
    done = person.run("verify", contract_image["id"])
    assert done.returncode == 0, done.stderr
    assert "notebook.ipynb: runs (1 cell)" in done.stdout
    assert done.stdout.splitlines()[-1].startswith(f"{contract_image['id']}: 1 of 1 notebook runs")
    shown = person.run("show", contract_image["id"])
    assert [line for line in shown.stdout.splitlines() if line.startswith("verified") and "1 of 1" in line]


def test_build_can_verify_in_the_end(line: Line, contract_image: dict[str, Any], apptainer: Apptainer) -> None:
    environment = {**line.environment, "PATH": f"{Path(apptainer.path).parent}:{os.environ['PATH']}"}
    options = ["--no-register", "--json", "--verify"]
    done = replace(line, environment=environment).hpcbinder("build", line.repository("contract"), *options)
    told = json.loads(done.stdout)
    assert told["id"] == contract_image["id"]
    assert [verdict["status"] for verdict in told["verified"]["notebooks"]] == ["runs"]


def test_a_build_whose_notebook_does_not_run_says_so_by_its_exit(
    line: Line, contract_image: dict[str, Any], apptainer: Apptainer
) -> None:
    def change(work: Path) -> None:
        (work / "fails.ipynb").write_bytes(notebook("1/0"))

    environment = {**line.environment, "PATH": f"{Path(apptainer.path).parent}:{os.environ['PATH']}"}
    source = line.repository("notebook-fails", change, of="contract")
    options = ["--no-register", "--json", "--verify"]
    done = replace(line, environment=environment).hpcbinder("build", source, *options, check=False)
    assert done.returncode == 12, done.stderr[-2000:]
    told = json.loads(done.stdout)
    statuses = {verdict["notebook"]: verdict["status"] for verdict in told["verified"]["notebooks"]}
    assert statuses == {"fails.ipynb": "fails", "notebook.ipynb": "runs"}
    # The image is whole, and there.
    assert line.hpcbinder("show", told["id"]).stdout


def test_a_notebook_that_is_not_there(person: Person, contract_image: dict[str, Any]) -> None:
    done = person.run("verify", contract_image["id"], "notebok.ipynb")
    assert done.returncode == 2
    assert "the repository has no notebook notebok.ipynb (did you mean notebook.ipynb?)" in done.stderr


def test_a_cell_that_takes_too_long(person: Person, contract_image: dict[str, Any]) -> None:
    folder = person.user.home / "slow"
    folder.mkdir()
    (folder / "a.ipynb").write_bytes(notebook("import time\ntime.sleep(3600)"))
    person.user.own(folder)
    done = person.run("verify", contract_image["id"], "--checkout", str(folder), "--cell-timeout", "2")
    assert done.returncode == 12, done.stderr
    assert "a.ipynb: takes too long: cell 1 takes longer than 2 s" in done.stdout


def test_a_notebook_that_needs_too_much(person: Person, contract_image: dict[str, Any]) -> None:
    folder = person.user.home / "much"
    folder.mkdir()
    for name, code in {
        "memory": "x = bytearray(1 << 30)",
        "time": "import time\nwhile True:\n    time.sleep(1)",
    }.items():
        (folder / f"{name}.ipynb").write_bytes(notebook("1", code))
    person.user.own(folder)
    verify = ["verify", contract_image["id"], "--checkout", str(folder)]
    done = person.run(*verify, "memory.ipynb", "--memory", "600M")
    assert done.returncode == 12, done.stderr
    assert "memory.ipynb: fails at cell 2: needs more than 600 MiB of memory" in done.stdout
    assert "--memory" in done.stdout
    done = person.run(*verify, "time.ipynb", "--timeout", "5")
    assert done.returncode == 12, done.stderr
    assert "time.ipynb: takes too long: the notebook takes longer than 5 s" in done.stdout


def test_a_killed_verify_leaves_nothing_running(person: Person, contract_image: dict[str, Any]) -> None:
    folder = person.user.home / "killed"
    folder.mkdir()
    (folder / "a.ipynb").write_bytes(notebook(f"!sleep {SLEEP}"))
    person.user.own(folder)
    command = person.user.command(person.command("verify", contract_image["id"], "--checkout", str(folder)))
    with subprocess.Popen(
        command, env=person.user.environment(person.environment), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        assert _until(lambda: bool(_sleeping()) or process.poll() is not None)
        process.send_signal(signal.SIGKILL)
    assert _until(lambda: not _sleeping())


def _sleeping() -> list[str]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:
            continue
        if words[0].endswith(b"sleep") and SLEEP.encode() in words:
            found.append(str(path))
    return found


def _until(true: Any) -> bool:
    end = time.monotonic() + 240
    while time.monotonic() < end:
        if true():
            return True
        time.sleep(0.2)
    return False
