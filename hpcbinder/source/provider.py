"""Ask one archive for one dataset, in a process of its own: `main` reads the task from stdin and answers on stdout.

repo2docker's content providers know the archives' APIs. They were written for a process that may hang, fill its memory
and write into its working directory, so they run here in a child in a folder of its own, with a session of ours
(time-outs, a site's proxies, no way into the local network), and what they would unpack is unpacked by us: see
`_Watched`, and the classes below for what else each of them does not do well enough. Nothing of repo2docker but its
providers is used.

A line of stdout is a JSON list: `["log", text]`, `["progress", text, fraction or null]`, and at the end
`["done", {"id": …, "time": …}]` or `["error", message, where, hint]`.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import sys
import time
import zipfile
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

from repo2docker.contentproviders import CKAN, Dataverse, Figshare, Hydroshare, Swhid, Zenodo
from repo2docker.contentproviders.base import ContentProviderException
from repo2docker.contentproviders.doi import DoiProvider
from repo2docker.utils import deep_get

from hpcbinder.config import SiteConfig
from hpcbinder.errors import FetchError
from hpcbinder.source.places import Dataset, find_dataset
from hpcbinder.source.reach import Reach
from hpcbinder.source.unpack import check_room, unpack_tar, unpack_zip
from hpcbinder.source.web import explained, host_of, refused, session
from hpcbinder.text import one_line

_HERITAGE = "archive.softwareheritage.org"
_COOKING = 3600
"""Seconds that an archive may take to prepare what we asked for."""


def main() -> None:
    """Do the task on stdin."""
    logging.disable(logging.CRITICAL)
    task = json.load(sys.stdin)
    try:
        result = _fetch(task)
    except Exception as error:
        problem = _problem(error)
        _say("error", problem.message, problem.where, problem.hint)
        sys.exit(1)
    _say("done", result)


def _fetch(task: dict[str, Any]) -> dict[str, Any]:
    dataset = Dataset(**task["dataset"])
    site = SiteConfig(**{**task["site"], "ca_certificates": task["site"]["ca_certificates"] or None})
    named = {host_of(dataset.spec)} - {""}
    # data that others keep is often linked by http; a CKAN catalogue is mostly such links
    reach = Reach(named, task["hosts"], plain=dataset.archive == "ckan")
    web = session(site, reach)
    meter = _Meter(task["limit"])
    if dataset.archive in ("doi", "zenodo-doi"):
        dataset = _resolved(dataset, web, meter, task["ckan"])
        reach.plain = dataset.archive == "ckan"
    provider = _PROVIDERS[dataset.archive]()
    provider.session, provider.meter, provider.answers = web, meter, []
    if dataset.archive == "swh" and task["token"]:
        provider.token = task["token"]
    if dataset.archive == "dataverse":
        # instead of a list that repo2docker would fetch: the form of the address has told already
        provider.hosts = [{"hostname": dataset.spec.split("/")[2]}]
    output = Path(task["output"])
    _progress(f"asking {host_of(dataset.spec) or _HERITAGE}")
    spec = provider.detect(dataset.spec)
    if spec is None:
        raise FetchError("is not something the archive has", where=dataset.source)
    for line in provider.fetch(spec, str(output), yield_output=True):
        _say("log", one_line(str(line).strip(), 500))
    if not any(output.iterdir()):
        raise FetchError("holds no files", where=dataset.source)
    return {"id": one_line(str(provider.content_id), 200), "time": provider.time()}


def _resolved(dataset: Dataset, web: Any, meter: _Meter, ckan: list[str]) -> Dataset:
    """The dataset that a DOI stands for."""
    url = dataset.spec
    if dataset.archive == "doi":
        _progress(f"asking doi.org about {dataset.spec}")
        resolver = _Doi()
        resolver.session, resolver.meter, resolver.answers = web, meter, []
        url = resolver.doi2url(dataset.spec)
        if url == dataset.spec:
            raise FetchError("there is no such DOI", where=dataset.source)
        if figshare := re.search(r"figshare\.([0-9]+)(?:\.v([0-9]+))?$", dataset.spec):
            # the pages of universities with an address of their own do not show what they are
            url = f"https://figshare.com/articles/x/{figshare[1]}" + (f"/{figshare[2]}" if figshare[2] else "")
    found = _known(url, ckan)
    if found is None:
        with web.get(re.sub(r"^http://", "https://", url), stream=True) as page:
            found = _known(page.url, ckan)
    if found is None:
        raise FetchError(
            f"leads to {one_line(url, 200)}, which is in no archive that can be asked",
            where=dataset.source,
            hint="Zenodo, CaltechDATA, Figshare, Dataverse, Hydroshare, CKAN (source.ckan), Software Heritage can be",
        )
    return found


def _known(url: str, ckan: list[str]) -> Dataset | None:
    try:
        found = find_dataset(re.sub(r"^http://", "https://", url), ckan=ckan)
    except ValueError:
        return None
    return None if found is None or found.archive in ("doi", "zenodo-doi") else found


class _Meter:
    """Counts what comes, and says how far it is."""

    def __init__(self, limit: int) -> None:
        self.limit, self.read, self._said = limit, 0, 0.0

    def add(self, size: int) -> None:
        self.read += size
        if self.read > self.limit:
            check_room(self.read, Path(), self.limit)

    def _due(self) -> bool:
        if time.monotonic() - self._said < 0.5:
            return False
        self._said = time.monotonic()
        return True

    def unpacking(self) -> None:
        """Say that something is being unpacked."""
        if self._due():
            _progress("unpacking")

    def watch(self, response: Any, what: str) -> None:
        """Count a file on its way; refuse it at once if it says that it is too large."""
        total = int(response.headers.get("Content-Length") or 0)
        if self.read + total > self.limit:
            check_room(self.read + total, Path(), self.limit)
        check_room(total, Path(), self.limit)
        pieces = response.iter_content

        def iter_content(chunk_size: int | None = None, decode_unicode: bool = False) -> Iterator[bytes]:
            got = 0
            for piece in pieces(None):
                got += len(piece)
                self.add(len(piece))
                if self._due():
                    _progress(f"{what}: {self.read / 1e6:.1f} MB", min(got / total, 1.0) if total else None)
                yield piece

        response.iter_content = iter_content


class _Watched:
    """What every provider gets: our session, files counted, errors told, names and archives not trusted."""

    session: Any
    meter: _Meter
    answers: list[Any]
    tolerated: frozenset[int] = frozenset()
    """HTTP statuses that the provider looks at itself."""
    dates: tuple[str, ...] = ()
    """Where an answer says when the dataset was published, as repo2docker's `deep_get` wants it."""

    def _request(self, url: str, **options: Any) -> Any:
        response = self.session.get(url, headers=options.get("headers"), stream=True)
        if response.status_code >= 400 and response.status_code not in self.tolerated:
            raise refused(response)
        if options.get("stream"):
            self.meter.watch(response, host_of(url))
        else:
            self.answers.append(response)
        return response

    urlopen = _request

    def fetch_file(self, file_ref: Any, host: Any, output_dir: str, unzip: bool = False) -> Iterator[str]:
        """Bring one file, and unpack it if it is the only one and a zip."""
        name = deep_get(file_ref, host["filename"])
        if not isinstance(name, str) or not _inside(name):
            raise FetchError(f"holds a file with a name that leads elsewhere: {one_line(str(name), 200)}")
        yield from super().fetch_file(file_ref, host, output_dir)  # type: ignore[misc]
        path = Path(output_dir, name)
        _compare(path, file_ref)
        if unzip and zipfile.is_zipfile(path):
            yield f"Unpacking {name}"
            archive = Path("archive.zip")
            path.rename(archive)
            for folder in Path(name).parents[:-1]:
                (Path(output_dir) / folder).rmdir()
            unpack_zip(archive, Path(output_dir), limit=self.meter.limit, tick=self.meter.unpacking)
            archive.unlink()

    def time(self) -> int:
        """Unix time (s) of the dataset; 0 if nothing says it. Never the time of its files here: those are new."""
        for answer in self.answers:
            if "json" not in answer.headers.get("Content-Type", ""):
                continue
            for path in self.dates:
                try:
                    return _seconds(str(deep_get(answer.json(), path)))
                except (KeyError, IndexError, TypeError, ValueError):
                    continue
        return 0


