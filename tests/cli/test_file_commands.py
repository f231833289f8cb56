"""Looking into files from the command line, as a person does it; and that no image commands a terminal."""

from __future__ import annotations

import io
import json
import os
import pty
import re
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from test_images import ID, put

from hpcbinder.cli.main import cli
from hpcbinder.cli.session import Session
from hpcbinder.squashfs import Options, merge, write_layer

EVIL = "\x1b]0;owned\x07\x1b[2J\u202e\udcff\n"


def image(path: Path, **more: bytes) -> Path:
    buffer = io.BytesIO()
    files = {"etc/motd": b"hello\n", "bin/raw": bytes(range(256)) * 3, **more}
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT, errors="surrogateescape") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
        link = tarfile.TarInfo("link")
        link.type, link.linkname = tarfile.SYMTYPE, "etc"
        tar.addfile(link)
    layer = path.with_suffix(".layer")
    write_layer(io.BytesIO(buffer.getvalue()), layer, Options())
    with path.open("w+b") as out:
        merge([layer], out)
    return path


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return image(tmp_path / "x.squashfs")


def hpcbinder(*arguments: object, **variables: str) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "hpcbinder", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, env={**os.environ, **variables}, timeout=300)


def test_ls_lists_a_folder_a_file_and_everything(file: Path) -> None:
    assert hpcbinder("ls", file).stdout.split() == [b"bin", b"etc", b"link"]
    assert hpcbinder("ls", file, "link").stdout.split() == [b"motd"]
    assert hpcbinder("ls", file, "/etc/motd").stdout == b"motd\n"
    everything = hpcbinder("ls", "-R", file).stdout.split()
    assert everything == [b"bin", b"bin/raw", b"etc", b"etc/motd", b"link"]
    (line,) = hpcbinder("ls", "-l", file, "link").stdout.splitlines()
    assert re.fullmatch(rb"l\S{9} +1 +0 +0 +0 1970-01-01 00:00:00 link -> etc", line)


def test_cat_gives_bytes_as_they_are(file: Path) -> None:
    assert hpcbinder("cat", file, "bin/raw").stdout == bytes(range(256)) * 3
    assert hpcbinder("cat", file, "/link/motd").stdout == b"hello\n"


def test_extract_copies_and_says_nothing_on_stdout(file: Path, tmp_path: Path) -> None:
    done = hpcbinder("extract", file, "/etc", tmp_path / "copy")
    assert (done.returncode, done.stdout) == (0, b"")
    assert (tmp_path / "copy/motd").read_bytes() == b"hello\n"
    again = hpcbinder("extract", file, "/etc", tmp_path / "copy/motd")
    assert (again.returncode, b"is there already" in again.stderr) == (2, True)


def test_diff_tells_by_its_exit_code(file: Path, tmp_path: Path) -> None:
    same = hpcbinder("diff", file, file)
    assert (same.returncode, same.stdout) == (0, b"")
    other = image(tmp_path / "y", **{"etc/motd": b"hallo\n", "new": b""})
    differ = hpcbinder("diff", file, other)
    assert differ.returncode == 11
    assert differ.stdout == b"changed  /etc/motd: content\nadded    /new\n"
    lines = [json.loads(line) for line in hpcbinder("diff", "--json", file, other).stdout.splitlines()]
    assert [(line["path"], line["change"], line["what"]) for line in lines] == [
        ("/etc/motd", "changed", ["content"]),
        ("/new", "added", []),
    ]
    assert lines[1]["before"] is None and lines[1]["after"]["kind"] == "file"
    assert hpcbinder("diff", file, tmp_path / "nothing").returncode == 2
    (tmp_path / "text").write_text("text" * 100)
    assert hpcbinder("diff", file, tmp_path / "text").returncode == 6


