"""`hpcbinder convert`: names, places, what is there already, images that are converted already. No engine is needed;
tests/transport has the real ones."""

from __future__ import annotations

import fcntl
import gzip
import hashlib
import io
import json
import os
import struct
import subprocess
import tarfile
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from hpcbinder.cli.convert import FORMATS, TRANSPORTS
from hpcbinder.cli.main import main
from hpcbinder.convert import FORMATS as ALL_FORMATS
from hpcbinder.image import write_docker_archive
from hpcbinder.placing import ENDINGS
from hpcbinder.sif import primary_partition, read_sif
from hpcbinder.squashfs import Image
from hpcbinder.transport import TRANSPORTS as ALL_TRANSPORTS

CONFIG: dict[str, Any] = {
    "architecture": "amd64",
    "os": "linux",
    "created": "2024-05-06T07:08:09Z",
    "config": {"Env": ["PATH=/bin", "Q='x'"], "Cmd": ["sh"], "Labels": {"a": "b"}, "WorkingDir": "/srv"},
}


def layer() -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, content in (("srv/hello", b"hello\n"), ("srv/big", bytes(range(256)) * 2000)):
            member = tarfile.TarInfo(name)
            member.size, member.mtime = len(content), 1_700_000_000
            tar.addfile(member, io.BytesIO(content))
    return out.getvalue()


def write_archive(path: Path, *, tag: str | None = "org/tool:1.2", **changes: Any) -> Path:
    tar = layer()
    file = path.with_suffix(".layer")
    file.write_bytes(tar)
    with path.open("wb") as out:
        layers = [(f"sha256:{hashlib.sha256(tar).hexdigest()}", file)]
        write_docker_archive(out, {**CONFIG, **changes}, layers, tag)
    return path


class Person:
    """Runs the program in a folder, with a store and nothing configured; in this process, which is ten times faster."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.env = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder / "home"),
            "LANG": "C.UTF-8",
            "DOCKER_HOST": "unix:///none",
        }

    def run(self, *arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        out, err = io.StringIO(), io.StringIO()
        with (
            mock.patch.dict(os.environ, self.env, clear=True),
            redirect_stdout(out),
            redirect_stderr(err),
            pytest.MonkeyPatch.context() as patch,
            pytest.raises(SystemExit) as ended,
        ):
            patch.chdir(self.folder)
            main(arguments)
        assert ended.value.code == code, err.getvalue()
        assert "internal error" not in err.getvalue()
        return subprocess.CompletedProcess(arguments, code, out.getvalue(), err.getvalue())

    def convert(self, *arguments: str) -> dict[str, Any]:
        result = json.loads(self.run("convert", *arguments, "--json").stdout)
        assert isinstance(result, dict)
        return result

    def files(self) -> set[str]:
        return {path.name for path in self.folder.iterdir()}


@pytest.fixture
def person(tmp_path: Path) -> Person:
    return Person(tmp_path)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `tool.tar`, and `tool.sif` and `tool.squashfs` made of it."""
    person = Person(tmp_path_factory.mktemp("made"))
    write_archive(person.folder / "tool.tar")
    person.convert("docker-archive:tool.tar", "--to", "sif,squashfs", "--compression", "gzip")
    return person.folder


def test_the_words_of_completion_are_those_there_are() -> None:
    assert set(FORMATS) == set(ALL_FORMATS)
    assert [word.partition(":")[0] for word in TRANSPORTS] == list(ALL_TRANSPORTS)


