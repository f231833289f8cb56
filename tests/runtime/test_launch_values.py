"""What a person writes as a bind, and what a front end writes into an argv."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcbinder.runtime.launch.values import Bind, LaunchError, bindable, fill, parse_bind, under


@pytest.mark.parametrize(
    ("text", "bind"),
    [
        ("/scratch", Bind("/scratch", "/scratch")),
        ("/scratch/", Bind("/scratch", "/scratch")),
        ("/a b:/c", Bind("/a b", "/c")),
        ("/a:/b:ro", Bind("/a", "/b", read_only=True)),
        ("/a:/b:rw", Bind("/a", "/b")),
    ],
)
def test_binds(text: str, bind: Bind) -> None:
    assert parse_bind(text) == bind


@pytest.mark.parametrize(
    "text", ["", "a", "/a:b", "/a:/b:zz", "/a:/b:ro:x", "/a,/b", "/a\n", "/a:/", "~/x", "/a:/b,ro"]
)
def test_what_is_no_bind(text: str) -> None:
    with pytest.raises(LaunchError, match="not a bind"):
        parse_bind(text)


@given(st.text())
def test_a_bind_never_smuggles_in_a_second_one(text: str) -> None:
    try:
        bind = parse_bind(text)
    except LaunchError:
        return
    for path in (bind.source, bind.target):
        assert path.startswith("/")
        assert not set(path) & set(":,\n\r\0")
        assert bindable(path)


def test_only_known_words_in_braces_are_replaced_and_only_once() -> None:
    argv = ("-f", "{connection_file}", "--x={connection_file}", "{other}", "{{}}")
    files = {"connection_file": "/tmp/{other}.json"}
    assert fill(argv, files) == ("-f", "/tmp/{other}.json", "--x=/tmp/{other}.json", "{other}", "{{}}")


def test_under_compares_whole_names() -> None:
    assert under("/home/alice/x", "/home/alice")
    assert under("/home/alice", "/home/alice/")
    assert not under("/home/alice2", "/home/alice")
