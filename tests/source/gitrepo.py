"""What the tests of sources share: a real repository to fill, a reporter that remembers."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path


class Listener:
    """A reporter that remembers."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.progress: list[float] = []

    def phase(self, phase: str, message: str, progress: float | None = None) -> None:
        assert phase == "fetch"
        self.lines.append(message)
        if progress is not None:
            self.progress.append(progress)

    def log(self, phase: str, line: str) -> None:
        self.lines.append(line)


class Repository:
    """A git repository that a test fills.

    Attributes:
        date: Unix time (s) of the commits to come.
    """

    def __init__(self, path: Path, *options: str) -> None:
        self.path = path
        self.date = 1700000000
        path.mkdir(parents=True)
        self.git("init", "--quiet", "--initial-branch=main", *options)

    @property
    def url(self) -> str:
        return f"file://{self.path}"

    def git(self, *arguments: str, stdin: bytes = b"") -> str:
        date = f"{self.date} +0000"
        environment = {**os.environ, "GIT_COMMITTER_DATE": date, "GIT_AUTHOR_DATE": date}
        identity = ["-c", "user.name=A", "-c", "user.email=a@example.org", "-c", "protocol.file.allow=always"]
        done = subprocess.run(
            ["git", *identity, *arguments], cwd=self.path, env=environment, input=stdin, capture_output=True, check=True
        )
        return done.stdout.decode().strip()

    def write(self, name: str, text: str) -> None:
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def commit(self, **files: str) -> str:
        """Commit `files` (`__` for `.` and `___` for `/` in names) and return the commit."""
        for name, text in files.items():
            self.write(name.replace("___", "/").replace("__", "."), text)
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "--message", "a commit")
        return self.git("rev-parse", "HEAD")
