"""What the repository's code imports that is not its own, and what its cells have pip install."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from hpcbinder.plan import (
    Code,
    Import,
    Repo,
    Script,
    code_imports,
    extensions,
    local_modules,
    pip_installs,
    plain_python,
)

from .table import Table

_SERVING = frozenset({"setup.py", "conf.py", "noxfile.py", "conftest.py", "tasks.py", "fabfile.py", "versioneer.py"})
_ASIDE = frozenset({"test", "tests", "doc", "docs", ".github", "ci", ".ci"})
"""Scripts that serve the repository's authors and are not its result."""
_TESTS = frozenset({"test", "tests"})
_IMPORTS = re.compile(r"^[ \t]*(?:>>>[ \t]*)?(?:import|from)[ \t]+(?P<what>[\w., \t]+)", re.MULTILINE)
_OTHER_LANGUAGES = ("install.R", "DESCRIPTION", "renv.lock", "Project.toml")
_WRITES = re.compile(
    r"\s*%%(?:writefile|file)[ \t]+(?:-a[ \t]+)?(?:[^\s/]+/)*(?P<module>[A-Za-z_]\w*)\.py[ \t]*$", re.M
)
_MOST_TEXT = 32 << 20
_MOST_PARSED = 16 << 20
"""Characters of code in which imports are looked for, of all files together: a million take seconds."""
_PARSED = 1 << 20
"""What a longer cell counts, which is not parsed (`code_imports`)."""
_LONGEST = 8 << 20
"""Characters of a cell that is looked at at all."""
_MOST_IMPORTS = 50_000


@dataclass(frozen=True)
class Wanted:
    """One module that code imports, where it is first seen.

    Attributes:
        what: The import.
        surely: A notebook needs it, or what it imports of the repository does.
    """

    what: Import
    surely: bool


@dataclass
class Gathered:
    """What was found.

    Attributes:
        modules: Full name of a module (`of.name` where a name is taken from it) -> where it is first imported.
        optional: The same of what the code can do without.
        installs: (word, file, cell) of the cells' `pip install`.
        texts: (file, cell, text) of all code looked through, cells as they are.
        left_out: File -> that with it looking for imports ended, and why.
    """

    modules: dict[str, Wanted] = field(default_factory=dict)
    optional: dict[str, Wanted] = field(default_factory=dict)
    installs: list[tuple[str, str, int]] = field(default_factory=list)
    texts: list[tuple[str, int, str]] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)


def gather(repo: Repo, table: Table, *, beside_project: bool = False) -> Gathered:
    """Look through notebooks, then the scripts they import, then the others.

    Args:
        beside_project: The scripts are a project's, which itself says what it needs: notebooks alone count, but for
            those of its tests, and what lies beside them.
    """
    return _Gathering(repo, table, beside_project).all()


