"""Of which time the versions are that a repository does not lock (docs/as-of.md).

Buildpacks learn the date from `Draft.as_of`. They give it to what finds versions in a build with `Draft.dated`, and for
a pip that knows no date get constraints that stand for it from `Draft.constraints_as_of(requirements)`.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable

from hpcbinder.errors import UsageError
from hpcbinder.model import AsOf, Change, Checkout, Lock
from hpcbinder.text import day_of

RELEASED = {
    "2.7": "2010-07-03",
    "3.5": "2015-09-13",
    "3.6": "2016-12-23",
    "3.7": "2018-06-27",
    "3.8": "2019-10-14",
    "3.9": "2020-10-05",
    "3.10": "2021-10-04",
    "3.11": "2022-10-24",
    "3.12": "2023-10-02",
    "3.13": "2024-10-07",
    "3.14": "2025-10-07",
}
"""Python -> day of its first release (PEP 373, 478, 494, 537, 569, 596, 619, 664, 693, 719, 745)."""

UNDATED = frozenset(
    ("asttokens", "backcall", "comm", "debugpy", "executing", "ipykernel", "ipython", "jedi", "jupyter-client")
    + ("jupyter-core", "matplotlib-inline", "nest-asyncio", "parso", "pip", "prompt-toolkit", "psutil", "pure-eval")
    + ("pyzmq", "stack-data", "tornado", "wcwidth")
)
"""Always the newest that fit. What a kernel alone is made of is no part of what a repository computes; and some of it
had no wheels before 2020 (tornado, backcall): dated ones would lead to an ipykernel of 2015, which has no kernelspec.
pip: a tool that postBuild scripts call, and an old one does not know the wheels of today's index."""

WHEELS_AFTER = 180
"""Days after a Python's release until most packages had wheels for it: of the time before, hardly any has."""

_DAY = 86400


def date_of(asked: str, checkout: Checkout, *, now: float, days: int) -> AsOf:
    """Decide of which time versions are.

    Args:
        asked: As `build.as_of` has it: `auto`, `commit`, `now` or a time (RFC 3339 in UTC).
        now: Unix time (s).
        days: Age of what was changed last from which `auto` takes its date.

    Raises:
        UsageError: The time is not there yet, or nothing says when the files were changed.
    """
    if asked == "now":
        return AsOf("", "the newest versions, as was asked for")
    if asked not in ("auto", "commit"):
        if seconds_of(asked) > now + _DAY:
            raise UsageError(f"--as-of {day_of(asked)} has not come yet", hint="--as-of now takes the newest versions")
        return AsOf(asked, "the date that was asked for", exact=True)
    changed = checkout.changed or Change(checkout.timestamp, "the commit" if checkout.commit else "the newest file")
    if changed.time <= 0:
        if asked == "commit":
            raise UsageError("nothing says when the files were changed", hint="name a day: --as-of YYYY-MM-DD")
        return AsOf("", "the newest versions: nothing says when the files were changed")
    date = _end_of_day(changed.time, now)
    doubt = f"; {changed.doubt}" if changed.doubt else ""
    newest = f"{changed.what}{doubt}"
    if asked == "auto" and now - changed.time < days * _DAY:
        return AsOf("", f"the newest versions: changed on {day_of(date)} ({newest}), less than {days} days ago")
    return AsOf(date, f"when notebooks, code or configuration were changed last: {newest}")


def for_python(as_of: AsOf, python: str) -> AsOf:
    """The date for packages of a certain Python: never before there were wheels for it, unless a person named the date.

    Args:
        python: `X.Y`.
    """
    released = RELEASED.get(python)
    if not as_of.date or as_of.exact or released is None:
        return as_of
    first = datetime.date.fromisoformat(released) + datetime.timedelta(days=WHEELS_AFTER)
    if as_of.date >= f"{first}":
        return as_of
    why = f"moved on from {day_of(as_of.date)}, as Python {python}, which is of {released}, had hardly a wheel before"
    return AsOf(f"{first}T23:59:59Z", f"{as_of.reason}; {why}")


def used_date(as_of: AsOf | None, dated: AsOf | None, locks: Iterable[Lock]) -> AsOf | None:
    """What a plan says of the date in the end.

    Args:
        as_of: What was decided; None if nobody did.
        dated: The date that versions were found as of, None if none were.
        locks: What was found.
    """
    if dated is not None or as_of is None or not as_of.date:
        return dated or as_of
    why = next((lock.note for lock in locks if lock.note), "nothing was left to find versions of")
    return AsOf("", f"not as of {day_of(as_of.date)}: {why}")


def seconds_of(date: str) -> int:
    """Unix time (s) of a time in RFC 3339."""
    return int(datetime.datetime.fromisoformat(date.replace("Z", "+00:00")).timestamp())


def _end_of_day(seconds: int, now: float) -> str:
    """The end of a day, so that all that was made that day counts; the very second of a day that is not over."""
    when = datetime.datetime.fromtimestamp(min(seconds, now), datetime.timezone.utc)
    if when.date() < datetime.datetime.fromtimestamp(now, datetime.timezone.utc).date():
        return f"{when:%Y-%m-%d}T23:59:59Z"
    return f"{when:%Y-%m-%dT%H:%M:%S}Z"
