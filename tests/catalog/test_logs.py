"""What was said while an image was built: kept as it is said, bounded, whoever dies."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from entries import entry, names, put

from hpcbinder.catalog import Catalog, LogBook, read_log
from hpcbinder.errors import BuildError, CatalogError
from hpcbinder.progress import Silent

ID = "chirp-0123456789ab"


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    catalog = Catalog(tmp_path / "store")
    put(catalog, entry("other-0123456789ab"))
    return catalog


def build(catalog: Catalog, *lines: str, about: str = "hpcbinder build x") -> None:
    book = LogBook(Silent(), about)
    book.phase("plan", f"{ID}: 6 steps")
    with catalog.logged(ID, book):
        for line in lines:
            book.log("build", line)


def shown(catalog: Catalog, id_: str = ID, *, previous: bool = False) -> list[str]:
    return list(read_log(catalog.log(id_, previous=previous)))


def test_a_log_holds_what_was_said_before_it_was_known_what_is_built(catalog: Catalog) -> None:
    build(catalog, "numpy 2.0", about="hpcbinder build gh:a/b")
    first, plan, line, end = shown(catalog)
    assert first.endswith("hpcbinder build gh:a/b")
    assert plan.endswith(f"plan  {ID}: 6 steps")
    assert line.endswith("build  | numpy 2.0")
    assert end.endswith("end  done")


def test_what_failed_and_why_is_the_last_line(catalog: Catalog) -> None:
    with pytest.raises(BuildError), catalog.logged(ID, LogBook(Silent(), "x")):
        raise BuildError("step apt/packages failed", hint="see apt.txt")
    assert shown(catalog)[-1].endswith("failed: step apt/packages failed (see apt.txt)")
    with pytest.raises(KeyboardInterrupt), catalog.logged(ID, LogBook(Silent(), "x")):
        raise KeyboardInterrupt
    assert shown(catalog)[-1].endswith("interrupted")


def test_a_bug_leaves_its_traceback(catalog: Catalog) -> None:
    with pytest.raises(ZeroDivisionError), catalog.logged(ID, LogBook(Silent(), "x")):
        raise ZeroDivisionError("a bug")
    assert any("ZeroDivisionError: a bug" in line for line in shown(catalog))


def test_an_image_that_failed_to_be_built_is_found_by_the_start_of_its_id(catalog: Catalog) -> None:
    build(catalog, "x")
    assert shown(catalog, "chi") == shown(catalog)
    assert catalog.ids() == ["other-0123456789ab"]
    assert catalog.ids(logs=True) == [ID, "other-0123456789ab"]


@pytest.mark.parametrize("asked", ["nothing", "", "../../etc", "other-0123456789ab"])
def test_where_there_is_no_log_that_is_said(catalog: Catalog, asked: str) -> None:
    with pytest.raises(CatalogError):
        catalog.log(asked)


def test_nothing_of_it_commands_a_terminal_or_tells_a_secret(catalog: Catalog) -> None:
    build(catalog, "\x1b[2J https://ann:secret@host/x \n evil", about="https://ann:secret@host/repo")
    text = "\n".join(shown(catalog))
    assert "secret" not in text
    assert "\\x1b[2J https://***@host/x   evil" in text


def test_a_log_is_its_owners_alone(catalog: Catalog) -> None:
    build(catalog, "x")
    run = catalog.log(ID)
    assert stat.S_IMODE(run.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in run.iterdir()} == {0o600}


def test_the_newest_and_the_one_before_are_kept(catalog: Catalog) -> None:
    for number in range(4):
        build(catalog, f"number {number}")
    assert any("number 3" in line for line in shown(catalog))
    assert any("number 2" in line for line in shown(catalog, previous=True))
    assert len(names(catalog.path / "logs" / ID)) == 2


def test_there_is_no_log_before_the_first(catalog: Catalog) -> None:
    build(catalog)
    with pytest.raises(CatalogError, match="only one log"):
        catalog.log(ID, previous=True)


def test_of_a_long_log_the_beginning_and_the_end_stay(catalog: Catalog) -> None:
    build(catalog, *(f"{number:07} {'x' * 1000}" for number in range(20_000)))
    lines = shown(catalog)
    numbers = [int(line.split("| ")[1].split()[0]) for line in lines if "| " in line]
    assert numbers[0] == 0
    assert numbers[-1] == 19_999
    assert sum("MiB of this log were not kept" in line for line in lines) == 1
    assert sum(path.stat().st_size for path in catalog.log(ID).iterdir()) <= 8 << 20


def test_a_log_that_cannot_be_written_does_not_stop_the_build(catalog: Catalog) -> None:
    said: list[str] = []

    class Ears(Silent):
        def phase(self, phase: str, message: str, progress: float | None = None) -> None:
            said.append(message)

    (catalog.path / "logs" / ID).write_text("in the way")
    with catalog.logged(ID, LogBook(Ears(), "x")):
        pass
    assert said == ["this build's log cannot be kept: File exists"]


WRITER = f"""
import sys, time
from pathlib import Path
from hpcbinder.catalog import Catalog, LogBook
from hpcbinder.progress import Silent
book = LogBook(Silent(), "hpcbinder build x")
with Catalog(Path(sys.argv[1])).logged({ID!r}, book):
    for line in sys.stdin:
        book.log("build", line.strip())
        print("said", flush=True)
"""


def writer(catalog: Catalog) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, catalog.path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def say(process: subprocess.Popen[str], line: str) -> None:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(f"{line}\n")
    process.stdin.flush()
    assert process.stdout.readline() == "said\n"


def test_what_was_said_before_a_kill_is_there(catalog: Catalog) -> None:
    process = writer(catalog)
    say(process, "last words")
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert shown(catalog)[-1].endswith("last words")


@pytest.mark.parametrize("ending", [signal.SIGKILL, None])
def test_a_follower_sees_what_comes_and_ends_with_the_builder(catalog: Catalog, ending: signal.Signals | None) -> None:
    process = writer(catalog)
    say(process, "one")
    lines = read_log(catalog.log(ID), follow=True, interval=0.01)
    seen = [next(lines), next(lines)]
    say(process, "two")
    seen.append(next(lines))
    if ending:
        process.send_signal(ending)
    else:
        assert process.stdin is not None
        process.stdin.close()
    process.wait()
    seen += lines
    assert [line.rpartition(" ")[2] for line in seen][1:3] == ["one", "two"]
    assert len(seen) == (3 if ending else 4)


def test_a_log_goes_with_its_image(catalog: Catalog) -> None:
    put(catalog, entry(ID))
    build(catalog, "x")
    catalog.remove(ID)
    assert names(catalog.path / "logs") == []


def test_a_log_of_the_sites_store_is_found(catalog: Catalog, tmp_path: Path) -> None:
    build(catalog, "built by the site")
    mine = Catalog(tmp_path / "mine", [catalog.path])
    assert any("built by the site" in line for line in shown(mine))
