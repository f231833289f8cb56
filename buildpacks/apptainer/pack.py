"""Definition files of Apptainer: brought onto our base where they stand on the same system, so that the image keeps the
contract. They count where nothing else says what a repository needs."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Collection

from hpcbinder.plan import DetectError, Draft, Python, Repo, Stage, show

from .definition import LEFT_OUT, Definition, files, read_definition, variables

NAMES = ("Singularity", "Apptainer", "Singularity.def", "Apptainer.def", "apptainer.def", "singularity.def")

ELSEWHERE = (
    *("requirements.txt", "pyproject.toml", "setup.py", "pylock.toml", "uv.lock", "poetry.lock", "Pipfile"),
    *(
        "Pipfile.lock",
        "apt.txt",
        "environment.yml",
        "environment.yaml",
        "conda-linux-64.lock",
        "pixi.toml",
        "pixi.lock",
    ),
    *("conda-lock.yml", "install.R", "renv.lock", "Project.toml", "postBuild"),
)

RELEASES = {"10": "buster", "11": "bullseye", "12": "bookworm", "13": "trixie"}
"""Numbers of Debian's releases."""

_DEBIAN = re.compile(r"(?:docker\.io/|library/)*debian(?::(?P<tag>[a-z0-9.-]+))?\Z")
_PYTHON = re.compile(
    r"(?:docker\.io/|library/)*python:(?P<version>3\.[0-9]+)(?:\.[0-9]+)?(?:-slim)?(?:-(?P<suite>[a-z]+))?\Z"
)
_COVERED = re.compile(r"/(home|root|tmp|var/tmp|run|var/run|var/lock|scratch|dev|proc|sys|etc/ld\.so\.preload)(/|\Z)")
"""Folders that sites bind over, other names of them, and what every program would load."""

_ABOVE = ("/", "/etc", "/var")
"""Folders that hold some of those; every image has them."""

MOST_PARTS = 512
"""Names in a path with those that its symlinks say: more than a real one has. One that goes in circles ends there."""

_KERNELS_ONLY = "an image of ours runs kernels and servers"


def prefer(repo: Repo, draft: Draft) -> None:
    """The system that the definition stands on."""
    found = _found(repo)
    if found is not None:
        suite, version = _wanted(read_definition(repo, found), draft)

        def fits(python: Python) -> bool:
            return suite in ("", python.suite) and version in ("", python.version)

        draft.prefer(fits)


def plan(repo: Repo, draft: Draft) -> None:
    path = _found(repo)
    for other in filter(None, map(repo.config, NAMES)):
        if other != path:
            reason = next((there for name in ELSEWHERE if (there := repo.config(name))), path)
            draft.unused(other, f"{show(reason or '')} says what is needed")
    if path is None:
        return
    definition = read_definition(repo, path)
    suite, version = _wanted(definition, draft)
    has = draft.python
    if (suite and has.suite != suite) or (version and has.version != version) or draft.provided is not None:
        stands = definition.header.get("from", (suite, 0))[0]
        raise DetectError(
            f"stands on {show(stands[:200])}, but the image is to have Python {has.version} on Debian {has.suite}",
            where=show(path),
        )
    set_, folders = variables(definition)
    for name, value in set_.items():
        draft.set_env(name, value)
    for folder in folders:
        draft.add_path(folder)
    _copy(repo, draft, definition)
    _post(draft, definition)
    left = [f"%{name}" for name in LEFT_OUT if name in definition.sections]
    note = f"; {', '.join(left)} left out: {_KERNELS_ONLY}" if left else ""
    draft.used(path, f"its sections, on Debian {has.suite} with Python {has.version}{note}")


def _found(repo: Repo) -> str | None:
    """The definition that counts."""
    if any(repo.config(name) for name in ELSEWHERE):
        return None
    return next((path for name in NAMES if (path := repo.config(name)) is not None), None)


def _wanted(definition: Definition, draft: Draft) -> tuple[str, str]:
    """Debian release and version of Python that a definition stands on, "" for any.

    Raises:
        DetectError: It stands on something else, or on what is not to be had here.
    """
    agent, line = definition.header.get("bootstrap", ("", 1))
    image, image_line = definition.header.get("from", ("", line))
    suite = version = ""
    what = f"{agent}: {image}" if agent else "nothing"
    if agent.lower() == "debootstrap":
        suite, image_line = definition.header.get("osversion", ("", line))
        what = f"debootstrap of {suite or 'nothing'}"
        known = suite in RELEASES.values()
    elif agent.lower() in ("docker", "library") and (match := _DEBIAN.match(image)):
        tag = re.sub(r"-slim\Z", "", match["tag"] or "latest")
        tag = re.sub(r"-[0-9]{8}\Z", "", tag)
        suite = "" if tag in ("latest", "stable") else RELEASES.get(tag.split(".")[0], tag)
        known = suite in ("", *RELEASES.values())
    elif agent.lower() in ("docker", "library") and (match := _PYTHON.match(image)):
        version, suite = match["version"], match["suite"] or ""
        known = suite in ("", *RELEASES.values())
    else:
        known = False
    where = f"{show(definition.path)}:{image_line}"
    if not known:
        raise DetectError(
            f"stands on {show(what[:200])}, and only what stands on Debian or python can be brought onto our base",
            where=where,
            hint="a Dockerfile FROM that image, with %post as RUN, is built; --without apptainer leaves this out",
        )
    if not any(suite in ("", p.suite) and version in ("", p.version) for p in draft.pythons):
        there = ", ".join(sorted({f"Python {p.version} on Debian {p.suite}" for p in draft.pythons}))
        raise DetectError(
            f"stands on {show(what[:200])}, which is not to be had", where=where, hint=f"there is {there}"
        )
    return suite, version


