"""What is fuzzed: functions of one hostile input, which may raise errors of `hpcbinder.errors` and nothing else."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from hpcbinder import look, sif
from hpcbinder.convert.environment import charliecloud_file, image_environment, runscript, shell_exports
from hpcbinder.engine import layerreader
from hpcbinder.engine.storage import Storage
from hpcbinder.errors import HpcbinderError
from hpcbinder.image import DockerArchive, OciImage, OciLayout, dump_config, parse_config
from hpcbinder.image.oci import load_json
from hpcbinder.registry.manifest import Platform, choose, is_index, parse_manifest
from hpcbinder.squashfs import Image, Options, merge, write_layer

Target = Callable[[bytes], None]

_TEMPORARY = tempfile.TemporaryDirectory(prefix="fuzz-")
_FOLDER = Path(_TEMPORARY.name)
_READ = 4 << 20
"""Bytes of files' content that are read of one image: holes cost nothing to claim."""
_GOOD = {
    "etc": None,
    "etc/hostname": b"node\n",
    "usr/lib/libx.so": bytes(range(256)) * 20,
    "a": b"below",
    "d/one": b"1",
    "d/two": b"2",
}


def squashfs(data: bytes) -> None:
    """All that can be asked of an image."""
    path = _file("image", data)
    with _allowed(), Image.open(path) as image:
        image.info()
        _look(image)
    with _allowed(), Image.open(path) as image:
        for problem in image.check(lambda done: None):
            assert problem and "\n" not in problem.encode("ascii", "backslashreplace").decode()


def merging(data: bytes) -> None:
    """A hostile layer below and above a good one: what a merge makes is whole, its files' content apart."""
    hostile, good, out = _file("hostile", data), _FOLDER / "good", _FOLDER / "merged"
    for compressor in ("gzip", "zstd", "xz", "lz4"):
        with _allowed():
            with Image.open(hostile) as image:
                info = image.info()
            if info.compressor != compressor:
                continue
            write_layer(io.BytesIO(_tar()), good, Options(compressor, 1, info.block_size), jobs=1)
            for layers in ([good, hostile], [hostile, good]):
                with _allowed():
                    with out.open("w+b") as file:
                        merge(layers, file, dated=(1, 1))
                    _whole_tables(out)


def sif_file(data: bytes) -> None:
    """Header and descriptors, and all that is shown of what is in it."""
    path = _file("image.sif", data)
    with _allowed():
        sif.overlaps(sif.read_sif(path))
    with _allowed():
        sif.primary_partition(path)
    with _allowed():
        json.dumps(look.inspect(path), indent=2)
    with _allowed():
        look.check(path, lambda done: None)


def tar(data: bytes) -> None:
    """A layer's tar: what is made of it is a whole image, and can be merged or says why not."""
    path, out = _FOLDER / "layer", _FOLDER / "out"
    with _allowed():
        write_layer(io.BytesIO(data), path, Options("gzip", 1, 4096), jobs=1)
        with Image.open(path) as image:
            assert image.check(lambda done: None) == []
        with out.open("w+b") as file:
            merge([path, path], file)
        with Image.open(out) as image:
            assert image.check(lambda done: None) == []


def config(data: bytes) -> None:
    """An image's configuration, and what runtimes are told of it."""
    with _allowed():
        found = parse_config(data)
        environment = image_environment(found.env)
        for text in (shell_exports(environment), charliecloud_file(environment)[0]):
            assert b"\0" not in text.encode()
        runscript(found.entrypoint, found.cmd).encode()
        assert parse_config(dump_config(found)).env == found.env


def manifest(data: bytes) -> None:
    """A registry's manifest or index."""
    with _allowed():
        value = load_json(data, "manifest")
        if is_index(value):
            choose(value, Platform("amd64"), "here")
        else:
            parse_manifest(value, "sha256:" + "0" * 64, "here")


def archive(data: bytes) -> None:
    """A docker-archive or an OCI layout in a tar."""
    path = _file("archive.tar", data)
    for oci in (False, True):
        with _allowed():
            _read_layers(DockerArchive(path, oci=oci))


