"""What bob, or a program of alice's own, may try against alice's server, its job, the hub and the cluster."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from hubservers import SECONDS, closed_partition, environment_of, failed, logged_in, queue, running, start, until

from rig import Hub
from rig.fixtures import HUB_SETTINGS

NEWLINES = ("30\n#SBATCH --nodes=2", "debug\r\nid", "debug\x00", "30 --nodes=2")
SHELL = ("$(id)", "`id`", "; id", "| id", "debug' id '", '"; id; "', "{home}", "{{7*7}}", "%j")


@pytest.fixture(scope="module")
def alices(hub: Hub, hub_image: str) -> Iterator[dict[str, Any]]:
    """Alice's server, which runs."""
    yield running(hub, "alice", {"environment": hub_image})
    hub.clear("alice")


@pytest.fixture
def nothing_started(hub: Hub) -> Iterator[None]:
    before = queue(hub, "bob")
    yield
    assert queue(hub, "bob") == before == ""
    assert not any(model["ready"] for model in hub.servers("bob").values())


def refused(hub: Hub, options: Any) -> str:
    """Why bob does not get a server with these options, as the hub logs it too."""
    before = len(hub.log.read_text())
    status, answer = start(hub, "bob", options)
    assert status == 400, answer
    said = hub.log.read_text()[before:]
    assert "Refused what bob asks for: " in said
    assert "Traceback" not in said.partition("Refused what bob asks for: ")[0]
    return str(answer["message"])


@pytest.mark.parametrize("name", ["partition", "time", "account", "qos", "reservation", "constraint", "memory", "gpus"])
def test_no_line_and_no_command_comes_in_by_an_option(
    hub: Hub, hub_image: str, name: str, nothing_started: None
) -> None:
    for value in (*NEWLINES, *SHELL):
        assert refused(hub, {"environment": hub_image, name: value})


def test_what_is_no_option_is_refused_and_no_trait_of_a_spawner_is_one(
    hub: Hub, hub_image: str, nothing_started: None
) -> None:
    from hpcbinder.jupyterhub import SlurmSpawner
    from hpcbinder.jupyterhub.options import Options

    names = set(SlurmSpawner.class_trait_names()) - set(Options.model_fields)
    assert len(names) > 50
    options = dict.fromkeys(sorted(names)[:60], "true")
    assert refused(hub, {"environment": hub_image, **options}).startswith("there is no option")
    # One by one without the hub: all of them end here.
    for name in names:
        with pytest.raises(Exception, match="there is no option"):
            _parse({"environment": hub_image, name: "true"}, hub_image)


def _parse(raw: object, id_: str) -> None:
    from hpcbinder.jupyterhub.environment import Environment, Site
    from hpcbinder.jupyterhub.options import parse

    parse(raw, {id_: Environment(id_, "t", "r")}, Site())


@pytest.mark.parametrize(
    "environment",
    ["", "../../../etc", "/etc/passwd", "nothing-0123456789ab", "docker://debian", ["a", "b"], {"id": "x"}, 7, None],
)
def test_an_image_outside_the_catalog_is_refused(hub: Hub, environment: Any, nothing_started: None) -> None:
    assert refused(hub, {"environment": environment})


@pytest.mark.parametrize("path", ["../../.ssh/id_rsa", "/etc/passwd", "a/../../b", "a\nb", "x" * 5000])
def test_a_path_stays_in_the_repository(hub: Hub, hub_image: str, path: str, nothing_started: None) -> None:
    assert refused(hub, {"environment": hub_image, "path": path})


@pytest.mark.parametrize("raw", [[], "text", {str(n): "x" for n in range(1000)}, {"environment": "x" * 100_000}])
def test_what_is_no_set_of_options_is_refused(hub: Hub, raw: Any, nothing_started: None) -> None:
    status, _ = start(hub, "bob", raw)
    assert status == 400


