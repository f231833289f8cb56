"""What nothing needs goes; what a kernel points at, or somebody builds with, stays. Through the command line."""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hpcbinder.catalog import Catalog, LogBook
from hpcbinder.image import write_docker_archive
from hpcbinder.model import BaseRef, Entry, ImageConfig, RegisteredKernel
from hpcbinder.progress import Silent

DAY = 24 * 3600
LAYERS = tuple(f"sha256:{number:064x}" for number in range(4))


class Store:
    """A store, and the command line on it with a home of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.home = folder / "home"
        self.home.mkdir()
        self.catalog = Catalog(folder / "store")
        self.path = self.catalog.path

    def image(self, id_: str, layers: tuple[str, ...] = LAYERS[:2], age: float = 40 * DAY) -> Entry:
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
            image={"name": f"localhost/hpcbinder/{id_.replace('-', ':')}", "digest": digest},
            config=ImageConfig(digest, "amd64", "", {}, (), (), "", {}, (), layers),
            formats={"sif": "image.sif"},
            kernels=(),
            packages={},
            decisions=(),
            timings={},
            size=3,
            created=int(time.time() - age),
        )
        with self.catalog.temporary() as scratch:
            (scratch / "image").mkdir()
            (scratch / "image" / "image.sif").write_bytes(b"x" * 100_000)
            return self.catalog.add(entry, scratch / "image")

    def layer(self, diff_id: str, age: float = 0) -> Path:
        return old(self.file(f"layers/{diff_id[7:]}-gzip6-131072-v1.squashfs"), age)

    def file(self, name: str, content: bytes = b"x" * 5000) -> Path:
        with self.catalog.temporary():
            path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return path

    def environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("JUPYTER", "XDG_"))}
        return {**kept, "HOME": str(self.home), "HPCBINDER_STORE_PATH": str(self.path)}

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "hpcbinder", *arguments]
        return subprocess.run(command, capture_output=True, text=True, env=self.environment(), timeout=60)

    def gc(self, *arguments: str) -> dict[str, Any]:
        done = self.run("gc", "--no-engine", "--json", *arguments)
        assert done.returncode == 0, done.stderr
        report = json.loads(done.stdout)
        assert isinstance(report, dict)
        return report

    def removed(self, *arguments: str) -> list[tuple[str, str]]:
        return [(removed["kind"], removed["name"]) for removed in self.gc(*arguments)["removed"]]

    def images(self) -> list[str]:
        return [entry.id for entry in self.catalog.list()]


def old(path: Path, age: float) -> Path:
    os.utime(path, (time.time() - age,) * 2)
    return path


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


def test_by_default_layers_of_no_image_go_and_images_stay(store: Store) -> None:
    store.image("chirp-0123456789ab")
    needed, other = store.layer(LAYERS[0]), store.layer(LAYERS[3])
    assert store.removed() == [("layer", other.name)]
    assert needed.exists()
    assert not other.exists()
    assert store.images() == ["chirp-0123456789ab"]


def test_a_dry_run_says_the_same_and_does_nothing(store: Store) -> None:
    store.image("chirp-0123456789ab")
    other = store.layer(LAYERS[3])
    before = store.gc("--dry-run", "--images")
    assert other.exists()
    after = store.gc("--images")
    assert before["dry_run"]
    assert [r["name"] for r in before["removed"]] == [r["name"] for r in after["removed"]] != []
    assert before["size"] == after["size"] > 100_000
    assert store.images() == []


def test_the_table_names_what_went_and_how_much_that_was(store: Store) -> None:
    other = store.layer(LAYERS[3])
    done = store.run("gc", "--no-engine")
    assert f"layer    {other.name}  8 KiB  in no image of the catalog" in done.stdout
    assert done.stdout.splitlines()[-1] == "removed: 8 KiB of the store, no images of the engine"
    assert store.run("gc", "--no-engine").stdout == "nothing of the store, no images of the engine\n"


def test_images_go_when_asked_for_and_old(store: Store) -> None:
    store.image("old-0123456789ab")
    store.image("young-0123456789ab", age=DAY)
    store.image("kept-0123456789ab")
    assert store.removed("--images", "--keep", "kept") == [("image", "old-0123456789ab")]
    assert store.images() == ["young-0123456789ab", "kept-0123456789ab"]
    assert store.removed("--images", "--older-than", "12h", "--keep", "kept") == [("image", "young-0123456789ab")]


def packages(store: Store, age: float) -> list[Path]:
    """What building an environment of one package leaves, used last so long ago."""
    digest, place = f"{int(age):064x}", "0123456789abcdef"
    files = (f"{digest}.whl", f"layers/{digest}-{place}-gzip6-131072.squashfs", f"chosen/{digest}.json")
    return [old(store.file(f"wheels/{name}"), age) for name in files]


def test_packages_go_when_they_were_not_used_for_long(store: Store) -> None:
    used, aged = packages(store, 2 * DAY), packages(store, 40 * DAY)
    lock = store.file(f"wheels/layers/{'a' * 64}.lock", b"")
    unfinished = store.file(f"wheels/.{'a' * 16}.tmp")
    strange = store.file("wheels/notes.txt")
    old(strange, 40 * DAY)
    would = store.gc("--dry-run")
    assert all(path.exists() for path in (*used, *aged, lock, unfinished))
    assert {(removed["kind"], removed["name"]) for removed in would["removed"]} == {
        ("leftover", lock.name),
        ("leftover", unfinished.name),
        *zip(("wheel", "package", "choice"), (path.name for path in aged), strict=True),
    }
    assert would["size"] == 4 * 8192
    assert store.gc()["removed"] == would["removed"]
    assert not any(path.exists() for path in (*aged, lock, unfinished))
    assert all(path.exists() for path in (*used, strange))
    assert store.gc("--older-than", "1d")["size"] == 3 * 8192


def test_what_is_known_of_debian_packages_goes_likewise(store: Store) -> None:
    names = (f"lists/{'a' * 64}.xz", f"resolved/{'b' * 64}.json", f"sets/{'c' * 64}-{'d' * 64}.json")
    aged = [old(store.file(f"debian/{name}"), 40 * DAY) for name in names]
    used = [old(store.file(f"debian/{name.replace('a', 'e')}"), DAY) for name in names[:1]]
    assert set(store.removed()) == set(zip(("list", "choice", "choice"), (path.name for path in aged), strict=True))
    assert not any(path.exists() for path in aged)
    assert all(path.exists() for path in used)


def test_packages_stay_while_somebody_builds_with_them(store: Store) -> None:
    aged = packages(store, 40 * DAY)
    with builder(store) as process:
        assert store.gc("--older-than", "0")["removed"] == []
        process.kill()
    assert all(path.exists() for path in aged)
    shown = store.run("gc", "--no-engine").stdout
    assert aged[0].name in shown and aged[1].name in shown
    assert aged[2].name not in shown


def test_layers_that_were_made_stay_as_long_as_they_are_used(store: Store) -> None:
    """The notebook server's and steps' layers: no tar of an image is made of them."""
    young = store.file(f"layers/{'d' * 64}-gzip6-131072-v3-made.squashfs")
    aged = old(store.file(f"layers/{'e' * 64}-gzip6-131072-v3-made.squashfs"), 40 * DAY)
    assert store.removed() == [("made", aged.name)]
    assert young.exists()
    assert store.removed("--unused-for", "0") == [("made", young.name)]


def test_unused_layers_of_images_go_only_when_asked_for(store: Store) -> None:
    store.image("chirp-0123456789ab")
    aged, young = store.layer(LAYERS[0], age=40 * DAY), store.layer(LAYERS[1], age=DAY)
    wheel = old(store.file(f"wheels/{'1' * 64}.whl"), 3 * DAY)
    log = old(store.file("logs/gone-0123456789ab/1/log.jsonl"), 3 * DAY).parent.parent
    assert store.removed() == []
    assert store.removed("--unused-for", "30d") == [("layer", aged.name)]
    assert store.removed("--unused-for", "2d") == [("wheel", wheel.name)]
    assert young.exists() and log.exists()
    assert store.images() == ["chirp-0123456789ab"]


def test_a_bases_layer_stays_as_long_as_the_base(store: Store) -> None:
    """What `warm` squashed ahead is in no image yet."""
    folder = base(store, "a" * 16, b"of a base")
    layer = store.layer(f"sha256:{hashlib.sha256(b'of a base').hexdigest()}")
    # The layer was used, and so the base was.
    assert store.removed() == []
    old(layer, 40 * DAY)
    assert store.removed() == [("layer", layer.name), ("base", folder.name)]


def test_an_age_for_all(store: Store) -> None:
    young, aged = store.layer(LAYERS[2], DAY), store.layer(LAYERS[3], 3 * DAY)
    assert store.removed("--older-than", "2d") == [("layer", aged.name)]
    assert young.exists()


@pytest.mark.parametrize("arguments", [("--keep", "nothing"), ("--older-than", "long")])
def test_what_cannot_be_meant_removes_nothing(store: Store, arguments: tuple[str, ...]) -> None:
    other = store.layer(LAYERS[3])
    done = store.run("gc", "--no-engine", *arguments)
    assert done.returncode in (2, 8)
    assert other.exists()


def kernelspec(folder: Path, spec: object, launch: object = None) -> Path:
    folder.mkdir(parents=True)
    (folder / "kernel.json").write_text(json.dumps(spec))
    if launch is not None:
        (folder / "launch.json").write_text(json.dumps(launch))
    return folder


def by_name(store: Store, entry: Entry) -> None:
    """In the person's own Jupyter folder, unknown to the record: copied, or the record is an old one."""
    kernelspec(store.home / ".local/share/jupyter/kernels/k", {"metadata": {"hpcbinder": {"id": entry.id}}})


