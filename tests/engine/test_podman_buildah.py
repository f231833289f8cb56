"""podman and buildah, as an ordinary user has them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from hpcbinder.bases import BaseImage
from rig import Builder

PROMISES = Path(__file__).with_name("containers_promises.py")


@pytest.mark.parametrize("name", ["buildah", "podman"])
def test_what_an_engine_promises(builder: Builder, base: BaseImage, name: str) -> None:
    """Each test of containers_promises.py; which one failed stands in the output."""
    # One process, whatever we are; and a folder that is this user's, whoever was here before.
    command = [sys.executable, "-B", "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "--tb=short"]
    command += [f"--basetemp={builder.home}/promises", PROMISES]
    env = {"HPCBINDER_TEST_ENGINE": name, "HPCBINDER_TEST_BASE": str(base.archive)}
    builder.run(command, env=env, cwd=PROMISES.parent.parent.parent, timeout=600)
