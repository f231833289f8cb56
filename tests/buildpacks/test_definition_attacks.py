"""Definition files of Apptainer that a stranger wrote to get at a site's logins, or at our memory and time."""

from __future__ import annotations

import io
import os
import re
import subprocess
from pathlib import Path

import pytest
from checkouts import checkout_of, plan_of, step

from hpcbinder.errors import DetectError
from hpcbinder.plan import dockerfile, write_context

HEAD = "Bootstrap: docker\nFrom: debian:bookworm-slim\n"


def test_no_login_is_there_while_files_are_copied(tmp_path: Path) -> None:
    """What is copied may take the place of the next program of the very step."""
    files = {"Singularity": f"{HEAD}%files\n  evil /usr/bin/mkdir\n%post\n  true\n", "evil": "#!/bin/sh\nenv\n"}
    plan = plan_of(tmp_path, {**files, "a.py": "import numpy\n"})
    text = dockerfile(plan, base_image="base:1", tools_image="localhost/tools:uv-1", server_image="server:1")
    number = [each.name for each in plan.steps].index("apptainer/files")
    assert all(each.runs_repository_code for each in plan.steps[number:])
    (run,) = [part for part in re.split(r"(?m)^RUN ", text)[1:] if f"steps/{number:02d}," in part]
    secrets = set(re.findall(r"type=secret,id=([^,\s]+)", run))
    assert {"hpcbinder-env-public", "hpcbinder-ca"} <= secrets
    assert [name for name in secrets if name != "hpcbinder-ca" and not name.endswith("-public")] == []


@pytest.mark.parametrize(
    "target",
    [
        "/run/hpcbinder/site/env",
        "../../../../../run/hpcbinder/site/env",
        "../../site/env",
        "b/../../../site/env",
        "gone",
        "x",
        "{root}/a",
        "../../{name}/a",
    ],
)
@pytest.mark.parametrize("source", ["d", "."])
def test_links_that_leave_the_repository_are_not_copied(tmp_path: Path, target: str, source: str) -> None:
    root = tmp_path / "checkout"
    (root / "d/b").mkdir(parents=True)
    (root / "d/x").symlink_to(target.format(root=root, name=root.name))
    with pytest.raises(DetectError, match=r"^Singularity:4: copies d/x, a symlink that"):
        plan_of(root, {"Singularity": f"{HEAD}%files\n  {source} /opt/d\n", "a": "a", "d/b/c": "c"})


def test_a_link_behind_a_link_counts_as_well(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "e").mkdir()
    (tmp_path / "d/x").symlink_to("../e")
    (tmp_path / "e/y").symlink_to("/run/hpcbinder/site")
    with pytest.raises(DetectError, match=r"^Singularity:4: copies e/y, a symlink that leaves the repository"):
        plan_of(tmp_path, {"Singularity": f"{HEAD}%files\n  d /opt/d\n"})


def test_links_inside_the_repository_are_copied_as_what_they_lead_to(tmp_path: Path) -> None:
    """As Apptainer does it; what they lead to is there for the step even where %files does not name it."""
    root = tmp_path / "checkout"
    for folder in ("d/b", "e/f", "g"):
        (root / folder).mkdir(parents=True)
    for name, target in (("d/x", "../e"), ("d/y", "b/../../a"), ("e/z", "../g/h"), ("d/v", "x/f/deep")):
        (root / name).symlink_to(target)
    files = {"a": "a\n", "d/b/c": "c\n", "g/h": "h\n", "e/f/deep": "deep\n"}
    plan = plan_of(root, {"Singularity": f"{HEAD}%files\n  d /opt/d\n", **files})
    out = io.BytesIO()
    write_context(plan, checkout_of(root), "FROM base\n", out)
    unpacked = tmp_path / "unpacked"
    unpacked.mkdir()
    subprocess.run(["tar", "-x", "-C", unpacked], input=out.getvalue(), check=True)
    number = [each.name for each in plan.steps].index("apptainer/files")
    there = tmp_path / "there"
    subprocess.run(["cp", "-fLr", f"{unpacked}/steps/{number:02d}/repo/d", there], check=True)
    found = {str(path.relative_to(there)): path.read_text() for path in there.rglob("*") if path.is_file()}
    deep = {"x/f/deep": "deep\n", "x/z": "h\n", "v": "deep\n"}
    assert found == {"b/c": "c\n", "y": "a\n", **deep}
    assert not any(path.is_symlink() for path in there.rglob("*"))


