"""A repository with an environment.yml, solved in a real channel and assembled: it runs in Apptainer."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from base_layer import base_layer
from condamaker import PLACEHOLDER, X_Y, Link, package, python_package, serving

from hpcbinder.contract import EPOCH
from hpcbinder.squashfs import Image
from images import REPOS
from rig import Apptainer, Builder, Rig, RigError, User

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
# Stands for R, which no test can have of conda's: what counts is that its kernel is found and started.
R = package(
    "r-base",
    "4.3.3",
    {"lib/R/bin/R": '#!/bin/sh\nexec /opt/env/bin/python -m ipykernel_launcher -f "$5"\n'},
    executable=["lib/R/bin/R"],
)
R_KERNEL = package(
    "r-irkernel",
    "1.3.2",
    {
        "share/jupyter/kernels/ir/kernel.json": json.dumps(
            {
                "argv": [
                    f"{PLACEHOLDER}/lib/R/bin/R",
                    "--slave",
                    "-e",
                    "IRkernel::main()",
                    "--args",
                    "{connection_file}",
                ],
                "display_name": "R",
                "language": "R",
            }
        )
    },
    prefixes={"share/jupyter/kernels/ir/kernel.json": "text"},
    depends=["r-base"],
)

R_NOTEBOOK = json.dumps(
    {
        "cells": [
            {
                "cell_type": "code",
                "id": "a",
                "metadata": {},
                "outputs": [],
                "execution_count": None,
                "source": "print('as R')",
            }
        ],
        "metadata": {},
        "nbformat": 4,
        "nbformat_minor": 5,
    }
)
TRANSLATED = f"""
channels: [conda-forge]
dependencies:
  - python={X_Y}
  - msgpack-python=1.1
  - iniconfig>=2
  - nomkl
  - pip
