"""A repository with an environment.yml, solved in a real channel and assembled: it runs in Apptainer."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from base_layer import base_layer
from condamaker import PLACEHOLDER, X_Y, Link, package, python_package, serving

from images import REPOS
from rig import Apptainer, Rig, RigError, User

EXECUTE = """
import sys, nbformat
from nbclient import NotebookClient
notebook = nbformat.read(sys.argv[1], as_version=4)
NotebookClient(notebook, kernel_name=sys.argv[2], timeout=240).execute()
print("".join(output.text for output in notebook.cells[0].outputs), end="")
"""

NATIVE = package(
    "native",
    "2.1",
    {
        "bin/tool": f'#!{PLACEHOLDER}/bin/python\nimport sys\nprint("{PLACEHOLDER}", sys.executable)\n',
        "lib/libnative.so.2": b"\x7fELF\0" + PLACEHOLDER.encode() + b"/share\0tail",
        "lib/libnative.so": Link("libnative.so.2"),
        "etc/conda/activate.d/native.sh": (
            f'echo loud; [[ -n $CONDA_PREFIX ]] && export NATIVE_HOME="{PLACEHOLDER}/share"\n'
        ),
        "bin/.native-post-link.sh": '#!/bin/bash\necho "$PKG_NAME $PKG_VERSION" > "$PREFIX/share/linked"\n',
        "share/native/data.txt": "data\n",
    },
    prefixes={"bin/tool": "text", "lib/libnative.so.2": "binary", "etc/conda/activate.d/native.sh": "text"},
    executable=["bin/tool"],
)
GREETER = package(
    "greeter",
    "1.2",
    {
        "site-packages/greeter/__init__.py": (
            'def greeting():\n    return "hi"\n\n\ndef main():\n    print(greeting())\n'
        ),
        "python-scripts/shout": "#!/bin/sh\necho HI\n",
    },
    build="py_0",
    noarch="python",
    depends=["python", "native >=2"],
    entry_points=["greet = greeter:main"],
    executable=["python-scripts/shout"],
)


@dataclass(frozen=True)
class CondaImage:
    """An image that an ordinary user assembled, with what was printed."""

    folder: Path
    user: User
    variables: dict[str, str]
    source: str
    built: dict[str, Any]
    said: str

    def hpcbinder(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        words = [f"{name}={value}" for name, value in self.variables.items()]
        command = ["/usr/bin/env", "--ignore-environment", *words, sys.executable, "-B", "-m", "hpcbinder", *arguments]
        done = subprocess.run(
            self.user.command(command), cwd=self.folder, capture_output=True, text=True, timeout=600, check=False
        )
        if check and done.returncode:
            pytest.fail(f"{' '.join(arguments)}: exit {done.returncode}\n{done.stderr[-6000:]}")
        return done

    def inside(self, program: str, *argv: str) -> str:
        """What a command in the image prints."""
        start = [program, "-s", "exec", self.built["formats"]["squashfs"]]
        return self.user.run([*start, *argv], network=False).stdout


@pytest.fixture(scope="module")
def conda_image(rig: Rig, apptainer: Apptainer) -> Iterator[CondaImage]:
    try:
        ordinary = rig.user
    except RigError as error:
        pytest.skip(f"rig: {error}")
    layer = base_layer(rig)
    folder = Path(tempfile.mkdtemp(prefix="conda-", dir=rig.folder))
    folder.chmod(0o755)
    site = folder / "site"
    site.mkdir()
    (site / "bases").symlink_to(rig.folder / "bases")
    (site / "layers").symlink_to(layer.parent)
    (site / "version").write_text("1")
    for name in ("store", "jupyter", "cache"):
        (folder / name).mkdir()
        os.chown(folder / name, ordinary.uid, ordinary.uid)
    source = folder / "work"
    shutil.copytree(REPOS / "conda", source)
    try:
        with serving(folder / "channel") as channel:
            channel.add(python_package(), NATIVE, GREETER)
            given = {
                name: value
                for name, value in os.environ.items()
                if name in ("PIP_INDEX_URL", "UV_INDEX_URL", "SSL_CERT_FILE") or name.lower().endswith("_proxy")
            }
            given |= {
                "HPCBINDER_CONDA_SERVER": channel.url.removesuffix("/testing"),
                "HPCBINDER_STORE_PATH": str(folder / "store"),
                "HPCBINDER_STORE_SITE": str(site),
                "HPCBINDER_BUILD_COMPRESSION": "lz4",
                "HPCBINDER_BUILD_FORMATS": "squashfs",
                "XDG_CACHE_HOME": str(folder / "cache"),
                "PATH": f"{apptainer.bin}:/usr/bin:/bin",
            }
            image = CondaImage(folder, ordinary, ordinary.environment(given), str(source), {}, "")
            words = ("--engine", "none", "--runtime", "apptainer", "--prefix", str(folder / "jupyter"), "--json")
            done = image.hpcbinder("build", str(source), *words)
            yield replace(image, built=json.loads(done.stdout), said=done.stderr)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def test_its_kernel_runs_a_notebook(conda_image: CondaImage, user: User, apptainer: Apptainer) -> None:
    path = f"{conda_image.folder}/jupyter/share/jupyter"
    env = {"JUPYTER_PATH": path, "PATH": f"{apptainer.bin}:/usr/bin:/bin"}
    (kernel,) = conda_image.built["kernels"]
    command = [sys.executable, "-c", EXECUTE, f"{conda_image.source}/notebook.ipynb", kernel["name"]]
    said = user.run(command, env=env, network=False).stdout
    cached = f"/opt/env/lib/python{X_Y}/site-packages/greeter/__pycache__/__init__.cpython-{X_Y.replace('.', '')}.pyc"
    assert said == f"hi 1.17.0 hello /opt/env/share /opt/env {cached}\n"


def test_its_programs_run(conda_image: CondaImage, apptainer: Apptainer) -> None:
    assert conda_image.inside(apptainer.path, "greet") == "hi\n"
    assert conda_image.inside(apptainer.path, "shout") == "HI\n"
    assert conda_image.inside(apptainer.path, "tool") == "/opt/env /opt/env/bin/python\n"
    # A link script that does what an image needs was run.
    assert conda_image.inside(apptainer.path, "cat", "/opt/env/share/linked") == "native 2.1\n"
    listed = json.loads(conda_image.inside(apptainer.path, "cat", "/opt/hpcbinder/packages/conda.json"))
    assert [each["name"] for each in listed] == ["greeter", "native", "python"]
    assert "six" in conda_image.inside(apptainer.path, "python", "-m", "pip", "list")
    assert "python3 " in conda_image.inside(apptainer.path, "/opt/jupyter/bin/jupyter", "kernelspec", "list")


def test_the_plan_says_what_it_is_made_of(conda_image: CondaImage) -> None:
    planned = json.loads(conda_image.hpcbinder("plan", conda_image.source, "--json").stdout)
    assert planned["id"] == conda_image.built["id"]
    conda, pypi = planned["locks"]
    assert (conda["ecosystem"], conda["python"]) == ("conda", X_Y)
    assert conda["layers"] == [["python", "native", "greeter"]]
    native = next(each for each in conda["packages"] if each["name"] == "native")
    assert (native["version"], native["build"], native["size"]) == ("2.1", "0", len(NATIVE.content))
    assert native["hashes"] == [f"sha256:{NATIVE.sha256}"]
    assert native["url"].endswith("/testing/linux-64/native-2.1-0.conda")
    assert "six" in {each["name"] for each in pypi["packages"]}
    words = conda_image.hpcbinder("plan", conda_image.source).stdout
    assert "channel defaults is left out: Anaconda's terms" in words


def test_packages_that_were_seen_are_squashed_no_more(conda_image: CondaImage) -> None:
    """And no engine is asked, though one is named: there is nothing that it could do."""
    words = ("--engine", "docker", "--no-register", "--rebuild")
    again = conda_image.hpcbinder("build", conda_image.source, *words)
    assert "3 conda packages: 3 squashed now, 0 there already" in conda_image.said
    assert "3 conda packages: 0 squashed now, 3 there already" in again.stderr
    assert "no engine is needed" in again.stderr
    assert "link scripts of native" in conda_image.said
    assert "link scripts" not in again.stderr