def test_a_form_and_a_link_are_refused_like_the_rest(hub: Hub, hub_image: str, nothing_started: None) -> None:
    bob = logged_in(hub, "bob")
    page = bob.get(f"{hub.url}/hub/spawn", timeout=SECONDS)
    action = re.search(r'id="spawn_form"\s+action="([^"]+)"', page.text)
    assert action is not None
    url = hub.url + action[1].replace("&amp;", "&")
    said = {"environment": hub_image, "partition": "debug\n#SBATCH --nodes=2"}
    answer = bob.post(url, data=said, timeout=SECONDS)
    assert answer.status_code == 400
    assert "is not the name of a partition" in answer.text
    # HTML in an option comes back as text.
    answer = bob.post(url, data={"environment": hub_image, "<b>x</b>": "1"}, timeout=SECONDS)
    assert answer.status_code == 400
    assert "<b>x</b>" not in answer.text
    link = bob.get(f"{hub.url}/hub/spawn/bob?environment={hub_image}&partition=%3Bid", timeout=SECONDS)
    assert link.status_code == 400 or "is not the name of a partition" in link.text


def test_bob_neither_starts_nor_stops_nor_sees_alices_server(hub: Hub, hub_image: str, alices: dict[str, Any]) -> None:
    token = hub.token_of("bob")
    wanted = {"user_options": {"environment": hub_image}}
    for method, path, body in (
        ("POST", "/users/alice/servers/", wanted),
        ("POST", "/users/alice/server", wanted),
        ("POST", "/users/alice/servers/other", wanted),
        ("DELETE", "/users/alice/servers/", None),
        ("DELETE", "/users/alice/server", None),
        ("PATCH", "/users/alice/servers/", wanted),
        ("GET", "/users/alice", None),
        ("GET", "/users/alice/server/progress", None),
        ("POST", "/users/alice/tokens", {}),
    ):
        status, answer = hub.request(method, path, body, token=token)
        assert status in (403, 404, 405), (method, path, answer)
    assert hub.servers("alice")[""]["ready"]


def test_alices_server_lets_bob_in_by_no_way(hub: Hub, alices: dict[str, Any]) -> None:
    address = environment_of(hub, "alice")["JUPYTERHUB_SERVICE_URL"]
    port = re.search(r":(\d+)/", address)
    assert port is not None
    bob = logged_in(hub, "bob")
    assert bob.get(f"{hub.url}/user/alice/api/contents", timeout=SECONDS).status_code == 403
    token = {"Authorization": f"token {hub.token_of('bob')}"}
    hosts = dict(reversed(line.split()) for line in hub.slurm.hosts.read_text().splitlines())
    for base in (f"{hub.url}", *(f"http://{hosts[node]}:{port[1]}" for node in ("n1", "n2"))):
        session = requests.Session()
        session.trust_env = False
        for headers in ({}, token, {"Authorization": "token x"}):
            try:
                url = f"{base}/user/alice/api/contents"
                answer = session.get(url, headers=headers, timeout=SECONDS, allow_redirects=False)
            except requests.ConnectionError:
                continue  # it runs on the other node
            assert answer.status_code in (302, 403), answer.text
            assert "index.ipynb" not in answer.text
    mine = {"Authorization": f"token {hub.token_of('alice')}"}
    assert "index.ipynb" in requests.get(f"{hub.url}/user/alice/api/contents", headers=mine, timeout=SECONDS).text


