"""Wheels that mean no good, or are not well made: refused with the package's name, and nothing of them is left."""

from __future__ import annotations

import stat
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from package_index import TIME, File, PackageIndex
from wheelmaker import Install, contents, locked, publish, wheel

from hpcbinder.errors import BuildError, ConvertError

INFO = "pack-1.0.dist-info"
ENTRY = f"{INFO}/entry_points.txt"
DATA = "pack-1.0.data"


def scripts(line: str) -> dict[str, Any]:
    return {"files": {ENTRY: f"[console_scripts]\n{line}\n"}}


def with_files(*paths: str) -> dict[str, Any]:
    return {"files": dict.fromkeys(paths, "x")}


def a_link(archive: zipfile.ZipFile) -> None:
    member = zipfile.ZipInfo("link", TIME)
    member.external_attr = (stat.S_IFLNK | 0o777) << 16
    archive.writestr(member, "/etc/passwd")


def unlisted(archive: zipfile.ZipFile) -> None:
    archive.writestr(zipfile.ZipInfo("smuggled.py", TIME), "x = 1")


def twice(archive: zipfile.ZipFile) -> None:
    with pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr(zipfile.ZipInfo(f"{INFO}/METADATA", TIME), "Name: other")


def many(archive: zipfile.ZipFile) -> None:
    for number in range(200_001):
        member = zipfile.ZipInfo(f"f{number}", TIME)
        member.header_offset = member.CRC = 0
        archive.filelist.append(member)
    archive._didModify = True  # type: ignore[attr-defined]


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "out of its folder": (with_files("../../etc/cron.d/x"), "no path that can be installed"),
    "absolute": (with_files("/etc/cron.d/x"), "no path that can be installed"),
    "out of a scheme": (with_files(f"{DATA}/data/../../x"), "no path that can be installed"),
    "line end in a name": (with_files("a\nb.py"), "no path that can be installed"),
    "backslash": (with_files("..\\x"), "no path that can be installed"),
    "direction of text": (with_files("a\u202eyp.x"), "no path that can be installed"),
    "long name": (with_files("a" * 300), "no path that can be installed"),
    "whiteout": (with_files("numpy/.wh..wh..opq"), "would take away files of others"),
    "link": ({"change": a_link}, "'link' is a link or a device"),
    "not in RECORD": ({"change": unlisted}, "RECORD does not have 'smuggled.py'"),
    "twice": ({"change": twice}, "METADATA' twice"),
    "forged digest": (
        {"files": {"a.py": "x = 1\n"}, "record": lambda text: text.replace("a.py,sha256=", "a.py,sha256=AAAA")},
        "its RECORD",
    ),
    "another file's digest": (
        {
            "files": {"a.py": "1", "b.py": "2"},
            "record": lambda text: text.replace("a.py", "c.py").replace("b.py", "a.py").replace("c.py", "b.py"),
        },
        "'a.py' is not what its RECORD says",
    ),
    "weak digest": (
        {"files": {"a.py": ""}, "record": lambda text: text.replace("a.py,sha256=", "a.py,md5=")},
        "no SHA-256 or better of 'a.py'",
    ),
    "no RECORD rows": ({"record": lambda text: ""}, "RECORD does not have"),
    "shell in a command": (scripts("run = pack:main; rm -rf ~"), "is no command"),
    "code in a command": (scripts("run = pack:main()"), "is no command"),
    "keyword": (scripts("run = pack:import"), "is no command"),
    "command in another folder": (scripts("../../usr/bin/ls = pack:main"), "is no command"),
    "command like an option": (scripts("-rf = pack:main"), "is no command"),
    "module only": (scripts("run = pack"), "is no command"),
    "command twice": (scripts("run = pack:main\nrun = pack:other"), "entry_points.txt cannot be read"),
    "command for the interpreter": (scripts("python3 = pack:main"), "'bin/python3' would take the place"),
    "script for the interpreter": (with_files(f"{DATA}/scripts/python"), "'bin/python' would take the place"),
    "settings of the environment": (with_files(f"{DATA}/data/pyvenv.cfg"), "'pyvenv.cfg' would take the place"),
    "file for a folder": (with_files(f"{DATA}/data/bin"), "'bin' would take the place"),
    "file and folder": (with_files("a", f"{DATA}/purelib/a/b"), "a file .* where a folder must be"),
    "two places": (with_files("a.py", f"{DATA}/platlib/a.py"), "two of its files would be"),
    "unknown scheme": (with_files(f"{DATA}/stdlib/os.py"), "of an unknown scheme"),
    "another's metadata": (with_files("other-1.0.dist-info/METADATA"), "has 2 .dist-info folders"),
    "another's metadata by the way": (
        with_files(f"{DATA}/purelib/numpy-9.dist-info/METADATA"),
        "would speak for another package",
    ),
    "the installer's own": (with_files(f"{DATA}/purelib/{INFO}/direct_url.json"), "or for the installer"),
    "other name inside": (
        {"files": {f"{INFO}/METADATA": "Name: numpy\nVersion: 1.0\n"}},
        "its METADATA is of numpy 1.0",
    ),
    "other version inside": ({"files": {f"{INFO}/METADATA": "Name: pack\nVersion: 2\n"}}, "its METADATA is of pack 2"),
    "future format": (
        {"files": {f"{INFO}/WHEEL": "Wheel-Version: 2.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"}},
        "of wheel version '2.0'",
    ),
    "other tags": (
        {"files": {f"{INFO}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: cp27-cp27m-win32\n"}},
        "tags in its WHEEL are not those of its name",
    ),
    "endless tags": (
        {"files": {f"{INFO}/WHEEL": f"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: {'a.' * 500}a-b-c\n"}},
        "WHEEL has a tag",
    ),
    "not UTF-8": ({"files": {ENTRY: b"[console_scripts]\n\xff = a:b\n"}}, "entry_points.txt is not UTF-8"),
    "too many files": ({"change": many}, "more than 200000 files"),
    "unknown packing": ({"method": zipfile.ZIP_BZIP2}, "packed with what no wheel uses"),
}