@pytest.mark.parametrize(
    "target",
    [
        "//run/hpcbinder/tools/uv",
        "///run/hpcbinder/tools/uv",
        "/opt//../run/hpcbinder/tools/uv",
        "/./run/hpcbinder/site/env",
        "/var/run/hpcbinder/tools/uv",
        "/var/lock/x",
        "/etc/ld.so.preload",
        "/etc//ld.so.preload",
        "//tmp/x",
        "/proc/self/root/etc/x",
        "relative",
        "//",
    ],
)
def test_no_spelling_of_a_covered_place_gets_by(tmp_path: Path, target: str) -> None:
    source = "run" if target == "//" else "data"
    with pytest.raises(DetectError, match=r"^Singularity:4: copies to .*, which clusters bind over"):
        plan_of(tmp_path, {"Singularity": f"{HEAD}%files\n  {source} {target}\n", "data": "d", "run/hpcbinder/x": "x"})


@pytest.mark.parametrize(
    ("source", "target", "file"),
    [
        ("ld.so.preload", "/etc/", "ld.so.preload"),
        ("etc", "/", "etc/ld.so.preload"),
        (".", "/", "run/hpcbinder/tools/uv"),
        ("var", "/", "var/tmp/x"),
    ],
)
def test_what_lands_below_a_target_counts(tmp_path: Path, source: str, target: str, file: str) -> None:
    with pytest.raises(DetectError, match=r"^Singularity:4: copies to "):
        plan_of(tmp_path, {"Singularity": f"{HEAD}%files\n  {source} {target}\n", file: "x"})


def test_targets_are_written_without_what_says_nothing(tmp_path: Path) -> None:
    text = f"{HEAD}%files\n  d //opt/./a//b\n  d /opt/c/\n  d /usr/local\n"
    plan = plan_of(tmp_path, {"Singularity": text, "d": "d"})
    assert step(plan, "apptainer/files").data["files"] == "d\t/opt/a/b\nd\t/opt/c/\nd\t/usr/local\n"


@pytest.mark.parametrize(
    ("lines", "number"),
    [
        (["export A=aaaaaaaaaa", *["export A=$A$A"] * 34], 16),
        (["export A=aaaaaaaaaa", *["export A=$A$A"] * 11, *["export PATH=/$A$A:$PATH"]], 16),
        (["A=" + "a" * 1000, "B=" + "$A" * 400_000], 5),
        (["A=" + "a" * 1000, "PATH=" + "$A" * 400_000], 5),
        (["A='" + "a" * 40_000 + "'"], 4),
        (["A=" + "a" * 30_000, *(f"B{number}=$A" for number in range(50_000))], 8),
        (["PATH=" + ":".join(f"/{number}" for number in range(1001))], 4),
    ],
)
def test_variables_do_not_grow_without_bounds(tmp_path: Path, lines: list[str], number: int) -> None:
    text = HEAD + "%environment\n" + "\n".join(lines) + "\n"
    with pytest.raises(DetectError, match=rf"^Singularity:{number}: sets .*more than"):
        plan_of(tmp_path, {"Singularity": text})


@pytest.mark.parametrize("line", ["From: debian:12{}y", "From: {}y", "From{}y", "{}y: x{}z"])
def test_blanks_take_no_time(tmp_path: Path, line: str) -> None:
    """Seconds, where trying each blank as the value's end took hours."""
    text = f"Bootstrap: docker\n{line.replace('{}', ' ' * 400_000)}\n"
    begun = os.times().user
    with pytest.raises(DetectError):
        plan_of(tmp_path, {"Singularity": text})
    assert os.times().user - begun < 20
