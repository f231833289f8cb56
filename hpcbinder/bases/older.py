"""Interpreters out of the packages of an older Debian release, on the base of a newer one."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path

from hpcbinder.bases.interpreter import finished
from hpcbinder.debian import sources_list
from hpcbinder.model import Python, Stage, Step
from hpcbinder.plan import OLDER

_PACKAGES: Mapping[str, tuple[str, ...]] = {
    "2.7": (
        "libffi7",
        "libpython2.7-dev",
        "libpython2.7-minimal",
        "libpython2.7-stdlib",
        "libssl1.1",
        "python2.7-minimal",
    ),
    "3.9": (
        "libffi7",
        "libmpdec3",
        "libpython3.9-dev",
        "libpython3.9-minimal",
        "libpython3.9-stdlib",
        "libssl1.1",
        "python3-distutils",
        "python3-lib2to3",
        "python3.9-minimal",
    ),
}
"""Python -> what its release splits it into, with the libraries that later releases have in other versions only."""


def older_step(python: Python) -> Step:
    """The step that fetches such an interpreter's packages and puts their files into the image."""
    release, _ = OLDER[python.version]
    return Step(
        stage=Stage.INTERPRETER,
        name="base/older-python",
        reason=f"Python {python.full}, which Debian {python.suite} does not have, from the packages of {release}",
        script=_script() + finished(),
        data={
            "packages": "".join(f"{name}\n" for name in _PACKAGES[python.version]),
            "release": release,
            "sources.list": sources_list(release),
            "suite": python.suite,
            "version": python.version,
        },
    )


@functools.cache
def _script() -> str:
    return Path(__file__).with_name("older.sh").read_text(encoding="utf-8")
