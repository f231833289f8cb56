"""From layers to files: what is in them, that they are always the same, and that nothing half-made stays."""

from __future__ import annotations

import hashlib
import io
import json
import multiprocessing
import os
import resource
import stat
import subprocess
import sys
import tarfile
import tempfile
import threading
from collections.abc import Collection, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stacks import MTIME, Layer, MemoryImage, write_oci_layout

from hpcbinder.convert import FORMATS, Converted, convert
from hpcbinder.convert.stack import Stack
from hpcbinder.errors import ConvertError, UsageError
from hpcbinder.image import DockerArchive, write_docker_archive
from hpcbinder.progress import Silent
from hpcbinder.sif import Kind, primary_partition, read_sif
from hpcbinder.squashfs import Image, Options, merge, write_layer
from rig import RigError, packages

QUOTED = 'it\'s a "test" $x'
CONFIG = {
    "Env": ["PATH=/usr/bin:/bin", f"QUOTED={QUOTED}", "HOME=/root"],
    "Entrypoint": ["/entry"],
    "Cmd": ["a b"],
    "Labels": {"one": "1", "two": "2"},
}


FILES = tuple(form for form in FORMATS if form not in ("podman-hpc", "oci"))
"""The formats that are a file; the others have tests of their own."""


def run(image: Any, folder: Path, *formats: str, layers_dir: Path | None = None, **changes: Any) -> Converted:
    folder.mkdir(exist_ok=True)
    arguments: dict[str, Any] = {
        "layers_dir": layers_dir or folder.parent / "layers",
        "folder": folder,
        "name": "x",
        "labels": {"two": "zwei", "org.hpcbinder.id": "x-123"},
        "timestamp": MTIME,
        "formats": formats or FILES,
        "options": Options(),
        "reporter": Silent(),
    }
    return convert(image, **{**arguments, **changes})


def small_image(**config: Any) -> MemoryImage:
    base = Layer().folder("etc", 0o750).file("etc/hosts", "mine").folder("usr").file("usr/tool", "v1", 0o755)
    top = Layer().folder("usr").file("usr/tool", "v2", 0o755).file("big", b"0123456789abcdef" * 50_000)
    return MemoryImage(base, top, config={**CONFIG, **config})


def ensure(package: str) -> None:
    try:
        packages.ensure([package])
    except RigError as error:
        pytest.skip(str(error))


@pytest.fixture
def converted(tmp_path: Path) -> Converted:
    return run(small_image(), tmp_path / "out")


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


