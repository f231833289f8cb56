"""Explicit lists (docs.conda.io, "Building identical conda environments"): `@EXPLICIT`, then a URL on each line, with
the MD5 or SHA-256 of the package behind `#`."""

from __future__ import annotations

import re

from hpcbinder.plan import DetectError, Repo, show

_MARK = "@EXPLICIT"
_LINE = re.compile(
    r"(?P<url>https?://[^\s#@]+/[a-z0-9-]+/[^/\s#]+-[^/\s#-]+-[^/\s#-]+(\.conda|\.tar\.bz2))"
    r"(#(?P<hash>(sha256:)?[0-9a-f]{64}|[0-9a-f]{32}))?"
)


def read_explicit(repo: Repo, path: str) -> list[str]:
    """The packages of an explicit list, `URL#HASH`.

    Raises:
        DetectError: It is none, with file and line.
    """
    found: list[str] = []
    begun = False
    for number, line in enumerate(repo.read_text(path, utf16=True).split("\n"), start=1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        if text == _MARK:
            begun = True
            continue
        match = _LINE.fullmatch(text)
        if not begun or match is None:
            what = "is no package's address with its hash" if begun else f"comes before {_MARK}"
            raise DetectError(f"'{show(text[:100])}' {what}", where=f"{show(path)}:{number}")
        if match["hash"] is None:
            raise DetectError(
                "a package without a hash", where=f"{show(path)}:{number}", hint="conda list --explicit --md5 has them"
            )
        found.append(f"{match['url']}#{match['hash'].removeprefix('sha256:')}")
    if not begun or not found:
        raise DetectError(f"lists no packages after {_MARK}", where=show(path))
    return found
