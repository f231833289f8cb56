"""`hpcbinder run --notebook`: in a real image, here and as job arrays of a real Slurm, as an ordinary user."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from batch_files import cell, notebook
from waiting import eventually

from hpcbinder.catalog import Catalog
from hpcbinder.model import Entry
from rig import Apptainer, Charliecloud, Rig, RigError, Slurm, User

HOSTILE = 'it\'s $(touch pwned) `touch pwned`; "{run}" %a <b>\\n'


class Person:
    """Somebody on the login node, with a store that has one image."""

    def __init__(self, user: User, slurm: Slurm, apptainer: Apptainer, image: Entry) -> None:
        self.user, self.store = user, user.home / "store"
        self.environ = {**slurm.environment, "PATH": f"{apptainer.bin}:/usr/bin:/bin"}
        catalog = Catalog(self.store)
        with catalog.temporary() as place:
            folder = place / "image"
            folder.mkdir()
            shutil.copy(image.formats["squashfs"], folder / "image.squashfs")
            catalog.add(dataclasses.replace(image, formats={"squashfs": "image.squashfs"}), folder)
        self.work = user.home / "work"
        self.work.mkdir()
        (self.work / "own.ipynb").write_bytes(OWN)
        user.own(self.store, self.work)

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-B", "-m", "hpcbinder", "--store", str(self.store), *arguments]

    def run(self, *arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        done = self.user.run(self.command(*arguments), env=self.environ, cwd=self.work, timeout=120, check=False)
        assert done.returncode == code, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return done

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        return self.user.popen(self.command("--json-logs", *arguments), env=self.environ, cwd=self.work)

    def queue(self) -> str:
        return self.user.run(["squeue", "--noheader", "--me", "--format=%j %T"], env=self.environ).stdout


OWN = notebook(
    cell("text = ''\nnumber = 0", "parameters"),
    cell("import json, os, socket\nprint(json.dumps([text, number, socket.gethostname(), os.getcwd()]))"),
)


@pytest.fixture(scope="module")
def person(rig: Rig, slurm: Slurm, apptainer: Apptainer, notebook_image: Entry) -> Iterator[Person]:
    try:
        user = rig.user
    except RigError as error:
        pytest.skip(f"rig: {error}")
    user.knows(slurm.hosts)
    yield Person(user, slurm, apptainer, notebook_image)
    rig.slurm.cancel(user.uid)
    user.clean()


def printed(path: str | Path) -> str:
    cells = json.loads(Path(path).read_bytes())["cells"]
    return "".join("".join(out.get("text", "")) for one in cells for out in one.get("outputs", ()))


def begun(process: subprocess.Popen[str]) -> None:
    """Wait until its last cell runs."""
    assert process.stdout is not None
    said = []
    for line in process.stdout:
        said.append(line)
        if "running (cell 4" in line:
            return
    raise AssertionError("".join(said))


def test_a_notebook_of_the_image_with_each_value_here(person: Person) -> None:
    options = ["--array", "alpha=1,3", "-r", "title=05", "--at-once", "2", "--report", "--json", "--output", "here"]
    done = person.run("run", "books", "--notebook", "fits/fit.ipynb", *options, code=12)
    told = json.loads(done.stdout)
    first, second = told["tasks"]
    assert (first["state"], first["parameters"]) == ("done", {"title": "05", "alpha": 1})
    assert (second["state"], second["name"]) == ("failed", "1-fit-alpha=3")
    assert second["error"]["message"] == "ValueError: <b>alpha</b> of 3"
    output = person.work / "here"
    work = output / "0-fit-alpha=1" / "fits"
    assert printed(first["output"]).startswith(f"[1, '05', 'near', '{os.uname().nodename}', '{work}']\none,two")
    # Files that the notebook wrote are kept, and nothing of how they came about.
    assert [path.relative_to(output) for path in sorted((output / "0-fit-alpha=1").rglob("*"))] == [
        Path("0-fit-alpha=1/fits"),
        Path("0-fit-alpha=1/fits/made.txt"),
    ]
    assert (work / "made.txt").read_text() == "05"
    # The one that failed is kept as far as it came, with its error.
    last = json.loads(Path(second["output"]).read_bytes())["cells"][-1]
    assert last["outputs"][0]["ename"] == "ValueError"
    page = Path(told["report"]).read_text()
    assert 'href="1-fit-alpha%3D3.html"' in page
    assert "&lt;b&gt;alpha&lt;/b&gt; of 3" in page
    assert "one,two" in Path(first["page"]).read_text()
    assert sorted(path.name for path in (output / ".hpcbinder").iterdir()) == ["log", "results"]


def test_cells_without_an_end_and_kernels_that_die_are_kept_as_far_as_they_came(person: Person) -> None:
    both = ["--notebook", "slow.ipynb", "--notebook", "dies.ipynb", "-p", "seconds=10000", "--at-once", "2"]
    done = person.run("run", "books", *both, "--cell-timeout", "3", "--json", "--output", "ends", code=12)
    slow, dies = json.loads(done.stdout)["tasks"]
    assert slow["error"]["message"] == "Timeout: the cell took longer than 3 s"
    assert dies["error"]["message"].startswith("DeadKernel: ")
    assert dies["notes"] == [
        "Passed unknown parameter: seconds",
        "Input notebook does not contain a cell with tag 'parameters'",
    ]
    assert printed(slow["output"]) == printed(dies["output"]) == "kept\n"


def test_rows_of_a_table_as_one_job_array(person: Person) -> None:
    quoted = HOSTILE.replace('"', '""')
    (person.work / "table.csv").write_text(f'text,number\n"{quoted}",\nplain,2.5\n')
    output = f"out {HOSTILE.replace(chr(92), '')}".replace("\n", "")
    options = ["--array", "table.csv", "--at-once", "2", "--json", "--output", output]
    done = person.run("run", "--on", "slurm", "books", "--notebook", "./own.ipynb", *options)
    told = json.loads(done.stdout)
    assert told["folder"] == str(person.work / output)
    assert [task["state"] for task in told["tasks"]] == ["done"] * 2
    values = [json.loads(printed(task["output"])) for task in told["tasks"]]
    assert [value[:2] for value in values] == [[HOSTILE, 0], ["plain", 2.5]]
    assert {value[2] for value in values} <= {"n1", "n2"}
    assert {value[3] for value in values} == {str(person.work)}
    assert told["tasks"][1]["name"] == "1-own-text=plain-number=2.5"
    assert not list(person.user.home.rglob("pwned"))
    assert person.queue() == ""


@pytest.mark.parametrize(("where", "number"), [("here", signal.SIGTERM), ("slurm", signal.SIGINT)])
def test_whoever_ends_it_keeps_what_there_is(person: Person, where: str, number: int) -> None:
    options = ["-p", "seconds=10000", "--output", f"ended-{where}", "--report"]
    job = ["--on", "slurm"] if where == "slurm" else []
    process = person.start("run", *job, "books", "--notebook", "slow.ipynb", *options)
    begun(process)
    os.kill(process.pid, number)
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 130, said
    assert eventually(lambda: not person.queue()), person.queue()
    output = person.work / f"ended-{where}"
    assert printed(output / "slow.ipynb") == "kept\n"
    page = (output / "index.html").read_text()
    assert 'class="mark cancelled"' in page
    if where == "here":
        # Slurm leaves a task a few seconds, which may be too few where much else goes on.
        assert "In [4], Stopped: ended from outside (SIGTERM)" in page
        cells = json.loads((output / "slow.ipynb").read_bytes())["cells"]
        assert [out["ename"] for each in cells for out in each.get("outputs", ()) if "ename" in out] == ["Stopped"]
    assert eventually(lambda: not person.user.processes()), person.user.processes()


def test_a_terminal_that_goes_away_takes_no_job_along(person: Person) -> None:
    options = ["-p", "seconds=2", "--output", "left"]
    process = person.start("run", "--on", "slurm", "books", "--notebook", "slow.ipynb", *options)
    begun(process)
    os.kill(process.pid, signal.SIGHUP)
    assert process.wait(60) == 129
    done = person.run("collect", "left")
    assert done.stdout.splitlines()[0].startswith("slow: done, ")
    assert "kept" in printed(person.work / "left/slow.ipynb")


def test_jobs_that_are_left_alone_and_cancelled_by_others(person: Person) -> None:
    command = ["run", "--on", "slurm", "books", "--notebook", "slow.ipynb", "--array", "seconds=10000,10001"]
    told = json.loads(person.run(*command, "--at-once", "1", "--detach", "--json", "--output", "alone").stdout)
    assert [task["state"] for task in told["tasks"]] == ["waiting", "waiting"]
    person.user.run(["scancel", told["job"]], env=person.environ)
    found: dict[str, Any] = json.loads(person.run("collect", "alone", "--json", code=12).stdout)
    assert [task["state"] for task in found["tasks"]] == ["cancelled", "cancelled"]
    assert "its job was cancelled" in found["tasks"][1]["reason"]


def test_an_error_that_a_cell_is_tagged_for_in_another_runtime(person: Person, charliecloud: Charliecloud) -> None:
    person.environ["PATH"] = f"{Path(charliecloud.path).parent}:{person.environ['PATH']}"
    done = person.run("run", "--runtime", "charliecloud", "--notebook", "tagged.ipynb", "--output", "tagged", "books")
    assert done.stdout.splitlines()[-1] == f"1 of 1 notebook executed: {person.work / 'tagged'}"
    cells = json.loads((person.work / "tagged/tagged.ipynb").read_bytes())["cells"]
    assert [each["cell_type"] for each in cells] == ["code", "code"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--notebook", "nowhere.ipynb"], "the image's repository has no nowhere.ipynb"),
        (["--notebook", "own.ipynb"], "the one here is ./own.ipynb"),
        (["--notebook", "./nowhere.ipynb"], "No such file"),
        (["--notebook", "fits/../../../etc/passwd"], "has no fits/../../../etc/passwd"),
        (["--notebook", "./none.txt"], "no notebook"),
        (["--notebook", "slow.ipynb", "--output", "full"], "is not empty"),
        (["--notebook", "slow.ipynb", "--output", "a:b"], "cannot be bound"),
        (["--notebook", "slow.ipynb", "-p", "a;b=1"], "no name of a parameter"),
        (["--notebook", "slow.ipynb", "--detach"], "add --on slurm"),
        (["--notebook", "slow.ipynb", "--", "python"], "--notebook runs no command"),
        (["--on", "slurm", "--notebook", "slow.ipynb", "--partition", "nowhere"], "Invalid partition"),
        (["-p", "a=1"], "add --notebook"),
    ],
)
def test_what_cannot_be_meant(person: Person, arguments: list[str], message: str) -> None:
    (person.work / "none.txt").write_text("text")
    (person.work / "full").mkdir(exist_ok=True)
    (person.work / "full" / "file").touch()
    os.chown(person.work / "full", person.user.uid, person.user.uid)
    command = person.command("run", "books", *arguments)
    done = person.user.run(command, env=person.environ, cwd=person.work, check=False)
    assert done.returncode in (2, 9), done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert person.queue() == ""
    assert not list(person.work.glob("run-*"))
