"""What is known of sets of packages: which were resolved, and which were installed on a base."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hpcbinder.apt.resolving import Deb, sound
from hpcbinder.catalog import make_folder, mark_used, write_atomic
from hpcbinder.model import fingerprint

_LIMIT = 16 << 20
_IDENTITY = re.compile(r"sha256:[0-9a-f]{64}")


@dataclass(frozen=True)
class Set:
    """Packages that were installed on a base.

    Attributes:
        identity: `sha256:…` of what the layer is made of.
        packages: (name, version) of what came with it, sorted.
        made: Unix time (s).
    """

    identity: str
    packages: tuple[tuple[str, str], ...]
    made: int


class Sets:
    """Records in a folder.

    Args:
        folder: Shared by all who may use them; made if it is not there.
        below: Folders of the same kind that are only read: other stores'.
    """

    def __init__(self, folder: Path, below: Sequence[Path] = ()) -> None:
        self._folder = folder
        self._folders = (folder, *below)

    def resolved(self, wanted: str, lists: str) -> list[Deb] | None:
        """What apt said before of the same question and the same lists.

        Args:
            wanted: Fingerprint (hex) of the base and what is asked for.
            lists: `Lists.digest`.
        """
        for folder in self._folders:
            path = folder / "resolved" / f"{fingerprint([wanted, lists])}.json"
            found = _read(path)
            if isinstance(found, list):
                try:
                    debs = [Deb(**{**deb, "source": tuple(deb["source"])}) for deb in found]
                    good = all(map(sound, debs))
                except (TypeError, KeyError, ValueError):
                    continue
                if good:
                    mark_used(path)
                    return debs
        return None

    def keep_resolved(self, wanted: str, lists: str, debs: Sequence[Deb]) -> None:
        """Remember it.

        Raises:
            OSError: The folder cannot be written.
        """
        make_folder(self._folder / "resolved")
        content = json.dumps([asdict(deb) for deb in debs], indent=1).encode()
        write_atomic(self._folder / "resolved" / f"{fingerprint([wanted, lists])}.json", content)

    @property
    def empty(self) -> bool:
        """Whether nothing was installed before, on any base."""
        return not any(True for folder in self._folders for _ in (folder / "sets").glob("*.json"))

    def installed(self, wanted: str) -> list[Set]:
        """The sets that were installed for a question, the newest first."""
        found: list[Set] = []
        for folder in self._folders:
            for path in sorted((folder / "sets").glob(f"{wanted}-*.json")):
                record = _read(path)
                try:
                    packages = tuple((str(name), str(version)) for name, version in record["packages"])
                    if _IDENTITY.fullmatch(record["identity"]):
                        found.append(Set(record["identity"], packages, int(record["made"])))
                except (TypeError, KeyError, ValueError):
                    continue
        return sorted(found, key=lambda each: (-each.made, each.identity))

    def keep_installed(self, wanted: str, identity: str, debs: Sequence[Deb]) -> None:
        """Remember it, or that it is of use still.

        Raises:
            OSError: The folder cannot be written.
        """
        name = f"{wanted}-{identity.removeprefix('sha256:')}.json"
        for folder in self._folders:
            if (folder / "sets" / name).exists():
                mark_used(folder / "sets" / name)
                return
        make_folder(self._folder / "sets")
        packages = sorted((deb.name, deb.version) for deb in debs)
        content = json.dumps({"identity": identity, "packages": packages, "made": int(time.time())}, indent=1).encode()
        write_atomic(self._folder / "sets" / name, content)


def _read(path: Path) -> Any:
    try:
        if path.stat().st_size > _LIMIT:
            return None
        return json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
