"""The host's own Slurm client inside an image: its programs, started by the host's dynamic loader with the host's
libraries, whatever the image has of either.

What is shown, and where:

- the folders of programs, loader and libraries at places of their own (`HELPER/host/0`, …): they cover nothing of the
  image, and only Slurm's programs look there;
- Slurm's plugins, its configuration and munge's socket where they are outside: Slurm's library has these paths in it;
- an /etc/passwd in which SlurmUser is, if the image's has no such account: Slurm takes no configuration that names
  somebody unknown.

All of it is looked up when something is started, on the very machine: nodes need not have what the login node has, and
an update of Slurm changes it.

Facts checked against Slurm 22.05 and munge 0.5.15: which configuration counts, and that SlurmUser must be known
(slurm/src/common/read_config.c); plugins lie beside libslurmfull.so unless PluginDir says otherwise
(src/api/Makefile.am, pkglibdir); both libraries have the paths in them that they were built for.
"""

# Paths are text here: they become words of a command line.
# ruff: noqa: PTH110, PTH112, PTH113, PTH118, PTH119, PTH120, PTH123, PTH208

from __future__ import annotations

import os
import pwd
import re
import shlex
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ..values import Bind, Client, LaunchError, bindable
from .libraries import libraries, loader

PROGRAMS = (
    *("sacct", "sacctmgr", "salloc", "sattach", "sbatch", "sbcast", "scancel", "scontrol", "scrontab", "sdiag"),
    *("sinfo", "sprio", "squeue", "sreport", "srun", "sshare", "sstat", "strigger"),
)

_LARGEST = 64 << 20
_MOST_FILES = 50
_SETTING = re.compile(r'^[ \t]*(PluginDir|AuthInfo|SlurmUser)[ \t]*=[ \t]*(?:"([^"\n]*)"|([^\s"]*))', re.I | re.M)
_INCLUDE = re.compile(r"^[ \t]*Include[ \t]+(\S+)", re.I | re.M)
_THEIRS = re.compile(r"(?:slurm|munge)(?:[^/]*|.*/(?:etc|conf)[^/]*)$", re.I)
"""A folder of theirs alone, by its own name, or a folder of settings in one."""
_READ_OTHERWISE = re.compile(r"[:;$\\\s]")
"""What has a meaning of its own in the loader's list of folders (ld.so(8))."""
_CACHED = "/run/slurm"
"""Where slurmd and sackd keep the configuration that the controller gave them, and sackd its socket."""
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")

# A job, which runs outside, has no use for what is true inside alone, and must not get the server's credentials.
_WRAPPER = """#!/bin/sh
# Made by hpcbinder: {name} of this machine, with its own loader and libraries.
if ! command -v env >/dev/null || ! command -v grep >/dev/null; then
    echo "no Slurm client inside: this image has no env or no grep, to keep the server's credentials from jobs" >&2
    exit 127
fi
for each in $(env | grep -Eo '^(APPTAINER|SINGULARITY|CONFIGPROXY_|JUPYTERHUB_|JPY_)[A-Za-z0-9_]*'); do
    unset "$each"
done
unset {unset}
{exports}
exec {start} "$@"
"""
_INSIDE_ALONE = frozenset(
    {"DASK_JOBQUEUE__SLURM__PYTHON", "HPCBINDER_HELPER", "LD_LIBRARY_PATH", "LD_PRELOAD", "PYTHONPATH"}
)


@dataclass(frozen=True)
class _Configuration:
    """What slurm.conf says.

    Attributes:
        files: It, and what it includes.
        settings: Some of them, in small letters -> value.
    """

    files: tuple[str, ...]
    settings: Mapping[str, str]


