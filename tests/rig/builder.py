"""An ordinary user who builds images with podman and buildah, as Debian packages them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from . import fuse, packages
from .process import RigError
from .user import User

PACKAGES = ("buildah", "podman", "runc", "uidmap")
# Only where the kernel mounts no overlay for ordinary users.
FUSE_PACKAGES = ("fuse-overlayfs", "fuse3")

# Debian 12's crun refuses version 1 of control groups beside a version 2, runc does not.
_CONTAINERS = """\
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
"""
_TRY_OVERLAY = """
set -eu
cd "$HOME"
rm -rf .overlay
mkdir -p .overlay/lower .overlay/upper .overlay/work .overlay/merged
mount -t overlay overlay -o lowerdir=.overlay/lower,upperdir=.overlay/upper,workdir=.overlay/work,userxattr \
    .overlay/merged
"""


class Builder(User):
    """An ordinary user with podman and buildah, whose images outlive the session.

    Args:
        folder: The rig's state folder.

    Raises:
        RigError: not root, or no user namespace can be made.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, keeps=True)
        # Short, whatever the state folder is: podman's own clean-up after a container refuses a --runroot of more than
        # 50 characters (cmd/podman/root.go), and whoever ran the container waits 20 seconds for nothing.
        self._runtime = Path("/run/hpcbinder-rig") / str(self.uid)
        try:
            packages.ensure(PACKAGES)
            shutil.rmtree(self._runtime, ignore_errors=True)
            self._runtime.parent.mkdir(mode=0o755, exist_ok=True)
            self._runtime.mkdir(mode=0o700)
            self._config = self.home / ".config" / "containers"
            self.run(["mkdir", "-p", self._config])
            self.own(self._runtime)
            done = self.run(["buildah", "unshare", "true"], check=False)
            if done.returncode != 0:
                raise RigError(f"no user namespace for an ordinary user: {done.stderr.strip()[-500:]}")
            self._put("containers.conf", _CONTAINERS)
            storage = self._storage()
            self._put("storage.conf", storage)
            self._forget_other_mounts("mount_program" in storage)
            # podman's record of containers names the folder in /run, and allows no other.
            (self.storage / "libpod" / "bolt_state.db").unlink(missing_ok=True)
            # Of a session that was killed; no test's.
            self.run(["sh", "-c", "podman ps --all --external --quiet | xargs --no-run-if-empty podman rm --force"])
        except BaseException:
            self.close()
            raise

    @property
    def storage(self) -> Path:
        """Where podman and buildah keep images (graphRoot)."""
        return self.home / ".local" / "share" / "containers" / "storage"

    def close(self) -> None:
        super().close()
        shutil.rmtree(self._runtime, ignore_errors=True)

    def environment(self, env: Mapping[str, str] | None = None) -> dict[str, str]:
        return super().environment({"XDG_RUNTIME_DIR": str(self._runtime), **(env or {})})

    def _put(self, name: str, text: str) -> None:
        file = self._config / name
        file.write_text(text)
        self.own(file)

    def _forget_other_mounts(self, by_program: bool) -> None:
        """Begin anew where images were once mounted by the other of kernel and fuse-overlayfs.

        containers/storage remembers a mount program for ever (`.has-mount-program`, drivers/overlay/overlay.go), and
        then lists a layer's files sorted by whole paths, no longer folder by folder as Docker does: not the same bytes.
        """
        overlay = self.storage / "overlay"
        if overlay.exists() and (overlay / ".has-mount-program").exists() != by_program:
            self.run(["buildah", "unshare", "rm", "-rf", self.storage])

    def _storage(self) -> str:
        """storage.conf(5): the kernel's overlay, else fuse-overlayfs, else copies; `HPCBINDER_RIG_STORAGE` chooses."""
        wish = os.environ.get("HPCBINDER_RIG_STORAGE", "")
        native = self.run(["buildah", "unshare", "sh", "-c", _TRY_OVERLAY], check=False).returncode == 0
        self.run(["buildah", "unshare", "rm", "-rf", self.home / ".overlay"])
        if wish in ("", "overlay2") and native:
            return '[storage]\ndriver = "overlay"\n'
        if wish in ("", "overlay2", "fuse-overlayfs"):
            packages.ensure(FUSE_PACKAGES)
            fuse.ensure()
            program = shutil.which("fuse-overlayfs")
            return f'[storage]\ndriver = "overlay"\n[storage.options.overlay]\nmount_program = "{program}"\n'
        return '[storage]\ndriver = "vfs"\n'
