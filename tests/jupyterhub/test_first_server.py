"""A person's way in a real browser: log in, choose an environment, and a notebook runs on a node, in the image."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from hubservers import SECONDS, queue, until
from playwright.sync_api import TimeoutError as PlaywrightTimeout

from rig import Hub
from rig.hub import PASSWORD


@pytest.fixture
def page(hub: Hub, chromium: Any) -> Any:
    page = chromium.new_page(viewport={"width": 1280, "height": 800})
    page.set_default_timeout(SECONDS * 1000)
    yield page
    picture(page, "hub-last")
    page.close()
    hub.clear("alice")


def picture(page: Any, name: str) -> None:
    """For the documentation, when it is asked for."""
    if folder := os.environ.get("HPCBINDER_SCREENSHOTS"):
        page.screenshot(path=str(Path(folder) / f"{name}.png"), full_page=True)


def run_cell(page: Any) -> str:
    """What the notebook's code cell prints; "" if the page was not ready to run it: its kernel may not be there yet."""
    try:
        if page.query_selector(".jp-Dialog .jp-mod-accept"):
            page.click(".jp-Dialog .jp-mod-accept", timeout=5_000)
        page.click(".jp-Notebook .jp-CodeCell .cm-content", timeout=5_000)
        page.keyboard.press("Shift+Enter")
        return str(page.wait_for_selector(".jp-CodeCell .jp-OutputArea-output pre", timeout=5_000).inner_text())
    except PlaywrightTimeout:
        return ""


def test_from_the_login_to_a_cell_that_ran_on_a_node(hub: Hub, hub_image: str, page: Any) -> None:
    page.goto(f"{hub.url}/hub/login")
    page.fill("#username_input", "alice")
    page.fill("#password_input", PASSWORD)
    page.press("#password_input", "Enter")
    page.check(f"#environment-{hub_image}")
    # The form begins with what alice asked for the last time.
    for field in page.query_selector_all("input[id^=option-]:not([type=checkbox])"):
        if field.is_visible():
            field.fill("")
    page.fill("#option-time", "30")
    picture(page, "hub-form")
    page.click("#spawn_form [type=submit]")

    page.wait_for_url(lambda url: "/hub/spawn-pending/" in url or "/user/alice/" in url)
    if "/hub/spawn-pending/" in page.url:
        page.wait_for_selector("#progress-message:has-text('Job ')")
        picture(page, "hub-waiting")
    page.wait_for_url("**/user/alice/lab/tree/index.ipynb**")
    page.wait_for_selector('.jp-Notebook-ExecutionIndicator[data-status="idle"]')
    output = until(lambda: run_cell(page), "the cell's output")
    picture(page, "hub-notebook")

    node, _, job, image = output.split()
    assert node in ("n1", "n2")
    assert image == hub_image
    assert job in queue(hub, "alice")
    # What is saved is the person's own, and still there when the server is gone.
    page.keyboard.press("Control+s")
    home = hub.accounts["alice"].home
    saved = until(lambda: list(home.glob("*/on-a-node/index.ipynb")), "the person's copy of the repository")
    until(lambda: hub_image in saved[0].read_text(), "the notebook is saved")