class TestFormats:
    def test_each_format_has_its_files(self, converted: Converted, tmp_path: Path) -> None:
        out, id_ = tmp_path / "out", small_image().config.digest.removeprefix("sha256:")
        assert converted.formats == {
            "squashfs": out / "x.squashfs",
            "shifter": out / f"shifter/{id_}.squashfs",
            "charliecloud": out / "x.sqfs",
            "enroot": out / "x.sqsh",
            "sif": out / "x.sif",
        }
        shifter = {"shifter", f"shifter/{id_}.squashfs", f"shifter/{id_}.meta"}
        assert files(out) == {"x.squashfs", "x.sif", "x.sqfs", "x.sqsh", *shifter}
        assert converted.size == (out / "x.squashfs").stat().st_size

    def test_all_hold_the_same_squashfs(self, converted: Converted) -> None:
        plain = converted.formats["squashfs"].read_bytes()
        offset, size = primary_partition(converted.formats["sif"])
        assert converted.formats["sif"].read_bytes()[offset : offset + size] == plain
        for form in ("shifter", "charliecloud", "enroot"):
            assert converted.formats[form].samefile(converted.formats["squashfs"])

    @pytest.mark.rig
    def test_unsquashfs_reads_it(self, converted: Converted) -> None:
        ensure("squashfs-tools")
        done = subprocess.run(["unsquashfs", "-cat", converted.squashfs, "usr/tool"], capture_output=True, check=True)
        assert done.stdout == b"v2"

    @pytest.mark.parametrize("form", FILES)
    def test_alone_a_format_has_the_same_bytes(self, converted: Converted, tmp_path: Path, form: str) -> None:
        alone = run(small_image(), tmp_path / "alone", form)
        assert list(alone.formats) == [form]
        assert alone.formats[form].read_bytes() == converted.formats[form].read_bytes()
        assert alone.size == converted.size
        with alone.open() as image:
            assert image.read("/usr/tool") == b"v2"

    def test_without_hard_links_shifter_gets_a_copy(
        self, converted: Converted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(self: Path, target: Path) -> None:
            raise PermissionError(1, "Operation not permitted")

        monkeypatch.setattr(Path, "hardlink_to", refuse)
        copied = run(small_image(), tmp_path / "copied")
        assert not copied.formats["shifter"].samefile(copied.formats["squashfs"])
        assert copied.formats["shifter"].read_bytes() == converted.formats["shifter"].read_bytes()

    def test_others_may_read_them_whatever_the_umask(self, tmp_path: Path) -> None:
        before = os.umask(0o077)
        try:
            converted = run(small_image(), tmp_path / "out")
        finally:
            os.umask(before)
        modes = {form: stat.S_IMODE(path.stat().st_mode) for form, path in converted.formats.items()}
        assert modes == {**dict.fromkeys(FILES, 0o644), "sif": 0o755}
        assert stat.S_IMODE(converted.formats["shifter"].with_suffix(".meta").stat().st_mode) == 0o644
        for path in (tmp_path / "layers").iterdir():
            assert stat.S_IMODE(path.stat().st_mode) == 0o644
        assert stat.S_IMODE((tmp_path / "layers").stat().st_mode) == 0o755
        assert stat.S_IMODE((tmp_path / "out/shifter").stat().st_mode) == 0o755

    def test_the_sif_says_what_it_is(self, converted: Converted) -> None:
        path = converted.formats["sif"]
        sif, raw = read_sif(path), path.read_bytes()
        assert (sif.architecture, sif.created) == ("amd64", MTIME)
        content = {d.name: raw[d.offset : d.offset + d.size] for d in sif.descriptors if d.kind != Kind.PARTITION}
        assert f"From: {small_image().config.digest}\n".encode() in content["deffile"]
        config = json.loads(content["oci-config.json"])
        assert (config["Env"], config["Entrypoint"], config["Cmd"]) == (
            CONFIG["Env"],
            CONFIG["Entrypoint"],
            CONFIG["Cmd"],
        )
        labels = json.loads(content["inspect-metadata.json"])["data"]["attributes"]["labels"]
        assert labels == {"one": "1", "two": "zwei", "org.hpcbinder.id": "x-123"}

    def test_shifter_is_told_how_to_run_it(self, converted: Converted) -> None:
        meta = converted.formats["shifter"].with_suffix(".meta").read_text()
        assert meta == (
            f"FORMAT: squashfs\nENTRY: ['/entry']\nCMD: ['a b']\nENV: PATH=/usr/bin:/bin\nENV: QUOTED={QUOTED}\n"
        )


class TestSameBytes:
    def digest(self, converted: Converted) -> dict[str, str]:
        return {form: hashlib.sha256(path.read_bytes()).hexdigest() for form, path in converted.formats.items()}

    def test_again_and_elsewhere(self, converted: Converted, tmp_path: Path) -> None:
        again = run(small_image(), tmp_path / "again")
        elsewhere = run(small_image(), tmp_path / "else", layers_dir=tmp_path / "new/layers")
        assert self.digest(converted) == self.digest(again) == self.digest(elsewhere)

    def test_the_time_is_the_callers(self, converted: Converted, tmp_path: Path) -> None:
        later = run(small_image(), tmp_path / "later", timestamp=MTIME + 1)
        assert self.digest(converted).items().isdisjoint(self.digest(later).items())
        with later.open() as image:
            node = image.lookup("/.singularity.d/labels.json")
            assert node is not None and node.mtime == MTIME + 1

    def test_another_process_has_another_hash_order(self, converted: Converted, tmp_path: Path) -> None:
        script = (
            "import sys; sys.path.insert(0, sys.argv[1])\n"
            "from pathlib import Path; from test_convert import run, small_image\n"
            "run(small_image(), Path(sys.argv[2]), layers_dir=Path(sys.argv[2] + '-layers'))"
        )
        here = Path(__file__).parent
        subprocess.run(
            [sys.executable, "-c", script, str(here), str(tmp_path / "other")],
            check=True,
            env={**os.environ, "PYTHONHASHSEED": "7", "PYTHONPATH": str(here.parent)},
        )
        assert (tmp_path / "other/x.sif").read_bytes() == converted.formats["sif"].read_bytes()


class TestWhateverTheEngine:
    """Images of one plan give the same bytes, though each engine has its ways with them."""

    OURS = {**CONFIG, "Labels": {"org.hpcbinder.base": "x"}}

    def as_docker_has_it(self) -> MemoryImage:
        base = (
            Layer().folder("run", mtime=5).folder("run/hpcbinder").folder("run/hpcbinder/step").folder("srv", mtime=5)
        )
        top = Layer().folder("srv", mtime=MTIME + 900).file("srv/page", "x", uname="root", gname="root")
        return MemoryImage(base, top, Layer(), config={**self.OURS, "Env": ["A=1"]})

    def as_buildah_has_it(self) -> MemoryImage:
        base = (
            Layer().folder("run", mtime=5).folder("run/hpcbinder").folder("run/hpcbinder/step").folder("srv", mtime=5)
        )
        step = Layer().folder("run", mtime=MTIME + 600).folder("run/hpcbinder").whiteout("run/hpcbinder/step")
        top = Layer().folder("srv").file("srv/page", "x").folder("run", mtime=MTIME + 601).file("run/.containerenv")
        return MemoryImage(base, step, top, config={**self.OURS, "Env": ["A=1"]})

    def test_the_bytes_are_the_same(self, tmp_path: Path) -> None:
        docker = run(self.as_docker_has_it(), tmp_path / "docker", "sif", "squashfs", origin="localhost/x:1")
        buildah = run(self.as_buildah_has_it(), tmp_path / "buildah", "sif", "squashfs", origin="localhost/x:1")
        for form in ("squashfs", "sif"):
            assert docker.formats[form].read_bytes() == buildah.formats[form].read_bytes()
        assert b"From: localhost/x:1" in docker.formats["sif"].read_bytes()
        with docker.open() as image:
            assert image.lookup("run/hpcbinder") is None
            node, srv = image.lookup("run"), image.lookup("srv")
            assert node is not None and (node.kind, node.mode, node.mtime) == ("directory", 0o755, MTIME)
            assert srv is not None and srv.mtime == MTIME

    def test_other_contents_are_another_image(self, tmp_path: Path) -> None:
        one = MemoryImage(Layer().file("a", "x"), config=CONFIG)
        other = MemoryImage(Layer().file("a", "longer"), config=CONFIG)
        uuids = {read_sif(run(i, tmp_path / n, "sif").formats["sif"]).uuid for i, n in ((one, "one"), (other, "other"))}
        assert len(uuids) == 2

    def test_what_others_built_keeps_its_run(self, tmp_path: Path) -> None:
        image = MemoryImage(Layer().folder("run", 0o700, mtime=5).folder("run/hpcbinder").file("run/.containerenv"))
        with run(image, tmp_path / "out").open() as opened:
            node = opened.lookup("run")
            assert node is not None and (node.mode, node.mtime) == (0o700, 5)
            assert opened.lookup("run/hpcbinder") and opened.lookup("run/.containerenv")


class TestMetadata:
    """What is added to an image, and what is left alone."""

    def test_files_for_the_runtimes(self, converted: Converted) -> None:
        with converted.open() as image:
            assert QUOTED in _exported(image.read("/.singularity.d/env/10-docker2singularity.sh"), "QUOTED")
            assert b"HOME" not in image.read("/.singularity.d/env/10-docker2singularity.sh")
            assert b"/opt/hpcbinder/profile.sh" in image.read("/.singularity.d/env/91-hpcbinder.sh")
            assert image.lookup("/.singularity.d/env/99-base.sh")
            assert json.loads(image.read("/.singularity.d/labels.json"))["two"] == "zwei"
            assert image.read("/ch/environment").decode() == f"PATH=/usr/bin:/bin\nQUOTED={QUOTED}\n"
            assert image.readlink("/singularity") == ".singularity.d/runscript"
            assert image.readlink("/environment") == ".singularity.d/env/90-environment.sh"

    def test_mount_points_are_there(self, converted: Converted) -> None:
        with converted.open() as image:
            for path in ("dev", "home", "mnt", "proc", "root", "run", "scratch", "srv", "sys", "tmp", "var/tmp"):
                node = image.lookup(path)
                assert node is not None and node.kind == "directory", path
            assert {image.lookup(path).mode for path in ("tmp", "var/tmp")} == {0o1777}
            assert image.read("/etc/resolv.conf") == b""

    def test_what_the_image_has_is_left_alone(self, tmp_path: Path) -> None:
        layer = (
            Layer()
            .folder("./", 0o711, gid=3)
            .folder("etc", 0o700, uid=7)
            .file("etc/hosts", "mine")
            .link("etc/resolv.conf", "../run/resolv.conf")
            .link("tmp", "var/tmp")
            .folder("var", 0o711)
            .link("home", "/data/home")
            .file("environment", "a file of mine")
            .file("srv", "not even a folder")
        )
        with run(MemoryImage(layer), tmp_path / "out").open() as image:
            root, etc, var = image.lookup("/"), image.lookup("etc"), image.lookup("var")
            assert root is not None and (root.mode, root.gid, root.mtime) == (0o711, 3, MTIME)
            assert etc is not None and (etc.mode, etc.uid, etc.mtime) == (0o700, 7, MTIME)
            assert var is not None and var.mode == 0o711
            assert image.read("/etc/hosts") == b"mine"
            assert image.readlink("/etc/resolv.conf") == "../run/resolv.conf"
            assert (image.readlink("/tmp"), image.readlink("/home")) == ("var/tmp", "/data/home")
            assert image.read("/environment") == b"a file of mine"
            assert image.read("/srv") == b"not even a folder"
            assert image.lookup("/var/tmp")

    def test_below_a_link_nothing_is_added(self, tmp_path: Path) -> None:
        with run(MemoryImage(Layer().link("var", "data").link("etc", "data/etc")), tmp_path / "out").open() as image:
            assert (image.readlink("/var"), image.readlink("/etc")) == ("data", "data/etc")

    def test_a_mount_point_that_a_layer_removed_is_there_again(self, tmp_path: Path) -> None:
        base = (
            Layer().folder("scratch", 0o700).folder("etc").file("etc/hosts", "x").folder("var").folder("var/tmp", 0o700)
        )
        top = Layer().whiteout("scratch").folder("etc").whiteout("etc/hosts").folder("var").opaque("var")
        with run(MemoryImage(base, top), tmp_path / "out").open() as image:
            scratch, tmp = image.lookup("scratch"), image.lookup("var/tmp")
            assert scratch is not None and scratch.mode == 0o755
            assert tmp is not None and tmp.mode == 0o1777
            assert image.read("etc/hosts") == b""

    def test_nothing_of_an_older_conversion_stays(self, tmp_path: Path) -> None:
        old = (
            Layer().folder(".singularity.d").folder(".singularity.d/env").file(".singularity.d/env/10-docker.sh", "old")
        )
        with run(MemoryImage(old, config=CONFIG), tmp_path / "out").open() as image:
            assert image.lookup("/.singularity.d/env/10-docker.sh") is None
            assert image.lookup("/.singularity.d/env/10-docker2singularity.sh")

    def test_an_image_of_nothing(self, tmp_path: Path) -> None:
        converted = run(MemoryImage(), tmp_path / "out")
        with converted.open() as image:
            assert image.lookup("/proc")


def _exported(script: bytes, name: str) -> str:
    done = subprocess.run(
        ["/bin/sh", "-c", script.decode() + f'\nprintf %s "${name}"'], capture_output=True, check=True
    )
    return done.stdout.decode()


NAMES = st.sampled_from(["a", "b", "var", "tmp", "etc"])
LEAF = st.one_of(
    st.sampled_from(["", "text"]).map(lambda text: ("file", text)),
    st.sampled_from(["b", "/etc", "../x"]).map(lambda target: ("link", target)),
    st.just(("whiteout", "")),
)


def FOLDER(below: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """A folder: mode, whether opaque, and what is in it."""
    return st.tuples(st.sampled_from([0o755, 0o700]), st.booleans(), st.dictionaries(NAMES, below, max_size=3))


def is_folder(tree: Any) -> bool:
    return len(tree) == 3


def layer_of(tree: Any) -> Layer:
    layer = Layer()

    def add(path: str, tree: Any) -> None:
        if is_folder(tree):
            mode, opaque, content = tree
            if path:
                layer.folder(path, mode)
                if opaque:
                    layer.opaque(path)
            for name, below in content.items():
                add(f"{path}/{name}" if path else name, below)
        elif tree[0] == "whiteout":
            layer.whiteout(path)
        elif tree[0] == "link":
            layer.link(path, tree[1])
        else:
            layer.file(path, tree[1])

    add("", tree)
    return layer


@given(stack=st.lists(st.recursive(LEAF, FOLDER, max_leaves=8).filter(is_folder), max_size=4))
def test_what_a_stack_shows_is_what_a_merge_has(stack: list[Any], tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("stack")
    layers = []
    for number, tree in enumerate([*stack, (0o755, False, {})]):
        layers.append(folder / str(number))
        write_layer(io.BytesIO(layer_of(tree).tar), layers[-1], Options())
    with (folder / "merged").open("w+b") as out:
        merge(layers, out)
    with ExitStack() as opened:
        seen = Stack([opened.enter_context(Image.open(path)) for path in layers])
        merged = opened.enter_context(Image.open(folder / "merged"))
        for path in ("a", "b", "var", "var/tmp", "etc", "etc/a", "a/a", "a/b", "a/b/var", "nowhere"):
            node = merged.lookup(path)
            assert seen.kind(path) == (node and node.kind), path
            assert seen.read(path, 100) == (merged.read(path) if node and node.kind == "file" else None)


@pytest.fixture(scope="module")
def umoci() -> None:
    if os.geteuid() != 0:
        pytest.skip("umoci keeps owners and devices for root only")
    ensure("umoci")


@pytest.mark.rig
@pytest.mark.usefixtures("umoci")
class TestUmoci:
    """The same layers as `umoci` unpacks them."""

    def compare(self, image: MemoryImage, folder: Path) -> None:
        write_oci_layout(image, folder / "oci")
        unpack = ["umoci", "raw", "unpack", "--image", f"{folder}/oci:x", str(folder / "root")]
        subprocess.run(unpack, check=True, capture_output=True)
        converted = run(image, folder / "out", "squashfs")
        expected = dict(sorted(self.tree(folder / "root")))
        with Image.open(converted.squashfs) as merged:
            found = {}
            for path, node in merged.walk():
                content = merged.read(path) if node.kind == "file" else b""
                is_folder = node.kind == "directory"
                found[path] = (
                    node.kind,
                    node.mode if node.kind != "symlink" else 0o777,
                    node.uid,
                    node.gid,
                    0 if is_folder else node.size,
                    0 if is_folder else node.nlink,
                    node.target,
                    node.device,
                    hashlib.sha256(content).hexdigest(),
                )
        ours = {path for path in found if path not in expected}
        assert {path.split("/")[0] for path in ours} <= {
            *(".singularity.d", "ch", "singularity", "environment", "dev", "etc", "home", "mnt", "proc", "root"),
            *("run", "scratch", "srv", "sys", "tmp", "var"),
        }
        assert {path: found.get(path) for path in expected if path} == {
            path: expected[path] for path in expected if path
        }

    @staticmethod
    def tree(root: Path) -> Iterator[tuple[str, tuple[object, ...]]]:
        kinds = {
            stat.S_IFDIR: "directory",
            stat.S_IFREG: "file",
            stat.S_IFLNK: "symlink",
            stat.S_IFIFO: "fifo",
            stat.S_IFCHR: "character",
            stat.S_IFBLK: "block",
        }
        for path in [root, *root.rglob("*")]:
            info = path.lstat()
            kind = kinds[stat.S_IFMT(info.st_mode)]
            is_folder = kind == "directory"
            yield (
                str(path.relative_to(root)) if path != root else "",
                (
                    kind,
                    stat.S_IMODE(info.st_mode),
                    info.st_uid,
                    info.st_gid,
                    info.st_size if kind == "file" else 0,
                    0 if is_folder else info.st_nlink,
                    str(path.readlink()) if kind == "symlink" else None,
                    (os.major(info.st_rdev), os.minor(info.st_rdev)) if kind in ("character", "block") else None,
                    hashlib.sha256(path.read_bytes() if kind == "file" else b"").hexdigest(),
                ),
            )

    def test_everything_at_once(self, tmp_path: Path) -> None:
        random = os.urandom(300_000)
        one = (
            Layer()
            .folder("etc")
            .file("etc/hosts", "h", 0o640, uid=1, gid=2)
            .file("etc/resolv.conf", "r")
            .folder("data", 0o2775, uid=1000, gid=100)
            .file("data/one", random)
            .file("data/same", random)
            .file("data/zeros", bytes(500_000))
            .file("data/empty")
            .hard_link("data/name2", "data/one")
            .link("data/link", "../etc/hosts")
            .link("data/dangling", "/nowhere/at all")
            .folder("data/deep")
            .folder("data/deep/er")
            .file("data/deep/er/file", "x", 0o4755)
            .folder("gone")
            .file("gone/a", "a")
            .folder("hidden")
            .file("hidden/below", "b")
            .folder("becomes_file")
            .file("becomes_file/x", "x")
            .file("becomes_folder", "f")
            .add("pipe", tarfile.FIFOTYPE, mode=0o600)
            .add("null", tarfile.CHRTYPE, mode=0o666, devmajor=1, devminor=3)
            .add("disk", tarfile.BLKTYPE, mode=0o660, devmajor=259, devminor=300)
            .file("näme with spaces\nand a line end", "x")
        )
        two = (
            Layer()
            .whiteout("gone")
            .folder("hidden", 0o700)
            .opaque("hidden")
            .file("hidden/new", "n")
            .file("becomes_file", "now a file")
            .folder("becomes_folder", 0o711)
            .file("becomes_folder/y", "y")
            .folder("data", 0o755, uid=5, gid=6)
            .file("data/one", "copied up")
            .whiteout("data/same")
            .folder("data/deep")
            .whiteout("data/deep/er")
        )
        three = (
            Layer()
            .folder("gone")
            .file("gone/b", "back again")
            .folder("data/deep/er", 0o700)
            .file("data/deep/er/other", "o")
            .hard_link("data/deep/er/third", "data/deep/er/other")
            .link("becomes_file", "hidden/new")
        )
        self.compare(MemoryImage(one, two, three), tmp_path)

    def test_the_same_layer_twice(self, tmp_path: Path) -> None:
        one = Layer().folder("a").file("a/x", "1").folder("b").file("b/y", "2")
        two = Layer().whiteout("a")
        self.compare(MemoryImage(one, two, one), tmp_path)

    @settings(max_examples=25, deadline=None)
    @given(stack=st.lists(st.recursive(LEAF, FOLDER, max_leaves=6).filter(is_folder), min_size=2, max_size=4))
    def test_any_stack(self, stack: list[Any]) -> None:
        with tempfile.TemporaryDirectory() as folder:
            self.compare(MemoryImage(*(layer_of(tree) for tree in stack)), Path(folder))


class TestLayers:
    def test_a_kept_layer_is_never_asked_for_again(self, tmp_path: Path) -> None:
        first, again = small_image(), small_image()
        run(first, tmp_path / "one")
        run(again, tmp_path / "two")
        assert sorted(first.asked) == sorted(first.config.diff_ids)
        assert again.asked == []

    def test_only_the_changed_layer_is(self, tmp_path: Path) -> None:
        base, top, other = Layer().file("base", "b"), Layer().file("top", "1"), Layer().file("top", "2")
        run(MemoryImage(base, top), tmp_path / "one")
        image = MemoryImage(base, other)
        run(image, tmp_path / "two")
        assert image.asked == [other.diff_id]

    def test_other_options_are_other_files(self, tmp_path: Path) -> None:
        run(small_image(), tmp_path / "one")
        image = small_image()
        run(image, tmp_path / "two", options=Options("zstd"))
        assert len(image.asked) == 2
        run(image := small_image(), tmp_path / "three", options=Options("gzip", 6))
        assert image.asked == []  # the default by its name

    def test_content_that_is_not_its_diff_id_is_refused_and_not_kept(self, tmp_path: Path) -> None:
        image = small_image()
        image.stored[image.config.diff_ids[1]] = Layer().file("evil").tar
        with pytest.raises(ConvertError, match="has the content of sha256:"):
            run(image, tmp_path / "out")
        assert files(tmp_path / "out") == set()
        assert not any(
            image.config.diff_ids[1][7:] in name and ".squashfs" in name for name in files(tmp_path / "layers")
        )
        good = small_image()
        run(good, tmp_path / "out")
        assert good.asked == [good.config.diff_ids[1]] or sorted(good.asked) == sorted(good.config.diff_ids)

    def test_a_layer_that_is_missing_or_strange_is_refused(self, tmp_path: Path) -> None:
        image = small_image()
        del image.stored[image.config.diff_ids[0]]
        with pytest.raises(ConvertError, match="does not hold its layer"):
            run(image, tmp_path / "out")

    def test_a_layer_that_is_no_tar_is_one_clear_error(self, tmp_path: Path) -> None:
        image = small_image()
        image.stored[image.config.diff_ids[0]] = b"\xff" * 5000
        with pytest.raises(ConvertError) as caught:
            run(image, tmp_path / "out")
        assert "\n" not in str(caught.value)
        assert files(tmp_path / "out") == set()

    def test_a_damaged_kept_layer_is_named(self, converted: Converted, tmp_path: Path) -> None:
        damaged = max((tmp_path / "layers").iterdir(), key=lambda path: path.stat().st_size)
        damaged.write_bytes(damaged.read_bytes()[:200])
        with pytest.raises(ConvertError) as caught:
            run(small_image(), tmp_path / "again")
        assert str(damaged) in str(caught.value)
        assert files(tmp_path / "again") == set()

    def test_a_full_disk_is_one_clear_error(self, tmp_path: Path) -> None:
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, before[1]))
        try:
            with pytest.raises(ConvertError, match="File too large"):
                run(MemoryImage(Layer().file("random", os.urandom(100_000))), tmp_path / "out")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert files(tmp_path / "out") == set()

    def test_no_lock_file_stays(self, converted: Converted, tmp_path: Path) -> None:
        assert {path.suffix for path in (tmp_path / "layers").iterdir()} == {".squashfs"}

    def test_two_at_once_squash_once(self, tmp_path: Path) -> None:
        entered, go_on, asked = threading.Event(), threading.Event(), []

        class Slow(MemoryImage):
            def layers(self, wanted: Collection[str]) -> Iterator[tuple[str, BinaryIO]]:
                asked.append(sorted(wanted))
                entered.set()
                assert go_on.wait(20)
                yield from super().layers(wanted)

        layers = (Layer().file("a", "a"), Layer().file("b", "b"))
        heard: list[str] = []

        class Listening(Silent):
            def phase(self, phase: str, message: str, progress: float | None = None) -> None:
                heard.append(message)
                if "waiting" in message:
                    go_on.set()

        def one(name: str) -> None:
            run(Slow(*layers), tmp_path / name, reporter=Listening())

        threads = [threading.Thread(target=one, args=(name,)) for name in ("one", "two")]
        threads[0].start()
        assert entered.wait(20)
        threads[1].start()
        for thread in threads:
            thread.join(30)
        assert asked == [sorted(layer.diff_id for layer in layers)]
        assert any("waiting" in message for message in heard)
        assert (tmp_path / "one/x.sif").read_bytes() == (tmp_path / "two/x.sif").read_bytes()

    def test_a_killed_process_leaves_no_lock_and_nothing_half_made(self, tmp_path: Path) -> None:
        context = multiprocessing.get_context("fork")
        reached = context.Event()
        process = context.Process(target=_hang, args=(tmp_path, reached))
        process.start()
        assert reached.wait(20)
        process.kill()
        process.join(20)
        assert not [path for path in (tmp_path / "layers").iterdir() if path.suffix == ".squashfs"]
        image = small_image()
        converted = run(image, tmp_path / "out")
        assert sorted(image.asked) == sorted(image.config.diff_ids)
        with converted.open() as merged:
            assert merged.read("/usr/tool") == b"v2"
        assert {path.suffix for path in (tmp_path / "layers").iterdir()} == {".squashfs"}


def _hang(folder: Path, reached: Any) -> None:
    class Hanging(MemoryImage):
        def layers(self, wanted: Collection[str]) -> Iterator[tuple[str, BinaryIO]]:
            for diff_id, stream in super().layers(wanted):
                yield diff_id, _Stuck(stream, reached)

    template = small_image()
    image = Hanging(config=CONFIG)
    image.config, image.stored = template.config, template.stored
    run(image, folder / "killed")


class _Stuck(io.BufferedReader):
    """Gives half of a layer and then nothing any more."""

    def __init__(self, stream: BinaryIO, reached: Any) -> None:
        raw = stream.read()
        super().__init__(io.BytesIO(raw[: len(raw) // 2]))
        self._reached = reached

    def read(self, size: int | None = -1, /) -> bytes:
        block = super().read(size)
        if len(block) < (size or 0):
            self._reached.set()
            threading.Event().wait()
        return block


def test_memory_stays_flat_with_a_large_layer(tmp_path: Path) -> None:
    """As many random bytes as would not fit into what a build may take (150 MB) if they were kept."""
    script = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "import memory; from pathlib import Path; from test_convert import convert_large\n"
        "convert_large(Path(sys.argv[2])); print(memory.peak())"
    )
    size = 192 << 20
    member = tarfile.TarInfo("data")
    member.size = size
    with (tmp_path / "layer.tar").open("wb") as out:
        out.write(member.tobuf())
        for _ in range(size >> 20):
            out.write(os.urandom(1 << 20))
        out.write(bytes(1024))
    here = Path(__file__).parent
    done = subprocess.run(
        [sys.executable, "-c", script, str(here), str(tmp_path)],
        check=True,
        env={**os.environ, "PYTHONPATH": str(here.parent)},
        capture_output=True,
    )
    assert int(done.stdout) << 10 < 150e6
    assert primary_partition(tmp_path / "out/x.sif")[1] > size


def convert_large(folder: Path) -> None:
    """Runs in a process of its own, so that its peak is its own."""
    with (folder / "layer.tar").open("rb") as tar:
        digest = hashlib.sha256()
        while block := tar.read(1 << 20):
            digest.update(block)
    with (folder / "image.tar").open("wb") as out:
        layers = [(f"sha256:{digest.hexdigest()}", folder / "layer.tar")]
        write_docker_archive(out, {"architecture": "amd64", "os": "linux"}, layers, "x:1")
    run(DockerArchive(folder / "image.tar"), folder / "out", "sif")


class TestRefusals:
    @pytest.mark.parametrize("name", ["", "../x", "-x", "a/b", "x\n", ".hidden", "x" * 300])
    def test_names(self, tmp_path: Path, name: str) -> None:
        with pytest.raises(UsageError):
            run(small_image(), tmp_path / "out", name=name)

    def test_formats(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match=f"no format 'iso'.*known: {', '.join(sorted(FORMATS))}"):
            run(small_image(), tmp_path / "out", "iso")
        with pytest.raises(UsageError, match="no format to convert to"):
            run(small_image(), tmp_path / "out", formats=())

    def test_an_architecture_without_sif_leaves_nothing(self, tmp_path: Path) -> None:
        with pytest.raises(ConvertError, match="architecture 'vax'"):
            run(MemoryImage(architecture="vax"), tmp_path / "out")
        assert files(tmp_path / "out") == set()

    def test_a_missing_folder_is_one_clear_error(self, tmp_path: Path) -> None:
        with pytest.raises(ConvertError, match="cannot be written: No such file"):
            convert(
                small_image(),
                layers_dir=tmp_path / "layers",
                folder=tmp_path / "none",
                name="x",
                labels={},
                timestamp=0,
                formats=("sif",),
                options=Options(),
                reporter=Silent(),
            )

    def test_labels_of_any_content(self, tmp_path: Path) -> None:
        labels = {"quote\"'": "line\nend", "$x": "`id`", "ü": "\u2028 </script>"}
        with run(small_image(), tmp_path / "out", labels=labels).open() as image:
            assert json.loads(image.read("/.singularity.d/labels.json")).items() >= labels.items()