def test_every_format_of_one_image(person: Person) -> None:
    write_archive(person.folder / "tool.tar")
    result = person.convert(
        "docker-archive:tool.tar:org/tool:1.2", "--to", ",".join(FORMATS), "--compression", "zstd:5"
    )
    assert result["name"] == "tool_1.2"
    assert list(result["formats"]) and set(result["formats"]) == set(FORMATS)
    for form, found in result["formats"].items():
        path = Path(found["path"])
        assert path.exists() and found["size"] > 0
        if form in ENDINGS:
            assert path == person.folder / f"tool_1.2{ENDINGS[form]}"
    assert result["compression"] == {"name": "zstd:5", "why": "asked for"}
    assert result["layers"] == {"total": 1, "new": 1, "known": 0}
    assert set(result["timings"]) == {"open", "convert"}
    # One squashfs for all that take it as it is.
    assert (person.folder / "tool_1.2.sqsh").samefile(person.folder / "tool_1.2.squashfs")
    assert not [name for name in person.files() if name.startswith(".")]
    assert (person.folder / "home/.local/share/hpcbinder/layers").is_dir()


def test_what_is_printed(person: Person) -> None:
    write_archive(person.folder / "tool.tar")
    done = person.run("convert", "docker-archive:tool.tar", "--to", "sif", "--to", "squashfs", "--compression", "gzip")
    first, *rest = done.stdout.splitlines()
    assert first.startswith("tool  gzip:6, 1 layer, 1 of them new, ")
    assert [line.split()[0] for line in rest] == ["squashfs", "sif"]
    assert rest[1].endswith(f"{person.folder}/tool.sif")
    assert "compressing with gzip:6: asked for" in done.stderr


def test_the_same_image_gives_the_same_bytes(person: Person, made: Path) -> None:
    options = ("--to", "sif,squashfs", "--compression", "gzip", "--jobs", "1")
    result = person.convert(f"docker-archive:{made}/tool.tar", *options)
    for form in ("sif", "squashfs"):
        assert Path(result["formats"][form]["path"]).read_bytes() == (made / f"tool.{form}").read_bytes()


