"""One image out of Docker, podman, archives, a layout and a registry: the same squashfs and SIF, byte for byte."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from small_archive import CONFIG, NAME, write

from hpcbinder.sif import primary_partition
from hpcbinder.squashfs import Image
from rig import Apptainer, Builder, Dockerd, Registry, RigError, User, packages

PROGRAM = (sys.executable, "-B", "-m", "hpcbinder")
NO_ENGINE = {"PATH": "/nonexistent", "DOCKER_HOST": "unix:///nonexistent"}


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """A folder that every user can read."""
    with tempfile.TemporaryDirectory(prefix="hpcbinder-test-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture(scope="module")
def archive(folder: Path) -> Path:
    return write(folder / "small.tar")


@pytest.fixture(scope="module")
def skopeo() -> None:
    try:
        packages.ensure(["skopeo"])
    except RigError as error:
        pytest.skip(str(error))


def copy(source: str, target: str, *options: str) -> None:
    done = subprocess.run(["skopeo", "copy", "-q", *options, source, target], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def arguments(folder: Path, source: str, *more: str) -> list[str]:
    # What `auto` takes depends on what a person has.
    options = ["--to", "squashfs,sif", "--compression", "gzip", "--name", "x", "--json", *more]
    return [*PROGRAM, "--store", str(folder / "store"), "convert", source, "-o", str(folder / "out"), *options]


def digests(result: dict[str, Any]) -> dict[str, str]:
    return {
        form: hashlib.sha256(Path(made["path"]).read_bytes()).hexdigest() for form, made in result["formats"].items()
    }


@pytest.fixture(scope="module")
def expected(folder: Path, archive: Path) -> dict[str, str]:
    """What comes out of the archive as it was written."""
    place = folder / "expected"
    command = arguments(place, f"docker-archive:{archive}")
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["layers"] == {"total": 2, "new": 2, "known": 0}
    with Image.open(result["formats"]["squashfs"]["path"]) as image:
        assert set(image.listdir("/srv")) == {"kept", "new"}
        srv = image.lookup("/srv")
        assert srv is not None and srv.mtime == 1_800_000_000  # as the layer has it, though it is after the image's
    return digests(result)


def without_engine(folder: Path, source: str) -> list[str]:
    return ["env", *(f"{name}={value}" for name, value in NO_ENGINE.items()), *arguments(folder, source)]


def by_user(user: User, source: str) -> dict[str, str]:
    done = user.run(without_engine(user.home, source))
    result = json.loads(done.stdout)
    assert result["layers"]["total"] == 2
    return digests(result)


def test_docker(folder: Path, archive: Path, dockerd: Dockerd, expected: dict[str, str]) -> None:
    docker = [dockerd.client, "--host", dockerd.host]
    subprocess.run([*docker, "load", "-q", "-i", archive], check=True, capture_output=True)
    place = folder / "docker"
    try:
        command = arguments(place, f"docker-daemon:{NAME}")
        done = subprocess.run(command, env={**os.environ, **dockerd.environment}, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert digests(json.loads(done.stdout)) == expected
        saved = folder / "saved.tar"
        subprocess.run([*docker, "save", "-o", saved, NAME], check=True, capture_output=True)
    finally:
        subprocess.run([*docker, "rmi", NAME], check=True, capture_output=True)
    (folder / "saved.tar.gz").write_bytes(gzip.compress(saved.read_bytes(), 1))
    for source in (f"docker-archive:{saved}:{NAME}", f"docker-archive:{folder}/saved.tar.gz"):
        done = subprocess.run(arguments(folder / "saved", source, "--force"), capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert digests(json.loads(done.stdout)) == expected
        assert not list((folder / "saved/store/tmp").iterdir())  # what was unpacked is gone


def test_rootless_podman(archive: Path, builder: Builder, expected: dict[str, str]) -> None:
    home = builder.home / "transport"
    shutil.rmtree(home, ignore_errors=True)
    builder.run(["podman", "load", "-q", "-i", archive])
    try:
        done = builder.run(arguments(home, f"containers-storage:{NAME}"))
        assert digests(json.loads(done.stdout)) == expected
        missing = builder.run(arguments(home, "containers-storage:localhost/none:1"), check=False)
        assert missing.returncode == 6 and "has no image 'localhost/none:1'" in missing.stderr
    finally:
        builder.run(["podman", "rmi", "-f", NAME])
        shutil.rmtree(home, ignore_errors=True)


def test_archives_and_layouts_of_skopeo_without_any_engine(
    folder: Path, archive: Path, skopeo: None, user: User, expected: dict[str, str]
) -> None:
    copy(f"docker-archive:{archive}", f"oci:{folder}/layout:1")
    copy(f"docker-archive:{archive}", f"oci-archive:{folder}/oci.tar:1")
    for source in (f"oci:{folder}/layout", f"oci:{folder}/layout:1", f"oci-archive:{folder}/oci.tar:1"):
        assert by_user(user, source) == expected
        shutil.rmtree(user.home / "out")


def test_a_registry_without_any_engine(
    folder: Path, archive: Path, skopeo: None, registry: Registry, user: User, expected: dict[str, str]
) -> None:
    place = f"docker://{registry.host}/transport/small:1"
    copy(f"docker-archive:{archive}", place, "--dest-tls-verify=false", f"--digestfile={folder}/digest")
    assert by_user(user, place) == expected
    shutil.rmtree(user.home / "out")
    digest = (folder / "digest").read_text().strip()
    assert by_user(user, f"docker://{registry.host}/transport/small@{digest}") == expected
    none = user.run(without_engine(user.home, f"docker://{registry.host}/transport/small:2"), check=False)
    assert none.returncode == 10 and none.stderr.count("\n") == 1


def test_a_sif_that_apptainer_made(folder: Path, archive: Path, apptainer: Apptainer) -> None:
    """Its squashfs is not made anew, and what it says of itself is told to the other runtimes."""
    theirs = folder / "theirs.sif"
    build = [apptainer.path, "--silent", "build", theirs, f"docker-archive:{archive}"]
    subprocess.run(build, check=True, stdin=subprocess.DEVNULL, capture_output=True)
    options = ["--to", "squashfs,shifter,sif", "--name", "x", "--json"]
    command = [*PROGRAM, "--store", str(folder / "store"), "convert", str(theirs), "-o", f"{folder}/theirs/", *options]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    made = {form: Path(found["path"]) for form, found in json.loads(done.stdout)["formats"].items()}
    offset, _ = primary_partition(theirs)
    plain = made["squashfs"].read_bytes()
    assert theirs.read_bytes()[offset : offset + len(plain)] == plain
    for name in CONFIG["config"]["Env"]:
        assert f"ENV: {name}\n" in made["shifter"].with_suffix(".meta").read_text()
    about = [apptainer.path, "inspect", "--json", "--all"]
    before, after = (json.loads(subprocess.check_output([*about, file])) for file in (theirs, made["sif"]))
    for key in ("labels", "runscript", "environment", "deffile"):
        assert after["data"]["attributes"].get(key) == before["data"]["attributes"].get(key), key


def test_a_layer_that_is_known_is_not_asked_for_again(folder: Path, archive: Path, expected: dict[str, str]) -> None:
    done = subprocess.run(
        arguments(folder / "expected", f"docker-archive:{archive}", "--force"), capture_output=True, text=True
    )
    result = json.loads(done.stdout)
    assert result["layers"] == {"total": 2, "new": 0, "known": 2}
    assert digests(result) == expected


def test_a_daemon_that_is_not_there_is_one_line(folder: Path) -> None:
    env = {**os.environ, **NO_ENGINE}
    done = subprocess.run(arguments(folder / "none", "docker-daemon:x"), env=env, capture_output=True, text=True)
    assert done.returncode == 5 and "no Docker daemon at unix:///nonexistent" in done.stderr
    done = subprocess.run(arguments(folder / "none", "containers-storage:x"), env=env, capture_output=True, text=True)
    assert done.returncode == 5 and "neither podman nor buildah is installed" in done.stderr
    assert not (folder / "none/out").exists()


def test_the_configuration_is_the_images(folder: Path, expected: dict[str, str]) -> None:
    command = [*PROGRAM, "inspect", str(folder / "expected/out/x.sif"), "--json"]
    facts = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    assert facts["labels"] == CONFIG["config"]["Labels"]
    assert facts["oci_config"]["Env"] == CONFIG["config"]["Env"]
    assert facts["sif"]["created"] == 1_714_979_289  # the image's own time
