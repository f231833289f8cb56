"""The format oci: the image as it is, for skopeo, umoci, podman and our own reader."""

from __future__ import annotations

import hashlib
import subprocess
import tarfile
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import pytest
from stacks import MTIME, Layer, MemoryImage

from hpcbinder.convert import Converted, archive_oci, convert, rewrap
from hpcbinder.errors import ConvertError
from hpcbinder.image import DockerArchive, OciLayout, parse_config
from hpcbinder.progress import Silent
from hpcbinder.squashfs import Options
from rig import Builder, RigError, packages


class WithRaw(MemoryImage):
    """Knows its configuration byte for byte, as registries and archives do."""

    @property
    def raw_config(self) -> bytes:
        return self.raw


def image(kind: type[MemoryImage] = WithRaw) -> MemoryImage:
    low = Layer().folder("a").file("a/old", "1").file("a/kept", "2", 0o640, uid=7, gid=8)
    top = Layer().folder("a").whiteout("a/old").link("a/link", "kept")
    return kind(low, Layer(), top, Layer(), config={"Env": ["A=1"], "Labels": {"org.opencontainers.image.title": "t"}})


def write(source: Any, folder: Path, *formats: str) -> Converted:
    folder.mkdir(exist_ok=True)
    return convert(
        source,
        layers_dir=folder / "layers",
        folder=folder,
        name="x",
        labels={"added": "1"},
        timestamp=MTIME,
        formats=("oci", *formats),
        options=Options(),
        reporter=Silent(),
    )


def content(layout: Path) -> dict[str, bytes]:
    return {str(path.relative_to(layout)): path.read_bytes() for path in layout.rglob("*") if path.is_file()}


def test_it_is_the_image_and_no_other(tmp_path: Path) -> None:
    source = image()
    written = OciLayout(write(source, tmp_path / "out").formats["oci"])
    assert written.config == source.config
    assert {d: stream.read() for d, stream in written.layers(source.config.diff_ids)} == source.stored
    assert {path.name for path in (tmp_path / "out/x.oci").rglob("*") if len(path.name) != 64} == {
        *("blobs", "sha256", "index.json", "oci-layout")
    }


def test_alone_nothing_is_squashed(tmp_path: Path) -> None:
    made = write(image(), tmp_path / "out")
    assert (made.size, made.layers, made.new_layers) == (0, 0, 0)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["x.oci"]


def test_every_blob_is_what_it_is_called(tmp_path: Path) -> None:
    files = content(write(image(), tmp_path / "out", "squashfs").formats["oci"])
    blobs = {name.rpartition("/")[2]: raw for name, raw in files.items() if name.startswith("blobs/")}
    assert all(hashlib.sha256(raw).hexdigest() == digest for digest, raw in blobs.items())
    assert len(blobs) == 5  # a layer the image has twice is there once


def test_the_same_image_gives_the_same_bytes(tmp_path: Path) -> None:
    one = content(write(image(), tmp_path / "one").formats["oci"])
    assert one == content(write(image(), tmp_path / "two", "sif").formats["oci"])


def test_without_the_bytes_of_its_configuration_it_gets_a_new_id(tmp_path: Path) -> None:
    written = OciLayout(write(image(MemoryImage), tmp_path / "out").formats["oci"])
    assert written.config.digest != image().config.digest
    assert (written.config.env, written.config.diff_ids) == ({"A": "1"}, image().config.diff_ids)


def test_a_squashfs_becomes_one_layer(tmp_path: Path) -> None:
    made = write(image(), tmp_path / "out", "squashfs")
    again = tmp_path / "again"
    again.mkdir()
    layout = rewrap(
        made.formats["squashfs"],
        offset=0,
        config=parse_config(image().raw),
        folder=again,
        name="y",
        labels={},
        timestamp=MTIME,
        formats=("oci",),
        reporter=Silent(),
    ).formats["oci"]
    written = OciLayout(layout)
    assert len(written.config.diff_ids) == 1
    for _, stream in written.layers(written.config.diff_ids):
        with tarfile.open(fileobj=stream, mode="r|") as tar:
            members = {member.name: member for member in tar}
    assert {"a/kept", "a/link", ".singularity.d/runscript"} <= members.keys()
    assert "a/old" not in members
    assert (members["a/kept"].uid, members["a/kept"].mode) == (7, 0o640)
    assert {path.name for path in again.iterdir()} == {"y.oci"}


def test_a_layer_of_other_content_is_refused(tmp_path: Path) -> None:
    class Lying(WithRaw):
        def layers(self, wanted: Collection[str]) -> Iterator[tuple[str, BinaryIO]]:
            streams = dict(super().layers(wanted))
            yield from zip(streams, reversed(streams.values()), strict=True)

    with pytest.raises(ConvertError, match="has the content of"):
        write(image(Lying), tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_a_layer_that_does_not_come_is_refused(tmp_path: Path) -> None:
    class Short(WithRaw):
        def layers(self, wanted: Collection[str]) -> Iterator[tuple[str, BinaryIO]]:
            yield next(super().layers(wanted))

    with pytest.raises(ConvertError, match="does not hold its layer"):
        write(image(Short), tmp_path / "out")


def test_packed_it_is_an_archive(tmp_path: Path) -> None:
    layout = write(image(), tmp_path / "out").formats["oci"]
    packed = [tmp_path / "one.tar", tmp_path / "two.tar"]
    for path in packed:
        archive_oci(layout, path)
    assert packed[0].read_bytes() == packed[1].read_bytes()
    assert DockerArchive(packed[0]).config == image().config


def ensure(*names: str) -> None:
    try:
        packages.ensure(names)
    except RigError as error:
        pytest.skip(str(error))


@pytest.mark.rig
def test_skopeo_and_umoci_read_it(tmp_path: Path) -> None:
    ensure("skopeo", "umoci")
    layout = write(image(), tmp_path / "out").formats["oci"]
    raw = subprocess.run(
        ["skopeo", "inspect", "--config", "--raw", f"oci:{layout}:latest"], capture_output=True, check=True
    ).stdout
    assert raw == image().raw
    subprocess.run(["skopeo", "copy", "--quiet", f"oci:{layout}", f"dir:{tmp_path / 'copied'}"], check=True)
    bundle = tmp_path / "bundle"
    subprocess.run(["umoci", "unpack", "--image", f"{layout}:latest", bundle], check=True, capture_output=True)
    assert (bundle / "rootfs/a/kept").read_text() == "2"
    assert not (bundle / "rootfs/a/old").exists()


def test_podman_pulls_the_archive(builder: Builder, open_tmp_path: Path) -> None:
    source = WithRaw(Layer().file("said", "hello"), config={"Cmd": ["/bin/cat", "/said"]})
    archive = open_tmp_path / "x.tar"
    archive_oci(write(source, open_tmp_path).formats["oci"], archive)
    id_ = builder.run(["podman", "pull", "--quiet", f"oci-archive:{archive}"]).stdout.strip()
    try:
        assert id_ == source.config.digest.removeprefix("sha256:")
        show = 'cat "$(podman image mount "$0")/said"; podman image unmount "$0" >/dev/null'
        assert builder.run(["podman", "unshare", "sh", "-c", show, id_]).stdout == "hello"
    finally:
        builder.run(["podman", "rmi", "--force", id_])
