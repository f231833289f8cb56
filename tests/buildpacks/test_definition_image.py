"""A definition file of Apptainer, brought onto our base and built: its files, its %post and its variables are there."""

from __future__ import annotations

import json
import subprocess

import pytest

from images import Line

pytestmark = [pytest.mark.rig, pytest.mark.heavy]


def test_the_sections_of_a_definition_are_in_the_image(line: Line) -> None:
    built = line.build(line.repository("lang-apptainer"), "--format", "squashfs")
    program = (
        "hello; cat /opt/tool/made /opt/tool/data.txt; echo $LD_LIBRARY_PATH; cat /opt/hpcbinder/packages/python.json"
    )
    argv = ["docker", "run", "--rm", "--network", "none", "--read-only", "--user", "4242", built["image"]["name"]]
    done = subprocess.run(
        [*argv, "sh", "-c", program], env=line.environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    hello, made, data, libraries, *packages = done.stdout.splitlines()
    assert [hello, made, data, libraries] == ["hello from /opt/tool", "made", "data", "/opt/tool/lib"]
    assert "ipykernel" in {package["name"] for package in json.loads("".join(packages))}
