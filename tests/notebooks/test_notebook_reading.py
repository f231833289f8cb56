"""Notebooks from strangers: small plain values, or one line that says why not."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from notebook_files import cell, notebook

from hpcbinder.model import Kernel
from hpcbinder.notebooks import NotANotebook, read_notebook
from hpcbinder.verify.verifying import choose_kernel

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
FIELDS = (
    *("cells", "worksheets", "metadata", "kernelspec", "language_info", "name", "language", "source", "input"),
    *("outputs", "output_type", "ename", "tags", "cell_type", "execution", "allow_errors"),
)


def tampered(value: Any, draw: Any) -> Any:
    """A notebook's JSON with some values replaced by others."""
    if draw(st.integers(0, 9)) == 0:
        return draw(JSON)
    if isinstance(value, dict):
        changed = {key: tampered(inner, draw) for key, inner in value.items()}
        if draw(st.booleans()):
            changed[draw(st.sampled_from(FIELDS))] = draw(JSON)
        return changed
    return [tampered(inner, draw) for inner in value] if isinstance(value, list) else value


@given(st.data())
def test_whatever_the_json_says(data: st.DataObject) -> None:
    whole = json.loads(notebook("import os", cell("1/0", saved="ZeroDivisionError", tags=("raises-exception",))))
    raw = json.dumps(tampered(whole, data.draw)).encode()
    try:
        read = read_notebook("a.ipynb", raw)
    except NotANotebook as error:
        assert "\n" not in str(error)
        return
    assert [one.number for one in read.cells] == list(range(1, len(read.cells) + 1))
    assert all(one.source.strip() and isinstance(one.saved, str) for one in read.cells)
    assert isinstance(read.kernel, str) and isinstance(read.language, str)


@given(st.binary(max_size=200))
def test_whatever_the_bytes_are(raw: bytes) -> None:
    with pytest.raises(NotANotebook):
        read_notebook("a.ipynb", raw)


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b"", "an empty file"),
        (b"[" * 100_000, "nested too deep"),
        (b'{"nbformat": 4, "cells": ' + b"[" * 50_000, "nested too deep"),
        (b"{}", "of notebook format None, not 3 or 4"),
        (b'{"nbformat": 4, "cells": [7]}', "a cell that is no JSON object"),
        (b"\xff\xfe", "no JSON"),
    ],
)
def test_what_is_no_notebook(raw: bytes, said: str) -> None:
    with pytest.raises(NotANotebook, match=said):
        read_notebook("a.ipynb", raw)


def test_what_is_read_of_one() -> None:
    markdown = {"cell_type": "markdown", "metadata": {}, "source": "# words"}
    cells = [markdown, "  \n", cell("1/0", saved="ZeroDivisionError"), cell("x", tags=("raises-exception",))]
    read = read_notebook("a.ipynb", notebook(*cells, "!pip install six", kernel="Conda-Base-py"))
    assert [(one.index, one.number, one.saved, one.may_raise) for one in read.cells] == [
        (2, 1, "ZeroDivisionError", False),
        (3, 2, "", True),
        (4, 3, "", False),
    ]
    assert read.cells[2].downloads == "pip install"
    assert (read.kernel, read.language, read.allow_errors) == ("Conda-Base-py", "python", False)
    assert read_notebook("a.ipynb", notebook("x", execution={"allow_errors": True})).allow_errors


def test_version_3_kept_its_cells_in_worksheets() -> None:
    cells = [
        {"cell_type": "heading", "level": 1, "source": "words"},
        {"cell_type": "code", "language": "python", "input": ["import os\n", "1/0"], "outputs": []},
    ]
    cells[1]["outputs"] = [{"output_type": "pyerr", "ename": "ZeroDivisionError"}]
    raw = json.dumps({"nbformat": 3, "metadata": {"name": ""}, "worksheets": [{"cells": cells}]}).encode()
    read = read_notebook("a.ipynb", raw)
    assert (read.language, read.kernel) == ("python", "")
    assert [(one.index, one.source, one.saved) for one in read.cells] == [(1, "import os\n1/0", "ZeroDivisionError")]


@pytest.mark.parametrize(
    ("kernel", "language", "taken", "said"),
    [
        ("python3", "python", "python3", ""),
        ("Second", "python", "second", ""),
        ("isc-ihpc", "python", "python3", "names kernel isc-ihpc, which is not there: run with python3"),
        ("ir", "R", None, "no kernel for it: it is written in r, and the image has python"),
        ("whatever", "", "python3", "names kernel whatever, which is not there: run with python3"),
    ],
)
def test_the_kernel_it_is_run_with(kernel: str, language: str, taken: str | None, said: str) -> None:
    there = [Kernel("python3", "Python 3", "python", ("python",)), Kernel("second", "Second", "python", ("python",))]
    found, note = choose_kernel(read_notebook("a.ipynb", notebook("x", kernel=kernel, language=language)), there)
    assert (found.name if found else None, note) == (taken, said)


@pytest.mark.parametrize(
    ("source", "word"),
    [
        ("x = 1\n  !wget -q http://example.org", "wget"),
        ("%pip install six", "pip install"),
        ("%%bash\ngit clone http://example.org", "git clone"),
        ("data = urlopen('http://example.org').read()", "urlopen"),
        ("wget = 7\ncurl(x)\n# pip install six", ""),
        ("\n" * 500_000 + " " * 500_000, ""),
    ],
)
def test_what_a_cell_fetches_with(source: str, word: str) -> None:
    cells = read_notebook("a.ipynb", notebook(source, "1")).cells
    assert cells[0].downloads == word
