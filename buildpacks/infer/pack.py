"""Python packages of a repository that names none in any file: what its notebooks and scripts import. Where it is a
project that names what that needs, what is missing of its notebooks' imports.

A module is mapped to a distribution by a table. One that is not in it is taken for the distribution of the same name
only if the index has one, and said loudly: whoever registers a likely name could be meant by mistake.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from packaging.requirements import InvalidRequirement, Requirement

from hpcbinder.plan import Described, DetectError, Draft, Inferred, Repo, served_by_uv, show

from .beside import Beside
from .gather import Gathered, Wanted, gather
from .table import Table

_MOST_GUESSED = 30
"""Names that are taken as they are; a repository with more of them is about something else."""
_MOST_TOLD = 40
"""Modules of which it is told that nothing brings them."""
_MOST_TAKEN = 400
_MOST_BY_PIP = 1_000
"""Names after `pip install` that are looked at."""
_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?")
"""What a package can be named (PEP 508)."""
_LOUD = "--without infer builds without, a requirements.txt says it better (hpcbinder init writes one)"


def plan(repo: Repo, draft: Draft) -> None:
    draft.infer_python(lambda described: _Inferring(repo, draft, described).all())


class _Inferring:
    def __init__(self, repo: Repo, draft: Draft, described: Described | None) -> None:
        self._repo = repo
        self._draft = draft
        self._project = Beside(described) if described is not None else None
        self._table = Table(draft.script("modules.toml"), draft.script("stdlib.toml"), draft.python.version)
        self._taken: dict[str, Inferred] = {}
        self._missing: list[tuple[str, str]] = []
        self._by_pip: set[str] = set()

    def all(self) -> list[Inferred]:
        """What is wanted, in the order in which it is first seen."""
        found = gather(self._repo, self._table, beside_project=self._project is not None)
        for path, reason in self._repo.code.left_out.items():
            if self._project is None or path.endswith(".ipynb"):
                self._draft.unused(path, reason)
        for path, reason in found.left_out.items():
            self._draft.unused(path, reason)
        for word, file, cell in found.installs:
            self._install(word, file, cell)
        self._modules(found)
        self._also(found)
        if self._project is not None:
            self._taken = self._project.lacking(self._taken)
        self._ask()
        if self._project is None:
            self._together()
        else:
            self._fit(self._project)
        self._system(found)
        self._say(found)
        return list(self._taken.values())

    def _install(self, word: str, file: str, cell: int) -> None:
        if len(self._taken) >= _MOST_TAKEN or len(self._by_pip) >= _MOST_BY_PIP:
            return
        try:
            requirement = Requirement(word)
        except (InvalidRequirement, RecursionError):
            self._lost(word, file, cell)
            return
        named = _NAME.fullmatch(requirement.name)
        if not named or requirement.url or len(word) > 200 or not word.isprintable():
            self._lost(word, file, cell)
            return
        requirement.marker = None
        name = _normal(requirement.name)
        if name in ("pip", "setuptools", "wheel") and not requirement.specifier:
            return
        self._by_pip.add(name)
        before = self._taken.get(name)
        if before is None or not Requirement(before.requirement).specifier:
            self._taken[name] = Inferred(str(requirement), f"pip install {word}", file, cell)

    def _lost(self, word: str, file: str, cell: int) -> None:
        self._by_pip.add(_normal(word))
        reason = f"cell {cell} has pip install {show(word)}, no name on the index: write it into a requirements.txt"
        self._missing.append((file, reason))

    def _modules(self, found: Gathered) -> None:
        guessed = 0
        for module, wanted in found.modules.items():
            brought = self._table.brings(module)
            if brought.kind == "index":
                self._take(brought.requirement, wanted)
            elif brought.kind == "nowhere" and not self._installed(wanted):
                self._miss(wanted, brought.text)
            elif brought.kind == "gone":
                self._miss(wanted, f"{brought.text}, this is Python {self._draft.python.version}")
            elif brought.kind == "own" and not self._installed(wanted):
                self._miss(wanted, "it looks like a file of the author's that is not in the repository")
            elif brought.kind == "unknown" and not self._installed(wanted):
                if not _NAME.fullmatch(wanted.what.top):
                    self._miss(wanted, "no package can have that name")
                elif self._project is not None:
                    self._of_project(self._project, wanted)
                elif not wanted.surely:
                    self._miss(wanted, "it is not known which package that is, and no notebook needs it")
                elif guessed >= _MOST_GUESSED:
                    self._miss(wanted, "too many modules are not known")
                else:
                    guessed += 1
                    self._take(wanted.what.top, wanted, certain=False)

    def _installed(self, wanted: Wanted) -> bool:
        """Whether some cell's pip installs what sounds like it (`python-foo` for `foo`)."""
        sought = _normal(wanted.what.top).replace("-", "")
        return len(sought) > 2 and any(sought in name.replace("-", "") for name in self._by_pip)

    def _of_project(self, project: Beside, wanted: Wanted) -> None:
        """A module that the table does not know. What the project depends on may bring it under whatever name, so that
        none is guessed."""
        name = _normal(wanted.what.top)
        if project.bounded(name):
            self._take(name, wanted)
        elif not project.may_bring(name):
            self._miss(wanted, "it is not known which package that is, unless the project's dependencies bring it")

    def _take(self, text: str, wanted: Wanted, *, certain: bool = True) -> None:
        name = _normal(Requirement(text).name)
        if self._project is not None:
            text = self._project.bounded(name) or text
        if name not in self._taken and len(self._taken) < _MOST_TAKEN:
            one = wanted.what
            self._taken[name] = Inferred(text, f"import {one.module}", one.file, one.cell, certain)

    def _miss(self, wanted: Wanted, why: str) -> None:
        self._missing.append((wanted.what.file, f"imports {show(wanted.what.module)}{_at(wanted.what.cell)}: {why}"))

    def _also(self, found: Gathered) -> None:
        """What code needs that it does not import itself."""
        imported = {module.partition(".")[0] for module in found.modules}
        for also in self._table.also:
            name = _normal(Requirement(also.requirement).name)
            if also.importing not in imported or name in self._taken:
                continue
            for file, cell, text in found.texts:
                if match := also.pattern.search(text):
                    words = match[0].strip(" \t.(\n")
                    self._taken[name] = Inferred(also.requirement, f"{words} of {also.importing}", file, cell)
                    break

    def _ask(self) -> None:
        """Leave only what the index has; a name that is just guessed is nothing without it."""
        sure = self._draft.on_index([one.requirement for one in self._taken.values() if one.certain])
        # What is guessed gets nothing of its own run in a build.
        guess = self._draft.on_index([one.requirement for one in self._taken.values() if not one.certain], built=False)
        known = None if sure is None or guess is None else sure | guess
        for name, one in list(self._taken.items()):
            if known is None:
                if not one.certain:
                    self._drop(name, "whether there is a package of that name is not asked (--no-lock)")
            elif one.requirement not in known:
                self._retry(name, one)

    def _retry(self, name: str, one: Inferred) -> None:
        requirement = Requirement(one.requirement)
        bare = requirement.name
        if requirement.specifier and bare in (self._draft.on_index([bare]) or ()):
            because = f"{one.because}; there is no {requirement.specifier} for Python {self._draft.python.version}"
            self._taken[name] = Inferred(bare, because, one.file, one.cell, one.certain)
        else:
            of = f"package {show(bare)} for Python {self._draft.python.version}"
            self._drop(name, f"the index has no {of if one.certain else f'wheel of a package {show(bare)}'}")

    def _together(self) -> None:
        """Cells' own versions, of one notebook and another, need not go together: then they give way."""
        pinned = self._pinned()
        if not pinned or not served_by_uv(self._draft.python.version):
            return
        try:
            self._draft.resolve([one.requirement for one in self._taken.values()], keep=False)
        except DetectError:
            self._unpin(pinned, "this version does not go with the others")

    def _pinned(self) -> dict[str, Inferred]:
        return {name: one for name, one in self._taken.items() if one.because.startswith("pip install ") and _pin(one)}

    def _unpin(self, pinned: dict[str, Inferred], why: str) -> None:
        for name, one in pinned.items():
            bare = one.requirement[: -len(_pin(one))]
            self._taken[name] = Inferred(bare, f"{one.because}; {why}", one.file, one.cell, one.certain)

    def _fit(self, project: Beside) -> None:
        """The project goes before all: versions of cells give way to it, and then all that it does not say itself."""
        pinned = self._pinned()
        if not self._taken or project.fits(self._taken.values(), else_=not pinned):
            return
        self._unpin(pinned, "this version need not go with what the project depends on")
        if not project.fits(self._taken.values(), else_=True):
            for name in list(self._taken):
                self._drop(name, "no version goes with what the project depends on")

    def _drop(self, name: str, why: str) -> None:
        one = self._taken.pop(name)
        self._missing.append((one.file, f"{show(one.because)}{_at(one.cell)}: {why}"))

    def _system(self, found: Gathered) -> None:
        for module, wanted in found.modules.items():
            packages = self._table.system(module, debian=self._draft.python.origin == "debian")
            if packages and (wanted.surely or self._table.brings(module).kind == "index"):
                self._draft.want_system(packages, f"{show(wanted.what.file)} imports {module}")

    def _say(self, found: Gathered) -> None:
        files: dict[str, list[Inferred]] = {}
        for one in self._taken.values():
            files.setdefault(one.file, []).append(one)
        for file, all_ in files.items():
            certain = [_told(one) for one in all_ if one.certain]
            if certain and self._project is not None:
                told = f"imports what the project does not say it needs, INSTALLED ALL THE SAME: {_few(certain)}"
                self._draft.used(file, f"{told}; {_LOUD}")
            elif certain:
                self._draft.used(file, f"no file names Python packages, so its code does: {_few(certain)}")
            for one in all_:
                if not one.certain:
                    reason = (
                        f"{one.because}{_at(one.cell)}: TAKEN BY ITS NAME ALONE for the index's package "
                        f"{one.requirement}; {_LOUD}"
                    )
                    self._draft.used(file, reason)
        for file, reason in self._missing[:_MOST_TOLD]:
            self._draft.unused(file, reason)
        if len(self._missing) > _MOST_TOLD:
            file, _ = self._missing[_MOST_TOLD]
            self._draft.unused(file, f"of {len(self._missing) - _MOST_TOLD} more modules no package is known")
        self._optional(found)

    def _optional(self, found: Gathered) -> None:
        """Modules that the code tries and can do without."""
        files: dict[str, list[str]] = {}
        for module, wanted in found.optional.items():
            brought = self._table.brings(module)
            name = _normal(Requirement(brought.requirement).name) if brought.kind == "index" else ""
            if name and name not in self._taken and module not in found.modules:
                files.setdefault(wanted.what.file, []).append(module)
        for file, modules in list(files.items())[:_MOST_TOLD]:
            self._draft.unused(file, f"does without {_few(sorted(modules))}, which it tries to import")


def _pin(one: Inferred) -> str:
    return str(Requirement(one.requirement).specifier)


def _told(one: Inferred) -> str:
    module = one.because.removeprefix("import ")
    if _normal(module.partition(".")[0]) == _normal(one.requirement.partition("[")[0]):
        return one.requirement
    return f"{one.requirement} ({show(one.because)})"


def _few(words: Iterable[str]) -> str:
    all_ = list(words)
    return ", ".join(all_[:30]) + (f" and {len(all_) - 30} more" if len(all_) > 30 else "")


def _at(cell: int) -> str:
    return f" (cell {cell})" if cell else ""


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
