"""The words of PBS, LSF and HTCondor for what a job asks for. Of these only HTCondor's are tried on the real thing
(tests/jupyterhub/test_condor.py); PBS and LSF cannot be had, and their words are as their manuals have them."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcbinder.errors import UsageError
from hpcbinder.scheduler import Resources, htcondor_directives, lsf_directives, pbs_directives

ALL = [pbs_directives, lsf_directives, htcondor_directives]
Directives = Callable[[Resources], list[str]]


def test_pbs() -> None:
    asked = Resources(nodes=2, cpus=8, memory="16G", time="1-02:30", gpus="2", partition="gpu", account="phys-1")
    assert pbs_directives(asked) == [
        "-l select=2:ncpus=8:mem=16384mb:ngpus=2",
        "-l walltime=26:30:00",
        "-q gpu",
        "-A phys-1",
    ]
    assert pbs_directives(Resources(time="90", reservation="R123.pbs")) == [
        "-l select=1:ncpus=1",
        "-l walltime=1:30:00",
        "-q R123.pbs",
    ]


def test_lsf() -> None:
    asked = Resources(cpus=8, memory="16G", time="2:30:10", gpus="2", partition="a,b", account="x", reservation="u")
    assert lsf_directives(asked) == [
        "-n 8",
        '-R "span[hosts=1]"',
        '-R "rusage[mem=16384MB/host]"',
        "-W 151",
        '-q "a b"',
        "-P x",
        "-U u",
        '-gpu "num=2"',
    ]
    assert lsf_directives(Resources(nodes=2, cpus=4)) == ["-n 8", '-R "span[ptile=4]"']


def test_htcondor() -> None:
    asked = Resources(cpus=2, memory="512M", time="1:00:00", gpus="1", account="group_x.sub")
    assert htcondor_directives(asked) == [
        "request_cpus = 2",
        "request_memory = 512MB",
        "request_gpus = 1",
        "allowed_job_duration = 3600",
        "accounting_group = group_x.sub",
    ]


@pytest.mark.parametrize(
    ("directives", "asked", "why"),
    [
        (pbs_directives, {"qos": "high"}, "PBS has no qos"),
        (pbs_directives, {"constraint": "skylake"}, "PBS has no constraint"),
        (pbs_directives, {"partition": "a,b"}, "one queue"),
        (pbs_directives, {"gpus": "a100:2"}, "not for a kind"),
        (lsf_directives, {"qos": "high"}, "LSF has no qos"),
        (lsf_directives, {"reservation": "a,b"}, "one reservation"),
        (htcondor_directives, {"partition": "debug"}, "HTCondor has no partition"),
        (htcondor_directives, {"nodes": 2}, "one node"),
        *((each, {"memory": "0"}, "how much memory") for each in ALL),
        *((each, {"time": "0"}, "how long") for each in ALL),
    ],
)
def test_what_a_system_has_no_words_for_is_refused(directives: Directives, asked: dict[str, str], why: str) -> None:
    with pytest.raises(UsageError, match=why):
        directives(Resources(**asked))  # type: ignore[arg-type]


HOSTILE = st.text(st.sampled_from("ab1.-:,\n\r\0;#$`\"'\\(){}[]<>|& =%+@_"), max_size=12)
TEXTS = [field.name for field in dataclasses.fields(Resources) if field.type == "str"]


@given(st.fixed_dictionaries({}, optional=dict.fromkeys(TEXTS, HOSTILE)), st.sampled_from(ALL))
def test_no_word_ends_a_line_or_is_more_than_one(asked: dict[str, str], directives: Directives) -> None:
    try:
        lines = directives(Resources(**asked))  # type: ignore[arg-type]
    except (UsageError, ValueError):
        return
    for line in lines:
        assert re.fullmatch(
            r'-[lqAPUnW] [\w.@%+:,=-]+|-(R|q|gpu) "[\w.@%+=/ \[\]-]+"|[a-z_]+ = [\w.@%+-]+', line, re.ASCII
        ), line


@pytest.mark.parametrize("name", ["partition", "reservation"])
def test_pbs_is_asked_for_no_other_server(name: str) -> None:
    with pytest.raises(UsageError, match="of its own server"):
        pbs_directives(dataclasses.replace(Resources(), **{name: "work@elsewhere"}))
