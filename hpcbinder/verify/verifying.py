"""Does the image run what the repository holds? First its imports, then its notebooks, one after the other."""

from __future__ import annotations

import difflib
import posixpath
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hpcbinder.catalog import Catalog
from hpcbinder.config import Config
from hpcbinder.errors import ConvertError, UsageError
from hpcbinder.model import Entry, Kernel
from hpcbinder.notebooks import (
    LIMIT,
    Import,
    NotANotebook,
    Notebook,
    anywhere,
    code_imports,
    is_local,
    local_modules,
    notebook_imports,
    read_notebook,
)
from hpcbinder.progress import Reporter
from hpcbinder.runtime import Secluded
from hpcbinder.text import one_line
from hpcbinder.verify.causes import distribution, likely_cause
from hpcbinder.verify.content import Content, folder_content, image_content, repository_folder
from hpcbinder.verify.judge import Bounds, judge, may_fail
from hpcbinder.verify.running import Runs
from hpcbinder.verify.verdict import Failure, Missing, Status, Verdict, Verification

_SCRIPT_LIMIT = 4 << 20
_MOST_CODE = 32 << 20
"""Bytes of scripts that are looked through, of all together."""
_MOST_IMPORTS = 2000
_NOT_RUN = ("setup.py", "conf.py", "noxfile.py", "conftest.py")
"""Scripts that serve the repository's authors and are not its result."""
_SHARE = 0.9
"""Of the memory that is free, what a notebook may have."""


@dataclass(frozen=True)
class Wish:
    """What is to be verified, and how.

    Attributes:
        notebooks: Paths below the repository's root, of notebooks or of folders; none for all.
        run: Run them; else only imports are tried.
        network: They may have the network.
        checkout: Folder whose files are taken instead of those in the image.
        cell: Seconds for a cell.
        notebook: Seconds for a notebook.
        memory: Bytes of memory for one, None for what is free now.
    """

    notebooks: tuple[str, ...] = ()
    run: bool = True
    network: bool = False
    checkout: Path | None = None
    cell: float = 600.0
    notebook: float = 3600.0
    memory: int | None = None


def verify(entry: Entry, wish: Wish, config: Config, catalog: Catalog, reporter: Reporter) -> Verification:
    """Try an image, and keep in the catalog what was found.

    Raises:
        UsageError: A notebook that was named is not there.
        ConvertError: The image cannot be read.
        RunError: Nothing here can run it.
        CatalogError: The store cannot be written.
    """
    with catalog.temporary() as room, catalog.running(entry):
        if wish.checkout is not None:
            found = _verify(entry, wish, config, room, reporter, folder_content(wish.checkout))
        else:
            with image_content(entry) as content:
                found = _verify(entry, wish, config, room, reporter, content)
    # What was tried with other files, or in part, says nothing of the image as a whole.
    if wish.checkout is None and not wish.notebooks and wish.run:
        catalog.keep_verified(entry.id, summary(found))
    return found


def summary(found: Verification) -> dict[str, str]:
    """What `show` tells of it later."""
    return {
        "digest": found.digest,
        "created": str(found.created),
        "passed": "yes" if found.passed else "no",
        "network": found.network,
        "summary": found.summary,
    }


def _verify(entry: Entry, wish: Wish, config: Config, room: Path, reporter: Reporter, content: Content) -> Verification:
    paths = content.paths()
    chosen = _chosen(wish.notebooks, paths)
    notebooks, unreadable = _read(content, chosen)
    reporter.phase("verify", f"{entry.id}: {len(chosen)} notebooks")
    copy = room / "repository"
    content.copy(copy)
    apart = room / "apart"
    apart.mkdir(mode=0o700)
    image = Secluded(entry, config.runtime, apart, network=wish.network)
    memory = _free_memory() if wish.memory is None else wish.memory
    bounds = Bounds(wish.cell, wish.notebook, memory)
    runs = Runs(image, room, copy, repository_folder(entry) or "/srv/repo", bounds)
    notes = [image.note] if image.note else []

    wanted, left = _wanted(content, paths, notebooks, scripts=not wish.notebooks)
    notes += left
    missing, tried, more = _missing(entry, runs, wanted, paths, reporter)
    notes += more
    verdicts = []
    for number, notebook in enumerate(notebooks, 1):
        if wish.run:
            shown = one_line(notebook.path, 200)
            reporter.phase("verify", f"{shown} ({number} of {len(notebooks)})", (number - 1) / len(notebooks))
            verdicts.append(_run(entry, notebook, runs, paths, image.offline, bounds))
            reporter.log("verify", f"{shown}: {verdicts[-1].line}")
        else:
            line = "not run: only its imports were tried"
            verdicts.append(Verdict(notebook.path, Status.UNTRIED, line, cells=len(notebook.cells)))
    order = {path: number for number, path in enumerate(chosen)}
    return Verification(
        id=entry.id,
        digest=entry.config.digest,
        runtime=image.runtime,
        network="on" if wish.network else "off" if image.offline else "not off",
        created=int(time.time()),
        imports=tried,
        missing=tuple(missing),
        notebooks=tuple(sorted((*verdicts, *unreadable), key=lambda verdict: order[verdict.notebook])),
        notes=tuple(notes),
        ran=wish.run,
    )


def _chosen(named: Sequence[str], paths: Sequence[str]) -> list[str]:
    """The notebooks that are meant, in the order of the repository.

    Raises:
        UsageError: One is not there.
    """
    notebooks = [path for path in paths if path.endswith(".ipynb")]
    if not named:
        return notebooks
    wanted = set()
    for word in named:
        path = posixpath.normpath(word)
        inside = {found for found in notebooks if path == "." or found == path or found.startswith(f"{path}/")}
        if not inside:
            close = difflib.get_close_matches(path, notebooks, n=3, cutoff=0.4)
            hint = f"did you mean {one_line(', '.join(close), 300)}?" if close else None
            raise UsageError(f"the repository has no notebook {one_line(word, 200)}", hint=hint)
        wanted |= inside
    return [path for path in notebooks if path in wanted]


