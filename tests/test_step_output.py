"""What is said of a step that failed: the words that tell, and what to do."""

from __future__ import annotations

import pytest

from hpcbinder.output import advice, telling


def test_the_last_words_are_the_steps_own_and_ours() -> None:
    lines = ["begins", "the reason", "hpcbinder: postBuild:2: went on after status 1: false", "it ends here"]
    ours = "hpcbinder: postBuild:7: failed with status 3: exit 3"
    assert telling([*lines, ours]) == [*lines[1:], ours]
    assert telling([*lines, "error: no such thing", "done", ours]) == ["error: no such thing", ours]
    assert telling(["one", "two", "three", "four"]) == ["two", "three", "four"]


@pytest.mark.parametrize(
    "line",
    [
        "curl: (6) Could not resolve host: example.org",
        "wget: unable to resolve host address 'example.org'",
        "fatal: unable to access 'https://example.org/': Couldn't resolve host 'example.org'",
        "ConnectionError: [Errno -3] Temporary failure in name resolution",
        "npm ERR! getaddrinfo ENOTFOUND registry.example.org",
        "connect: Network is unreachable",
        "NewConnectionError: Failed to establish a new connection: [Errno 111]",
    ],
)
def test_a_network_that_is_not_there_is_said_so(line: str) -> None:
    said = advice(1, ["begins", line, "gave up"])
    assert said is not None and "build.network" in said


def test_nothing_is_advised_where_nothing_is_known() -> None:
    assert advice(1, ["ModuleNotFoundError: No module named 'x'"]) is None
    assert advice(137, []) == "it was killed, perhaps for want of memory"