class _Gathering:
    def __init__(self, repo: Repo, table: Table, beside_project: bool) -> None:
        self._repo = repo
        self._beside_project = beside_project
        self._table = table
        self._code: Code = repo.code
        paths = [item.path for item in repo.files()]
        self._paths = frozenset(paths)
        self._local = local_modules(paths)
        self._anywhere = {name for names in self._local.values() for name in names}
        self._places: dict[str, list[str]] = {}
        self._scripts = {script.path: script for script in self._code.scripts}
        self._settled: set[str] = set()
        self._sure: set[str] = set()
        self._packages: dict[str, list[str]] = {}
        self._far: dict[str, list[str]] = {}
        self._room = _MOST_TEXT
        self._unparsed = _MOST_PARSED
        self._untaken = _MOST_IMPORTS
        self._found = Gathered()

    def all(self) -> Gathered:
        notebooks = [notebook for notebook in self._code.notebooks if notebook.language in ("", "python")]
        if self._beside_project:
            notebooks = [one for one in notebooks if _TESTS.isdisjoint(one.path.split("/")[:-1])]
        reached: dict[str, None] = {}
        for notebook in notebooks:
            for cell in notebook.cells:
                self._keep(notebook.path, cell.number, cell.source)
                if match := _WRITES.match(cell.source):
                    self._anywhere.add(match["module"])
                loaded = [Import(module, "", notebook.path, cell.number, 1) for module in extensions(cell.source)]
                reached |= self._take(loaded, surely=True)
            # Most cells import what others do: no need to parse them to learn that again.
            new = [cell for cell in notebook.cells if not self._tops(cell.source) <= self._settled]
            found = (one for cell in new for one in self._parsed(cell.source, notebook.path, cell.number))
            reached |= self._take(found, surely=True)
            self._found.installs += [(install.text, install.file, install.cell) for install in pip_installs(notebook)]
        folders = {notebook.path.rpartition("/")[0] for notebook in notebooks}
        seen = self._follow(list(reached), folders - {""} if self._beside_project else None)
        if self._beside_project or not self._about_python(bool(notebooks)):
            return self._found
        for script in self._code.scripts:
            if script.path not in seen and not _aside(script.path):
                self._script(script, surely=not self._code.notebooks)
        return self._found

    def _about_python(self, notebooks: bool) -> bool:
        """Whether scripts that no notebook imports are part of what the repository is for."""
        if notebooks:
            return True
        return not self._code.notebooks and not any(self._repo.config(name) for name in _OTHER_LANGUAGES)

    def _follow(self, waiting: list[str], folders: set[str] | None) -> set[str]:
        """The repository's own modules that notebooks import, and those that these import.

        Args:
            folders: Only those that lie directly in one of these and are part of no package.
        """
        seen: set[str] = set()
        while waiting:
            path = waiting.pop()
            folder = path.rpartition("/")[0]
            if folders is not None and (folder not in folders or f"{folder}/__init__.py" in self._paths):
                continue
            if path not in seen and path in self._scripts:
                seen.add(path)
                waiting += self._script(self._scripts[path], surely=True)
        return seen

    def _script(self, script: Script, *, surely: bool) -> list[str]:
        self._keep(script.path, 0, script.text)
        # As of cells: what is settled already need not be parsed again.
        if not self._tops(script.text) <= (self._sure if surely else self._settled):
            return list(self._take(self._parsed(script.text, script.path), surely=surely))
        return []

    @staticmethod
    def _tops(text: str) -> set[str]:
        """The first names of all that lines of the text look to import."""
        if "import" not in text:
            return set()
        return {part.split()[0].partition(".")[0] for words in _IMPORTS.findall(text) for part in _parts(words)}

    def _parsed(self, text: str, file: str, cell: int = 0) -> Iterator[Import]:
        """The imports of a cell or script, while there is room for more."""
        if "import" not in text or self._untaken < 0:
            return
        at = f"cell {cell}" if cell else "here"
        if len(text) > _LONGEST:
            self._found.left_out.setdefault(file, f"imports of {at} are not looked for: it is too long")
            return
        self._unparsed -= min(len(text), _PARSED)
        if self._unparsed < 0:
            self._end(file, at, "there is too much code")
            return
        for one in code_imports(plain_python(text), file, cell):
            if self._untaken == 0:
                self._end(file, at, "there are too many")
                return
            self._untaken -= 1
            yield one

    def _end(self, file: str, at: str, why: str) -> None:
        self._untaken = -1
        self._found.left_out[file] = f"imports from {at} on are not looked for: {why}"

    def _take(self, imports: Iterable[Import], *, surely: bool) -> dict[str, None]:
        """Note what is not the repository's own. Returns the own files that are imported.

        Args:
            imports: Of one file.
        """
        own: dict[str, None] = {}
        files: dict[str, list[str]] = {}
        for one in imports:
            first = one.top not in files
            if first:
                files[one.top] = list(self._files(one))
            # A folder without __init__.py gives way to a package that is installed (PEP 420).
            known = self._table.brings(one.module).kind not in ("unknown", "own")
            if files[one.top] or (not known and one.top in self._anywhere):
                # Never settled: each folder may have one of that name.
                if first:
                    own |= dict.fromkeys(files[one.top] or self._elsewhere(one.top))
                continue
            name = f"{one.module}.{one.name}" if one.name and self._table.is_parted(one.top) else one.module
            into = self._found.optional if one.optional else self._found.modules
            before = into.get(name)
            if before is None or (surely and not before.surely):
                into[name] = Wanted(one, surely)
            if not one.optional and not self._table.is_parted(one.top):
                self._settled.add(one.top)
                if surely:
                    self._sure.add(one.top)
        return own

    def _files(self, one: Import) -> Iterator[str]:
        """The repository's files that an import finds on `sys.path`: beside its file, above, at the root, in src."""
        beside, _, name = one.file.rpartition("/")
        itself = name == f"{one.top}.ipynb"
        if one.top not in self._anywhere and not itself:
            return
        for folder in self._above(beside):
            if one.top not in self._local.get(folder, ()) and not (itself and folder == beside):
                continue
            base = f"{folder}/{one.top}" if folder else one.top
            if f"{base}.py" in self._paths or f"{base}.ipynb" == one.file:
                yield f"{base}.py"
                return
            if f"{base}/__init__.py" in self._paths:
                yield from self._below(base)
                return

    def _above(self, folder: str) -> list[str]:
        """Where an import of a file of that folder is looked for."""
        if folder not in self._places:
            parts = folder.split("/") if folder else []
            above = ["/".join(parts[:end]) for end in range(len(parts), -1, -1)]
            self._places = {folder: [*above, "src", "lib"]}
        return self._places[folder]

    def _elsewhere(self, top: str) -> list[str]:
        """The scripts of a module that only a change of `sys.path` leads to."""
        if top not in self._far:
            ends = (f"/{top}.py", f"/{top}/__init__.py")
            self._far[top] = [path for path in self._scripts if path.endswith(ends)]
        return self._far[top]

    def _below(self, folder: str) -> list[str]:
        if folder not in self._packages:
            self._packages[folder] = [path for path in self._scripts if path.startswith(f"{folder}/")]
        return self._packages[folder]

    def _keep(self, path: str, cell: int, text: str) -> None:
        self._room -= len(text)
        if self._room >= 0:
            self._found.texts.append((path, cell, text))


def _parts(words: str) -> list[str]:
    words = words.partition(" import")[0]
    return [part for part in words.split(",") if part.split()]


def _aside(path: str) -> bool:
    *folders, name = path.split("/")
    if name in _SERVING or name.startswith("test_") or name.endswith("_test.py"):
        return True
    return not _ASIDE.isdisjoint(folders)
