"""What `inspect` finds in files of ours, of Apptainer and of nobody."""

from __future__ import annotations

import json
import struct
import subprocess
from pathlib import Path

import pytest
from look_support import Item, folder, sif, squashfs

from hpcbinder.errors import ConvertError
from hpcbinder.look import check, inspect, open_image
from hpcbinder.sif import Kind, SifObject
from hpcbinder.squashfs import Options
from rig import Apptainer

TREE = {
    ".singularity.d": folder(),
    ".singularity.d/env": folder(),
    ".singularity.d/env/10-docker2singularity.sh": Item(b"export A=1\n"),
    ".singularity.d/env/99-base.sh": Item(b"export B=2\n"),
    ".singularity.d/labels.json": Item(b'{"org.example.name": "chirp"}'),
    ".singularity.d/runscript": Item(b'exec "$@"\n', mode=0o755),
    "opt/hpcbinder/manifest.json": Item(b'{"source": "https://example.org/chirp"}'),
    "bin/sh": Item(b"#!" * 100_000, mode=0o755),
    "bin/bash": Item(kind="link", target="bin/sh"),
    "link": Item(kind="symlink", target="bin/sh"),
}
OBJECTS = (
    SifObject(Kind.DEFFILE, "deffile", b"bootstrap: scratch\n"),
    SifObject(Kind.JSON, "oci-config.json", b'{"Env": ["A=1"]}'),
)


def test_everything_of_a_sif_is_found(tmp_path: Path) -> None:
    image = squashfs(tmp_path / "image", TREE, Options("lz4", 9, 16384))
    facts = inspect(sif(tmp_path / "x.sif", image, *OBJECTS))
    assert json.loads(json.dumps(facts)) == facts
    assert (facts["format"], facts["sif"]["architecture"], facts["sif"]["created"]) == ("sif", "amd64", 1_700_000_000)
    assert [(o["id"], o["kind"], o["name"], o["group"], o["link"]) for o in facts["sif"]["objects"]] == [
        (1, "deffile", "deffile", 1, None),
        (2, "json", "oci-config.json", 1, None),
        (3, "partition", "rootfs.squashfs", 1, None),
    ]
    assert facts["sif"]["objects"][2]["partition"] == "primary system"
    found = facts["squashfs"]
    assert found["offset"] == facts["sif"]["objects"][2]["offset"]
    assert (found["compressor"], found["options"]) == ("lz4", {"version": 1, "high_compression": 0})
    assert found["inodes"]["file"] == 6
    assert (found["inodes"]["symlink"], found["block_size"], found["content_bytes"] > 200_000) == (1, 16384, True)
    assert facts["labels"] == {"org.example.name": "chirp"}
    assert list(facts["environment"]) == [
        "/.singularity.d/env/10-docker2singularity.sh",
        "/.singularity.d/env/99-base.sh",
    ]
    assert (facts["runscript"], facts["definition"]) == ('exec "$@"\n', "bootstrap: scratch\n")
    assert facts["oci_config"] == {"Env": ["A=1"]}
    assert facts["manifest"]["source"] == "https://example.org/chirp"


def test_a_squashfs_alone_is_explained_too(tmp_path: Path) -> None:
    facts = inspect(squashfs(tmp_path / "image", TREE))
    assert (facts["format"], facts["sif"], facts["squashfs"]["offset"]) == ("squashfs", None, 0)
    assert facts["labels"] == {"org.example.name": "chirp"}


def test_what_a_stranger_wrote_instead_is_left_out(tmp_path: Path) -> None:
    odd = {
        **TREE,
        ".singularity.d/labels.json": Item(b"[" * 100_000),
        ".singularity.d/runscript": Item(kind="symlink", target="/.singularity.d/runscript"),
        ".singularity.d/env/99-base.sh": Item(b"x" * (2 << 20)),
        "opt/hpcbinder/manifest.json": Item(kind="fifo"),
    }
    facts = inspect(squashfs(tmp_path / "image", odd))
    assert (facts["labels"], facts["runscript"], facts["manifest"]) == ({}, None, None)
    assert list(facts["environment"]) == ["/.singularity.d/env/10-docker2singularity.sh"]


def test_a_sif_without_a_readable_root_still_has_its_objects(tmp_path: Path) -> None:
    (tmp_path / "no image").write_bytes(b"encrypted" * 1000)
    with pytest.raises(ConvertError, match="no image: is neither a SIF nor a squashfs image$"):
        inspect(tmp_path / "no image")
    image = squashfs(tmp_path / "image", TREE)
    path = sif(tmp_path / "x.sif", image, *OBJECTS)
    data = bytearray(path.read_bytes())
    data[inspect(path)["squashfs"]["offset"]] ^= 1
    path.write_bytes(data)
    facts = inspect(path)
    assert (facts["squashfs"], facts["squashfs_problem"]) == (None, "not a squashfs image: wrong magic number")
    assert facts["definition"] == "bootstrap: scratch\n"


@pytest.mark.parametrize("system", [5, 6], ids=["dm-crypt", "gocryptfs"])
def test_an_encrypted_image_says_so_wherever_it_is_opened(tmp_path: Path, system: int) -> None:
    # What Apptainer puts into the descriptor (sif, Fstype), without what it encrypts.
    path = sif(tmp_path / "x.sif", squashfs(tmp_path / "image", TREE), *OBJECTS)
    data = bytearray(path.read_bytes())
    struct.pack_into("<i", data, 4096 + 3 * 585 - 384, system)
    path.write_bytes(data)
    facts = inspect(path)
    assert "encrypted" in facts["squashfs_problem"] and facts["definition"] == "bootstrap: scratch\n"
    for look in (open_image, lambda path: check(path, lambda done: None)):
        with pytest.raises(ConvertError, match="root file system is encrypted") as error:
            look(path)
        assert error.value.hint and "--pem-path" in error.value.hint
    # What is damaged as well is told first.
    struct.pack_into("<q", data, 4096 + 25, 100)
    path.write_bytes(data)
    assert check(path, lambda done: None) == ["object 2 of the SIF begins inside object 1"]


@pytest.mark.parametrize("what", ["missing", "folder", "pipe"])
def test_what_is_no_file_is_named(tmp_path: Path, what: str) -> None:
    if what == "pipe":
        subprocess.run(["mkfifo", str(tmp_path / "it")], check=True)
    elif what == "folder":
        (tmp_path / "it").mkdir()
    with pytest.raises(ConvertError, match="it: is (not there|no ordinary file)"):
        inspect(tmp_path / "it")


@pytest.mark.rig
def test_apptainers_own_sif_is_explained(apptainer: Apptainer, tmp_path: Path) -> None:
    (tmp_path / "root/bin").mkdir(parents=True)
    (tmp_path / "root/bin/sh").symlink_to("busybox")
    (tmp_path / "x.def").write_text(
        f"Bootstrap: localimage\nFrom: {tmp_path}/root\n%labels\n  org.example.name chirp\n%environment\n  export A=1\n"
        "%runscript\n  echo hello\n"
    )
    command = [str(apptainer.path), "--silent", "build", str(tmp_path / "x.sif"), str(tmp_path / "x.def")]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    facts = inspect(tmp_path / "x.sif")
    assert [o["kind"] for o in facts["sif"]["objects"]] == ["deffile", "json", "partition"]
    assert facts["squashfs"]["compressor"] == "gzip"
    assert facts["labels"]["org.example.name"] == "chirp"
    assert "export A=1" in facts["environment"]["/.singularity.d/env/90-environment.sh"]
    assert "echo hello" in facts["runscript"]
    assert facts["definition"].lower().startswith("bootstrap: localimage")
