"""Interpreters are found in the layouts that people have, run once, and what cannot be used is said."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from prefixes import VERSION, make_prefix, pretend, replace_in

from hpcbinder.interpreters import Interpreter, find_interpreters


def only(folder: Path) -> Interpreter:
    found = find_interpreters([folder])
    assert not found.problems
    (interpreter,) = found.interpreters
    return interpreter


def problem(folder: Path) -> str:
    found = find_interpreters([folder])
    assert not found.interpreters
    (reason,) = found.problems.values()
    return reason


def test_a_folder_that_is_an_interpreter(prefix: Path) -> None:
    found = only(prefix)
    assert (found.prefix, found.version) == (prefix, VERSION)
    assert found.full.startswith(f"{VERSION}.")
    assert found.glibc > (2, 17)
    assert "libc.so.6" in found.system
    assert any("_ssl" in user for user in found.system["libssl.so.3"])
    assert found.libraries == ()


def test_a_folder_of_several_with_links_between_them(prefix: Path) -> None:
    # uv's: `cpython-3.12-linux-…` is a link to `cpython-3.12.4-linux-…`; beside them lie locks and caches.
    (prefix.parent / "link").symlink_to(prefix)
    (prefix.parent / ".lock").write_text("")
    assert only(prefix.parent).prefix == prefix


def test_the_first_folder_wins_and_in_it_the_newest_release(prefix: Path, tmp_path: Path) -> None:
    other = make_prefix(tmp_path / "mine" / "python")
    assert find_interpreters([tmp_path / "mine", prefix]).interpreters[0].prefix == other
    assert find_interpreters([prefix, tmp_path / "mine"]).interpreters[0].prefix == prefix


def test_libraries_of_its_own_are_found(prefix: Path, tmp_path: Path) -> None:
    mine = Path(shutil.copytree(prefix, tmp_path / "python", symlinks=True))
    listed = subprocess.run(["ldd", mine / f"bin/python{VERSION}"], capture_output=True, text=True).stdout
    expat = next(line.split()[2] for line in listed.splitlines() if "libexpat.so.1" in line)
    shutil.copy(expat, mine / "lib/libexpat.so.1")
    found = only(mine)
    assert found.libraries == ("lib/libexpat.so.1",)
    assert "libexpat.so.1" not in found.system


def test_what_was_found_out_is_kept_until_the_interpreter_changes(prefix: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    first = find_interpreters([prefix], cache=cache)
    (kept,) = cache.glob("*.json")
    values = json.loads(kept.read_text())
    kept.write_text(json.dumps({**values, "full": f"{VERSION}.99"}))
    assert find_interpreters([prefix], cache=cache).interpreters[0].full == f"{VERSION}.99"  # it was not run again
    kept.write_text("{damaged")
    assert find_interpreters([prefix], cache=cache) == first
    mine = Path(shutil.copytree(prefix, tmp_path / "python", symlinks=True))
    find_interpreters([mine], cache=cache)
    (mine / f"bin/python{VERSION}").unlink()
    shutil.copy(prefix / f"bin/python{VERSION}", mine / f"bin/python{VERSION}")
    find_interpreters([mine], cache=cache)
    assert len(list(cache.glob("*.json"))) == 3


def test_a_cache_that_cannot_be_written_is_not_needed(prefix: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert find_interpreters([prefix], cache=tmp_path / "file" / "cache").interpreters


def test_nothing_of_the_environment_reaches_it(prefix: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "json.py").write_text("raise SystemExit('taken')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("PYTHONHOME", str(tmp_path))
    assert only(prefix).version == VERSION


@pytest.mark.parametrize(
    ("says", "reason"),
    [("exit 0", "it is a script and no program"), ("exec sleep 100", "it is a script and no program")],
)
def test_a_shim_is_no_interpreter(tmp_path: Path, says: str, reason: str) -> None:
    assert problem(pretend(tmp_path / "shims", "3.12", says)) == reason


def test_python_2_is_looked_at_too(tmp_path: Path) -> None:
    found = find_interpreters([pretend(tmp_path / "2.7.18", "2.7"), pretend(tmp_path / "2.6.9", "2.6")])
    assert found.problems.pop(f"{tmp_path}/2.7.18/bin/python2.7") == "it is a script and no program"
    assert list(found.problems) == [f"{tmp_path}/2.6.9"]


def test_other_builds_are_refused(prefix: Path, tmp_path: Path) -> None:
    program = f"bin/python{VERSION}"
    damaged = Path(shutil.copytree(prefix, tmp_path / "damaged", symlinks=True))
    (damaged / program).write_bytes((prefix / program).read_bytes()[:5000])
    assert problem(damaged).startswith(f"python{VERSION} is damaged: ")

    musl = Path(shutil.copytree(prefix, tmp_path / "musl", symlinks=True))
    loader = next(
        name for name in (b"/lib64/ld-linux-x86-64.so.2", b"/lib/ld-linux-aarch64.so.1")
        if name in (prefix / program).read_bytes()
    )  # fmt: skip
    replace_in(musl / program, loader, b"/lib/ld-musl.so.1")
    assert problem(musl) == "it is made for the C library musl, Debian has GNU's"

    foreign = Path(shutil.copytree(prefix, tmp_path / "foreign", symlinks=True))
    content = bytearray((prefix / program).read_bytes())
    content[18] = 0x08  # e_machine: MIPS
    (foreign / program).write_bytes(content)
    assert problem(foreign) == "it is for a processor that no base is made for"

    renamed = Path(shutil.copytree(prefix, tmp_path / "renamed", symlinks=True))
    (renamed / program).rename(renamed / "bin/python3.99")
    (renamed / f"lib/python{VERSION}").rename(renamed / "lib/python3.99")
    assert "3.99" not in problem(renamed)  # without its library it does not even start


def test_folders_that_hold_none(tmp_path: Path) -> None:
    assert problem(tmp_path) == (
        "holds no interpreter: there is no bin/python2.7 or bin/python3.X in it or one level below"
    )
    assert problem(tmp_path / "nothing") == "no such file or directory"
    (tmp_path / "file").write_text("")
    assert problem(tmp_path / "file") == "not a directory"
