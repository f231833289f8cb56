"""Servers as jobs of a real HTCondor, by the real hub, in the image."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hubservers import environment_of, failed, running, start, until

from rig import HTCondor, Hub


@pytest.fixture(scope="module")
def condor_hub(hub: Hub, htcondor: HTCondor) -> Iterator[Hub]:
    # What a site has in the environment of its hub, and in its /etc/hosts: the file is the hub's own.
    lines = [
        f"os.environ['CONDOR_CONFIG'] = {str(htcondor.configuration)!r}",
        f"os.environ['PATH'] += ':' + {str(htcondor.bin)!r}",
        f"Path('/etc/hosts').open('a').write({htcondor.hosts.read_text()!r})",
    ]
    hub.restart(lines=lines, settings={"spawner": "htcondor", "queue_interval": 0.5})
    yield hub
    hub.restart(lines=[], settings={})


@pytest.fixture
def alice(condor_hub: Hub, htcondor: HTCondor) -> Iterator[str]:
    htcondor.knows(condor_hub.accounts["alice"])
    yield "alice"
    htcondor.remove(condor_hub.accounts["alice"].uid)
    condor_hub.clear("alice")


def record(hub: Hub, htcondor: HTCondor, name: str) -> str:
    """All that HTCondor tells anybody of a person's job: here, somebody else."""
    return hub.accounts[name].run(["condor_q", "-allusers", "-long"], env=htcondor.environment).stdout


def test_a_server_is_a_job(condor_hub: Hub, hub_image: str, htcondor: HTCondor, alice: str) -> None:
    running(condor_hub, alice, {"environment": hub_image, "memory": "900M", "cpus": "1", "time": "30"})
    status, answer = condor_hub.request(
        "GET", f"/user/{alice}/api/status", token=condor_hub.token_of(alice), api=condor_hub.url
    )
    assert (status, answer["kernels"]) == (200, 0)

    told = record(condor_hub, htcondor, "bob")
    facts = dict(line.split(" = ", 1) for line in told.splitlines() if " = " in line)
    assert (facts["RequestMemory"], facts["RequestCpus"], facts["AllowedJobDuration"]) == ("900", "1", "1800")

    # Whoever may ask sees neither the token nor anything else of the environment.
    token = environment_of(condor_hub, alice)["JUPYTERHUB_API_TOKEN"]
    assert token not in told
    assert "JUPYTERHUB" not in told
    user = condor_hub.accounts[alice]
    assert not any(token in line for line in user.processes().values())
    left = [path for path in user.home.rglob("*") if path.is_file() and token.encode() in path.read_bytes()]
    assert left == []

    assert condor_hub.request("DELETE", f"/users/{alice}/server")[0] in (202, 204)
    until(lambda: not condor_hub.servers(alice).get("", {}).get("ready"), "the hub knows")
    until(lambda: record(condor_hub, htcondor, "bob") == "", "the job is gone")
    until(lambda: not user.processes(), "all of it has ended")


def test_a_job_that_dies_is_noticed_at_once(condor_hub: Hub, hub_image: str, alice: str, htcondor: HTCondor) -> None:
    user = condor_hub.accounts[alice]
    with ThreadPoolExecutor() as pool:
        # No machine has as much: it waits until somebody takes it away.
        started = pool.submit(start, condor_hub, alice, {"environment": hub_image, "memory": "1000G"})
        until(lambda: record(condor_hub, htcondor, "bob"), "the job waits")
        user.run(["condor_rm", "-all"], env=htcondor.environment)
        said = str(started.result())
    # The answer itself, unless that took longer than the hub lets anybody wait for it.
    assert "has ended" in said + failed(condor_hub, alice)


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"partition": "debug"}, "HTCondor has no partition"),
        ({"nodes": 2}, "at most 1"),
        ({"gpus": "a100:1"}, "asked for a number of GPUs"),
        ({"memory": "1G\nqueue 100"}, "an amount of memory"),
        ({"account": 'x\nexecutable = "/bin/sh"'}, "the name of an account"),
        ({"script_lines": ["+Owner = root"]}, "there is no option 'script_lines'"),
        ({"req_options": "+Owner = root"}, "there is no option 'req_options'"),
    ],
)
def test_nothing_else_gets_into_the_description(
    condor_hub: Hub, hub_image: str, htcondor: HTCondor, options: dict[str, Any], why: str
) -> None:
    status, answer = start(condor_hub, "bob", {"environment": hub_image, **options})
    assert (status, why in str(answer)) == (400, True), answer
    assert record(condor_hub, htcondor, "alice") == ""