def _copy(repo: Repo, draft: Draft, definition: Definition) -> None:
    reads: set[str] = set()
    lines = []
    for source, target, number in files(definition):
        where = f"{show(definition.path)}:{number}"
        place = posixpath.normpath(source)
        if place.startswith(("/", "..")) or not (place == "." or repo.is_dir(place) or repo.is_file(place)):
            raise DetectError(f"copies {show(source)}, which is no file or folder of the repository", where=where)
        found = {place} if repo.is_file(place) else {item.path for item in repo.files("" if place == "." else place)}
        # Two slashes are one to Linux, and not to posixpath.
        to = "/" + posixpath.normpath(target).lstrip("/")
        whole = target.startswith("/") and ".." not in target.split("/")
        bad = _refused(place, to, found) if whole else target
        if bad is not None:
            raise DetectError(
                f"copies to {show(bad)}, which clusters bind over, every program loads, or which is no whole path",
                where=where,
                hint="write a place below /opt or /usr/local",
            )
        reads |= _with_targets(repo, found - reads, where)
        # The slash at its end says that it is a folder.
        lines.append(f"{place}\t{to}{'/' if target.endswith('/') and to != '/' else ''}\n")
    if lines:
        draft.add_step(
            Stage.DEPENDENCIES,
            "files",
            f"copies what %files of {show(definition.path)} names",
            draft.script("files.sh"),
            reads=reads,
            data={"files": "".join(lines)},
            # What it copies may take the place of a program that its next line runs.
            runs_repository_code=True,
        )


def _refused(place: str, to: str, found: Collection[str]) -> str | None:
    """Where a copy would come to lie that must not lie there.

    Args:
        place: What is copied, of the repository.
        to: Where to, normalized.
        found: The files and symlinks that `place` is or holds.
    """
    top = posixpath.join(to, posixpath.basename(place)) if to in _ABOVE and place != "." else to
    if _COVERED.match(top):
        return top
    if top not in _ABOVE:
        return None
    cut = 0 if place == "." else len(place) + 1
    ends = (posixpath.join(top, path[cut:]) for path in found)
    # A symlink in the place of one of these may lead to anything.
    return next((end for end in ends if _COVERED.match(end) or end in _ABOVE), None)


def _with_targets(repo: Repo, paths: Collection[str], where: str) -> set[str]:
    """Files and symlinks, and all that those lead to.

    Raises:
        DetectError: A symlink does not stay in the repository.
    """
    found: set[str] = set()
    folders: set[str] = set()
    pending = list(paths)
    order: list[str] = []
    places: dict[str, int] = {}
    while pending:
        path = pending.pop()
        if path in found:
            continue
        found.add(path)
        if repo.tree.kind(path) != "symlink":
            continue
        leads = _behind(repo, path, where)
        if repo.is_file(leads):
            pending.append(leads)
        elif leads not in folders:
            folders.add(leads)
            # What a folder holds follows it in the tree.
            order = order or list(repo.tree.items)
            places = places or {name: number for number, name in enumerate(order, start=1)}
            for number in range(places.get(leads, 0), len(order)):
                item = repo.tree.items[order[number]]
                if leads and not item.path.startswith(f"{leads}/"):
                    break
                if item.kind in ("file", "symlink") and not item.ignored:
                    pending.append(item.path)
    return found


def _behind(repo: Repo, link: str, where: str) -> str:
    """The file or folder that a symlink leads to, "" for the root. It is looked for in the repository's names: in the
    build, the repository lies elsewhere, so that nothing around it here counts.

    Raises:
        DetectError: It leaves the repository, or leads nowhere.
    """
    parts = link.split("/")[::-1]
    here: list[str] = []
    trouble = "goes in circles"
    for _ in range(MOST_PARTS):
        if not parts:
            return "/".join(here)
        part = parts.pop()
        if part == ".." and not here:
            trouble = "leaves the repository"
            break
        if part == "..":
            here.pop()
        if part in ("", ".", ".."):
            continue
        item = repo.tree.items.get("/".join([*here, part]))
        if item is None or item.kind == "special" or (item.kind == "file" and parts):
            trouble = "leads to nothing in the repository"
            break
        if item.kind != "symlink":
            here.append(part)
        elif item.target.startswith("/"):
            trouble = "leaves the repository"
            break
        else:
            parts += item.target.split("/")[::-1]
    raise DetectError(f"copies {show(link)}, a symlink that {trouble}", where=where, hint="put the file itself there")


def _post(draft: Draft, definition: Definition) -> None:
    lines = definition.sections.get("post", [])
    for number, line in lines:
        if re.search(r"(SINGULARITY|APPTAINER)_(ENVIRONMENT|ROOTFS|LABELS)|SINGULARITY_ROOTFS", line):
            raise DetectError(
                "writes the image's variables or labels in %post",
                where=f"{show(definition.path)}:{number}",
                hint="set variables in %environment",
            )
    if not any(line.strip() for _, line in lines):
        return
    # Its line numbers stay those of the file.
    text = "\n" * (lines[0][0] - 1) + "\n".join(line for _, line in lines) + "\n"
    draft.add_step(
        Stage.DEPENDENCIES,
        "post",
        f"runs %post of {show(definition.path)}",
        draft.script("post.sh"),
        data={"post": text, "shell": f"{definition.shell}\n", "path": f"{definition.path}\n"},
        runs_repository_code=True,
    )