def test_secrets_are_in_no_argument_and_no_file_and_are_not_bobs_to_read(hub: Hub, alices: dict[str, Any]) -> None:
    alice, bob = hub.accounts["alice"], hub.accounts["bob"]
    secret = environment_of(hub, "alice")["JUPYTERHUB_API_TOKEN"]
    assert len(secret) > 20
    lines = alice.processes()
    assert not any(secret in line for line in lines.values())
    # The hub's own variables do not go along.
    for process in lines:
        environ = (process_environ := f"/proc/{process.pid}/environ") and open(process_environ, "rb").read()  # noqa: SIM115, PTH123
        python = b"PYTHONPATH=" + os.fsencode(Path(__file__).parents[2])
        for name in (b"CONFIGPROXY_AUTH_TOKEN", b"HPCBINDER_RIG_HUB", python, b"JUPYTERHUB_CRYPT_KEY"):
            assert name not in environ
        assert bob.run(["cat", process_environ], check=False).returncode != 0
    assert not [path for path in alice.home.rglob("*") if path.is_file() and secret.encode() in path.read_bytes()]
    # Slurm tells bob of the job, and nothing that is in it.
    bob.knows(hub.slurm.hosts)
    job = alices["state"]["job_id"]
    seen = bob.run(["scontrol", "show", "job", "-dd", job], env=hub.slurm.environment, check=False)
    assert secret not in seen.stdout
    write = bob.run(["scontrol", "write", "batch_script", job, "-"], env=hub.slurm.environment, check=False)
    assert "launch.py" not in write.stdout
    log = alices["state"]["hpcbinder"]["log"]
    assert bob.run(["cat", log], check=False).returncode != 0
    assert alice.run(["cat", log]).stdout


ASK_THE_HELPER = """
import socket, sys
try:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(sys.argv[1])
        connection.sendall(b'{"do": "jobs"}\\n')
        print(connection.makefile().readline(), end="")
except OSError as error:
    print(type(error).__name__)
"""


def test_alices_way_to_the_batch_system_is_not_bobs(hub: Hub, alices: dict[str, Any]) -> None:
    socket = environment_of(hub, "alice")["HPCBINDER_HELPER"]
    where = ["squeue", "--noheader", f"--jobs={alices['state']['job_id']}", "--format=%N"]
    alice, bob = hub.accounts["alice"], hub.accounts["bob"]
    node = alice.run(where, env=hub.slurm.environment).stdout.strip()
    ask = ["srun", f"--nodelist={node}", "--mem=64", "/usr/bin/python3", "-I", "-c", ASK_THE_HELPER, socket]
    for person, answer in ((alice, '{"jobs": []}\n'), (bob, "PermissionError\n")):
        person.knows(hub.slurm.hosts)
        assert person.run(ask, env=hub.slurm.environment).stdout == answer


def test_bob_does_not_end_alices_job(hub: Hub, alices: dict[str, Any]) -> None:
    bob = hub.accounts["bob"]
    bob.knows(hub.slurm.hosts)
    job = alices["state"]["job_id"]
    for command in (["scancel", job], ["scontrol", "update", f"jobid={job}", "timelimit=1"]):
        done = bob.run(command, env=hub.slurm.environment, check=False)
        assert "denied" in done.stderr.lower() or done.returncode
    assert hub.servers("alice")[""]["ready"]
    assert queue(hub, "alice")


def test_the_jobs_script_holds_nothing_of_what_was_asked_for(hub: Hub, alices: dict[str, Any]) -> None:
    alice = hub.accounts["alice"]
    script = alice.run(
        ["scontrol", "write", "batch_script", alices["state"]["job_id"], "-"], env=hub.slurm.environment
    ).stdout
    lines = [line for line in script.splitlines() if line.strip()]
    assert lines[0] == "#!/bin/sh"
    assert re.fullmatch(r"exec /\S+ -I -S '?/[^']+/launch\.py'? --server", lines[1])
    assert lines[2:] == []


