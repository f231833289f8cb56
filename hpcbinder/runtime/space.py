"""The person's space of an image: their own copy of its repository, kept between launches (docs/space.md)."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

from hpcbinder import contract
from hpcbinder.config import RuntimeConfig, SpaceConfig
from hpcbinder.errors import RunError
from hpcbinder.model import Entry
from hpcbinder.runtime.describing import describe
from hpcbinder.runtime.launch.space import Prepared, Space, lab_path, prepare
from hpcbinder.runtime.launch.values import LaunchError

_ORIGIN = re.compile(r"(?P<scheme>https?|ssh|git|file)://(?:(?P<login>[^/@]*)@)?(?P<rest>[^\s\x00-\x1f\"\\]+)")
_SCP = re.compile(r"(?:[A-Za-z0-9._-]+@)?[A-Za-z0-9.-]+:[^-\s\x00-\x1f\"\\][^\s\x00-\x1f\"\\]*")
_NO_BRANCH = ("HEAD", "working tree")


def space_of(entry: Entry, settings: SpaceConfig) -> dict[str, Any]:
    """What a launcher must know to make a person's copy: the `space` of a launch.json.

    Args:
        entry: The image.
        settings: Where copies lie.
    """
    return dataclasses.asdict(
        Space(
            root=settings.folder,
            name=_name(entry),
            source=entry.source,
            ref=entry.ref,
            subdir=entry.subdir,
            commit=entry.commit or "",
            image=entry.id,
            repository=repository_of(entry),
            history=contract.COMMIT,
            origin=_origin(entry),
            caches=settings.caches or "",
            purged_after=int((settings.purged_after or "0d").removesuffix("d")),
        )
    )


def repository_of(entry: Entry) -> str:
    """Where an image has its repository: a Dockerfile puts it where it likes, usually into its working directory."""
    level = entry.config.labels.get(f"{contract.LABEL_PREFIX}{contract.LEVEL_LABEL}")
    place = entry.config.workdir
    return contract.REPO_DIR if level != contract.OWN_LEVEL or place in ("", "/") else place


def own_copy(
    entry: Entry,
    settings: RuntimeConfig,
    space: SpaceConfig,
    *,
    environ: Mapping[str, str],
    fresh: bool = False,
    elsewhere: bool = False,
) -> Prepared:
    """Find the person's copy of an image's repository, or make it.

    Args:
        entry: The image.
        settings: How images are run.
        space: Where copies lie.
        environ: The person's environment.
        fresh: Make another copy beside the one that is there.
        elsewhere: What works in it runs on another machine, which has caches of its own.

    Raises:
        RunError: There is no place for it, or the content cannot be had.
    """
    what = Space(**space_of(entry, space))
    if elsewhere:
        what = dataclasses.replace(what, caches="")
    try:
        return prepare(what, describe(entry, settings, environ=environ), environ=environ, fresh=fresh)
    except LaunchError as error:
        raise RunError(str(error)) from error


def opened_at(path: str) -> str:
    """The path of JupyterLab's URL that opens a file of the copy.

    Raises:
        RunError: It leads elsewhere.
    """
    try:
        return lab_path(path)
    except LaunchError as error:
        raise RunError(str(error)) from error


def _name(entry: Entry) -> str:
    """The repository's name, with the branch, tag or commit where it is not the default branch."""
    name = entry.id.rpartition("-")[0] or entry.id
    if entry.ref in _NO_BRANCH:
        return name
    ref = entry.ref[:12] if re.fullmatch(r"[0-9a-f]{40,64}", entry.ref) else entry.ref
    return f"{name}-{re.sub(r'[^A-Za-z0-9._]+', '-', ref)[:40].strip('-.')}".rstrip("-")


def _origin(entry: Entry) -> str:
    """Where changes can be pushed to, "" for a folder or a dataset; without a login but ssh's user."""
    if entry.commit is None or entry.uncommitted:
        return ""
    found = _ORIGIN.fullmatch(entry.source)
    if found is None:
        return entry.source if _SCP.fullmatch(entry.source) else ""
    login = (found["login"] or "").partition(":")[0] if found["scheme"] == "ssh" else ""
    return f"{found['scheme']}://{login + '@' if login else ''}{found['rest']}"