@pytest.mark.parametrize("what", BAD)
def test_refused(what: str, package_index: PackageIndex, install: Install, folder: Path) -> None:
    arguments, words = BAD[what]
    refused(wheel(**arguments), words, package_index, install, folder)


def refused(file: File, words: str, index: PackageIndex, install: Install, folder: Path) -> None:
    good = wheel("good")
    publish(index, file, good)
    with pytest.raises(BuildError, match=f"the wheel of pack 1.0 is refused: .*{words}") as caught:
        install(locked(file), locked(good))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 1000
    assert not [path for path in (folder / "layers").glob("*.squashfs") if file.sha256 in path.name]
    assert not list((folder.parent / "scratch").iterdir())
    # Others are not held up by it.
    assert len(install(locked(good))) == 1


def changed(file: File, change: Callable[[bytearray, int], None]) -> File:
    """The wheel with something else in the central directory's first entry, and in its local header."""
    content = bytearray(file.content)
    change(content, content.index(b"PK\1\2"))
    return File(file.name, bytes(content))


def test_encrypted(package_index: PackageIndex, install: Install, folder: Path) -> None:
    def change(content: bytearray, at: int) -> None:
        content[at + 8] |= 1

    refused(changed(wheel(), change), "is encrypted", package_index, install, folder)


def test_sizes_that_are_not_true(package_index: PackageIndex, install: Install, folder: Path) -> None:
    def change(content: bytearray, at: int) -> None:
        size = struct.unpack_from("<L", content, at + 24)[0]
        struct.pack_into("<L", content, at + 24, size + 7)

    text = "Metadata-Version: 2.1\nName: pack\nVersion: 1.0\n"
    file = changed(wheel(files={f"{INFO}/METADATA": text}), change)
    refused(file, "RECORD is wrong about|cannot be unpacked|shorter", package_index, install, folder)


@pytest.mark.parametrize("claimed", [(1 << 32) - 2, 1 << 30])
def test_more_than_it_may_unpack_to(claimed: int, package_index: PackageIndex, install: Install, folder: Path) -> None:
    def change(content: bytearray, at: int) -> None:
        struct.pack_into("<L", content, at + 24, claimed)

    refused(changed(wheel(), change), r"its \d+ bytes unpack to \d+", package_index, install, folder)


def test_files_over_each_other(package_index: PackageIndex, install: Install, folder: Path) -> None:
    def change(content: bytearray, at: int) -> None:
        struct.pack_into("<L", content, at + 20, 1 << 20)

    refused(changed(wheel(), change), "over each other", package_index, install, folder)


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\5\6" + bytes(18) + b"x"])
def test_what_is_no_archive(content: bytes, package_index: PackageIndex, install: Install, folder: Path) -> None:
    refused(File(wheel().name, content), "", package_index, install, folder)


def test_sources_that_bring_a_compiler_down(package_index: PackageIndex, install: Install) -> None:
    file = wheel(
        files={"a.py": "x = 1\n", "b.py": "-" * 100_000 + "1\n", "c.py": "[" * 90 + "]" * 90, "d.py": "y = 2\n"}
    )
    publish(package_index, file)
    (layer,) = install(locked(file))
    made = {path.rpartition("/")[2].partition(".")[0] for path in contents(layer) if path.endswith(".pyc")}
    assert {"a", "c", "d"} <= made


def test_a_full_disk_leaves_nothing(
    package_index: PackageIndex, install: Install, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = wheel(files={"a.py": "x = 1\n"})
    publish(package_index, file)

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    # A file system that is full cannot be had without being root; this stands for its answer.
    with monkeypatch.context() as patch:
        patch.setattr("hpcbinder.squashfs.output.os.pwrite", full)
        with pytest.raises(ConvertError, match="No space left"):
            install(locked(file))
    assert not list((folder.parent / "scratch").iterdir())
    assert install(locked(file))