def _read(content: Content, chosen: Sequence[str]) -> tuple[list[Notebook], list[Verdict]]:
    notebooks, unreadable = [], []
    for path in chosen:
        try:
            notebooks.append(read_notebook(path, content.read(path, LIMIT)))
        except (NotANotebook, OSError, ConvertError) as error:
            line = f"cannot be read: {one_line(str(error), 200)}"
            unreadable.append(Verdict(path, Status.UNREADABLE, line))
    return notebooks, unreadable


def _wanted(
    content: Content, paths: Sequence[str], notebooks: Sequence[Notebook], *, scripts: bool
) -> tuple[list[Import], list[str]]:
    """The imports of notebooks and scripts that the repository itself does not answer; and what was left out."""
    found = [one for notebook in notebooks for one in notebook_imports(notebook)]
    names = [path for path in paths if path.endswith(".py") and posixpath.basename(path) not in _NOT_RUN]
    room, left = _MOST_CODE, []
    for path in names if scripts else ():
        try:
            text = content.read(path, _SCRIPT_LIMIT)
        except (OSError, ConvertError):
            continue
        room -= len(text)
        if room < 0:
            left.append(f"scripts were looked through up to {one_line(path, 200)}: there is too much of them")
            break
        if len(text) <= _SCRIPT_LIMIT:
            found += code_imports(text.decode("utf-8", "replace"), path)
    local = local_modules(paths)
    kept = [one for one in found if not one.optional and not is_local(one, local)]
    if len({(one.module, one.name) for one in kept}) > _MOST_IMPORTS:
        left.append(f"only the first {_MOST_IMPORTS} imports were tried")
    return kept, left


def _missing(
    entry: Entry, runs: Runs, wanted: Sequence[Import], paths: Sequence[str], reporter: Reporter
) -> tuple[list[Missing], int, list[str]]:
    """Try them. Returns what is missing, how many were tried, and what is to be said of it."""
    places: dict[tuple[str, str], list[Import]] = {}
    for one in wanted:
        places.setdefault((one.module, one.name), []).append(one)
    pairs = list(places)[:_MOST_IMPORTS]
    kernel = next((kernel for kernel in entry.kernels if kernel.language == "python"), None)
    python = kernel.argv[0] if kernel is not None else ""
    if not pairs:
        return [], 0, []
    if not posixpath.basename(python).startswith(("python", "pypy")):
        return [], 0, ["imports were not tried: the image has no Python kernel that names its interpreter"]
    reporter.phase("verify", f"{len(pairs)} imports")
    results = runs.imports(python, pairs)
    notes = [] if len(results) == len(pairs) else [f"only {len(results)} of {len(pairs)} imports were tried in time"]
    local = local_modules(paths)
    missing = []
    for pair, tried in zip(pairs, results, strict=False):
        first = places[pair][0]
        if not tried.error or anywhere(first, local):
            continue
        absent = tried.error in ("ModuleNotFoundError", "ImportError") and "No module named" in tried.message
        missing.append(
            Missing(
                module=first.module,
                name=first.name,
                error=tried.error,
                message=tried.message,
                file=first.file,
                cell=first.cell,
                line=first.line,
                distribution=distribution(_absent(tried.message, first.module)) if absent else "",
                cause=likely_cause(tried.error, tried.message),
                others=len(places[pair]) - 1,
            )
        )
    return missing, len(results), notes


def _absent(message: str, module: str) -> str:
    """The module that is not there: of a package that is, it may be another one."""
    match = re.search(r"No module named '?([\w.]+)'?", message)
    return match[1] if match else module


def _run(entry: Entry, notebook: Notebook, runs: Runs, paths: Sequence[str], offline: bool, bounds: Bounds) -> Verdict:
    kernel, note = choose_kernel(notebook, entry.kernels)
    if kernel is None:
        failure = Failure(0, -1, "NoKernel", note)
        return Verdict(notebook.path, Status.KERNEL, note, failure, cells=len(notebook.cells))
    happened = runs.notebook(notebook, kernel, may_fail(notebook))
    return judge(
        notebook,
        happened,
        kernel=kernel.name,
        paths=paths,
        offline=offline,
        bounds=bounds,
        notes=(note,) if note else (),
    )


def choose_kernel(notebook: Notebook, kernels: Sequence[Kernel]) -> tuple[Kernel | None, str]:
    """The image's kernel for a notebook: of the name it asks for, else of its language, else the first; and what is to
    be said of that."""
    named = notebook.kernel
    same = next((kernel for kernel in kernels if named and kernel.name == named.lower()), None)
    if same is not None:
        return same, ""
    if not kernels:
        return None, "no kernel for it: the image holds none"
    fits = [kernel for kernel in kernels if notebook.language in ("", kernel.language)]
    if not fits:
        there = ", ".join(dict.fromkeys(kernel.language for kernel in kernels))
        return None, f"no kernel for it: it is written in {notebook.language}, and the image has {there}"
    return fits[0], f"names kernel {named}, which is not there: run with {fits[0].name}" if named else ""


def _free_memory() -> int:
    """Bytes that a notebook may have, so that it does not take the machine's last; 0 if the system does not tell."""
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(int(line.split()[1]) * 1024 * _SHARE)
    except (OSError, ValueError, IndexError):
        pass
    return 0