def by_file(store: Store, entry: Entry) -> None:
    """Somebody else's kernelspec that runs the image's file."""
    argv = ["/usr/bin/apptainer", "exec", entry.formats["sif"], "python", "-m", "ipykernel", "-f", "{connection_file}"]
    kernelspec(store.home / ".local/share/jupyter/kernels/k", {"argv": argv})


def by_launch(store: Store, entry: Entry) -> None:
    """Renamed, with its metadata lost; what starts it still says what it runs."""
    location = {"image": {"location": entry.formats["sif"]}}
    kernelspec(store.home / ".local/share/jupyter/kernels/k", {"argv": ["python"]}, location)


def by_record(store: Store, entry: Entry) -> None:
    """Below a prefix that only the record knows."""
    path = kernelspec(store.folder / "env/share/jupyter/kernels/k", {"metadata": {"hpcbinder": {"id": entry.id}}})
    store.catalog.update(replace(entry, registered=(RegisteredKernel("k", str(path), "python", "K"),)))


def unreachable(store: Store, entry: Entry) -> None:
    """Below a prefix that is not mounted now."""
    kernel = RegisteredKernel("k", "/nowhere/share/jupyter/kernels/k", "python", "K")
    store.catalog.update(replace(entry, registered=(kernel,)))


@pytest.mark.parametrize("point", [by_name, by_file, by_launch, by_record, unreachable])
def test_what_a_kernel_points_at_never_goes(store: Store, point: Callable[[Store, Entry], None]) -> None:
    point(store, store.image("chirp-0123456789ab"))
    report = store.gc("--images", "--older-than", "0")
    assert report["removed"] == []
    assert list(report["kept"]) == ["chirp-0123456789ab"]
    assert store.images() == ["chirp-0123456789ab"]