def client(
    folder: str, environ: Mapping[str, str], image_env: Mapping[str, str], entering: Iterable[str], accounts: str | None
) -> Client:
    """This machine's Slurm client.

    Args:
        folder: The helper's, which is shown inside at the same path.
        environ: Of whom it is for, after the prologue.
        image_env: The variables that the image sets.
        entering: Names of the host's variables that enter, also where the image sets them.
        accounts: The image's /etc/passwd, None where it is not known: root is in it then.

    Raises:
        LaunchError: There is none, or none that can be shown.
    """
    if _READ_OTHERWISE.search(folder):
        raise LaunchError(f"{folder!r} is no folder that a loader can be told (set TMPDIR to another)")
    path = environ.get("PATH", os.defpath)
    there = {name: found for name in PROGRAMS if (found := shutil.which(name, path=path))}
    if not {"sbatch", "squeue"} <= there.keys():
        raise LaunchError("sbatch and squeue are not on this machine's PATH")
    programs = {name: os.path.realpath(found) for name, found in there.items()}
    loaders = {name: loader(program) for name, program in programs.items()}
    needed = libraries([programs["sbatch"]], environ)
    library = next((found for found in needed if os.path.basename(found).startswith("libslurm")), None)
    if library is None:
        raise LaunchError(f"{there['sbatch']} is not Slurm's own: it does not load libslurm")
    configuration = _configuration(library, environ)
    plugins = _plugin_folders(configuration, library)
    later = [os.path.join(place, name) for place in plugins for name in os.listdir(place) if name.endswith(".so")]
    needed += libraries([programs["sbatch"]], environ, later) + libraries(sorted({*programs.values()}), environ)
    places = _Places(folder, [*needed, *loaders.values(), *programs.values()])
    search = ":".join(dict.fromkeys(places.folder_of(library) for library in needed))
    unset = {*_INSIDE_ALONE, *filter(_NAME.fullmatch, image_env)} - {*entering, "HOME", "PATH"}
    exports = {"PATH": path, **{name: environ[name] for name in ("SLURM_CONF",) if name in environ}}
    files = {
        f"bin/{name}": _WRAPPER.format(
            name=name,
            unset=" ".join(sorted(unset)),
            exports="\n".join(f"export {name}={shlex.quote(value)}" for name, value in exports.items()),
            # Not the image's list of libraries, which has other ones.
            start=shlex.join(
                [places.inside(loaders[name]), "--inhibit-cache", "--library-path", search, places.inside(program)]
            ),
        )
        for name, program in programs.items()
    }
    binds = [*places.binds, *(Bind(path, path, True) for path in (*plugins, *_said(configuration, needed, environ)))]
    if text := _with_slurm_user(configuration.settings.get("slurmuser", "root"), accounts):
        files["passwd"] = text
        binds.append(Bind(os.path.join(folder, "passwd"), "/etc/passwd", True))
    for bind in binds:
        if not bindable(bind.source):
            raise LaunchError(
                f"{bind.source!r} cannot be bound into an image: its name has a colon, a comma or a line end"
            )
    return Client(files=files, folders=places.names, binds=tuple(dict.fromkeys(binds)))


def no_client(why: str) -> Client:
    """Programs that say why there are none."""
    text = f"#!/bin/sh\necho {shlex.quote(f'no Slurm client inside: {why}')} >&2\nexit 127\n"
    return Client(files={f"bin/{name}": text for name in PROGRAMS}, folders=(), binds=())


class _Places:
    """Where folders of the host are seen inside.

    Args:
        folder: The helper's.
        files: Real paths of what has to be seen.
    """

    def __init__(self, folder: str, files: Iterable[str]) -> None:
        folders = list(dict.fromkeys(map(os.path.dirname, files)))
        self.names = tuple(f"host/{number}" for number in range(len(folders)))
        self._inside = {source: os.path.join(folder, name) for source, name in zip(folders, self.names, strict=True)}

    @property
    def binds(self) -> list[Bind]:
        return [Bind(source, target, True) for source, target in self._inside.items()]

    def inside(self, file: str) -> str:
        return os.path.join(self.folder_of(file), os.path.basename(file))

    def folder_of(self, file: str) -> str:
        return self._inside[os.path.dirname(file)]


