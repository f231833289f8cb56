"""What this machine has, as far as a machine without engines can show it, and that nothing is changed or waited for."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import hpcbinder.doctor
from hpcbinder.bases import base_key
from hpcbinder.bases.pinned import Pins
from hpcbinder.config import Config
from hpcbinder.doctor import Finding, Status, examine
from hpcbinder.doctor.finding import Machine
from hpcbinder.doctor.namespaces import _count
from hpcbinder.image import ARCHITECTURES
from hpcbinder.model import BaseRef, ImageConfig
from hpcbinder.plan import BASE_VARIANT
from hpcbinder.registry import parse_reference


class Desk:
    """A machine with only the programs that a test puts on PATH, and a home of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.bin = folder / "bin"
        self.home = folder / "home"
        self.bin.mkdir()
        self.home.mkdir()

    def program(self, name: str, script: str) -> None:
        path = self.bin / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    def environment(self) -> dict[str, str]:
        socket = f"unix://{self.folder}/docker.sock"
        return {"PATH": str(self.bin), "HOME": str(self.home), "LANG": "C.UTF-8", "HPCBINDER_BUILD_DOCKERD": socket}

    def doctor(self, *arguments: str, code: int | None = None, **variables: str) -> dict[str, Any]:
        command = [sys.executable, "-m", "hpcbinder", "doctor", "--json", *arguments]
        environment = {**self.environment(), **variables}
        done = subprocess.run(command, env=environment, cwd=self.folder, capture_output=True, text=True, timeout=60)
        assert done.stderr == ""
        assert code is None or done.returncode == code
        found = json.loads(done.stdout)
        assert isinstance(found, dict)
        return found

    def finding(self, name: str, topic: str = "", **variables: str) -> dict[str, str]:
        findings = self.doctor(**variables)["findings"]
        (found,) = [f for f in findings if f["name"] == name and topic in ("", f["topic"])]
        assert isinstance(found, dict)
        return found


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def test_on_a_bare_machine_all_is_missing_and_each_has_a_way_out(desk: Desk) -> None:
    found = desk.doctor(code=5, HPCBINDER_BASES_SOURCE="bootstrap")
    assert "no engine" in found["cannot_build"]
    assert "nothing to make a base with" in found["cannot_build"]
    assert "no git" in found["cannot_build"]
    assert found["cannot_run"] == "no runtime"
    for finding in found["findings"]:
        if finding["topic"] in ("engine", "base") and finding["status"] != "ok":
            assert finding["advice"], finding


def test_nothing_is_made_anywhere(desk: Desk) -> None:
    # apptainer makes a folder in the home at its first word, unless it is told where to.
    desk.program("apptainer", '/bin/mkdir -p "${APPTAINER_CONFIGDIR:-$HOME/.apptainer}"; echo apptainer version 1.4.5')
    desk.doctor()
    assert list(desk.home.iterdir()) == []
    assert sorted(path.name for path in desk.folder.iterdir()) == ["bin", "home"]


def test_a_machine_that_can_run_and_not_build(desk: Desk) -> None:
    desk.program("ch-run", 'case "$1" in --feature) exit 0;; esac; echo 0.38')
    found = desk.doctor(code=5)
    assert found["cannot_run"] == ""


def test_a_machine_that_can_build_and_not_run(desk: Desk) -> None:
    for name, said in (("buildah", "buildah version 1.28.2"), ("mmdebstrap", "mmdebstrap 1.3.5")):
        desk.program(name, f"echo {said}")
    desk.program("git", "echo git version 2.39.5")
    if os.geteuid() == 0:
        assert desk.doctor(code=9)["cannot_build"] == ""
    else:
        assert desk.finding("buildah")["status"] in ("ok", "problem")


def test_what_was_configured_is_what_counts(desk: Desk) -> None:
    desk.program("ch-run", 'case "$1" in --feature) exit 0;; esac; echo 0.38')
    found = desk.doctor(HPCBINDER_RUNTIME_NAME="apptainer", HPCBINDER_BUILD_ENGINE="docker")
    assert found["cannot_run"] == "no apptainer (runtime.name)"
    assert "no docker (build.engine)" in found["cannot_build"]


