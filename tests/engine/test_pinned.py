"""Dockerfiles whose text tells what their RUN lines mount."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from checkouts import fill

from hpcbinder.engine.pinned import Pinned, has_mounts, pin, unpinned

OURS = """\
# Written by us.
FROM localhost/tools:1 AS tools

FROM localhost/base:1 AS server
RUN \\
    --mount=type=bind,source=steps/00,target=/run/step \\
    --mount=type=bind,from=tools,source=/,target=/run/tools \\
    --mount=type=tmpfs,target=/run/work \\
    --mount=type=secret,id=x,target=/run/x \\
    ["/bin/sh", "/run/step/run.sh"]

FROM server AS apart
RUN --mount=type=bind,source=steps/01,target=/run/step ["/bin/sh", "/run/step/run.sh"]

FROM server
RUN --mount=type=bind,from=apart,source=/opt,target=/made ["/bin/cp", "-a", "/made/.", "/opt"]
COPY ["content/", "/"]
LABEL a="FROM server RUN --mount=type=bind,from=tools"
"""
FILES = {
    "steps/00/run.sh": "one",
    "steps/00/files/a": "a",
    "steps/01/run.sh": "two",
    "content/srv/page": "page",
}


def pinned(folder: Path, text: str = OURS, files: dict[str, str] | None = None, **images: str) -> Pinned:
    ids = {"localhost/tools:1": "id-1", "localhost/base:1": "id-2", **images}
    return pin(text, fill(folder, {**FILES, **(files or {})}), ids.get)


def mounts(text: str) -> list[str]:
    return re.findall(r"(?<=type=bind,)(?:source|from)=\S+?(?=,)", text)


def test_folders_and_stages_are_renamed_after_what_they_hold(tmp_path: Path) -> None:
    found = pinned(tmp_path)
    assert found.cacheable
    names = mounts(found.text)
    assert [unpinned(name) for name in names[:1]] == ["source=steps/00"]
    for name in names:
        if name.startswith("source=steps"):
            assert (tmp_path / name.removeprefix("source=") / "run.sh").exists()
    assert names[1] == f"from={found.stages['tools']}"
    assert f"FROM localhost/tools:1 AS {found.stages['tools']}\n" in found.text
    assert f"FROM {found.stages['server']} AS {found.stages['apart']}\n" in found.text
    assert found.text.endswith(OURS[OURS.index("COPY") :])  # what is no mount stays as it is


def test_a_mounted_stage_ends_with_nothing(tmp_path: Path) -> None:
    text = pinned(tmp_path).text
    apart = text.partition(" AS apart-")[2].partition("\nFROM")[0]
    assert apart.rstrip().endswith("ARG hpcbinder_end")
    assert text.count("ARG hpcbinder_end") == 1  # tools holds nothing to run, server is not mounted


def test_the_same_again_is_the_same_text(tmp_path: Path) -> None:
    assert pinned(tmp_path / "one") == pinned(tmp_path / "two")


@pytest.mark.parametrize(
    ("change", "other", "same"),
    [
        ({"steps/00/run.sh": "changed"}, {"server", "apart"}, {"tools"}),
        ({"steps/01/run.sh": "changed"}, {"apart"}, {"tools", "server"}),
        ({"content/srv/page": "changed"}, set(), {"tools", "server", "apart"}),
    ],
)
def test_a_changed_file_changes_what_stands_on_it(
    tmp_path: Path, change: dict[str, str], other: set[str], same: set[str]
) -> None:
    before, after = pinned(tmp_path / "before"), pinned(tmp_path / "after", files=change)
    assert {name for name in before.stages if before.stages[name] != after.stages[name]} == other
    assert {name for name in before.stages if before.stages[name] == after.stages[name]} == same


def test_another_image_changes_what_stands_on_it(tmp_path: Path) -> None:
    before = pinned(tmp_path / "before")
    after = pinned(tmp_path / "after", **{"localhost/tools:1": "id-7"})
    assert before.stages.keys() == {n for n in before.stages if before.stages[n] != after.stages[n]}


def test_modes_count_and_times_do_not(tmp_path: Path) -> None:
    fill(tmp_path / "a", FILES)
    fill(tmp_path / "b", FILES)
    (tmp_path / "a/steps/00/run.sh").chmod(0o755)
    (tmp_path / "b/steps/00/run.sh").chmod(0o755)
    (tmp_path / "b/steps/00/run.sh").touch()
    assert pinned(tmp_path / "a").text != pinned(tmp_path / "c").text


def test_what_a_later_stage_mounts_may_be_missing(tmp_path: Path) -> None:
    """Only what is needed up to the stage that is built is sent."""
    (tmp_path / "here").mkdir()
    fill(tmp_path / "here", {"steps/00/run.sh": "one"})
    found = pin(OURS, tmp_path / "here", lambda ref: None)
    assert found.cacheable
    assert "source=steps/01,target=" in found.text


@pytest.mark.parametrize(
    "line",
    [
        "RUN --mount=type=bind,target=/all ls /all",
        "RUN --mount=target=/all ls /all",
        "RUN --mount=type=bind,source=content,target=/c ls /c",
        "RUN --mount=type=bind,from=docker.io/library/debian,target=/d ls /d",
        "RUN --mount=type=bind,source=$X,target=/x ls /x",
        "RUN --mount=type=bind,source=steps/00/run.sh,target=/x ls /x",
    ],
)
def test_what_no_name_can_tell_is_not_cached(tmp_path: Path, line: str) -> None:
    """All is mounted, or what is copied too, or an image: then every step is run."""
    found = pinned(tmp_path, f"FROM localhost/base:1\nCOPY content/ /\n{line}\n")
    assert not found.cacheable
    assert line in found.text
    assert (tmp_path / "content/srv/page").exists()


@pytest.mark.parametrize(
    ("text", "has"),
    [
        ("RUN --mount=type=cache,target=/x y", True),
        ("RUN --mo\\\nunt=type=cache,target=/x y", True),
        ("RUN --mo\\ \n\n  # a comment\nunt=type=cache,target=/x y", True),
        ("# escape=`\nRUN --mo`\nunt=type=cache,target=/x y", True),
        ("# RUN --mount=x\nRUN --network=none x", False),
    ],
)
def test_mounts_are_found_however_a_line_is_broken(text: str, has: bool) -> None:
    assert has_mounts(text) is has


def test_plain_dockerfiles_stay_as_they_are(tmp_path: Path) -> None:
    text = "# syntax=x\nARG V=1\nFROM debian:$V\nRUN a \\\n  # a comment\n  && b\nCOPY . /srv\n\n# the end"
    found = pinned(tmp_path, text)
    assert (found.text, found.cacheable, found.stages) == (text, True, {})