def layout(data: bytes) -> None:
    """An OCI layout: its four files behind each other, with NUL between them. `@m` and `@c` stand for the digests of
    manifest and configuration, 1001 and 1002 for their sizes, so that changes are not found by these."""
    folder = _FOLDER / "layout"
    blobs = folder / "blobs" / "sha256"
    blobs.mkdir(parents=True, exist_ok=True)
    version, index, manifest, config = (data.split(b"\0") + [b""] * 4)[:4]
    digest = hashlib.sha256(config).hexdigest()
    (blobs / digest).write_bytes(config)
    manifest = manifest.replace(b"@c", b"sha256:" + digest.encode()).replace(b"1002", b"%d" % len(config))
    digest = hashlib.sha256(manifest).hexdigest()
    (blobs / digest).write_bytes(manifest)
    index = index.replace(b"@m", b"sha256:" + digest.encode()).replace(b"1001", b"%d" % len(manifest))
    (folder / "oci-layout").write_bytes(version)
    (folder / "index.json").write_bytes(index)
    try:
        for name in (None, "x"):
            with _allowed():
                _read_layers(OciLayout(folder, name))
    finally:
        for blob in blobs.iterdir():
            blob.unlink()


def _read_layers(image: OciImage) -> None:
    for _, stream in image.layers(image.config.diff_ids):
        while stream.read(1 << 20):
            pass


def tarsplit(data: bytes) -> None:
    """How containers/storage records a layer; the first byte says whether the rest is still to be packed."""
    root = _FOLDER / "storage"
    inside = root / "overlay" / "l" / "diff"
    if not inside.is_dir():
        (inside / "d").mkdir(parents=True)
        (inside / "file").write_bytes(b"12345")
        (inside / "d" / "file").write_bytes(b"x" * 5000)
        (inside / "out").symlink_to("/etc/passwd")
        os.mkfifo(inside / "pipe")
        (root / "overlay-layers").mkdir()
    record = gzip.compress(data[1:], 1, mtime=0) if data[:1] == b"p" else data[1:]
    (root / "overlay-layers" / "l.tar-split.gz").write_bytes(record)
    given = 0
    try:
        for block in layerreader.replay(str(root), "overlay", "l"):
            given += len(block)
            assert b"root:x:0" not in block
            if given > 64 << 20:
                break
    except (OSError, ValueError):
        pass


def storage(data: bytes) -> None:
    """The records of containers/storage: images, a line of NULs, layers."""
    root = _FOLDER / "records"
    images, _, layers = data.partition(b"\0")
    for kind, content in (("images", images), ("layers", layers)):
        (root / f"overlay-{kind}").mkdir(parents=True, exist_ok=True)
        (root / f"overlay-{kind}" / f"{kind}.json").write_bytes(content)
    with _allowed():
        found = Storage(root, "overlay")
        found.holders("localhost/")
        found.readable_layers({"sha256:" + "0" * 64})


TARGETS: dict[str, Target] = {
    "squashfs": squashfs,
    "merge": merging,
    "sif": sif_file,
    "tar": tar,
    "archive": archive,
    "layout": layout,
    "config": config,
    "manifest": manifest,
    "tarsplit": tarsplit,
    "storage": storage,
}
"""By their names on the command line; each has a folder of `corpus`."""


class _allowed:
    """A block that may fail with an error of ours, whose text is then looked at."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        if not isinstance(error, HpcbinderError):
            return False
        assert error.message and len(error.message) < 2000
        return True


def _file(name: str, data: bytes) -> Path:
    path = _FOLDER / name
    path.write_bytes(data)
    return path


def _look(image: Image) -> None:
    read = 0
    files = []
    for path, node in image.walk():
        image.lookup(path, follow=True)
        if node.kind == "directory":
            image.listdir(path)
        elif node.kind == "symlink":
            image.readlink(path)
            image.locate(path)
        elif node.kind == "file":
            image.place(node)
            files.append(node)
            read += node.size
            if read < _READ:
                assert len(image.read(path, _READ)) == node.size
    if len(files) > 1 and max(node.size for node in files) < _READ:
        image.same_content(files[0], image, files[-1])


def _whole_tables(path: Path) -> None:
    try:
        with Image.open(path) as image:
            for name, node in image.walk():
                found = image.lookup(name)
                assert found is not None and found.kind == node.kind
                if node.kind == "file":
                    image.place(node)
    except HpcbinderError as error:
        raise AssertionError("the merged image's tables are damaged") from error


def _tar() -> bytes:
    import tarfile

    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as out:
        for name, content in _GOOD.items():
            member = tarfile.TarInfo(name)
            member.type = tarfile.DIRTYPE if content is None else tarfile.REGTYPE
            member.size = len(content or b"")
            out.addfile(member, io.BytesIO(content or b""))
    return buffer.getvalue()
