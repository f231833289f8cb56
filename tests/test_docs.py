"""What the pages tell people to type and to write into a file is taken: commands with their options, settings."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest

from hpcbinder.cli.main import cli
from hpcbinder.cli.session import Session
from hpcbinder.config import load
from hpcbinder.config.keys import SECTIONS

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(page: Path, language: str) -> list[str]:
    """The fenced blocks of a page."""
    return re.findall(rf"^ *```{language}\n(.*?)^ *```$", page.read_text(), re.MULTILINE | re.DOTALL)


def commands() -> list[str]:
    """Every `hpcbinder …` of the pages; images.md has a synopsis, with [brackets], instead."""
    pages = [page for page in PAGES if page.name != "images.md"]
    lines = [line for page in pages for block in blocks(page, "") for line in block.splitlines()]
    return [line for line in lines if line.startswith("hpcbinder ")]


def words(line: str) -> list[str]:
    """What the program gets of a line of the shell."""
    found = shlex.split(line, comments=True)[1:]
    ends = [number for number, word in enumerate(found) if word in ("<", ">")]
    # What the README writes in capitals stands for a name.
    return [word.replace("REGISTRY/NAME[:TAG]", "example.org/name") for word in found[: ends[0] if ends else None]]


@pytest.mark.parametrize("line", commands())
def test_the_command_line_takes_it(line: str) -> None:
    name, *arguments = words(line)
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    # Parses and checks all values, and runs nothing.
    command.make_context(name, arguments, obj=Session())


def test_the_configuration_takes_every_example(tmp_path: Path) -> None:
    taken = set()
    for page in PAGES:
        for block in blocks(page, "toml"):
            sections = {name.partition(".")[0] for name in re.findall(r"^ *\[([a-z.]+)\]$", block, re.MULTILINE)}
            if not sections or not sections <= {*SECTIONS}:
                continue  # somebody else's file: a buildpack's, podman's
            file = tmp_path / "config.toml"
            file.write_text(block)
            load(environ={"SCRATCH": "/scratch", "HOME": "/home/ada"}, site_file=file, user_file=tmp_path / "none")
            taken.add(page.name)
    assert taken >= {"bases.md", "config.md", "registries.md"}


GITHUB = sorted(
    {url for page in PAGES for url in re.findall(r"hpcbinder \w+ (https://github\.com/\S+)", page.read_text())}
)


@pytest.mark.parametrize("url", GITHUB)
def test_a_github_address_of_the_pages_is_planned(tmp_path: Path, url: str) -> None:
    """From a repository of this machine, by git's `url.<local>.insteadOf`."""
    repository = tmp_path / "repository"
    (repository / "folder").mkdir(parents=True)
    (repository / "folder" / "requirements.txt").write_text("six\n")
    mirror = f'[url "file://{repository}"]\n insteadOf = {"/".join(url.split("/")[:5])}\n'
    (tmp_path / ".gitconfig").write_text(f"{mirror}[user]\n name = a\n email = a@b.invalid\n")
    environment = {"HOME": str(tmp_path), "PATH": os.environ["PATH"]}
    for words in (["init", "-q", "-b", "main"], ["add", "."], ["commit", "-q", "-m", "x"]):
        subprocess.run(["git", *words], cwd=repository, env=environment, check=True)
    command = [sys.executable, "-m", "hpcbinder", "--store", str(tmp_path / "store"), "plan", "--no-lock", url]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "/".join(url.split("/")[:5]) in done.stdout
    assert ("requirements.txt  used" in done.stdout) == url.endswith("/folder")


def test_there_are_such_addresses() -> None:
    assert any(url.endswith("/folder") for url in GITHUB)
    assert "https://github.com/org/repository" in GITHUB
