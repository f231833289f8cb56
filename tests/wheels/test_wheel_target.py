"""What wheels are installed for: tags, bytecode, places."""

from __future__ import annotations

import importlib.util
import platform
import sys
from typing import Any

import pytest
from packaging.tags import sys_tags
from wheelmaker import target

from hpcbinder.errors import BuildError
from hpcbinder.wheels import host_interpreter
from hpcbinder.wheels.bytecode import _magic
from hpcbinder.wheels.target import MAGIC


def test_tags_are_those_that_this_machine_would_take() -> None:
    glibc = platform.libc_ver()[1].replace(".", "_")
    here = target(platform=f"{platform.machine()}-manylinux_{glibc}")
    assert sorted(here.tags, key=here.tags.__getitem__) == list(dict.fromkeys(sys_tags()))


def test_bytecode_is_known_by_the_version() -> None:
    assert MAGIC[sys.version_info[:2]] == int.from_bytes(importlib.util.MAGIC_NUMBER[:2], "little")
    assert target(python="3.11.2").interpreter == target(python="3.11.9").interpreter == "cp311-3495"
    assert target(python="3.11.0rc1").interpreter == "cp311-3.11.0rc1"
    assert host_interpreter(target()) is not None
    assert host_interpreter(target(python="3.99.0")) is None


def test_our_own_interpreter_is_not_started_to_know_its_bytecode(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hpcbinder.wheels.bytecode._Child", None)
    _magic.cache_clear()
    found = host_interpreter(target())
    assert found is not None and found.argv[0] == sys.executable


@pytest.mark.parametrize(
    "change",
    [
        {"prefix": "opt/env"},
        {"prefix": "/opt/../env"},
        {"prefix": "/opt/my env"},
        {"executable": "/bin/sh -c '"},
        {"executable": "/bin/a\nb"},
        {"python": "3.11"},
        {"python": "3.11.2; x"},
        {"platform": "win_amd64"},
    ],
)
def test_what_cannot_be_a_target(change: dict[str, Any]) -> None:
    with pytest.raises(BuildError, match="wheels cannot be installed for"):
        target(**change)
