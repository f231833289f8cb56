"""What a person asks of a hub: the same model whichever way it comes, and nothing of a stranger's gets past it."""

from __future__ import annotations

import dataclasses
import re
import unicodedata
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcbinder.errors import UsageError
from hpcbinder.jupyterhub.environment import Environment, Site
from hpcbinder.jupyterhub.options import parse, resources
from hpcbinder.scheduler import gpu_count, mebibytes, seconds
from hpcbinder.text import printable

ID = "ligo-0123456789ab"
ENVIRONMENTS = {
    ID: Environment(ID, "LIGO", "https://example.org/ligo", resources={"cpus": 2, "gpus": "a100:1", "time": "30"}),
    "plain-0123456789ab": Environment("plain-0123456789ab", "Plain", "https://example.org/plain"),
}
SITE = Site(
    partitions=("debug", "gpu"),
    accounts=("phys",),
    reservations=("course",),
    nodes=2,
    cpus=8,
    memory="16G",
    time="8:00:00",
    gpus=4,
)


def asked(raw: object, site: Site = SITE) -> list[str]:
    """The options that the batch system is told."""
    options = parse(raw, ENVIRONMENTS, site)
    return resources(options, ENVIRONMENTS[options.environment], site).options()


def test_a_form_a_link_and_json_say_the_same() -> None:
    form = {
        "environment": [ID],
        "cpus": ["4"],
        "reset": ["true"],
        "path": ["a/b.ipynb"],
        "account": [""],
        "gpus": ["0"],
    }
    link = {"environment": [ID], "cpus": ["4"], "reset": ["1"], "path": ["./a//b.ipynb"], "gpus": ["0"]}
    rest = {"environment": ID, "cpus": 4, "reset": True, "path": "a/b.ipynb", "qos": None, "gpus": 0}
    options = parse(form, ENVIRONMENTS, SITE)
    assert options == parse(link, ENVIRONMENTS, SITE) == parse(rest, ENVIRONMENTS, SITE)
    assert options == parse({"user_options": rest}, ENVIRONMENTS, SITE)
    assert (options.cpus, options.reset, options.path) == (4, True, "a/b.ipynb")


def test_a_person_comes_before_the_environment_and_that_before_the_site() -> None:
    site = dataclasses.replace(SITE, defaults={"time": "10", "qos": "normal", "cpus": 1})
    assert asked({"environment": ID, "time": "45"}, site) == [
        *("--ntasks=1", "--cpus-per-task=2", "--mem=16G", "--time=45", "--gpus=a100:1", "--partition=debug"),
        "--qos=normal",
    ]
    assert asked({"environment": "plain-0123456789ab", "partition": "gpu"}, site) == [
        *("--ntasks=1", "--cpus-per-task=1", "--mem=16G", "--time=10", "--partition=gpu", "--qos=normal")
    ]


def test_no_gpu_can_be_said_against_the_environment() -> None:
    assert "--gpus=a100:1" in asked({"environment": ID})
    assert not [word for word in asked({"environment": ID, "gpus": "0"}) if "gpu" in word]


