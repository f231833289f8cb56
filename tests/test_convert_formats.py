"""`hpcbinder convert` into places that are more than a file: a store of podman-hpc's, an archive, Shifter's gateway."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from test_convert_command import Person, write_archive

from hpcbinder import register
from hpcbinder.errors import RegisterError
from hpcbinder.image import DockerArchive


@pytest.fixture
def person(tmp_path: Path) -> Person:
    person = Person(tmp_path)
    write_archive(tmp_path / "tool.tar")
    write_archive(tmp_path / "other.tar", created="2025-01-01T00:00:00Z")
    return person


def images(store: Path) -> list[dict[str, Any]]:
    listed = json.loads((store / "overlay-images/images.json").read_text())
    assert isinstance(listed, list)
    return listed


def test_a_store_that_is_there_gets_the_image_besides(person: Person) -> None:
    person.convert("docker-archive:tool.tar", "--to", "podman-hpc")
    store = person.folder / "tool.podman-hpc"
    done = person.convert("docker-archive:other.tar", "--to", "podman-hpc", "-o", str(store))
    assert done["formats"]["podman-hpc"]["path"] == str(store)
    assert [image["names"] for image in images(store)] == [["localhost/tool:latest"], ["localhost/other:latest"]]
    assert {path.name for path in store.iterdir()} == {"overlay", "overlay-images", "overlay-layers"}


def test_a_damaged_store_is_left_as_it_is(person: Person) -> None:
    person.convert("docker-archive:tool.tar", "--to", "podman-hpc")
    store = person.folder / "tool.podman-hpc"
    (store / "overlay-images/images.json").write_text("{}")
    done = person.run("convert", "docker-archive:other.tar", "--to", "podman-hpc", "-o", str(store), code=6)
    assert "images.json: is no list" in done.stderr
    assert {path.name for path in store.iterdir()} == {"overlay", "overlay-images", "overlay-layers"}


def test_an_oci_archive(person: Person) -> None:
    done = person.convert("docker-archive:tool.tar", "--to", "oci", "-o", "packed.tar")
    path = person.folder / "packed.tar"
    assert done["formats"]["oci"]["path"] == str(path)
    # Its layers only get another place: they are not squashed.
    assert done["compression"]["name"] == "gzip" and done["layers"] == {"total": 0, "new": 0, "known": 0}
    assert DockerArchive(path).config == DockerArchive(person.folder / "tool.tar").config
    assert not [name for name in person.files() if name.endswith(".oci") or name.startswith(".")]
    assert (
        "is there already"
        in person.run("convert", "docker-archive:tool.tar", "--to", "oci", "-o", "packed.tar", code=2).stderr
    )


def test_shifters_gateway_is_asked_if_there_is_one(person: Person) -> None:
    """What is asked, and how: tests/register/test_shifter_gateway.py."""
    arguments = ("docker-archive:tool.tar", "--to", "shifter,squashfs", "--force", "--name", "Tool")
    with mock.patch.object(register, "import_into_gateway") as asked:
        person.convert(*arguments)
        assert not asked.called
        person.env |= {"HPCBINDER_SHIFTER_GATEWAY": "http://gw:5000", "HPCBINDER_SHIFTER_SYSTEM": "cluster"}
        made = person.convert(*arguments)
        path, tag, config, _ = asked.call_args.args
        assert (str(path), tag) == (made["formats"]["shifter"]["path"], "tool:latest")
        assert config.shifter.system == "cluster"
        asked.side_effect = RegisterError("the gateway is away")
        assert "the gateway is away" in person.run("convert", *arguments, code=7).stderr
    assert (person.folder / "Tool.squashfs").exists()
