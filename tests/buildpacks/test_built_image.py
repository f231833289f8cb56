"""The packs' scripts, by building a repository that needs every branch of them and looking into the image."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import pytest

from images import Line


@pytest.fixture(scope="module")
def image(line: Line) -> str:
    built = line.build(line.repository("native"))
    name = built["image"]["name"]
    assert isinstance(name, str)
    return name


EXTENSIONS = """
import json
from jupyter_server.extension.config import ExtensionConfigManager
from jupyter_server.serverapp import ServerApp
manager = ExtensionConfigManager(read_config_path=ServerApp().config_file_paths)
print(json.dumps(manager.get_jpserver_extensions()))
"""
"""What the server itself does at its start (jupyter_server/serverapp.py, find_server_extensions)."""


def inside(line: Line, image: str, *command: str) -> str:
    argv = ["docker", "run", "--rm", "--network", "none", "--read-only", "--user", "4242", image, *command]
    done = subprocess.run(argv, env=line.environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def python(line: Line, image: str, program: str) -> Any:
    return json.loads(inside(line, image, "python", "-c", f"import json, sys\n{program}"))


def test_what_has_no_wheel_is_built_and_what_is_compiled_runs(line: Line, image: str) -> None:
    program = "import docopt, fast.core, tool\nprint(json.dumps([fast.core.one(), tool.DATA]))"
    assert python(line, image, program) == [1, "/srv/repo/local/tool.py"]


def test_the_record_holds_what_every_step_installed(line: Line, image: str) -> None:
    packages = python(line, image, "print(open('/opt/hpcbinder/packages/python.json').read())")
    versions = {package["name"]: package["version"] for package in packages}
    assert {"docopt", "fast", "tool", "six", "packaging", "ipykernel", "pip", "tinydb"} <= set(versions)
    assert versions["fast"] == "0.0.0"
    debian = python(line, image, "print(open('/opt/hpcbinder/packages/debian.json').read())")
    assert {"build-essential", "python3-dev"} <= {package["name"] for package in debian}


def test_post_build_ran_with_what_it_reads_and_its_files_are_readable(line: Line, image: str) -> None:
    assert inside(line, image, "cat", "/srv/repo/made.txt") == "made\n"
    assert inside(line, image, "ls", "/srv/repo").split() == [
        "local",
        "made.txt",
        "notebook.ipynb",
        "postBuild",
        "pyproject.toml",
        "requirements.txt",
        "src",
    ]


def test_post_build_of_repo2docker_found_what_it_counts_on(line: Line, image: str) -> None:
    """tests/repos/native/postBuild checks the variables and paths itself; here is what it leaves."""
    listing = inside(line, image, "sh", "-c", "ls -A /home /srv /srv/conda /srv/conda/envs; readlink /srv/conda/envs/*")
    assert "jovyan" not in listing and "/opt/env\n/opt/env\n" in listing
    packages = python(line, image, "print(open('/opt/hpcbinder/packages/python.json').read())")
    assert "iniconfig" in {package["name"] for package in packages}
    assert inside(line, image, "python", "-m", "IPython", "-c", "print(STARTED)").strip() == "by postBuild"
    folders = ("/opt/env/share/jupyter/kernels", "/opt/env/etc/jupyter/jupyter_server_config.d")
    found = inside(line, image, "find", *folders, "-mindepth", "1", "-maxdepth", "1", "-printf", "%f ")
    assert sorted(found.split()) == ["jupyter_server_terminals.json", "mine", "python3"]
    extensions = inside(line, image, "/opt/jupyter/bin/python", "-c", EXTENSIONS)
    assert json.loads(extensions)["jupyter_server_terminals"] is False


def test_every_module_has_bytecode_that_looks_at_no_time(line: Line, image: str) -> None:
    program = """
import pathlib
found = pathlib.Path("/opt/env/lib").rglob("*.pyc")
kinds = {int.from_bytes(path.read_bytes()[4:8], "little") for path in found}
print(json.dumps(sorted(kinds)))
"""
    # PEP 552: 1 is a hash that is not checked, 3 one that is (pip, in postBuild).
    assert python(line, image, program) in ([1], [1, 3])


def test_nothing_of_the_build_stays(line: Line, image: str) -> None:
    listing = inside(line, image, "sh", "-c", "ls -A /opt/env /opt/jupyter/.. /run/hpcbinder/* /tmp /var/log/apt")
    assert ".uv-cache" not in listing
    assert "run.sh" not in listing
    assert set(inside(line, image, "ls", "/var/lib/apt/lists").split()) <= {"lock", "partial", "auxfiles"}
    newer = inside(line, image, "find", "/opt/env", "/opt/hpcbinder/packages", "-newermt", "2020-01-02")
    assert newer == ""


def test_no_step_copies_what_an_earlier_one_made(line: Line, image: str) -> None:
    argv = ["docker", "history", "--no-trunc", "--human=false", "--format", "{{.Size}} {{.CreatedBy}}", image]
    done = subprocess.run(argv, env=line.environment, capture_output=True, text=True, check=True, timeout=60)
    sizes = [int(row.split()[0]) for row in done.stdout.splitlines() if "run.sh" in row]
    # Newest first: postBuild (tinydb), the project, packages (bytecode), wheels, environment, apt, server.
    assert len(sizes) == 7
    assert sizes[0] < 2_000_000
    assert sizes[1] < 1_000_000
    assert sizes[4] < 1_000_000