def test_check_tells_by_its_exit_code(file: Path) -> None:
    whole = hpcbinder("check", file)
    assert (whole.returncode, whole.stdout) == (0, b"")
    data = bytearray(file.read_bytes())
    data[96] ^= 0xFF
    file.write_bytes(data)
    damaged = hpcbinder("check", file)
    assert damaged.returncode == 6
    assert damaged.stdout.startswith(b"fragment block 0: damaged squashfs block")
    assert b"the image is damaged: 1 problem" in damaged.stderr


def test_inspect_is_a_page_or_an_object(file: Path) -> None:
    assert re.search(rb"^compressor +gzip$", hpcbinder("inspect", file).stdout, re.MULTILINE)
    assert json.loads(hpcbinder("inspect", file, "--json").stdout)["squashfs"]["compressor"] == "gzip"


def test_an_id_stands_for_the_images_file(tmp_path: Path) -> None:
    put(tmp_path / "store")
    image(tmp_path / f"store/images/{ID}/image.squashfs")
    assert hpcbinder("--store", tmp_path / "store", "cat", "chirp", "etc/motd").stdout == b"hello\n"
    nothing = hpcbinder("--store", tmp_path / "store", "ls", "sparrow")
    assert nothing.returncode == 8
    assert b"there is no file 'sparrow'" in nothing.stderr


@pytest.mark.parametrize("arguments", [("ls", "F", "no"), ("cat", "F", "etc"), ("cat", "F", "link/no")])
def test_what_is_not_in_the_image_is_a_usage_error(file: Path, arguments: tuple[str, ...]) -> None:
    done = hpcbinder(*(file if word == "F" else word for word in arguments))
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1


COMMANDS = [
    ("inspect", "F"), ("ls", "F"), ("ls", "-lR", "F"), ("check", "D"), ("diff", "F", "O"), ("diff", "--json", "F", "O"),
    ("inspect", "--json", "F"), ("ls", "F", f"no{EVIL}"), ("cat", "F", "evil"), ("cat", "F", EVIL),
]  # fmt: skip


@pytest.mark.parametrize("arguments", COMMANDS, ids=lambda arguments: " ".join(arguments[:2]))
def test_no_image_commands_a_terminal(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    evil = EVIL.encode("utf-8", "surrogateescape")
    labels = json.dumps({f"label{EVIL}": EVIL}).encode()
    odd = {EVIL: b"x", "evil": evil, ".singularity.d/labels.json": labels, ".singularity.d/runscript": evil}
    files = {"F": image(tmp_path / "f", **odd), "O": image(tmp_path / "o"), "D": image(tmp_path / "d", **odd)}
    data = bytearray(files["D"].read_bytes())
    data[96] ^= 0xFF
    files["D"].write_bytes(data)
    shown = on_a_terminal([str(files.get(word, word)) for word in arguments])
    assert shown
    # Click, rich and the live line of our own are allowed their colours and cursor movements, but not these.
    assert not re.search(rb"owned\x07|\x1b\]|\x1b\[2J|\xe2\x80\xae|\xff", shown)


def on_a_terminal(arguments: list[str]) -> bytes:
    """What a command writes to its terminal."""
    main, terminal = pty.openpty()
    command = [sys.executable, "-m", "hpcbinder", *arguments]
    with subprocess.Popen(command, stdin=terminal, stdout=terminal, stderr=terminal) as process:
        os.close(terminal)
        written = b"".join(_read(main))
        process.wait()
    os.close(main)
    return written


def _read(main: int) -> Iterator[bytes]:
    while True:
        try:
            part = os.read(main, 65536)
        except OSError:  # Linux: the other end is closed
            return
        if not part:
            return
        yield part


def test_completion_offers_ids_and_files(tmp_path: Path) -> None:
    put(tmp_path / "store")
    environment = {"COMP_WORDS": f"hpcbinder --store {tmp_path}/store ls ", "COMP_CWORD": "4"}
    words = CliRunner().invoke(
        cli, obj=Session(), env={**environment, "_HPCBINDER_COMPLETE": "bash_complete"}, prog_name="hpcbinder"
    )
    assert f"plain,{ID}" in words.output
