"""What files are taken for, which bases they are squashed for, and where it goes. That the packages then are there for
images: tests/builders/test_assembled_image.py."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from hpcbinder.catalog import Catalog
from hpcbinder.config import BuildConfig, Config, StoreConfig
from hpcbinder.errors import DetectError, HpcbinderError, UsageError
from hpcbinder.progress import Silent
from hpcbinder.warming import Favourites, repository_files, site_store, warm


@pytest.mark.parametrize(
    ("name", "stands_for"),
    [
        ("favourites.txt", "requirements.txt"),
        ("science.in", "requirements.txt"),
        ("apt.txt", "apt.txt"),
        ("pylock.gpu.toml", "pylock.toml"),
        ("uv.lock", "uv.lock"),
        ("env.yaml", "environment.yml"),
        ("conda-lock.yml", "conda-lock.yml"),
    ],
)
def test_a_name_says_what_a_file_is(tmp_path: Path, name: str, stands_for: str) -> None:
    (tmp_path / name).write_text("x\n")
    assert repository_files(tmp_path / name) == {stands_for: b"x\n"}


def test_what_belongs_to_a_file_comes_with_it(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text("[project]\n")
    (tmp_path / "uv.lock").write_text("version = 1\n")
    assert repository_files(tmp_path / "uv.lock").keys() == {"uv.lock", "pyproject.toml"}
    (tmp_path / "more").mkdir()
    (tmp_path / "all.txt").write_text("-r more/a.txt\n--constraint=limits.txt\n-r /etc/passwd\n-r ../secret.txt\n")
    (tmp_path / "more/a.txt").write_text("-r b.txt\n-r a.txt\nsix\n")
    (tmp_path / "more/b.txt").write_text("numpy\n")
    (tmp_path / "limits.txt").write_text("numpy<3\n")
    found = repository_files(tmp_path / "all.txt")
    assert found.keys() == {"requirements.txt", "more/a.txt", "more/b.txt", "limits.txt"}


@pytest.mark.parametrize("name", ["favourites", "image.sif", "missing.txt"])
def test_what_says_nothing_is_refused(tmp_path: Path, name: str) -> None:
    if name != "missing.txt":
        (tmp_path / name).write_text("x\n")
    with pytest.raises(UsageError, match=name):
        repository_files(tmp_path / name)


class Bench:
    """`warm` with a planner that says on which base each file was, instead of making plans: these are made of bases and
    an index that only the whole line has."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        self.asked: list[tuple[str, str]] = []
        self.files: list[object] = []
        self.errors: dict[str, HpcbinderError] = {}
        self.config = replace(Config(), store=StoreConfig(folder / "store"))
        self.catalog = Catalog(folder / "store")
        monkeypatch.setattr("hpcbinder.warming._warm", self._warm)

    def _warm(self, task: object, *_: object) -> None:
        ground = str(getattr(task, "ground"))  # noqa: B009 (a private class)
        self.files.append(getattr(task, "files"))  # noqa: B009
        self.asked.append((Path(getattr(task, "file")).name, ground))  # noqa: B009
        if ground in self.errors:
            raise self.errors[ground]


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Bench:
    return Bench(monkeypatch, tmp_path)


@pytest.mark.parametrize(
    ("bases", "pythons", "grounds"),
    [
        ((), (), ["debian:bookworm, Python 3.11", "debian:trixie, Python 3.13"]),
        (("trixie",), (), ["debian:trixie, Python 3.13"]),
        ((), ("3.13", "3.12"), ["debian:trixie, Python 3.13", "debian:bookworm, Python 3.12"]),
        (("bookworm",), ("3.12", "3.13"), ["debian:bookworm, Python 3.12", "debian:bookworm, Python 3.13"]),
    ],
)
def test_it_is_done_for_the_bases_that_images_stand_on(
    bench: Bench, bases: tuple[str, ...], pythons: tuple[str, ...], grounds: list[str]
) -> None:
    warm(Favourites(("-",), bases, pythons), bench.config, bench.catalog, Silent(), stdin=b"six\n")
    assert bench.asked == [("-", ground) for ground in grounds]


