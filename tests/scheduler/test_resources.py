"""What a job may ask for, whichever way it was said."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcbinder.errors import UsageError
from hpcbinder.scheduler import Resources

TEXTS = [field.name for field in dataclasses.fields(Resources) if field.type == "str"]


def test_one_word_for_each_option() -> None:
    asked = Resources(tasks=4, nodes=2, memory="4G", time="1-02:30", gpus="a100:2", partition="debug,long")
    assert asked.options() == [
        "--ntasks=4",
        "--nodes=2",
        "--mem=4G",
        "--time=1-02:30",
        "--gpus=a100:2",
        "--partition=debug,long",
    ]


@pytest.mark.parametrize("time", ["30", "30:00", "1:30:00", "1-0", "2-12:00", "2-12:00:00"])
def test_times_as_slurm_has_them(time: str) -> None:
    assert Resources(time=time).options() == ["--ntasks=1", f"--time={time}"]


@pytest.mark.parametrize(
    "attack",
    [
        "debug\n#SBATCH --uid=0",
        "debug --uid=0",
        "--prolog=/tmp/x",
        "-p",
        "$(id)",
        "`id`",
        "a;b",
        "a'b",
        'a"b',
        "a\0b",
        "a/../b",
        "ü",
        "x" * 300,
    ],
)
@pytest.mark.parametrize("name", TEXTS)
def test_no_value_is_more_than_a_value(name: str, attack: str) -> None:
    with pytest.raises(UsageError) as caught:
        Resources(**{name: attack})
    assert "\n" not in caught.value.message
    assert len(caught.value.message) < 300


@given(st.sampled_from(TEXTS), st.text(min_size=1, max_size=40))
def test_whatever_is_taken_is_one_plain_word(name: str, text: str) -> None:
    try:
        words = Resources(**{name: text}).options()
    except UsageError:
        return
    assert words[1].partition("=")[2] == text
    assert text.isascii() and not set(text) & set(" \t\n'\"\\$`;<>#~")
    assert not text.startswith("-")


@pytest.mark.parametrize(("name", "number"), [("tasks", 0), ("tasks", -1), ("nodes", -1), ("cpus", 10**9)])
def test_numbers_that_no_job_has(name: str, number: int) -> None:
    with pytest.raises(UsageError, match=name):
        Resources(**{name: number})
