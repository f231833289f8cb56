"""A person's way in a real browser: log in, choose an environment, and a notebook runs on a node, in the image."""

from __future__ import annotations

import asyncio
import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hubservers import SECONDS, queue, until
from notebook_page import Browser
from playwright.sync_api import TimeoutError as PlaywrightTimeout

from rig import Hub
from rig.hub import PASSWORD

WORKERS = """
import json
from hpcbinder_workers import ipyparallel_cluster
def where():
    import json, os, pathlib, socket
    image = json.loads(pathlib.Path("/opt/hpcbinder/manifest.json").read_text())
    return [socket.gethostname(), image["id"], os.environ["SLURM_JOB_ID"]]
cluster = ipyparallel_cluster(2, asked={"nodes": 2, "time": "10"})
clients = cluster.start_and_connect_sync()
answers = clients[:].apply_sync(where)
cluster.stop_cluster_sync()
print("ANSWERS", json.dumps(answers))
"""


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


async def executed(browser: Browser, code: str) -> str:
    """What a cell prints, in a kernel of its own."""
    kernel = (await browser.ask("POST", "kernels", {"name": "python3"}))["id"]
    return await browser.execute(kernel, code)


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

    # A notebook of this server has workers, in the same image on both nodes, in a job of their own.
    answering = executed(Browser(f"{hub.url}/user/alice", hub.token_of("alice")), WORKERS)
    with ThreadPoolExecutor(1) as pool:  # Playwright's own loop runs in this thread
        said = pool.submit(asyncio.run, answering).result()
    answers = [line.removeprefix("ANSWERS ") for line in said.splitlines() if line.startswith("ANSWERS ")]
    assert answers, said
    workers = json.loads(answers[0])
    assert {worker[0] for worker in workers} == {"n1", "n2"}, said
    assert {worker[1] for worker in workers} == {hub_image}
    assert job not in {worker[2] for worker in workers}
