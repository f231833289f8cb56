"""Signed and checked by Apptainer itself: what is signed stays signed, and what is changed is found by everybody."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import struct
import subprocess
import sys
import tarfile
from dataclasses import dataclass
from pathlib import Path

import pytest

from hpcbinder.config import RuntimeConfig
from hpcbinder.errors import ConvertError, RunError, UsageError
from hpcbinder.look import inspect, open_image, signatures
from hpcbinder.runtime import Signer, read_private_key, read_public_key
from hpcbinder.sif import Kind, SifObject, read_sif, write_sif
from hpcbinder.squashfs import Options, tables_uuid, write_layer
from rig import Apptainer

OBJECTS = (
    SifObject(Kind.DEFFILE, "deffile", b"bootstrap: scratch\n"),
    SifObject(Kind.JSON, "oci-config.json", b"{}"),
)


def openssl(*words: str | Path, **options: bytes) -> bytes:
    return subprocess.run(["openssl", *map(str, words)], check=True, capture_output=True, **options).stdout


@dataclass(frozen=True)
class Desk:
    """A folder with a key pair, another one's public key, and an image."""

    folder: Path
    private: Path
    public: Path
    other: Path

    def image(self, name: str) -> Path:
        path = self.folder / name
        path.write_bytes((self.folder / "whole.sif").read_bytes())
        return path

    def hpcbinder(self, apptainer: Apptainer, *words: str | Path) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "PATH": f"{apptainer.bin}:/usr/bin:/bin", "HOME": str(self.folder)}
        command = [sys.executable, "-m", "hpcbinder", *map(str, words)]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Desk:
    folder = tmp_path_factory.mktemp("signing")
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        info = tarfile.TarInfo("file")
        info.size = 6
        tar.addfile(info, io.BytesIO(b"hello\n"))
    write_layer(io.BytesIO(buffer.getvalue()), folder / "layer", Options())
    with (folder / "whole.sif").open("w+b") as out:
        write_sif(
            out,
            [*OBJECTS, SifObject(Kind.PARTITION, "rootfs.squashfs", (folder / "layer").read_bytes())],
            architecture="amd64",
            timestamp=1_700_000_000,
            uuid=lambda: tables_uuid(folder / "layer"),
        )
    for name in ("mine", "other"):
        openssl("genpkey", "-algorithm", "ed25519", "-out", folder / f"{name}.pem")
        openssl("pkey", "-in", folder / f"{name}.pem", "-pubout", "-out", folder / f"{name}.pub")
    return Desk(folder, folder / "mine.pem", folder / "mine.pub", folder / "other.pub")


@pytest.fixture
def signer(apptainer: Apptainer) -> Signer:
    prologue = RuntimeConfig(prologue=(f"export PATH={apptainer.bin}:$PATH",))  # a site's `module load apptainer`
    return Signer.find(prologue, {**os.environ, "PATH": "/usr/bin:/bin"})


@pytest.fixture
def signed(desk: Desk, signer: Signer) -> Path:
    path = desk.image("signed.sif")
    signer.sign(path, read_private_key(desk.private))
    return path


def apptainer_verifies(apptainer: Apptainer, path: Path, key: Path) -> bool:
    return subprocess.run([apptainer.path, "verify", "--key", key, path], capture_output=True).returncode == 0


def test_what_is_signed_is_verified_by_apptainer_and_by_us(
    apptainer: Apptainer, desk: Desk, signer: Signer, signed: Path
) -> None:
    assert apptainer_verifies(apptainer, signed, desk.public)
    assert signer.verify(signed, read_public_key(desk.public)) == ""
    assert "accepted signatures do not match" in signer.verify(signed, read_public_key(desk.other))


