"""What people write for an image, and what is said about what cannot be meant."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpcbinder.errors import UsageError
from hpcbinder.transport import TRANSPORTS, Address, parse_source

DIGEST = "sha256:" + "0" * 64


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("docker-daemon:a/b:1", Address("docker-daemon", "a/b:1")),
        (f"docker-daemon:{DIGEST}", Address("docker-daemon", DIGEST)),
        ("containers-storage:localhost/x", Address("containers-storage", "localhost/x")),
        ("docker-archive:/x/a.tar", Address("docker-archive", "/x/a.tar")),
        ("docker-archive:a.tar:ghcr.io/org/x:1", Address("docker-archive", "a.tar", "ghcr.io/org/x:1")),
        ("oci-archive:a.tar:1", Address("oci-archive", "a.tar", "1")),
        ("oci:folder", Address("oci", "folder")),
        ("oci:folder:", Address("oci", "folder")),
        ("oci:folder:@1", Address("oci", "folder", "@1")),
        (f"oci:folder@{DIGEST}", Address("oci", "folder", DIGEST)),
        (f"oci:folder:{DIGEST}", Address("oci", "folder", DIGEST)),
        (f"docker://r.io:5000/x@{DIGEST}", Address("docker", f"r.io:5000/x@{DIGEST}")),
        ("chirp-0123456789ab", Address("", "chirp-0123456789ab")),
        ("./x.sif", Address("", "./x.sif")),
        ("/x/y:z.sif", Address("", "/x/y:z.sif")),
    ],
)
def test_what_is_meant(text: str, address: Address) -> None:
    assert parse_source(text) == address
    if not text.endswith(":") and "@sha256" not in text:
        assert str(address) == text


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "empty name"),
        ("debian:bookworm", "known: docker-daemon, .*docker://debian:bookworm"),
        ("https://ghcr.io/org/x", r"docker://ghcr\.io/org/x"),
        ("dir:/tmp", "no transport 'dir'"),
        ("docker:debian", "two slashes.*docker://REGISTRY/NAME"),
        ("docker://", "two slashes"),
        ("oci:", "names no image.*oci:PATH"),
        ("oci::tag", "names no file"),
        ("docker-daemon:", "names no image"),
        ("docker-daemon:--help", "names no image"),
        ("containers-storage:[overlay@/x]y", "brackets"),
        ("containers-storage:a b", "names no image"),
        ("oci:a\0b", "is no image"),
    ],
)
def test_what_cannot_be_meant(text: str, words: str) -> None:
    with pytest.raises(UsageError, match=words) as caught:
        parse_source(text)
    assert "\n" not in str(caught.value) and "\0" not in str(caught.value)


def test_a_path_that_is_there_may_have_colons(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a:b.tar").touch()
    (tmp_path / "c:d.sif").touch()
    assert parse_source(f"oci-archive:{tmp_path}/a:b.tar") == Address("oci-archive", f"{tmp_path}/a:b.tar")
    monkeypatch.chdir(tmp_path)
    assert parse_source("c:d.sif") == Address("", "c:d.sif")


def test_every_transport_says_its_form() -> None:
    for transport in TRANSPORTS:
        with pytest.raises(UsageError, match=f"write {transport}:"):
            parse_source(f"{transport}:")