def test_a_file_that_does_not_fit_every_base_is_no_failure_and_one_that_fits_none_is(bench: Bench) -> None:
    bench.errors["debian:trixie, Python 3.13"] = DetectError("no versions fit")
    done = warm(Favourites(("-",)), bench.config, bench.catalog, Silent())
    assert (done.failed, done.refused, [part.left for part in done.parts]) == (0, 0, ["does not fit: no versions fit"])
    bench.errors["debian:bookworm, Python 3.11"] = DetectError("nor here")
    done = warm(Favourites(("-",)), bench.config, bench.catalog, Silent())
    assert (done.failed, done.refused) == (4, 2)
    # And on a base that was asked for by name it is a failure in any case.
    done = warm(Favourites(("-",), ("trixie",)), bench.config, bench.catalog, Silent())
    assert (done.failed, done.refused) == (4, 1)


def test_an_images_locks_say_themselves_what_they_are_for(bench: Bench, tmp_path: Path) -> None:
    package = {"name": "six", "version": "1.0", "hashes": [f"sha256:{'0' * 64}"], "url": ""}
    lock = {
        "ecosystem": "pypi",
        "origin": "resolved",
        "python": "3.13",
        "platform": "x86_64-manylinux_2_41",
        "packages": [package],
        "layers": [["six"]],
    }
    (tmp_path / "manifest.json").write_text(json.dumps({"locks": [lock]}))
    warm(Favourites((str(tmp_path / "manifest.json"),)), bench.config, bench.catalog, Silent())
    assert bench.asked == [("manifest.json", "debian:trixie, Python 3.13")]


def test_an_images_conda_packages_are_an_explicit_list(bench: Bench, tmp_path: Path) -> None:
    """What pip put on top of them goes with that environment alone."""
    url = "https://conda.anaconda.org/conda-forge/linux-64/python-3.12.4-h1_0_cpython.conda"
    python = {
        "name": "python",
        "version": "3.12.4",
        "hashes": [f"sha256:{'0' * 64}"],
        "url": url,
        "build": "h1_0_cpython",
    }
    six = {"name": "six", "version": "1.0", "hashes": [f"sha256:{'1' * 64}"], "url": ""}
    common = {"origin": "resolved", "python": "3.12", "platform": "x86_64-manylinux_2_36"}
    locks = [
        {**common, "ecosystem": "conda", "packages": [python], "layers": [["python"]]},
        {**common, "ecosystem": "pypi", "packages": [six], "layers": [["six"]]},
    ]
    (tmp_path / "manifest.json").write_text(json.dumps({"locks": locks}))
    done = warm(Favourites((str(tmp_path / "manifest.json"),)), bench.config, bench.catalog, Silent())
    assert bench.asked == [("manifest.json", "debian:bookworm, Python 3.11")]
    assert bench.files == [{"conda-linux-64.lock": f"@EXPLICIT\n{url}#{'0' * 64}\n".encode()}]
    assert [part.left for part in done.parts] == ["wheels on top of a conda environment are squashed with the image"]


@pytest.mark.parametrize(("bases", "pythons"), [(("sid",), ()), ((), ("3",)), ((), ("3.11; rm",))])
def test_what_there_is_no_base_for_is_refused(bench: Bench, bases: tuple[str, ...], pythons: tuple[str, ...]) -> None:
    with pytest.raises(UsageError):
        warm(Favourites(("-",), bases, pythons), bench.config, bench.catalog, Silent())
    assert bench.asked == []


def test_it_goes_into_the_sites_store_where_one_may_be_written(tmp_path: Path) -> None:
    mine, theirs, ours = (tmp_path / name for name in ("mine", "theirs", "ours"))
    for folder in (theirs, ours):
        folder.mkdir()
    theirs.chmod(0o555)
    config = replace(Config(), store=StoreConfig(mine, (tmp_path / "gone", theirs, ours)), build=BuildConfig())
    chosen = site_store(config).store
    expected = theirs if os.geteuid() == 0 else ours  # root may write anywhere
    assert chosen.path == expected and expected not in chosen.site and len(chosen.site) == 2
    assert site_store(replace(config, origins={"store.path": "flag"})).store.path == mine
    assert site_store(replace(config, store=StoreConfig(mine))).store.path == mine
