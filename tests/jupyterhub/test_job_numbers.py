"""What a hub believes of what a submit command, and a scheduler, say of a job: the commands are scripts here."""

from __future__ import annotations

import asyncio
import socket
import types
from pathlib import Path
from typing import Any

import pytest
from tornado import web
from traitlets import TraitError

from hpcbinder.errors import RunError
from hpcbinder.jupyterhub import CondorSpawner, LsfSpawner, PBSSpawner, SlurmSpawner
from hpcbinder.jupyterhub.account import Account
from hpcbinder.jupyterhub.batch import put_there
from hpcbinder.jupyterhub.jobs import GONE, PENDING, RUNNING, JobState, Queue
from hpcbinder.scheduler import Resources

PATH = "/usr/bin:/bin"

# squeue(1) of 22.05: a number that is none is refused before anybody is asked, whatever else was in the question.
SQUEUE = """#!/bin/sh
echo "$*" >>{asked}
for word; do case $word in --jobs=*) jobs=${{word#--jobs=}};; esac; done
IFS=,
for job in $jobs; do
    case $job in 0|*[!0-9]*) echo "squeue: error: Invalid job id: $job" >&2; exit 1;; esac
done
for job in $jobs; do
    case $job in
        100) echo "100|1001|RUNNING|n1|13:00|None";;
        101) echo "101|1001|PENDING||14:05|Resources";;
        500) head -c 2000000 /dev/zero | tr '\\0' x;;
    esac
done
"""


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where such a squeue writes down what it was asked."""
    file = tmp_path / "asked"
    program = tmp_path / "squeue"
    program.write_text(SQUEUE.format(asked=file))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{PATH}")
    return file


def person(spawner: Any, monkeypatch: pytest.MonkeyPatch, name: str = "alice", **settings: Any) -> Any:
    """A person's spawner, whose commands run as whoever runs the tests."""
    account = Account(name, f"/home/{name}", "/bin/sh", (), {"PATH": PATH}, "/usr/bin/python3")
    monkeypatch.setattr(spawner, "account", lambda self: account)
    made = spawner(exec_prefix="", **settings)
    made.user = types.SimpleNamespace(name=name)
    monkeypatch.setattr(spawner, "_log_name", name)
    return made


ALICES = {
    "100": JobState(RUNNING, "RUNNING", "", "", "n1", "1001"),
    "101": JobState(PENDING, "PENDING", "Resources", "14:05", "", "1001"),
}


@pytest.mark.parametrize("bobs", ["0", "1_2", "500"])
def test_a_number_that_is_none_and_an_answer_that_is_too_long_say_nothing_of_others(asked: Path, bobs: str) -> None:
    from hpcbinder.jupyterhub.slurm import _look

    async def main() -> None:
        queue = Queue(_look, 1000.0)
        found = await asyncio.gather(*(queue.state(job, newest=True) for job in ("100", bobs, "101")))
        assert found == [ALICES["100"], GONE, ALICES["101"]]

    asyncio.run(main())


def test_a_question_is_one_where_all_numbers_are(asked: Path) -> None:
    from hpcbinder.jupyterhub.slurm import _look

    assert asyncio.run(_look(["100", "101", "102"])) == ALICES
    assert len(asked.read_text().splitlines()) == 1


@pytest.mark.parametrize(
    ("said", "job"),
    [
        ("4711", "4711"),
        ("4711;cluster", "4711"),
        ("a plugin says hello\n4711", "4711"),
        ("4294967293", "4294967293"),
        *((said, "") for said in ("0", "4711\n0", "1_2", "007", "-1", "+1", " 12", "1,2", "4294967294", "9" * 20)),
        *((said, "") for said in ("\N{ARABIC-INDIC DIGIT ONE}", "12\n", "12;a;b", "", "no")),
    ],
)
def test_numbers_of_slurm(said: str, job: str) -> None:
    assert SlurmSpawner().parse_job_id(said) == (job if said != "12\n" else "12")


