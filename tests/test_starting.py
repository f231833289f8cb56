"""Config files to begin with: what is in them, and that nothing of anybody's is lost."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
from checkouts import checkout_of, fill, plan_of
from notebook_files import notebook
from recorded_index import RecordedConda, RecordedResolver

from hpcbinder.errors import UsageError
from hpcbinder.model import AsOf, Inferred, Plan
from hpcbinder.starting import Start, config_folder, starting_files, write_starts

INDEX = RecordedResolver(packages=dict.fromkeys(("graphviz", "pyyaml", "cowsay", "dask"), ("1.0", ())))


def planned(folder: Path, cell: str, **files: str) -> Plan:
    fill(folder, {name.replace("__", "."): text for name, text in files.items()})
    (folder / "a.ipynb").write_bytes(notebook(cell))
    return plan_of(folder, resolver=INDEX)


def texts(plan: Plan) -> dict[str, str]:
    return {start.name: start.text for start in starting_files(plan)}


def test_what_is_written(tmp_path: Path) -> None:
    plan = planned(tmp_path, "import yaml, graphviz, cowsay, utils\nimport dask.array")
    written = texts(plan)
    assert written["runtime.txt"] == "python-3.11\n"
    assert written["apt.txt"].splitlines()[1:] == ["graphviz"]
    lines = [line for line in written["requirements.txt"].splitlines() if line and not line.startswith("#")]
    assert [line.split("#")[0].strip() for line in lines] == [
        "cowsay==1.0",
        "dask[complete]==1.0",
        "graphviz==1.0",
        "PyYAML==1.0",
    ]
    assert "BY ITS NAME ALONE" in lines[0] and lines[3].endswith("# import yaml (a.ipynb, cell 1)")
    assert "# a.ipynb: imports utils (cell 1): it looks like a file of the author's" in written["requirements.txt"]


def test_the_files_lead_to_the_same_packages(tmp_path: Path) -> None:
    plan = planned(tmp_path, "import yaml, graphviz")
    again = planned(tmp_path, "import yaml, graphviz", **{n.replace(".", "__"): t for n, t in texts(plan).items()})
    assert again.inferred == () and [lock.packages for lock in again.locks] == [lock.packages for lock in plan.locks]
    assert {start.text for start in starting_files(again)} == {""}
    assert [start.why for start in starting_files(again)] == [
        "requirements.txt says what is installed",
        "runtime.txt says which Python",
        "apt.txt says which Debian packages",
    ]


def test_the_date_is_told(tmp_path: Path) -> None:
    plan = replace(planned(tmp_path, "import numpy"), as_of=AsOf("2019-03-01T23:59:59Z", "the commit's"))
    assert "Versions as of 2019-03-01, for Python 3.11: the commit's." in texts(plan)["requirements.txt"]


def test_hostile_names_stay_in_comments(tmp_path: Path) -> None:
    plan = planned(tmp_path, "import numpy")
    bad = Inferred("numpy", "import numpy", "x\n--index-url https://evil.example.org\\\r${HOME} \u202e.ipynb\\", 1)
    text = texts(replace(plan, inferred=(bad,)))["requirements.txt"]
    comment = "# import numpy (x?--index-url https://evil.example.org????HOME? ?.ipynb?, cell 1)"
    assert [line for line in text.splitlines() if line and not line.startswith("#")] == [f"numpy==2.1.1  {comment}"]


def test_who_says_it_already(tmp_path: Path) -> None:
    fill(tmp_path, {"environment.yml": "dependencies:\n- numpy\n"})
    plan = plan_of(tmp_path, resolver=INDEX, conda=RecordedConda())
    assert [start.why for start in starting_files(plan)][:2] == [
        "environment.yml says what is installed",
        "environment.yml says which Python",
    ]
    (tmp_path / "own").mkdir()
    own = plan_of(tmp_path / "own", {"Dockerfile": "FROM debian\n"}, resolver=INDEX)
    assert {start.text for start in starting_files(own)} == {""}


def test_where_config_files_count(tmp_path: Path) -> None:
    assert config_folder(checkout_of(tmp_path)) == ""
    (tmp_path / ".binder").mkdir()
    assert config_folder(checkout_of(tmp_path)) == ".binder"


TWO = (Start("a.txt", "a\n", "because"), Start("b.txt", "b\n", "because"), Start("c.txt", "", "no need"))


def test_written_whole_or_not_at_all(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "deep"
    assert [each.written for each in write_starts(TWO, folder, force=False)] == [True, True, False]
    assert sorted(path.name for path in folder.iterdir()) == ["a.txt", "b.txt"]
    (folder / "b.txt").write_text("mine")
    (folder / "a.txt").unlink()
    with pytest.raises(UsageError, match=r"b\.txt: there already, nothing was written") as caught:
        write_starts(TWO, folder, force=False)
    assert "--force" in (caught.value.hint or "") and not (folder / "a.txt").exists()
    assert (folder / "b.txt").read_text() == "mine"
    write_starts(TWO, folder, force=True)
    assert (folder / "b.txt").read_text() == "b\n"


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "target").write_text("mine")
    (tmp_path / "a.txt").symlink_to("target")
    (tmp_path / "b.txt").symlink_to("nowhere")
    with pytest.raises(UsageError, match=r"a\.txt, b\.txt: there already"):
        write_starts(TWO, tmp_path, force=False)
    write_starts(TWO, tmp_path, force=True)
    assert (tmp_path / "target").read_text() == "mine" and not (tmp_path / "nowhere").exists()


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot be written"):
        write_starts(TWO, tmp_path / "file" / "x", force=False)
    os.mkfifo(tmp_path / "a.txt")
    with pytest.raises(UsageError, match="there already"):
        write_starts(TWO, tmp_path, force=False)
