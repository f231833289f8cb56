"""A plan in words."""

from __future__ import annotations

from pathlib import Path

from checkouts import fill, plan_of

from hpcbinder.plan import explain


def test_every_file_that_counts_has_its_line_and_reason(tmp_path: Path) -> None:
    files = {"apt.txt": "sox", "setup.py": "", "poetry.lock": "", "notebook.ipynb": "{}"}
    text = explain(plan_of(tmp_path, files))
    assert "  apt.txt         used      apt: 1 Debian package\n" in text
    assert "  poetry.lock     not used  python: there is no pyproject.toml that it could be the lock of" in text
    assert "      packages sox\n" in text
    assert "debian:bookworm, Python 3.11, amd64" in text
    assert text.index("apt/install") < text.index("python/wheels") < text.index("content: ")


def test_long_lists_are_cut(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, {"setup.py": "", **{f"f{number}.py": "" for number in range(10)}})
    assert "      reads f0.py, f1.py, f2.py, f3.py, f4.py and 6 more files\n" in explain(plan)


def test_nothing_in_it_commands_a_terminal(tmp_path: Path) -> None:
    name = "\x1b]0;owned\x07\nUsed: everything\u202e"
    fill(tmp_path, {f"{name}.py": "", "setup.py": ""})
    text = explain(plan_of(tmp_path, subdir=name, ref=name))
    assert not set(text) & {"\x1b", "\x07", "\u202e"}
    assert "\nUsed: everything" not in text
