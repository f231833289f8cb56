"""The parts of an assembled image that need no package and no engine."""

from __future__ import annotations

import dataclasses
import io
import tarfile
from pathlib import Path

import pytest
from checkouts import checkout_of, plan_of
from recorded_index import RecordedResolver

from hpcbinder.builders.assembling.assemble import server_identity
from hpcbinder.builders.assembling.changes import changes
from hpcbinder.builders.assembling.tree import Entry, File, Folder, Gone, Link, layer_tar
from hpcbinder.builders.assembling.venv import venv
from hpcbinder.builders.choose import build_image
from hpcbinder.builders.obstacle import obstacle
from hpcbinder.catalog import Catalog
from hpcbinder.config import load
from hpcbinder.errors import BuildError
from hpcbinder.model import Assembly, Edit, Plan, TextFile
from hpcbinder.plan import write_content
from hpcbinder.progress import Silent
from hpcbinder.squashfs import Options, write_layer


def planned(folder: Path, **files: str) -> Plan:
    """The plan of a repository with these files; `postBuild` and `start` are programs."""
    for name, text in files.items():
        path = folder / name.replace("_", ".")
        path.write_text(text)
        path.chmod(0o755)
    return plan_of(folder, name="some", resolver=RecordedResolver())


def layer(path: Path, entries: dict[str, Entry]) -> Path:
    write_layer(io.BytesIO(layer_tar(entries)), path, Options())
    return path


def test_steps_that_are_data_are_no_obstacle(tmp_path: Path) -> None:
    plan = planned(tmp_path, requirements_txt="six\n", start='#!/bin/sh\nexec "$@"\n')
    assert obstacle(plan) is None
    assert [step.assembly is not None for step in plan.steps] == [True] * 3


def test_a_step_that_has_to_be_run_is_named_where_nothing_runs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    plan = planned(source, postBuild="#!/bin/sh\n")
    monkeypatch.setenv("PATH", str(tmp_path))
    config = load(environ={"HPCBINDER_BUILD_ENGINE": "none", "HOME": str(tmp_path)})
    (tmp_path / "scratch").mkdir()
    with pytest.raises(BuildError, match="step postbuild/run has to be run.*Apptainer is not installed") as caught:
        build_image(
            plan,
            checkout_of(source, name="some"),
            catalog=Catalog(tmp_path / "store"),
            scratch=tmp_path / "scratch",
            config=config,
            options=Options(),
            reporter=Silent(),
        )
    assert "--without postbuild" in (caught.value.hint or "")
    assert not list((tmp_path / "store").glob("bases/*"))