def _configuration(library: str, environ: Mapping[str, str]) -> _Configuration:
    """What the file says that Slurm's commands would read; nothing where there is none, but a controller to ask."""
    first = environ.get("SLURM_CONF", "")
    if not first:
        candidates = [*_paths_in(library, rb"slurm\.conf"), f"{_CACHED}/conf/slurm.conf"]
        first = next((path for path in candidates if os.path.isfile(path)), "")
    settings: dict[str, str] = {}
    files: dict[str, None] = {}
    waiting = [first] if first else []
    while waiting and len(files) < _MOST_FILES:
        path = waiting.pop(0)
        try:
            with open(path, encoding="utf-8", errors="surrogateescape") as file:
                text = file.read(_LARGEST)
        except OSError as error:
            raise LaunchError(f"Slurm's configuration cannot be read: {error}") from error
        files.update({path: None, os.path.realpath(path): None})
        text = re.sub(r"(?<!\\)#.*", "", text).replace("\\\n", "")
        settings.update((name.lower(), quoted or plain) for name, quoted, plain in _SETTING.findall(text))
        included = (os.path.join(os.path.dirname(first), name) for name in _INCLUDE.findall(text))
        waiting += [name for name in included if name not in files]
    return _Configuration(tuple(files), settings)


def _plugin_folders(configuration: _Configuration, library: str) -> list[str]:
    said = configuration.settings.get("plugindir", "").split(":")
    folders = [os.path.normpath(folder) for folder in said if folder] or [os.path.dirname(library)]
    for folder in folders:
        # What the image has there is covered.
        if not _THEIRS.search(folder):
            raise LaunchError(f"Slurm's plugins are in {folder}, which is not a folder of Slurm's alone")
    return [folder for folder in folders if os.path.isdir(folder)]


def _said(configuration: _Configuration, needed: Iterable[str], environ: Mapping[str, str]) -> list[str]:
    """Where the configuration is, and munge's socket: the folder where it is theirs alone, so that what is put there
    anew is seen, else the file."""
    home = os.path.join(os.path.realpath(environ.get("HOME") or "/"), "")
    sockets = re.findall(r"socket=([^,]+)", configuration.settings.get("authinfo", ""))
    for library in needed if not sockets else ():
        if os.path.basename(library).startswith("libmunge"):
            sockets += _paths_in(library, rb"munge\.socket[.0-9]*")
    found = []
    for path in (*configuration.files, *sockets, f"{_CACHED}/conf", f"{_CACHED}/sack.socket"):
        if os.path.exists(path):
            folder = os.path.dirname(os.path.normpath(path))
            above_home = home.startswith(os.path.join(os.path.realpath(folder), ""))
            found.append(folder if _THEIRS.search(folder) and not above_home else path)
    return found


def _paths_in(library: str, name: bytes) -> list[str]:
    """Absolute paths with a name that a library has among its texts."""
    with open(library, "rb") as file:
        content = file.read(_LARGEST)
    return [os.fsdecode(path) for path in re.findall(rb"\0(/[!-~]{0,200}/" + name + rb")(?=\0)", content)]


def _with_slurm_user(name: str, accounts: str | None) -> str:
    """An /etc/passwd with this person and SlurmUser in front of those whom the image and the host know; "" if the image
    knows him."""
    try:
        user = pwd.getpwuid(int(name)) if name.isdecimal() else pwd.getpwnam(name)
        person = pwd.getpwuid(os.getuid())
    except (KeyError, OverflowError):
        return ""  # what Slurm's programs say then, they say outside, too
    lines = [line for line in (accounts or "").splitlines() if line.count(":") == 6]
    same = any(line.split(":")[0:3:2] == [user.pw_name, str(user.pw_uid)] for line in lines)
    if same or (accounts is None and user.pw_name == "root"):
        return ""
    with open("/etc/passwd", encoding="utf-8", errors="surrogateescape") as file:
        lines += [line for line in file.read(_LARGEST).splitlines() if line.count(":") == 6]
    found = {known.pw_name: ":".join(map(str, (known.pw_name, "x", *known[2:]))) for known in (person, user)}
    for line in lines:
        found.setdefault(line.partition(":")[0], line)
    return "".join(f"{line}\n" for line in found.values())
