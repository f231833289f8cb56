"""Link scripts: what a package wants to have run when it is installed (docs.conda.io, "Adding pre-link, post-link, and
pre-unlink scripts").

Nothing is run here. A script is left out if each of its lines does what no image needs; any other has to be run.
"""

from __future__ import annotations

import re

from hpcbinder.model import LockedPackage

_PREFIX = r"\$\{?PREFIX\}?"
_END = (
    rf"(\s*(>>?\s*(\"?{_PREFIX}/\.messages\.txt\"?|\"?{_PREFIX}\"/\.messages\.txt|/dev/null)"
    r"|2>&1|&>\s*/dev/null|2>\s*/dev/null|\|\|\s*(true|:)|;))*\s*"
)
_WORD = r"('[^'`$]*'|\"([^\"`$\\]|\$\{?\w+\}?)*\"|[\w.,:!/-]+)"
_CACHES = "fc-cache|gtk-update-icon-cache|update-desktop-database"
_HARMLESS = tuple(
    re.compile(pattern + _END)
    for pattern in (
        r"",
        r"(set\s+[-+][a-z]+(\s+[a-z]+)?|true|:|exit\s+0)",
        # Messages: for a person who installs.
        rf"(echo|printf)(\s+{_WORD})*",
        # A cache of fonts or icons, which programs make for themselves where there is none.
        rf"\"?({_PREFIX}/bin/)?({_CACHES})\"?(\s+(-[a-z-]+|\"?{_PREFIX}[\w./-]*\"?))*",
        # Of the classic notebook, which no image has.
        rf"\"?({_PREFIX}/bin/)?jupyter[ -]nbextension\"?\s+(install|enable)(\s+[\w./=-]+)*",
    )
)
_LARGEST = 64 << 10


def link_scripts(package: LockedPackage) -> tuple[str, ...]:
    """Where a package's scripts would be, below the prefix."""
    return tuple(f"bin/.{package.name}-{when}-link.sh" for when in ("pre", "post"))


def harmless(script: bytes) -> bool:
    """Whether an image without what a script does is the same to all who use it."""
    if len(script) > _LARGEST:
        return False
    try:
        lines = script.decode("utf-8").splitlines()
    except UnicodeDecodeError:
        return False
    # Lines are looked at one by one: what goes on in the next one is not known to be anything.
    return all(line.lstrip().startswith("#") or any(p.fullmatch(line.strip()) for p in _HARMLESS) for line in lines)
