"""Our images in the eyes of the kernel and of other tools, and theirs in ours."""

from __future__ import annotations

import hashlib
import io
import json
import os
import random
import subprocess
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from squashfs_strategies import layers
from squashfs_support import Item, Seen, directory, in_image, in_tar, make_tar, merged, union

from hpcbinder.squashfs import Image, Options

pytestmark = pytest.mark.rig

LOWER = {
    "./": directory(0o755, mtime=3),
    "dir": directory(0o2775, uid=1000, gid=100),
    "dir/small": Item(content=b"hello\n", mode=0o4755),
    "dir/blocks": Item(content=random.Random(1).randbytes(400_000)),
    "dir/hole": Item(content=b"begin" + bytes(600_000) + b"end"),
    "link": Item("symlink", target="dir/small", mode=0o777),
    "hard": Item("link", target="dir/small"),
    "copied-up": Item("link", target="dir/small"),
    "console": Item("character", device=(5, 1), mode=0o600),
    "disk": Item("block", device=(259, 1000), mode=0o660),
    "pipe": Item("fifo"),
    "not utf-8 \udcff": Item(content=b"x", uid=4_000_000_000, mtime=4_000_000_000),
    "hidden/x": Item(content=b"x"),
    "opaque/x": Item(content=b"x"),
    **{f"many/{n:05}-{'x' * (n % 40)}": Item(content=b"%d" % n, mode=0o600 + n % 8) for n in range(1000)},
}
UPPER = {
    ".wh.hidden": Item(),
    "opaque/.wh..wh..opq": Item(),
    "opaque/y": Item(content=b"y"),
    "copied-up": Item(content=b"changed", mtime=77),
    "dir": directory(0o700, uid=5),
    "many/.wh.00007-xxxxxxx": Item(),
}

MOUNTED = """
mount -t squashfs -o loop,ro "$1" "$2"
tar -C "$2" --numeric-owner --format=pax -cf - .
"""
FUSE_MOUNTED = """
squashfuse "$1" "$2"
tar -C "$2" --numeric-owner --format=pax -cf - .
fusermount3 -u "$2"
"""
UNPACKED = """
unsquashfs -no-progress -d "$2/tree" "$1" >&2
tar -C "$2/tree" --numeric-owner --format=pax -cf - .
"""


def shown(script: str, image: Path, folder: Path) -> bytes:
    """A tar of what a tool makes of an image, in a mount namespace that takes its mounts with it."""
    folder.mkdir()
    command = ["unshare", "--mount", "sh", "-eu", "-c", script, "sh", str(image), str(folder)]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout


@pytest.mark.parametrize("compressor", ["gzip", "zstd"])
@pytest.mark.parametrize("script", [MOUNTED, FUSE_MOUNTED, UNPACKED], ids=["kernel", "squashfuse", "unsquashfs"])
def test_everybody_sees_the_same(tmp_path: Path, script: str, compressor: str) -> None:
    image = merged([make_tar(LOWER), make_tar(UPPER)], tmp_path, Options(compressor, None, 4096))
    expected = union([{name: item for name, item in LOWER.items() if name != "./"}, UPPER])
    expected[""] = in_image(image)[""]
    found = in_tar(shown(script, image, tmp_path / "shown"))
    if script == FUSE_MOUNTED:
        # It numbers inodes by path, so that nobody can tell which names are one file.
        expected = {name: replace(seen, names=frozenset([name])) for name, seen in expected.items()}
    assert found == expected


def test_the_kernel_finds_each_name_of_a_long_directory(tmp_path: Path) -> None:
    names = [f"{hashlib.sha256(b'%d' % n).hexdigest()}{'y' * (n % 150)}" for n in range(3000)]
    image = merged([make_tar({f"d/{name}": Item(content=name.encode()) for name in names})], tmp_path)
    (tmp_path / "names").write_text("\n".join(f"{tmp_path}/shown/d/{name}" for name in names))
    script = f'mount -t squashfs -o loop,ro "$1" "$2"; xargs cat < {tmp_path}/names; ! test -e "$2/d/0"'
    assert shown(script, image, tmp_path / "shown") == "".join(names).encode()


