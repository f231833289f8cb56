"""What `kill -9` and two processes at once may do to a store: nothing."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from entries import entry, names, put

from hpcbinder.catalog import Catalog
from hpcbinder.catalog.scratch import OLD

ID = "chirp-0123456789ab"


def start(code: str, *arguments: object) -> subprocess.Popen[str]:
    """Another process that uses the store; `code` sees `catalog`, `put`, `entry`, `ID`."""
    prelude = (
        "import os, sys, time\nfrom pathlib import Path\n"
        f"sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "from entries import entry, fill, put\nfrom hpcbinder.catalog import Catalog\n"
        f"catalog, ID = Catalog(Path(sys.argv[1])), {ID!r}\n"
    )
    return subprocess.Popen(
        [sys.executable, "-c", prelude + code, *map(str, arguments)], stdout=subprocess.PIPE, text=True
    )


def say(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def kill(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert process.stdout is not None
    process.stdout.close()


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    return Catalog(tmp_path / "store")


BUILD = """
with catalog.lock(ID, on_wait=lambda: print("waits", flush=True)):
    if catalog.find(ID) is None:
        with open(sys.argv[2], "a") as log:
            log.write("built\\n")
        print("builds", flush=True)
        time.sleep(float(sys.argv[3]))
        put(catalog, entry(ID))
print(catalog.get(ID).size, flush=True)
"""


def test_two_builds_of_the_same_thing_do_the_work_once(catalog: Catalog, tmp_path: Path) -> None:
    log = tmp_path / "log"
    processes = [start(BUILD, catalog.path, log, 0.5) for _ in range(4)]
    said = [process.communicate(timeout=60)[0].split() for process in processes]
    assert log.read_text() == "built\n"
    assert sorted(words[0] for words in said if len(words) > 1).count("builds") == 1
    assert all(words[-1] == "3" for words in said)


def test_a_killed_builder_lets_the_next_one_in_at_once(catalog: Catalog, tmp_path: Path) -> None:
    log = tmp_path / "log"
    first = start(BUILD, catalog.path, log, 1000)
    assert say(first) == "builds"
    second = start(BUILD, catalog.path, log, 0)
    assert say(second) == "waits"
    kill(first)
    assert second.communicate(timeout=60)[0].split() == ["builds", "3"]
    assert log.read_text() == "built\n" * 2


REPLACE = """
print("begins", flush=True)
number = 0
while True:
    number += 1
    with catalog.lock(ID):
        put(catalog, entry(ID, created=number, digest=f"sha256:{number:064}"), text=f"{number:064}")
"""


def test_killed_at_any_moment_an_image_is_there_whole(catalog: Catalog) -> None:
    put(catalog, entry(ID, digest="sha256:" + "0" * 64), text="0" * 64)
    chance = random.Random(0)
    for _ in range(12):
        process = start(REPLACE, catalog.path)
        assert say(process) == "begins"
        time.sleep(chance.uniform(0.01, 0.12))
        kill(process)
        found = catalog.get(ID)
        content = Path(found.formats["sif"]).read_text()
        assert content == Path(found.formats["squashfs"]).read_text()
        assert found.image["digest"] == f"sha256:{content}"
        assert [e.id for e in catalog.list()] == [ID]
    put(catalog, entry(ID))
    assert names(catalog.path / "images") == [ID]
    assert names(catalog.path / "tmp") == []


def test_killed_between_the_two_renames_the_old_image_is_still_there(catalog: Catalog) -> None:
    old = put(catalog, entry(ID), "old")
    aside = catalog.path / "images" / f".old-{ID}"
    (catalog.path / "images" / ID).rename(aside)
    assert Path(catalog.get(ID).formats["sif"]).read_text() == "old"
    assert [e.id for e in catalog.list()] == [ID]
    assert catalog.get("chirp").id == ID
    catalog.update(old)
    assert names(catalog.path / "images") == [ID]
    (catalog.path / "images" / ID).rename(aside)
    catalog.remove(ID)
    assert names(catalog.path / "images") == []


def test_readers_never_miss_an_image_that_is_replaced(catalog: Catalog) -> None:
    put(catalog, entry(ID, digest="sha256:" + "0" * 64), text="0" * 64)
    process = start(REPLACE, catalog.path)
    assert say(process) == "begins"
    for _ in range(500):
        assert catalog.find(ID) is not None
        assert len(catalog.list()) == 1
    kill(process)


SCRATCH = """
with catalog.temporary() as path:
    (path / "deep").mkdir()
    (path / "deep" / "file").write_text("x")
    (path / "deep").chmod(0o500)
    print(path, flush=True)
    time.sleep(1000)
"""


def test_the_scratch_of_a_killed_process_goes_and_that_of_a_living_one_stays(catalog: Catalog) -> None:
    dead, alive = start(SCRATCH, catalog.path), start(SCRATCH, catalog.path)
    gone, kept = Path(say(dead)), Path(say(alive))
    kill(dead)
    assert gone.exists()
    with catalog.temporary() as mine:
        assert not gone.exists()
        assert kept.exists() and mine.exists()
    kill(alive)
    with catalog.temporary() as mine:
        assert sorted(p.name for p in mine.parent.iterdir()) == [mine.name, f"{mine.name}.owner"]


def test_the_scratch_of_another_machine_stays_until_it_is_old(catalog: Catalog) -> None:
    other = catalog.layers_dir.parent / "tmp" / "0123456789abcdef"
    owner = other.with_name(other.name + ".owner")
    other.mkdir()
    owner.write_text('{"host": "n1.example.org", "boot": "another", "pid": 1, "started": 1}')
    stray = other.with_name("fedcba9876543210")
    stray.mkdir()
    with catalog.temporary():
        assert other.exists() and stray.exists()
    old = time.time() - OLD - 60
    for path in (owner, stray):
        os.utime(path, (old, old))
    with catalog.temporary():
        assert not other.exists() and not owner.exists() and not stray.exists()


def test_an_owner_that_was_killed_before_it_said_who_it_is_goes_and_a_strange_one_stays(catalog: Catalog) -> None:
    folder = catalog.layers_dir.parent / "tmp"
    for name, text in (("a", ""), ("b", "{"), ("c", "[]"), ("d", '{"host": 1}')):
        (folder / f"{name}.owner").write_text(text)
    with catalog.temporary():
        assert {p.name for p in folder.iterdir()} > {"b.owner", "c.owner", "d.owner"}
        assert not (folder / "a.owner").exists()


def test_an_error_in_the_middle_leaves_no_scratch(catalog: Catalog) -> None:
    with pytest.raises(KeyboardInterrupt), catalog.temporary() as path:
        (path / "x").write_text("x")
        raise KeyboardInterrupt
    assert names(catalog.path / "tmp") == []
