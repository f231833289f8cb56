"""OCI layouts: what a good one gives, and one clear error for each bad one. test_real_transports.py has real ones."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hpcbinder.errors import ConvertError, UsageError
from hpcbinder.image import DockerArchive, OciLayout, Platform

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
NAME, CONTAINERD = "org.opencontainers.image.ref.name", "io.containerd.image.name"


class Layout:
    """A layout in the making."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.entries: list[dict[str, Any]] = []
        (path / "blobs/sha256").mkdir(parents=True)
        (path / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')

    def blob(self, raw: bytes, **more: Any) -> dict[str, Any]:
        digest = hashlib.sha256(raw).hexdigest()
        (self.path / "blobs/sha256" / digest).write_bytes(raw)
        return {"digest": f"sha256:{digest}", "size": len(raw), **more}

    def image(self, word: str, architecture: str = "amd64", **changes: Any) -> dict[str, Any]:
        """Its manifest's descriptor; the layer's one file says `word`."""
        tar = tar_of(word)
        config = {
            "architecture": architecture,
            "os": "linux",
            "config": {"Cmd": [word]},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(tar).hexdigest()}"]},
        }
        layer = self.blob(gzip.compress(tar, mtime=0), mediaType="application/vnd.oci.image.layer.v1.tar+gzip")
        manifest = {"schemaVersion": 2, "config": self.blob(json.dumps(config).encode()), "layers": [layer], **changes}
        return self.blob(json.dumps(manifest).encode(), mediaType=MANIFEST)

    def index(self, *entries: dict[str, Any]) -> dict[str, Any]:
        return self.blob(json.dumps({"schemaVersion": 2, "manifests": entries}).encode())

    def close(self, *entries: dict[str, Any]) -> Path:
        (self.path / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": entries}))
        return self.path


def tar_of(word: str) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        member = tarfile.TarInfo("word")
        member.size = len(word)
        tar.addfile(member, io.BytesIO(word.encode()))
    return out.getvalue()


def named(entry: dict[str, Any], name: str, *, by: str = NAME) -> dict[str, Any]:
    return {**entry, "annotations": {**entry.get("annotations", {}), by: name}}


def of(entry: dict[str, Any], architecture: str, os_: str = "linux") -> dict[str, Any]:
    return {**entry, "platform": {"architecture": architecture, "os": os_}}


def packed(path: Path) -> Path:
    """The same as an oci-archive."""
    target = path.with_suffix(".tar")
    with tarfile.open(target, "w") as tar:
        tar.add(path, arcname=".")
    return target


Open = Callable[..., "OciLayout | DockerArchive"]


def in_archive(path: Path, *arguments: Any) -> DockerArchive:
    return DockerArchive(packed(path), *arguments, oci=True)


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path / "layout")


both = pytest.mark.parametrize("opened", [OciLayout, in_archive], ids=["folder", "archive"])


@both
def test_the_only_image(layout: Layout, opened: Open) -> None:
    image = opened(layout.close(layout.image("hello")))
    assert image.config.cmd == ("hello",)
    ((diff_id, stream),) = [(diff_id, stream.read()) for diff_id, stream in image.layers(image.config.diff_ids)]
    assert (diff_id, stream) == (image.config.diff_ids[0], tar_of("hello"))
    assert list(image.layers(())) == []
    with pytest.raises(ConvertError, match="no layer"):
        list(image.layers(["sha256:" + "0" * 64]))


@both
@pytest.mark.parametrize(
    ("wanted", "word"),
    [
        ("1", "one"),
        ("docker.io/library/two:latest", "two"),
        ("two", "two"),
        ("two:latest", "two"),
        ("ghcr.io/org/three:3", "three"),
        ("@0", "one"),
        ("@2", "three"),
    ],
)
def test_one_of_several(layout: Layout, opened: Open, wanted: str, word: str) -> None:
    two = named(layout.image("two"), "docker.io/library/two:latest", by=CONTAINERD)
    three = named(named(layout.image("three"), "3"), "ghcr.io/org/three:3", by=CONTAINERD)
    path = layout.close(named(layout.image("one"), "1"), two, three)
    assert opened(path, wanted).config.cmd == (word,)


