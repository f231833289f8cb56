"""Images from repositories with lock files, for real: exactly the locked versions are in them."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from images import Line

REPOS = Path(__file__).parents[1] / "plan/repos"

LOCKED = {
    "uv": {"attrs": "23.2.0", "docopt": "0.6.2", "iniconfig": "2.3.1", "six": "1.17.0", "hum": "0.1"},
    "poetry": {"attrs": "23.2.0", "docopt": "0.6.2", "toml": "0.10.2", "six": "1.17.0"},
    "pipenv": {"attrs": "23.2.0", "docopt": "0.6.2", "iniconfig": "2.3.1", "six": "1.17.0"},
}
ALL = {"attrs", "docopt", "iniconfig", "six", "toml", "hum", "zipp", "colorama", "numpy"}
"""What any of them names. docopt has no wheel; colorama is for Windows; zipp is an extra, numpy a file that does not
count."""


@pytest.mark.rig
@pytest.mark.heavy
@pytest.mark.parametrize("tool", LOCKED)
def test_an_image_has_just_what_the_lock_says(line: Line, tool: str) -> None:
    def fill(folder: Path) -> None:
        shutil.copytree(REPOS / tool / "repo", folder, dirs_exist_ok=True)
        # On the base that the other tests have.
        (folder / ".python-version").unlink(missing_ok=True)

    source = line.repository(f"lock-{tool}", fill, of="plain")
    built = line.build(source, "--no-register", "--format", "squashfs")
    record = json.loads(line.hpcbinder("show", built["id"], "--json").stdout)
    said = {package["name"]: package["version"] for package in record["packages"]["python"]}
    assert {name: version for name, version in said.items() if name in ALL} == LOCKED[tool]
    assert record["locks"][0]["unresolved"] == ["docopt"]

    program = (
        "import importlib.metadata as m; print({d.metadata['Name'].lower(): d.version for d in m.distributions()})"
    )
    argv = ["docker", "run", "--rm", "--network=none", "--entrypoint=/opt/env/bin/python", record["image"]["name"]]
    done = subprocess.run([*argv, "-c", program], env=line.environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    there = json.loads(done.stdout.replace("'", '"'))
    assert {name: version for name, version in there.items() if name in ALL} == LOCKED[tool]
    assert {"ipykernel", "pip"} <= there.keys()