def test_a_changed_byte_is_found_wherever_it_is(apptainer: Apptainer, desk: Desk, signer: Signer, signed: Path) -> None:
    whole = signed.read_bytes()
    for descriptor in read_sif(signed).descriptors[:3]:
        data = bytearray(whole)
        data[descriptor.offset + descriptor.size // 2] ^= 1
        signed.write_bytes(data)
        assert not apptainer_verifies(apptainer, signed, desk.public)
        assert signer.verify(signed, read_public_key(desk.public))


def test_looking_at_a_signed_image_leaves_it_as_it_is(
    apptainer: Apptainer, desk: Desk, signer: Signer, signed: Path
) -> None:
    before = (signed.read_bytes(), signed.stat().st_mtime_ns)
    with open_image(signed) as image:
        assert image.read("file") == b"hello\n"
    inspect(signed)
    for words in (("ls", signed), ("cat", signed, "file"), ("check", signed, "--key", desk.public)):
        assert desk.hpcbinder(apptainer, *words).returncode == 0
    assert (signed.read_bytes(), signed.stat().st_mtime_ns) == before


def test_a_signature_names_its_key_as_ssh_keygen_does(desk: Desk, signed: Path) -> None:
    (found,) = signatures(signed)
    raw = openssl("pkey", "-pubin", "-in", desk.public, "-outform", "DER")[-32:]
    line = struct.pack(">I11sI32s", 11, b"ssh-ed25519", 32, raw)  # RFC 8709, 4
    fingerprint = base64.b64encode(hashlib.sha256(line).digest()).decode().rstrip("=")
    assert (found.form, found.key) == ("PEM", f"SHA256:{fingerprint}")
    assert inspect(signed)["signatures"] == [{"object": 4, "form": "PEM", "key": found.key}]


def test_a_pgp_signature_is_told(apptainer: Apptainer, desk: Desk) -> None:
    path = desk.image("pgp.sif")
    environment = {**os.environ, "APPTAINER_KEYSDIR": str(desk.folder / "keys"), "HOME": str(desk.folder)}

    def run(*words: str | Path) -> str:
        return subprocess.run(
            [apptainer.path, *words], env=environment, capture_output=True, text=True, check=True
        ).stdout

    person = ("-N", "test", "-E", "test@example.org", "-C", "no", "-P", "")
    run("key", "newpair", *person, "--push=false", "-b", "2048")
    run("sign", "-k", "0", path)
    (found,) = signatures(path)
    assert found.form == "PGP" and found.key in run("key", "list").replace(" ", "")
    shown = desk.hpcbinder(apptainer, "check", path)
    assert shown.returncode == 0 and f"signed with PGP key {found.key}" in shown.stderr


def test_check_tells_by_its_exit_code(apptainer: Apptainer, desk: Desk, signed: Path) -> None:
    good = desk.hpcbinder(apptainer, "check", signed, "--key", desk.public)
    assert (good.returncode, good.stdout) == (0, "") and "unchanged since" in good.stderr
    alone = desk.hpcbinder(apptainer, "check", signed)
    assert alone.returncode == 0 and "signed with PEM key SHA256:" in alone.stderr and "--key" in alone.stderr
    wrong = desk.hpcbinder(apptainer, "check", signed, "--key", desk.other)
    assert wrong.returncode == 6 and "is not as it was signed" in wrong.stderr
    absent = desk.hpcbinder(apptainer, "check", desk.image("plain.sif"), "--key", desk.public)
    assert absent.returncode == 6 and "is not signed" in absent.stderr
    bare = desk.hpcbinder(apptainer, "check", desk.folder / "layer", "--key", desk.public)
    assert bare.returncode == 6 and "is not signed" in bare.stderr
    unreadable = desk.hpcbinder(apptainer, "check", signed, "--key", desk.private)
    assert unreadable.returncode == 2 and "openssl pkey" in unreadable.stderr


def test_an_object_that_was_added_later_is_found(
    apptainer: Apptainer, desk: Desk, signer: Signer, signed: Path
) -> None:
    (desk.folder / "more").write_text("{}")
    add = [apptainer.path, "sif", "add", "--datatype", "6", "--groupid", "1", signed, desk.folder / "more"]
    subprocess.run(add, check=True, capture_output=True)
    assert "not signed" in signer.verify(signed, read_public_key(desk.public))


def test_the_key_is_in_no_argument_and_no_file(apptainer: Apptainer, desk: Desk, tmp_path: Path) -> None:
    # In the place of Apptainer: what it is told, and whether the key arrives, without a second copy anywhere.
    script = f'#!/bin/sh\nprintf "%s\\n" "$@" >{tmp_path}/words\ncat "$3" >{tmp_path}/key\nexec {apptainer.path} "$@"\n'
    (tmp_path / "apptainer").write_text(script)
    (tmp_path / "apptainer").chmod(0o755)
    path = desk.image("told.sif")
    Signer.find(RuntimeConfig(), {**os.environ, "PATH": f"{tmp_path}:/usr/bin:/bin"}).sign(
        path, read_private_key(desk.private)
    )
    assert (tmp_path / "key").read_bytes() == desk.private.read_bytes()
    words = (tmp_path / "words").read_text().splitlines()
    assert words[:2] == ["sign", "--key"] and words[2].startswith("/proc/self/fd/") and words[3] == str(path)
    assert len(signatures(path)) == 1


def test_keys_that_cannot_be_used_are_told_before_anything_is_done(desk: Desk) -> None:
    encrypted = desk.folder / "encrypted.pem"
    for form in ((), ("-traditional",)):
        openssl("genrsa", "-aes256", "-passout", "pass:secret", *form, "-out", encrypted, "2048")
        with pytest.raises(UsageError, match="encrypted") as error:
            read_private_key(encrypted)
        assert "/dev/stdin" in str(error.value)
    with pytest.raises(UsageError, match="no private key"):
        read_private_key(desk.public)
    with pytest.raises(UsageError, match="openssl pkey"):
        read_public_key(desk.private)
    for path, words in ((desk.folder, "cannot be read"), (desk.folder / "none", "cannot be read")):
        with pytest.raises(UsageError, match=words):
            read_private_key(path)
    (desk.folder / "long").write_bytes(b"x" * 100_000)
    with pytest.raises(UsageError, match="too long"):
        read_public_key(desk.folder / "long")


def test_without_apptainer_it_is_said_who_signs(desk: Desk) -> None:
    with pytest.raises(RunError, match="not installed"):
        Signer.find(RuntimeConfig(), {"PATH": str(desk.folder)})
    with pytest.raises(RunError, match="prologue"):
        Signer.find(RuntimeConfig(prologue=("exit 3",)))


def test_what_apptainer_refuses_is_its_own_words(desk: Desk, signer: Signer) -> None:
    (desk.folder / "text").write_text("no SIF")
    with pytest.raises(ConvertError, match="cannot be signed: Failed to sign container: reading global header"):
        signer.sign(desk.folder / "text", read_private_key(desk.private))


def test_envelopes_of_strangers_are_read_with_care(desk: Desk) -> None:
    odd = (b"{" * 50_000, b'{"signatures": []}', b'{"signatures": [{"keyid": 7}]}', b"-----BEGIN PGP", b"")
    for content in (*odd, json.dumps({"signatures": [{"keyid": "k" * 10_000}]}).encode()):
        with (desk.folder / "odd.sif").open("w+b") as out:
            partition = SifObject(Kind.PARTITION, "rootfs.squashfs", (desk.folder / "layer").read_bytes())
            write_sif(out, [SifObject(Kind.SIGNATURE, "s", content), partition], architecture="amd64", timestamp=0)
        (found,) = signatures(desk.folder / "odd.sif")
        assert found.key == ("k" * 200 if len(content) > 9000 and b"k" in content else "")
