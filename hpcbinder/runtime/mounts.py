"""With what the runtimes of this machine mount a squashfs, and which compressors that reads."""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from hpcbinder.runtime.launch.runtimes import PROGRAMS

_PATIENCE = 8.0
_SQUASHFUSE = ("squashfuse_ll", "squashfuse")
_LIBRARIES = {"zstd": "libzstd.", "xz": "liblzma.", "lz4": "liblz4.", "lzo": "liblzo2.", "gzip": "libz."}
"""Compressor -> the library that squashfuse's build for it needs (squashfuse, configure.ac)."""
_MOUNTING = {**{name: PROGRAMS[name] for name in PROGRAMS if name != "docker"}, "sarus": "sarus", "enroot": "enroot"}
"""Runtime -> its command, of those that mount a squashfs of ours."""


@dataclass(frozen=True)
class Mount:
    """How one runtime mounts images.

    Attributes:
        runtime: Its name.
        kernel: The kernel mounts them; if not, a FUSE program or library does.
        program: What does, if not the kernel: its path, "" if none was found.
        compressors: What that reads; None where it cannot be told, and where the kernel is to be asked.
    """

    runtime: str
    kernel: bool
    program: str = ""
    compressors: frozenset[str] | None = None


def mounts(name: str, environ: Mapping[str, str]) -> list[Mount]:
    """Look at the runtimes that are here.

    Args:
        name: `auto` for all, or the one that runs images here (`runtime.name`).
        environ: Environment whose PATH is looked at, after the site's prologue.
    """
    wanted = {"auto": set(_MOUNTING), "apptainer": {"apptainer", "singularity"}}.get(name, {name})
    found = []
    for runtime, command in _MOUNTING.items():
        program = shutil.which(command, path=environ.get("PATH", os.defpath))
        if runtime in wanted and program is not None:
            mount = _LOOK[runtime](runtime, program, environ)
            found += [mount] if mount is not None else []
    return found


@dataclass(frozen=True)
class ApptainerSettings:
    """What Apptainer or Singularity was built and configured to do.

    Attributes:
        setuid: It runs as root whoever starts it.
        programs: Folder of its own programs.
        file: Name of its configuration file.
        conf: The settings in that; {} if it cannot be read.
    """

    setuid: bool
    programs: Path
    file: str
    conf: Mapping[str, str]


def apptainer_settings(program: str, ask: Callable[..., str | None]) -> ApptainerSettings | None:
    """Ask Apptainer or Singularity; None if it does not say.

    Args:
        program: Where it is.
        ask: Gets a command's words, and says what it prints; None if it fails.
    """
    said = dict(re.findall(r"^([A-Z_]+)=(.*)$", ask(program, "buildcfg") or "", re.MULTILINE))
    kind = next((kind for kind in ("APPTAINER", "SINGULARITY") if f"{kind}_CONF_FILE" in said), None)
    if kind is None:
        return None
    try:
        text = Path(said[f"{kind}_CONF_FILE"]).read_text(errors="replace")
    except OSError:
        text = ""
    conf = dict(re.findall(r"^\s*([a-z0-9 -]+?)\s*=\s*(.*?)\s*$", text, re.MULTILINE))
    programs = Path(said.get("LIBEXECDIR", "")) / kind.lower() / "bin"
    setuid = is_setuid(programs / "starter-suid") and conf.get("allow setuid") != "no"
    return ApptainerSettings(setuid, programs, f"{kind.lower()}.conf", conf)


def is_setuid(path: Path) -> bool:
    """Whether a program runs as root whoever starts it."""
    try:
        about = path.stat()
    except OSError:
        return False
    return about.st_uid == 0 and bool(about.st_mode & stat.S_ISUID)


def _apptainer(runtime: str, program: str, environ: Mapping[str, str]) -> Mount:
    """Root's mounts are the kernel's, too; its own squashfuse, if it brought one, comes before that on PATH."""
    if os.geteuid() == 0:
        return Mount(runtime, kernel=True)
    with tempfile.TemporaryDirectory(prefix="hpcbinder-") as folder:
        # It makes a folder in the home at its first word, unless it is told where to.
        own = {**environ, **dict.fromkeys(("APPTAINER_CONFIGDIR", "SINGULARITY_CONFIGDIR"), folder)}
        settings = apptainer_settings(program, lambda *argv: _say(*argv, environ=own))
    if settings is None or settings.setuid:
        return Mount(runtime, kernel=True)
    path = f"{settings.programs}:{environ.get('PATH', os.defpath)}"
    return _fuse(runtime, program, {**environ, "PATH": path})


def _kernel(runtime: str, program: str, environ: Mapping[str, str]) -> Mount:
    return Mount(runtime, kernel=True)


def _fuse(runtime: str, program: str, environ: Mapping[str, str]) -> Mount:
    path = environ.get("PATH", os.defpath)
    squashfuse = next(filter(None, (shutil.which(name, path=path) for name in _SQUASHFUSE)), None)
    return Mount(runtime, False, squashfuse or "", _reads(_linked(squashfuse, environ)) if squashfuse else None)


def _charliecloud(runtime: str, program: str, environ: Mapping[str, str]) -> Mount | None:
    """ch-run has squashfuse as a library, or cannot run our images at all."""
    linked = _linked(program, environ)
    if linked is not None and "squashfuse" not in linked:
        return None
    return Mount(runtime, False, program, _reads(linked))


_LOOK: Mapping[str, Callable[[str, str, Mapping[str, str]], Mount | None]] = {
    "apptainer": _apptainer,
    "singularity": _apptainer,
    "shifter": _kernel,
    "sarus": _kernel,
    "podman-hpc": _fuse,
    "enroot": _fuse,
    "charliecloud": _charliecloud,
}


def _linked(program: str, environ: Mapping[str, str]) -> str | None:
    """The libraries a program is linked with, as ldd(1) lists them; None of one that does not say (a static one)."""
    return _say("ldd", program, environ=environ)


def _reads(linked: str | None) -> frozenset[str] | None:
    """The compressors whose libraries are among them."""
    if linked is None:
        return None
    return frozenset(name for name, library in _LIBRARIES.items() if library in linked) or None


def _say(*argv: str, environ: Mapping[str, str]) -> str | None:
    """What a program prints; None if it cannot be started, fails, or does not end in time."""
    try:
        done = subprocess.run(
            argv,
            env={**environ, "LC_ALL": "C.UTF-8"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=_PATIENCE,
            check=False,
            start_new_session=True,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.decode("utf-8", "replace") if done.returncode == 0 else None
