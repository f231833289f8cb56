"""One commit of one git repository, brought to disk."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from hpcbinder.config import SiteConfig
from hpcbinder.errors import FetchError
from hpcbinder.model import Commit
from hpcbinder.progress import Reporter
from hpcbinder.source.command import GitCommand, Result, explain
from hpcbinder.source.location import Remote
from hpcbinder.source.refs import Wanted, expand
from hpcbinder.text import one_line

_LONG = 4 * 3600
"""Seconds a transfer may take in all; a dead one is noticed long before."""
_TARGET = "refs/hpcbinder/wanted"
_HISTORY = "refs/hpcbinder/history"
_PROGRESS = re.compile(r"(?:remote: )?([A-Z][a-z]+ [a-z]+): +([0-9]{1,3})% ")


class Repository:
    """A repository on its way here.

    Args:
        remote: Where it is.
        scratch: Folder for git's own data, which the caller removes.
        root: Where the files go.
        reporter: Hears what goes on.
        site: Proxies and certificates.

    Attributes:
        git: Git in the repository that has the commit, once `obtain` has returned.
        commit: Full id of the commit.
    """

    git: GitCommand
    commit: str

    def __init__(self, remote: Remote, scratch: Path, root: Path, reporter: Reporter, site: SiteConfig | None) -> None:
        self.remote = remote
        self.url = remote.url
        self.scratch = scratch.absolute()
        self.root = root
        self.reporter = reporter
        self.site = site
        self._name = ""
        try:
            self.scratch.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _unwritable(scratch, error) from error

    def ask(self) -> GitCommand:
        """Git in an empty repository: a place to ask from. Which kind of ids the real one has is known afterwards."""
        return self._new("asking.git", Wanted(""))

    def obtain(self, wanted: Wanted, asked: str | None = None) -> None:
        """Fetch as little as the server lets us.

        Args:
            asked: The name a person used, for the message if it is no commit.

        Raises:
            FetchError: The commit cannot be had.
        """
        self.git = self._obtain(wanted)
        found = self.git.run(["rev-parse", "--verify", "--quiet", "--end-of-options", f"{_TARGET}^{{commit}}"])
        if found.status != 0:
            raise FetchError(f"'{one_line(asked or 'HEAD', 100)}' is not a commit", where=self.url)
        self.commit = found.stdout.strip()

    def check_out(self) -> None:
        """Write the files to `root`, which may be there if it is empty.

        Filters (LFS, git-crypt) are programs of the person's configuration that the repository would choose: they are
        not run, so such files are written as they are stored.

        Raises:
            FetchError: They cannot be written, or git refuses what the repository holds.
        """
        attributes = self.git.git_dir / "info" / "attributes"
        try:
            self.root.mkdir(exist_ok=True)
            attributes.parent.mkdir(exist_ok=True)
            attributes.write_text("* -filter\n")
        except OSError as error:
            raise _unwritable(self.root, error) from error
        self.reporter.phase("fetch", "writing files")
        self.checked(self.git.run(["read-tree", "--reset", "-u", self.commit], timeout=_LONG, work_tree=self.root))

    def deepen(self, depth: int, *, timeout: float) -> Result:
        """Fetch more of the history of what was fetched as a single commit: commits and folders, no contents of files.

        A server without filters (git's `uploadpack.allowFilter`) sends these too, and git warns of it.

        Args:
            depth: Commits from the newest on.
            timeout: Seconds.

        Raises:
            FetchError: It took too long.
        """
        # On this machine, as nobody is asked, the files of a repository that belongs to the person are nobody's secret.
        local = ["--upload-pack=git -c uploadpack.allowFilter=true upload-pack"] if self.url.startswith("file:") else []
        options = [f"--depth={depth}", "--filter=blob:none", *local]
        return self._transfer(self.git, options, f"+{self._name}:{_HISTORY}", timeout=timeout)

    def entries(self, *pathspecs: str) -> list[tuple[str, str, str]]:
        """(mode, id, path) of what the commit holds at some paths (gitglossary(7), "pathspec")."""
        listed = self.checked(self.git.run(["ls-files", "--stage", "-z", "--", *pathspecs], work_tree=self.root))
        found = []
        for line in listed.stdout.split("\0"):
            words, tab, path = line.partition("\t")
            if tab:
                mode, id_, _ = words.split(" ")
                found.append((mode, id_, path))
        return found

    def settings(self, file: str, pattern: str) -> list[tuple[str, str]] | None:
        """The settings (key, value) of a file in git's format that the repository holds, None if it has no such file.

        Raises:
            FetchError: It is a link, which git does not follow either, or not in that format.
        """
        entries = self.entries(f":(literal){file}")
        if not entries:
            return None
        if entries[0][0] not in ("100644", "100755"):
            raise FetchError("is not a plain file, and so not read", where=f"{self.url}: {file}")
        found = self.git.run(
            ["config", "--no-includes", "--null", "--blob", f"{self.commit}:{file}", "--get-regexp", pattern]
        )
        if found.status not in (0, 1):  # 1: nothing matches
            raise FetchError("cannot be read: it is not what git writes", where=f"{self.url}: {file}")
        pairs = (item.partition("\n") for item in found.stdout.split("\0") if item)
        return [(key, value) for key, _, value in pairs]

    def tree(self, subdir: str) -> str:
        """Id of the tree at `subdir`; "" if there is none."""
        listed = self.git.run(["rev-parse", "--verify", "--quiet", f"{self.commit}:{subdir}"])
        tree = listed.stdout.strip()
        if listed.status != 0 or self.git.run(["cat-file", "-t", tree]).stdout.strip() != "tree":
            return ""
        return tree

    def history(self, branch: str) -> Commit | None:
        """The commit itself with the list of its files, None where there are too many to list.

        Args:
            branch: That it was asked for as.
        """
        try:
            text = self.checked(self.git.run(["cat-file", "commit", self.commit])).stdout
            return Commit(self.commit, text, branch, tuple(self.entries()))
        except FetchError:
            return None

    def checked(self, result: Result) -> Result:
        """A result that is no failure.

        Raises:
            FetchError: It is one.
        """
        if result.status != 0:
            raise explain(result, self.url)
        return result

    def _obtain(self, wanted: Wanted) -> GitCommand:
        if wanted.short:
            git = self._new("commits.git", wanted)
            self._all(git, ["--filter=tree:0"])
            commit = expand(git, self.url, wanted.short)
            if self._whole(git, commit):  # a server without filters sent everything
                self.checked(git.run(["update-ref", _TARGET, commit]))
                return git
            wanted = Wanted(commit, sha256=wanted.sha256)
        git = self._new("source.git", wanted)
        self._name = wanted.name
        refspec = f"+{wanted.name}:{_TARGET}"
        result = self._transfer(git, ["--depth=1"], refspec)
        if result.status == 0:
            return git
        if wanted.name.startswith(("HEAD", "refs/")):
            if "dumb http transport does not support shallow" not in result.stderr:
                raise explain(result, self.url)
            self.checked(self._transfer(git, [], refspec))
            return git
        # A server may only give commits that a branch or tag stands on.
        self.reporter.phase("fetch", "the server does not give single commits: fetching everything")
        git = self._new("everything.git", wanted)
        self._all(git, [])
        if git.run(["cat-file", "-e", f"{wanted.name}^{{commit}}"]).status != 0:
            raise FetchError(f"no commit {wanted.name} in the repository", where=self.url)
        self.checked(git.run(["update-ref", _TARGET, wanted.name]))
        return git

    def _new(self, name: str, wanted: Wanted) -> GitCommand:
        git = GitCommand(self.scratch / name, site=self.site, remote=self.remote)
        self.checked(git.init(sha256=wanted.sha256))
        return git

    def _transfer(self, git: GitCommand, options: list[str], *refspecs: str, timeout: float = _LONG) -> Result:
        return git.run(
            ["fetch", "--progress", "--no-tags", "--no-recurse-submodules", *options, "--", self.url, *refspecs],
            timeout=timeout,
            on_line=_progress(self.reporter),
        )

    def _all(self, git: GitCommand, options: list[str]) -> None:
        self.checked(
            self._transfer(git, options, "+refs/heads/*:refs/hpcbinder/heads/*", "+refs/tags/*:refs/hpcbinder/tags/*")
        )

    def _whole(self, git: GitCommand, commit: str) -> bool:
        """Whether every file of the commit is here."""
        listed = git.run(["rev-list", "--objects", "--no-walk", "--missing=print", commit, "--"])
        return listed.status == 0 and not re.search(r"^\?", listed.stdout, re.MULTILINE)


def _unwritable(path: Path, error: OSError) -> FetchError:
    return FetchError(f"cannot write the files: {error.strerror}", where=one_line(str(path)))


def _progress(reporter: Reporter) -> Callable[[str], None]:
    shown: list[str] = [""]

    def line(text: str) -> None:
        if match := _PROGRESS.match(text):
            step = f"{match[1]} {match[2]}"
            if step != shown[0]:
                shown[0] = step
                reporter.phase("fetch", match[1].lower(), min(int(match[2]), 100) / 100)
        else:
            reporter.log("fetch", one_line(text))

    return line
