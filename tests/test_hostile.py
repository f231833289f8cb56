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
from package_index import PackageIndex


@dataclass
class Trap:
    """A folder to work in, a canary that must not appear, a port that must not be called, the site's package index."""

    folder: Path
    port: int
    index: PackageIndex
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
            "HPCBINDER_SITE_PIP_INDEX_URL": self.index.url,
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
        # Versions that were found for another file before this one was refused are whole, and kept.
        left = [p for p in store.rglob("*") if p.is_file() and not {"locks", "resolved"}.intersection(p.parts)]
        assert [p.name for p in left if p.name not in ("VERSION", "version")] == []


@pytest.fixture
def trap(tmp_path: Path, package_index: PackageIndex) -> Iterator[Trap]:
    package_index.ours()
    listener = socket.create_server(("127.0.0.1", 0))
    made = Trap(tmp_path, listener.getsockname()[1], package_index)

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
        ("runtime.txt", "python-1.5\n", "runtime.txt"),
        ("environment.yml", "dependencies: [!!python/object/apply:os.system ['touch {canary}']]\n", "environment.yml"),
    ],
)
def test_config_files(trap: Trap, verb: str, name: str, text: str, says: str) -> None:
    (trap.repository / name).write_text(text.format(canary=trap.canary, port=trap.port))
    assert says in trap.refused(verb, str(trap.repository), code=4)


PROJECT = "[project]\nname = 'x'\nversion = '1'\n[build-system]\nrequires = ['hatchling']\n"
SIX = 'name = "six"\nversion = "1"\n'
UV_LOCK = (
    'version = 1\n[[package]]\nname = "x"\nsource = {{ virtual = "." }}\ndependencies = [{{ name = "six" }}]\n'
    "[[package]]\n"
)
PYLOCK = "lock-version = '1.0'\n[[packages]]\n"
POETRY = "[tool.poetry]\npackage-mode = false\n[tool.poetry.dependencies]\n"
POETRY_LOCK = "[metadata]\nlock-version = '2.1'\npython-versions = '*'\n[[package]]\n"