"""


@dataclass(frozen=True)
class CondaImage:
    """An image that an ordinary user assembled, with what was printed."""

    folder: Path
    user: User
    variables: dict[str, str]
    source: str
    built: dict[str, Any]
    said: str

    def hpcbinder(
        self, *arguments: str, check: bool = True, variables: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        words = [f"{name}={value}" for name, value in {**self.variables, **(variables or {})}.items()]
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
    (source / "r.ipynb").write_text(R_NOTEBOOK)
    environment = source / "environment.yml"
    environment.write_text(environment.read_text().replace("- greeter=1\n", "- greeter=1\n  - r-base\n"))
    try:
        with serving(folder / "channel") as channel:
            channel.add(python_package(), NATIVE, GREETER, R, R_KERNEL)
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
    kernel = next(each for each in conda_image.built["kernels"] if each["language"] == "python")
    command = [sys.executable, "-c", EXECUTE, f"{conda_image.source}/notebook.ipynb", kernel["name"]]
    said = user.run(command, env=env, network=False).stdout
    cached = f"/opt/env/lib/python{X_Y}/site-packages/greeter/__pycache__/__init__.cpython-{X_Y.replace('.', '')}.pyc"
    assert said == f"hi 1.17.0 hello /opt/env/share /opt/env {cached}\n"


def test_rs_kernel_is_registered_and_starts(conda_image: CondaImage, user: User, apptainer: Apptainer) -> None:
    path = f"{conda_image.folder}/jupyter/share/jupyter"
    env = {"JUPYTER_PATH": path, "PATH": f"{apptainer.bin}:/usr/bin:/bin"}
    kernel = next(each for each in conda_image.built["kernels"] if each["language"] == "r")
    command = [sys.executable, "-c", EXECUTE, f"{conda_image.source}/r.ipynb", kernel["name"]]
    assert user.run(command, env=env, network=False).stdout == "as R\n"


def test_what_is_translated_needs_no_channel(conda_image: CondaImage, apptainer: Apptainer) -> None:
    """Packages of the index, assembled as from a requirements.txt; no channel is asked, and no engine."""
    source = conda_image.folder / "translated"
    source.mkdir(exist_ok=True)
    (source / "environment.yml").write_text(TRANSLATED)
    words = ("--conda", "pypi", "--engine", "none", "--runtime", "apptainer", "--no-register", "--json")
    done = conda_image.hpcbinder(
        "build", str(source), *words, variables={"HPCBINDER_CONDA_SERVER": "http://127.0.0.1:9"}
    )
    built = json.loads(done.stdout)
    program = "import msgpack, iniconfig, sys; print(msgpack.unpackb(msgpack.packb([7])), sys.prefix)"
    start = [apptainer.path, "-s", "exec", built["formats"]["squashfs"], "python", "-c", program]
    assert conda_image.user.run(start, network=False).stdout == "[7] /opt/env\n"


def test_its_programs_run(conda_image: CondaImage, apptainer: Apptainer) -> None:
    assert conda_image.inside(apptainer.path, "greet") == "hi\n"
    assert conda_image.inside(apptainer.path, "shout") == "HI\n"
    assert conda_image.inside(apptainer.path, "tool") == "/opt/env /opt/env/bin/python\n"
    # A link script that does what an image needs was run.
    assert conda_image.inside(apptainer.path, "cat", "/opt/env/share/linked") == "native 2.1\n"
    assert (conda_image.built["image"]["ran"], conda_image.built["image"]["ran_by"]) == (
        "conda/environment-links",
        "apptainer",
    )
    with Image.open(Path(conda_image.built["formats"]["squashfs"])) as image:
        node = image.lookup("opt/env/share/linked")
    # What they left tells nothing of when they were run.
    assert node is not None and node.mtime == EPOCH
    listed = json.loads(conda_image.inside(apptainer.path, "cat", "/opt/hpcbinder/packages/conda.json"))
    assert [each["name"] for each in listed] == ["greeter", "native", "python", "r-base", "r-irkernel"]
    assert "six" in conda_image.inside(apptainer.path, "python", "-m", "pip", "list")
    assert "python3 " in conda_image.inside(apptainer.path, "/opt/jupyter/bin/jupyter", "kernelspec", "list")


def test_the_plan_says_what_it_is_made_of(conda_image: CondaImage) -> None:
    planned = json.loads(conda_image.hpcbinder("plan", conda_image.source, "--json").stdout)
    assert planned["id"] == conda_image.built["id"]
    conda, pypi = planned["locks"]
    assert (conda["ecosystem"], conda["python"]) == ("conda", X_Y)
    (order,) = conda["layers"]
    assert sorted(order) == ["greeter", "native", "python", "r-base", "r-irkernel"]
    # What others depend on comes first.
    assert order.index("greeter") > max(order.index("python"), order.index("native"))
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
    assert "5 conda packages: 5 squashed now, 0 there already" in conda_image.said
    assert "5 conda packages: 0 squashed now, 5 there already" in again.stderr
    assert "engine is needed" not in again.stderr and "engine: " not in again.stderr
    assert "link scripts of native" in conda_image.said
    assert "link scripts" not in again.stderr


def test_its_packages_can_be_squashed_ahead_by_its_locks(conda_image: CondaImage) -> None:
    locks = conda_image.folder / "image.json"
    locks.write_text(conda_image.hpcbinder("show", conda_image.built["id"], "--json").stdout)
    said = json.loads(conda_image.hpcbinder("warm", str(locks), "--json").stdout)
    assert said["there"] >= 5 and said["refused"] == 0


def test_packages_of_an_environment_file_are_squashed_ahead(conda_image: CondaImage) -> None:
    """Into a store whose sites have the base and the server, and none of these packages."""
    folder, store = conda_image.folder / "unseen", conda_image.folder / "ahead"
    folder.mkdir()
    for name in ("layers", "wheels"):
        (folder / name).symlink_to(conda_image.folder / "store" / name)
    (folder / "version").write_text("1")
    store.mkdir()
    conda_image.user.own(store)
    file = conda_image.folder / "favourites.yml"
    file.write_text("channels: [testing]\ndependencies: [greeter=1]\n")
    sites = {"HPCBINDER_STORE_SITE": f"{folder}:{conda_image.folder / 'site'}"}

    def warm() -> dict[str, Any]:
        words = ("--store", str(store), "warm", str(file), "--base", "bookworm", "--json")
        said = json.loads(conda_image.hpcbinder(*words, variables=sites).stdout)
        return next(part for part in said["parts"] if part["file"] == str(file))

    first, again = warm(), warm()
    assert (first["new"], first["there"], first["refused"], first["left"]) == (3, 0, {}, "")
    assert len(list((store / "conda/layers").glob("*.squashfs"))) == 3
    assert (again["new"], again["there"]) == (0, 3)


def test_packages_of_the_index_are_added_to_it(conda_image: CondaImage, apptainer: Apptainer) -> None:
    said = conda_image.hpcbinder("extend", conda_image.built["id"], "tabulate==0.9.0", "--no-register", "--json")
    new = replace(conda_image, built=json.loads(said.stdout))
    assert new.built["added"] == ["tabulate 0.9.0"]
    program = "import greeter, tabulate; print(tabulate.__version__, greeter.__name__)"
    assert new.inside(str(apptainer.path), "python", "-c", program) == "0.9.0 greeter\n"


LINKED = "channels: [testing]\ndependencies: [native]\nvariables: {GREETING: again}\n"
"""With another variable, so that the scripts were not run like this before."""


def linking(image: CondaImage, name: str) -> Path:
    source = image.folder / name
    source.mkdir(exist_ok=True)
    (source / "environment.yml").write_text(LINKED)
    return source


@pytest.mark.parametrize("engine", ["none", "docker"])
def test_link_scripts_that_nothing_here_runs_are_named(conda_image: CondaImage, engine: str) -> None:
    words = ("build", str(linking(conda_image, "linking")), "--engine", engine, "--no-register")
    done = conda_image.hpcbinder(
        *words, check=False, variables={"PATH": "/usr/bin:/bin", "DOCKER_HOST": "unix:///nowhere"}
    )
    assert done.returncode == 5
    said = " ".join(done.stderr.split())
    assert "conda packages: link scripts of native have to be run; nothing here runs build steps" in said
    assert "or do without what needs native" in said
    assert ("no Docker daemon" in said, "--engine auto takes an engine" in said) == (
        engine == "docker",
        engine == "none",
    )


def images(builder: Builder) -> set[str]:
    """What is assembled and handed over, by name."""
    listed = builder.run(["buildah", "images", "--format", "{{.Name}}:{{.Tag}}"]).stdout.split()
    return {name for name in listed if name.startswith("localhost/hpcbinder/assembled:")}


@pytest.mark.heavy
def test_an_engine_runs_link_scripts_where_nothing_else_does(conda_image: CondaImage, builder: Builder) -> None:
    """And what has to be run after them, on what is assembled: buildah, as an ordinary user."""
    source = linking(conda_image, "linking-by-engine")
    (source / "postBuild").write_text('#!/bin/sh\nset -e\ntest "$(id -u)" = 0\ncp /opt/env/share/linked made\n')
    (source / "postBuild").chmod(0o755)
    store = builder.home / "store-linking"
    builder.run(["rm", "-rf", store])
    before = images(builder)
    # The base and what was squashed are those of stores that are only read.
    stores = f"{conda_image.folder / 'store'}:{conda_image.folder / 'site'}"
    given = {**conda_image.variables, "PATH": "/usr/bin:/bin", "HPCBINDER_STORE_SITE": stores}
    mine = ("HOME", "USER", "LOGNAME", "SHELL", "XDG_CACHE_HOME", "XDG_RUNTIME_DIR")
    given = {name: value for name, value in given.items() if name not in mine}
    command = [sys.executable, "-B", "-m", "hpcbinder", "--store", store, "build", source, "--engine", "buildah"]
    done = builder.run([*command, "--no-register", "--json"], env=given, timeout=600)
    try:
        said = " ".join(done.stderr.split())
        assert "an engine is needed: link scripts of native have to be run; nothing here runs build steps" in said
        built = json.loads(done.stdout)
        assert (built["image"]["engine"], built["image"]["ran_by"]) == ("none", "buildah")
        assert built["image"]["ran"].split(", ")[-1] == "postbuild/run" and "-links" in built["image"]["ran"]
        with Image.open(Path(built["formats"]["squashfs"])) as image:
            assert image.read("srv/repo/made") == b"native 2.1\n"
            node = image.lookup("opt/env/share/linked")
            assert node is not None and node.mtime == EPOCH
    finally:
        builder.run(["rm", "-rf", store])
        # What was handed over stays for the next build; packages of this channel are no other's.
        builder.run(["buildah", "rmi", "--force", *sorted(images(builder) - before)], check=False)
