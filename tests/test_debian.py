"""What apt is told of Debian's archive; and that apt itself takes a release whose time is over, as we tell it."""

from __future__ import annotations

import hashlib
import os
import subprocess
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from hpcbinder.debian import ARCHIVED, END_OF_LIFE, KEYRING, REMOVED_KEYS, Mirrors, sources_deb822, sources_list
from rig import Rig, packages

SIGNED = f"signed-by={KEYRING}"


def test_a_release_that_is_mended() -> None:
    assert sources_list("bookworm") == (
        f"deb [{SIGNED}] http://deb.debian.org/debian bookworm main\n"
        f"deb [{SIGNED}] http://deb.debian.org/debian bookworm-updates main\n"
        f"deb [{SIGNED}] http://deb.debian.org/debian-security bookworm-security main\n"
    )
    site = Mirrors(main="https://mirror.site/debian/", archive="https://mirror.site/archive/debian")
    assert sources_list("bookworm", site).splitlines()[0] == f"deb [{SIGNED}] https://mirror.site/debian bookworm main"
    assert "Check-Valid-Until" not in sources_deb822("bookworm")


def test_one_that_the_mirrors_still_have() -> None:
    lines = sources_list("bullseye", Mirrors(main="https://mirror.site/debian")).splitlines()
    assert lines[0] == f"deb [{SIGNED} check-valid-until=no] https://mirror.site/debian bullseye main"
    assert lines[2].endswith(" http://deb.debian.org/debian-security bullseye-security main")
    assert "Check-Valid-Until: no\n" in sources_deb822("bullseye")


def test_one_that_only_the_archive_has() -> None:
    # Its keys are among the removed ones today, and its security fixes had another name.
    options = f"[signed-by={KEYRING},{REMOVED_KEYS} check-valid-until=no]"
    assert sources_list("buster", Mirrors(main="https://mirror.site/debian")) == (
        f"deb {options} http://archive.debian.org/debian buster main\n"
        f"deb {options} http://archive.debian.org/debian buster-updates main\n"
        f"deb {options} http://archive.debian.org/debian-security buster/updates main\n"
    )
    assert f"Signed-By: {KEYRING} {REMOVED_KEYS}\n" in sources_deb822("buster")


@pytest.mark.parametrize(
    ("archive", "security"),
    [
        ("http://mirror.site/archive/debian", "http://mirror.site/archive/debian-security"),
        (
            "http://snapshot.debian.org/archive/debian/20240630T000000Z/",
            "http://snapshot.debian.org/archive/debian-security/20240630T000000Z",
        ),
        ("http://me:pw@mirror.site/old", "http://me:pw@mirror.site/old-security"),
    ],
)
def test_a_sites_archive_serves_all_of_them(archive: str, security: str) -> None:
    for suite in END_OF_LIFE:
        sources = Mirrors(main="https://mirror.site/debian", archive=archive).sources(suite)
        assert [address for address, _ in sources] == [archive.rstrip("/"), archive.rstrip("/"), security]
    assert ARCHIVED <= END_OF_LIFE


def test_when_a_sites_mirrors_count() -> None:
    main, archive = Mirrors(main="https://mirror.site/debian"), Mirrors(archive="https://mirror.site/archive/debian")
    assert [main.any_for(suite) for suite in ("bookworm", "bullseye", "buster")] == [True, True, False]
    assert [archive.any_for(suite) for suite in ("bookworm", "bullseye", "buster")] == [False, True, True]
    assert not Mirrors().any_for("buster")


# A stand-in for the archive, which cannot be reached everywhere: three suites without packages, signed with a key of
# our own, their time over.


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def archive(rig: Rig, tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """Address of the stand-in, and its key."""
    packages.ensure(("gnupg", "apt"))
    home = tmp_path / "gnupg"
    home.mkdir(mode=0o700)
    gpg = ["gpg", "--homedir", home, "--batch", "--quiet"]
    subprocess.run([*gpg, "--passphrase", "", "--quick-gen-key", "Stand-in", "ed25519", "sign"], check=True)
    key = tmp_path / "key.gpg"
    subprocess.run([*gpg, "--output", key, "--export"], check=True)
    for place, suite, codename in (
        ("debian", "buster", "buster"),
        ("debian", "buster-updates", "buster-updates"),
        ("debian-security", "buster/updates", "buster"),
    ):
        folder = tmp_path / "www" / place / "dists" / suite
        (folder / "main/binary-amd64").mkdir(parents=True)
        (folder / "main/binary-amd64/Packages").write_bytes(b"")
        empty = hashlib.sha256(b"").hexdigest()
        (folder / "Release").write_text(
            f"Origin: Debian\nLabel: Debian\nSuite: oldoldstable\nCodename: {codename}\nArchitectures: amd64 arm64\n"
            "Components: main\nDate: Sat, 30 Jun 2024 10:00:00 UTC\nValid-Until: Sat, 06 Jul 2024 10:00:00 UTC\n"
            f"SHA256:\n {empty} 0 main/binary-amd64/Packages\n {empty} 0 main/binary-arm64/Packages\n"
        )
        subprocess.run([*gpg, "--output", folder / "InRelease", "--clearsign", folder / "Release"], check=True)
    subprocess.run(["gpgconf", "--homedir", home, "--kill", "all"], check=True)
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path / "www")))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/debian", key
    server.shutdown()


def update(folder: Path, sources: str) -> subprocess.CompletedProcess[str]:
    """apt-get update, with these sources and nothing else of this machine."""
    (folder / "lists/partial").mkdir(parents=True)
    (folder / "sources.list").write_text(sources)
    options = {
        "Dir::Etc::SourceList": folder / "sources.list",
        "Dir::Etc::SourceParts": "/dev/null",
        "Dir::State::Lists": folder / "lists",
        "Dir::Cache": folder,
        "APT::Sandbox::User": "root",
        "APT::Architecture": "amd64",
        "Acquire::Languages": "none",
        "Acquire::Check-Valid-Until": "true",
        "Acquire::Check-Date": "true",
    }
    argv = ["apt-get", "-q", *(f"-o{name}={value}" for name, value in options.items()), "update"]
    environment = {**os.environ, "LC_ALL": "C.UTF-8", "no_proxy": "127.0.0.1"}
    return subprocess.run(argv, capture_output=True, text=True, env=environment)


@pytest.mark.rig
def test_apt_takes_a_release_whose_time_is_over(archive: tuple[str, Path], tmp_path: Path) -> None:
    address, key = archive
    # Not Debian's keys: nobody else can sign with those.
    sources = sources_list("buster", Mirrors(archive=address)).replace(f"{KEYRING},{REMOVED_KEYS}", str(key))
    done = update(tmp_path / "ours", sources)
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "ours/lists").glob("*_InRelease"))) == 3
    done = update(tmp_path / "without", sources.replace(" check-valid-until=no", ""))
    assert done.returncode != 0 and "is expired" in done.stderr


@pytest.mark.rig
def test_apt_still_wants_debians_signature(archive: tuple[str, Path], tmp_path: Path) -> None:
    done = update(tmp_path / "apt", sources_list("buster", Mirrors(archive=archive[0])))
    assert done.returncode != 0
    assert "not signed" in done.stderr or "signatures couldn't be verified" in done.stderr
