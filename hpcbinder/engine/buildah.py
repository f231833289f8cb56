"""buildah: builds without a daemon, and nothing else."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hpcbinder.engine.containers import ContainersEngine
from hpcbinder.errors import BuildError

_UNITS = {"B": 1, "kB": 1e3, "KB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12}


class BuildahEngine(ContainersEngine):
    """buildah on this machine; implements `Engine`."""

    name = "buildah"
    oldest = (1, 28)
    safe_mounts = (1, 39)

    def save(self, ref: str, archive: Path) -> None:
        with _without_colon(archive) as path:
            self._run("push", "--quiet", ref.removeprefix("sha256:"), f"oci-archive:{path}")

    def _info(self) -> tuple[Path, str, bool]:
        info = self._json("info")
        try:
            store = info["store"]
            return Path(store["GraphRoot"]), str(store["GraphDriverName"]), bool(info["host"]["rootless"])
        except (KeyError, TypeError) as error:
            raise BuildError("buildah does not tell where its storage is") from error

    def _inspect(self, ref: str) -> tuple[str, dict[str, Any]] | None:
        done = self._try("inspect", "--type=image", ref)
        if done.returncode != 0:
            if re.search(r"not known|no such image|does not resolve", done.stderr):
                return None
            self._run("inspect", "--type=image", ref)
        found = json.loads(done.stdout)
        return str(found["FromImageID"]), found["OCIv1"]

    def _load(self, archive: Path) -> None:
        with _without_colon(archive) as path:
            self._run("pull", "--quiet", f"docker-archive:{path}")

    def _images(self) -> list[tuple[str, list[str], int, float]]:
        return [
            (
                str(image["id"]),
                [str(n) for n in image.get("names") or ()],
                _bytes(image["size"]),
                float(image["created"]),
            )
            for image in self._json("images", "--json", "--no-trunc") or ()
        ]

    def _left_over(self) -> list[tuple[str, str, str]]:
        return [
            (str(container["id"]), str(container.get("containername") or ""), str(container.get("imageid") or ""))
            for container in self._json("containers", "--json") or ()
        ]

    def _take_away(self, container: str) -> None:
        self._run("rm", container)


@contextmanager
def _without_colon(archive: Path) -> Iterator[Path]:
    """Another path to a file: what names an archive to buildah ends at a colon."""
    with tempfile.TemporaryDirectory(prefix="hpcbinder-") as name:
        folder = Path(name) / "folder"
        folder.symlink_to(archive.parent.absolute())
        yield folder / archive.name


def _bytes(size: str) -> int:
    """Of `216 MB` (go-units, HumanSize), as buildah writes sizes."""
    match = re.fullmatch(r"([0-9.]+) ?([kKMGT]?B)", str(size))
    return int(float(match[1]) * _UNITS[match[2]]) if match else 0