@pytest.mark.parametrize("spawner", [SlurmSpawner, CondorSpawner, PBSSpawner, LsfSpawner])
@pytest.mark.parametrize("said", ["0", "1_2", "no", "", "1 --all", "-all", "../x", "submitted to cluster 0", "Job <0>"])
def test_what_is_no_number_is_no_job(spawner: Any, said: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program = tmp_path / "submit"
    program.write_text(f"#!/bin/sh\ncat >/dev/null\nprintf '%s\\n' '{said}'\n")
    program.chmod(0o755)
    bobs = person(spawner, monkeypatch, "bob", batch_submit_cmd=str(program))
    monkeypatch.setattr(spawner, "server_name", "jupyter-x")
    monkeypatch.setattr(spawner, "job_script", lambda *_: "")
    monkeypatch.setattr(spawner, "command", lambda *_: ["/bin/true"])
    monkeypatch.setattr(spawner, "get_req_subvars", lambda self: {})
    with pytest.raises(web.HTTPError) as caught:
        asyncio.run(bobs.submit(bobs.account(), Resources(), "/home/bob/x", "/home/bob/x.log"))
    assert "has no number of a job" in caught.value.jupyterhub_message  # type: ignore[attr-defined]


def test_a_job_of_somebody_else_s_is_none(asked: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bobs = person(SlurmSpawner, monkeypatch, "bob", queue_interval=1234.0)
    monkeypatch.setattr(SlurmSpawner, "owner", lambda self, account: {"alice": "1001", "bob": "1002"}[account.name])

    async def main() -> None:
        assert await bobs.job_state("100", newest=True) == GONE
        alices = person(SlurmSpawner, monkeypatch, "alice", queue_interval=1234.0)
        assert await alices.job_state("100") == ALICES["100"]
        assert (await alices.job_state("102")) == GONE

    asyncio.run(main())


@pytest.mark.parametrize(
    ("spawner", "said", "owner"),
    [
        (CondorSpawner, "2, slot1_1@condor alice", "alice"),
        (CondorSpawner, "1,  alice", "alice"),
        (CondorSpawner, "2, slot1_1@condor", ""),
        (CondorSpawner, "1,", ""),
        (PBSSpawner, "Job Id: 1.pbs\n    Job_Name = x\n    Job_Owner = alice@login1\n    job_state = R", "alice"),
        (LsfSpawner, "RUN 4*node7:4*node8 alice", "alice"),
        (LsfSpawner, "PEND - CORP\\alice", "alice"),
        (LsfSpawner, "RUN node7", ""),
    ],
)
def test_whose_a_job_is(spawner: Any, said: str, owner: str) -> None:
    assert spawner(job_status=said).state_getowner() == owner


def test_a_question_is_the_hub_s_and_not_the_person_s(monkeypatch: pytest.MonkeyPatch) -> None:
    # HTCondor reads ~/.condor/user_config: whoever asks with a person's home is told what the person likes.
    command = "/bin/sh -c 'echo 2, slot@$(test \"$HOME\" = /home/alice && echo proxy || echo node7) alice'"
    alices = person(CondorSpawner, monkeypatch, "alice", job_id="12", batch_query_cmd=command)
    monkeypatch.setattr(CondorSpawner, "get_req_subvars", lambda self: {})
    asyncio.run(alices.query_job_status())
    assert alices.job_status == "2, slot@node7 alice"
    alices.exec_prefix = "/no/such/runuser -u alice --"
    asyncio.run(alices.query_job_status())
    assert alices.state_gethost() == "node7"


OWN = socket.gethostname()


@pytest.mark.parametrize(
    "node",
    [
        *("localhost", "LOCALHOST", "localhost.localdomain", "a.localhost", "127.0.0.1", "127.1", "2130706433"),
        *("0x7f000001", "0x7f.1", "10.0.0.7", "::1", "[::1]", "fe80::1", "0", "", "a b", "a/b", "a@b", "-x", "a..b"),
        *("node7\n", "node7:80", "x" * 300, OWN, OWN.upper(), OWN.partition(".")[0]),
    ],
)
@pytest.mark.parametrize("spawner", [CondorSpawner, PBSSpawner, LsfSpawner])
def test_the_proxy_is_not_led_back_to_the_hub(spawner: Any, node: str) -> None:
    assert asyncio.run(spawner().leads_to(node)) is False


def test_nor_by_a_name_for_its_address(monkeypatch: pytest.MonkeyPatch) -> None:
    addresses = {"inner": "127.0.0.2", "any": "0.0.0.0", "node7": "192.0.2.7"}

    async def found(self: Any, host: str, port: int, **_: Any) -> Any:
        if host not in addresses:
            raise socket.gaierror
        return [(socket.AF_INET, socket.SOCK_DGRAM, 0, "", (addresses[host], port))]

    monkeypatch.setattr(asyncio.BaseEventLoop, "getaddrinfo", found)
    answers = {name: asyncio.run(CondorSpawner().leads_to(name)) for name in (*addresses, "unheard-of")}
    assert answers == {"inner": False, "any": False, "node7": True, "unheard-of": True}


def test_a_site_says_which_machines_it_is_led_to() -> None:
    spawner = CondorSpawner(nodes=r"node[0-9]+|10\.1\.[0-9.]+")
    names = {
        "node7": True,
        "10.1.0.7": True,
        "node7.evil": False,
        "xnode7": False,
        "node7\n": False,
        "localhost": False,
    }
    assert {name: asyncio.run(spawner.leads_to(name)) for name in names} == names
    with pytest.raises(TraitError, match="no regular expression"):
        CondorSpawner(nodes="node[")


@pytest.mark.parametrize("said", [True, False])
def test_a_server_elsewhere_is_given_up(said: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    alices = person(CondorSpawner, monkeypatch, "alice", job_id="12")
    alices.job_facts = {"port": 5000}

    async def state(job: str, *, newest: bool = False) -> JobState:
        return JobState(RUNNING, node="localhost" if said else "node7")

    async def main() -> Any:
        alices._port_said = asyncio.Event()
        alices._port_said.set()
        alices.job_state = state
        return await alices._up()

    monkeypatch.setattr("hpcbinder.jupyterhub.others._is_here", _nowhere)
    if said:
        with pytest.raises(web.HTTPError) as caught:
            asyncio.run(main())
        assert "'localhost' is no machine" in caught.value.jupyterhub_message  # type: ignore[attr-defined]
    else:
        assert asyncio.run(main()) == ("node7", 5000)


async def _nowhere(name: str) -> bool:
    return False


REQUEST = {"place": "/home/alice/servers", "server": "jupyter-x"}
PUT = {"folder": "/home/alice/servers/jupyter-x~abcd_123", "log": "/home/alice/servers/jupyter-x.log"}


def test_where_a_server_s_files_are_is_below_where_they_were_to_be() -> None:
    assert put_there(REQUEST, PUT) == (PUT["folder"], PUT["log"])
    assert put_there({**REQUEST, "place": "/home/alice/servers/"}, PUT) == (PUT["folder"], PUT["log"])


@pytest.mark.parametrize(
    "answer",
    [
        {},
        {**PUT, "folder": None},
        {**PUT, "folder": ["x"]},
        {**PUT, "folder": "/etc"},
        {**PUT, "folder": f"{PUT['folder']}/.."},
        {**PUT, "folder": f"{PUT['folder']}\n"},
        {**PUT, "folder": "/home/alice/servers/../jupyter-x~abcd_123"},
        {**PUT, "log": "/etc/passwd"},
        {**PUT, "log": f"{PUT['log']}\n#PBS -q x"},
        {**PUT, "log": "x" * 100_000},
        {**PUT, "log": {}},
    ],
)
def test_other_answers_are_none(answer: Any) -> None:
    with pytest.raises(RunError, match="cannot be read"):
        put_there(REQUEST, answer)


def test_a_server_that_asks_where_it_runs_has_the_scheduler_asked_no_more(
    asked: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spawner = person(SlurmSpawner, monkeypatch, queue_interval=1000.0)
    monkeypatch.setattr(spawner, "owner", lambda account: "1001")
    found = {}
    for job in ("100", "101"):
        queue = Queue(spawner.queue()._look, 1000.0)
        monkeypatch.setattr(spawner, "queue", lambda queue=queue: queue)
        spawner.job_id = job
        found[job] = {asyncio.run(spawner.machine()) for _ in range(5)}
    assert found == {"100": {"n1"}, "101": {""}}
    assert len(asked.read_text().splitlines()) == 2
