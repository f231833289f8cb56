"""What is told of a verification, to people and machines: whatever names and errors hold, it stays text."""

from __future__ import annotations

import json
import re
import sys
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcbinder.cli.verdicts import verdicts
from hpcbinder.cli.verify import as_object
from hpcbinder.verify import Failure, Missing, Status, Verdict, Verification, html_page, junit_xml

EVIL = "<script>alert(1)</script>&'\"]]>\x00\x1b[31m\ud800\u202e\n</td>"


def verification(text: str, *, status: Status = Status.FAILS, ran: bool = True, notebooks: bool = True) -> Verification:
    failure = None if status is Status.RUNS else Failure(3, 4, text, text, text, text)
    verdict = Verdict(text, status, text, failure, text, "python3", (text,), 1.25, 5, 2)
    missing = Missing("cv2", "", "ModuleNotFoundError", text, text, 2, 1, "opencv-python-headless", text, 1)
    found = (verdict,) if notebooks else ()
    return Verification("a-0123", "sha256:0", "apptainer", "off", 1_700_000_000, 4, (missing,), found, (text,), ran)


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.seen: set[str] = set()
        self.attributes: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)
        self.attributes |= {name for name, _ in attrs}


OURS = {
    *("html", "head", "meta", "title", "style", "body", "h1", "h2", "p", "br", "span", "strong", "table"),
    "tr",
    "th",
    "td",
    "code",
}


@given(st.text(max_size=40) | st.just(EVIL))
def test_the_page_has_no_tag_that_is_not_ours(text: str) -> None:
    page = html_page(verification(text)).decode()
    tags = Tags()
    tags.feed(page)
    assert tags.seen <= OURS
    assert tags.attributes <= {"lang", "charset", "http-equiv", "content", "name", "class"}
    assert "default-src 'none'" in page


@given(st.text(max_size=40) | st.just(EVIL), st.sampled_from(list(Status)))
def test_the_xml_can_be_read(text: str, status: Status) -> None:
    suite = ElementTree.fromstring(junit_xml(verification(text, status=status)))[0]
    cases = suite.findall("testcase")
    assert int(suite.attrib["tests"]) == len(cases) == 1
    assert (
        int(suite.attrib["failures"])
        == len(suite.findall("*/failure"))
        == (status not in (Status.RUNS, Status.UNTRIED))
    )
    assert int(suite.attrib["skipped"]) == len(suite.findall("*/skipped")) == (status is Status.UNTRIED)


def test_an_import_is_a_case_where_nothing_was_run() -> None:
    suite = ElementTree.fromstring(junit_xml(verification("x", status=Status.UNTRIED, ran=False)))[0]
    assert [case.attrib["name"] for case in suite.findall("testcase")] == ["x", "import cv2"]
    assert (suite.attrib["failures"], suite.attrib["skipped"]) == ("1", "1")


@given(st.text(max_size=40) | st.just(EVIL))
def test_the_object_is_json(text: str) -> None:
    told = json.loads(json.dumps(as_object(verification(text))))
    assert told["passed"] is False
    assert told["notebooks"][0]["status"] == "fails"
    assert told["notebooks"][0]["failure"]["cell"] == 3


@pytest.mark.parametrize("terminal", [False, True])
def test_no_line_is_forged_and_no_terminal_commanded(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, terminal: bool
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: terminal, raising=False)
    verdicts(verification(EVIL))
    said = capsys.readouterr().out
    assert "\x00" not in said and "\u202e" not in said and "\x1b[31m<" not in said
    assert "0 of 1 notebook runs, 1 of 4 imports missing" in re.sub(r"\x1b\[[0-9;]*m", "", said)


@pytest.mark.parametrize(
    ("found", "passed"),
    [
        (verification("x", status=Status.RUNS), True),  # what it imports, and does without, is no failure
        (verification("x", status=Status.NETWORK), False),
        (verification("x", status=Status.UNTRIED, ran=False), False),
        (verification("x", notebooks=False), False),
    ],
)
def test_what_counts(found: Verification, passed: bool) -> None:
    assert found.passed is passed
