"""Layers in containers/storage, put together again as the tars they came in; and storages that mean harm."""

from __future__ import annotations

import base64
import gzip
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from hpcbinder.engine import layerreader
from hpcbinder.engine.layerreader import replay
from hpcbinder.engine.storage import LayerReader, Storage
from hpcbinder.errors import BuildError

ONE, TWO = "1" * 64, "2" * 64


def raw(content: bytes) -> dict[str, Any]:
    return {"type": 2, "payload": base64.b64encode(content).decode()}


def content(name: str, size: int) -> dict[str, Any]:
    return {"type": 1, "name": name, "size": size, "payload": "AAAAAAAAAAA="}


def storage(root: Path, layers: dict[str, list[dict[str, Any]]], driver: str = "overlay") -> Storage:
    records = root / f"{driver}-layers"
    records.mkdir(parents=True)
    for id_, entries in layers.items():
        with gzip.open(records / f"{id_}.tar-split.gz", "wt") as file:
            file.writelines(json.dumps(entry) + "\n" for entry in entries)
        (root / ("vfs/dir" if driver == "vfs" else "overlay") / id_ / ("" if driver == "vfs" else "diff")).mkdir(
            parents=True
        )
    found = [{"id": id_, "diff-digest": f"sha256:{id_[0]}"} for id_ in layers]
    (records / "layers.json").write_text(json.dumps([*found, {"id": "../x", "diff-digest": "sha256:x"}, 7]))
    return Storage(root, driver)


def read(found: Storage, *wanted: str) -> dict[str, bytes]:
    layers = found.readable_layers(wanted)
    reader = LayerReader(found, [], {"PATH": "/usr/bin:/bin"})
    return {diff_id: stream.read() for diff_id, stream in reader.read(layers)}


@pytest.mark.parametrize("driver", ["overlay", "vfs"])
def test_a_layer_is_what_it_was(tmp_path: Path, driver: str) -> None:
    entries = [raw(b"header"), content("etc/file", 5), raw(b"\0pad"), content("etc/empty", 0), raw(b"end")]
    strange = base64.b64encode(b"na\xffme").decode()
    found = storage(
        tmp_path, {ONE: entries, TWO: [{"type": 1, "name_raw": strange, "size": 3}, raw(bytes(3 << 20))]}, driver
    )
    place = tmp_path / ("vfs/dir" if driver == "vfs" else "overlay")
    one, two = (place / id_ / ("" if driver == "vfs" else "diff") for id_ in (ONE, TWO))
    (one / "etc").mkdir()
    (one / "etc/file").write_bytes(b"hello")
    Path(os.fsdecode(os.fsencode(two) + b"/na\xffme")).write_bytes(b"abc")
    assert found.readable_layers({"sha256:1", "sha256:x", "sha256:9"}) == {"sha256:1": ONE}
    assert read(found, "sha256:1", "sha256:2") == {
        "sha256:1": b"headerhello\0padend",
        "sha256:2": b"abc" + bytes(3 << 20),
    }


def test_what_is_not_read_is_passed_over(tmp_path: Path) -> None:
    found = storage(tmp_path, {ONE: [raw(bytes(3 << 20))], TWO: [raw(b"two")]})
    reader = LayerReader(found, [], {"PATH": "/usr/bin:/bin"})
    seen = {}
    for diff_id, stream in reader.read(found.readable_layers(["sha256:1", "sha256:2"])):
        seen[diff_id] = stream.read(3)
    assert seen == {"sha256:1": bytes(3), "sha256:2": b"two"}


@pytest.mark.parametrize(
    "record",
    [
        b"\x1f\x8b\x08\0\0\0\0\0\0\3\xff\xff\xff",
        gzip.compress(b"[]\n"),
        gzip.compress(b"[" * 100_000),
        gzip.compress(b'{"type": 2, "payload": 7}\n'),
        gzip.compress(b'{"type": 1, "size": 1e999, "name": "x"}\n'),
        gzip.compress(b'{"type": 1, "size": -1, "name": "x"}\n'),
        gzip.compress(b'{"type": 1, "size": 1}\n'),
        gzip.compress(b'{"type": 1, "size": 1, "name_raw": [1]}\n'),
        gzip.compress(b'{"type": 1, "size": 1, "name": "\\u0000"}\n'),
    ],
)
def test_a_damaged_record_is_named_and_nothing_else(tmp_path: Path, record: bytes) -> None:
    found = storage(tmp_path, {ONE: []})
    (tmp_path / "overlay-layers" / f"{ONE}.tar-split.gz").write_bytes(record)
    with pytest.raises(ValueError):
        list(replay(str(tmp_path), "overlay", ONE))
    with pytest.raises(BuildError, match=f"layer {ONE}: "):
        read(found, "sha256:1")


