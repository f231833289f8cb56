"""renv.lock: the exact versions of an R project's packages (rstudio.github.io/renv, "Lockfile")."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from hpcbinder.plan import DetectError, Repo, show

from .debian import BASE

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9.]*\Z")
_VERSION = re.compile(r"[0-9]+([.-][0-9]+)*\Z")


@dataclass(frozen=True)
class Renv:
    """What counts of a renv.lock.

    Attributes:
        r: Version of R, "" if it does not say.
        packages: Name -> exact version.
        bioconductor: Those of them that are Bioconductor's.
        where: Name -> `file:line`.
    """

    r: str
    packages: Mapping[str, str]
    bioconductor: frozenset[str]
    where: Callable[[str], str]


def read_renv(repo: Repo, path: str) -> Renv:
    """Read a renv.lock.

    Raises:
        DetectError: Malformed, or it names a package that comes from neither CRAN nor Bioconductor.
    """
    text = repo.read_text(path)
    try:
        content = json.loads(text)
        r = str(content.get("R", {}).get("Version", ""))
        records = dict(content.get("Packages", {}))
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        line = getattr(error, "lineno", 1)
        raise DetectError(
            "is no lock of renv", where=f"{show(path)}:{line}", hint="renv::snapshot() writes one"
        ) from None

    def at(name: str) -> str:
        return f"{show(path)}:{text[: max(text.find(json.dumps(name)), 0)].count(chr(10)) + 1}"

    found, bioconductor = {}, set()
    for name, record in records.items():
        version = record.get("Version") if isinstance(record, dict) else None
        if not _NAME.match(name) or not isinstance(version, str) or not _VERSION.match(version):
            raise DetectError(
                f"'{show(str(name)[:80])}' has no version", where=at(name), hint="renv::snapshot() writes it"
            )
        source = str(record.get("Source", "Repository"))
        if source == "Bioconductor":
            bioconductor.add(name)
        elif source not in ("Repository", "CRAN"):
            raise DetectError(
                f"{name} comes from {show(source)}, which is not supported",
                where=at(name),
                hint="install it in install.R (remotes::install_github and the like), and take it out of the lock",
            )
        if name not in BASE:
            found[name] = version
    return Renv(r if _VERSION.match(r) else "", found, frozenset(bioconductor), at)