def test_a_site_that_keeps_bases_needs_nothing_to_make_one(desk: Desk, tmp_path: Path) -> None:
    (tmp_path / "site/bases/abc").mkdir(parents=True)
    (tmp_path / "site/images").mkdir()
    found = desk.doctor(HPCBINDER_STORE_SITE=str(tmp_path / "site"))
    assert "base" not in found["cannot_build"]


def test_a_site_store_that_everybody_may_write_to_is_told_of(desk: Desk, tmp_path: Path) -> None:
    (tmp_path / "site/images").mkdir(parents=True)
    (tmp_path / "site/images").chmod(0o777)
    findings = desk.doctor(HPCBINDER_STORE_SITE=str(tmp_path / "site"))["findings"]
    told = [finding["found"] for finding in findings if finding["name"] == "site store"]
    assert told[0].endswith("site: 0 images")
    assert "everybody may write to images" in told[1]


def test_whether_images_can_be_assembled_without_an_engine(desk: Desk, tmp_path: Path) -> None:
    site = tmp_path / "site"
    architecture = ARCHITECTURES[platform.machine()]
    if architecture not in ("amd64", "arm64"):
        pytest.skip("no wheels are unpacked for this architecture")
    found = desk.finding("none")
    assert (found["status"], found["found"]) == ("missing", "no base bookworm, and none can be made")
    assert "store.site" in found["advice"]
    desk.program("mmdebstrap", "echo mmdebstrap 1.3.5")
    ref = BaseRef("debian:bookworm", "bookworm", "3.11", architecture, BASE_VARIANT)
    base = site / "bases" / base_key(ref) / "image.tar"
    base.parent.mkdir(parents=True)
    base.touch()
    # Without a runtime an engine's images may be the only ones that run here.
    kept = {"HPCBINDER_STORE_SITE": str(site)}
    assert desk.finding("none", **kept)["status"] == "problem"
    found = desk.finding("none", **kept, HPCBINDER_BUILD_ENGINE="none")
    assert found["status"] == "ok"
    assert str(site) in found["found"]
    assert "engine" not in desk.doctor(**kept, HPCBINDER_BUILD_ENGINE="none")["cannot_build"]
    desk.program("ch-run", 'case "$1" in --feature) exit 0;; esac; echo 0.38')
    assert desk.finding("none", **kept)["status"] == "ok"


@pytest.mark.parametrize(
    ("recipe", "apptainer", "status", "words"),
    [
        ("", False, "missing", "has to be run"),
        ("ours", False, "ok", "of a registry"),
        ("", True, "ok", "once Apptainer has installed what it lacks"),
    ],
)
def test_images_are_assembled_on_a_base_of_a_registry(
    desk: Desk, tmp_path: Path, recipe: str, apptainer: bool, status: str, words: str
) -> None:
    """As far as it was asked for before: `doctor` asks no server for it."""
    architecture = ARCHITECTURES[platform.machine()]
    if architecture not in ("amd64", "arm64"):
        pytest.skip("no wheels are unpacked for this architecture")
    name = parse_reference("registry.example.org/debian:12")
    key = base_key(BaseRef("debian:bookworm", "bookworm", "3.11", architecture, BASE_VARIANT))
    labels = {"org.hpcbinder.base.recipe": key} if recipe else {}
    image = ImageConfig("", architecture, "", {}, (), (), "", labels, (), (f"sha256:{'1' * 64}",))
    answer = SimpleNamespace(config=image, reference=name.pinned(f"sha256:{'0' * 64}"))
    registry: Any = SimpleNamespace(pull=lambda *_: answer)
    Pins(tmp_path / "store/pins", (), refresh=False).pin(name, architecture, registry, tmp_path)
    settings = {
        "HPCBINDER_STORE_PATH": str(tmp_path / "store"),
        "HPCBINDER_BASES_SOURCE": "registry",
        "HPCBINDER_BASES_IMAGES": f"debian:bookworm-slim={name}",
        "HPCBINDER_BUILD_ENGINE": "none",
    }
    if apptainer:
        desk.program("apptainer", "echo apptainer version 1.4.5")
    found = desk.finding("none", **settings)
    assert found["status"] == status and words in found["found"]
    assert ("hpcbinder push debian:bookworm" in found["advice"]) == (status == "missing")