class TestPlaces:
    def convert(self, person: Person, made: Path, *arguments: str) -> list[str]:
        result = person.convert(str(made / "tool.squashfs"), *arguments)
        return sorted(str(Path(found["path"]).relative_to(person.folder)) for found in result["formats"].values())

    def test_one_file(self, person: Person, made: Path) -> None:
        assert self.convert(person, made, "--to", "sif", "-o", "my image.x") == ["my image.x"]

    def test_a_folder_that_is_made(self, person: Person, made: Path) -> None:
        assert self.convert(person, made, "--to", "sif", "-o", "a/b/") == ["a/b/tool.sif"]
        assert self.convert(person, made, "--to", "sif,squashfs", "-o", "c") == ["c/tool.sif", "c/tool.squashfs"]

    def test_a_folder_that_is_there(self, person: Person, made: Path) -> None:
        (person.folder / "a").mkdir()
        assert self.convert(person, made, "--to", "sif", "-o", "a", "--name", "n") == ["a/n.sif"]

    @pytest.mark.parametrize("name", ["../x", "a/b", "", ".x", "a" * 300, "a b"])
    def test_a_name_that_cannot_be(self, person: Person, made: Path, name: str) -> None:
        person.run("convert", str(made / "tool.squashfs"), "--to", "sif", "--name", name, code=2)
        assert person.files() <= {"home"}

    def test_what_is_there_stays_unless_it_is_forced(self, person: Person, made: Path) -> None:
        (person.folder / "tool.sif").write_text("mine")
        done = person.run("convert", str(made / "tool.squashfs"), "--to", "squashfs,sif", code=2)
        assert "tool.sif: is there already (--force replaces it)" in done.stderr
        assert (person.folder / "tool.sif").read_text() == "mine" and person.files() <= {"tool.sif", "home"}
        assert self.convert(person, made, "--to", "squashfs,sif", "--force") == ["tool.sif", "tool.squashfs"]
        assert read_sif(person.folder / "tool.sif").created == read_sif(made / "tool.sif").created == 1_714_979_289

    def test_a_folder_of_ours_is_replaced_whole(self, person: Person, made: Path) -> None:
        for extra in ((), ("--force",)):
            assert self.convert(person, made, "--to", "oci", *extra) == ["tool.oci"]
            assert not (person.folder / "tool.oci/left").exists()
            (person.folder / "tool.oci/left").touch()
        assert not [name for name in person.files() if name.startswith(".")]

    def test_two_images_share_shifters_folder(self, person: Person, made: Path) -> None:
        write_archive(person.folder / "other.tar", created="2025-01-01T00:00:00Z")
        for source in (f"docker-archive:{made}/tool.tar", "docker-archive:other.tar", "docker-archive:other.tar"):
            person.convert(source, "--to", "shifter", "--compression", "gzip")
        assert len(list((person.folder / "shifter").glob("*.squashfs"))) == 2

    @pytest.mark.parametrize(
        ("output", "code", "words"),
        [
            ("none/x.sif", 2, "there is no such folder"),
            ("file/x.sif", 2, "there is no such folder"),
            ("file/", 2, "is no folder"),
        ],
    )
    def test_a_place_that_cannot_be(self, person: Person, made: Path, output: str, code: int, words: str) -> None:
        (person.folder / "file").touch()
        done = person.run("convert", str(made / "tool.squashfs"), "--to", "sif", "-o", output, code=code)
        assert words in done.stderr

    def test_what_a_killed_process_left_is_removed_and_what_a_living_one_uses_is_not(
        self, person: Person, made: Path
    ) -> None:
        dead, alive = ".hpcbinder-00112233445566aa", ".hpcbinder-00112233445566bb"
        for name in (dead, alive):
            (person.folder / name / "deep").mkdir(parents=True)
            (person.folder / name / "half").touch()
            (person.folder / name / ".unfinished").symlink_to(name)
        descriptor = os.open(person.folder / alive, os.O_RDONLY)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        try:
            self.convert(person, made, "--to", "sif")
        finally:
            os.close(descriptor)
        assert {name for name in person.files() if name.startswith(".")} == {alive}

    def test_what_only_has_the_name_of_unfinished_results_stays(self, person: Person, made: Path) -> None:
        """In a folder of many people somebody may have renamed it so."""
        for name in (".hpcbinder-backup", ".hpcbinder-00112233445566aa", ".hpcbinder-00112233445566bb"):
            (person.folder / name).mkdir()
            (person.folder / name / "thesis").touch()
        (person.folder / ".hpcbinder-00112233445566bb/.unfinished").symlink_to(".hpcbinder-00112233445566cc")
        self.convert(person, made, "--to", "sif")
        assert len([name for name in person.files() if name.startswith(".")]) == 3
        assert len(list(person.folder.glob(".hpcbinder-*/thesis"))) == 3

    def test_force_replaces_files_and_nothing_else(self, person: Person, made: Path) -> None:
        os.mkfifo(person.folder / "pipe")
        done = person.run("convert", str(made / "tool.squashfs"), "--to", "sif", "-o", "pipe", "--force", code=2)
        assert "is no ordinary file" in done.stderr


