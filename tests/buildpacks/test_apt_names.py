"""Names in apt.txt that a release does not have: what stands in their place, and what is said where nothing does."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from checkouts import checkout_of, plan_of, reason, step

from hpcbinder.apt.resolving import NoSuchPackage, Resolver, Target
from hpcbinder.builders.asked import placed
from hpcbinder.buildpacks.apt import names
from hpcbinder.buildpacks.apt.names import renamed
from hpcbinder.errors import BuildError, DetectError
from hpcbinder.plan import SUITES, show

NEAR = Path(names.__file__).with_name("near.py")


@pytest.mark.parametrize(
    ("name", "suite", "now"),
    [
        ("texlive-generic-recommended", "bookworm", "texlive-plain-generic"),
        ("libgl1-mesa-glx", "bookworm", "libgl1-mesa-glx"),
        ("libgl1-mesa-glx", "trixie", "libgl1"),
        ("openjdk-8-jdk-headless", "trixie", "default-jdk-headless"),
        ("openjdk-17-jdk", "bookworm", "openjdk-17-jdk"),
        ("python-matplotlib", "bookworm", "python3-matplotlib"),
        ("gfortran-9", "bullseye", "gfortran-9"),
        ("gfortran-9", "bookworm", "gfortran"),
        ("ttf-dejavu", "trixie", "fonts-dejavu"),
        ("rstudio-server", "bookworm", None),
        ("sox", "bookworm", "sox"),
        ("fftw3", "buster", "fftw3"),
    ],
)
def test_names_and_their_releases(name: str, suite: str, now: str | None) -> None:
    assert renamed(name, suite) == now


def test_no_name_leads_to_one_that_is_not_there() -> None:
    table = names._table()
    assert set(table) < set(SUITES)
    for suite, there in table.items():
        for name, now in there.items():
            assert now in ("=", "-") or (now != name and renamed(now, suite) == now), (suite, name, now)


def test_what_is_renamed_is_said_and_loses_its_version(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, {"apt.txt": "gcc-9=9.3.0-1\nffmpeg=7:4.2.4-1ubuntu0.1\nsox=14.4*\n"})
    assert step(plan, "apt/install").data["packages"] == "ffmpeg\ngcc\nsox=14.4*\n"
    assert reason(plan, "apt.txt") == (
        "used: 3 Debian packages; gcc-9 is gcc in Debian bookworm (not in version 9.3.0-1); "
        "ffmpeg in Debian's version: 7:4.2.4-1ubuntu0.1 is Ubuntu's"
    )


def test_what_is_known_to_be_nowhere_is_an_error_with_its_line(tmp_path: Path) -> None:
    with pytest.raises(DetectError, match=r"^apt.txt:2: Debian bookworm has no package 'ubuntu-desktop', nor anything"):
        plan_of(tmp_path, {"apt.txt": "sox\nubuntu-desktop\n"})


def near(folder: Path, packages: str) -> str:
    """What is said in a build, of a release with four packages."""
    (folder / "names").write_text("libhdf5-dev\nlibhdf5-doc\ntree\nsox\n")
    (folder / "versions").write_text(" tree | 2.1.0-1 | http://deb bookworm/main amd64 Packages\n tree | 2.1.0-1 | x\n")
    (folder / "packages").write_text(packages)
    argv = [sys.executable, str(NEAR), str(folder), str(folder / "packages")]
    return subprocess.run(argv, capture_output=True, text=True, check=True, timeout=60).stdout


def test_what_an_engines_apt_did_not_find_is_said_with_its_line(tmp_path: Path) -> None:
    said = near(tmp_path, "libhdf5-dve\ntree=0.1*\nqwertyuiop\n").strip()
    plan = plan_of(tmp_path / "repo", {"apt.txt": "# some\nlibhdf5-dve  tree=0.1*\nqwertyuiop\n"})
    error = BuildError(f"step apt/install failed with exit status 1: E: Unable to locate package libhdf5-dve / {said}")
    told = placed(error, plan, checkout_of(tmp_path / "repo"))
    assert told is not None
    assert (told.where, told.message) == ("apt.txt:2", "Debian bookworm has no package 'libhdf5-dve'")
    assert told.hint == (
        "near to it: libhdf5-dev, libhdf5-doc; no version 0.1* of tree: it has 2.1.0-1; "
        "no package 'qwertyuiop' (apt.txt:3): near to it: nothing"
    )


def test_versions_by_pattern(tmp_path: Path) -> None:
    assert near(tmp_path, "tree=2.1*\ntree=2.1.0-1\n") == ""


def test_of_other_failures_nothing_is_said(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, {"apt.txt": "sox\n"})
    for message in ("step postbuild/run failed: hpcbinder: Debian has no package 'sox' (near to it: x)", "no engine"):
        assert placed(BuildError(message), plan, checkout_of(tmp_path)) is None
    message = "step apt/install failed: hpcbinder: Debian has no package 'sox' (near to it: sux)"
    told = placed(BuildError(message), replace(plan, decisions=()), checkout_of(tmp_path))
    assert told is not None and told.where is None


def test_a_name_that_several_packages_provide(tmp_path: Path) -> None:
    (tmp_path / "x_Packages").write_text(
        "Package: libgl1\nVersion: 1\nProvides: libgl1-mesa, libgl (= 1)\n\nPackage: other\nProvides: libgl1\n\n"
    )
    resolver = Resolver(None, Target("bookworm", "amd64"), tmp_path)  # type: ignore[arg-type]
    said = "E: Package 'libgl' has no installation candidate\n"
    error = resolver._failure(["libgl"], "", said, tmp_path)
    assert isinstance(error, NoSuchPackage)
    assert (error.word, error.hint) == ("libgl", "it is a name for one of libgl1")
    assert show(error.message) == "Debian bookworm has no package 'libgl'"


def test_many_that_are_not_there_are_short_work(tmp_path: Path) -> None:
    said = near(tmp_path, "".join(f"libhdf5-d{number}\n" for number in range(300_000)))
    assert said.count("no package") == 20