def test_an_image_that_is_being_run_stays_until_that_is_over(store: Store) -> None:
    entry = store.image("chirp-0123456789ab")
    program = "import sys; from pathlib import Path; from hpcbinder.catalog import Catalog\n"
    program += "catalog = Catalog(Path(sys.argv[1]))\n"
    program += "with catalog.running(catalog.get('chirp')): print('runs', flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", program, str(store.path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "runs\n"
        assert store.gc("--images")["kept"] == {entry.id: "it is being run"}
        process.kill()
    assert store.removed("--images") == [("image", entry.id)]


def test_a_kernel_that_somebody_removed_by_hand_points_at_nothing(store: Store) -> None:
    (store.folder / "kernels").mkdir()
    kernel = RegisteredKernel("k", str(store.folder / "kernels/k"), "python", "K")
    store.catalog.update(replace(store.image("chirp-0123456789ab"), registered=(kernel,)))
    assert store.removed("--images") == [("image", "chirp-0123456789ab")]


def test_an_image_of_the_sites_store_never_goes(store: Store, tmp_path: Path) -> None:
    store.image("chirp-0123456789ab")
    env = {
        **store.environment(),
        "HPCBINDER_STORE_PATH": str(tmp_path / "mine"),
        "HPCBINDER_STORE_SITE": str(store.path),
    }
    command = [sys.executable, "-m", "hpcbinder", "gc", "--no-engine", "--images", "--older-than", "0"]
    assert subprocess.run(command, env=env, capture_output=True).returncode == 0
    assert store.images() == ["chirp-0123456789ab"]


def test_logs_and_locks_of_no_image_go_in_time(store: Store) -> None:
    for id_ in ("failed-0123456789ab", "lately-0123456789ab"):
        with store.catalog.logged(id_, LogBook(Silent(), "x")), store.catalog.lock(id_):
            pass
    old(store.path / "logs/failed-0123456789ab", 40 * DAY)
    assert store.removed() == [
        ("log", "failed-0123456789ab"),
        ("lock", "failed-0123456789ab.lock"),
        ("lock", "lately-0123456789ab.lock"),
    ]


def base(store: Store, name: str, content: bytes) -> Path:
    folder = store.file(f"bases/{name}/x").parent
    layer = store.file("a-layer", content)
    diff_id = f"sha256:{hashlib.sha256(content).hexdigest()}"
    with (folder / "image.tar").open("wb") as out:
        write_docker_archive(out, {"architecture": "amd64", "os": "linux", "config": {}}, [(diff_id, layer)], "a:b")
    layer.unlink()
    return old(folder, 40 * DAY)


def test_an_old_base_goes_if_no_image_stands_on_it(store: Store) -> None:
    store.image("chirp-0123456789ab", layers=(f"sha256:{hashlib.sha256(b'needed').hexdigest()}", LAYERS[0]))
    needed, other = base(store, "a" * 16, b"needed"), base(store, "b" * 16, b"other")
    left = store.file(f"bases/.{'c' * 16}-x1y2/layer.tar").parent
    assert store.removed() == [("leftover", left.name), ("base", other.name)]
    assert needed.exists()


def test_a_damaged_record_is_told_and_its_image_stays(store: Store) -> None:
    store.image("chirp-0123456789ab")
    record = store.path / "images/chirp-0123456789ab/record.json"
    record.write_text("{")
    assert store.gc("--images", "--older-than", "0")["removed"] == []
    assert "damaged record" in store.run("gc", "--no-engine").stderr
    assert record.exists()


BUILD = """
import sys
from pathlib import Path
from hpcbinder.catalog import Catalog
with Catalog(Path(sys.argv[1])).temporary() as scratch:
    (scratch / "unfinished").write_text("x")
    print("builds", flush=True)
    sys.stdin.read()
"""


def builder(store: Store) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", BUILD, str(store.path)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "builds\n"
    return process


def test_while_somebody_builds_nothing_of_use_to_them_goes(store: Store) -> None:
    store.image("chirp-0123456789ab")
    other = store.layer(LAYERS[3])
    with builder(store) as process:
        report = store.gc("--images", "--older-than", "0")
        assert report["busy"]
        assert report["removed"] == []
        process.send_signal(signal.SIGKILL)
    assert other.exists()
    report = store.gc()
    assert sorted(removed["kind"] for removed in report["removed"]) == ["layer", "leftover"]
    assert list((store.path / "tmp").iterdir()) == []


def test_whoever_begins_to_build_waits_for_it(store: Store) -> None:
    with store.catalog.alone() as alone:
        assert alone
        command = [sys.executable, "-c", BUILD, str(store.path)]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.5)
    assert process.communicate()[0] == "builds\n"


def test_killed_at_any_moment_the_store_is_whole(store: Store) -> None:
    chance = random.Random(0)
    for number in range(8):
        for image in range(6):
            store.image(f"chirp-{number:04}{image:08}", layers=(LAYERS[image % 4],))
            store.layer(LAYERS[image % 4])
        command = [sys.executable, "-m", "hpcbinder", "gc", "--no-engine", "--images", "--older-than", "0"]
        process = subprocess.Popen(
            command, env=store.environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        time.sleep(chance.uniform(0.1, 0.3))
        process.kill()
        process.wait()
        for entry in store.catalog.list():
            assert Path(entry.formats["sif"]).stat().st_size == 100_000
        assert not [name for name in os.listdir(store.path / "images") if name.startswith(".")]  # noqa: PTH208
    store.gc("--images", "--older-than", "0")
    assert store.images() == []
    assert [path for name in ("images", "layers", "tmp") for path in (store.path / name).iterdir()] == []
