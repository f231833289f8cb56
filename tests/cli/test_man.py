"""hpcbinder(1): up to date, and what man programs like to read."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from hpcbinder.cli.main import COMMANDS
from hpcbinder.cli.man import page
from rig import Rig, RigError, packages

PAGE = Path(__file__).parent.parent.parent / "docs/man/hpcbinder.1"


def test_the_page_is_up_to_date() -> None:
    assert PAGE.read_text() == page(), "python -m hpcbinder.cli.man > docs/man/hpcbinder.1"


def test_every_command_is_in_it() -> None:
    assert re.findall(r"^\.SS (\S+)", page(), re.MULTILINE) == list(COMMANDS)


def test_it_renders_without_a_warning(rig: Rig) -> None:
    try:
        packages.ensure(["groff-base"])
    except RigError as error:
        pytest.skip(f"rig: {error}")
    command = ["groff", "-man", "-Tutf8", "-ww", "-rLL=80n", str(PAGE)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.stderr == ""
    shown = re.sub(r"\x1b\[[0-9;]*m|.\x08", "", done.stdout)  # bold and underlined, in either way
    shown = re.sub(" +", " ", shown)  # lines are filled
    assert "hpcbinder - from a link to a repository" in shown
    assert "--older-than AGE" in shown
    assert "130 interrupted" in shown