class TestPort:
    """What `POST /hub/api/batchspawner` believes."""

    @pytest.fixture
    def waiting(self, hub: Hub, hub_image: str) -> Iterator[str]:
        """The token of a server of bob's whose job waits in the queue."""
        with closed_partition(hub) as (partition, _):
            status, answer = start(hub, "bob", {"environment": hub_image, "partition": partition})
            assert status in (201, 202), answer
            facts = until(lambda: hub.servers("bob")[""]["state"].get("hpcbinder"), "a job")
            file = hub.accounts["bob"].run(["cat", f"{facts['folder']}/server.json"]).stdout
            yield str(json.loads(file)["environment"]["JUPYTERHUB_API_TOKEN"])
            hub.clear("bob")

    def test_it_is_one_port_from_that_very_server_while_it_starts(
        self, hub: Hub, alices: dict[str, Any], waiting: str
    ) -> None:
        from hpcbinder.jupyterhub import SlurmSpawner

        def say(body: Any, token: str) -> int:
            return hub.request("POST", "/batchspawner", body, token=token)[0]

        def facts(name: str) -> dict[str, Any]:
            model: dict[str, Any] = hub.servers(name)[""]
            return model["state"]["hpcbinder"]

        before = facts("alice")
        # No other token: a person's, another person's, a service's, none.
        for token in (hub.token_of("bob"), hub.token_of("alice"), hub.token, "", "x"):
            assert say({"port": 5000}, token) == 403
        # No other key, not even beside a port.
        names = [name for name in dir(SlurmSpawner) if not name.startswith("__")]
        for name in names if os.environ.get("HYPOTHESIS_PROFILE") == "nightly" else names[::9]:
            assert say({name: "x"}, waiting) == 400
            assert say({"port": 5000, name: 1}, waiting) == 400
        for port in (0, 80, 1023, 65536, -1, 5000.0, "5000", True, None, [5000], {"port": 5000}, 10**30):
            assert say({"port": port}, waiting) == 400
        for body in (b"", b"{", b"[]", b"5000", b'"port"', b'{"port": 5000}' + b" " * 1000, b"[" * 200):
            assert say(body, waiting) == 400
        assert facts("bob")["port"] == 0
        # No certificate, where servers have none.
        assert hub.request("POST", "/hpcbinder/certificate", b"", token=waiting)[0] == 409
        # The server itself, once.
        assert say({"port": 5000}, waiting) == 204
        assert say({"port": 5001}, waiting) == 409
        assert hub.servers("bob")[""]["pending"] == "spawn"
        # And whatever was said, none of it was said to alice's.
        own = environment_of(hub, "alice")["JUPYTERHUB_API_TOKEN"]
        assert say({"port": 5000}, own) == 409
        assert facts("alice") == before
        assert hub.servers("alice")[""]["ready"]


SAYS = """#!/bin/sh
if [ "$(id -un)" = bob ]; then
    cat >/dev/null
    exec cat {said}
fi
exec sbatch "$@"
"""


def test_bob_has_sbatch_say_what_he_likes(hub: Hub, hub_image: str, alices: dict[str, Any]) -> None:
    # It runs as him, so what it says is his to write.
    program, said = hub.folder / "submit", hub.folder / "said"
    program.write_text(SAYS.format(said=said))
    program.chmod(0o755)
    said.touch(mode=0o644)
    job = alices["state"]["job_id"]
    hub.restart(settings={**HUB_SETTINGS, "batch_submit_cmd": f"{program} --parsable"})
    try:
        for number, why in (("0", "has no number of a job"), ("1_2", "has no number of a job"), (job, "has ended")):
            said.write_text(f"{number}\n")
            before = len(hub.log.read_text())
            status, answer = start(hub, "bob", {"environment": hub_image})
            told = str(answer) + (failed(hub, "bob") if status < 400 else "")
            assert why in told + hub.log.read_text()[before:]
            # Where alice's job runs is not his to know.
            assert not re.search(rf"Job {job} runs", told)
            until(lambda: not hub.servers("bob").get("", {}).get("pending"), "it is over")
    finally:
        hub.restart(settings=HUB_SETTINGS)
    # That hub has looked at all servers again.
    assert hub.servers("alice")[""]["ready"]
    assert job in queue(hub, "alice")
