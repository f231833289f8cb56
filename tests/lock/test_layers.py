"""In which layers a lock is unpacked: they stand on those of others, and are all of it."""

from __future__ import annotations

import hashlib
import os
from dataclasses import replace
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from hpcbinder.lock.layers import DEEPEST, layered
from hpcbinder.lock.store import NEWEST, LockStore
from hpcbinder.model import Lock, LockedPackage

names = st.text("abcdefgh", min_size=1, max_size=2)


def sha256(text: str) -> str:
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


def lock(*layers: str, version: str = "1", python: str = "3.11") -> Lock:
    """A lock with these packages in these layers: `lock("a b", "c")`."""
    packages = sorted(name for layer in layers for name in layer.split())
    return Lock(
        ecosystem="pypi",
        origin="resolved",
        python=python,
        platform="x86_64-manylinux_2_36",
        packages=tuple(LockedPackage(name, version, (sha256(f"{name}{version}"),)) for name in packages),
        layers=tuple(tuple(layer.split()) for layer in layers),
    )


@st.composite
def locks(draw: st.DrawFn) -> Lock:
    versions = draw(st.dictionaries(names, st.sampled_from(["1", "2"]), min_size=1, max_size=12))
    order = draw(st.permutations(sorted(versions)))
    cuts = sorted(draw(st.sets(st.integers(1, len(order)), max_size=3)) | {len(order)})
    layers = [tuple(sorted(order[begin:end])) for begin, end in zip([0, *cuts], cuts, strict=False)]
    packages = tuple(LockedPackage(name, versions[name], (sha256(name),)) for name in sorted(versions))
    return replace(lock("x"), packages=packages, layers=tuple(layers))


@given(locks(), st.lists(locks(), max_size=4))
def test_layers_are_the_whole_lock_and_begin_as_others_do(wanted: Lock, others: list[Lock]) -> None:
    layers = layered(wanted, others)
    assert sorted(name for layer in layers for name in layer) == [package.name for package in wanted.packages]
    assert all(layers)
    mine = {package.name: package for package in wanted.packages}
    for count in range(len(layers), 1, -1):
        # Whatever stands below the last layer was somebody's, with the very same packages.
        below = layers[: count - 1]
        assert any(
            other.layers[: len(below)] == below
            and all(mine[p.name] == p for p in other.packages if any(p.name in layer for layer in below))
            for other in others
        )
    assert layered(wanted, reversed(others)) == layers


def test_the_largest_is_stood_on_if_it_is_half_of_it() -> None:
    assert layered(lock("a b c d"), [lock("a"), lock("a b"), lock("a", "b c")]) == (("a",), ("b", "c"), ("d",))
    assert layered(lock("a b c d"), [lock("a")]) == (("a", "b", "c", "d"),)
    assert layered(lock("a b c d"), [lock("a b"), lock("a", "b")]) == (("a", "b"), ("c", "d"))
    assert layered(lock("a b"), [lock("a", "b")]) == (("a",), ("b",))
    assert layered(lock("a b"), [lock("b", python="3.13"), lock("a", version="2")]) == (("a", "b"),)
    # What another has more is above what both have.
    assert layered(lock("a b c"), [lock("a b", "x")]) == (("a", "b"), ("c",))


def test_chains_end() -> None:
    letters = "abcdefghijklmnopqrstuvwxyz"
    known = [lock("a b c d e f g h i")]
    for end in range(10, len(letters)):
        wanted = lock(" ".join(letters[:end]))
        known.append(replace(wanted, layers=layered(wanted, known)))
    assert max(len(made.layers) for made in known) == DEEPEST


def test_a_kept_lock_comes_back_as_it_was(tmp_path: Path) -> None:
    store = LockStore(tmp_path, python="3.11", platform="x86_64-manylinux_2_36")
    for number, wanted in enumerate((lock("a b", "c"), replace(lock("a"), unresolved=("b",), origin="uv.lock"))):
        store.add(f"{number:064x}", wanted)
        assert LockStore(tmp_path, python="3.11", platform="x86_64-manylinux_2_36").find(f"{number:064x}") == wanted
    assert store.find(f"{9:064x}") is None
    assert set(store.newest()) == {lock("a b", "c"), replace(lock("a"), unresolved=("b",), origin="uv.lock")}


def test_files_that_are_no_locks_are_not_there(tmp_path: Path) -> None:
    store = LockStore(tmp_path, python="3.11", platform="x86_64-manylinux_2_36")
    key = "0" * 64
    store.add(key, lock("a b"))
    (path,) = tmp_path.rglob("*.json")
    whole = path.read_text()
    for text in ("", whole[:-20], "[]", "[" * 100_000, whole.replace('"b"', '"c"', 1), whole.replace(key, "1" * 64)):
        path.write_text(text)
        assert store.find(key) is None
    path.unlink()
    path.symlink_to("/dev/zero")
    assert store.find(key) is None
    path.unlink()
    path.mkdir()
    assert store.find(key) is None
    assert list(store.newest()) == []
    # Where one cannot be written, another can be found all the same.
    store.add(key, lock("a"))
    store.add("2" * 64, lock("a"))
    assert list(store.newest()) == [lock("a")]


def test_only_the_newest_are_looked_at(tmp_path: Path) -> None:
    store = LockStore(tmp_path, python="3.11", platform="x86_64-manylinux_2_36")
    for number in range(NEWEST + 5):
        store.add(f"{number:064x}", replace(lock("a"), origin=str(number)))
    for path in tmp_path.rglob("*.json"):
        number = int(path.stem, 16)
        os.utime(path, (number, number))
    assert [kept.origin for kept in store.newest()] == [str(n) for n in range(NEWEST + 4, 4, -1)]
