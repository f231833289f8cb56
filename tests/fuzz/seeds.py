"""The inputs to begin with: small and whole, one for each compressor and each kind of thing a format has."""

from __future__ import annotations

import gzip
import io
import json
import random
import struct
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

from hpcbinder import sif
from hpcbinder.squashfs import Options, compressors, write_layer

_DIGEST = "sha256:" + "0" * 64


def write_seeds(corpus: Path) -> None:
    """Write each target's seeds into its folder; what has been found and kept there stays."""
    for target, name, data in _seeds():
        folder = corpus / target
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"seed-{name}").write_bytes(data)


def _seeds() -> Iterator[tuple[str, str, bytes]]:
    layer = _layer()
    for compressor in ("gzip", "zstd", "xz", "lz4"):
        yield "squashfs", compressor, _squashed(layer, compressor)
    plain = _plain(layer)
    yield "squashfs", "plain", plain
    yield "squashfs", "index", _plain(_many())
    yield "merge", "plain", plain
    yield "merge", "gzip", _squashed(layer, "gzip")
    yield "merge", "zstd", _squashed(layer, "zstd")
    yield "sif", "plain", _sif(plain)
    yield "sif", "signed", _sif(plain, signed=True)
    yield "tar", "pax", layer
    yield "tar", "gnu", _layer(tarfile.GNU_FORMAT)
    yield "tar", "sparse", _sparse()
    yield "tar", "sparse-old", _old_sparse()
    yield "tar", "links", _links()
    yield "config", "whole", _config()
    yield "archive", "docker", _archive()
    yield "layout", "whole", b"\0".join(json.dumps(part).encode() for part in _LAYOUT)
    yield "manifest", "manifest", json.dumps(_MANIFEST).encode()
    yield "manifest", "index", json.dumps(_INDEX).encode()
    lines = b"".join(json.dumps(line).encode() + b"\n" for line in _TAR_SPLIT)
    yield "tarsplit", "plain", b"p" + lines
    yield "tarsplit", "packed", b"r" + gzip.compress(lines, mtime=0)
    yield "storage", "whole", json.dumps(_IMAGES).encode() + b"\0" + json.dumps(_LAYERS).encode()


def _layer(form: int = tarfile.PAX_FORMAT) -> bytes:
    chance = random.Random(1)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as tar:

        def add(name: str, kind: bytes = tarfile.REGTYPE, content: bytes = b"", **fields: Any) -> None:
            member = tarfile.TarInfo(name)
            member.type, member.size, member.mtime = kind, len(content), 1_600_000_000
            for key, value in fields.items():
                setattr(member, key, value)
            tar.addfile(member, io.BytesIO(content))

        add("d", tarfile.DIRTYPE, mode=0o1777, pax_headers={"SCHILY.xattr.user.kind": "folder"})
        add("d/one", content=chance.randbytes(200), pax_headers={"SCHILY.xattr.user.kind": "folder"})
        add("d/blocks", content=b"x" * 4096 + bytes(4096) + b"end", uid=1000)
        add("d/hole", content=bytes(4096))
        add("link", tarfile.SYMTYPE, linkname="d/../d/one")
        add("hard", tarfile.LNKTYPE, linkname="d/one")
        add("pipe", tarfile.FIFOTYPE)
        add("null", tarfile.CHRTYPE, devmajor=1, devminor=3)
        add("d/.wh.two", mode=0)
        add("e/.wh..wh..opq", mode=0)
        add("elsewhere", tarfile.LNKTYPE, linkname="a")
        if form == tarfile.GNU_FORMAT:
            add("long/" + "n" * 120, tarfile.SYMTYPE, linkname="t" * 120)
    return _trimmed(buffer.getvalue())


def _trimmed(tar: bytes) -> bytes:
    """With one record at its end, rather than up to twenty."""
    while tar.endswith(bytes(1024)):
        tar = tar[:-512]
    return tar


