"""Which runtime is taken. The programs are empty files on a PATH: nothing is run."""

import dataclasses
import io
from pathlib import Path

import pytest

from hpcbinder.errors import RunError
from hpcbinder.model import BaseRef, Entry, ImageConfig
from hpcbinder.runtime import pick_runtime
from hpcbinder.squashfs import Options, write_layer


def entry(**formats: str) -> Entry:
    return Entry(
        id="x-0123456789ab",
        source="https://example.org/x",
        ref="HEAD",
        commit=None,
        uncommitted=False,
        subdir="",
        buildpacks=(),
        base=BaseRef("debian:bookworm", "bookworm", "3.11", "amd64", "1"),
        image={},
        config=ImageConfig("", "amd64", "", {"A": "1"}, ("/opt/hpcbinder/bin/entrypoint",), (), "/", {}, (), ()),
        formats=formats,
        kernels=(),
        packages={},
        decisions=(),
        timings={},
        size=0,
        created=0,
    )


def path(folder: Path, *programs: str) -> dict[str, str]:
    for program in programs:
        (folder / program).touch(mode=0o755)
    return {"PATH": str(folder)}


def test_apptainer_comes_first(tmp_path: Path) -> None:
    environ = path(tmp_path, "apptainer", "singularity", "shifter")
    choice = pick_runtime("auto", entry(sif="/s/x.sif", squashfs="/s/x.squashfs"), environ=environ)
    assert (choice.runtime.name, choice.runtime.program) == ("apptainer", str(tmp_path / "apptainer"))
    assert choice.image.location == "/s/x.sif"
    assert choice.image.entrypoint == "/opt/hpcbinder/bin/entrypoint"


def test_apptainer_takes_a_bare_squashfs_too(tmp_path: Path) -> None:
    choice = pick_runtime("auto", entry(squashfs="/s/x.squashfs"), environ=path(tmp_path, "apptainer"))
    assert choice.image.location == "/s/x.squashfs"


def test_singularity_stands_in_for_apptainer_when_that_is_asked_for(tmp_path: Path) -> None:
    choice = pick_runtime("apptainer", entry(sif="/s/x.sif"), environ=path(tmp_path, "singularity"))
    assert choice.runtime.name == "singularity"
    assert "apptainer is not installed" in choice.reason


def test_shifter_is_told_the_id(tmp_path: Path) -> None:
    environ = path(tmp_path, "shifter", "docker")
    choice = pick_runtime("auto", entry(shifter="/s/shifter/0123abcd.squashfs"), environ=environ)
    assert (choice.runtime.name, choice.image.location) == ("shifter", "0123abcd")


def test_the_format_has_to_be_there(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"charliecloud has no image to run \(charliecloud in build.formats\)"):
        pick_runtime("charliecloud", entry(sif="/s/x.sif"), environ=path(tmp_path, "ch-run"))


@pytest.mark.parametrize(
    ("program", "name", "formats", "taken"),
    [
        ("apptainer", "apptainer", ("enroot", "charliecloud"), "charliecloud"),
        ("ch-run", "charliecloud", ("enroot", "squashfs", "charliecloud"), "charliecloud"),
        ("ch-run", "charliecloud", ("shifter", "enroot"), "enroot"),
        ("podman-hpc", "podman-hpc", ("sif", "podman-hpc"), "podman-hpc"),
    ],
)
def test_each_takes_what_is_made_for_it_or_any_squashfs(
    tmp_path: Path, program: str, name: str, formats: tuple[str, ...], taken: str
) -> None:
    places = {form: tmp_path / f"x.{form}" for form in formats}
    for place in places.values():
        write_layer(io.BytesIO(bytes(1024)), place, Options())
    image = entry()
    image = dataclasses.replace(image, formats={form: str(place) for form, place in places.items()})
    assert pick_runtime(name, image, environ=path(tmp_path, program)).image.location == str(places[taken])


def test_podman_hpc_alone_runs_nothing_else(tmp_path: Path) -> None:
    image = dataclasses.replace(entry(), formats={"podman-hpc": "/s/x.podman-hpc"})
    with pytest.raises(RunError, match="apptainer has no image to run"):
        pick_runtime("auto", image, environ=path(tmp_path, "apptainer", "ch-run"))


def test_nothing_is_there(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="apptainer is not installed, .*docker is not installed") as raised:
        pick_runtime("auto", entry(sif="/s/x.sif"), environ=path(tmp_path))
    assert raised.value.exit_code == 9
    assert "install Apptainer" in str(raised.value)
    assert "apt install charliecloud" in str(raised.value)


def test_docker_is_taken_only_if_it_has_the_image(tmp_path: Path) -> None:
    docker = tmp_path / "docker"
    image = dataclasses.replace(entry(), image={"name": "hpcbinder/x:1"})
    for answer, taken in (("exit 1", False), ('test "$*" = "image inspect --format {{.Id}} hpcbinder/x:1"', True)):
        docker.write_text(f"#!/bin/sh\n{answer}\n")
        docker.chmod(0o755)
        if taken:
            assert pick_runtime("auto", image, environ={"PATH": str(tmp_path)}).image.location == "hpcbinder/x:1"
        else:
            with pytest.raises(RunError, match="not in the engine's store"):
                pick_runtime("auto", image, environ={"PATH": str(tmp_path)})


def test_an_image_without_our_entrypoint_is_run_as_it_is(tmp_path: Path) -> None:
    foreign = entry(sif="/s/x.sif")
    foreign = dataclasses.replace(foreign, config=dataclasses.replace(foreign.config, entrypoint=("/bin/sh",)))
    assert pick_runtime("auto", foreign, environ=path(tmp_path, "apptainer")).image.entrypoint == ""