@both
def test_several_and_none_named(layout: Layout, opened: Open) -> None:
    path = layout.close(named(layout.image("one"), "1"), layout.image("two"))
    with pytest.raises(ConvertError, match=r"holds 2 images where one is expected: 1 \(@0\), without a name \(@1\)"):
        opened(path)
    with pytest.raises(ConvertError, match=r"holds no image '3': 1 \(@0\)"):
        opened(path, "3")
    with pytest.raises(ConvertError, match="holds no image @2"):
        opened(path, "@2")
    with pytest.raises(UsageError, match="no place"):
        opened(path, "@x")


def test_a_name_that_two_images_have(layout: Layout) -> None:
    path = layout.close(named(layout.image("one"), "1"), named(layout.image("two"), "1"))
    with pytest.raises(ConvertError, match="several images '1'"):
        OciLayout(path, "1")


def test_by_digest(layout: Layout) -> None:
    one = layout.image("one")
    path = layout.close(named(one, "1"), named(layout.image("two"), "2"))
    assert OciLayout(path, one["digest"]).config.cmd == ("one",)
    assert OciLayout(path, f"@{one['digest']}").config.cmd == ("one",)
    with pytest.raises(ConvertError, match="holds no image sha256:0000"):
        OciLayout(path, "sha256:" + "0" * 64)


def test_one_image_with_two_tags_is_one_image(layout: Layout) -> None:
    one = layout.image("one")
    assert OciLayout(layout.close(named(one, "1"), named(one, "2"))).config.cmd == ("one",)


@both
@pytest.mark.parametrize("nested", [False, True])
def test_the_platform(layout: Layout, opened: Open, nested: bool) -> None:
    here = Platform.here().architecture
    other = "s390x"
    entries = [of(layout.image("other", other), other), of(layout.image("here", here), here)]
    attestation = of({**layout.blob(b"{}")}, "unknown", "unknown")
    path = layout.close(layout.index(*entries, attestation)) if nested else layout.close(*entries, attestation)
    assert opened(path).config.cmd == ("here",)
    assert opened(path, None, Platform(other)).config.cmd == ("other",)
    with pytest.raises(ConvertError, match=rf"not there for linux/riscv64, only for linux/{other}, linux/{here}"):
        opened(path, None, Platform("riscv64"))


def test_an_image_for_another_machine_alone_is_taken(layout: Layout) -> None:
    path = layout.close(layout.index(of(layout.image("other", "s390x"), "s390x")))
    assert OciLayout(path).config.architecture == "s390x"


def test_blobs_may_be_links_inside_the_layout(layout: Layout) -> None:
    path = layout.close(layout.image("hello"))
    (path / "blobs/sha256").rename(path / "shared")
    (path / "blobs/sha256").symlink_to("../shared")
    assert OciLayout(path).config.cmd == ("hello",)