def test_a_registry_makes_a_base_too(desk: Desk) -> None:
    found = desk.finding("registry", HPCBINDER_BASES_IMAGES="debian:bookworm-slim=mirror.site/debian:12")
    assert found["status"] == "ok" and found["found"].startswith("mirror.site/debian:12")
    assert "base" not in desk.doctor()["cannot_build"]


def test_folders_of_interpreters_are_looked_into(desk: Desk, tmp_path: Path) -> None:
    desk.program("python3.12", "echo")
    (desk.folder / "lib/python3.12").mkdir(parents=True)
    found = desk.finding(f"{desk.folder}/bin/python3.12", "python", HPCBINDER_BASES_PYTHONS=str(desk.folder))
    assert (found["status"], found["found"]) == ("problem", "it is a script and no program")
    assert desk.finding("/none", "python", HPCBINDER_BASES_PYTHONS="/none")["status"] == "problem"


APPTAINER = """
case "$1" in
  --version) echo apptainer version 1.4.5;;
  buildcfg) echo "LIBEXECDIR={folder}/libexec"; echo "APPTAINER_CONF_FILE={folder}/apptainer.conf";;
esac
"""


def apptainer(desk: Desk, conf: str) -> dict[str, str]:
    (desk.folder / "apptainer.conf").write_text(conf)
    desk.program("apptainer", APPTAINER.format(folder=desk.folder))
    return desk.finding("apptainer")


def test_apptainers_own_settings_that_matter(desk: Desk) -> None:
    found = apptainer(desk, "# a comment\nuser bind control = yes\nmount proc = yes\n")
    assert found["status"] == "ok"
    assert found["found"] == f"apptainer version 1.4.5; {desk.bin}/apptainer; unprivileged"
    found = apptainer(desk, "user bind control = no\n")
    assert found["status"] == "problem"
    assert "user bind control = no" in found["found"]


def test_charliecloud_without_squashfs_cannot_run_our_images(desk: Desk) -> None:
    desk.program("ch-run", 'case "$1" in --feature) exit 1;; esac; echo 0.31')
    desk.program("ldd", "echo libc.so.6")
    found = desk.finding("charliecloud")
    assert found["status"] == "problem"
    assert "libsquashfuse" in found["advice"]


def test_what_images_are_compressed_with_is_said_and_why(desk: Desk) -> None:
    found = desk.finding("compression")
    assert found["found"] == "gzip:6: everything reads it; no runtime that mounts images is here to be asked"
    assert desk.finding("compression", HPCBINDER_BUILD_COMPRESSION="zstd:9")["found"].startswith(
        "zstd:9: asked for: env"
    )


def test_a_runtime_that_the_prologue_brings_is_found(desk: Desk) -> None:
    hidden = desk.folder / "modules"
    hidden.mkdir()
    (hidden / "ch-run").write_text("#!/bin/sh\necho 0.38\n")
    (hidden / "ch-run").chmod(0o755)
    found = desk.finding("charliecloud", HPCBINDER_RUNTIME_PROLOGUE=f"export PATH={hidden}:$PATH")
    assert found["status"] == "ok"
    assert str(hidden) in found["found"]
    assert desk.finding("runtime.prologue", HPCBINDER_RUNTIME_PROLOGUE="false")["status"] == "problem"


@pytest.mark.parametrize(
    ("submits", "asks", "name"),
    [("sbatch", "sinfo", "Slurm"), ("qsub", "qsub", "PBS"), ("condor_submit", "condor_version", "HTCondor")],
)
def test_batch_systems(desk: Desk, submits: str, asks: str, name: str) -> None:
    desk.program(submits, "exit 1")
    desk.program(asks, "echo version 23.02.7")
    assert desk.finding(name)["found"] == f"version 23.02.7; {desk.bin}/{submits}"


def test_what_programs_say_commands_no_terminal(desk: Desk) -> None:
    desk.program("git", "printf 'git \\033[2Jversion https://a:secret@host 9\\n'")
    assert desk.finding("git")["found"].startswith("git \\x1b[2Jversion https://***@host 9")


def test_a_program_that_hangs_is_left_behind(monkeypatch: pytest.MonkeyPatch, desk: Desk) -> None:
    desk.program("hang", "exec sleep 1000")
    machine = Machine(Config(), {**desk.environment(), "PATH": f"{desk.bin}:/bin:/usr/bin"})
    assert machine.ask(str(desk.bin / "hang"), patience=0.2) is None


