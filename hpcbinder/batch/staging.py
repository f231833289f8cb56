"""From a wish to a folder with everything that its tasks need, wherever they are run.

run.json                  what there is to do
NAME.ipynb, NAME.html     an executed notebook, as far as it has come
NAME/                     files that a notebook of the image wrote into its folder
index.html                all of them in one table
.hpcbinder/               notebooks as they were, the launcher, papermill, what is known of each task, its output
"""

from __future__ import annotations

import hashlib
import json
import os
import posixpath
import re
import shutil
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

from hpcbinder import contract, runtime
from hpcbinder.batch.naming import names
from hpcbinder.batch.tools import papermill_archive, papermill_version
from hpcbinder.catalog import write_atomic
from hpcbinder.config import RuntimeConfig
from hpcbinder.errors import UsageError
from hpcbinder.model import Entry, Kernel
from hpcbinder.notebooks import LIMIT, NotANotebook, read_notebook
from hpcbinder.scheduler import OF_THE_JOB
from hpcbinder.text import one_line
from hpcbinder.verify import choose_kernel, image_content, repository_folder

FORMAT = 1
"""Of run.json."""
RUN = "run.json"
OWN = ".hpcbinder"
NUMBER = "HPCBINDER_TASK"
"""The variable that says which task is meant, where no job array does."""
_MOST = 100_000

_UNBINDABLE = re.compile(r"[:,\x00-\x1f\x7f]")
_NO_NBCLIENT = 88
_EXECUTE = f"""
own="${{1%/*}}/{OWN}"
for python in {contract.SERVER_PREFIX}/bin/python python3 python; do
    if "$python" -I -c 'import nbclient, requests' 2>/dev/null; then
        exec "$python" -I "$own/execute.py" "$1" "$own/tools.zip"
    fi
done
echo 'the image has no Python with nbclient and requests, which execute notebooks' >&2
exit {_NO_NBCLIENT}
"""


@dataclass(frozen=True)
class Wish:
    """What is to be executed, and how.

    Attributes:
        notebooks: Paths in the image's repository; or of this machine, if they begin with /, ./, ../ or ~/.
        parameters: For all.
        rows: More parameters, for each time that every notebook is executed; None for once, without any.
        output: Folder for what comes of it.
        report: HTML pages, too.
        cell_timeout: Seconds for a cell, 0 for any.
    """

    notebooks: tuple[str, ...]
    output: Path
    parameters: Mapping[str, Any] = field(default_factory=dict)
    rows: Sequence[Mapping[str, Any]] | None = None
    report: bool = False
    cell_timeout: float = 0.0


@dataclass(frozen=True)
class _Found:
    """A notebook that was named.

    Attributes:
        path: As it was named.
        place: Of a notebook of the image, its folder below the repository; None of the person's own.
        input: Name of its copy.
    """

    path: str
    place: str | None
    input: str
    kernel: Kernel
    note: str


def stage(entry: Entry, wish: Wish, settings: RuntimeConfig, *, environ: Mapping[str, str]) -> list[str]:
    """Fill the wish's folder.

    Returns:
        The command line that executes a task, on this machine or a node, told which by its environment.

    Raises:
        UsageError: A notebook is not there or is none, or the folder has other results already.
        RunError: No runtime here can run the image, or papermill is not installed.
        ConvertError: The image cannot be read.
        OSError: The folder cannot be written.
    """
    version = papermill_version()
    found, contents = _notebooks(entry, wish)
    rows = [{}] if wish.rows is None else wish.rows
    pairs = [(notebook, row) for notebook in found for row in rows]
    if len(pairs) > _MOST:
        raise UsageError(f"{len(pairs)} notebooks to execute, {_MOST} is the limit")
    output = wish.output
    called = names([notebook.path for notebook, _ in pairs], [row for _, row in pairs])
    run = {
        "format": FORMAT,
        "image": entry.id,
        "papermill": version,
        "repository": repository_folder(entry),
        "report": wish.report,
        "cell_timeout": wish.cell_timeout,
        "tasks": [
            {
                "name": name,
                "notebook": notebook.path,
                "place": notebook.place,
                "input": notebook.input,
                "parameters": {**wish.parameters, **row},
                "kernel_name": notebook.kernel.name,
                "kernel": _spec(notebook.kernel),
                "note": notebook.note,
            }
            for name, (notebook, row) in zip(called, pairs, strict=True)
        ],
    }
    description = runtime.describe(entry, settings, argv=("/bin/sh", "-c", _EXECUTE, "sh", "{run}"), environ=environ)
    description["environment"] = [*description["environment"], *OF_THE_JOB, NUMBER]
    description["files"] = {"run": str(output / RUN)}
    _claim(output)
    try:
        own = output / OWN
        start, files = runtime.launcher_files(description, own)
        files |= {f"inputs/{name}": content for name, content in contents.items()}
        files["execute.py"] = resources.files("hpcbinder.batch.inside").joinpath("execute.py").read_bytes()
        files["tools.zip"] = papermill_archive()
        for name in ("results", "log"):
            (own / name).mkdir()
        for name, content in files.items():
            (own / name).parent.mkdir(exist_ok=True)
            (own / name).write_bytes(content)
        write_atomic(output / RUN, (json.dumps(run, indent=1) + "\n").encode("ascii"))
    except BaseException:
        discard(output)
        raise
    return start


