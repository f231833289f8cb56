"""What comes of each repository of tests/repos when it is built and run: expected.toml beside this file."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

REFUSED = (2, 3, 4)
"""Exit statuses of a build that ends before anything is built: UsageError, FetchError, DetectError."""
BREAKS = (3, 5)
"""Those of a build that fails: BuildError, and FetchError of what is fetched to build with."""


@dataclass(frozen=True)
class Expected:
    """A table of the file. One that says nothing more than `shows` is built, and all that it has runs.

    Attributes:
        shows: What the repository is there for.
        needs: What it needs that these tests do not reach: it is not built.
        refused: It is refused before anything is built, with these words.
        breaks: Its build fails with these words.
        notebooks: Notebook -> the status that `hpcbinder verify` gives it if it is not to run; behind a colon, words of
            its line or its cause.
        missing: Modules that its code imports and that are not there.
        run: Lines for sh that end well in the image, each from the repository's folder. Behind ` -> `, words that the
            line prints.
        options: More of `hpcbinder build` than its situation says.
        settings: Variables of hpcbinder.
        usual: It is built in every run of the tests, not only by `make nightly`.
    """

    shows: str
    needs: str = ""
    refused: str = ""
    breaks: str = ""
    notebooks: Mapping[str, str] = field(default_factory=dict)
    missing: tuple[str, ...] = ()
    run: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    settings: Mapping[str, str] = field(default_factory=dict)
    usual: bool = False

    @property
    def commands(self) -> tuple[str, ...]:
        """The lines for sh alone."""
        return tuple(line.partition(" -> ")[0] for line in self.run)


def read_expected() -> dict[str, Expected]:
    """All tables, by the repositories' names.

    Raises:
        ValueError: A table has a key that it cannot have, or none for what the repository shows.
    """
    tables = tomllib.loads(Path(__file__).with_name("expected.toml").read_text())
    known = {each.name for each in fields(Expected)}
    for name, table in tables.items():
        if "shows" not in table or not table.keys() <= known:
            raise ValueError(f"[{name}]: `shows` is wanted, and nothing but {', '.join(sorted(known))}")
    return {
        name: Expected(**{key: tuple(value) if isinstance(value, list) else value for key, value in table.items()})
        for name, table in tables.items()
    }


def differences(expected: Expected, record: Mapping[str, Any]) -> list[str]:
    """What came otherwise than expected.

    Args:
        record: As the runner returns it.
    """
    wanted = expected.refused or expected.breaks
    if record["exit"] or wanted:
        return list(_ended(expected, record, wanted))
    if "missing" not in record:
        return [f"it could not be verified: {record.get('error')}"]
    return [*_notebooks(expected, record), *_commands(expected, record)]


def _ended(expected: Expected, record: Mapping[str, Any], wanted: str) -> Iterator[str]:
    code, said = record["exit"], str(record.get("error", ""))
    if not wanted:
        yield f"it could not be built ({code}): {said}"
    elif not code:
        yield f"it was built, and should have said: {wanted}"
    elif wanted not in said:
        yield f"it should have said: {wanted}; it said: {said}"
    elif code not in (REFUSED if expected.refused else BREAKS):
        yield f"it ended with exit status {code}: {said}"


def _notebooks(expected: Expected, record: Mapping[str, Any]) -> Iterator[str]:
    found = {verdict["notebook"]: verdict for verdict in record["verdicts"]}
    yield from (f"{name} was not run" for name in expected.notebooks.keys() - found.keys())
    for name, verdict in found.items():
        status, _, words = expected.notebooks.get(name, "runs").partition(": ")
        said = f"{verdict['line']} {verdict['cause']}"
        if verdict["status"] != status or words not in said:
            yield f"{name}: {said}"
    missing = {each["module"] for each in record["missing"]}
    if missing != set(expected.missing):
        yield f"imports that are missing: {', '.join(sorted(missing)) or 'none'}"


def _commands(expected: Expected, record: Mapping[str, Any]) -> Iterator[str]:
    for line, done in zip(expected.run, record["commands"], strict=True):
        words = line.partition(" -> ")[2]
        if done["exit"] or words not in done["said"]:
            yield f"{done['line']}: exit {done['exit']}: {done['said']}"
