"""`.dockerignore`: Docker's rules, by example and against an independent reading of them."""

from __future__ import annotations

import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hpcbinder.errors import DetectError
from hpcbinder.plan.ignore import _Automaton, _tokens, parse_ignore


def ignored(text: str, path: str) -> bool:
    return parse_ignore([(".dockerignore", text)]).ignores(path)


@pytest.mark.parametrize(
    ("pattern", "path", "expected"),
    [
        # Anchored at the root, unlike git's.
        ("*.pyc", "a.pyc", True),
        ("*.pyc", "sub/a.pyc", False),
        ("**/*.pyc", "a.pyc", True),
        ("**/*.pyc", "sub/deep/a.pyc", True),
        ("*/temp*", "somedir/temporary.txt", True),
        ("*/*/temp*", "somedir/temporary.txt", False),
        ("temp?", "tempa", True),
        ("temp?", "temp", False),
        # A folder means all below it, with or without slashes around.
        ("data", "data/x/y.csv", True),
        ("data/", "data/x/y.csv", True),
        ("/data", "data/x/y.csv", True),
        ("./data", "data/x/y.csv", True),
        ("a/../data", "data/x", True),
        ("data", "database", False),
        ("data/**", "data/x", True),
        ("data/**", "data", False),
        ("**", "anything/at/all", True),
        ("**/x", "x", True),
        ("a/**/z", "a/z", True),
        ("a/**/z", "a/b/c/z", True),
        ("a/**/z", "b/a/z", False),
        # Exceptions: the last line that matches wins.
        ("*.md\n!README.md", "README.md", False),
        ("*.md\n!README*.md\nREADME-secret.md", "README-secret.md", True),
        ("data\n!data/keep", "data/keep", False),
        ("data\n!data/keep", "data/keep/below", False),
        ("data\n!data/keep", "data/other", True),
        ("! data", "data", False),
        # Comments, blanks, escapes, classes.
        ("#data\ndata2", "data", False),
        ("  data  ", "data", True),
        ("\\#data", "#data", True),
        ("\\*", "*", True),
        ("\\*", "x", False),
        ("[abc].txt", "b.txt", True),
        ("[^abc].txt", "b.txt", False),
        ("[a-c].txt", "d.txt", False),
        ("[\\]]", "]", True),
        ("a[^x]b", "a/b", False),
        ("a.b", "axb", False),
        ("(a|b)+", "(a|b)+", True),
        ("a\nb", "b", True),
    ],
)
def test_examples(pattern: str, path: str, expected: bool) -> None:
    assert ignored(pattern, path) is expected


@pytest.mark.parametrize("pattern", ["!", "[a", "a\\", "[z-a]", "[]", "[a-]", "x" * 1001])
def test_what_is_no_pattern_is_said_with_its_line(pattern: str) -> None:
    with pytest.raises(DetectError, match=r"^\.dockerignore:2: not a pattern"):
        ignored(f"fine\n{pattern}", "x")


def test_two_files_are_read_one_after_the_other() -> None:
    rules = parse_ignore([(".dockerignore", "data"), (".containerignore", "!data")])
    assert not rules.ignores("data")
    assert rules.files == (".dockerignore", ".containerignore")


def matches(pattern: str, path: str) -> bool:
    """The same language, read off its definition: slow, and nothing in common with the code under test."""
    if not pattern:
        return not path
    if pattern in ("**", "**/"):  # moby/patternmatcher looks for the end behind the slash
        return True
    if pattern.startswith("**"):
        rest = pattern[3:] if pattern.startswith("**/") else pattern[2:]
        return matches(rest, path) or any(matches(rest, path[at + 1 :]) for at, char in enumerate(path) if char == "/")
    if pattern[0] == "*":
        return any(matches(pattern[1:], path[end:]) for end in range(len(path) + 1) if "/" not in path[:end])
    if not path:
        return False
    return (pattern[0] == path[0] or (pattern[0] == "?" and path[0] != "/")) and matches(pattern[1:], path[1:])


PATTERNS = st.text("ab*?/", min_size=1, max_size=9)
PATHS = st.text("ab/", min_size=1, max_size=9)


@given(PATTERNS, PATHS)
@example("**/", "a")
def test_both_ways_of_matching_agree_with_the_definition(pattern: str, path: str) -> None:
    import re

    tokens = _tokens(pattern)
    expected = matches(pattern, path)
    assert bool(re.compile("".join(tokens) + r"\Z").match(path)) is expected
    assert _Automaton(tokens).matches(path) is expected


@given(st.text(max_size=40), st.text(st.characters(exclude_characters="\0"), min_size=1, max_size=40))
def test_any_text_is_taken_or_refused(text: str, path: str) -> None:
    try:
        ignored(text, path)
    except DetectError as error:
        assert error.where is not None


def test_a_pattern_made_to_take_ages_does_not() -> None:
    start = time.process_time()
    assert not ignored("*a" * 100 + "b", "a" * 250)
    assert not ignored("**/a" * 50 + "/b", "a/" * 100 + "c")
    assert time.process_time() - start < 2