class TestHostile:
    def test_a_blob_that_is_another(self, layout: Layout) -> None:
        entry = layout.image("hello")
        blob = layout.path / "blobs/sha256" / entry["digest"].partition(":")[2]
        blob.write_bytes(blob.read_bytes().replace(b"config", b"CONFIG"))
        with pytest.raises(ConvertError, match="not what its digest promises"):
            OciLayout(layout.close(entry))

    def test_a_layer_that_is_missing_or_of_another_size(self, layout: Layout) -> None:
        path = layout.close(layout.image("hello"))
        image = OciLayout(path)
        layer = max((path / "blobs/sha256").iterdir(), key=lambda blob: blob.read_bytes()[:2] == b"\x1f\x8b")
        layer.write_bytes(layer.read_bytes() + b"x")
        with pytest.raises(ConvertError, match="not the size"):
            list(image.layers(image.config.diff_ids))
        layer.unlink()
        with pytest.raises(ConvertError, match=r"cannot be read: No such file"):
            list(image.layers(image.config.diff_ids))

    def test_a_link_out_of_the_layout(self, layout: Layout, tmp_path: Path) -> None:
        entry = layout.image("hello")
        path = layout.close(entry)
        blob = path / "blobs/sha256" / entry["digest"].partition(":")[2]
        blob.rename(tmp_path / "outside")
        blob.symlink_to(tmp_path / "outside")
        with pytest.raises(ConvertError, match="link that leads out"):
            OciLayout(path)

    def test_links_in_a_circle(self, layout: Layout) -> None:
        path = layout.close()
        (path / "index.json").unlink()
        (path / "index.json").symlink_to("index.json")
        with pytest.raises(ConvertError):
            OciLayout(path)

    def test_a_pipe_is_not_waited_for(self, layout: Layout) -> None:
        path = layout.close()
        (path / "index.json").unlink()
        os.mkfifo(path / "index.json")
        with pytest.raises(ConvertError, match="is no file"):
            OciLayout(path)

    def test_an_index_in_an_index_without_end(self, layout: Layout) -> None:
        entry = layout.image("hello")
        for _ in range(10):
            entry = layout.index(entry)
        with pytest.raises(ConvertError, match="nested too deep"):
            OciLayout(layout.close(entry))

    def test_json_of_a_giant(self, layout: Layout) -> None:
        path = layout.close()
        with (path / "index.json").open("r+b") as file:
            file.truncate(1 << 40)  # a hole
        with pytest.raises(ConvertError, match="too large"):
            OciLayout(path)

    def test_json_that_nests_without_end(self, layout: Layout) -> None:
        path = layout.close()
        (path / "index.json").write_text("[" * 100_000)
        with pytest.raises(ConvertError, match="no JSON"):
            OciLayout(path)

    @pytest.mark.parametrize(
        ("changes", "words"),
        [
            ({"layers": []}, "names 0 layers, its configuration 1"),
            ({"layers": [{"digest": "sha256:../../etc/passwd", "size": 1, "mediaType": "tar"}]}, "no SHA-256"),
            ({"layers": [{"size": -1, "mediaType": "tar"}]}, "without a size"),
            ({"layers": [{"size": 1, "mediaType": "x.nondistributable.tar"}]}, "of the kind"),
            ({"layers": "many"}, "damaged"),
            ({"schemaVersion": 1}, "no longer read"),
            ({"config": None}, "no longer read"),
        ],
    )
    def test_a_manifest_that_lies(self, layout: Layout, changes: dict[str, Any], words: str) -> None:
        path = layout.close(layout.image("hello", **changes))
        with pytest.raises(ConvertError, match=words) as caught:
            OciLayout(path)
        assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)

    def test_what_is_no_layout(self, tmp_path: Path) -> None:
        with pytest.raises(ConvertError, match="is not there"):
            OciLayout(tmp_path / "none")
        with pytest.raises(ConvertError, match="no OCI layout"):
            OciLayout(tmp_path)
        (tmp_path / "oci-layout").write_text('{"imageLayoutVersion":"2.0.0"}')
        with pytest.raises(ConvertError, match="version"):
            OciLayout(tmp_path)
        (tmp_path / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
        with pytest.raises(ConvertError, match=r"index\.json cannot be read"):
            OciLayout(tmp_path)

    def test_names_that_command_a_terminal_are_shown_as_escapes(self, layout: Layout) -> None:
        path = layout.close(named(layout.image("one"), "a\x1b[2J\nb"), layout.image("two"))
        with pytest.raises(ConvertError) as caught:
            OciLayout(path)
        assert "\x1b" not in str(caught.value) and "\n" not in str(caught.value)
