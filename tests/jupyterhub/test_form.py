"""The page on which a person chooses: its text, and what a reader's voice or a stranger's title make of it."""

from __future__ import annotations

from collections.abc import Mapping
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcbinder.jupyterhub.environment import Environment, Site
from hpcbinder.jupyterhub.form import form
from hpcbinder.jupyterhub.offer import Offer
from hpcbinder.scheduler import Partition

GOLDEN = Path(__file__).parent / "form.html"
PNG = "data:image/png;base64,iVBORw0KGgo="
LIGO = Environment(
    "ligo-0123456789ab",
    "LIGO open data",
    "https://example.org/ligo/tutorials",
    ref="v1.2 (8c1f0a2)",
    description="The first detection & how it was found.",
    icon=PNG,
    path="index.ipynb",
    resources={"cpus": 4, "memory": "8G", "gpus": "1"},
)
OLD = Environment("ligo-ba9876543210", "LIGO open data", "https://example.org/ligo/tutorials", ref="v1.1")
MINE = Environment("notes-0123456789ab", "notes", "/home/ada/notes", own=True)
SITE = Site(accounts=("phys", "chem"), time="8:00:00", gpus=4, nodes=2, defaults={"time": "30"})
PARTITIONS = (
    Partition("debug", True, "8:00:00", 4, 8000, {}),
    Partition("gpu", False, "1-00:00:00", 64, 512 << 10, {"a100": 4}),
)


def offer(*environments: Environment, site: Site = SITE, note: str = "") -> Offer:
    return Offer({each.id: each for each in environments}, site, PARTITIONS, note)


class Page(HTMLParser):
    """What a browser sees: elements by id, their labels, and what would be sent."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.inputs: list[dict[str, str | None]] = []
        self.labels: set[str | None] = set()
        self.ids: list[str | None] = []
        self.tags: set[str] = set()
        self.options: dict[str | None, list[str | None]] = {}
        self.chosen: dict[str | None, str | None] = {}
        self.depth: list[str] = []
        self._select: str | None = None
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        values = dict(attributes)
        assert not [name for name in values if name.startswith("on")]
        self.tags.add(tag)
        if tag not in ("input", "img", "br"):
            self.depth.append(tag)
        if "id" in values:
            self.ids.append(values["id"])
        if tag in ("input", "select"):
            self.inputs.append(values)
        if tag == "input" and (values["type"] not in ("radio", "checkbox") or "checked" in values):
            self.chosen[values["name"]] = values["value"]
        if tag == "select":
            self._select = values["name"]
            self.chosen[self._select] = ""
        if tag == "option":
            self.options.setdefault(self._select, []).append(values["value"])
            if "selected" in values:
                self.chosen[self._select] = values["value"]
        if tag == "label":
            self.labels.add(values["for"])

    def handle_endtag(self, tag: str) -> None:
        assert self.depth.pop() == tag


def test_the_page() -> None:
    """`python tests/jupyterhub/test_form.py` writes it anew; look at what changed."""
    assert page() == GOLDEN.read_text()


def page() -> str:
    return form(offer(LIGO, OLD, MINE, note="your images could not be listed within 10 s")) + "\n"


def test_everything_has_a_label_and_no_script_is_needed() -> None:
    seen = Page(page())
    assert {field["id"] for field in seen.inputs} == seen.labels
    assert len(set(seen.ids)) == len(seen.ids)
    described = {field["aria-describedby"] for field in seen.inputs if "aria-describedby" in field}
    assert described <= set(seen.ids)
    assert not seen.tags & {"script", "style", "iframe", "object", "form"}
    assert seen.depth == []


def test_what_was_said_before_stands_there_again() -> None:
    said = {"environment": ["notes-0123456789ab"], "time": ["0:10:00"], "account": "chem", "cpus": 4, "reset": True}
    seen = Page(form(offer(LIGO, OLD, MINE), {**said, "path": "a b.ipynb", "partition": ["gpu"], "unknown": "x"}))
    assert seen.chosen["environment"] == "notes-0123456789ab"
    assert (seen.chosen["time"], seen.chosen["account"], seen.chosen["cpus"]) == ("0:10:00", "chem", "4")
    assert (seen.chosen["path"], seen.chosen["partition"], seen.chosen["reset"]) == ("a b.ipynb", "gpu", "true")


def test_the_only_environment_is_chosen() -> None:
    assert Page(form(offer(OLD))).chosen["environment"] == OLD.id
    assert "environment" not in Page(form(offer(OLD, LIGO))).chosen


def test_what_the_site_does_not_offer_is_not_asked_for() -> None:
    names = {field["name"] for field in Page(form(offer(OLD, site=Site(accounts=(), gpus=0)))).inputs}
    assert "time" in names and not names & {"account", "gpus", "nodes"}


def test_partitions_are_those_that_may_be_chosen() -> None:
    every = Page(form(offer(OLD)))
    assert every.options["partition"] == ["", "debug", "gpu"]
    some = Page(form(offer(OLD, site=Site(partitions=("gpu", "night")))))
    assert some.options["partition"] == ["", "gpu", "night"]


def test_a_server_that_is_no_job_asks_for_no_resources() -> None:
    assert {field["name"] for field in Page(form(offer(OLD), job=False)).inputs} == {"environment", "path", "reset"}


def test_where_nothing_is_offered_the_page_says_so() -> None:
    assert "No environment is offered to you here" in form(offer())


HOSTILE = st.one_of(
    st.text(max_size=60),
    st.sampled_from(['"><script>alert(1)</script>', "' onclick='x", "{{ 7*7 }}", "{% x %}", "</fieldset>", "&amp;\0"]),
)


@given(
    HOSTILE,
    HOSTILE,
    HOSTILE,
    st.dictionaries(st.sampled_from(["path", "time", "environment", "reset", "qos"]), HOSTILE),
)
def test_no_text_is_more_than_text(title: str, repository: str, note: str, said: Mapping[str, str]) -> None:
    hostile = Environment("a-0123456789ab", title, repository, title, note, resources={"time": title})
    seen = Page(form(offer(hostile, LIGO, note=note), said))
    plain = Page(
        form(offer(Environment("a-0123456789ab", "x", "y", "z", "n", resources={"time": "1"}), LIGO, note="n"))
    )
    assert seen.tags <= plain.tags | {"br"} and seen.depth == []
    assert [field["name"] for field in seen.inputs] == [field["name"] for field in plain.inputs]


@pytest.mark.parametrize("said", [None, [], "x", {"path": ["a", "b"]}, {"path": {"x": 1}}, {3: 4}, {"cpus": b"\xff"}])
def test_what_cannot_be_shown_is_not(said: object) -> None:
    assert Page(form(offer(LIGO), said)).chosen["path"] == ""


if __name__ == "__main__":
    GOLDEN.write_text(page())