class TestConvertedAlready:
    def test_a_squashfs_and_a_sif_into_each_other(self, person: Person, made: Path) -> None:
        result = person.convert(str(made / "tool.sif"), "--to", "squashfs,charliecloud", "-o", "out")
        assert (person.folder / "out/tool.squashfs").read_bytes() == (made / "tool.squashfs").read_bytes()
        assert result["layers"] == {"total": 0, "new": 0, "known": 0}
        assert result["compression"]["name"] == "gzip"
        person.convert(str(made / "tool.sif"), "--to", "sif")
        assert (person.folder / "tool.sif").read_bytes() == (made / "tool.sif").read_bytes()

    def test_a_bare_squashfs_says_what_is_in_it(self, person: Person, made: Path) -> None:
        person.convert(str(made / "tool.squashfs"), "--to", "sif,shifter")
        facts = json.loads(person.run("inspect", "tool.sif", "--json").stdout)
        direct = json.loads(person.run("inspect", str(made / "tool.sif"), "--json").stdout)
        for key in ("labels", "environment", "runscript", "definition"):
            assert facts[key] == direct[key]
        assert facts["oci_config"]["Env"] == CONFIG["config"]["Env"]
        (meta,) = (person.folder / "shifter").glob("*.meta")
        assert "ENV: Q='x'\n" in meta.read_text() and "ENTRY: ['/.singularity.d/runscript']" in meta.read_text()

    def test_the_file_stays_the_persons_own(self, person: Person, made: Path) -> None:
        person.convert(str(made / "tool.squashfs"), "--to", "squashfs,enroot")
        assert not (person.folder / "tool.squashfs").samefile(made / "tool.squashfs")
        assert (person.folder / "tool.squashfs").samefile(person.folder / "tool.sqsh")

    def test_another_compression_is_refused(self, person: Person, made: Path) -> None:
        done = person.run("convert", str(made / "tool.sif"), "--to", "squashfs", "--compression", "zstd", code=2)
        assert "converted already, with gzip" in done.stderr
        person.convert(str(made / "tool.sif"), "--to", "squashfs", "--compression", "gzip")

    @pytest.mark.parametrize(
        ("system", "words"),
        [(5, "is encrypted"), (6, "is encrypted"), (2, "holds ext3, not squashfs"), (99, "kind 99")],
    )
    def test_a_sif_that_holds_something_else(self, person: Person, made: Path, system: int, words: str) -> None:
        raw = bytearray((made / "tool.sif").read_bytes())
        (partition,) = [d for d in read_sif(made / "tool.sif").descriptors if d.partition is not None]
        at = raw.index(partition.extra[:8], 4096)
        struct.pack_into("<i", raw, at, system)
        (person.folder / "x.sif").write_bytes(raw)
        done = person.run("convert", "x.sif", "--to", "squashfs", code=6)
        assert words in done.stderr and done.stderr.count("\n") == 1

    def test_what_is_no_image(self, person: Person, made: Path) -> None:
        (person.folder / "text").write_text("hello")
        (person.folder / "a.tar.gz").write_bytes(gzip.compress((made / "tool.tar").read_bytes()))
        (person.folder / "folder").mkdir()
        for source, code, words in (
            ("text", 6, "neither a SIF nor a squashfs image"),
            ("a.tar.gz", 6, "docker-archive:FILE"),
            ("folder", 6, "is a folder, not an image"),
            ("none/x.sif", 2, "there is no such file"),
            ("nothing", 8, "there is no file 'nothing', and no image"),
            ("docker-archive:none.tar", 6, "is not there"),
            ("docker-archive:folder", 6, "oci:PATH"),
            ("oci-archive:text", 6, "no tar archive"),
        ):
            assert words in person.run("convert", source, "--to", "sif", code=code).stderr, source
        assert person.files() <= {"text", "a.tar.gz", "folder", "home"}

    def test_a_damaged_file_leaves_nothing(self, person: Person, made: Path) -> None:
        raw = bytearray((made / "tool.sif").read_bytes())
        offset, size = primary_partition(made / "tool.sif")
        raw[offset + size // 2 : offset + size] = bytes(size - size // 2)
        (person.folder / "x.sif").write_bytes(raw)
        person.run("convert", "x.sif", "--to", "squashfs,sif", "-o", "out/", code=6)
        assert not (person.folder / "out").exists()


class TestArchives:
    def test_compressed_ones(self, person: Person, made: Path) -> None:
        (person.folder / "tool.tar.gz").write_bytes(gzip.compress((made / "tool.tar").read_bytes()))
        person.convert("docker-archive:tool.tar.gz", "--to", "squashfs", "--compression", "gzip")
        assert (person.folder / "tool.squashfs").read_bytes() == (made / "tool.squashfs").read_bytes()
        assert not list((person.folder / "home/.local/share/hpcbinder/tmp").iterdir())

    def test_a_damaged_compressed_one(self, person: Person, made: Path) -> None:
        raw = gzip.compress((made / "tool.tar").read_bytes())
        (person.folder / "tool.tar.gz").write_bytes(raw[: len(raw) // 2])
        done = person.run("convert", "docker-archive:tool.tar.gz", "--to", "squashfs", code=6)
        assert "damaged" in done.stderr

    def test_a_layer_that_is_not_what_its_digest_says(self, person: Person, made: Path) -> None:
        raw = (made / "tool.tar").read_bytes()
        assert raw.count(b"hello\n") == 1
        (person.folder / "tool.tar").write_bytes(raw.replace(b"hello\n", b"jello\n"))
        done = person.run("convert", "docker-archive:tool.tar", "--to", "squashfs,sif", "-o", "out", code=6)
        assert "has the content of sha256:" in done.stderr
        assert not (person.folder / "out").exists()
        assert not list((person.folder / "home/.local/share/hpcbinder/layers").glob("*.squashfs"))

    def test_an_image_without_layers(self, person: Person) -> None:
        with (person.folder / "tool.tar").open("wb") as out:
            write_docker_archive(out, CONFIG, [], "x:1")
        result = person.convert("docker-archive:tool.tar", "--to", "squashfs,sif", "--compression", "gzip")
        assert result["layers"]["total"] == 0
        with Image.open(result["formats"]["squashfs"]["path"]) as image:
            assert image.lookup("/.singularity.d/runscript") is not None

    def test_another_compression(self, person: Person) -> None:
        (person.folder / "a.tar.xz").write_bytes(b"\xfd7zXZ\0" + bytes(100))
        done = person.run("convert", "docker-archive:a.tar.xz", "--to", "squashfs", code=6)
        assert "is compressed by xz" in done.stderr

    def test_the_platform(self, person: Person, made: Path) -> None:
        source = f"docker-archive:{made}/tool.tar"
        done = person.run("convert", source, "--to", "sif", "--platform", "linux/arm64", code=6)
        assert "the image is for amd64, not for linux/arm64" in done.stderr
        person.convert(source, "--to", "sif", "--platform", "linux/amd64")
        person.run("convert", source, "--to", "sif", "--platform", "windows", code=2)

    @pytest.mark.parametrize("created", ["", "0001-01-01T00:00:00Z", "yesterday", "9999-01-01T00:00:00Z"])
    def test_no_time_of_its_own(self, person: Person, created: str) -> None:
        write_archive(person.folder / "tool.tar", created=created)
        person.convert("docker-archive:tool.tar", "--to", "sif", "--compression", "gzip")
        assert read_sif(person.folder / "tool.sif").created == 0
        with Image.open(person.folder / "tool.sif", offset=primary_partition(person.folder / "tool.sif")[0]) as image:
            node = image.lookup("/srv/hello")
            assert node is not None and node.mtime == 1_700_000_000


class TestUsage:
    def test_an_image_of_a_registry_without_its_transport(self, person: Person) -> None:
        done = person.run("convert", "ghcr.io/org/tool:1.2", "--to", "sif", code=2)
        assert "docker://ghcr.io/org/tool:1.2" in done.stderr

    def test_names_longer_than_any_file_can_have(self, person: Person, made: Path) -> None:
        long, there = "a" * 5000, str(made / "tool.sif")
        for arguments, code in (
            ((long,), 6),
            ((f"docker-archive:{long}",), 6),
            ((f"oci:{long}",), 6),
            ((f"docker-daemon:{long}",), 5),
            ((f"docker://{long}",), 2),
            ((there, "-o", long), 6),
            ((there, "-o", f"{long}/"), 6),
        ):
            done = person.run("convert", *arguments, "--to", "sif", code=code)
            assert len(done.stderr) < 12_000 and done.stderr.count("\n") == 1

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            (("x",), "Missing option '--to'"),
            (("x", "--to", "iso"), "no format 'iso'; known: sif, squashfs"),
            (("x", "--to", ""), "no format ''"),
            (("x", "--to", "sif", "--jobs", "0"), "--jobs"),
            (("x", "--to", "sif", "--compression", "gzip:99"), "gzip"),
            (("debian:bookworm", "--to", "sif"), "docker://debian:bookworm"),
        ],
    )
    def test_what_cannot_be_meant(self, person: Person, arguments: tuple[str, ...], words: str) -> None:
        assert words in person.run("convert", *arguments, code=2).stderr
