"""Mirrors, proxies and certificates become files a step's shell and apt can read."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from hpcbinder.config import SiteConfig
from hpcbinder.engine import site_secrets
from hpcbinder.engine.secrets import passwords, secret_files
from hpcbinder.errors import BuildError

SITE = SiteConfig(
    apt_mirror="https://me:s3cret@apt.site/debian/",
    pip_index_url="https://me:p%40ss@pypi.site/simple",
    http_proxy="http://proxy.site:3128",
    https_proxy="http://you:other@proxy.site:3128",
    no_proxy=".site,localhost",
)


def exported(text: bytes, **environment: str) -> dict[str, str]:
    """What a shell's environment is after it has read the file."""
    done = subprocess.run(
        ["dash", "-euc", '. "$0"; env -0', "/dev/stdin"], input=text, env=environment, capture_output=True, check=True
    )
    return dict(entry.partition("=")[::2] for entry in done.stdout.decode().split("\0") if entry)


def test_no_settings_no_secrets() -> None:
    assert site_secrets(SiteConfig(), suite="bookworm") == {}


def test_the_variables_of_a_step() -> None:
    found = exported(site_secrets(SITE, suite="bookworm")["hpcbinder-env"])
    assert found["UV_DEFAULT_INDEX"] == found["PIP_INDEX_URL"] == "https://me:p%40ss@pypi.site/simple"
    assert found["https_proxy"] == found["HTTPS_PROXY"] == "http://you:other@proxy.site:3128"
    assert found["no_proxy"] == ".site,localhost"
    assert found["APT_CONFIG"] == "/run/hpcbinder/site/apt.conf"
    assert "SSL_CERT_FILE" not in found


def test_where_packages_of_r_and_julia_come_from() -> None:
    site = SiteConfig(
        cran_mirror="https://me:s3cret@cran.site/{suite}/{date}",
        julia_mirror="https://julia.site/bin",
        julia_package_server="https://pkg.julia.site",
    )
    secrets = site_secrets(site, suite="bookworm")
    found = exported(secrets["hpcbinder-env"])
    assert found["HPCBINDER_CRAN"] == "https://me:s3cret@cran.site/{suite}/{date}"
    assert (found["HPCBINDER_JULIA"], found["JULIA_PKG_SERVER"]) == ("https://julia.site/bin", "https://pkg.julia.site")
    assert exported(secrets["hpcbinder-env-public"])["HPCBINDER_CRAN"] == "https://cran.site/{suite}/{date}"


def test_a_step_that_runs_the_repositorys_code_sees_no_credentials() -> None:
    secrets = site_secrets(SITE, suite="bookworm")
    public = {name: text for name, text in secrets.items() if name.endswith("-public")}
    assert set(public) == {f"{name}-public" for name in set(secrets) - set(public)}
    for text in public.values():
        for secret in ("s3cret", "p%40ss", "p@ss", "other", "me", "you", "@"):
            assert secret not in text.decode().replace("@", " @ ").split(), text
        assert b"@" not in text
    found = exported(public["hpcbinder-env-public"])
    assert found["PIP_INDEX_URL"] == "https://pypi.site/simple"
    assert found["https_proxy"] == "http://proxy.site:3128"


@pytest.mark.parametrize("suite", ["bookworm", "trixie"])
def test_apt_reads_its_files(suite: str, tmp_path: Path) -> None:
    secrets = site_secrets(SITE, suite=suite)
    place = str(tmp_path).encode()
    (tmp_path / "apt.conf").write_bytes(secrets["hpcbinder-apt"].replace(b"/run/hpcbinder/site", place))
    (tmp_path / "sources.list").write_bytes(secrets["hpcbinder-sources-public"])
    done = subprocess.run(
        ["apt-get", "update", "--print-uris"],
        env={**os.environ, "APT_CONFIG": str(tmp_path / "apt.conf")},
        capture_output=True,
        text=True,
    )
    assert {line.split("'")[1] for line in done.stdout.splitlines() if "InRelease" in line} == {
        f"https://apt.site/debian/dists/{suite}/InRelease",
        f"https://apt.site/debian/dists/{suite}-updates/InRelease",
        f"http://deb.debian.org/debian-security/dists/{suite}-security/InRelease",
    }


def test_a_release_at_the_end_of_its_life_comes_from_the_archive() -> None:
    site = SiteConfig(apt_mirror="https://apt.site/debian", apt_archive_mirror="https://me:pw@old.site/debian")
    sources = site_secrets(site, suite="bullseye")
    assert b"check-valid-until=no] https://me:pw@old.site/debian bullseye main\n" in sources["hpcbinder-sources"]
    assert b"https://old.site/debian-security bullseye-security main\n" in sources["hpcbinder-sources-public"]
    assert b"old.site" not in site_secrets(site, suite="bookworm")["hpcbinder-sources"]


def test_certificates(tmp_path: Path) -> None:
    bundle = tmp_path / "ca.pem"
    bundle.write_text("-----BEGIN CERTIFICATE-----\n")
    secrets = site_secrets(SiteConfig(ca_certificates=bundle), suite="bookworm")
    assert set(secrets) == {
        "hpcbinder-ca",
        "hpcbinder-env",
        "hpcbinder-apt",
        "hpcbinder-env-public",
        "hpcbinder-apt-public",
    }
    found = exported(secrets["hpcbinder-env"], TMPDIR=str(tmp_path))
    assert found["SSL_CERT_FILE"] == "/run/hpcbinder/site/ca.pem"
    assert Path(found["WGETRC"]).read_text() == "ca_certificate = /run/hpcbinder/site/ca.pem\n"
    assert b'CaInfo "/run/hpcbinder/site/ca.pem"' in secrets["hpcbinder-apt"]


def test_certificates_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="No such file"):
        site_secrets(SiteConfig(ca_certificates=tmp_path / "none"), suite="bookworm")
    (tmp_path / "many.pem").write_bytes(b"x" * 600_000)
    with pytest.raises(BuildError, match="500 KiB"):
        site_secrets(SiteConfig(ca_certificates=tmp_path / "many.pem"), suite="bookworm")


def test_what_is_hidden_in_logs() -> None:
    assert passwords(site_secrets(SITE, suite="bookworm")) == {"s3cret", "p%40ss", "p@ss", "other"}
    assert passwords({"x": b"not 'a shell text @"}) == set()


def test_secret_files_are_in_memory_and_gone_after() -> None:
    with secret_files({"a": b"one", "b": b"\0two"}) as (paths, handles):
        read = subprocess.run(["cat", paths["a"], paths["b"]], pass_fds=handles, capture_output=True)
        again = subprocess.run(["cat", paths["a"]], pass_fds=handles, capture_output=True)
        assert "memfd" in str(Path(paths["a"]).readlink())
    assert (read.stdout, again.stdout) == (b"one\0two", b"one")
    with pytest.raises(OSError):
        os.fstat(handles[0])
