"""Fetch a source: just the wanted ref of a git repository, or a folder as it is."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from hpcbinder.catalog import remove_tree
from hpcbinder.config import SiteConfig
from hpcbinder.errors import FetchError
from hpcbinder.model import Checkout
from hpcbinder.progress import Reporter
from hpcbinder.source.command import GitCommand, Result, explain
from hpcbinder.source.folder import take_folder
from hpcbinder.source.location import Folder, Remote, parse_ref, parse_source, parse_subdir, slug
from hpcbinder.source.refs import Wanted, expand, resolve
from hpcbinder.source.tree import commit_time, enter
from hpcbinder.text import one_line

_LONG = 4 * 3600
"""Seconds a transfer may take in all; a dead one is noticed long before."""
_TARGET = "refs/hpcbinder/wanted"
_ASKING, _COMMITS, _SOURCE, _EVERYTHING = _GIT_DIRS = ("asking.git", "commits.git", "source.git", "everything.git")
_PROGRESS = re.compile(r"(?:remote: )?([A-Z][a-z]+ [a-z]+): +([0-9]{1,3})% ")


def fetch(
    spec: str, *, ref: str | None, subdir: str | None, workdir: Path, reporter: Reporter, site: SiteConfig | None = None
) -> Checkout:
    """Bring a source's files to disk.

    Args:
        spec: `https://…`, `http://…`, `ssh://…`, `git://…`, `file:///…`, `git@host:path`, `gh:org/repo`, or a folder.
        ref: Branch, tag, full name (`refs/…`), full or short commit, `HEAD`; None is the default branch.
        subdir: Folder below the repository's root.
        workdir: An existing folder of the caller, for the files (`source/`) and git's own data while it lasts.
        reporter: Hears what goes on.
        site: Proxies and certificates to reach the source with.

    Returns:
        The checkout; of a folder, the folder itself, where nothing is written.

    Raises:
        UsageError: What was asked cannot be meant, or would be an option or a program to git.
        FetchError: The source, the ref or the subdirectory cannot be had.
    """
    location = parse_source(spec)
    ref = None if ref is None else parse_ref(ref)
    below = parse_subdir(subdir or "")
    if isinstance(location, Folder):
        checkout = take_folder(location, ref=ref, subdir=below, workdir=workdir)
        at = f" on {checkout.commit[:12]}" if checkout.commit else ""
        reporter.phase("fetch", one_line(f"{checkout.source}: working tree{at}"), 1.0)
        return checkout
    reporter.phase("fetch", one_line(f"asking {location.url}"))
    return _Fetch(location, workdir, reporter, site).run(ref, below)


class _Fetch:
    """One git repository on its way here."""

    def __init__(self, remote: Remote, workdir: Path, reporter: Reporter, site: SiteConfig | None) -> None:
        self.remote = remote
        self.url = remote.url
        self.workdir = workdir.absolute()
        self.reporter = reporter
        self.site = site

    def run(self, ref: str | None, subdir: str) -> Checkout:
        # Only a place to ask from; which kind of ids the repository has is known afterwards.
        wanted = resolve(self._new(_ASKING, Wanted("")), self.url, ref)
        if wanted.note:
            self.reporter.phase("fetch", wanted.note)
        git = self._obtain(wanted)
        commit = self._commit(git, ref)
        root = self._check_out(git, commit)
        top = root
        root, subdir = enter(root, subdir)
        self._mention(top)
        checkout = Checkout(
            root=root,
            name=slug(self.remote.name, *subdir.split("/")[-1:]),
            source=self.url,
            ref=ref or "HEAD",
            commit=commit,
            uncommitted=False,
            tree=self._tree(git, commit, subdir),
            subdir=subdir,
            timestamp=commit_time(git, commit) or 0,
        )
        for name in _GIT_DIRS:  # the objects take as much room again as the files
            remove_tree(self.workdir / name)  # names of refs may nest as deep as they like
        self.reporter.phase("fetch", one_line(f"{self.url}: {checkout.ref} is {commit[:12]}"), 1.0)
        return checkout

    def _obtain(self, wanted: Wanted) -> GitCommand:
        """Fetch as little as the server lets us; the commit is `_TARGET` of the repository returned."""
        if wanted.short:
            git = self._new(_COMMITS, wanted)
            self._all(git, ["--filter=tree:0"])
            commit = expand(git, self.url, wanted.short)
            if self._whole(git, commit):  # a server without filters sent everything
                self._checked(git.run(["update-ref", _TARGET, commit]))
                return git
            wanted = Wanted(commit, sha256=wanted.sha256)
        git = self._new(_SOURCE, wanted)
        refspec = f"+{wanted.name}:{_TARGET}"
        result = self._transfer(git, ["--depth=1"], refspec)
        if result.status == 0:
            return git
        if wanted.name.startswith(("HEAD", "refs/")):
            if "dumb http transport does not support shallow" not in result.stderr:
                raise explain(result, self.url)
            self._checked(self._transfer(git, [], refspec))
            return git
        # A server may only give commits that a branch or tag stands on.
        self.reporter.phase("fetch", "the server does not give single commits: fetching everything")
        git = self._new(_EVERYTHING, wanted)
        self._all(git, [])
        if git.run(["cat-file", "-e", f"{wanted.name}^{{commit}}"]).status != 0:
            raise FetchError(f"no commit {wanted.name} in the repository", where=self.url)
        self._checked(git.run(["update-ref", _TARGET, wanted.name]))
        return git

    def _new(self, name: str, wanted: Wanted) -> GitCommand:
        git = GitCommand(self.workdir / name, site=self.site, remote=self.remote)
        self._checked(git.init(sha256=wanted.sha256))
        return git

    def _transfer(self, git: GitCommand, options: list[str], *refspecs: str) -> Result:
        return git.run(
            ["fetch", "--progress", "--no-tags", "--no-recurse-submodules", *options, "--", self.url, *refspecs],
            timeout=_LONG,
            on_line=_progress(self.reporter),
        )

    def _all(self, git: GitCommand, options: list[str]) -> None:
        self._checked(
            self._transfer(git, options, "+refs/heads/*:refs/hpcbinder/heads/*", "+refs/tags/*:refs/hpcbinder/tags/*")
        )

    def _whole(self, git: GitCommand, commit: str) -> bool:
        """Whether every file of the commit is here."""
        listed = git.run(["rev-list", "--objects", "--no-walk", "--missing=print", commit, "--"])
        return listed.status == 0 and not re.search(r"^\?", listed.stdout, re.MULTILINE)

    def _checked(self, result: Result) -> Result:
        if result.status != 0:
            raise explain(result, self.url)
        return result

    def _commit(self, git: GitCommand, ref: str | None) -> str:
        result = git.run(["rev-parse", "--verify", "--quiet", "--end-of-options", f"{_TARGET}^{{commit}}"])
        if result.status != 0:
            raise FetchError(f"'{one_line(ref or 'HEAD', 100)}' is not a commit", where=self.url)
        return result.stdout.strip()

    def _check_out(self, git: GitCommand, commit: str) -> Path:
        """Write the files. Filters (LFS, git-crypt) are programs of the person's configuration that the repository
        would choose: they are not run, so such files stay as they are stored."""
        root = self.workdir / "source"
        attributes = git.git_dir / "info" / "attributes"
        try:
            root.mkdir()
            attributes.parent.mkdir(exist_ok=True)
            attributes.write_text("* -filter\n")
        except OSError as error:
            raise FetchError(f"cannot write the files: {error.strerror}", where=one_line(str(self.workdir))) from error
        self.reporter.phase("fetch", "writing files")
        self._checked(git.run(["read-tree", "--reset", "-u", commit], timeout=_LONG, work_tree=root))
        return root

    def _tree(self, git: GitCommand, commit: str, subdir: str) -> str:
        listed = git.run(["rev-parse", "--verify", "--quiet", f"{commit}:{subdir}"])
        tree = listed.stdout.strip()
        if listed.status != 0 or git.run(["cat-file", "-t", tree]).stdout.strip() != "tree":
            raise FetchError(f"the subdirectory '{one_line(subdir, 120)}' is a submodule", where=self.url)
        return tree

    def _mention(self, root: Path) -> None:
        """Say what a clone would have had besides."""
        if (root / ".gitmodules").is_file() and not (root / ".gitmodules").is_symlink():
            self.reporter.phase("fetch", "submodules are not fetched: their folders are empty")
        attributes = root / ".gitattributes"
        plain = attributes.is_file() and not attributes.is_symlink() and attributes.stat().st_size < 1 << 20
        if plain and b"filter=lfs" in attributes.read_bytes():
            self.reporter.phase("fetch", "files kept in Git LFS are not fetched: they are pointers")


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
