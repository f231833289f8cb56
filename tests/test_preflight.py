"""The demo's preflight says what a machine cannot do before anything starts."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="makes namespaces in which the machine lacks something")


def preflight(around: str = 'exec "$@"', cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """Run it in a mount namespace that `around` (shell) prepares."""
    command = ["unshare", "--mount", "sh", "-euc", around, "sh", "/bin/sh", "scripts/preflight"]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True)


@needs_root
@pytest.mark.rig
def test_a_machine_that_can_is_told_nothing() -> None:
    done = preflight()
    assert (done.returncode, done.stderr) == (0, "")


@needs_root
@pytest.mark.rig
def test_no_fuse() -> None:
    done = preflight('mount -t tmpfs none /dev; mknod -m 666 /dev/null c 1 3; exec "$@"')
    assert done.returncode == 1
    assert "/dev/fuse" in done.stderr


@needs_root
@pytest.mark.rig
def test_no_user_namespaces() -> None:
    # The kernel refuses them to ordinary users below a chroot.
    done = preflight('mount --bind / /mnt; exec chroot /mnt sh -c \'cd "$0"; exec "$@"\' "$PWD" "$@"')
    assert done.returncode == 1
    assert "user namespaces" in done.stderr


@needs_root
@pytest.mark.rig
def test_a_checkout_that_others_cannot_read(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    shutil.copytree(ROOT / "scripts", closed / "scripts")
    (closed / "pyproject.toml").write_text("")
    closed.chmod(0o700)
    done = preflight(cwd=closed)
    assert done.returncode == 1
    assert "cannot read this checkout" in done.stderr
    assert "/srv" in done.stderr