def _inside(name: str) -> bool:
    parts = name.split("/")
    return not (name.startswith("/") or "\0" in name or any(part in ("", ".", "..") for part in parts))


def _compare(path: Path, file_ref: Any) -> None:
    """Zenodo and Figshare say the MD5 of a file."""
    told = file_ref.get("checksum") or file_ref.get("computed_md5") or "" if isinstance(file_ref, dict) else ""
    found = re.fullmatch(r"(?:md5:)?([0-9a-f]{32})", str(told))
    if found is None:
        return
    digest = hashlib.md5(usedforsecurity=False)
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    if digest.hexdigest() != found[1]:
        raise FetchError(
            "arrived damaged: its checksum is not the archive's", where=one_line(path.name, 200), hint="try again"
        )


def _seconds(text: str) -> int:
    # 2019-05-28, 2019-05-28T21:57:28Z, 2023-10-05T12:34:56.123456+00:00; Python 3.10 reads no Z and no odd fractions
    text = re.sub(r"Z$", "+00:00", re.sub(r"\.[0-9]+", "", text.strip()))
    when = datetime.fromisoformat(text)
    return max(0, min(int((when if when.tzinfo else when.replace(tzinfo=timezone.utc)).timestamp()), 2**32 - 1))


class _Doi(_Watched, DoiProvider):
    tolerated = frozenset({404})


