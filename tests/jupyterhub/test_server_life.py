"""A server's life: in the queue, across restarts of the hub, and its end, whoever ends it."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
from hubservers import IMPATIENT, closed_partition, failed, hpcbinder, queue, running, start, until

from hpcbinder.catalog import Catalog
from hpcbinder.model import Entry
from rig import Hub
from rig.fixtures import HUB_SETTINGS


@pytest.fixture(autouse=True)
def cleared(hub: Hub) -> Iterator[None]:
    yield
    hub.clear("alice")


def messages(hub: Hub) -> list[str]:
    """What alice's page of a server that starts has said so far."""
    import requests

    token, said = hub.token_of("alice"), []
    session = requests.Session()
    session.trust_env = False
    with session.get(
        f"{hub.url}/hub/api/users/alice/server/progress",
        headers={"Authorization": f"token {token}"},
        stream=True,
        timeout=60,
    ) as answer:
        end = time.monotonic() + 5
        for line in answer.iter_lines():
            if line.startswith(b"data: "):
                said.append(str(json.loads(line[6:])["message"]))
            if (said and "waits in the queue: " in said[-1]) or time.monotonic() > end:
                break
    return said


def left(hub: Hub) -> list[str]:
    """Alice's processes, jobs, and what lies where her servers' files were, but for logs."""
    alice = hub.accounts["alice"]
    files = [path.name for path in (alice.home / ".local/state/hpcbinder/servers").glob("*") if path.suffix != ".log"]
    cores = [path.name for path in alice.home.rglob("core*") if path.is_file()]
    return [*alice.processes().values(), *queue(hub, "alice").splitlines(), *files, *cores]


def test_a_server_in_the_queue_says_why_and_outlives_a_hub_that_is_restarted(hub: Hub, hub_image: str) -> None:
    with closed_partition(hub) as (partition, opened):
        status, answer = start(hub, "alice", {"environment": hub_image, "partition": partition})
        assert status in (201, 202), answer
        job = until(lambda: hub.servers("alice")[""]["state"].get("job_id"), "a job")
        said = until(lambda: [text for text in messages(hub) if "waits in the queue: " in text], "the job's state")
        assert f"Job {job} waits in the queue: PartitionDown" in said[0]

        hub.restart(lines=IMPATIENT)
        assert job in queue(hub, "alice")
        opened()
        until(lambda: hub.servers("alice")[""]["ready"], "the server")
        hub.restart(lines=[])
        until(lambda: hub.servers("alice")[""]["ready"], "the server, known to a hub that was restarted")
        assert hub.servers("alice")[""]["state"]["job_id"] == job

        hub.request("DELETE", "/users/alice/servers/", token=hub.token_of("alice"))
        until(lambda: left(hub) == [], f"nothing is left: {left(hub)}")


def test_a_job_that_is_cancelled_is_seen_to_be_over(hub: Hub, hub_image: str) -> None:
    model = running(hub, "alice", {"environment": hub_image})
    hub.accounts["alice"].run(["scancel", model["state"]["job_id"]], env=hub.slurm.environment)
    until(lambda: hub.servers("alice")[""]["stopped"], "the hub sees it")
    until(lambda: left(hub) == [], f"nothing is left: {left(hub)}")


def test_an_image_without_a_server_says_so_at_once(hub: Hub, small_image: Entry) -> None:
    catalog = Catalog(hub.store)
    with catalog.temporary() as scratch:
        folder = scratch / "image"
        folder.mkdir()
        (folder / "image.squashfs").symlink_to(small_image.formats["squashfs"])
        catalog.add(dataclasses.replace(small_image, formats={"squashfs": "image.squashfs"}), folder)
    hpcbinder(hub.store, "register", small_image.id, "--jupyterhub", "--title", "small")
    status, answer = start(hub, "alice", {"environment": small_image.id})
    said = json.dumps(answer) if status >= 400 else failed(hub, "alice")
    assert "no jupyterhub-singleuser in this image" in said
    assert not hub.servers("alice")[""]["ready"]
    until(lambda: left(hub) == [], f"nothing is left: {left(hub)}")


def test_without_a_scheduler(hub: Hub, hub_image: str) -> None:
    hub.restart(settings={"spawner": "local"})
    model: dict[str, Any] = running(hub, "alice", {"environment": hub_image})
    assert queue(hub, "alice") == ""
    assert hub.accounts["alice"].processes()
    hub.restart()
    until(lambda: hub.servers("alice")[""]["ready"], "the server, known to a hub that was restarted")
    assert hub.servers("alice")[""]["started"] == model["started"]
    hub.request("DELETE", "/users/alice/servers/", token=hub.token_of("alice"))
    until(lambda: not hub.accounts["alice"].processes(), "nothing is left")
    hub.restart(settings=HUB_SETTINGS)
