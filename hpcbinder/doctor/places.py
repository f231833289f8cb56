"""Folders: the store, Jupyter's kernels, configuration files."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from hpcbinder.catalog import open_places
from hpcbinder.config import SITE_FILE, user_config
from hpcbinder.doctor.finding import Finding, Machine, Status, clean, read
from hpcbinder.register import kernels_folder

_LITTLE = 5 << 30
"""Bytes; a base, a server environment and one image in two formats take about half of it."""


def store(machine: Machine) -> Sequence[Finding]:
    """Whether images can be kept: a folder we may write to, with space and locks."""
    path = machine.config.store.path
    folder = _nearest(path)
    shown = clean(str(path)) + ("" if folder == path else " (not there yet)")
    if not (folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)):
        advice = "set store.path (HPCBINDER_STORE_PATH) to a folder of yours"
        return [Finding("store", "writable", Status.PROBLEM, f"{clean(str(folder))} is not yours to write", advice)]
    findings = [Finding("store", "writable", Status.OK, shown)]
    free = shutil.disk_usage(folder).free
    little = free < _LITTLE
    advice = "images take some GB: set store.path to a larger place; hpcbinder gc frees some" if little else ""
    findings.append(
        Finding("store", "free space", Status.PROBLEM if little else Status.OK, f"{free / (1 << 30):.3g} GiB", advice)
    )
    kind, options = _mount(folder)
    status, found, advice = _locks(path, folder)
    if kind == "lustre" and "localflock" in options:
        status, advice = Status.PROBLEM, "locks hold on one node only: build on one node at a time, or mount with flock"
    return [
        *findings,
        Finding("store", "file locks", status, clean(f"{found} on {kind or 'an unknown file system'}"), advice),
    ]


def site_stores(machine: Machine) -> Sequence[Finding]:
    """The stores below one's own."""
    findings = []
    for path in machine.config.store.site:
        try:
            count = len(list((path / "images").iterdir()))
        except OSError as error:
            advice = "see store.site; one that is not there counts as empty"
            findings.append(Finding("store", "site store", Status.PROBLEM, clean(f"{path}: {error.strerror}"), advice))
        else:
            findings.append(Finding("store", "site store", Status.OK, clean(f"{path}: {count} images")))
            if found := open_places(path):
                what = f"{path}: everybody may write to {', '.join(found)}: what others put there is not used"
                advice = "chmod o-w; a store's owner and its group are trusted by all who use it"
                findings.append(Finding("store", "site store", Status.PROBLEM, clean(what), advice))
    return findings


def kernels(machine: Machine) -> Sequence[Finding]:
    """Whether Jupyter looks for kernels where we put them."""
    from jupyter_core.paths import jupyter_path

    folder = kernels_folder(machine.config)
    nearest = _nearest(folder)
    if not (nearest.is_dir() and os.access(nearest, os.W_OK | os.X_OK)):
        advice = "set kernels.prefix, or register with --prefix"
        return [Finding("kernels", "folder", Status.PROBLEM, clean(f"{folder} is not yours to write"), advice)]
    if str(folder) not in jupyter_path("kernels"):
        found = f"{folder} is not on Jupyter's search path here"
        advice = f"add {folder.parent} to JUPYTER_PATH, where that is not what its Jupyter looks at anyway"
        return [Finding("kernels", "folder", Status.PROBLEM, clean(found), clean(advice))]
    return [Finding("kernels", "folder", Status.OK, clean(str(folder)))]


def configuration(machine: Machine) -> Sequence[Finding]:
    """The files there are; `hpcbinder config` shows what they say."""
    findings = []
    for name, path in (("site's file", SITE_FILE), ("your file", user_config() / "config.toml")):
        found = clean(str(path)) + ("" if path.is_file() else " (none)")
        findings.append(Finding("config", name, Status.OK, found))
    return findings


def _nearest(path: Path) -> Path:
    """The folder itself, or the one it would be made in; a file that is in its way."""
    while not os.path.lexists(path) and path != path.parent:
        path = path.parent
    return path


def _locks(store: Path, folder: Path) -> tuple[Status, str, str]:
    """Try a shared lock, on a file of the store if there is one: nothing is made for it."""
    target = next((path for path in (store / "locks" / "in-use", store / "version") if path.is_file()), folder)
    try:
        descriptor = os.open(target, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        return Status.UNKNOWN, f"{error.strerror}", ""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return Status.OK, "work", ""
    except OSError as error:
        if target == folder and error.errno == errno.EBADF:  # NFS locks no folders, and there is no file yet
            return Status.UNKNOWN, "cannot be tried before there is a store", ""
        return Status.PROBLEM, f"do not work: {error.strerror}", "set store.path to another file system"
    finally:
        os.close(descriptor)
    return Status.OK, "work", ""


def _mount(folder: Path) -> tuple[str, tuple[str, ...]]:
    """Type and options of the file system a folder is on (proc(5), mountinfo)."""
    best, kind, options = -1, "", ()  # type: int, str, tuple[str, ...]
    here = str(folder.resolve())
    for line in (read("/proc/self/mountinfo") or "").splitlines():
        before, _, after = line.partition(" - ")
        fields, rest = before.split(), after.split()
        if len(fields) < 6 or len(rest) < 3:
            continue
        point = fields[4].encode().decode("unicode_escape", "replace")
        if (here == point or here.startswith(point.rstrip("/") + "/")) and len(point) >= best:
            best, kind, options = len(point), rest[0], tuple(f"{fields[5]},{rest[2]}".split(","))
    return clean(kind, 40), options