def test_a_line_without_an_end_does_not_fill_the_memory(tmp_path: Path) -> None:
    storage(tmp_path, {ONE: []})
    with gzip.open(tmp_path / "overlay-layers" / f"{ONE}.tar-split.gz", "wb", 1) as file:
        for _ in range(400):
            file.write(b" " * (1 << 20))
    program = [sys.executable, "-I", "-S", layerreader.__file__, str(tmp_path), "overlay", ONE]
    done = subprocess.run(["prlimit", "--as=300000000", *program], stderr=subprocess.PIPE, text=True)
    assert done.returncode == 1 and done.stderr.startswith(f"layer {ONE}: Expecting value")


def test_records_of_odd_kinds_are_passed_over(tmp_path: Path) -> None:
    for kind, records in (
        (
            "images",
            [{"id": 1, "layer": {}, "names": ["localhost/x"]}, {"id": "i", "layer": "a", "names": [1, "local/"]}],
        ),
        ("layers", [{"id": {}, "parent": []}, {"id": "a", "parent": "a", "diff-digest": []}]),
    ):
        (tmp_path / f"overlay-{kind}").mkdir()
        (tmp_path / f"overlay-{kind}" / f"{kind}.json").write_text(json.dumps(records))
    found = Storage(tmp_path, "overlay")
    assert found.holders("local/") == {"i"}
    assert found.readable_layers({"x"}) == {}
    (tmp_path / "overlay-layers/layers.json").write_text("[" * 100_000)
    assert found.readable_layers({"x"}) == {}


@pytest.mark.parametrize(
    "name",
    [
        "../secret",
        "link",
        "folder/../../secret",
        "up/secret",
        "pipe",
        "folder",
        "missing",
        "",
        "/",
        "file",
        "self/secret",
    ],
)
def test_nothing_outside_a_layer_is_read(tmp_path: Path, name: str) -> None:
    """By no name, no symlink and no device; a file that is shorter than it should be is no content either."""
    found = storage(tmp_path, {ONE: [content(name, 6)]})
    (tmp_path / "overlay" / ONE / "secret").write_text("secret")
    diff = tmp_path / "overlay" / ONE / "diff"
    (diff / "link").symlink_to("../secret")
    (diff / "up").symlink_to("..")
    (diff / "self").symlink_to(".")
    (diff / "folder").mkdir()
    (diff / "file").write_text("short")
    os.mkfifo(diff / "pipe")
    with pytest.raises((ValueError, OSError)):
        list(replay(str(tmp_path), "overlay", ONE))
    with pytest.raises(BuildError, match="cannot be read from storage"):
        read(found, "sha256:1")


@pytest.mark.parametrize(
    "damage", [b"no gzip", gzip.compress(b"no json\n"), gzip.compress(b'{"type": 1, "size": 4}\n')]
)
def test_damaged_records(tmp_path: Path, damage: bytes) -> None:
    found = storage(tmp_path, {ONE: []})
    (tmp_path / "overlay-layers" / f"{ONE}.tar-split.gz").write_bytes(damage)
    with pytest.raises(BuildError, match="cannot be read from storage"):
        read(found, "sha256:1")
    (tmp_path / "overlay-layers/layers.json").write_bytes(damage)
    assert found.readable_layers({"sha256:1"}) == {}


def test_it_runs_by_itself(tmp_path: Path) -> None:
    """With no package and nothing of the person's Python: in a user namespace little else may be there."""
    import hpcbinder.engine.layerreader as module

    storage(tmp_path, {ONE: [raw(b"x")]})
    command = [sys.executable, "-I", "-S", module.__file__, tmp_path, "overlay", ONE]
    assert subprocess.run(command, capture_output=True).stdout == b"\0\0\0\1x\0\0\0\0"


def test_which_images_are_ours(tmp_path: Path) -> None:
    """Those with our name, and what stands on them."""
    found = storage(tmp_path, {})
    layers = [{"id": "b"}, {"id": "c", "parent": "b"}, {"id": "d", "parent": "c"}, {"id": "z"}]
    (tmp_path / "overlay-layers/layers.json").write_text(json.dumps(layers))
    images = [
        {"id": "base", "layer": "b", "names": ["localhost/hpcbinder/base:1"]},
        {"id": "step", "layer": "d"},
        {"id": "other", "layer": "z", "names": ["docker.io/library/debian:12"]},
        {"id": "empty"},
    ]
    (tmp_path / "overlay-images").mkdir()
    (tmp_path / "overlay-images/images.json").write_text(json.dumps(images))
    assert found.holders("localhost/hpcbinder/") == {"base", "step"}