@BOTH
@pytest.mark.parametrize(
    ("name", "text", "beside", "says"),
    [
        ("Pipfile", "[[source]]\nurl = 'http://127.0.0.1:{port}/simple'\n[packages]\nsix = '*'\n", {}, "Pipfile:2"),
        ("Pipfile", "[[source]]\nurl = 'https://127.0.0.1:{port}/${{SECRET}}'\n", {}, "Pipfile:2"),
        ("Pipfile", "[[source]]\nurl = 'file:///etc'\n", {}, "Pipfile:2"),
        ("Pipfile", "[packages]\nsix = {{git = 'ext::sh -c touch% {canary}'}}\n", {}, "Pipfile:2"),
        ("Pipfile", "[packages]\nsix = {{path = '/etc'}}\n", {}, "Pipfile:2"),
        ("Pipfile", "[packages]\n\"$(touch {canary})\" = '*'\n", {}, "Pipfile:2"),
        ("Pipfile.lock", '{{"default": {{"six": {{"file": "http://127.0.0.1:{port}/six.whl"}}}}}}', {}, "Pipfile.lock"),
        ("Pipfile.lock", '{{"default": {{"six": {{"version": "==1; touch {canary}"}}}}}}', {}, "Pipfile.lock"),
        ("Pipfile.lock", '{{"default": {{"six": {{"path": "../../../etc"}}}}}}', {}, "Pipfile.lock"),
        (
            "uv.lock",
            UV_LOCK + SIX + "source = {{ registry = 'http://127.0.0.1:{port}/' }}",
            {"pyproject.toml": PROJECT},
            "uv",
        ),
        (
            "uv.lock",
            UV_LOCK + SIX + "source = {{ git = 'http://127.0.0.1:{port}/#a' }}",
            {"pyproject.toml": PROJECT},
            "uv",
        ),
        ("uv.lock", UV_LOCK + SIX + "source = {{ editable = '/etc' }}", {"pyproject.toml": PROJECT}, "uv.lock:7"),
        ("uv.lock", UV_LOCK + SIX + "source = {{ path = '../canary.whl' }}", {"pyproject.toml": PROJECT}, "uv.lock:7"),
        ("pylock.toml", PYLOCK + SIX + "archive = {{ url = 'http://127.0.0.1:{port}/x.zip' }}", {}, "pylock.toml:3"),
        ("pylock.toml", PYLOCK + SIX + "archive = {{ path = '/etc/passwd' }}", {}, "pylock.toml:3"),
        (
            "pylock.toml",
            PYLOCK + SIX + "vcs = {{ type = 'git', url = 'ext::sh', commit-id = 'x' }}",
            {},
            "pylock.toml:3",
        ),
        ("poetry.lock", POETRY_LOCK + "name = 'six; touch {canary}'", {"pyproject.toml": POETRY}, "poetry.lock"),
        (
            "poetry.lock",
            POETRY_LOCK + SIX + "source = {{ type = 'directory', url = '../../etc' }}",
            {"pyproject.toml": POETRY + "six = '*'"},
            "poetry.lock:5",
        ),
        ("pyproject.toml", POETRY + "six = {{ url = 'http://127.0.0.1:{port}/six.zip' }}", {}, "pyproject.toml:4"),
        ("pyproject.toml", POETRY + "six = {{ git = '--upload-pack=touch {canary}' }}", {}, "pyproject.toml:4"),
        ("Dockerfile", "FROM 127.0.0.1:{port}/../x\n", {}, "Dockerfile:1"),
        ("Dockerfile", "FROM 127.0.0.1:{port}/x\n", {}, "Dockerfile:1"),
        ("Dockerfile", "FROM localhost:{port}/hpcbinder/x\n", {}, "Dockerfile:1"),
        ("Dockerfile", "FROM 0x7f000001.:{port}/x\n", {}, "Dockerfile:1"),
        ("Dockerfile", "FROM scratch\nCOPY --from=[::1]:{port}/x / /\n", {}, "Dockerfile:2"),
        ("Dockerfile", "FROM a\nRUN --mount=type=cache,id=hpcbinder-uv,target=/x touch {canary}\n", {}, "Dockerfile:"),
        ("Dockerfile", "FROM $(touch {canary})\n", {}, "Dockerfile:1"),
        ("Dockerfile", "FROM ${{SECRET}}/x\n", {}, "Dockerfile:1"),
        ("Dockerfile", "FROM --upload-pack=x a\n", {}, "Dockerfile:1"),
        ("Dockerfile", "FROM http://127.0.0.1:{port}/x\n", {}, "Dockerfile:1"),
        (".python-version", "1.5 ; touch {canary}\n", {}, ".python-version:1"),
    ],
)
def test_lock_files(trap: Trap, verb: str, name: str, text: str, beside: dict[str, str], says: str) -> None:
    for file, content in beside.items():
        (trap.repository / file).write_text(content)
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
def test_a_folder_three_thousand_levels_deep(trap: Trap, verb: str) -> None:
    descriptor = os.open(trap.repository, os.O_RDONLY)
    for _ in range(3_000):  # more than a path has room for, and than Python calls itself
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
def test_a_commit_three_thousand_levels_deep(trap: Trap, verb: str) -> None:
    git(trap.repository, "init", "-q", "-b", "main")
    path = "d/" * 3_000 + "f"
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


BACKEND = """\
[build-system]
requires = ["evil @ http://127.0.0.1:{port}/evil-1-py3-none-any.whl"]
build-backend = "backend"
backend-path = ["."]
[project]
name = "evil-project"
dynamic = ["version", "dependencies"]
"""


@pytest.mark.parametrize(
    "files",
    [
        {"pyproject.toml": BACKEND, "backend.py": "{run}", "setup.py": "{run}"},
        {"requirements.txt": "-e .\n./inner", "setup.py": "{run}", "inner/setup.py": "{run}"},
        {"requirements.txt": "git+https://127.0.0.1:{port}/x.git#egg=x\nhttps://127.0.0.1:{port}/y-1.tar.gz"},
        {"requirements.txt": "https://127.0.0.1:{port}/y-1-py3-none-any.whl\nz @ https://127.0.0.1:{port}/z.zip"},
        {"requirements.txt": "--extra-index-url https://127.0.0.1:{port}/simple\nx"},
        {"requirements.txt": "--find-links https://127.0.0.1:{port}/\nx"},
        {"requirements.txt": "pip\n-c limits.txt", "limits.txt": "x @ git+https://127.0.0.1:{port}/x.git"},
        {"uv.toml": '[[index]]\nurl = "https://127.0.0.1:{port}/simple"\ndefault = true\n'},
        {"pip.conf": "[global]\nindex-url = https://127.0.0.1:{port}/simple\n"},
        {"pyproject.toml": '[build-system]\nrequires=["x"]\n[project]\nname="a"\nversion="1"\n'
         '[tool.uv.sources]\npip = {{ path = "inner" }}\n[[tool.uv.index]]\n'
         'url = "https://127.0.0.1:{port}/simple"\n', "inner/setup.py": "{run}"},
    ],
)  # fmt: skip
def test_finding_versions_runs_nothing_and_asks_nobody_but_the_sites_index(trap: Trap, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = trap.repository / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text.format(port=trap.port, run=f"open({str(trap.canary)!r}, 'w')"))
    done = trap.hpcbinder("plan", str(trap.repository))
    assert done.returncode == 0, done.stderr
    trap.untouched()
    assert {path.split("/")[2].split("-")[0] for path in trap.index.requests} <= {"ipykernel", "pip"}


