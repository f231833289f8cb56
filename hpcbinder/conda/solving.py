"""A program of its own: solves an environment with rattler, apart from us, whatever a channel makes of it.

It reads one JSON object on standard input and writes one on standard output: `{"records": […], "notes": […]}`, or
`{"problem": KIND, "message": …}` with the kind `spec`, `conflict` or `channel`.
"""

from __future__ import annotations

import asyncio
import datetime
import json
import os
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from hpcbinder.conda.relaxing import looser, without_builds

if TYPE_CHECKING:
    from rattler import Gateway, GenericVirtualPackage, MatchSpec, RepoDataRecord

REQUEST_TIMEOUT = 120
"""Seconds for one file of a channel; conda-forge's index of a platform has 40 MB."""


class Problem(Exception):
    """What the other side is told. Arguments: kind, message."""


def main() -> None:
    asked = json.load(sys.stdin)
    try:
        answer = asyncio.run(_Solve(asked).answer())
    except Problem as problem:
        answer = {"problem": problem.args[0], "message": problem.args[1]}
    json.dump(answer, sys.stdout)
    sys.stdout.flush()
    # rattler's threads may still call into an interpreter that is being taken down, and crash (0.28, one in ten).
    os._exit(0)


class _Solve:
    def __init__(self, asked: dict[str, Any]) -> None:
        from rattler import Client, Gateway, RepoDataRecord, SourceConfig
        from rattler.networking.middleware import RetryMiddleware

        self._asked = asked
        self._channels: list[str] = asked["channels"]
        self._platforms: Any = [asked["subdir"], "noarch"]
        # Without the authentication of a home folder: what is asked of a channel depends on the configuration alone.
        client = Client([RetryMiddleware(2)], user_agent="hpcbinder", timeout=REQUEST_TIMEOUT)
        fetching = SourceConfig(cache_action="no-cache" if asked["refresh"] else "cache-or-fetch")
        self._gateway: Gateway = Gateway(cache_dir=asked["cache"], client=client, default_config=fetching)
        self._sort = RepoDataRecord.sort_topologically
        self._until = time.monotonic() + asked["timeout"]

    async def answer(self) -> dict[str, Any]:
        notes: list[str] = []
        if self._asked["exact"]:
            records = await self._exact()
        else:
            records = await self._solved(notes)
        for record in records:
            if record.sha256 is None:
                raise Problem("channel", f"the channel has no SHA-256 for {record.file_name}")
        by_name = {record.name.normalized: record for record in sorted(records, key=lambda each: each.name.normalized)}
        # What others depend on comes first, as where conda links one after the other.
        ordered = [record.name.normalized for record in self._sort([*by_name.values()])]
        return {"records": [self._plain(by_name[name]) for name in ordered], "notes": notes}

    async def _solved(self, notes: list[str]) -> list[RepoDataRecord]:
        texts: list[str] = self._asked["specs"]
        try:
            return await self._fitting(texts, notes)
        except Problem as problem:
            if problem.args[0] != "conflict" or not self._asked.get("export"):
                raise
        relaxed = without_builds(texts)
        try:
            return await self._fitting(relaxed, notes)
        except Problem as problem:
            if problem.args[0] != "conflict":
                raise
        *others, last = looser(relaxed, await self._depends(relaxed))
        for specs in others:
            try:
                return await self._fitting(specs, notes)
            except Problem as problem:
                if problem.args[0] != "conflict":
                    raise
        return await self._fitting(last, notes)

    async def _depends(self, texts: Sequence[str]) -> dict[str, set[str]]:
        """What packages depend on, in the versions that are asked for or, where there are none, in any."""
        asked = {_name(spec): spec for spec in map(_spec, texts)}
        found: dict[str, set[str]] = {}
        for name, records in (await self._query(sorted(asked))).items():
            same = [record for record in records if asked[name].matches(record)]
            found[name] = {text.split()[0] for record in same or records for text in record.depends}
        return found

    async def _fitting(self, texts: Sequence[str], notes: list[str]) -> list[RepoDataRecord]:
        specs = [_spec(text) for text in texts]
        named = {_name(spec) for spec in specs}
        extras = [name for name in self._asked["extras"] if name not in named]
        known = await self._query(extras)
        limit = self._not_after
        for name in extras:
            made = [record.timestamp for record in known.get(name, [])]
            if any(limit is None or at is None or at <= limit for at in made):
                specs.append(_spec(name))
        wanted = self._asked["python"]
        free = all(spec.version is None and spec.build is None for spec in specs if _name(spec) == "python")
        if wanted and free:
            # As for every other image: whichever is newest would be another one every few months.
            try:
                return await self._solve([*specs, _spec(f"python {wanted}.*")])
            except Problem as problem:
                if problem.args[0] != "conflict":
                    raise
                notes.append(f"it does not go with Python {wanted}")
        return await self._solve([*specs, _spec("python")])

    async def _solve(self, specs: Sequence[MatchSpec]) -> list[RepoDataRecord]:
        from rattler import ChannelPriority, solve
        from rattler.exceptions import SolverError

        try:
            return await solve(
                self._channels,
                specs,
                gateway=self._gateway,
                platforms=self._platforms,
                virtual_packages=[_virtual(*each) for each in self._asked["virtual"]],
                timeout=datetime.timedelta(seconds=max(1.0, self._until - time.monotonic())),
                exclude_newer=self._not_after,
                # Before 2017 packages said nothing of when they were made.
                timestamp_policy="allow-missing",
                channel_priority=ChannelPriority.Strict,
                channel_relations="disabled",
            )
        except SolverError as error:
            raise Problem("conflict", str(error)) from None
        except Exception as error:  # rattler's errors have no base of their own
            raise Problem("channel", f"{error}") from None

    @property
    def _not_after(self) -> datetime.datetime | None:
        seconds = self._asked.get("not_after")
        return None if seconds is None else datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc)

    async def _query(self, names: Sequence[str]) -> dict[str, list[RepoDataRecord]]:
        found: dict[str, list[RepoDataRecord]] = {}
        if not names:
            return found
        try:
            answer = await self._gateway.query(
                self._channels,
                self._platforms,
                [_spec(name) for name in names],
                recursive=False,
                channel_relations="disabled",
            )
            for records in answer:
                for record in records:
                    found.setdefault(record.name.normalized, []).append(record)
        except Exception as error:
            raise Problem("channel", f"{error}") from None
        return found

    async def _exact(self) -> list[RepoDataRecord]:
        """The records of an explicit list: its hashes, often MD5, are compared with what the channel says."""
        wanted = [each.partition("#")[::2] for each in self._asked["exact"]]
        names = {url.rpartition("/")[2].rsplit("-", 2)[0] for url, _ in wanted}
        queried = await self._query(sorted(names))
        known = {self._url(record): record for records in queried.values() for record in records}
        found = []
        for url, digest in wanted:
            record = known.get(url)
            if record is None:
                raise Problem("conflict", f"the channel does not have {url}")
            sums = {value.hex() for value in (record.md5, record.sha256) if value is not None}
            if digest and digest not in sums:
                raise Problem("conflict", f"{url} has another hash in the channel ({', '.join(sorted(sums))})")
            found.append(record)
        return found

    def _plain(self, record: RepoDataRecord) -> dict[str, Any]:
        assert record.sha256 is not None
        return {
            "name": record.name.normalized,
            "version": str(record.version),
            "build": str(record.build),
            "url": self._url(record),
            "sha256": record.sha256.hex(),
            "size": record.size or 0,
        }

    def _url(self, record: RepoDataRecord) -> str:
        """Where a package is: in the channel that was asked. An index may say that it is elsewhere (CEP 15); that of a
        mirror often says where the original is."""
        if any(record.url.startswith(f"{channel}/") for channel in self._channels):
            return record.url
        channel = (record.channel or "").rstrip("/")
        return f"{channel if channel in self._channels else self._channels[0]}/{record.subdir}/{record.file_name}"


def _spec(text: str) -> MatchSpec:
    from rattler import MatchSpec
    from rattler.exceptions import InvalidMatchSpecError

    try:
        return MatchSpec(text)
    except InvalidMatchSpecError as error:
        raise Problem("spec", f"'{text}' is not a match spec: {error}") from None


def _name(spec: MatchSpec) -> str:
    return str(spec.name.normalized) if spec.name is not None else ""


def _virtual(name: str, version: str, build: str) -> GenericVirtualPackage:
    from rattler import BuildString, GenericVirtualPackage, PackageName, Version

    return GenericVirtualPackage(PackageName(name), Version(version), BuildString(build))


if __name__ == "__main__":
    main()
