"""One repository, assembled by an ordinary user without any engine and built by Docker: the same image, and it runs.

The user has no programs but the system's, no engine's socket and, in a chroot, no user namespaces (user_namespaces(7):
EPERM there); the base comes from a site's store.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from base_layer import REF

from hpcbinder import contract
from hpcbinder.bases import base_key
from hpcbinder.builders.assembling.interpreter import base_interpreter, whole
from hpcbinder.config import RegistryConfig, SiteConfig
from hpcbinder.errors import BuildError
from hpcbinder.image import DockerArchive
from hpcbinder.registry import Registry as OurRegistry
from hpcbinder.registry import parse_reference
from hpcbinder.squashfs import Image
from images import Line
from rig import Apptainer, Charliecloud, Registry, Rig, User

CHROOT = 'mount --rbind / "$0" && exec chroot "$0" "$@"'

EXECUTE = """
import sys, nbformat
from nbclient import NotebookClient
notebook = nbformat.read(sys.argv[1], as_version=4)
NotebookClient(notebook, kernel_name=sys.argv[2], timeout=120).execute()
print("".join(output.text for output in notebook.cells[0].outputs), end="")
"""

LOOK = """
import importlib.metadata, json, zmq.backend.cython._zmq as compiled
import zmq
print(json.dumps([
    importlib.metadata.version("six"),
    sorted(e.name for e in importlib.metadata.entry_points(group="console_scripts"))[:3],
    compiled.__file__,
    zmq.__cached__,
]))
"""

FAVOURITES = '[project]\nname = "fav"\nversion = "1"\nrequires-python = ">=3.11"\ndependencies = ["colour"]\n'
FAVOURITES_LOCK = """\
version = 1
requires-python = ">=3.11"

[[package]]
name = "colour"
version = "0.1.5"
source = { registry = "https://pypi.org/simple" }
wheels = [{ url = "https://files.pythonhosted.org/packages/74/46/e81907704ab203206769dee1385dc77e1407576ff8f50a0681d0a6b541be/colour-0.1.5-py2.py3-none-any.whl", hash = "sha256:33f6db9d564fadc16e59921a56999b79571160ce09916303d35346dddc17978c", size = 23772 }]

[[package]]
name = "fav"
version = "1"
source = { virtual = "." }
dependencies = [{ name = "colour" }]
"""  # noqa: E501

MARKS = {f"opt/jupyter/{name}" for name in (".gitignore", ".lock", "CACHEDIR.TAG")}
"""What uv leaves in an environment for tools that look after somebody's folders."""


@dataclass(frozen=True)
class Both:
    """What `build --json` printed, by each builder; and for another repository of the same packages, with `auto`.

    Attributes:
        run: Runs a command as the user who has no engine, with more variables.
        given: The user's own.
    """

    engine: dict[str, Any]
    assembled: dict[str, Any]
    again: dict[str, Any]
    store: Path
    prefix: Path
    first: str
    second: str
    run: Callable[..., subprocess.CompletedProcess[str]]
    given: dict[str, str]


def with_start(work: Path) -> None:
    (work / "start").write_text('#!/bin/sh\nexport STARTED=yes\nexec "$@"\n')
    (work / "start").chmod(0o755)


