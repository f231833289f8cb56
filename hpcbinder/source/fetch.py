"""Fetch a source: just the wanted ref of a git repository, a dataset of an archive, or a folder as it is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from hpcbinder.catalog import remove_tree
from hpcbinder.config import SiteConfig, SourceConfig
from hpcbinder.errors import FetchError, UsageError
from hpcbinder.model import Change, Checkout, Decision, fingerprint
from hpcbinder.progress import Reporter
from hpcbinder.source.datasets import fetch_dataset, size_limit
from hpcbinder.source.folder import take_folder
from hpcbinder.source.history import remote_change
from hpcbinder.source.lfs import fetch_lfs, find_pointers
from hpcbinder.source.location import Folder, Remote, host_of, parse_ref, parse_source, parse_subdir, slug
from hpcbinder.source.places import Dataset
from hpcbinder.source.reach import Reach
from hpcbinder.source.refs import resolve, resolve_page
from hpcbinder.source.repository import Repository
from hpcbinder.source.submodules import Module, fetch_submodules, has_submodules
from hpcbinder.source.tree import commit_time, enter
from hpcbinder.text import one_line

_GIT = "git"


def fetch(
    spec: str,
    *,
    ref: str | None,
    subdir: str | None,
    workdir: Path,
    reporter: Reporter,
    site: SiteConfig | None = None,
    source: SourceConfig | None = None,
    named: bool = True,
    history: bool = False,
) -> Checkout:
    """Bring a source's files to disk.

    Args:
        spec: `https://…`, `http://…`, `ssh://…`, `git://…`, `file:///…`, `git@host:path`, `gh:org/repo`,
            `gl:group/repo`, a page of GitHub or GitLab, a DOI, a SWHID, the page of a dataset, or a folder.
        ref: Branch, tag, full name (`refs/…`), full or short commit, `HEAD`; None is the default branch.
        subdir: Folder below the repository's root.
        workdir: An existing folder of the caller, for the files (`source/`) and git's own data while it lasts.
        reporter: Hears what goes on.
        site: Proxies and certificates to reach the source with.
        source: What else is fetched, and from where it may come.
        named: A person asked for it. What a repository asks for is had without the person's logins, over http(s), from
            that very server.
        history: Find out when notebooks, code or configuration were changed last (`Checkout.changed`).

    Returns:
        The checkout; of a folder, the folder itself, where nothing is written.

    Raises:
        UsageError: What was asked cannot be meant, or would be an option or a program to git.
        FetchError: The source, the ref or the subdirectory cannot be had.
    """
    site, source = site or SiteConfig(), source or SourceConfig()
    location = parse_source(spec, ckan=source.ckan)
    ref = None if ref is None else parse_ref(ref)
    below = parse_subdir(subdir or "")
    if isinstance(location, Folder):
        checkout = take_folder(location, ref=ref, subdir=below, workdir=workdir, history=history)
        at = f" on {checkout.commit[:12]}" if checkout.commit else ""
        reporter.phase("fetch", one_line(f"{checkout.source}: working tree{at}"), 1.0)
        return checkout
    if isinstance(location, Dataset):
        checkout = fetch_dataset(
            location, ref=ref, subdir=below, workdir=workdir, reporter=reporter, site=site, source=source
        )
        return replace(checkout, changed=Change(checkout.timestamp, "the archive's version")) if history else checkout
    return _Fetch(replace(location, named=named), workdir, reporter, site, source).run(ref, below, history)


class _Fetch:
    """One git repository with what belongs to it."""

    def __init__(
        self, remote: Remote, workdir: Path, reporter: Reporter, site: SiteConfig, source: SourceConfig
    ) -> None:
        self.url = remote.url
        self.workdir = workdir.absolute()
        self.reporter = reporter
        self.source = source
        self.reach = Reach({host_of(remote.url)} - {""} if remote.named else (), source.hosts)
        self.repository = Repository(remote, self.workdir / _GIT, self.workdir / "source", reporter, site)
        self.notes: list[Decision] = []
        self.left: list[str] = []

    def run(self, ref: str | None, subdir: str, history: bool) -> Checkout:
        repository, page = self.repository, self.repository.remote.page
        self.reporter.phase("fetch", one_line(f"asking {self.url}"))
        git = repository.ask()
        if page is not None:
            if ref is not None or subdir:
                raise UsageError(
                    "the address of a page says what is meant already, so --ref and --subdir cannot be given",
                    where=self.url,
                    hint=f"give them with {one_line(self.url, 200)}",
                )
            ref, subdir = resolve_page(git, self.url, page)
            below = f", folder {subdir}" if subdir else ""
            self.reporter.phase("fetch", one_line(f"the page shows {ref}{below} of {self.url}"))
        try:
            wanted = resolve(git, self.url, ref)
        except FetchError as error:
            if "/dataset/" in self.url and error.hint is None:
                error.hint = "if it is a CKAN catalogue, name its host in source.ckan"
            raise
        if wanted.note:
            self.reporter.phase("fetch", wanted.note)
        repository.obtain(wanted, ref)
        repository.check_out()
        near = _real(repository.root, subdir)
        modules = self._submodules(near)
        filled = self._lfs(near, modules)
        root, subdir = enter(repository.root, subdir)
        committed = commit_time(repository.git, repository.commit) or 0
        checkout = Checkout(
            root=root,
            name=slug(repository.remote.name, *subdir.split("/")[-1:]),
            source=self.url,
            ref=ref or "HEAD",
            commit=repository.commit,
            uncommitted=False,
            tree=self._tree(subdir, modules, filled),
            subdir=subdir,
            timestamp=committed,
            notes=tuple(self.notes),
            changed=self._changed(subdir, modules, committed) if history else None,
            history=repository.history(wanted.branch),
        )
        # the objects take as much room again as the files; names of refs may nest as deep as they like
        remove_tree(self.workdir / _GIT)
        self.reporter.phase("fetch", one_line(f"{self.url}: {checkout.ref} is {repository.commit[:12]}"), 1.0)
        return checkout

    def _submodules(self, below: str) -> list[Module]:
        if self.source.submodules == "leave":
            if has_submodules(self.repository, below):
                self._leave(".gitmodules", "submodules are left: their folders are empty (source.submodules)")
            return []
        modules = fetch_submodules(self.repository, below=below, reach=self.reach)
        if modules:
            paths = ", ".join(one_line(module.path, 80) for module in modules[:10])
            reason = f"{len(modules)} fetched: {paths}{', …' if len(modules) > 10 else ''}"
            self.notes.append(Decision(".gitmodules", True, "source", reason))
        return modules

    def _lfs(self, below: str, modules: list[Module]) -> list[str]:
        """Fetch the files in LFS of the repository and of its submodules; returns their paths."""
        filled: list[str] = []
        limit = size_limit(self.source)
        for prefix, repository in [("", self.repository), *((f"{m.path}/", m.repository) for m in modules)]:
            inside = below[len(prefix) :] if f"{below}/".startswith(prefix) else ""
            pointers = find_pointers(repository, inside)
            if not pointers:
                continue
            file = f"{prefix}{one_line(pointers[0].path, 120)}"
            many = f" and {len(pointers) - 1} more" if len(pointers) > 1 else ""
            if self.source.lfs == "leave":
                self._leave(file, f"{file}{many}: pointers to Git LFS, which are left (source.lfs)")
                continue
            fetch_lfs(repository, pointers, reach=self.reach, limit=limit)
            limit -= sum(pointer.size for pointer in pointers)
            filled += [f"{prefix}{pointer.path}" for pointer in pointers]
            self.notes.append(Decision(file, True, "source", f"fetched from Git LFS{many}"))
        return filled

    def _changed(self, subdir: str, modules: list[Module], committed: int) -> Change:
        inside = _module_of(subdir, modules)
        if inside is None:
            return remote_change(self.repository, subdir, committed)
        return remote_change(inside.repository, f"{subdir}/"[len(inside.path) + 1 :].rstrip("/"), committed)

    def _leave(self, file: str, reason: str) -> None:
        self.reporter.phase("fetch", one_line(reason))
        self.notes.append(Decision(file, False, "source", reason))
        self.left.append(file)

    def _tree(self, subdir: str, modules: list[Module], filled: list[str]) -> str:
        """What the files are: git's id of their tree, as it says which commits and files belong in it. What was left,
        and for a subdirectory what only files above it say belongs there, is added."""
        inside = _module_of(subdir, modules)
        if inside is None:
            tree = self.repository.tree(subdir)
        else:
            tree = inside.repository.tree(f"{subdir}/"[len(inside.path) + 1 :].rstrip("/"))
        if not tree:
            hint = "it is a submodule, which source.submodules leaves out" if self.left else None
            raise FetchError(
                f"the subdirectory '{one_line(subdir, 120)}' is not the repository's", where=self.url, hint=hint
            )
        paths = [*(module.path for module in modules), *filled] if subdir else []
        marks = sorted(
            [*(path for path in paths if path.startswith(f"{subdir}/")), *(f"-{file}" for file in self.left)]
        )
        return f"{tree}-{fingerprint(marks)[:16]}" if marks else tree


def _module_of(subdir: str, modules: list[Module]) -> Module | None:
    """The submodule that a folder is in."""
    return next((module for module in reversed(modules) if f"{subdir}/".startswith(f"{module.path}/")), None)


def _real(root: Path, subdir: str) -> str:
    """The subdirectory's real path below the root, as far as one can tell yet; "" where one cannot."""
    if not subdir:
        return ""
    try:
        path = (root / subdir).resolve().relative_to(root.resolve())
    except (OSError, RuntimeError, ValueError):
        return ""  # `enter` says what is wrong with it
    return "" if path == Path() else path.as_posix()
