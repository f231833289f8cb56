"""Our images in the eyes of the kernel and of other tools, and theirs in ours."""

from __future__ import annotations

import hashlib
import io
import json
import os
import random
import re
import shutil
import stat
import subprocess
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from profiles import examples
from squashfs_strategies import STACKS, layers
from squashfs_support import MEMORY, Item, Seen, directory, in_image, in_tar, make_tar, merged, union

from hpcbinder.errors import ConvertError
from hpcbinder.squashfs import Image, Options, write_layer
from rig import Apptainer, User

pytestmark = pytest.mark.rig

LOWER = {
    "./": directory(0o755, mtime=3),
    "dir": replace(directory(0o2775, uid=1000, gid=100), xattrs=(("user.kind", b"folder"),)),
    "dir/small": Item(content=b"hello\n", mode=0o4755),
    "dir/blocks": Item(
        content=random.Random(1).randbytes(400_000), xattrs=(("user.a", b"\xff\n"), ("user.b", b"b" * 4000))
    ),
    "dir/hole": Item(content=b"begin" + bytes(600_000) + b"end"),
    "link": Item("symlink", target="dir/small", mode=0o777),
    "hard": Item("link", target="dir/small"),
    "copied-up": Item("link", target="dir/small"),
    "console": Item("character", device=(5, 1), mode=0o600),
    "disk": Item("block", device=(259, 1000), mode=0o660),
    "pipe": Item("fifo"),
    "not utf-8 \udcff": Item(
        content=b"x", uid=4_000_000_000, mtime=4_000_000_000, xattrs=(("user.b", b"b" * 4000), ("user.a", b"\xff\n"))
    ),
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
tar -C "$2" --numeric-owner --xattrs --format=pax -cf - .
"""
FUSE_MOUNTED = """
squashfuse "$1" "$2"
tar -C "$2" --numeric-owner --xattrs --format=pax -cf - .
fusermount3 -u "$2"
"""
UNPACKED = """
unsquashfs -no-progress -d "$2/tree" "$1" >&2
tar -C "$2/tree" --numeric-owner --xattrs --format=pax -cf - .
"""


def shown(script: str, image: Path, folder: Path) -> bytes:
    """A tar of what a tool makes of an image, in a mount namespace that takes its mounts with it."""
    folder.mkdir()
    command = ["unshare", "--mount", "sh", "-eu", "-c", script, "sh", str(image), str(folder)]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout


@pytest.mark.parametrize("compressor", ["gzip", "zstd", "xz", "lz4"])
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


ALL_UNPACKED = """
tree=$1
shift
for image; do
    name=${image##*/}
    unsquashfs -no-progress -quiet -processors 1 -d "$tree/$name" "$image" >&2
done
tar -C "$tree" --numeric-owner --xattrs --format=pax -cf - .
"""


def test_two_thousand_random_stacks_are_unpacked_as_the_layer_specification_says() -> None:
    """And read by us. Unpacked a hundred at a time, since most of the time goes into starting programs."""
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        work = Path(folder) / "work"
        work.mkdir()
        images: list[tuple[Path, Mapping[str, Seen]]] = []

        @settings(max_examples=examples(2000))
        @given(STACKS)
        def merge_and_read(stack: Sequence[Mapping[str, Item]]) -> None:
            image = merged([make_tar(layer) for layer in stack], work, Options(block_size=4096))
            expected = union(stack)
            assert in_image(image) == expected
            images.append((image.rename(Path(folder) / f"{len(images)}"), expected))

        merge_and_read()
        assert len(images) >= examples(2000)
        for begin in range(0, len(images), 100):
            some = dict(images[begin : begin + 100])
            for image, seen in unpacked_together(list(some)).items():
                assert {name: known(name, its) for name, its in seen.items()} == {
                    name: known(name, its) for name, its in some[image].items()
                }


def unpacked_together(images: Sequence[Path]) -> dict[Path, dict[str, Seen]]:
    """What unsquashfs makes of images whose names differ."""
    with tempfile.TemporaryDirectory() as folder:
        command = ["sh", "-eu", "-c", ALL_UNPACKED, "sh", folder, *map(str, images)]
        found = in_tar(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    trees: dict[str, dict[str, Seen]] = {image.name: {} for image in images}
    for path, seen in found.items():
        image, _, below = path.partition("/")
        if image:
            names = frozenset(other.partition("/")[2] for other in seen.names)
            trees[image][below] = replace(seen, names=names)
    return {image: trees[image.name] for image in images}


@pytest.mark.parametrize("script", [MOUNTED, FUSE_MOUNTED], ids=["kernel", "squashfuse"])
@settings(max_examples=examples(200))
@given(stack=STACKS)
def test_everybody_sees_random_stacks_as_the_layer_specification_says(
    script: str, stack: Sequence[Mapping[str, Item]]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        image = merged([make_tar(layer) for layer in stack], Path(folder), Options(block_size=4096))
        found = in_tar(shown(script, image, Path(folder) / "shown"))
    expected = union(stack)
    if script == FUSE_MOUNTED:
        expected = {name: replace(seen, names=frozenset([name])) for name, seen in expected.items()}
    assert {name: known(name, seen) for name, seen in found.items()} == {
        name: known(name, seen) for name, seen in expected.items()
    }


def test_the_kernel_finds_each_name_of_a_long_directory(tmp_path: Path) -> None:
    names = [f"{hashlib.sha256(b'%d' % n).hexdigest()}{'y' * (n % 150)}" for n in range(3000)]
    image = merged([make_tar({f"d/{name}": Item(content=name.encode()) for name in names})], tmp_path)
    (tmp_path / "names").write_text("\n".join(f"{tmp_path}/shown/d/{name}" for name in names))
    script = f'mount -t squashfs -o loop,ro "$1" "$2"; xargs cat < {tmp_path}/names; ! test -e "$2/d/0"'
    assert shown(script, image, tmp_path / "shown") == "".join(names).encode()


def real_tree(folder: Path) -> Path:
    """A part of this Python's library, and one of everything that is not in it."""
    tree = folder / "tree"
    for part in ("json", "email", "ensurepip"):
        shutil.copytree(Path(os.__file__).parent / part, tree / part)
    for n in range(60):
        (tree / f"f{n}").write_bytes(random.Random(n).randbytes(n * 997) + bytes(n * 1500))
    (tree / "empty").mkdir(mode=0o1777)
    (tree / "link").symlink_to("json/__init__.py")
    os.link(tree / "f8", tree / "hard")
    os.mkfifo(tree / "pipe", 0o620)
    os.mknod(tree / "disk", 0o660 | stat.S_IFBLK, os.makedev(259, 1000))
    os.mknod(tree / "null", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    os.chown(tree / "f9", 1234, 70000)
    (tree / "f10").chmod(0o6755)
    for name in ("f1", "f2", "json"):
        os.setxattr(tree / name, "user.note", b"the same for all" * 40)
    os.setxattr(tree / "f2", "user.number", bytes(range(256)))
    os.setxattr(tree / "f2", "trusted.secret", b"kept when read")
    return tree


@pytest.mark.parametrize(
    "option",
    [
        *("-comp gzip", "-comp zstd", "-comp xz", "-comp lz4", "-comp lzo"),
        *("-comp gzip -Xcompression-level 1 -Xwindow-size 9", "-comp lz4 -Xhc", "-comp xz -Xdict-size 50% -Xbcj x86"),
        *("-comp gzip -noI -noD -noF -noX", "-always-use-fragments", "-no-fragments -no-duplicates", "-no-exports"),
        *("-noappend -no-tailends", "-b 4096", "-b 1M"),
    ],
)
def test_images_of_mksquashfs_are_read(tmp_path: Path, option: str) -> None:
    tree, image = real_tree(tmp_path), tmp_path / "image"
    command = ["mksquashfs", str(tree), str(image), "-b", "16384", "-no-progress", "-quiet", *option.split()]
    subprocess.run(command, check=True)
    command = ["tar", "-C", str(tree), "--numeric-owner", "--xattrs", "--format=pax", "-cf", "-", "."]
    assert in_image(image) == in_tar(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    with Image.open(image) as opened:
        assert opened.read("link", follow=True) == (tree / "json/__init__.py").read_bytes()
        assert (b"trusted.secret", b"kept when read") in dict(opened.walk())["f2"].xattrs
        assert opened.check(lambda done: None) == []


def test_an_image_in_lzma_is_refused_by_name(tmp_path: Path) -> None:
    command = ["mksquashfs", "/etc/hostname", str(tmp_path / "image"), "-comp", "lzma", "-no-progress", "-quiet"]
    subprocess.run(command, check=True)
    with pytest.raises(ConvertError, match="compressor lzma is not supported"):
        Image.open(tmp_path / "image")


def test_sockets_are_read(tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    os.mknod(tmp_path / "tree/socket", 0o640 | stat.S_IFSOCK)
    subprocess.run(["mksquashfs", str(tmp_path / "tree"), str(tmp_path / "image"), "-quiet"], check=True)
    with Image.open(tmp_path / "image") as image:
        node = image.lookup("socket")
        assert node is not None and (node.kind, node.mode) == ("socket", 0o640)


def test_a_sparse_file_of_many_gigabytes_is_the_same_for_everybody(tmp_path: Path) -> None:
    size = (5 << 30) + 12345
    tree = tmp_path / "tree"
    tree.mkdir()
    with (tree / "huge").open("wb") as file:
        file.truncate(size)
        for place in (0, 3 << 30, size - 7):
            file.seek(place)
            file.write(b"written")
    # Theirs to ours, and ours (a layer made of a sparse member) to the kernel.
    theirs, ours = tmp_path / "theirs", tmp_path / "ours"
    subprocess.run(["mksquashfs", str(tree), str(theirs), "-quiet", "-no-progress"], check=True)
    tar = subprocess.Popen(["tar", "-C", str(tree), "--sparse", "-cf", "-", "huge"], stdout=subprocess.PIPE)
    assert tar.stdout is not None
    write_layer(tar.stdout, ours, Options())
    assert tar.wait() == 0
    with Image.open(theirs) as one, Image.open(ours) as other:
        a, b = dict(one.walk())["huge"], dict(other.walk())["huge"]
        assert a.size == b.size == size
        assert one.same_content(a, other, b)
        assert sum(len(piece) for piece in other.pieces(b) if isinstance(piece, bytes)) < 1 << 20
    script = """
    mount -t squashfs -o loop,ro "$1" "$2"
    stat -c "%s %b" "$2/huge"
    for place in 0 3221225472 5368721458; do tail -c +$((place + 1)) "$2/huge" | head -c 7; done
    """
    lines = shown(script, ours, tmp_path / "shown").splitlines()
    assert lines[0].split()[0] == b"%d" % size
    assert lines[1] == b"written" * 3


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
    command = ["tar", "-C", f"{folder}/bundle/rootfs", "--numeric-owner", "--xattrs", "--format=pax", "-cf", "-", "."]
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


@settings(max_examples=examples(10))
@given(*[layers()] * 3)
def test_umoci_unpacks_what_merging_gives(
    one: Mapping[str, Item], two: Mapping[str, Item], three: Mapping[str, Item]
) -> None:
    tars = [make_tar(in_umocis_order(layer)) for layer in (one, two, three)]
    with tempfile.TemporaryDirectory() as folder:
        expected = in_tar(unpacked_by_umoci(tars, Path(folder)))
        found = in_image(merged(tars, Path(folder)))

    assert {name: known(name, seen) for name, seen in found.items()} == {
        name: known(name, portable(seen)) for name, seen in expected.items()
    }


def known(name: str, seen: Seen) -> Seen:
    """What can be compared: unpacking into a directory changes its time, GNU tar does not tell hard links of devices
    and fifos, and the root of these layers has no member."""
    if not name:
        return replace(seen, mode=0, mtime=0)
    if seen.kind == "directory":
        return replace(seen, mtime=0)
    return seen if seen.kind in ("file", "symlink") else replace(seen, names=frozenset([name]))


def portable(seen: Seen) -> Seen:
    """umoci keeps what means nothing elsewhere: `trusted.*`, and the notes of overlay file systems."""
    kept = (pair for pair in seen.xattrs if pair[0].startswith("user.") and "overlay" not in pair[0])
    return replace(seen, xattrs=frozenset(kept))


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


@pytest.mark.parametrize("compression", ["gzip", "zstd", "xz", "lz4", "lz4:12"])
def test_apptainer_runs_images_in_every_compressor(
    tmp_path: Path, apptainer: Apptainer, user: User, compression: str
) -> None:
    """As root, whose mounts are the kernel's, and as an ordinary user, whose are FUSE's."""
    linked = subprocess.run(["ldd", "/bin/cat"], check=True, capture_output=True, text=True).stdout
    libraries = re.findall(r"(/\S+) \(0x", linked)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", dereference=True) as tar:
        for name in ("/bin/cat", *libraries):
            tar.add(name, name.lstrip("/"))
        for name in ("dev", "etc", "proc", "root", "sys", "tmp", "home", "var/tmp"):
            info = tarfile.TarInfo(name)
            info.type, info.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(info)
        info = tarfile.TarInfo("hello")
        info.size = 500_006
        tar.addfile(info, io.BytesIO(b"hello\n" + bytes(500_000)))
    image = merged([buffer.getvalue()], tmp_path, Options.parse(compression))
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        place = Path(folder) / "image.sqfs"
        shutil.copyfile(image, place)
        place.chmod(0o644)
        command = [str(apptainer.path), "--silent", "exec", "--no-home", "--pwd", "/", str(place), "cat", "/hello"]
        as_root = subprocess.run(command, check=True, capture_output=True, text=True, stdin=subprocess.DEVNULL)
        assert as_root.stdout == user.run(command).stdout == "hello\n" + "\0" * 500_000
