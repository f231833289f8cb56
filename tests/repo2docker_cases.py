"""repo2docker's own test repositories, taken from its source distribution; none of them is ours."""

from __future__ import annotations

import hashlib
import os
import subprocess
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import pytest

from rig import Rig

VERSION = "2026.4.0"
_URL = "https://files.pythonhosted.org/packages/ce/1a/562e813a874d791dea130537f7ff8a4c63e74122c4225e90a76b605966ab/"
_NAME = f"jupyter_repo2docker-{VERSION}.tar.gz"
_SHA256 = "ad0d25dfcdde50117efae500281a84285a8c4baff8ac755872ef96139350684a"
_STORED = "HPCBINDER_REPO2DOCKER"
_NO_CASES = ("unit", "external", "norun", "check-tmp", "conftest.py", "contentproviders")


@dataclass(frozen=True)
class Cases:
    """The folder `tests/` of repo2docker.

    Attributes:
        folder: Where it is.
    """

    folder: Path

    def names(self) -> list[str]:
        """`venv/numpy`: every folder with a `verify` in it, or one of two levels that only is built."""
        found = {path.parent for path in self.folder.glob("*/*/verify")} | {
            path.parent for path in self.folder.glob("*/*/*/verify")
        }
        found |= {
            path
            for path in self.folder.glob("*/*")
            if path.is_dir() and not any(path in each.parents for each in found)
        }
        names = (path.relative_to(self.folder).as_posix() for path in found)
        return sorted(name for name in names if name.split("/")[0] not in _NO_CASES)


@pytest.fixture(scope="session")
def cases(rig: Rig, tmp_path_factory: pytest.TempPathFactory) -> Cases:
    """From the file or folder that HPCBINDER_REPO2DOCKER names, else from PyPI."""
    stored = os.environ.get(_STORED)
    archive = Path(stored) if stored else rig.folder / "repo2docker" / _NAME
    if archive.is_dir():
        return Cases(archive / "tests")
    if not archive.exists():
        try:
            with urllib.request.urlopen(_URL + _NAME, timeout=60) as answer:
                content = answer.read(10_000_000)
        except OSError as error:
            pytest.skip(f"repo2docker's test repositories cannot be had ({error}); {_STORED} may name a stored copy")
        archive.parent.mkdir(exist_ok=True)
        fresh = archive.with_name(f"{_NAME}.{os.getpid()}")
        fresh.write_bytes(content)
        fresh.replace(archive)
    assert hashlib.sha256(archive.read_bytes()).hexdigest() == _SHA256, f"{archive} is not {_NAME}"
    folder = tmp_path_factory.mktemp("repo2docker")
    subprocess.run(["tar", "-xzf", archive, "-C", folder], check=True)
    return Cases(folder / _NAME.removesuffix(".tar.gz") / "tests")
