"""What the registry tests share."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from servers import Script, script

from hpcbinder.config import RegistryConfig, SiteConfig
from hpcbinder.registry import Credentials, Patience, Registry

HURRY = Patience(connect=5, silence=1, answer=2, attempts=3, pause=0.01)

Make = Callable[..., Registry]


@pytest.fixture
def server() -> Iterator[Script]:
    with script() as server:
        yield server


@pytest.fixture
def elsewhere() -> Iterator[Script]:
    with script() as server:
        yield server


@pytest.fixture
def registries(tmp_path: Path) -> Make:
    """Makes a `Registry` of somebody who has no logins but those in tmp_path."""

    def make(
        *,
        mirrors: Mapping[str, str] | None = None,
        insecure: tuple[str, ...] = (),
        site: SiteConfig | None = None,
        patience: Patience = HURRY,
        **more: Any,
    ) -> Registry:
        environ = {"HOME": str(tmp_path), "PATH": f"{tmp_path}/bin:/usr/bin:/bin"}
        credentials = Credentials(tmp_path / "auth.json", environ)
        settings = RegistryConfig(mirrors=mirrors or {}, insecure=insecure)
        return Registry(site or SiteConfig(), settings, credentials, patience=patience, **more)

    return make