class _Zenodo(_Watched, Zenodo):
    dates = ("created", "metadata.publication_date", "publicationDate")


class _Figshare(_Watched, Figshare):
    dates = ("published_date", "created_date")

    def detect(self, doi: str, ref: Any = None, extra_args: Any = None) -> Any:
        """repo2docker takes the first version of an article when none is named; its page shows the last."""
        spec = super().detect(doi)
        if spec is not None and not re.search(r"/[0-9]+/[0-9]+$", doi):
            latest = self.urlopen(f"{spec['host']['api']}{spec['article']}", headers={"accept": "application/json"})
            spec["version"] = self.article_version = str(int(latest.json()["version"]))
        return spec


class _Dataverse(_Watched, Dataverse):
    tolerated = frozenset({404})
    dates = ("data.latestVersion.releaseTime", "data.publicationDate")


class _Hydroshare(_Watched, Hydroshare):
    version: str

    def _urlretrieve(self, bag_url: str) -> tuple[str, None]:
        path = Path("bag.zip")
        response = self._request(bag_url, stream=True)
        with path.open("wb") as file:
            for piece in response.iter_content(None):
                file.write(piece)
        with zipfile.ZipFile(path) as bag:
            check_room(sum(info.file_size for info in bag.infolist()), Path(), self.meter.limit)
        return str(path), None

    def fetch(self, spec: Any, output_dir: str, yield_output: bool = False, timeout: int = _COOKING) -> Iterator[str]:
        yield from super().fetch(spec, output_dir, yield_output, timeout)

    def time(self) -> int:
        return int(self.version)


