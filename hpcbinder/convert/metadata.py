"""The uppermost layer of every converted image: what the runtimes look for inside it.

Apptainer reads `/.singularity.d` (internal/pkg/build/sources/base_environment.go, the runtime's action_script.sh),
Charliecloud `/ch/environment` (ch-run(1)), enroot files in `/etc` (`hpcbinder.convert.enroot`); they, and Shifter, need
mount points that are there already, since a squashfs cannot get new ones.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from hpcbinder.contract import LABEL_PREFIX, PROFILE, STEP_DIR
from hpcbinder.convert import enroot
from hpcbinder.convert.environment import charliecloud_file, image_environment, runscript, shell_exports
from hpcbinder.convert.stack import Stack
from hpcbinder.model import ImageConfig

_EMPTY_SCRIPT = "#!/bin/sh\n"

_PROFILE_SCRIPT = f"""\
#!/bin/sh
# `apptainer exec` skips the image's entrypoint: set at least its variables.
if [ -r {PROFILE} ]; then
    . {PROFILE}
fi
"""

# Apptainer injects --env and APPTAINERENV_* right after a file of this very name; --nv and --rocm fill libs/.
_BASE_SCRIPT = """\
#!/bin/sh
LD_LIBRARY_PATH="${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}/.singularity.d/libs"
PS1="${PS1:-Apptainer> }"
export LD_LIBRARY_PATH PS1
"""

MOUNT_POINTS: Mapping[str, int] = {
    "dev": 0o755,
    "etc": 0o755,
    "home": 0o755,
    "mnt": 0o755,
    "proc": 0o755,
    "root": 0o700,
    "run": 0o755,
    "scratch": 0o755,
    "srv": 0o755,
    "sys": 0o755,
    "tmp": 0o1777,
    "var": 0o755,
    "var/tmp": 0o1777,
}
"""Folders the runtimes and sites mount over, and their modes."""

MOUNTED_FILES = ("etc/group", "etc/hosts", "etc/passwd", "etc/resolv.conf")
"""Files the runtimes mount the host's over."""

BUILD_ONLY = (STEP_DIR.rpartition("/")[2], ".containerenv", "secrets")
"""What engines mount in /run while they build: some leave the empty places in a layer, some take even those away that
were there before, and the folder's time is then the build's."""

RUNSCRIPT = "/.singularity.d/runscript"
"""What does in the image what `docker run` does."""

_OWN_LIMIT = 1 << 16
"""Bytes of the longest file of a person's that ours is added to; a longer one is left as it is."""

_LINKS = {"singularity": ".singularity.d/runscript", "environment": ".singularity.d/env/90-environment.sh"}
"""What Singularity before 3.0 looks for."""


@dataclass(frozen=True)
class Metadata:
    """What is said about one image, in the runtimes' terms.

    Attributes:
        deffile: Definition file that names the image this was made from.
        labels: All labels, flat.
        environment: Path in the image -> script that sets the image's variables.
        runscript: What `apptainer run` runs.
        charliecloud: Text of `/ch/environment`.
        lost: File in the image -> variables it cannot carry.
        ours: The image was built by hpcbinder.
        variables: What `environment` sets.
        workdir: Where a command begins.
        volumes: Folders that can be written to.
    """

    deffile: str
    labels: Mapping[str, str]
    environment: Mapping[str, str]
    runscript: str
    charliecloud: str
    lost: Mapping[str, tuple[str, ...]]
    ours: bool = False
    variables: Mapping[str, str] = field(default_factory=dict)
    workdir: str = ""
    volumes: tuple[str, ...] = ()

    def inspect_json(self) -> bytes:
        """What `apptainer inspect` reads out of a SIF (pkg/inspect/metadata.go)."""
        attributes = {
            "deffile": self.deffile.rstrip("\n"),
            "environment": {path: text.rstrip("\n") for path, text in self.environment.items()},
            "labels": self.labels,
            "runscript": self.runscript.rstrip("\n"),
            "startscript": _EMPTY_SCRIPT.rstrip("\n"),
        }
        return _json({"data": {"attributes": attributes}, "type": "container"})


def describe(config: ImageConfig, labels: Mapping[str, str], origin: str) -> Metadata:
    """What the runtimes are told about an image.

    Args:
        labels: Added to the image's own, winning over them.
        origin: What it was made from.
    """
    env = image_environment(config.env)
    charliecloud, no_lines = charliecloud_file(env)
    lost = {"/ch/environment": no_lines, "/etc/environment": enroot.environment_file(env)[1]}
    return Metadata(
        deffile=(f"# Made by hpcbinder from the layers of an image.\nBootstrap: docker-daemon\nFrom: {origin}\n"),
        labels={**config.labels, **labels},
        environment={
            "/.singularity.d/env/10-docker2singularity.sh": shell_exports(env),
            "/.singularity.d/env/90-environment.sh": _EMPTY_SCRIPT,
        },
        runscript=runscript(config.entrypoint, config.cmd),
        charliecloud=charliecloud,
        lost={path: names for path, names in lost.items() if names},
        ours=any(name.startswith(LABEL_PREFIX) for name in config.labels),
        variables=env,
        workdir=config.workdir,
        volumes=config.volumes,
    )


