"""Entries survive JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcbinder.catalog.record import dump, parse
from hpcbinder.errors import CatalogError
from hpcbinder.model import Entry, ImageConfig, Kernel, Plan

json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
numbers = st.floats(allow_nan=False, allow_infinity=False)
texts = st.dictionaries(st.text(), st.text(), max_size=3)
st.register_type_strategy(float, numbers)
kernels = st.builds(
    Kernel, argv=st.lists(st.text(), max_size=3).map(tuple), env=texts, metadata=st.dictionaries(st.text(), json_values)
)
configs = st.builds(
    ImageConfig, env=texts, labels=texts, **{k: st.lists(st.text()).map(tuple) for k in ("entrypoint", "cmd")}
)
entries = st.builds(
    Entry,
    image=texts,
    config=configs,
    formats=texts,
    kernels=st.lists(kernels, max_size=2).map(tuple),
    packages=st.dictionaries(st.text(), st.lists(texts, max_size=2).map(tuple), max_size=2),
    timings=st.dictionaries(st.text(), numbers, max_size=3),
)


@given(entries)
def test_an_entry_comes_back_as_it_was(value: Entry) -> None:
    raw = dump(value)
    assert parse(raw, Entry, Path("record.json")) == value
    assert dump(parse(raw, Entry, Path("record.json"))) == raw


@given(json_values)
def test_any_other_json_is_one_clear_line(value: Any) -> None:
    with pytest.raises(CatalogError) as caught:
        parse(dump(value), Entry, Path("record.json"))
    assert "\n" not in str(caught.value)


def test_what_a_newer_version_adds_is_ignored_and_what_it_leaves_out_has_its_default() -> None:
    raw = b'{"name": "k", "display_name": "K", "language": "x", "argv": ["a"], "colour": "red"}'
    assert parse(raw, Kernel, Path("x")) == Kernel("k", "K", "x", ("a",))


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b'{"name": 1}', "name: not str"),
        (b'{"name": "k", "display_name": "K", "language": "x", "argv": "a"}', "argv: not a list"),
        (b'{"name": "k", "display_name": "K", "language": "x", "argv": ["a", 1]}', "argv[1]: not str"),
        (b'{"name": "k", "display_name": "K", "language": "x", "argv": [], "env": []}', "env: not an object"),
        (b"\xff", "damaged record: "),
    ],
)
def test_the_place_of_the_damage_is_told(raw: bytes, message: str) -> None:
    with pytest.raises(CatalogError) as caught:
        parse(raw, Kernel, Path("x"))
    assert message in str(caught.value)


def test_every_type_of_the_model_is_one_that_can_be_read() -> None:
    """A new field of a kind that `parse` does not know fails here, not at a user's."""
    assert Plan and Entry
    from hpcbinder.catalog.record import _hints

    assert set(_hints(Entry)) == set(Entry.__dataclass_fields__)
