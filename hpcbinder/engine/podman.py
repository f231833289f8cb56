"""podman: images and builds without a daemon."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hpcbinder.engine.containers import ContainersEngine
from hpcbinder.errors import BuildError


class PodmanEngine(ContainersEngine):
    """podman on this machine; implements `Engine`."""

    name = "podman"
    oldest = (4, 3)
    safe_mounts = (5, 4)

    def save(self, ref: str, archive: Path) -> None:
        self._run("save", "--quiet", "--format=oci-archive", f"--output={archive}", ref.removeprefix("sha256:"))

    def _info(self) -> tuple[Path, str, bool]:
        info = self._json("info", "--format=json")
        try:
            if info["host"].get("serviceIsRemote"):
                raise BuildError(
                    "podman here speaks to another machine", hint="build on a machine that has podman itself"
                )
            store, host = info["store"], info["host"]
            return Path(store["graphRoot"]), str(store["graphDriverName"]), bool(host["security"]["rootless"])
        except (KeyError, TypeError) as error:
            raise BuildError("podman does not tell where its storage is") from error

    def _inspect(self, ref: str) -> tuple[str, dict[str, Any]] | None:
        done = self._try("image", "inspect", ref)
        if done.returncode != 0:
            if self._try("image", "exists", ref).returncode == 1:
                return None
            self._run("image", "inspect", ref)
        found = json.loads(done.stdout)[0]
        oci = {
            "architecture": found.get("Architecture") or "",
            "os": found.get("Os") or "linux",
            "created": found.get("Created") or "",
            "config": {key: value for key, value in (found.get("Config") or {}).items() if value is not None},
            "rootfs": {"type": "layers", "diff_ids": (found.get("RootFS") or {}).get("Layers") or []},
        }
        return str(found["Id"]), oci

    def _load(self, archive: Path) -> None:
        self._run("load", "--quiet", f"--input={archive}")

    def _images(self) -> list[tuple[str, list[str], int, float]]:
        return [
            (str(image["Id"]), [str(n) for n in image.get("Names") or ()], int(image["Size"]), float(image["Created"]))
            for image in self._json("images", "--format=json") or ()
        ]

    def _left_over(self) -> list[tuple[str, str, str]]:
        found = []
        for container in self._json("ps", "--all", "--external", "--format=json") or ():
            names = container.get("Names") or [""]
            found.append((str(container["Id"]), str(names[0]), str(container.get("ImageID") or "")))
        return found

    def _take_away(self, container: str) -> None:
        self._run("rm", "--force", container)  # one of a killed build counts as mounted