def oci_config_json(config: ImageConfig) -> bytes:
    """The `config` part of the image configuration, which OCI runtimes look for in a SIF (image spec, config.md)."""
    whole = {
        "Env": [f"{name}={value}" for name, value in config.env.items()],
        "Entrypoint": config.entrypoint,
        "Cmd": config.cmd,
        "WorkingDir": config.workdir,
        "Labels": config.labels,
        "Volumes": {volume: {} for volume in config.volumes},
        "User": config.user,
        "ExposedPorts": {port: {} for port in config.ports},
        "StopSignal": config.stop_signal,
    }
    return _json({key: value for key, value in whole.items() if value})


def metadata_tar(metadata: Metadata, timestamp: int, stack: Stack) -> bytes:
    """The layer, as a tar.

    Args:
        timestamp: Unix time (s) of everything in it.
        stack: The image's layers. What a person's image has is left alone: only missing mount points are added, a link
            never replaces a file, and enroot's `/etc/environment` and `/etc/fstab` keep what is in them.
    """
    kind = stack.kind

    def absent(path: str) -> bool:
        parent = path.rpartition("/")[0]
        return kind(path) is None and (not parent or kind(parent) in (None, "directory"))

    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        tree = _Tree(tar, timestamp)
        tree.folder(".singularity.d")
        tree.file(".singularity.d/.wh..wh..opq", "")  # nothing of an older conversion stays
        for folder in ("actions", "env", "libs"):
            tree.folder(f".singularity.d/{folder}")
        for path, script in metadata.environment.items():
            tree.file(path.lstrip("/"), script, 0o755)
        tree.file(".singularity.d/env/91-hpcbinder.sh", _PROFILE_SCRIPT, 0o755)
        tree.file(".singularity.d/env/99-base.sh", _BASE_SCRIPT, 0o755)
        tree.file(".singularity.d/Singularity", metadata.deffile)
        tree.file(".singularity.d/labels.json", _json(metadata.labels).decode())
        tree.file(".singularity.d/runscript", metadata.runscript, 0o755)
        tree.file(".singularity.d/startscript", _EMPTY_SCRIPT, 0o755)
        tree.folder("ch")
        tree.file("ch/environment", metadata.charliecloud)
        for name, target in _LINKS.items():
            if kind(name) in (None, "symlink"):
                tree.link(name, target)
        for path, mode in MOUNT_POINTS.items():
            if absent(path):
                tree.folder(path, mode)
        for path in MOUNTED_FILES:
            if absent(path):
                tree.file(path, "")
        _add_enroot(tree, metadata, stack, absent)
        if metadata.ours and kind("run") == "directory":
            tree.folder("run")
            for name in BUILD_ONLY:
                tree.file(f"run/.wh.{name}", "")
    return out.getvalue()


def _add_enroot(tree: _Tree, metadata: Metadata, stack: Stack, absent: Callable[[str], bool]) -> None:
    def own(path: str) -> str | None:
        """What of a person's is there; None if ours cannot be put there."""
        content = b"" if absent(path) else stack.read(path, _OWN_LIMIT)
        return None if content is None else content.decode(errors="surrogateescape")

    if (text := own("etc/environment")) is not None:
        tree.file("etc/environment", enroot.environment_file(metadata.variables, text)[0])
    # Where there is no folder enroot would make one that nobody may enter.
    volumes = [path for path in metadata.volumes if stack.kind(path.strip("/")) == "directory"]
    if (text := own("etc/fstab")) is not None and (volumes or enroot.is_ours(text)):
        tree.file("etc/fstab", enroot.fstab(volumes, text))
    if absent("etc/rc") or enroot.is_ours(own("etc/rc") or ""):
        tree.file("etc/rc", enroot.rc(metadata.workdir, RUNSCRIPT, local=absent("etc/rc.local")), 0o755)


class _Tree:
    """Adds to a tar what root owns."""

    def __init__(self, tar: tarfile.TarFile, timestamp: int) -> None:
        self._tar = tar
        self._timestamp = timestamp

    def folder(self, path: str, mode: int = 0o755) -> None:
        self._add(path, mode, tarfile.DIRTYPE)

    def file(self, path: str, text: str, mode: int = 0o644) -> None:
        self._add(path, mode, tarfile.REGTYPE, text.encode(errors="surrogateescape"))

    def link(self, path: str, target: str) -> None:
        self._add(path, 0o777, tarfile.SYMTYPE, target=target)

    def _add(self, path: str, mode: int, kind: bytes, content: bytes = b"", target: str = "") -> None:
        member = tarfile.TarInfo(path)
        member.type, member.mode, member.linkname = kind, mode, target
        member.size, member.mtime = len(content), self._timestamp
        self._tar.addfile(member, io.BytesIO(content))


def _json(value: object) -> bytes:
    return (json.dumps(value, indent=1, sort_keys=True) + "\n").encode("ascii")
