"""Requirements files with hashes, read for one interpreter and platform."""

from __future__ import annotations

import pytest

from hpcbinder.errors import DetectError
from hpcbinder.model import LockedPackage
from hpcbinder.plan import locked_wheels, server_step

A, B = "sha256:" + "a" * 64, "sha256:" + "b" * 64


def test_lines_as_uv_writes_them() -> None:
    text = (
        "# a comment\n"
        f"soupsieve==2.10 ; python_full_version < '3.11.5' \\\n    --hash={B} \\\n    --hash={A}\n"
        f"soupsieve==4.1.1 ; python_full_version >= '3.11.5' \\\n    --hash={A}\n"
        f"Some.Thing @ https://host/some_thing-1-py3-none-any.whl --hash={A}\n"
        f"windows==1 ; sys_platform == 'win32' --hash={A}\n"
        f"intel==1 ; platform_machine == 'x86_64' --hash={A}\n"
    )
    url = "https://host/some_thing-1-py3-none-any.whl"
    assert locked_wheels(text, "3.11.2", "amd64") == (
        LockedPackage("intel", "1", (A,)),
        LockedPackage("some-thing", "", (A,), url),
        LockedPackage("soupsieve", "2.10", (A, B)),
    )
    assert [p.version for p in locked_wheels(text, "3.12.1", "arm64")] == ["", "4.1.1"]


@pytest.mark.parametrize("line", ["six==1.0", f"six>=1 --hash={A}", f"six==1.* --hash={A}x", "-r other.txt", "six"])
def test_what_is_not_exact_is_refused(line: str) -> None:
    with pytest.raises(DetectError, match="not an exact version with hashes"):
        locked_wheels(line, "3.11.2", "amd64")


def test_the_servers_lock_serves_every_python_it_says_to() -> None:
    for python in ("3.11.2", "3.12.3", "3.13.5"):
        text = server_step("3.11").data["requirements.lock"]
        names = [package.name for package in locked_wheels(text, python, "amd64")]
        assert {"jupyterlab", "jupyterhub", "soupsieve", "ptyprocess"} <= set(names)
        assert len(names) == len(set(names))
        assert "pywinpty" not in names
