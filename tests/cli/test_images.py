"""`list`, `show`, `run` and `logs` on stores that a test fills."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from hpcbinder.catalog import Catalog, LogBook
from hpcbinder.model import BaseRef, Entry, ImageConfig, Kernel
from hpcbinder.progress import Silent

ID = "chirp-0123456789ab"


def put(store: Path, id_: str = ID) -> None:
    digest = f"sha256:{'f' * 64}"
    entry = Entry(
        id=id_,
        source="https://example.org/chirp",
        ref="main",
        commit="c" * 40,
        uncommitted=False,
        subdir="",
        buildpacks=(),
        base=BaseRef("debian:bookworm", "bookworm", "3.11", "amd64", "1"),
        image={"name": "localhost/hpcbinder/chirp:1", "digest": digest},
        config=ImageConfig(digest, "amd64", "", {}, (), (), "", {}, (), ()),
        formats={"shifter": "image.squashfs"},
        kernels=(Kernel("python3", "Python 3", "python", ("python", "-m", "ipykernel_launcher")),),
        packages={"python": tuple({"name": f"p{n}", "version": "1"} for n in range(200))},
        decisions=(),
        timings={},
        size=3,
        created=1_700_000_000,
        asked={"python": ("p7",)},
        compression={"name": "gzip:6", "why": "everything reads it; no \x1b[2J"},
    )
    catalog = Catalog(store)
    with catalog.temporary() as scratch:
        (scratch / "image").mkdir()
        (scratch / "image/image.squashfs").write_text("x")
        catalog.add(entry, scratch / "image")


def hpcbinder(store: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "hpcbinder", "--store", str(store), *arguments]
    nowhere = {"HPCBINDER_BUILD_ENGINE": "docker", "HPCBINDER_BUILD_DOCKERD": "unix:///nowhere.sock"}
    environment = {**os.environ, **nowhere, "PATH": "/usr/bin:/bin", **variables}
    return subprocess.run(command, cwd=store.parent, capture_output=True, text=True, env=environment, timeout=300)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    put(tmp_path / "store")
    return tmp_path / "store"


def test_show_counts_packages_and_lists_them_on_request(store: Path) -> None:
    assert "p100" not in hpcbinder(store, "show", ID).stdout
    assert "python packages  200: p7 1\n" in hpcbinder(store, "show", ID).stdout
    assert "and 199 that came with them: show --packages" in hpcbinder(store, "show", ID).stdout
    assert "p100 1" in hpcbinder(store, "show", ID, "--packages").stdout
    assert len(json.loads(hpcbinder(store, "show", ID, "--json").stdout)["packages"]["python"]) == 200


def test_show_says_how_and_why_so_an_image_is_compressed(store: Path) -> None:
    assert re.search(
        r"^compression +gzip:6 \(everything reads it; no .x1b\[2J\)$", hpcbinder(store, "show", ID).stdout, re.M
    )
    record = store / f"images/{ID}/record.json"
    whole = json.loads(record.read_text())
    for older in ({}, {"why": "no name"}):
        record.write_text(json.dumps(whole | {"compression": older}))
        assert "compression" not in hpcbinder(store, "show", ID).stdout


@pytest.mark.parametrize("damage", ["record", "store"])
def test_what_is_wrong_with_a_sites_store_is_a_line_beside_the_list(store: Path, tmp_path: Path, damage: str) -> None:
    site = tmp_path / "site"
    put(site, "site-0123456789ab")
    if damage == "record":
        put(site, "broken-0123456789ab")
        (site / "images/broken-0123456789ab/record.json").write_text("{")
    else:
        (site / "version").write_text("99")
    done = hpcbinder(store, "list", HPCBINDER_STORE_SITE=str(site))
    assert done.returncode == 0
    assert ID in done.stdout
    (warning,) = done.stderr.splitlines()
    assert warning.startswith("hpcbinder: warning: /")
    assert ("site-0123456789ab" in done.stdout) == (damage == "record")
    done = hpcbinder(store, "list", "--json", "--json-logs", HPCBINDER_STORE_SITE=str(site))
    assert json.loads(done.stderr)["phase"] == "warning"
    assert ID in [image["id"] for image in json.loads(done.stdout)]


def test_run_takes_a_folder_for_a_source_and_an_id_for_an_image(store: Path, tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    (tmp_path / "chirp").mkdir()
    as_source = hpcbinder(store, "run", "work", "true")  # the engine it would be built with is not there
    assert (as_source.returncode, "no Docker daemon" in as_source.stderr) == (5, True)
    as_image = hpcbinder(store, "run", "--runtime", "podman-hpc", ID, "true")
    assert (as_image.returncode, "podman-hpc" in as_image.stderr) == (9, True)
    either = hpcbinder(store, "run", "chirp", "true")
    assert either.returncode == 2
    assert f"say ./chirp or {ID}" in either.stderr
    assert hpcbinder(store, "run", "./chirp", "true").returncode == 5
    assert hpcbinder(store, "run", "--ref", "main", "nothing", "true").returncode in (2, 3)
    assert hpcbinder(store, "run", "nothing", "true").returncode == 8
    # What says how to make an image is about a source, whatever is named like it.
    for option in ("--no-lock", "--refresh", "--no-lfs"):
        assert hpcbinder(store, "run", option, "chirp", "true").returncode == 5


def test_register_names_the_kernels_of_this_time_only(store: Path, tmp_path: Path) -> None:
    # Registering runs nothing of a runtime: it only has to be there.
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/shifter").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "bin/shifter").chmod(0o755)
    path = {"PATH": f"{tmp_path}/bin:/usr/bin:/bin"}
    for prefix in ("one", "two"):
        done = hpcbinder(store, "register", ID, "--kernel", "--runtime", "shifter", "--prefix", prefix, **path)
        (line,) = done.stdout.splitlines()
        assert line.endswith(f"{tmp_path}/{prefix}/share/jupyter/kernels/hpcbinder-{ID}")
    assert len(Catalog(store).get(ID).registered) == 2


def test_logs_shows_the_last_lines_or_all(store: Path) -> None:
    book = LogBook(Silent(), "hpcbinder build chirp")
    with Catalog(store).logged("failed-0123456789ab", book):
        for number in range(5):
            book.log("build", f"line {number}")
    done = hpcbinder(store, "logs", "failed")
    assert [line.rpartition("| ")[2] for line in done.stdout.splitlines()][1:-1] == [f"line {n}" for n in range(5)]
    assert hpcbinder(store, "logs", "failed", "--last", "2").stdout.splitlines() == done.stdout.splitlines()[-2:]
    assert hpcbinder(store, "logs", "failed", "--follow", "--last", "2").stdout.splitlines()[-1].endswith("done")
    nothing = hpcbinder(store, "logs", ID)
    assert nothing.returncode == 8
    assert "no log" in nothing.stderr


def test_a_folder_of_buildpacks_that_somebody_named_must_be_there(store: Path, tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    done = hpcbinder(store, "plan", "work", HPCBINDER_BUILDPACKS_PATH=str(tmp_path / "nowhere"))
    assert done.returncode == 2
    assert "environment HPCBINDER_BUILDPACKS_PATH: no folder of buildpacks" in done.stderr
    (tmp_path / "packs/half").mkdir(parents=True)
    done = hpcbinder(store, "plan", "work", HPCBINDER_BUILDPACKS_PATH=str(tmp_path / "packs"))
    assert done.returncode == 0
    assert "packs/half describes no buildpack (buildpack.toml): left out" in done.stderr


def test_who_reads_messages_and_goes_away_stops_the_work(store: Path, tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "hpcbinder", "plan", "work"]
    for stdout in (subprocess.DEVNULL, write):
        assert subprocess.run(command, cwd=tmp_path, stdout=stdout, stderr=write).returncode == 141
    os.close(write)