def _many() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for number in range(90):
            member = tarfile.TarInfo(f"d/{number:02}{'y' * 96}")
            member.type = tarfile.FIFOTYPE
            tar.addfile(member)
    return buffer.getvalue()


def _links() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, kind, target in (
            ("l1", tarfile.LNKTYPE, "l2"),
            ("l2", tarfile.LNKTYPE, "s/f"),
            ("s", tarfile.SYMTYPE, "/d"),
            ("d", tarfile.DIRTYPE, ""),
            ("s/f", tarfile.REGTYPE, ""),
            ("loop", tarfile.LNKTYPE, "loop"),
            ("round", tarfile.SYMTYPE, "round/x"),
        ):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, target
            tar.addfile(member)
    return _trimmed(buffer.getvalue())


def _sparse() -> bytes:
    """GNU's sparse files, form 1.0."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        member = tarfile.TarInfo("GNUSparseFile.0/holes")
        content = b"2\n0\n5\n10000\n5\n".ljust(512, b"\0") + b"firstlast!"
        member.size = len(content)
        member.pax_headers = {
            "GNU.sparse.major": "1",
            "GNU.sparse.minor": "0",
            "GNU.sparse.name": "holes",
            "GNU.sparse.realsize": "20000",
        }
        tar.addfile(member, io.BytesIO(content))
    return _trimmed(buffer.getvalue())


def _old_sparse() -> bytes:
    member = tarfile.TarInfo("holes")
    member.size = 10
    header = bytearray(member.tobuf(tarfile.GNU_FORMAT))
    header[156:157] = b"S"
    for place, (offset, length) in ((386, (0, 5)), (410, (10000, 5))):
        header[place : place + 24] = b"%011o\0%011o\0" % (offset, length)
    header[483:495] = b"%011o\0" % 20000
    header[148:156] = b"        "
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header) + b"firstlast!".ljust(512, b"\0") + bytes(512)


def _squashed(tar: bytes, compressor: str) -> bytes:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "image"
        write_layer(io.BytesIO(tar), path, Options(compressor, None, 4096), jobs=1)
        data = path.read_bytes()
    (used,) = struct.unpack_from("<Q", data, 40)
    return data[:used]


class _Stored(compressors.Gzip):
    def compress(self, data: bytes) -> bytes:
        return bytes(super().compress(data)) if data.startswith(b"xxxx") else data


def _plain(tar: bytes) -> bytes:
    """With nothing packed but a file's first block, so that changes reach the records."""
    with mock.patch.object(compressors, "by_name", lambda name, level: _Stored(6)):
        return _squashed(tar, "gzip")


def _sif(image: bytes, signed: bool = False) -> bytes:
    """Without the room that a SIF leaves between its parts."""
    signature = (
        b"-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA256\n\n"
        + json.dumps({"objects": [{"relativeId": 1, "objectDigest": _DIGEST}]}).encode()
        + b"\n-----BEGIN PGP SIGNATURE-----\n\n=x\n-----END PGP SIGNATURE-----\n"
    )
    objects = [
        (sif.Kind.DEFFILE, b"Bootstrap: x\n", 0, b""),
        (sif.Kind.JSON, b'{"config": {"Env": ["A=b"]}}', 0, b""),
        (sif.Kind.PARTITION, image, 0, struct.pack("<ii3s", 1, 2, b"02\0")),
    ]
    if signed:
        objects.append((sif.Kind.SIGNATURE, signature, 0xF0000001, bytes(384)))
        objects.append((sif.Kind.OCI_BLOB, b"{}", 0, _DIGEST.encode()))
    slots = len(objects) + 1
    table_at, position = 128, 128 + 585 * slots
    table, body = b"", b""
    for number, (kind, content, link, extra) in enumerate(objects, 1):
        name = b"oci-config.json" if kind == sif.Kind.JSON else b"x"
        table += struct.pack(
            "<i?III3q4q128s384s", kind, True, number, 0xF0000001, link, position, len(content), len(content),
            1, 1, 0, 0, name, extra,
        )  # fmt: skip
        position += len(content)
        body += content
    table = table.ljust(585 * slots, b"\0")
    header = struct.pack(
        "<32s10s3s3s16s8q", b"#!/usr/bin/env run-singularity\n", b"SIF_MAGIC\0", b"01\0", b"02\0", bytes(16), 1, 1,
        1, slots, table_at, len(table), table_at + len(table), len(body),
    )  # fmt: skip
    return header + table + body