@pytest.mark.parametrize(
    "option", ["-comp gzip", "-comp zstd", "-comp xz", "-comp gzip -noI -noD -noF", "-always-use-fragments"]
)
def test_images_of_mksquashfs_are_read(tmp_path: Path, option: str) -> None:
    tree = tmp_path / "tree"
    (tree / "sub").mkdir(parents=True)
    for n in range(60):
        (tree / "sub" / f"f{n}").write_bytes(random.Random(n).randbytes(n * 997) + bytes(n * 1500))
    (tree / "link").symlink_to("sub/f7")
    os.link(tree / "sub" / "f8", tree / "hard")
    command = ["mksquashfs", str(tree), str(tmp_path / "image"), "-b", "16384", "-no-progress", "-quiet"]
    subprocess.run([*command, *option.split()], check=True)
    with Image.open(tmp_path / "image") as image:
        assert image.listdir("") == ["hard", "link", "sub"]
        assert image.read("link", follow=True) == (tree / "link").read_bytes()
        for n in range(60):
            assert image.read(f"sub/f{n}") == (tree / "sub" / f"f{n}").read_bytes()
        assert sum(1 for _ in image.walk()) == 64


def unpacked_by_umoci(tars: Sequence[bytes], folder: Path) -> bytes:
    """The tar of the root file system umoci makes of layers."""
    blobs = folder / "oci" / "blobs" / "sha256"
    blobs.mkdir(parents=True)

    def blob(data: bytes, kind: str) -> dict[str, object]:
        digest = hashlib.sha256(data).hexdigest()
        (blobs / digest).write_bytes(data)
        return {"mediaType": f"application/vnd.oci.image.{kind}", "digest": f"sha256:{digest}", "size": len(data)}

    entries = [blob(tar, "layer.v1.tar") for tar in tars]
    rootfs = {"type": "layers", "diff_ids": [entry["digest"] for entry in entries]}
    config = {"architecture": "amd64", "os": "linux", "rootfs": rootfs, "config": {}}
    manifest = {
        "schemaVersion": 2,
        "config": blob(json.dumps(config).encode(), "config.v1+json"),
        "layers": entries,
    }
    reference = blob(json.dumps(manifest).encode(), "manifest.v1+json")
    reference["annotations"] = {"org.opencontainers.image.ref.name": "x"}
    (folder / "oci" / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    (folder / "oci" / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [reference]}))
    command = ["umoci", "unpack", "--image", f"{folder}/oci:x", f"{folder}/bundle"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    command = ["tar", "-C", f"{folder}/bundle/rootfs", "--numeric-owner", "--format=pax", "-cf", "-", "."]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout


def in_umocis_order(layer: Mapping[str, Item]) -> dict[str, Item]:
    """umoci applies members one by one: parents first, marks before the names they hide, links last, none left out."""
    complete = dict(layer)
    for path in layer:
        parts = path.split("/")[:-1]
        for n in range(1, len(parts) + 1):
            complete.setdefault("/".join(parts[:n]), directory(0o711, mtime=4))

    def rank(path: str) -> tuple[bool, list[tuple[bool, str]]]:
        return (complete[path].kind == "link", [(not name.startswith(".wh."), name) for name in path.split("/")])

    return {path: complete[path] for path in sorted(complete, key=rank)}


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(*[layers()] * 3)
def test_umoci_unpacks_what_merging_gives(
    one: Mapping[str, Item], two: Mapping[str, Item], three: Mapping[str, Item]
) -> None:
    tars = [make_tar(in_umocis_order(layer)) for layer in (one, two, three)]
    with tempfile.TemporaryDirectory() as folder:
        expected = in_tar(unpacked_by_umoci(tars, Path(folder)))
        found = in_image(merged(tars, Path(folder)))

    assert {name: known(name, seen) for name, seen in found.items()} == {
        name: known(name, seen) for name, seen in expected.items()
    }


def known(name: str, seen: Seen) -> Seen:
    """What can be compared: unpacking into a directory changes its time, GNU tar does not tell hard links of devices
    and fifos, and the root of these layers has no member."""
    if not name:
        return replace(seen, mode=0, mtime=0)
    if seen.kind == "directory":
        return replace(seen, mtime=0)
    return seen if seen.kind in ("file", "symlink") else replace(seen, names=frozenset([name]))


def test_tarfile_reads_back_what_was_squashed(tmp_path: Path) -> None:
    """A real tree: this Python's own standard library."""
    root = Path(os.__file__).parent
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        tar.add(root / "json", "json")
        tar.add(root / "email", "email")
    seen = in_image(merged([buffer.getvalue()], tmp_path))
    seen.pop("")
    assert seen == in_tar(buffer.getvalue())
