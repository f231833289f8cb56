"""What is said of a run, whatever tasks, notebooks and people wrote."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from descriptors import none_left

from hpcbinder.batch import index_page, outcomes, read_run, summary
from hpcbinder.batch.naming import names
from hpcbinder.errors import UsageError

EVIL = "</td><script>alert(1)</script>\n\"'&\x1b[31m\u202e"


def run_folder(folder: Path, *tasks: dict[str, Any]) -> Path:
    own = folder / ".hpcbinder" / "results"
    own.mkdir(parents=True)
    told = [{"name": "a", "notebook": "a.ipynb", "parameters": {}, "note": "", **task} for task in tasks]
    run = {"format": 1, "image": "image-1", "report": True, "repository": "/srv/repo", "tasks": told}
    (folder / "run.json").write_text(json.dumps(run))
    return own


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


def test_nothing_of_others_is_a_tag(tmp_path: Path) -> None:
    parameters = {"x": EVIL, "y": [EVIL], "z": float("nan")}
    own = run_folder(tmp_path, {"notebook": EVIL, "parameters": parameters, "note": EVIL, "name": "a=1+%25"})
    error = {"name": EVIL, "message": EVIL, "cell": 3}
    (own / "0.json").write_text(json.dumps({"state": "failed", "error": error, "notes": [EVIL], "host": EVIL}))
    (tmp_path / "a=1+%25.ipynb").touch()
    run = read_run(tmp_path)
    page = index_page(run, outcomes(run), now=0.0).decode()
    found = Tags()
    found.feed(page)
    known = {"html", "head", "meta", "title", "style", "body", "h1", "p", "table", "tr", "th", "td", "a", "br"}
    assert {tag for tag, _ in found.tags} == known
    allowed = {"href", "class", "lang", "charset", "name", "content", "http-equiv"}
    assert all(set(attrs) <= allowed for _, attrs in found.tags)
    assert [unquote(attrs["href"] or "") for tag, attrs in found.tags if tag == "a"] == ["a=1+%25.ipynb"]
    assert "\x1b" not in page
    assert "\u202e" not in page
    assert "default-src 'none'" in page


@pytest.mark.parametrize(
    "result",
    [
        b"",
        b"[1]",
        b"\xff",
        b"[" * 100_000,
        b'{"state": ["done"]}',
        b'{"state": "running", "cell": "x", "cells": -1, "seconds": 1e999, "notes": 3, "error": []}',
        b'{"state": "running", "cell": 1%s, "cells": NaN, "seconds": 1%s}' % (b"0" * 400, b"0" * 4000),
    ],
)
def test_a_result_that_is_none_is_no_success(tmp_path: Path, result: bytes) -> None:
    own = run_folder(tmp_path, {})
    (own / "0.json").write_bytes(result)
    run = read_run(tmp_path)
    assert outcomes(run)[0].state.value in ("waiting", "running")
    assert index_page(run, outcomes(run))


def test_a_result_that_is_a_link_is_not_read(tmp_path: Path) -> None:
    own = run_folder(tmp_path, {})
    (tmp_path / "elsewhere").write_text('{"state": "done"}')
    (own / "0.json").symlink_to(tmp_path / "elsewhere")
    assert outcomes(read_run(tmp_path))[0].state.value == "waiting"


def test_nor_is_a_folder_and_nothing_stays_open(tmp_path: Path) -> None:
    (run_folder(tmp_path, {}) / "0.json").mkdir()
    run = read_run(tmp_path)
    with none_left():
        assert outcomes(run)[0].state.value == "waiting"


def test_what_came_of_all(tmp_path: Path) -> None:
    own = run_folder(tmp_path, {"name": "a"}, {"name": "b"}, {"name": "c"})
    (own / "0.json").write_text('{"state": "done", "seconds": 2}')
    (own / "1.json").write_text('{"state": "running", "cell": 2, "cells": 5}')
    known = outcomes(read_run(tmp_path))
    assert summary(known) == "1 of 3 notebooks executed, 1 waiting, 1 running"
    assert known[1].said == "cell 2 of 5"


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"format": 2}', "x", '{"format": 1, "tasks": [3]}'])
def test_a_folder_without_a_run(tmp_path: Path, text: str) -> None:
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(UsageError):
        read_run(tmp_path)


def test_a_task_cannot_name_files_elsewhere(tmp_path: Path) -> None:
    run_folder(tmp_path, {"name": "../../etc/passwd"})
    with pytest.raises(UsageError):
        read_run(tmp_path)


def test_names_tell_the_parameters_and_are_plain() -> None:
    found = names(["a/fit.ipynb"] * 3, [{"x": 0.1, "y": "../../b c"}, {"x": [1, 2]}, {"x": {"a": 1}}])
    assert found == ["0-fit-x=0.1-y=.._.._b_c", "1-fit-x=1_2", "2-fit-x=1_values"]
    assert names(["-r f.ipynb"], [{}]) == ["r_f"]
    assert names(["../…"], [{}]) == ["_"]


def test_names_of_many_stay_apart_and_short() -> None:
    found = names(["n.ipynb"] * 11, [{"x" * 100: "y" * 100, "z": number} for number in range(11)])
    assert len(set(found)) == 11
    assert found == sorted(found)
    assert max(map(len, found)) <= 120
