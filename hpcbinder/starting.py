"""Config files to begin with, for a repository that has none: what would be built of it, written down."""

from __future__ import annotations

import re
import shutil
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from hpcbinder.catalog import write_atomic
from hpcbinder.errors import UsageError
from hpcbinder.model import Checkout, Decision, Inferred, Plan

REQUIREMENTS = "requirements.txt"
RUNTIME = "runtime.txt"
APT = "apt.txt"

_OF_PYTHON = frozenset(
    {REQUIREMENTS, "requirements3.txt", "pyproject.toml", "setup.py", "Pipfile", "Pipfile.lock", "poetry.lock"}
    | {"uv.lock", "pylock.toml"}
)
_SAY_THE_PYTHON = frozenset({RUNTIME, ".python-version", "Pipfile", "Pipfile.lock", "uv.lock", "poetry.lock"})
_LINE = 110


@dataclass(frozen=True)
class Start:
    """A file to begin with.

    Attributes:
        name: `requirements.txt`, …
        text: What it is to hold, "" where there is nothing to write.
        why: What it is, or why there is none, for a person.
    """

    name: str
    text: str
    why: str


@dataclass(frozen=True)
class Written:
    """What became of it.

    Attributes:
        path: Of the file.
        written: It is there now.
        why: What it is, or why it was not written.
    """

    path: str
    written: bool
    why: str


def starting_files(plan: Plan) -> tuple[Start, ...]:
    """What a repository's config files would say so that the same is built of it without guessing."""
    if plan.own is not None:
        why = f"{plan.own.path} says all that is built"
        return tuple(Start(name, "", why) for name in (REQUIREMENTS, RUNTIME, APT))
    return (_requirements(plan), _runtime(plan), _apt(plan))


def config_folder(checkout: Checkout) -> str:
    """Where a repository's config files count, below its root: `binder`, `.binder`, or "" for the root itself."""
    return next((name for name in ("binder", ".binder") if (checkout.root / name).is_dir()), "")


def write_starts(starts: Collection[Start], folder: Path, *, force: bool) -> tuple[Written, ...]:
    """Write the files that have something in them; nothing at all if one of them may not be written.

    Args:
        folder: Is made if it is not there.
        force: Replace what is there.

    Raises:
        UsageError: A file is there already, or cannot be written.
    """
    texts = [start for start in starts if start.text]
    there = [start.name for start in texts if (folder / start.name).is_symlink() or (folder / start.name).exists()]
    if there and not force:
        raise UsageError(
            f"{', '.join(there)}: there already, nothing was written",
            where=str(folder),
            hint="--force replaces it, -o DIR writes elsewhere",
        )
    made = next((above for above in (*reversed(folder.parents), folder) if not above.exists()), None)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for start in texts:
            write_atomic(folder / start.name, start.text.encode())
    except OSError as error:
        if made is not None:
            shutil.rmtree(made, ignore_errors=True)
        raise UsageError(f"cannot be written: {error.strerror}", where=str(folder)) from error
    return tuple(Written(str(folder / start.name), bool(start.text), start.why) for start in starts)


def _requirements(plan: Plan) -> Start:
    if not plan.inferred:
        owner = next((d for d in plan.decisions if d.used and _names_packages(d)), None)
        why = f"{owner.file} says what is installed" if owner else "nothing that the code imports has to be installed"
        return Start(REQUIREMENTS, "", why)
    versions = {
        package.name: package.version for lock in plan.locks if lock.ecosystem == "pypi" for package in lock.packages
    }
    lines = [_requirement(found, versions) for found in sorted(plan.inferred, key=lambda found: _name(found).lower())]
    width = min(40, max(len(line) for line, _ in lines))
    text = "".join(f"{_wrapped(*_header(plan, bool(versions)))}\n")
    text += "".join(f"{line:{width}}  # {comment}\n" for line, comment in lines)
    if missing := [f"{d.file}: {d.reason}" for d in plan.decisions if d.pack == "infer" and not d.used]:
        text += "\n# Of this nothing came:\n" + "".join(f"# {_comment(line)}\n" for line in missing)
    guessed = sum(not found.certain for found in plan.inferred)
    why = f"{len(lines)} package{'s' * (len(lines) != 1)} that the code imports"
    return Start(REQUIREMENTS, text, f"{why}, {guessed} of them by name alone: look at these" if guessed else why)


def _header(plan: Plan, locked: bool) -> Iterator[str]:
    yield "What the notebooks and scripts import, as hpcbinder init found it: read it, correct it, and keep it."
    if not locked:
        yield f"No versions were found ahead for Python {plan.python.version}: write those that the code was made with."
    elif plan.as_of is not None and plan.as_of.date:
        yield f"Versions as of {plan.as_of.date[:10]}, for Python {plan.python.version}: {plan.as_of.reason}."
    else:
        yield f"Versions: the newest for Python {plan.python.version} when this was written."


def _requirement(found: Inferred, versions: Mapping[str, str]) -> tuple[str, str]:
    name = _name(found)
    extras = re.match(r"[^\[]*(\[[^\]]*\])", found.requirement)
    version = versions.get(re.sub(r"[-_.]+", "-", name).lower(), "")
    line = f"{name}{extras[1] if extras else ''}=={version}" if version else found.requirement
    cell = f", cell {found.cell}" if found.cell else ""
    comment = f"{found.because} ({found.file}{cell})"
    return line, _comment(comment if found.certain else f"BY ITS NAME ALONE, is it the right one? {comment}")


def _name(found: Inferred) -> str:
    match = re.match(r"[A-Za-z0-9._-]+", found.requirement)
    return match[0] if match else ""


def _runtime(plan: Plan) -> Start:
    used = {PurePosixPath(d.file).name: d.file for d in plan.decisions if d.used}
    if plan.python.origin == "conda":
        return Start(RUNTIME, "", f"{plan.python.source} says which Python")
    if said := sorted(used.keys() & _SAY_THE_PYTHON):
        return Start(RUNTIME, "", f"{used[said[0]]} says which Python")
    if said := sorted(used.keys() & {"pyproject.toml", "setup.py"}):
        return Start(RUNTIME, "", f"{used[said[0]]} says which Python it can do with")
    return Start(RUNTIME, f"python-{plan.python.version}\n", f"Python {plan.python.version}, as it is chosen now")


def _apt(plan: Plan) -> Start:
    names = plan.asked.get("debian", ())
    if owner := next((d.file for d in plan.decisions if d.used and PurePosixPath(d.file).name == APT), None):
        return Start(APT, "", f"{owner} says which Debian packages")
    if not (names and plan.inferred):
        return Start(APT, "", "no Debian package is known to be needed")
    text = "# Programs and libraries that the modules in requirements.txt need.\n" + "".join(f"{n}\n" for n in names)
    return Start(APT, text, f"Debian packages that what is imported needs: {', '.join(names)}")


def _names_packages(decision: Decision) -> bool:
    return PurePosixPath(decision.file).name in _OF_PYTHON or decision.pack in ("conda", "python")


def _comment(text: str) -> str:
    """Text for a comment of a requirements file: no line may end in it, be joined to the next, or be expanded."""
    line = re.sub(r"[^\w ./:;,()=<>~+'\"@\[\]!?*|&%-]", "?", text)
    return line if len(line) <= 300 else f"{line[:299]}…"


def _wrapped(*paragraphs: str) -> str:
    lines = []
    for paragraph in paragraphs:
        line = "#"
        for word in _comment(paragraph).split():
            if len(line) + len(word) > _LINE:
                lines.append(line)
                line = "#"
            line += f" {word}"
        lines.append(line)
    return "\n".join(lines) + "\n"