def test_a_check_that_hangs_or_fails_hides_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def hangs(machine: Machine) -> list[Finding]:
        time.sleep(1000)
        return []

    def fails(machine: Machine) -> list[Finding]:
        raise ZeroDivisionError("a bug")

    def works(machine: Machine) -> list[Finding]:
        return [Finding("runtime", "x", Status.OK, "1.0")]

    checks = (("engine", hangs), ("base", fails), ("runtime", works))
    monkeypatch.setattr(hpcbinder.doctor, "CHECKS", checks)
    monkeypatch.setattr(hpcbinder.doctor, "PATIENCE", 0.2)
    found = examine(Config(), {})
    assert [(f.name, f.status) for f in found.findings] == [
        ("hangs", Status.PROBLEM),
        ("fails", Status.UNKNOWN),
        ("x", Status.OK),
    ]
    assert (found.cannot_build != "", found.cannot_run) == (True, "")


def store(path: Path, environ: Mapping[str, str]) -> dict[str, Finding]:
    config = Config()
    config = replace(config, store=replace(config.store, path=path))
    return {f.name: f for f in examine(config, environ).findings if f.topic == "store"}


def test_the_store_is_looked_at_and_not_made(desk: Desk) -> None:
    found = store(desk.home / "a/b", desk.environment())
    assert found["writable"].status is Status.OK
    assert found["writable"].found == f"{desk.home}/a/b (not there yet)"
    assert found["file locks"].status is Status.OK
    assert list(desk.home.iterdir()) == []
    (desk.home / "file").write_text("in the way")
    assert store(desk.home / "file/a", desk.environment())["writable"].status is Status.PROBLEM


def test_kernels_that_jupyter_would_not_see_are_told(desk: Desk) -> None:
    found = desk.finding("folder", "kernels", HPCBINDER_KERNELS_PREFIX=str(desk.folder / "prefix"))
    assert found["status"] == "problem"
    assert f"{desk.folder}/prefix/share/jupyter" in found["advice"]
    assert desk.finding("folder", "kernels")["status"] == "ok"


def test_subuid() -> None:
    text = "root:1:5\nann:100000:65536\n# ann:1:1\n1000:200000:10\nbroken\nann:x:y\n"
    assert _count(text, "ann", 1000) == 65546
    assert _count(text, None, 7) == 0


def test_servers_are_asked_only_on_request(desk: Desk) -> None:
    assert not [f for f in desk.doctor()["findings"] if f["topic"] == "network"]
    closed = "http://127.0.0.1:9/simple"
    asked = desk.doctor("--network", HPCBINDER_SITE_PIP_INDEX_URL=closed, HPCBINDER_SITE_APT_MIRROR=closed)
    network = [f for f in asked["findings"] if f["topic"] == "network"]
    assert [f["status"] for f in network] == ["problem", "problem"]
    assert "site.pip_index_url" in network[0]["advice"]


def test_the_table_ends_with_what_can_be_done(desk: Desk) -> None:
    command = [sys.executable, "-m", "hpcbinder", "doctor"]
    done = subprocess.run(command, env=desk.environment(), capture_output=True, text=True)
    build, run = done.stdout.splitlines()[-2:]
    assert build.startswith("build: not here: no engine")
    assert run == "run: not here: no runtime"


def test_a_machine_without_a_gpu_is_no_worse(desk: Desk) -> None:
    found = desk.finding("GPU", HPCBINDER_RUNTIME_GPU="none")
    assert (found["topic"], found["status"], found["found"]) == ("gpu", "missing", "runtime.gpu = none")


def test_the_driver_and_the_cuda_it_runs(desk: Desk) -> None:
    """Its version is the kernel's to say; where it does not, NVIDIA's program says it. A stand-in: there is no GPU."""
    desk.program("nvidia-smi", "echo 470.256.02")
    found = desk.finding("NVIDIA", HPCBINDER_RUNTIME_GPU="nvidia")
    assert found["status"] == "ok" and found["found"].endswith("runs programs of CUDA 11 and before")
    desk.program("nvidia-smi", "exit 9")
    assert desk.finding("NVIDIA", HPCBINDER_RUNTIME_GPU="nvidia")["status"] == "problem"
