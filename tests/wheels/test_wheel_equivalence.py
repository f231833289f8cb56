"""Merged layers of real packages against what uv installs at the same prefix."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from installed_tree import PYTHON, Tree, differences, uv_install

from hpcbinder.config import load
from hpcbinder.lock import Resolver
from hpcbinder.model import Wanted
from hpcbinder.progress import Silent
from hpcbinder.squashfs import Options, merge
from hpcbinder.wheels import Target, WheelStore

# With C libraries beside the modules, data under share/ and etc/, commands, C headers, executable files.
PACKAGES = (
    "numpy",
    "contourpy",
    "greenlet",
    "jinja2",
    "jupyter-client",
    "jupyterlab-widgets",
    "nbformat",
    "pyyaml",
    "rich",
)


def test_a_real_environment_is_as_uv_installs_it(tmp_path: Path) -> None:
    site = load(user_file=Path("/nonexistent"), site_file=Path("/nonexistent")).site
    wanted = Wanted(
        ecosystem="pypi",
        requirements=PACKAGES,
        constraints=(),
        elsewhere=(),
        prereleases=False,
        python=PYTHON,
        architecture="amd64",
        suite="bookworm",
        source="",
    )
    lock = Resolver(tmp_path, site, refresh=False, reporter=Silent())(wanted)
    assert len(lock.packages) > 12
    prefix = tmp_path / "env"
    target = Target(str(prefix), PYTHON, f"{prefix}/bin/python", "amd64", lock.platform)
    store = WheelStore(tmp_path / "wheels", site, Options(level=1), Silent())
    layers = store.layers(lock, target, scratch=tmp_path)
    assert len(layers) == len(lock.packages)
    image = tmp_path / "merged.squashfs"
    with image.open("w+b") as file:
        merge(layers, file)
    theirs, _ = uv_install(lock, prefix, site, tmp_path / "cache")
    ours = Tree.of_image(image, str(prefix))
    assert len(ours.files) > 2000
    assert any(name.endswith(".pyc") for name in ours.files)
    assert differences(ours, theirs) == []
    # What pip thinks of it: our files in the place of uv's.
    for name, (mode, content) in ours.files.items():
        (prefix / name).write_bytes(content)
        (prefix / name).chmod(mode)
    checked = subprocess.run(
        [sys.executable, "-m", "pip", "--python", prefix / "bin/python", "check"], capture_output=True, text=True
    )
    assert checked.stdout == "No broken requirements found.\n"
    ran = subprocess.run([prefix / "bin/jupyter-kernelspec", "--version"], capture_output=True, text=True)
    assert ran.stdout.strip() == next(package.version for package in lock.packages if package.name == "jupyter-client")