def _config() -> bytes:
    value = {
        "architecture": "amd64",
        "os": "linux",
        "created": "2026-01-02T03:04:05Z",
        "config": {
            "Env": ["PATH=/usr/bin:/bin", "A='b' $c", "N=1\n2"],
            "Entrypoint": ["/bin/sh", "-c"],
            "Cmd": ["echo 'x'"],
            "WorkingDir": "/srv",
            "Labels": {"a": "b"},
            "Volumes": {"/data": {}},
            "User": "1000:1000",
            "ExposedPorts": {"80/tcp": {}},
            "StopSignal": "SIGTERM",
        },
        "rootfs": {"type": "layers", "diff_ids": [_DIGEST]},
        "history": [{"created_by": "x", "empty_layer": True}],
    }
    return json.dumps(value).encode()


def _archive() -> bytes:
    layer = _trimmed(_sparse())
    config = json.dumps({"rootfs": {"diff_ids": [_DIGEST, "sha256:" + "1" * 64]}}).encode()
    manifest = [{"Config": "c.json", "RepoTags": ["x:1"], "Layers": ["a/layer.tar", "b/layer.tar"]}]
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for name, content in (
            ("a/layer.tar", gzip.compress(layer, mtime=0)),
            ("c.json", config),
            ("manifest.json", json.dumps(manifest).ljust(512).encode()),
        ):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
        member = tarfile.TarInfo("b/layer.tar")
        member.type, member.linkname = tarfile.SYMTYPE, "../a/layer.tar"
        tar.addfile(member)
    return _trimmed(buffer.getvalue())


_LAYOUT = [
    {"imageLayoutVersion": "1.0.0"},
    {
        "schemaVersion": 2,
        "manifests": [
            {
                "mediaType": "application/vnd.oci.image.manifest.v1+json",
                "digest": "@m",
                "size": 1001,
                "annotations": {"org.opencontainers.image.ref.name": "x"},
                "platform": {"architecture": "amd64", "os": "linux"},
            }
        ],
    },
    {
        "schemaVersion": 2,
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": "@c", "size": 1002},
        "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": "@c", "size": 1002}],
    },
    {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": [_DIGEST]}},
]
_BLOB = {"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": _DIGEST, "size": 10}
_MANIFEST = {
    "schemaVersion": 2,
    "mediaType": "application/vnd.oci.image.manifest.v1+json",
    "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": _DIGEST, "size": 10},
    "layers": [_BLOB, _BLOB],
}
_INDEX = {
    "schemaVersion": 2,
    "manifests": [
        {**_BLOB, "platform": {"architecture": "arm64", "os": "linux"}},
        {**_BLOB, "platform": {"architecture": "amd64", "os": "linux"}},
        {**_BLOB, "platform": {"architecture": "unknown", "os": "unknown"}},
    ],
}
_TAR_SPLIT = [
    {"type": 2, "payload": "YWJj", "position": 0},
    {"type": 1, "name": "file", "size": 5, "payload": "AAAA", "position": 1},
    {"type": 1, "name": "./d/file", "size": 5000, "position": 2},
    {"type": 1, "name": "d/", "size": 0, "position": 3},
    {"type": 1, "name_raw": "ZmlsZQ==", "size": 5, "position": 4},
]
_IMAGES = [{"id": "1" * 64, "names": ["localhost/x:1"], "layer": "2" * 64}, {"id": "3" * 64, "layer": "4" * 64}]
_LAYERS = [
    {"id": "2" * 64, "parent": "4" * 64, "diff-digest": _DIGEST},
    {"id": "4" * 64, "diff-digest": "sha256:" + "1" * 64},
]
