"""What notebooks and scripts import, found without running them."""

from __future__ import annotations

import sys
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from notebook_files import notebook

from hpcbinder.notebooks import (
    anywhere,
    code_imports,
    is_local,
    local_modules,
    notebook_imports,
    plain_python,
    read_notebook,
)

NAMES = st.sampled_from(["numpy", "os.path", "h5py", "α.β", "_x", "sklearn.externals"])
AROUND = st.sampled_from(
    [
        "{}",
        "if True:\n    {}",
        "def f():\n    {}",
        "class A:\n    {}",
        "try:\n    {}\nfinally:\n    pass",
        "%matplotlib inline\n{}",
        "!pip install six\n{}\nx = !ls",
        "files = %sx ls\n{}",
        "%%time\n{}",
        "\n\n%%capture out\n{}",
        "{}\nlist?\n?list\nlist??",
        "await f()\n{}",
        "print 'Python 2'\n{}",
        "for i in range(3):\n    %timeit i\n{}",
        "with a as b:\n    !ls $b\n{}",
    ]
)


@given(st.lists(st.tuples(NAMES, AROUND), min_size=1, max_size=4))
def test_every_import_is_found_where_it_is(parts: list[tuple[str, str]]) -> None:
    cells = [around.format(f"import {name}") for name, around in parts]
    found = notebook_imports(read_notebook("a.ipynb", notebook(*cells)))
    assert [(one.module, one.cell) for one in found] == [(name, n) for n, (name, _) in enumerate(parts, 1)]
    for one, text in zip(found, cells, strict=True):
        assert text.split("\n")[one.line - 1].strip() == f"import {one.module}"


@given(st.text(max_size=300) | st.text(alphabet="()[]{}:=%!?\n\t\\'\" import fromxy,.;", max_size=300))
def test_any_text_is_looked_through(text: str) -> None:
    lines = len(text.splitlines())
    assert all(1 <= one.line <= max(lines, 1) for one in code_imports(plain_python(text), "a.py"))


@pytest.mark.parametrize(
    "text", ["(" * 50_000, "-" * 200_000 + "1", "x = " + "[" * 90 + "]" * 90, "import " + "a." * 5000]
)
def test_code_that_is_deep(text: str) -> None:
    assert code_imports(text, "a.py") == ()


def test_each_way_to_import() -> None:
    code = """
import numpy as np, os.path
from h5py import File, Group as G
from scipy import *
from . import mine
from .mine import yours
from __future__ import print_function
"""
    found = {(one.module, one.name) for one in code_imports(code, "a.py")}
    pairs = {("numpy", ""), ("os.path", ""), ("h5py", "File"), ("h5py", "Group"), ("scipy", "")}
    assert found == pairs


def test_what_it_can_do_without() -> None:
    code = """
from typing import TYPE_CHECKING
try:
    import cython
    if x:
        import numba
except (ValueError, ImportError):
    import slow
else:
    import always
try:
    import strict
except KeyError:
    pass
if TYPE_CHECKING:
    import types_only
"""
    found = {one.module: one.optional for one in code_imports(code, "a.py")}
    wanted = {"cython": True, "numba": True, "slow": True, "always": False, "strict": False, "typing": False}
    assert found == wanted


def test_a_cell_of_another_language_imports_nothing() -> None:
    cells = ["%%bash\nimport numpy", "%%html\nimport numpy", "%%writefile x.py\nimport numpy"]
    assert notebook_imports(read_notebook("a.ipynb", notebook(*cells))) == ()
    assert notebook_imports(read_notebook("a.ipynb", notebook("import numpy", language="julia"))) == ()


def test_the_repository_s_own_modules() -> None:
    paths = [
        "helper.py",
        "nb/a.ipynb",
        "nb/near.py",
        "src/pkg/core.py",
        "far/away/deep.py",
        "nb/data/x.csv",
        "fast.cpython.so",
    ]
    local = local_modules(paths)
    code = "import helper, near, pkg.core, deep, numpy, data, fast, far.away.deep"
    found = {one.module: one for one in code_imports(code, "nb/a.ipynb", 1)}
    assert {name for name, one in found.items() if is_local(one, local)} == {
        *("helper", "near", "pkg.core", "fast", "far.away.deep")
    }
    # Only `sys.path` leads there: missing is not said of it either.
    assert anywhere(found["deep"], local) and not anywhere(found["numpy"], local)


def test_nothing_is_warned_of(recwarn: pytest.WarningsRecorder) -> None:
    assert [one.module for one in code_imports("import os\nx = '\\d' is 3", "a.py")] == ["os"]
    assert not recwarn.list


def test_no_limit_of_python_is_changed() -> None:
    before = sys.getrecursionlimit()
    code_imports("(" * 1000, "a.py")
    assert sys.getrecursionlimit() == before


@pytest.mark.parametrize("text", ["f" + "(x)" * 2_000_000, "f(x)\n" * 1_000_000, "f\n" + "(" * 8_000_000])
def test_code_that_is_large_is_not_parsed(text: str) -> None:
    begin = time.monotonic()
    found = code_imports(f"import a.b\n{text}\nfrom c import d\n", "a.py")
    assert [(one.module, one.line) for one in found] == [("a.b", 1), ("c", text.count("\n") + 3)]
    assert time.monotonic() - begin < 5


def test_a_long_line_is_not_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    line = f"x = '{'y' * 200_000}'"
    monkeypatch.setattr("builtins.compile", None)
    assert [one.module for one in code_imports(f"import a\n{line}\n", "a.py")] == ["a"]