@BOTH
def test_a_conflict_is_told_before_anything_is_built(trap: Trap, verb: str) -> None:
    (trap.repository / "requirements.txt").write_text("pip<20\n")
    message = trap.refused(verb, str(trap.repository), code=4)
    assert message.startswith("hpcbinder: requirements.txt: no versions fit together: ")
    (trap.repository / "requirements.txt").write_text("no-such-package\x1b[2J\n")
    assert "\x1b" not in trap.refused(verb, str(trap.repository), code=4)


@BOTH
def test_an_index_that_is_not_there(trap: Trap, verb: str) -> None:
    trap.index.answer = lambda path: (503, b"\x1b[2J")
    message = trap.refused(verb, str(trap.repository), code=3)
    assert "--no-lock" in message


def test_unknown_ids_and_path_tricks(trap: Trap) -> None:
    for id_ in ("../../etc", "nothing", "/etc/passwd", "a/b", "-x"):
        for verb in ("show", "rm", "unregister"):
            done = trap.hpcbinder(verb, "--", id_)
            assert done.returncode == 8, (verb, id_, done.stderr)
            assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    "url",
    [
        "https://127.0.0.1:{port}/x",
        "http://127.0.0.1:{port}/x",
        "git://localhost:{port}/x",
        "ssh://git@127.0.0.1:{port}/x",
        "../../../../../../127.0.0.1:{port}/x",
        "ext::sh -c touch% {canary}",
        "--upload-pack=touch {canary}",
    ],
)
def test_a_submodule_does_not_lead_planning_into_the_network(trap: Trap, url: str) -> None:
    folder = trap.repository
    url = url.format(port=trap.port, canary=trap.canary)
    (folder / ".gitmodules").write_text(
        f'[submodule "../../x"]\n\tpath = lib\n\turl = {url}\n\tupdate = !touch {trap.canary}\n'
    )
    commit(folder)
    git(folder, "update-index", "--add", "--cacheinfo", f"160000,{'1' * 40},lib")
    git(folder, "commit", "-q", "-m", "y")
    message = trap.refused("plan", f"file://{folder}", code=3)
    assert "submodule 'lib'" in message
    assert "--no-submodules" in message
    done = trap.hpcbinder("plan", "--no-submodules", f"file://{folder}")
    assert done.returncode == 0, done.stderr
    assert "submodules are left" in done.stdout
    trap.untouched()


def test_filters_and_large_files_of_a_repository_run_nothing_and_ask_nobody(trap: Trap) -> None:
    folder = trap.repository
    home = trap.folder / "home"
    home.mkdir()
    evil = f"sh -c 'touch {trap.canary}'"
    (home / ".gitconfig").write_text(
        "".join(f'[filter "{n}"]\n smudge = {evil}\n clean = {evil}\n process = {evil}\n' for n in ("lfs", "x"))
        + f'[lfs "customtransfer.x"]\n path = {evil}\n'
    )
    (folder / ".gitattributes").write_text("*.bin filter=lfs\n* -text\nplain filter=x\n")
    (folder / ".lfsconfig").write_text(
        f"[lfs]\n\turl = http://127.0.0.1:{trap.port}/lfs\n\tstandalonetransferagent = x\n"
        f'[lfs "customtransfer.x"]\n\tpath = {evil}\n[core]\n\tfsmonitor = {evil}\n'
    )
    (folder / "plain").write_text("x\n")
    (folder / "a.bin").write_text(
        f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 5\n",
    )
    commit(folder)
    message = trap.refused("plan", f"file://{folder}", code=3)
    assert "'a.bin' is in Git LFS" in message
    done = trap.hpcbinder("plan", "--no-lfs", f"file://{folder}")
    assert done.returncode == 0, done.stderr
    assert "a.bin: pointers to Git LFS, which are left" in done.stdout
    trap.untouched()
