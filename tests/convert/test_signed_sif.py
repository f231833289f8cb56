"""`convert --sign-key`: signed before it is there under its name, or not there at all."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from stacks import Layer, MemoryImage, write_oci_layout

from hpcbinder.look import signatures, stored_sbom
from hpcbinder.sif import primary_partition
from rig import Apptainer


def openssl(*words: str | Path, **options: bytes) -> bytes:
    return subprocess.run(["openssl", *map(str, words)], check=True, capture_output=True, **options).stdout


@dataclass(frozen=True)
class Desk:
    """A folder with an OCI layout and a key pair."""

    folder: Path
    apptainer: Apptainer

    def convert(self, *words: str | Path, path: str = "", stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        environment = {**os.environ, "HOME": str(self.folder), "PATH": path or f"{self.apptainer.bin}:/usr/bin:/bin"}
        command = [sys.executable, "-m", "hpcbinder", "--store", self.folder / "store", "convert"]
        return subprocess.run(
            [*command, f"oci:{self.folder}/oci", *words],
            env=environment,
            cwd=self.folder,
            input=stdin,
            capture_output=True,
        )

    def verifies(self, path: Path, key: str = "key.pub") -> bool:
        command = [self.apptainer.path, "verify", "--key", self.folder / key, path]
        return subprocess.run(command, capture_output=True).returncode == 0

    @property
    def made(self) -> set[str]:
        return {path.name for path in self.folder.iterdir()} - {"oci", "store", "key.pem", "key.pub", "encrypted.pem"}


@pytest.fixture(scope="module")
def desk(apptainer: Apptainer, tmp_path_factory: pytest.TempPathFactory) -> Desk:
    folder = tmp_path_factory.mktemp("signed")
    write_oci_layout(MemoryImage(Layer().file("file", "hello\n").file("bin/sh", "", 0o755)), folder / "oci")
    openssl("genpkey", "-algorithm", "ed25519", "-out", folder / "key.pem")
    openssl("pkey", "-in", folder / "key.pem", "-pubout", "-out", folder / "key.pub")
    openssl("pkey", "-in", folder / "key.pem", "-aes256", "-passout", "pass:x", "-out", folder / "encrypted.pem")
    return Desk(folder, apptainer)


def test_a_sif_is_signed_as_apptainer_signs(desk: Desk) -> None:
    done = desk.convert("--to", "sif,squashfs", "-o", "out", "--sign-key", "key.pem")
    assert done.returncode == 0, done.stderr
    path = desk.folder / "out/oci.sif"
    assert desk.verifies(path)
    for offset in (primary_partition(path)[0] + 100, 60):  # in the squashfs; in the uuid
        data = bytearray(path.read_bytes())
        data[offset] ^= 1
        (desk.folder / "out/changed.sif").write_bytes(data)
        assert not desk.verifies(desk.folder / "out/changed.sif")


def test_converting_a_signed_image_leaves_it_as_it_is_and_drops_the_signature(desk: Desk) -> None:
    desk.convert("--to", "sif", "-o", "first.sif", "--sign-key", "key.pem")
    signed, work = desk.folder / "first.sif", desk.folder
    before = (signed.read_bytes(), signed.stat().st_mtime_ns)
    command = [sys.executable, "-m", "hpcbinder", "--store", work / "store", "convert", signed]
    subprocess.run([*command, "--to", "sif,squashfs", "-o", work / "again"], check=True, capture_output=True)
    assert (signed.read_bytes(), signed.stat().st_mtime_ns) == before
    assert desk.verifies(signed)
    (again,) = (work / "again").glob("*.sif")
    assert signatures(again) == []
    assert stored_sbom(again) == stored_sbom(signed)


def test_an_encrypted_key_comes_through_a_pipe(desk: Desk) -> None:
    refused = desk.convert("--to", "sif", "-o", "x.sif", "--sign-key", "encrypted.pem")
    assert refused.returncode == 2 and b"/dev/stdin" in refused.stderr and "x.sif" not in desk.made
    key = openssl("pkey", "-in", desk.folder / "encrypted.pem", "-passin", "pass:x")
    done = desk.convert("--to", "sif", "-o", "piped.sif", "--sign-key", "/dev/stdin", stdin=key)
    assert done.returncode == 0, done.stderr
    assert desk.verifies(desk.folder / "piped.sif")


def test_what_cannot_be_signed_leaves_nothing_behind(desk: Desk, tmp_path: Path) -> None:
    before = desk.made
    nobody = desk.convert("--to", "sif", "-o", "x.sif", "--sign-key", "key.pem", path="/usr/bin:/bin")
    assert nobody.returncode == 9 and b"not installed" in nobody.stderr
    wrong = desk.convert("--to", "squashfs", "-o", "x.squashfs", "--sign-key", "key.pem")
    assert wrong.returncode == 2 and b"only a SIF" in wrong.stderr
    # In the place of an Apptainer that fails half-way.
    fails = 'echo "FATAL:   no space" >&2\nfor last; do :; done\necho x >>"$last"\nexit 255\n'
    (tmp_path / "apptainer").write_text(f"#!/bin/sh\n[ $1 = sign ] || exit 0\n{fails}")
    (tmp_path / "apptainer").chmod(0o755)
    failed = desk.convert("--to", "sif", "-o", "x.sif", "--sign-key", "key.pem", path=f"{tmp_path}:/usr/bin:/bin")
    assert failed.returncode == 6 and b"cannot be signed: no space" in failed.stderr
    assert desk.made == before