class Ear(Silent):
    """Remembers what was said."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def phase(self, phase: str, message: str, progress: float | None = None) -> None:
        self.said.append(message)


@pytest.mark.parametrize(
    ("files", "why"),
    [
        ({"postBuild": "#!/bin/sh\n"}, "step postbuild/run has to be run (runs postBuild"),
        # Somebody with an engine and no Apptainer runs what the engine has.
        ({"requirements_txt": "six\n"}, "no runtime is here that runs images from their files"),
    ],
)
def test_auto_says_what_an_engine_is_needed_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, str], why: str
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    source = tmp_path / "source"
    source.mkdir()
    ear = Ear()
    with pytest.raises(BuildError, match="nothing here can build"):
        build_image(
            planned(source, **files),
            checkout_of(source, name="some"),
            catalog=Catalog(tmp_path / "store"),
            scratch=tmp_path,
            config=load(environ={"HOME": str(tmp_path)}),
            options=Options(),
            reporter=ear,
        )
    assert any(line.startswith(f"an engine is needed: {why}") for line in ear.said), ear.said


def test_the_other_way_to_say_what_a_step_does_is_no_part_of_what_the_plan_is(tmp_path: Path) -> None:
    plan = planned(tmp_path, requirements_txt="six\n")
    without = [dataclasses.replace(step, assembly=None) for step in plan.steps]
    assert dataclasses.replace(plan, steps=tuple(without)).id == plan.id


def test_what_wheels_become_is_part_of_what_names_the_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = planned(tmp_path, requirements_txt="six\n")
    before = server_identity(plan, plan.steps[:1])
    assert server_identity(plan, plan.steps[:1]) == before
    monkeypatch.setattr("hpcbinder.builders.assembling.assemble.FORM", "another")
    assert server_identity(plan, plan.steps[:1]) != before


def test_an_environment_tells_nothing_of_the_machine_it_was_made_on() -> None:
    entries = venv("/opt/there", "/usr/bin/python3", "3.99.1")
    texts = {path: entry.content.decode() for path, entry in entries.items() if isinstance(entry, File)}
    assert "version_info = 3.99.1\n" in texts["/opt/there/pyvenv.cfg"]
    assert "home = /usr/bin\n" in texts["/opt/there/pyvenv.cfg"]
    assert "/opt/there" in texts["/opt/there/bin/activate"]
    assert "lib/python3.99/site-packages" in texts["/opt/there/bin/activate_this.py"]
    assert not [path for path, text in texts.items() if "hpcbinder-venv-" in text]
    links = {path: entry.target for path, entry in entries.items() if isinstance(entry, Link)}
    assert links == {
        "/opt/there/lib64": "lib",
        "/opt/there/bin/python": "/usr/bin/python3",
        "/opt/there/bin/python3": "python",
        "/opt/there/bin/python3.99": "python",
    }


def test_a_layer_has_the_folders_above_its_files() -> None:
    with tarfile.open(fileobj=io.BytesIO(layer_tar({"/a/b/c": File(b"x", 0o755), "/a/d": Gone()}, root=True))) as tar:
        found = {member.name: (member.isdir(), member.mode, member.mtime) for member in tar}
    assert found == {
        ".": (True, 0o755, 1577836800),
        "a": (True, 0o755, 1577836800),
        "a/b": (True, 0o755, 1577836800),
        "a/b/c": (False, 0o755, 1577836800),
        "a/.wh.d": (False, 0o644, 1577836800),
    }


def test_what_is_taken_away_edited_and_put_there(tmp_path: Path) -> None:
    first = layer(
        tmp_path / "one",
        {
            "/opt/x/static/css/a.css": File(b""),
            "/opt/x/static/images/logo.png": File(b""),
            "/opt/x/static/top.html": File(b""),
            "/opt/x/lib/a.js.map": File(b""),
            "/opt/x/lib/a.js": File(b""),
            "/opt/x/kernel.json": File(b'{\n "python",\n}\n'),
            "/opt/x/empty": Folder(),
        },
    )
    second = layer(tmp_path / "two", {"/opt/x/kernel.json": File(b'{\n "python3",\n}\n', 0o600)})
    assembly = Assembly(
        prefix="/opt/x",
        without=("/opt/x/static/*", "/opt/x/*.map"),
        but=("/opt/x/static/images*",),
        edits=(Edit("/opt/x/kernel.json", r'^( *)"python3*",$', r'\1"/opt/x/bin/python",'), Edit("/no", "a", "b")),
        files={"/opt/new": TextFile("text", 0o755)},
    )
    assert changes(assembly, [first, second]) == {
        # The folder alone: a mark in it would bring it back.
        "/opt/x/static/css": Gone(),
        "/opt/x/static/top.html": Gone(),
        "/opt/x/lib/a.js.map": Gone(),
        "/opt/x/kernel.json": File(b'{\n "/opt/x/bin/python",\n}\n', 0o600),
        "/opt/new": File(b"text", 0o755),
    }


def test_the_content_is_the_one_that_engines_get(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "file").write_text("1")
    plan = planned(tmp_path, start='#!/bin/sh\nexec "$@"\n')
    out = io.BytesIO()
    write_content(plan, checkout_of(tmp_path, name="some"), out)
    out.seek(0)
    with tarfile.open(fileobj=out) as tar:
        modes = {member.name: member.mode for member in tar}
    assert modes == {
        "opt": 0o755,
        "opt/hpcbinder": 0o755,
        "opt/hpcbinder/manifest.json": 0o644,
        "srv": 0o755,
        "srv/repo": 0o755,
        "srv/repo/data": 0o755,
        "srv/repo/data/file": 0o644,
        "srv/repo/start": 0o755,
    }
