"""A command that is run apart: off the network in each way there is, bounded, and seeing nothing of the person's."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest

from hpcbinder.config import RuntimeConfig
from hpcbinder.errors import RunError
from hpcbinder.model import Entry, to_json
from hpcbinder.runtime import Secluded
from rig import Apptainer, User

SCRIPT = str(Path(__file__).with_name("secluded_entry.py"))
REFUSED = "--net --userns"


def looked(user: User, entry: Entry, apptainer: Apptainer, refused: str = "") -> dict[str, Any]:
    """What it sees with an Apptainer that refuses some options."""
    bin_ = user.home / "bin"
    bin_.mkdir()
    refusing = f'for word; do case " {refused} " in *" $word "*) echo "$word is not allowed" >&2; exit 1;; esac; done\n'
    # The option's name alone is looked for: ours never have a value of that name.
    (bin_ / "apptainer").write_text(f'#!/bin/sh\n{refusing}exec {shlex.quote(str(apptainer.path))} "$@"\n')
    (bin_ / "apptainer").chmod(0o755)
    description = user.home / "entry.json"
    description.write_text(json.dumps(to_json(entry)))
    room = user.home / "room"
    room.mkdir()
    user.own(user.home)
    command = [sys.executable, SCRIPT, description, room]
    # What the person has set for containers of their own.
    personal = {"APPTAINER_BIND": f"{user.home}:/mnt", "APPTAINERENV_TOKEN": "secret", "SINGULARITYENV_TOKEN": "secret"}
    done = user.run(command, env={"PATH": f"{bin_}:/usr/bin:/bin", **personal}, timeout=580)
    assert not _sleeping()
    found = json.loads(done.stdout)
    assert isinstance(found, dict)
    return found


@pytest.mark.parametrize("refused", ["", "--net"])
def test_off_the_network_and_bounded(user: User, small_image: Entry, apptainer: Apptainer, refused: str) -> None:
    found = looked(user, small_image, apptainer, refused)
    assert (found["offline"], found["note"]) == (True, "")
    uid, home, listed, error, devices, data, personal = found["saw"]
    assert personal[0] is None and "room" not in personal[1]
    assert (uid, home, error, devices, data) == (user.uid, "/home/verify", "OSError", ["lo"], ["file"])
    assert set(listed) <= {".apptainer"}
    assert found["memory"] == [None, "memory"]
    assert found["left"] == [3, ""]
    assert found["slow"] == [None, "time", True]


def test_a_network_that_cannot_be_switched_off_is_told(user: User, small_image: Entry, apptainer: Apptainer) -> None:
    found = looked(user, small_image, apptainer, REFUSED)
    assert not found["offline"]
    assert found["note"] == "the network cannot be switched off here: --net is not allowed"


def test_other_runtimes_are_refused(small_image: Entry, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="with Apptainer or Singularity, not with charliecloud"):
        Secluded(small_image, RuntimeConfig(name="charliecloud"), tmp_path, network=False)


def _sleeping() -> bool:
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if b"87654.5" in path.read_bytes():
                return True
        except OSError:
            continue
    return False
