"""What `auto` takes: of runtimes that cannot all be had on one machine, shell scripts say what the real ones would."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from hpcbinder.config import Config, load
from hpcbinder.errors import UsageError
from hpcbinder.runtime import KernelSquashfs, choose_compression, compression, kernel, kernel_squashfs
from hpcbinder.runtime.compression import Compression
from hpcbinder.runtime.mounts import mounts
from rig import Apptainer, Charliecloud

RHEL_8 = KernelSquashfs("4.18.0-553.el8", True, False, ("gzip", "lzo", "xz"))
RHEL_9 = KernelSquashfs("5.14.0-427.el9", True, False, ("gzip", "lzo", "xz", "zstd"))
SILENT = KernelSquashfs("6.1.0", True, False, None)

ZSTD = "echo 'libzstd.so.1 => /lib/libzstd.so.1'; echo 'libz.so.1 => /lib/libz.so.1'"
NO_ZSTD = "echo 'libz.so.1 => /lib/libz.so.1'"
STATIC = "echo 'not a dynamic executable' >&2; exit 1"


@dataclass
class Site:
    """A machine with the programs a test puts there, and a kernel of its choice."""

    bin: Path
    monkeypatch: pytest.MonkeyPatch
    config: Config = Config()

    def program(self, name: str, script: str = "exit 0", *, mode: int = 0o755, folder: str = "") -> Path:
        path = self.bin / folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(mode)
        return path

    def apptainer(self, *, setuid: bool) -> None:
        said = f'echo "LIBEXECDIR={self.bin}/libexec"; echo "APPTAINER_CONF_FILE={self.bin}/none"'
        self.program("apptainer", f'[ "$1" = buildcfg ] && {{ {said}; }}')
        self.program("starter-suid", mode=0o4755 if setuid else 0o755, folder="libexec/apptainer/bin")

    def chosen(self, kernel: KernelSquashfs, text: str = "auto", *, uid: int = 1000) -> Compression:
        self.monkeypatch.setattr(compression, "kernel_squashfs", lambda: kernel)
        self.monkeypatch.setattr(os, "geteuid", lambda: uid)
        return choose_compression(text, self.config, environ={"PATH": str(self.bin)})


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    (tmp_path / "bin").mkdir()
    return Site(tmp_path / "bin", monkeypatch)


def test_where_no_runtime_is_it_is_what_all_read(site: Site) -> None:
    found = site.chosen(RHEL_9)
    assert found.name == "gzip:6" and "no runtime" in found.why
    site.program("docker")
    assert site.chosen(RHEL_9).name == "gzip:6"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes a set-user-id program of root's")
@pytest.mark.parametrize(
    ("kernel", "name", "words"),
    [(RHEL_8, "gzip:6", "has no zstd"), (RHEL_9, "zstd:3", "apptainer reads it"), (SILENT, "gzip:6", "not to be seen")],
    ids=["RHEL 8", "RHEL 9", "unknown"],
)
def test_where_the_kernel_mounts_it_decides(site: Site, kernel: KernelSquashfs, name: str, words: str) -> None:
    site.apptainer(setuid=True)
    site.program("squashfuse", NO_ZSTD)
    found = site.chosen(kernel)
    assert found.name == name and words in found.why


@pytest.mark.parametrize("runtime", ["shifter", "sarus"])
def test_runtimes_of_root_mount_with_the_kernel(site: Site, runtime: str) -> None:
    site.program(runtime)
    assert (site.chosen(RHEL_8).name, site.chosen(RHEL_9).name) == ("gzip:6", "zstd:3")


def test_nodes_of_a_batch_system_may_have_another_kernel(site: Site) -> None:
    site.program("shifter")
    site.program("sbatch")
    found = site.chosen(RHEL_9)
    assert found.name == "gzip:6" and "sbatch" in found.why


@pytest.mark.parametrize(
    ("ldd", "name", "words"),
    [(ZSTD, "zstd:3", "apptainer reads it"), (NO_ZSTD, "gzip:6", "has no zstd"), (STATIC, "gzip:6", "does not say")],
    ids=["zstd", "no zstd", "static"],
)
def test_where_squashfuse_mounts_the_kernel_does_not_count(site: Site, ldd: str, name: str, words: str) -> None:
    site.apptainer(setuid=False)
    site.program("squashfuse_ll", folder="libexec/apptainer/bin")
    site.program("ldd", ldd)
    site.program("sbatch")
    found = site.chosen(RHEL_8)
    assert found.name == name and words in found.why
    assert "kernel" in site.chosen(RHEL_8, uid=0).why  # root's own mounts are the kernel's


def test_a_runtime_without_squashfuse_is_a_doubt(site: Site) -> None:
    site.apptainer(setuid=False)
    assert "no squashfuse" in site.chosen(RHEL_9).why


def test_all_that_are_here_must_read_it_and_the_configured_one_alone_counts(site: Site) -> None:
    site.program("ch-run")
    site.program("ldd", f"echo libsquashfuse_ll.so.0; {ZSTD}")
    site.program("shifter")
    assert site.chosen(RHEL_9).why == "shifter and charliecloud read it here"
    assert site.chosen(RHEL_8).name == "gzip:6"
    site.config = replace(site.config, runtime=replace(site.config.runtime, name="charliecloud"))
    assert site.chosen(RHEL_8).name == "zstd:3"


def test_a_format_of_a_runtime_that_is_not_here_is_a_doubt(site: Site) -> None:
    site.program("shifter")
    site.monkeypatch.setattr(compression, "kernel_squashfs", lambda: RHEL_9)
    environ = {"PATH": str(site.bin)}
    for formats, name in ((("shifter",), "zstd:3"), (("squashfs", "oci"), "zstd:3"), (("shifter", "sif"), "gzip:6")):
        assert choose_compression("auto", site.config, formats=formats, environ=environ).name == name
    asked = replace(site.config.build, formats=("sif",))
    config = replace(site.config, build=asked, origins={"build.formats": "environment HPCBINDER_BUILD_FORMATS"})
    assert "no runtime that takes sif" in choose_compression("auto", config, environ=environ).why


def test_a_charliecloud_that_cannot_mount_does_not_count(site: Site) -> None:
    site.program("ch-run")
    site.program("ldd", "echo libc.so.6")
    assert "no runtime" in site.chosen(RHEL_9).why


def test_the_prologue_brings_runtimes_and_its_failure_is_no_failure(site: Site, tmp_path: Path) -> None:
    site.program("shifter", folder="module")
    line = f"export PATH={site.bin}/module"
    site.config = replace(site.config, runtime=replace(site.config.runtime, prologue=(line,)))
    assert site.chosen(RHEL_9).why == "shifter reads it here"
    site.config = replace(site.config, runtime=replace(site.config.runtime, prologue=("exit 3",)))
    assert site.chosen(RHEL_9).name == "gzip:6" and "prologue" in site.chosen(RHEL_9).why


def test_what_was_asked_for_is_taken_and_says_where(site: Site, tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text('[build]\ncompression = "xz:9"\n')
    site.config = load(
        {}, environ={"HOME": "/home/ann"}, site_file=tmp_path / "config.toml", user_file=tmp_path / "none"
    )
    found = site.chosen(RHEL_8, site.config.build.compression)
    assert (found.name, found.why) == ("xz:9", f"asked for: {tmp_path}/config.toml:2")
    assert found.record() == {"name": "xz:9", "why": found.why}
    assert site.chosen(RHEL_8, "zstd").name == "zstd:3"
    with pytest.raises(UsageError, match="zip"):
        site.chosen(RHEL_8, "zip")


def test_a_runtime_that_hangs_or_is_odd_is_a_doubt(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hpcbinder.runtime.mounts._PATIENCE", 0.2)
    site.program("apptainer", f"exec {shutil.which('sleep')} 100")
    assert site.chosen(RHEL_8).name == "gzip:6"


def test_the_kernels_configuration_is_read_where_distributions_keep_it(monkeypatch: pytest.MonkeyPatch) -> None:
    release = os.uname().release
    files = {
        f"/boot/config-{release}": "CONFIG_SQUASHFS=m\nCONFIG_SQUASHFS_ZLIB=y\nCONFIG_SQUASHFS_XZ=y\n"
        "# CONFIG_SQUASHFS_ZSTD is not set\nCONFIG_SQUASHFS_LZ4_NOT=y\n",
        "/proc/filesystems": "nodev\tproc\n\text4\n",
    }

    def no_file(*words: object, **options: object) -> None:
        raise FileNotFoundError

    monkeypatch.setattr(kernel.gzip, "open", no_file)
    monkeypatch.setattr(kernel, "_text", lambda path: files.get(path, ""))
    assert kernel_squashfs() == KernelSquashfs(release, loaded=False, module=True, compressors=("gzip", "xz"))
    files.clear()
    assert kernel_squashfs() == KernelSquashfs(release, loaded=False, module=False, compressors=None)


def test_the_real_runtimes_read_zstd(
    apptainer: Apptainer, charliecloud: Charliecloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)  # root's Apptainer mounts with the kernel
    found = {mount.runtime: mount for mount in mounts("auto", {"PATH": f"{apptainer.bin}:/usr/bin:/bin"})}
    for runtime, program in (("apptainer", "squashfuse_ll"), ("charliecloud", "ch-run")):
        assert not found[runtime].kernel and Path(found[runtime].program).name == program
        assert {"gzip", "zstd", "xz"} <= (found[runtime].compressors or set())
