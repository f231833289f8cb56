"""With what squashfs images are compressed where nobody said it: what everything that mounts them here reads."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hpcbinder.config import Config
from hpcbinder.runtime.kernel import KernelSquashfs, kernel_squashfs
from hpcbinder.runtime.launch.environment import host_environment
from hpcbinder.runtime.launch.prologue import environment_after
from hpcbinder.runtime.launch.values import LaunchError
from hpcbinder.runtime.mounts import Mount, mounts
from hpcbinder.squashfs import Options

AUTO = "auto"
_WANTED, _EVERYWHERE = "zstd", "gzip"
"""What is best to read from, and what every kernel and every squashfuse reads."""
_TAKERS: Mapping[str, frozenset[str]] = {
    "sif": frozenset({"apptainer", "singularity"}),
    "shifter": frozenset({"shifter", "sarus"}),
    "podman-hpc": frozenset({"podman-hpc"}),
    "enroot": frozenset({"enroot"}),
    "charliecloud": frozenset({"charliecloud"}),
}
"""Format -> the runtimes it is for, where that is not any one."""
_BATCH = ("sbatch", "qsub", "bsub", "condor_submit")


@dataclass(frozen=True)
class Compression:
    """How layers are squashed.

    Attributes:
        options: For the writer.
        why: One sentence, for a person.
    """

    options: Options
    why: str

    @property
    def name(self) -> str:
        """Compressor and level, as `build.compression` takes them: `gzip:6`."""
        return f"{self.options.compressor}:{self.options.effective_level}"

    def record(self) -> dict[str, str]:
        """What the catalog keeps of it."""
        return {"name": self.name, "why": self.why}


def choose_compression(
    text: str, config: Config, *, formats: Sequence[str] | None = None, environ: Mapping[str, str] | None = None
) -> Compression:
    """Decide what images made here are compressed with.

    A compressor and a level that were asked for are taken. `auto` is zstd if everything that mounts images here is
    known to read it, and gzip if not, also for the format of a runtime that is not here. What a cluster's nodes have
    cannot be seen from here: their kernels may be older than this machine's, so where there is a batch system and
    kernels mount images, it is gzip. Their FUSE programs are taken to be the ones that are here.

    Args:
        text: `auto`, or what `Options.parse` reads.
        config: Which runtime counts (`runtime.name`), and the site's prologue.
        formats: That a person asked for; None for `build.formats`, if somebody set that.
        environ: The host's environment, `os.environ` when None.

    Raises:
        UsageError: No such compressor or level.
    """
    if text != AUTO:
        origin = config.origins.get("build.compression", "")
        set_there = text == config.build.compression and origin not in ("", "default", "flag")
        return Compression(Options.parse(text), f"asked for: {origin}" if set_there else "asked for")
    try:
        after = environment_after(config.runtime.prologue, host_environment(os.environ if environ is None else environ))
    except LaunchError as error:
        return _gzip(str(error))
    found = mounts(config.runtime.name, after)
    if not found:
        return _gzip("no runtime that mounts images is here to be asked")
    if formats is None:
        formats = () if config.origins.get("build.formats", "default") == "default" else config.build.formats
    here = {mount.runtime for mount in found}
    for form in formats:
        if _TAKERS.get(form, here).isdisjoint(here):
            return _gzip(f"no runtime that takes {form} is here to be asked")
    if doubt := _doubt(found, kernel_squashfs(), after):
        return _gzip(doubt)
    return Compression(Options(_WANTED), f"{_names(found)} read{'s' if len(found) == 1 else ''} it here")


def _gzip(doubt: str) -> Compression:
    return Compression(Options(_EVERYWHERE), f"everything reads it; {doubt}")


def _doubt(found: Sequence[Mount], kernel: KernelSquashfs, environ: Mapping[str, str]) -> str:
    """Why something here may not read zstd; "" if all does."""
    for mount in found:
        if mount.kernel:
            if kernel.compressors is None:
                return (
                    f"{mount.runtime} mounts with the kernel, and what Linux {kernel.release} reads is not to be seen"
                )
            if _WANTED not in kernel.compressors:
                return f"{mount.runtime} mounts with the kernel, and Linux {kernel.release} has no {_WANTED}"
            batch = next((name for name in _BATCH if shutil.which(name, path=environ.get("PATH", os.defpath))), None)
            if batch is not None:
                return f"{mount.runtime} mounts with the kernel, and those of {batch}'s nodes are not to be seen"
        elif not mount.program:
            return f"{mount.runtime} has no squashfuse here to be asked"
        elif mount.compressors is None:
            return f"{mount.program} of {mount.runtime} does not say what it reads"
        elif _WANTED not in mount.compressors:
            return f"{mount.program} of {mount.runtime} has no {_WANTED}"
    return ""


def _names(found: Sequence[Mount]) -> str:
    *most, last = (mount.runtime for mount in found)
    return f"{', '.join(most)} and {last}" if most else last