class _Ckan(_Watched, CKAN):
    version: str

    def urlopen(self, url: str, **options: Any) -> Any:
        """An answer in JSON. repo2docker takes a resource's id for a file's name where its address ends with /."""
        response = self._request(url, **options)
        answer = response.json()
        result = answer.get("result") if isinstance(answer, dict) else None
        resources = result.get("resources") if isinstance(result, dict) else None
        for resource in resources if isinstance(resources, list) else ():
            name = str(resource.get("id", "")) if isinstance(resource, dict) else ""
            if name and ("/" in name or not _inside(name)):
                raise FetchError(f"holds a file with a name that leads elsewhere: {one_line(name, 200)}")
        return response

    def time(self) -> int:
        return int(self.version)


class _Swhid(_Watched, Swhid):
    token = ""
    dates = ("committer_date", "date")

    def _request(self, url: str, method: str = "GET", *, stream: bool = False) -> Any:  # type: ignore[override]
        url = url if url.endswith("/") else f"{url}/"
        # the archive sends what it prepared from other hosts, which have no use for a token
        headers = {"Authorization": f"Bearer {self.token}"} if self.token and host_of(url) == _HERITAGE else {}
        response = self.session.request(method, url, headers=headers, stream=True)
        if response.status_code == 429:
            hint = "name a file with your token in source.swh_token_file"
            raise FetchError("Software Heritage was asked too often", hint=f"try again later, or {hint}")
        if response.status_code >= 400:
            raise refused(response)
        if stream:
            self.meter.watch(response, host_of(url))
        else:
            self.answers.append(response)
        return response

    def fetch_directory(self, dir_hash: str, output_dir: str) -> Iterator[str]:
        """repo2docker holds the archive in memory, and copies what symbolic links in it point to on this machine."""
        if not re.fullmatch(r"[0-9a-f]{40}", dir_hash):
            raise FetchError("the archive's answer names no directory")
        url = f"{self.base_url}/vault/flat/swh:1:dir:{dir_hash}/"
        yield f"Asking for {url}"
        asked, wait = time.monotonic(), 1.0
        answer = self._request(url, "POST").json()
        while answer["status"] not in ("done", "failed"):
            if time.monotonic() - asked > _COOKING:
                raise FetchError("Software Heritage still prepares it", hint="try again later: it goes on preparing")
            _progress(
                f"Software Heritage prepares it: {one_line(str(answer.get('progress_message') or 'waiting'), 100)}"
            )
            time.sleep(wait)
            wait = min(wait * 1.5, 15.0)
            answer = self._request(url).json()
        if answer["status"] == "failed":
            raise FetchError(
                f"Software Heritage cannot prepare it: {one_line(str(answer.get('progress_message')), 200)}"
            )
        archive = Path("archive.tar")
        response = self._request(urljoin(url, answer["fetch_url"]), stream=True)
        with archive.open("wb") as file:
            for piece in response.iter_content(None):
                file.write(piece)
        yield "Unpacking it"
        unpack_tar(archive, Path(output_dir), limit=self.meter.limit, tick=self.meter.unpacking)
        archive.unlink()


_PROVIDERS: dict[str, Any] = {
    "zenodo": _Zenodo,
    "figshare": _Figshare,
    "dataverse": _Dataverse,
    "hydroshare": _Hydroshare,
    "ckan": _Ckan,
    "swh": _Swhid,
}


def _problem(error: Exception) -> FetchError:
    import requests

    if isinstance(error, (FetchError, requests.exceptions.RequestException)):
        return explained(error)
    if isinstance(error, ContentProviderException):
        return FetchError(one_line(str(error).strip(), 300), hint="try again later")
    if isinstance(error, OSError) and error.errno is not None:
        return FetchError(
            f"cannot write the files: {os.strerror(error.errno)}", where=str(error.filename or "") or None
        )
    return FetchError(f"the archive's answer is not as expected: {one_line(repr(error), 200)}")


def _progress(text: str, fraction: float | None = None) -> None:
    _say("progress", one_line(text, 200), fraction)


def _say(*words: Any) -> None:
    sys.stdout.write(json.dumps(words) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
