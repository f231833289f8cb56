"""A hub's environment to start servers in, and a person's browser."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from base_layer import base_layer
from hubservers import hpcbinder
from small_image import small_image  # noqa: F401

from rig import Hub, Rig, RigError, packages
from rig.process import locked

REPOSITORY = Path(__file__).parent / "on-a-node"

URL = "https://example.org/notebooks/on-a-node"


@pytest.fixture(scope="session")
def hub_image(rig: Rig, hub: Hub) -> str:
    """Id of an environment that the hub offers: on-a-node/, assembled; the rig keeps it and what it is made of."""
    with locked(hub.images / "lock"):
        if not (hub.images / "bases").exists():
            base_layer(rig)
            shutil.copytree(rig.folder / "bases", hub.images / "bases")
        built: dict[str, Any] = json.loads(
            hpcbinder(hub.images, "build", str(REPOSITORY), "--format", "sif", "--no-register", "--json")
        )
        id_ = str(built["id"])
        told = ("--title", "A notebook on a node", "--description", "Says where it runs.", "--open", "index.ipynb")
        published = hub.images / "published"
        shutil.rmtree(published, ignore_errors=True)
        hpcbinder(hub.images, "register", id_, "--jupyterhub", *told)
        # As it is elsewhere, whatever folder this checkout is in.
        record = published / f"{id_}.json"
        record.write_text(json.dumps({**json.loads(record.read_text()), "repository": URL, "ref": "main"}))
    return id_


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    """Debian's Chromium, headless."""
    from playwright.sync_api import sync_playwright

    try:
        packages.ensure(("chromium", "fonts-dejavu-core", "libatomic1"))
    except RigError as error:
        pytest.skip(f"rig: {error}")
    with sync_playwright() as playwright:
        options = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-proxy-server"]
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=options)
        yield browser
        browser.close()
