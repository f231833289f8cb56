"""What tests of wheels share: a store in a fresh folder, in front of the test's own index."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from package_index import PackageIndex
from wheelmaker import Install, Said, lock, target

from hpcbinder.config import SiteConfig
from hpcbinder.model import LockedPackage
from hpcbinder.squashfs import Options
from hpcbinder.wheels import Target, WheelStore


@pytest.fixture
def said() -> Said:
    return Said()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "scratch").mkdir()
    return tmp_path / "wheels"


@pytest.fixture
def install(package_index: PackageIndex, folder: Path, said: Said) -> Install:
    """Packages of a lock -> their layers, the lowest first."""

    def install(*packages: LockedPackage, where: Target | None = None, **arguments: Any) -> list[Path]:
        site = arguments.pop("site", SiteConfig(pip_index_url=package_index.url))
        others = {key: arguments.pop(key) for key in ("hosts", "below") if key in arguments}
        store = WheelStore(folder, site, Options(), said, **others)
        return store.layers(lock(*packages), where or target(), scratch=folder.parent / "scratch", **arguments)

    return install
