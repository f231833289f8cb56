"""A hub of JupyterHub's previous major version."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import requests
from hubservers import SECONDS, failed, logged_in, queue, running, start, until

from rig import Hub


@pytest.fixture
def previous(hub: Hub) -> Iterator[Hub]:
    hub.restart(release="5")
    yield hub
    hub.clear("alice")
    hub.restart(release="6")


def test_a_server_starts_and_ends(previous: Hub, hub_image: str) -> None:
    hub = previous
    alice = logged_in(hub, "alice")
    page = alice.get(f"{hub.url}/hub/spawn", timeout=SECONDS)
    assert page.headers["X-JupyterHub-Version"].startswith("5.")
    assert f"environment-{hub_image}" in page.text

    status, answer = start(hub, "alice", {"environment": hub_image, "partition": "debug\n#SBATCH --nodes=2"})
    assert "is not the name of a partition" in (str(answer) if status >= 400 else failed(hub, "alice"))

    model = running(hub, "alice", {"environment": hub_image})
    assert model["state"]["job_id"] in queue(hub, "alice")
    lab = alice.get(f"{hub.url}/user/alice/lab/tree/index.ipynb", timeout=SECONDS)
    assert lab.status_code == 200, lab.text
    assert '"hubUser": "alice"' in lab.text
    files = f"{hub.url}/user/alice/api/contents"
    for name, status in (("alice", 200), ("bob", 403)):
        token = {"Authorization": f"token {hub.token_of(name)}"}
        assert requests.get(files, headers=token, timeout=SECONDS).status_code == status

    assert hub.request("DELETE", "/users/alice/server", token=hub.token_of("alice"))[0] in (202, 204)
    until(lambda: not hub.accounts["alice"].processes(), "nothing is left")