def test_what_nobody_says_is_left_to_the_scheduler_where_nothing_limits_it() -> None:
    assert asked({"environment": "plain-0123456789ab"}, Site()) == ["--ntasks=1"]


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ({}, "say which environment to start"),
        ({"environment": "other-0123456789ab"}, "there is no such environment, or it is not for you"),
        ({"environment": ["/etc/passwd"]}, "there is no such environment, or it is not for you"),
        ({"environment": f"{ID}\n"}, "there is no such environment, or it is not for you"),
        ({"environment": [ID, ID]}, "environment must be said once"),
        ({"environment": ID, "prologue": "touch x"}, "there is no option 'prologue'"),
        ({"environment": ID, "exec_prefix": "sh -c"}, "there is no option 'exec_prefix'"),
        ({"environment": ID, "tasks": 4}, "there is no option 'tasks'"),
        ({"environment": ID, "time": "0:59:00\n#SBATCH --comment=x"}, "is not a time"),
        ({"environment": ID, "time": "$(id)"}, "is not a time"),
        ({"environment": ID, "time": "0"}, "time: at most 8:00:00 here"),
        ({"environment": ID, "time": "8:00:01"}, "time: at most 8:00:00 here"),
        ({"environment": ID, "time": "1-0"}, "time: at most 8:00:00 here"),
        ({"environment": ID, "memory": "0"}, "memory: at most 16G here"),
        ({"environment": ID, "memory": "16385"}, "memory: at most 16G here"),
        ({"environment": ID, "memory": "1T"}, "memory: at most 16G here"),
        ({"environment": ID, "cpus": 9}, "cores: at most 8 here"),
        ({"environment": ID, "cpus": -1}, "a job cannot have -1 cpus"),
        ({"environment": ID, "cpus": True}, "cpus must be a whole number"),
        ({"environment": ID, "cpus": 1.5}, "cpus must be a whole number"),
        ({"environment": ID, "cpus": "４"}, "cpus must be a whole number"),
        ({"environment": ID, "nodes": 3}, "nodes: at most 2 here"),
        ({"environment": ID, "gpus": "h100:5"}, "GPUs: at most 4 here"),
        ({"environment": ID, "partition": "secret"}, "'secret' is no partition that can be chosen here"),
        ({"environment": ID, "partition": "debug,secret"}, "is no partition that can be chosen here"),
        ({"environment": ID, "partition": "debug --uid=0"}, "is not the name of a partition"),
        ({"environment": ID, "account": "chem"}, "'chem' is no account that can be chosen here"),
        ({"environment": ID, "reservation": "exam"}, "'exam' is no reservation that can be chosen here"),
        ({"environment": ID, "constraint": "a;reboot"}, "is not features of nodes"),
        ({"environment": ID, "qos": ["a"] * 2}, "qos must be said once"),
        ({"environment": ID, "path": "../other"}, "path must be a file of the repository"),
        ({"environment": ID, "path": "a/../../b"}, "path must be a file of the repository"),
        ({"environment": ID, "path": "/etc/passwd"}, "path must be a file of the repository"),
        ({"environment": ID, "path": "a\nb"}, "path must not hold control characters"),
        ({"environment": ID, "path": "a\u202eb"}, "path must not hold control characters"),
        ({"environment": ID, "path": "a\udcffb"}, "path must not hold control characters"),
        ({"environment": ID, "path": "x/" * 600}, "path is shorter"),
        ({"environment": ID, "path": {"x": 1}}, "path must be text"),
        ({"environment": ID, "reset": "maybe"}, "reset must be true or false"),
        ({"environment": {"$ne": ""}}, "environment must be text"),
        ({"environment": ID, "time": "1" * 2000}, "time is too long"),
        ({f"k{number}": "x" for number in range(65)}, "these are too many options"),
        ({"user_options": {"user_options": {"environment": ID}}}, "say which environment to start"),
        ({"user_options": {"environment": ID}, "environment": ID}, "there is no option 'user_options'"),
        ({"user_options": [{"environment": ID}]}, "say which environment to start"),
        ([ID], "options are names with values"),
        (None, "options are names with values"),
    ],
)
def test_what_is_refused(said: object, why: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(said, ENVIRONMENTS, SITE)
    assert why in caught.value.message
    assert caught.value.message.isprintable()


def test_several_partitions_may_be_named_of_those_that_may_be_chosen() -> None:
    assert "--partition=gpu,debug" in asked({"environment": ID, "partition": "gpu,debug"})


def test_where_no_account_may_be_chosen_none_can_be_named() -> None:
    with pytest.raises(UsageError, match="no account that can be chosen"):
        parse({"environment": ID, "account": "phys"}, ENVIRONMENTS, dataclasses.replace(SITE, accounts=()))


KEYS = st.sampled_from(
    [
        *("environment", "partition", "time", "nodes", "cpus", "memory", "gpus", "account", "qos", "reservation"),
        *("constraint", "path", "reset", "prologue", "cmd", "__class__"),
    ]
)
LEAF = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(),
    st.binary(),
    st.sampled_from(
        [ID, "debug", "phys", "30", "4G", "a.ipynb", "1", "a100:1", "true", "x\n#SBATCH y", "../x", "$(id)"]
    ),
)
VALUE = st.recursive(
    LEAF, lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(), inner)), max_leaves=5
)
RAW = st.one_of(
    VALUE,
    st.dictionaries(st.one_of(KEYS, st.text(), st.integers()), VALUE, max_size=8),
    st.dictionaries(KEYS, LEAF, max_size=8).map(lambda raw: {"environment": ID, **raw}),
)
WORD = re.compile(r"--[a-z-]+=[A-Za-z0-9_.@%+:,&|*()\[\]-]+")


@given(RAW)
def test_whatever_is_said_comes_out_as_words_that_mean_one_thing(raw: Any) -> None:
    try:
        options = parse(raw, ENVIRONMENTS, SITE)
    except UsageError as error:
        assert printable(error.message) == error.message and len(error.message) < 400
        return
    assert parse(options.said(), ENVIRONMENTS, SITE) == options
    wanted = resources(options, ENVIRONMENTS[options.environment], SITE)
    assert all(WORD.fullmatch(word) for word in wanted.options())
    assert wanted.tasks == 1 and wanted.nodes <= 2 and wanted.cpus <= 8 and gpu_count(wanted.gpus) <= 4
    assert seconds(wanted.time) <= 8 * 3600 and mebibytes(wanted.memory) <= 16 * 1024
    assert set(wanted.partition.split(",")) <= {"debug", "gpu"} and wanted.account in ("", "phys")
    assert not options.path.startswith("/") and ".." not in options.path.split("/")
    assert not {unicodedata.category(char) for char in options.path} & {"Cc", "Cf", "Cs", "Zl", "Zp"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [("90", 5400), ("1:30", 90), ("1:00:30", 3630), ("2-3", 183600), ("1-0:10", 87000), ("1-0:0:5", 86405), ("0:0", 0)],
)
def test_times_as_sbatch_takes_them(text: str, expected: int) -> None:
    assert seconds(text) == (expected or float("inf"))


@pytest.mark.parametrize(("text", "expected"), [("512", 512), ("2G", 2048), ("1t", 1 << 20), ("1024K", 1), ("0", 0)])
def test_memory_as_sbatch_takes_it(text: str, expected: int) -> None:
    assert mebibytes(text) == (expected or float("inf"))
