"""Debian's Lmod and Environment Modules, side by side: as packages they exclude each other, so nothing is installed."""

from __future__ import annotations

from pathlib import Path

from . import packages
from .process import locked

PACKAGES = ("bash", "lua-filesystem", "lua-json", "lua-posix", "lua-term", "lua5.3", "tcl")
"""What they run on."""


def module_programs(folder: Path) -> dict[str, str]:
    """Both programs.

    Args:
        folder: The rig's state folder.

    Returns:
        Lines of bash that make `module` a command: of `lmod`, and of `environment-modules`.

    Raises:
        RigError: A package cannot be had.
    """
    packages.ensure(PACKAGES)
    place = folder / "modules"
    place.mkdir(mode=0o755, exist_ok=True)
    with locked(place / "lock"):
        for name in ("lmod", "environment-modules"):
            if not (place / name).exists():
                partial = place / f".{name}"
                packages.unpack(name, partial)
                partial.rename(place / name)
    lmod = place / "lmod/usr/share/lmod/lmod"
    (tcl,) = (place / "environment-modules/usr/lib").glob("*/modulecmd.tcl")
    return {
        "lmod": (
            f"export LMOD_PKG={lmod} LMOD_DIR={lmod}/libexec LMOD_CMD={lmod}/libexec/lmod LMOD_PAGER=none\n"
            f'module() {{ eval "$({lmod}/libexec/lmod bash "$@")"; }}\n'
        ),
        "environment-modules": f'module() {{ eval "$(tclsh {tcl} bash "$@")"; }}\n',
    }