def discard(output: Path) -> None:
    """Take away a run of which nothing was executed."""
    shutil.rmtree(output / OWN, ignore_errors=True)
    (output / RUN).unlink(missing_ok=True)
    try:
        output.rmdir()
    except OSError:
        return  # somebody else put something there


def tidy(output: Path, repository: str, names: Sequence[str]) -> None:
    """Take away what nobody needs once every task has ended.

    Args:
        repository: Where the image has it: links there are left of tasks that were killed.
        names: Of the tasks.
    """
    own = output / OWN
    for name in names if repository else ():
        for parent, folders, files in os.walk(output / name, topdown=False):
            for path in (Path(parent, each) for each in (*folders, *files)):
                if path.is_symlink() and str(path.readlink()).startswith(f"{repository}/"):
                    path.unlink(missing_ok=True)
            try:
                Path(parent).rmdir()
            except OSError:
                continue  # the notebook wrote something there
    for name in ("inputs", "hpcbinder_launch"):
        shutil.rmtree(own / name, ignore_errors=True)
    for name in ("execute.py", "tools.zip", "launch.py", "launch.json", "job.sh"):
        (own / name).unlink(missing_ok=True)


def _claim(output: Path) -> None:
    """Make the folder, or take one that is empty: results of before are overwritten by nobody.

    Raises:
        UsageError: It is not empty, or cannot be made.
    """
    where = one_line(str(output))
    if _UNBINDABLE.search(str(output)):
        raise UsageError(
            "cannot be bound into an image: its name has a colon, a comma or a line end",
            where=where,
            hint="--output takes another folder",
        )
    try:
        output.mkdir(parents=True, exist_ok=True)
        if any(output.iterdir()):
            raise UsageError("is not empty", where=where, hint="--output takes a new folder, or an empty one")
        # Only one of two who come at the same time can make it.
        (output / OWN).mkdir(mode=0o700)
    except OSError as error:
        raise UsageError(f"results cannot be kept there: {error.strerror}", where=where) from None


def _notebooks(entry: Entry, wish: Wish) -> tuple[list[_Found], dict[str, bytes]]:
    found, contents = [], {}
    with ExitStack() as stack:
        content, paths = None, frozenset[str]()
        for word in dict.fromkeys(wish.notebooks):
            if _own(word):
                place, raw = None, _read(Path(word).expanduser())
            else:
                if content is None:
                    content = stack.enter_context(image_content(entry))
                    paths = frozenset(content.paths())
                path = posixpath.normpath(word)
                if path not in paths:
                    hint = f"the one here is ./{one_line(word, 200)}" if Path(word).is_file() else None
                    hint = hint or "hpcbinder ls shows what the image has; ./ begins a path of this machine"
                    raise UsageError(f"the image's repository has no {one_line(word, 200)}", hint=hint)
                place, raw = path.rpartition("/")[0], content.read(path, LIMIT)
            try:
                notebook = read_notebook(word, raw)
            except NotANotebook as error:
                raise UsageError(f"no notebook: {one_line(str(error), 200)}", where=one_line(word, 200)) from None
            kernel, note = choose_kernel(notebook, entry.kernels)
            if kernel is None:
                raise UsageError(one_line(note, 300), where=one_line(word, 200))
            name = f"{hashlib.sha256(raw).hexdigest()[:16]}.ipynb"
            contents[name] = raw
            found.append(_Found(word, place, name, kernel, note))
    return found, contents


def _own(word: str) -> bool:
    return word.startswith(("/", "./", "../", "~/"))


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(LIMIT + 1)
    except OSError as error:
        raise UsageError(f"cannot be read: {error.strerror}", where=one_line(str(path))) from None


def _spec(kernel: Kernel) -> dict[str, Any]:
    return {
        "argv": list(kernel.argv),
        "env": dict(kernel.env),
        "display_name": kernel.display_name,
        "language": kernel.language,
        "interrupt_mode": kernel.interrupt_mode,
    }
