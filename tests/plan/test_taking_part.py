"""`--buildpack` and `--without`: which packs take part, whose files count, and what a plan remembers of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from checkouts import checkout_of, fill, reason
from recorded_index import RecordedConda, RecordedResolver

from hpcbinder.errors import DetectError, UsageError
from hpcbinder.model import Plan
from hpcbinder.plan import load_packs, make_plan, manifest

FILES = {
    "Dockerfile": "FROM debian:bookworm\n",
    "environment.yml": "dependencies:\n- numpy\n",
    "requirements.txt": "scipy\n",
    "runtime.txt": "python-3.11\n",
    "apt.txt": "cowsay\n",
    "postBuild": "#!/bin/sh\ntrue\n",
}


def planned(folder: Path, *chosen: str, files: dict[str, str] = FILES, **more: Any) -> Plan:
    fill(folder, files)
    return make_plan(
        checkout_of(folder),
        packs=load_packs(()),
        suite="bookworm",
        architecture="amd64",
        chosen=chosen,
        resolver=RecordedResolver(),
        conda=RecordedConda(),
        **more,
    )


def test_only_the_files_of_what_was_chosen_count(tmp_path: Path) -> None:
    plan = planned(tmp_path, "python")
    used = {d.file for d in plan.decisions if d.used}
    assert used == {"requirements.txt", "runtime.txt", "apt.txt", "postBuild"}
    assert reason(plan, "environment.yml") == "not used: not chosen: --buildpack python"
    assert reason(plan, "Dockerfile") == "not used: not chosen: --buildpack python"


def test_several_are_chosen(tmp_path: Path) -> None:
    plan = planned(tmp_path, "python", "conda")
    assert plan.python.origin == "conda"
    assert reason(plan, "requirements.txt").startswith("used: pip installs what environment.yml does not have: scipy")
    assert planned(tmp_path, "dockerfile").own is not None


def test_what_always_takes_part_can_be_left_out(tmp_path: Path) -> None:
    plan = planned(tmp_path, "python", without=["postbuild"])
    assert reason(plan, "postBuild") == "not used: left out by --without postbuild"
    assert "postbuild" not in {pack.name for pack in plan.packs}


def test_a_choice_is_part_of_what_an_image_is(tmp_path: Path) -> None:
    files = {"requirements.txt": "scipy\n"}
    plain, chosen = planned(tmp_path, files=files), planned(tmp_path, "python", files=files)
    assert plain.steps == chosen.steps and plain.id != chosen.id
    left = planned(tmp_path, files=files, without=["apt"])
    assert left.id not in (plain.id, chosen.id)
    assert "--buildpack python " in manifest(chosen) and "--without apt " in manifest(left)
    own = planned(tmp_path / "own", "dockerfile", files=FILES)
    assert "--buildpack dockerfile " in manifest(own)


@pytest.mark.parametrize(
    ("chosen", "without", "message"),
    [
        (["nosuch\x1b[2J"], [], r"no buildpack 'nosuch\\x1b\[2J' to build with"),
        ([], ["nosuch"], "no buildpack 'nosuch' to leave out"),
        (["conda"], ["conda"], "buildpack conda is both chosen and left out"),
    ],
)
def test_a_choice_of_what_is_not_there(tmp_path: Path, chosen: list[str], without: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        planned(tmp_path, *chosen, without=without)


def test_a_choice_that_comes_to_nothing(tmp_path: Path) -> None:
    with pytest.raises(DetectError, match="buildpack conda was chosen and finds nothing to do here") as caught:
        planned(tmp_path, "conda", "python", files={"requirements.txt": "numpy\n"})
    assert "environment.yml" in (caught.value.hint or "")
