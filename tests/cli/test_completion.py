"""Completion, asked for as shells do: in a real bash, and by the protocol that the other shells' scripts speak."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from hpcbinder.catalog import Catalog, LogBook
from hpcbinder.cli.main import COMMANDS
from hpcbinder.progress import Silent

ID = "chirp-0123456789ab"


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """A store that has one image's log, and `hpcbinder` on PATH."""
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin/hpcbinder"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m hpcbinder "$@"\n')
    program.chmod(0o755)
    with Catalog(tmp_path / "store").logged(ID, LogBook(Silent(), "x")):
        pass
    (tmp_path / "store/images" / ID).mkdir()
    return {
        **os.environ,
        "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
        "HPCBINDER_STORE_PATH": str(tmp_path / "store"),
    }


def bash(environment: dict[str, str], line: str) -> list[str]:
    """What bash would put in place of the last word of a line."""
    program = """
eval "$(hpcbinder completion bash)"
read -r -a COMP_WORDS <<< "$1"
[ "${1% }" = "$1" ] || COMP_WORDS+=("")
COMP_CWORD=$((${#COMP_WORDS[@]} - 1)) COMPREPLY=()
"$(complete -p hpcbinder | sed 's/.*-F \\([^ ]*\\).*/\\1/')" hpcbinder
printf '%s\\n' "${COMPREPLY[@]}"
"""
    done = subprocess.run(["bash", "-c", program, "bash", line], env=environment, capture_output=True, text=True)
    assert done.stderr == ""
    return done.stdout.split()


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("hpcbinder doc", ["doctor"]),
        ("hpcbinder show ", [ID]),
        ("hpcbinder rm chirp", [ID]),
        ("hpcbinder logs c", [ID]),
        ("hpcbinder run chi", [ID]),
        ("hpcbinder run --runtime p", ["podman-hpc"]),
        ("hpcbinder gc --dry", ["--dry-run"]),
        ("hpcbinder plan --format ", ["text", "json", "dockerfile"]),
        ("hpcbinder completion ", ["bash", "zsh", "fish"]),
        ("hpcbinder convert chi", [ID]),
        ("hpcbinder convert contai", ["containers-storage:"]),
        ("hpcbinder convert x --to s", ["sif", "squashfs", "shifter"]),
        ("hpcbinder convert x --to sif,en", ["sif,enroot"]),
        ("hpcbinder convert x --to sif,si", []),
        ("hpcbinder show nothing", []),
    ],
)
def test_bash(environment: dict[str, str], line: str, words: list[str]) -> None:
    assert bash(environment, line) == words


def test_every_command_is_offered(environment: dict[str, str]) -> None:
    assert bash(environment, "hpcbinder ") == list(COMMANDS)


def test_the_store_that_the_line_names_is_looked_into(environment: dict[str, str], tmp_path: Path) -> None:
    environment["HPCBINDER_STORE_PATH"] = str(tmp_path / "elsewhere")
    assert bash(environment, "hpcbinder show ") == []
    assert bash(environment, f"hpcbinder --store {tmp_path / 'store'} show ") == [ID]


def test_a_broken_configuration_completes_nothing_and_says_nothing(environment: dict[str, str]) -> None:
    assert bash({**environment, "HPCBINDER_STORE_NONSENSE": "x"}, "hpcbinder show ") == []


def ask(environment: dict[str, str], shell: str, line: str, incomplete: str) -> str:
    """The words of a line, asked for as a shell's script does (click.shell_completion)."""
    words = {"COMP_WORDS": line, "COMP_CWORD": incomplete, "_HPCBINDER_COMPLETE": f"{shell}_complete"}
    done = subprocess.run(["hpcbinder"], env={**environment, **words}, capture_output=True, text=True)
    assert done.stderr == ""
    return done.stdout


def test_zsh_and_fish_by_their_protocol(environment: dict[str, str]) -> None:
    assert ID in ask(environment, "zsh", "hpcbinder show", "2").splitlines()
    assert ID in ask(environment, "fish", "hpcbinder show ", "")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_script_asks_our_program(environment: dict[str, str], shell: str) -> None:
    done = subprocess.run(["hpcbinder", "completion", shell], env=environment, capture_output=True, text=True)
    assert f"_HPCBINDER_COMPLETE={shell}_complete" in done.stdout
    assert done.stderr == ""


def test_a_completion_imports_nothing_heavy(environment: dict[str, str]) -> None:
    program = (
        "import sys, hpcbinder.cli.main as m\n"
        "try:\n m.main([])\nexcept SystemExit: pass\nprint(*sys.modules, file=sys.stderr)"
    )
    words = {"COMP_WORDS": "hpcbinder show ", "COMP_CWORD": "2", "_HPCBINDER_COMPLETE": "bash_complete"}
    done = subprocess.run([sys.executable, "-c", program], env={**environment, **words}, capture_output=True, text=True)
    assert done.stdout == f"plain,{ID}\n"
    assert not {"docker", "git", "rich", "requests", "uv", "asyncio", "jupyter_core"} & set(done.stderr.split())
