"""Of which time versions are: what is decided, said and recorded."""

from __future__ import annotations

import json
from datetime import datetime, timezone
from pathlib import Path

import pytest
from checkouts import checkout_of, plan_of, step
from recorded_index import RecordedResolver

from hpcbinder.config import load
from hpcbinder.contract import LABEL_PREFIX
from hpcbinder.errors import UsageError
from hpcbinder.model import AsOf, Change, Plan
from hpcbinder.plan import date_of, explain, manifest
from hpcbinder.plan.dating import for_python

NOW = datetime(2026, 6, 1, tzinfo=timezone.utc).timestamp()


def seconds(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=timezone.utc).timestamp())


def decided(asked: str, time: str | None, *, days: int = 180, doubt: str = "", now: float = NOW) -> AsOf:
    changed = Change(seconds(time) if time else 0, "fit.ipynb in 0123456789ab", doubt)
    return date_of(asked, checkout_of(Path(), changed=changed), now=now, days=days)


def test_by_default_what_is_old_gets_the_versions_of_its_time() -> None:
    found = decided("auto", "2018-03-05T10:00:00")
    assert found.date == "2018-03-05T23:59:59Z" and not found.exact
    assert "fit.ipynb in 0123456789ab" in found.reason
    young = decided("auto", "2026-05-05T10:00:00")
    assert young.date == "" and "less than 180 days ago" in young.reason and "2026-05-05" in young.reason
    assert decided("auto", "2026-05-05T10:00:00", days=10).date == "2026-05-05T23:59:59Z"
    assert "its history cannot be had" in decided("auto", "2018-03-05", doubt="its history cannot be had").reason


def test_what_a_person_asks_for_counts() -> None:
    assert decided("commit", "2026-05-05T10:00:00").date == "2026-05-05T23:59:59Z"
    # Of a day that is not over, whatever is uploaded later would change what was decided.
    assert decided("commit", "2026-05-05T10:00:00", now=seconds("2026-05-05T12:00:00")).date == "2026-05-05T10:00:00Z"
    assert decided("now", "2018-03-05").date == ""
    asked = decided("2019-01-01T23:59:59Z", "2018-03-05")
    assert (asked.date, asked.exact) == ("2019-01-01T23:59:59Z", True)


def test_where_nothing_says_when_there_is_no_date() -> None:
    assert decided("auto", None).date == ""
    with pytest.raises(UsageError, match="nothing says when the files were changed"):
        decided("commit", None)
    with pytest.raises(UsageError, match=r"--as-of 2026-07-01 has not come yet"):
        decided("2026-07-01T23:59:59Z", "2018-03-05")


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("2018-03-05", "2018-03-05T23:59:59Z"),
        ("2018-03-05T10:00:00Z", "2018-03-05T10:00:00Z"),
        ("2018-03-05t01:00:00.25+02:00", "2018-03-04T23:00:00Z"),
        ("commit", "commit"),
        ("now", "now"),
    ],
)
def test_days_and_times(text: str, read: str) -> None:
    assert load({"build.as_of": text}).build.as_of == read


@pytest.mark.parametrize("text", ["yesterday", "2018", "2018-3-5", "2018-02-30", "2018-03-05T10:00", "05.03.2018", ""])
def test_what_is_no_date_gets_one_clear_message(text: str) -> None:
    with pytest.raises(UsageError, match=r"^--as-of (must be commit, now, YYYY-MM-DD|is no day of the calendar)"):
        load({"build.as_of": text}, options={"build.as_of": "--as-of"})


def test_no_date_is_before_a_python_had_wheels() -> None:
    moved = for_python(AsOf("2018-03-05T23:59:59Z", "why"), "3.11")
    assert moved.date == "2023-04-22T23:59:59Z"
    assert moved.reason.startswith("why; moved on from 2018-03-05, as Python 3.11")
    for as_of, python in (
        (AsOf("2018-03-05T23:59:59Z", "why"), "3.6"),
        (AsOf("2024-01-01T23:59:59Z", "why"), "3.11"),
        (AsOf("2018-03-05T23:59:59Z", "asked for", exact=True), "3.11"),
        (AsOf("", "now"), "3.11"),
    ):
        assert for_python(as_of, python) == as_of


DATE = AsOf("2024-03-05T23:59:59Z", "the notebook's time")
FILES = {"requirements.txt": "numpy\ndocopt\n", "a.ipynb": "{}"}


def plan(folder: Path, as_of: AsOf | None, files: dict[str, str] = FILES, *, lock: bool = True) -> Plan:
    return plan_of(folder, files, resolver=RecordedResolver() if lock else None, as_of=as_of)


def test_the_date_is_said_recorded_and_part_of_what_an_image_is(tmp_path: Path) -> None:
    dated, undated = plan(tmp_path, DATE), plan(tmp_path, AsOf("", "the newest, as was asked for"))
    assert dated.id != undated.id
    assert "  as of    2024-03-05  (the notebook's time)" in explain(dated).splitlines()
    assert "  as of    the newest, as was asked for" in explain(undated).splitlines()
    assert dated.labels[f"{LABEL_PREFIX}as-of"] == DATE.date
    assert f"{LABEL_PREFIX}as-of" not in undated.labels
    told = json.loads(manifest(dated))
    assert told["as_of"] == DATE.date and told["locks"][0]["as_of"] == DATE.date
    assert f"--as-of {DATE.date}" in told["rebuild"]
    assert "--as-of now" in json.loads(manifest(undated))["rebuild"]
    # The words do not make an image another one.
    assert plan(tmp_path, AsOf(DATE.date, "asked for", exact=True)).id == dated.id


def test_what_the_build_finds_is_of_that_time_too(tmp_path: Path) -> None:
    built = step(plan(tmp_path / "a", DATE), "python/packages")  # docopt has no wheel
    assert built.env["UV_EXCLUDE_NEWER"] == DATE.date
    unlocked = plan(tmp_path / "b", DATE, lock=False)
    assert {name: step(unlocked, name).env["UV_EXCLUDE_NEWER"] for name in ("python/wheels", "python/packages")} == {
        "python/wheels": DATE.date,
        "python/packages": DATE.date,
    }
    assert unlocked.as_of == DATE
    # The server's environment is everybody's, and has its own lock.
    assert not any("UV_EXCLUDE_NEWER" in s.env for s in unlocked.steps if s.name.startswith("server/"))


def test_a_dockerfile_says_itself_what_it_installs(tmp_path: Path) -> None:
    own = plan(tmp_path, DATE, {"Dockerfile": "FROM scratch\n"})
    assert own.as_of is not None and own.as_of.date == ""
    assert "  as of    not used: Dockerfile says what is installed" in explain(own).splitlines()


def test_without_a_decision_nothing_is_said(tmp_path: Path) -> None:
    assert "as of" not in explain(plan(tmp_path, None))
    assert json.loads(manifest(plan(tmp_path, None)))["as_of"] is None