@pytest.fixture(scope="module")
def both(line: Line, rig: Rig, apptainer: Apptainer) -> Both:
    user = rig.user
    # The environment is one that other tests have Docker make, too.
    source = line.repository("assembled", with_start, of="edited")
    engine = line.build(source, "--engine", "docker", "--no-register", "--format", "squashfs")
    folder = line.folder / "assembled"
    folder.mkdir(exist_ok=True)
    store, prefix, root = folder / "store", folder / "jupyter", folder / "root"
    for path in (store, prefix):
        path.mkdir(exist_ok=True)
        os.chown(path, user.uid, user.uid)
    root.mkdir(exist_ok=True)
    (folder / "locks.json").write_text(line.hpcbinder("show", engine["id"], "--json").stdout)
    site = folder / "site"
    site.mkdir(exist_ok=True)
    # With nothing but the base: what was built there would be found and not made again.
    (site / "bases").symlink_to(line.folder / "store" / "bases")
    (site / "version").write_text("1")
    mine = ("HOME", "PATH", "USER", "LOGNAME", "SHELL", "DOCKER_HOST", "TMPDIR")
    given = {k: v for k, v in line.environment.items() if k not in mine and not k.startswith("XDG_")}
    path = folder / "bin"
    path.mkdir(exist_ok=True)
    (path / "git").symlink_to("/usr/bin/git")
    given |= {"PATH": f"{path}:{apptainer.bin}", "HPCBINDER_STORE_PATH": str(store), "HPCBINDER_STORE_SITE": str(site)}

    def run(*argv: str, more: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        variables = [f"{name}={value}" for name, value in user.environment({**given, **(more or {})}).items()]
        command = ["unshare", "--mount", "--propagation", "slave", "sh", "-c", CHROOT, str(root)]
        mine = user.command(["/usr/bin/env", "--ignore-environment", *variables, *argv])
        return subprocess.run([*command, *mine], cwd="/", capture_output=True, text=True, timeout=600)

    assert run("/usr/bin/unshare", "--user", "true").returncode != 0
    build = ["build", source, "--engine", "none", "--prefix", str(prefix), "--runtime", "apptainer", "--json"]
    done = run(sys.executable, "-B", "-m", "hpcbinder", *build, "--locks", str(folder / "locks.json"))
    assert done.returncode == 0, done.stderr[-6000:]
    # And what `auto` does where a runtime and no engine is, with another repository of the same packages.
    other = ["build", line.repository("again", of="edited"), "--engine", "auto", "--runtime", "apptainer", "--json"]
    again = run(sys.executable, "-B", "-m", "hpcbinder", *other, "--no-register")
    assert again.returncode == 0, again.stderr[-6000:]
    return Both(
        engine, json.loads(done.stdout), json.loads(again.stdout), store, prefix, done.stderr, again.stderr, run, given
    )


def tree(squashfs: str) -> dict[str, Any]:
    """Everything in an image: kind, mode, owner, time, and content or target."""
    found: dict[str, Any] = {}
    with Image.open(Path(squashfs)) as image:
        for path, node in image.walk():
            content: Any = node.target
            # Of the base, which is one and the same file for both, sizes will do.
            if node.kind == "file":
                content = node.size
            if node.kind == "file" and path.startswith(("etc/", "opt/", "srv/")):
                content = hashlib.sha256(image.read(path, 1 << 30)).hexdigest()
            found[path] = (node.kind, f"{node.mode:o}", node.uid, node.gid, node.mtime, content)
    return found


def test_it_is_the_same_image(both: Both) -> None:
    assert both.assembled["id"] == both.engine["id"]
    theirs, mine = (tree(built["formats"]["squashfs"]) for built in (both.engine, both.assembled))
    different = {path for path in theirs.keys() | mine.keys() if theirs.get(path) != mine.get(path)}
    # All but the contents of these agrees: who installed it is another one, and RECORD has the sums of that.
    installed = {path for path in different if path.endswith((".dist-info/INSTALLER", ".dist-info/RECORD"))}
    # uv's programs look whether they are Windows'.
    programs = {path for path in different & mine.keys() if path.startswith(("opt/env/bin/", "opt/jupyter/bin/"))}
    for path in installed | programs:
        assert theirs[path][:5] == mine[path][:5], path
    assert different - installed - programs == {*MARKS}
    assert (different - installed - programs).isdisjoint(mine)


def test_the_catalog_says_how_it_was_made(both: Both, line: Line) -> None:
    record = json.loads((both.store / "images" / both.assembled["id"] / "record.json").read_text())
    theirs = json.loads(line.hpcbinder("show", both.engine["id"], "--json").stdout)
    assert (record["image"]["engine"], theirs["image"]["engine"]) == ("none", "docker")
    for key in ("packages", "kernels", "locks", "python", "buildpacks", "decisions"):
        assert record[key] == theirs[key], key
    for key in ("env", "entrypoint", "cmd", "workdir", "labels", "user", "architecture"):
        assert record["config"][key] == theirs["config"][key], key
    shown = line.hpcbinder("--store", str(both.store), "show", both.assembled["id"]).stdout
    assert "assembled" in shown


def test_its_kernel_runs_a_notebook(both: Both, line: Line, user: User, apptainer: Apptainer) -> None:
    env = {"JUPYTER_PATH": str(both.prefix / "share/jupyter"), "PATH": f"{apptainer.bin}:/usr/bin:/bin"}
    (kernel,) = both.assembled["kernels"]
    notebook = line.folder / "work/assembled/notebook.ipynb"
    command = [sys.executable, "-c", EXECUTE, notebook, kernel["name"]]
    assert user.run(command, env=env, network=False).stdout.startswith("1.17.0 yes ")


@pytest.mark.parametrize("runtime", ["apptainer", "charliecloud"])
def test_its_packages_are_whole(request: pytest.FixtureRequest, both: Both, user: User, runtime: str) -> None:
    program: Apptainer | Charliecloud = request.getfixturevalue(runtime)
    start = {"apptainer": ["-s", "exec"], "charliecloud": ["--set-env", "--home"]}[runtime]
    end = ["--"] if runtime == "charliecloud" else []
    command = [program.path, *start, both.assembled["formats"]["squashfs"], *end]

    def inside(*argv: str) -> str:
        return user.run([*command, *argv], network=False).stdout

    assert "No broken requirements found" in inside("python", "-m", "pip", "check")
    assert inside("bash", "-lc", "command -v python") == f"{contract.ENV_PREFIX}/bin/python\n"
    version, programs, place, bytecode = json.loads(inside("python", "-c", LOOK))
    assert version == "1.17.0"
    assert programs
    assert place.startswith(f"{contract.ENV_PREFIX}/lib/python3.11/site-packages/zmq/")
    assert bytecode.endswith(".cpython-311.pyc")
    assert "python3" in inside("jupyter", "kernelspec", "list")
    extensions = inside(f"{contract.SERVER_PREFIX}/bin/jupyter", "labextension", "list", "--verbose")
    assert "error" not in extensions.lower()


def test_the_bases_own_interpreter_runs_without_any_container(both: Both, tmp_path: Path) -> None:
    """What compiles where this machine has no Python of the same version."""
    record = json.loads((both.store / "images" / both.assembled["id"] / "record.json").read_text())
    base = record["config"]["diff_ids"][0].removeprefix("sha256:")
    (layer,) = (both.store / "layers").glob(f"{base}-*.squashfs")
    found = base_interpreter(layer, "3.11.2", tmp_path / "python")
    program = "import resource, sys; from importlib.util import MAGIC_NUMBER as m; print(sys.prefix, m[0] + 256 * m[1])"
    done = subprocess.run([*found.argv, "-c", program], env=dict(found.env), capture_output=True, text=True, cwd="/")
    assert done.stdout == f"{tmp_path}/python/usr 3495\n", done.stderr
    with pytest.raises(BuildError, match=r"the base has no python3\.12"):
        base_interpreter(layer, "3.12.1", tmp_path / "other")


def test_packages_that_were_seen_are_squashed_no_more(both: Both) -> None:
    assert "squashed now, 0 there already" in both.first
    assert ": 0 squashed now, " in both.second
    assert "every step is data" in both.second
    record = json.loads((both.store / "images" / both.again["id"] / "record.json").read_text())
    assert record["image"]["engine"] == "none"


def test_the_base_comes_from_a_registry(
    both: Both, line: Line, rig: Rig, registry: Registry, user: User, apptainer: Apptainer
) -> None:
    """Where no store has one and nothing makes one: somebody who can make one has pushed it."""
    place = f"{registry.host}/published/debian:bookworm"
    published = line.hpcbinder("push", "debian:bookworm", place).stdout.strip()
    store = line.folder / "assembled" / "published"
    store.mkdir()
    os.chown(store, rig.user.uid, rig.user.uid)
    before = json.loads((both.store / "images" / both.again["id"] / "record.json").read_text())
    more = {
        "HPCBINDER_STORE_PATH": str(store),
        "HPCBINDER_STORE_SITE": str(both.store),  # which has the squashed packages, and no base
        "HPCBINDER_BASES_IMAGES": f"debian:bookworm-slim={place}",
        "HPCBINDER_BUILD_COMPRESSION": before["compression"]["name"],
    }
    source = line.repository("again", of="edited")
    build = [
        "build",
        source,
        "--engine",
        "none",
        "--runtime",
        "apptainer",
        "--prefix",
        str(store / "jupyter"),
        "--json",
    ]
    done = both.run(sys.executable, "-B", "-m", "hpcbinder", *build, more=more)
    assert done.returncode == 0, done.stderr[-6000:]
    assert f"base debian:bookworm: pulling {published}" in done.stderr and "every step is data" in done.stderr
    built = json.loads(done.stdout)
    record = json.loads((store / "images" / built["id"] / "record.json").read_text())
    assert (record["base"]["image"], record["image"]["engine"]) == (published, "none")
    # Nothing but the content and where the base came from tells it from one on a base that was bootstrapped.
    assert record["config"]["diff_ids"][:-1] == before["config"]["diff_ids"][:-1]
    assert [kernel["language"] for kernel in built["kernels"]] == ["python"]
    command = [apptainer.path, "-s", "exec", built["formats"]["sif"], "python", "-c", "import six; print(six.__file__)"]
    assert user.run(command, network=False).stdout.startswith(contract.ENV_PREFIX)


def test_any_other_debian_of_a_registry_is_made_a_base_by_apptainer(
    both: Both, line: Line, rig: Rig, registry: Registry, user: User, apptainer: Apptainer, tmp_path: Path
) -> None:
    """The step that installs what it lacks is run, and the rest assembled on top. Here it lacks nothing but our word
    for that: what the step installs is compared where Docker runs it."""
    place = f"{registry.host}/published/debian:another"
    kept = line.folder / "store/bases" / base_key(REF) / "image.tar"
    pushed = OurRegistry(SiteConfig(), RegistryConfig()).push(
        DockerArchive(kept), parse_reference(place), scratch=tmp_path
    )
    store = line.folder / "assembled" / "prepared"
    store.mkdir()
    os.chown(store, rig.user.uid, rig.user.uid)
    before = json.loads((both.store / "images" / both.again["id"] / "record.json").read_text())
    given = {
        **both.given,
        "HPCBINDER_STORE_PATH": str(store),
        "HPCBINDER_STORE_SITE": str(both.store),
        "HPCBINDER_BASES_IMAGES": f"debian:bookworm-slim={place}",
        "HPCBINDER_BUILD_COMPRESSION": before["compression"]["name"],
    }
    variables = [f"{name}={value}" for name, value in user.environment(given).items()]
    command = ["/usr/bin/env", "--ignore-environment", *variables, sys.executable, "-B", "-m", "hpcbinder", "build"]
    words = ["--engine", "none", "--runtime", "apptainer", "--no-register", "--json"]
    done = user.run([*command, line.repository("again", of="edited"), *words], cwd=Path("/"), timeout=600)
    assert "step base/prepare: apptainer" in done.stderr
    built = json.loads(done.stdout)
    assert (built["image"]["engine"], built["image"]["ran"]) == ("none", "base/prepare")
    record = json.loads((store / "images" / built["id"] / "record.json").read_text())
    assert record["base"]["image"] == f"{place}@{pushed}"
    program = [apptainer.path, "-s", "exec", built["formats"]["sif"], "python", "-c", "import six; print(six.__file__)"]
    assert user.run(program, network=False).stdout.startswith(contract.ENV_PREFIX)
    # Where this machine has no Python of the version, the base's own compiles, whichever of its layers it is in.
    lowest = [digest.removeprefix("sha256:") for digest in record["config"]["diff_ids"][:3]]
    layers = [next(path for each in (store, both.store) for path in (each / "layers").glob(f"{d}-*")) for d in lowest]
    found = base_interpreter(whole(layers, tmp_path), "3.11.2", tmp_path / "python")
    assert subprocess.run([*found.argv, "-V"], env=dict(found.env), capture_output=True, text=True).returncode == 0


def test_packages_are_added_to_it_and_its_kernel_has_them(
    both: Both, line: Line, user: User, apptainer: Apptainer
) -> None:
    """To the assembled image, whose kernel then runs the new one, and to the one that Docker built."""
    here = replace(line, environment={**line.environment, "PATH": f"{apptainer.bin}:{os.environ['PATH']}"})
    (kernel,) = both.assembled["kernels"]
    stores = (["--store", str(both.store)], both.assembled), ([], both.engine)
    for store, image in stores:
        register = ["--runtime", "apptainer"] if store else ["--no-register"]
        done = here.hpcbinder(*store, "extend", image["id"], "tabulate==0.9.0", *register, "--json")
        new = json.loads(done.stdout)
        assert (new["parent"], new["added"]) == (image["id"], ["tabulate 0.9.0"])
        command = [apptainer.path, "-s", "exec", new["formats"]["squashfs"], "python"]
        program = "import six, tabulate; print(six.__version__, tabulate.__version__)"
        assert user.run([*command, "-c", program], network=False).stdout == "1.17.0 0.9.0\n"
        assert "No broken" in user.run([*command, "-m", "pip", "check"], network=False).stdout
        if store:
            assert [each["path"] for each in new["kernels"]] == [kernel["path"]]
            assert new["id"] in (Path(kernel["path"]) / "launch.json").read_text()
            shown = here.hpcbinder(*store, "show", new["id"]).stdout
            assert image["id"] in shown and "tabulate 0.9.0" in shown
            # And back.
            again = ["register", "--kernel", image["id"], "--name", kernel["name"], "--prefix", str(both.prefix)]
            here.hpcbinder(*store, *again, "--runtime", "apptainer")
            assert image["id"] in (Path(kernel["path"]) / "launch.json").read_text()


def test_favourites_are_squashed_ahead_once(both: Both, line: Line, tmp_path: Path) -> None:
    """Into a store whose site has the base, the server and all packages but one."""
    (tmp_path / "favourites.txt").write_text("six==1.17.0\n")
    locks = tmp_path / "locks.json"
    locks.write_text(line.hpcbinder("--store", str(both.store), "show", both.assembled["id"], "--json").stdout)
    compression = json.loads(locks.read_text())["compression"]["name"]
    site = f"{both.store}:{line.folder / 'store'}"
    # As it was chosen for the user, for whom others mount images than for root.
    more = {"HPCBINDER_STORE_SITE": site, "HPCBINDER_BUILD_COMPRESSION": compression}
    here = replace(line, environment={**line.environment, **more})

    def warm(*files: str, check: bool = True, given: str = "") -> dict[str, Any]:
        command = ["--store", str(tmp_path / "store"), "warm", *files, "--base", "bookworm", "--json"]
        done = here.hpcbinder(*command, check=check, input=given)
        return {**json.loads(done.stdout), "exit": done.returncode}

    seen = warm(str(locks))
    assert (seen["new"], seen["refused"], seen["exit"], seen["compression"]) == (0, 0, 0, compression)
    # Nothing of it was made again: it is in the site's store.
    assert not list((tmp_path / "store/layers").glob("*.squashfs"))
    names = [part["what"] for part in seen["parts"]]
    assert names[:2] == ["base debian:bookworm", "notebook server on debian:bookworm"]
    first = warm("-", given="colour==0.1.5\n")
    assert (first["parts"][-1]["file"], first["exit"]) == ("-", 0) and first["new"] >= 1
    assert warm("-", given="colour==0.1.5\n")["new"] == 0
    (tmp_path / "pyproject.toml").write_text(FAVOURITES)
    (tmp_path / "uv.lock").write_text(FAVOURITES_LOCK)
    locked = [warm(str(tmp_path / "uv.lock")) for _ in range(2)]
    assert [(each["refused"], each["exit"]) for each in locked] == [(0, 0), (0, 0)]
    assert {Path(part["file"]).name for part in locked[0]["parts"]} >= {"uv.lock"} and locked[1]["new"] == 0
    # What has no wheel is built by nobody for others.
    unbuilt = warm("-", given="docopt==0.6.2\n")
    assert (unbuilt["exit"], unbuilt["refused"]) == (0, 0)
    assert [part["what"] for part in unbuilt["parts"] if part["left"].endswith("that is built by each user")]
    assert not (tmp_path / "store/built").exists()
    bad = warm("-", check=False, given="colour==99\n")
    assert (bad["exit"], bad["refused"]) == (4, 1)
    assert "colour" in bad["parts"][-1]["refused"][""]
