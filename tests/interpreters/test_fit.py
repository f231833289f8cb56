"""Whether an interpreter runs on a suite: by what it says to need."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpcbinder.interpreters import Interpreter, left_out, obstacle
from hpcbinder.interpreters.fit import LIBRARIES
from hpcbinder.plan import SUITES

DYNLOAD = "lib/python3.12/lib-dynload"


def needing(*libraries: str, user: str = "bin/python3.12", glibc: tuple[int, int] = (2, 17)) -> Interpreter:
    system = dict.fromkeys(libraries, (user,))
    return Interpreter(Path("/opt/python/3.12"), "3.12", "3.12.1", "amd64", "/opt/python/3.12", glibc, system, ())


def test_every_suite_is_known() -> None:
    assert set(LIBRARIES) == set(SUITES)


def test_what_is_linked_with_nothing_special_runs_everywhere() -> None:
    # As python-build-standalone (uv) makes them.
    portable = needing("libc.so.6", "libm.so.6", "libpthread.so.0", "libdl.so.2", "librt.so.1", "libutil.so.1")
    assert [obstacle(portable, suite) for suite in SUITES] == [None] * len(SUITES)


@pytest.mark.parametrize(
    ("glibc", "suites"), [((2, 28), 4), ((2, 29), 3), ((2, 31), 3), ((2, 36), 2), ((2, 41), 1), ((2, 42), 0)]
)
def test_a_newer_c_library_is_an_obstacle(glibc: tuple[int, int], suites: int) -> None:
    assert sum(obstacle(needing(glibc=glibc), suite) is None for suite in SUITES) == suites


def test_each_suites_openssl() -> None:
    def runs(library: str) -> list[str]:
        module = needing(library, user=f"{DYNLOAD}/_ssl.cpython-312-x86_64-linux-gnu.so")
        return [suite for suite in SUITES if obstacle(module, suite) is None]

    assert runs("libssl.so.3") == ["bookworm", "trixie"]
    assert runs("libssl.so.1.1") == ["buster", "bullseye"]
    assert runs("libssl.so.1.0.0") == []


def test_spare_modules_are_left_out_and_needed_ones_are_not() -> None:
    tk = needing("libtk8.6.so", user=f"{DYNLOAD}/_tkinter.cpython-312-x86_64-linux-gnu.so")
    assert obstacle(tk, "bookworm") is None
    assert left_out(tk, "bookworm") == (f"{DYNLOAD}/_tkinter.cpython-312-x86_64-linux-gnu.so",)
    program = needing("libintl.so.8")
    assert "its python3.12 needs libintl.so.8" in (obstacle(program, "bookworm") or "")
    assert left_out(program, "bookworm") == ()
