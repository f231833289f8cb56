"""What notebooks ask for besides Python's imports."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from notebook_files import notebook

from hpcbinder.notebooks import extensions, pip_installs, read_notebook


def asked(*cells: str) -> list[str]:
    return [install.text for install in pip_installs(read_notebook("a.ipynb", notebook(*cells)))]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("!pip install numpy", ["numpy"]),
        ("%pip install -q numpy==1.26.4 'scipy>=1,<2'", ["numpy==1.26.4", "scipy>=1,<2"]),
        ("  ! pip3 install --upgrade  torch  # the newest", ["torch"]),
        ("!{sys.executable} -m pip install pandas[excel]", ["pandas[excel]"]),
        ("!python3 -m pip install a b; echo done", ["a", "b"]),
        ("!uv pip install a && ls", ["a"]),
        ("!pip install -i https://index.example.org/simple a > /dev/null", ["a"]),
        ("!pip install -r needs.txt -e ./here", ["-r needs.txt", "-e ./here"]),
        ("!pip install git+https://git.example.org/x.git", ["git+https://git.example.org/x.git"]),
        ("# !pip install a", []),
        ("print('!pip install a')", []),
        ("!pip install 'a", []),
        ("!pip list", []),
    ],
)
def test_pip_install(line: str, words: list[str]) -> None:
    assert asked(f"x = 1\n{line}\ny = 2") == words


def test_where_it_stands() -> None:
    (install,) = pip_installs(read_notebook("b/c.ipynb", notebook("x = 1", "!pip install a")))
    assert (install.file, install.cell) == ("b/c.ipynb", 2)


@given(st.text(max_size=200) | st.text(alphabet="!%pip install-r'\"\\;|&(){}$ \n", max_size=200))
def test_any_line_is_read(text: str) -> None:
    assert all(word.strip() for word in asked(f"!pip install {text}"))


def test_a_hostile_line_is_short_work() -> None:
    assert asked("!pip install " + "a " * 2_000_00) == []
    assert len(asked(*["!pip install " + "a " * 900] * 3)) == 500


def test_what_magics_load() -> None:
    assert extensions("%load_ext sql\n%load_ext autoreload\n  %reload_ext line_profiler") == ["sql", "line_profiler"]
    assert extensions("%pylab inline") == ["numpy", "matplotlib"]
    assert extensions("load_ext = 'x'\n# %load_ext x") == []
