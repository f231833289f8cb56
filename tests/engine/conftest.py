"""A base the engine's tests build on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from hpcbinder.bases import BaseImage, ensure_base
from hpcbinder.config import load
from hpcbinder.engine import DockerEngine
from hpcbinder.model import BaseRef
from hpcbinder.plan import BASE_VARIANT
from hpcbinder.progress import Silent
from rig import Dockerd, Rig


@pytest.fixture(scope="session")
def base(rig: Rig) -> BaseImage:
    """Debian bookworm, kept between test runs."""
    ref = BaseRef("debian:bookworm", "bookworm", "3.11", "amd64", BASE_VARIANT)
    site = load({}, user_file=Path("/nonexistent"), site_file=Path("/nonexistent")).site
    return ensure_base(ref, folder=rig.folder / "bases", site=site, reporter=Silent())


@pytest.fixture(scope="session")
def engine(dockerd: Dockerd, base: BaseImage) -> DockerEngine:
    """The rig's daemon; it has the base."""
    engine = DockerEngine(dockerd.host)
    engine.check()
    engine.load(base.archive, base.tag)
    return engine


@pytest.fixture
def tag(engine: DockerEngine) -> Iterator[str]:
    """A tag for what a test builds, taken away after it."""
    yield "localhost/hpcbinder/test:engine"
    engine.remove("localhost/hpcbinder/test:engine")
