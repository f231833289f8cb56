"""Variables and commands of any content arrive unchanged; checked with real shells."""

from __future__ import annotations

import json
import re
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcbinder.convert.environment import charliecloud_file, image_environment, runscript, shell_exports
from hpcbinder.convert.formats.shifter import meta_file
from hpcbinder.image import parse_config
from hpcbinder.model import ImageConfig

text = st.text(st.characters(blacklist_characters="\0", blacklist_categories=["Cs"]), max_size=20)
word = text
names = st.from_regex(r"\A[A-Z]{3}[A-Z0-9_]{0,5}\Z").map(lambda name: f"X{name}")
PRINT_ENV = ["env", "-0"]
PRINT_ARGUMENTS = ["printf", "%s\\0"]


def run(script: str, *arguments: str) -> list[str]:
    done = subprocess.run(["/bin/sh", "-c", script, "sh", *arguments], capture_output=True, check=True)
    return done.stdout.decode().split("\0")[:-1]


def config(**fields: object) -> ImageConfig:
    return parse_config(json.dumps({"config": fields}).encode())


@settings(max_examples=40, deadline=None)
@given(st.dictionaries(names, text, max_size=5))
def test_a_shell_sets_exactly_the_values(env: dict[str, str]) -> None:
    seen = dict(item.split("=", 1) for item in run(shell_exports(env) + "env -0\n"))
    assert {name: seen[name] for name in env} == env


def test_what_is_the_persons_or_the_shells_is_not_set() -> None:
    env = {"HOME": "/root", "USER": "x", "UID": "0", "IFS": ":", "A-B": "1", "x;id": "1", "PATH": "/bin", "A": ""}
    assert image_environment(env) == {"PATH": "/bin", "A": ""}


@settings(max_examples=60, deadline=None)
@given(st.lists(word, max_size=3), st.lists(word, max_size=3), st.lists(word, max_size=3))
def test_the_runscript_is_docker_run(entrypoint: list[str], cmd: list[str], arguments: list[str]) -> None:
    # As in docker run: arguments replace CMD, ENTRYPOINT stays in front.
    script = runscript(("printf", "%s\\0", *entrypoint), tuple(cmd))
    assert run(script, *arguments) == [*entrypoint, *(arguments or cmd)] or not [*entrypoint, *(arguments or cmd)]


def test_an_image_without_entrypoint_runs_its_command_or_a_shell() -> None:
    assert run(runscript((), ("printf", "%s\\0", "a b"))) == ["a b"]
    assert run(runscript((), ("false",)), *PRINT_ARGUMENTS, "x") == ["x"]
    assert subprocess.run(["/bin/sh", "-c", runscript((), ()), "sh"], input=b"exit 7", check=False).returncode == 7


def test_charliecloud_gets_quotes_it_takes_off_and_no_line_ends() -> None:
    assert charliecloud_file({"A": "1", "B": "'b'", "C": "c\nEVIL=1", "D": 'it\'s a "test" $x'}) == (
        "A=1\nB=''b''\nD=it's a \"test\" $x\n",
        ("C",),
    )


BLANKS = " \t\n\v\f\r"


def shifter_reads(meta: str) -> list[tuple[str, str]]:
    """Keys and values by the rules of shifter_parseConfig (NERSC/shifter, src/utility.c)."""
    found: list[tuple[str, str]] = []
    key, value = "", None
    for line in meta.split("\n")[:-1]:
        if line.startswith("#"):
            continue
        if value is None:
            key, colon, line = line.partition(":")
            if not colon:
                continue
        part = line.strip(BLANKS)
        assert part, "shifter reads in front of an empty value"
        goes_on = part.endswith("\\")
        part = part[:-1].strip(BLANKS) if goes_on else part
        value = part if value is None else f"{value} {part}"
        if not goes_on:
            found.append((key.strip(BLANKS), value.strip(BLANKS)))
            value = None
    assert value is None
    return found


def test_shifters_meta_file() -> None:
    image = config(
        Entrypoint=["/opt/hpcbinder/bin/entrypoint"],
        Cmd=["jupyter", "lab"],
        WorkingDir="/srv/repo",
        Env=["PATH=/opt/env/bin:/bin", "X=it's"],
        Volumes={"/data": {}, "/x y": {}},
    )
    assert meta_file(image) == (
        "FORMAT: squashfs\n"
        "ENTRY: ['/opt/hpcbinder/bin/entrypoint']\n"
        "CMD: ['jupyter', 'lab']\n"
        "WORKDIR: /srv/repo\n"
        "ENV: PATH=/opt/env/bin:/bin\n"
        "ENV: X=it's\n"
        "VOLUME: /data\n",
        (),
    )


@pytest.mark.parametrize("bad", ["it's", "a\nENV: X=1"])
def test_a_command_shifter_cannot_read_becomes_the_runscript(bad: str) -> None:
    text, _ = meta_file(config(Entrypoint=["sh", "-c"], Cmd=[bad]))
    assert text == "FORMAT: squashfs\nENTRY: ['/.singularity.d/runscript']\n"


@given(env=st.dictionaries(names, text, max_size=5), workdir=text.map(lambda path: f"/{path}"), cmd=st.lists(text))
def test_shifter_reads_back_what_was_meant(env: dict[str, str], workdir: str, cmd: list[str]) -> None:
    meta, lost = meta_file(config(Env=[f"{k}={v}" for k, v in env.items()], WorkingDir=workdir, Cmd=cmd))
    read = shifter_reads(meta)
    assert [value for key, value in read if key == "ENV"] == [f"{k}={v}" for k, v in env.items() if k not in lost]
    assert all("\n" in env[name] or env[name][-1] in BLANKS + "\\" for name in lost)
    assert [value for key, value in read if key == "WORKDIR"] in ([workdir], [])
    for key, value in read:
        if key == "CMD":
            assert re.findall("'([^']*)'", value) == cmd
    assert {key for key, _ in read} <= {"FORMAT", "ENTRY", "CMD", "WORKDIR", "ENV"}
