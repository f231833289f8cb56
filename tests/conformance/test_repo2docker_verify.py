"""repo2docker's own test repositories, built, and their scripts `verify` run in the images as an ordinary user."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
from conformance_table import TABLE
from repo2docker_cases import Cases

from images import Line
from rig import Apptainer, User

pytestmark = pytest.mark.heavy

NIGHTLY = os.environ.get("HYPOTHESIS_PROFILE") == "nightly"
NAMES = [name for name, case in TABLE.items() if case.verified and (NIGHTLY or not case.slow)]


@pytest.mark.parametrize("name", NAMES)
def test_verify(name: str, cases: Cases, line: Line, apptainer: Apptainer, user: User, tmp_path: Path) -> None:
    # A commit is what is built anywhere else too; a folder would also bring what lies beside it.
    work = shutil.copytree(cases.folder / name, line.folder / "conformance" / name, symlinks=True, dirs_exist_ok=True)
    built = json.loads(
        line.hpcbinder(
            *("build", str(work), "--engine", "auto", "--no-register", "--format", "sif", "--json"),
            *TABLE[name].options,
        ).stdout
    )
    try:
        start = [apptainer.path, "-s", "exec", "--cleanenv", "--pwd", "/srv/repo", built["formats"]["sif"]]
        done = user.run([*start, "/opt/hpcbinder/bin/entrypoint", "./verify"], check=False, timeout=300)
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    finally:
        line.hpcbinder("rm", built["id"])
        shutil.rmtree(work)
