"""Parameters of notebooks, as papermill's command line takes them and as tables, whatever is in them."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcbinder.batch import parameters, rows
from hpcbinder.errors import UsageError


@pytest.mark.parametrize("text", ["True", "None", "3", "-4", "1e3", ".5", "inf", "true", "", "1,2", "[1]", "a b", "'"])
def test_words_become_what_papermill_makes_of_them(text: str) -> None:
    from papermill.cli import _resolve_type

    assert parameters([f"x={text}"], [], []) == {"x": _resolve_type(text)}


def test_files_then_words_then_texts(tmp_path: Path) -> None:
    file = tmp_path / "some.yaml"
    file.write_text("a: 1\nb: [1, two]\nc: {d: null}\nday: 2026-02-03\n")
    other = tmp_path / "other.json"
    other.write_text('{"a": 2, "e": "3"}')
    assert parameters(["a=4", "f=x=y"], ["f=5", "g=6"], [file, other]) == {
        "a": 4,
        "b": [1, "two"],
        "c": {"d": None},
        "day": "2026-02-03",
        "e": "3",
        "f": "5",
        "g": "6",
    }


@pytest.mark.parametrize("name", ["", "1a", "a b", "a-b", "a;import os", "a\nb", "class", "x" * 300, "a.b", "__a()"])
def test_what_is_no_name_becomes_no_code(name: str, tmp_path: Path) -> None:
    file = tmp_path / "some.json"
    file.write_text(json.dumps({name: 1}))
    table = tmp_path / "table.csv"
    table.write_text(f'"{name}"\n1\n')
    for ask in (
        lambda: parameters([f"{name}=1"], [], []),
        lambda: parameters([], [f"{name}=1"], []),
        lambda: parameters([], [], [file]),
        lambda: rows([str(table)]),
    ):
        with pytest.raises(UsageError) as caught:
            ask()
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.yaml", "a: [", "no YAML"),
        ("a.yaml", "- 1", "not names and values"),
        ("a.json", "{", "cannot be read"),
        ("a.json", "[" * 100_000, "cannot be read"),
        ("a.yaml", "a: !!python/object/apply:os.system [id]", "no YAML"),
        ("a.yaml", "a: !!binary aGk=", "of a kind that no parameter has: bytes"),
        ("a.yaml", "a: &a [*a]", "deeper"),
        ("a.yaml", "\n".join([f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]), "YAML"),
    ],
)
def test_files_that_are_none(tmp_path: Path, name: str, content: str, message: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(UsageError, match=message):
        parameters([], [], [tmp_path / name])


def test_aliases_that_multiply_are_not_followed(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    (tmp_path / "a.yaml").write_text("\n".join(lines))
    with pytest.raises(UsageError, match="more values"):
        parameters([], [], [tmp_path / "a.yaml"])


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No such file"):
        rows([str(tmp_path / "none.csv")])


def test_a_sweep_and_a_table_give_all_combinations(tmp_path: Path) -> None:
    table = tmp_path / "a table.csv"
    table.write_text('\ufeffname, rate\n"a, b", 0.5\n\nc,\n')
    assert rows(["x=1,two", str(table)]) == [
        {"x": 1, "name": "a, b", "rate": 0.5},
        {"x": 1, "name": "c"},
        {"x": "two", "name": "a, b", "rate": 0.5},
        {"x": "two", "name": "c"},
    ]


def test_tables_with_structure(tmp_path: Path) -> None:
    (tmp_path / "t.json").write_text('[{"a": [1, 2]}, {"a": null, "b": "x"}]')
    (tmp_path / "t.yml").write_text("- {c: 1}\n- {c: 2}\n")
    assert rows([str(tmp_path / "t.json"), str(tmp_path / "t.yml")]) == [
        {"a": [1, 2], "c": 1},
        {"a": [1, 2], "c": 2},
        {"a": None, "b": "x", "c": 1},
        {"a": None, "b": "x", "c": 2},
    ]
    assert rows([]) is None


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (["x=1", "x=2"], "another --array already"),
        (["x=" + ",".join("1" * 400), "y=" + ",".join("1" * 400)], "160000 combinations"),
    ],
)
def test_arrays_that_cannot_be_meant(arrays: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        rows(arrays)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "without rows"),
        ("a,b\n", "without rows"),
        ("a,a\n1,2\n", "twice"),
        ("a,b\n1\n", r"t\.csv:2: 1 fields under 2 names"),
        ('a\n"1\n', "no CSV"),
    ],
)
def test_tables_that_are_none(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "t.csv").write_text(content)
    with pytest.raises(UsageError, match=message):
        rows([str(tmp_path / "t.csv")])


@given(st.dictionaries(st.text(max_size=8), st.text(max_size=20), max_size=4))
def test_whatever_is_given_is_taken_as_text_or_refused(pairs: dict[str, str]) -> None:
    try:
        found: dict[str, Any] = parameters([], [f"{name}={value}" for name, value in pairs.items()], [])
    except UsageError:
        return
    assert all(name.isidentifier() and isinstance(value, str) for name, value in found.items())


def test_numbers_that_json_lacks_are_kept() -> None:
    assert math.isnan(parameters(["x=nan"], [], [])["x"])
