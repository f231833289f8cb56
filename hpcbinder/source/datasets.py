"""Fetch what an archive of data keeps."""

from __future__ import annotations

import json
import os
import re
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hpcbinder.catalog import remove_tree
from hpcbinder.config import SiteConfig, SourceConfig
from hpcbinder.errors import FetchError, UsageError
from hpcbinder.model import Checkout
from hpcbinder.process import start, stop
from hpcbinder.progress import Reporter
from hpcbinder.source.location import slug
from hpcbinder.source.places import Dataset
from hpcbinder.source.tree import enter
from hpcbinder.text import one_line

_LONG = 4 * 3600
_SILENCE = 900
"""Seconds without a word after which an archive is given up; every wait for the network in the child is shorter."""
_LINE = 1 << 20
_PROGRAM = "import sys; sys.path += [p for p in sys.argv[1:] if p not in sys.path]; " + (
    "from hpcbinder.source.provider import main; main()"
)
"""What we are imported from is in nobody's site-packages where it was unpacked by hand, or installed with --user."""


def fetch_dataset(
    dataset: Dataset,
    *,
    ref: str | None,
    subdir: str,
    workdir: Path,
    reporter: Reporter,
    site: SiteConfig,
    source: SourceConfig,
) -> Checkout:
    """Bring a dataset's files to disk.

    Args:
        ref: Only a revision's own id, as `hpcbinder` itself writes it into an image.
        subdir: As `parse_subdir` returns it.

    Raises:
        UsageError: A ref was asked for.
        FetchError: It cannot be had.
    """
    revision = re.fullmatch(r"swh:1:rev:([0-9a-f]{40})", dataset.spec)
    commit = revision[1] if revision else None
    if ref is not None and ref != commit:
        raise UsageError("a dataset has no branches, so --ref cannot be given", where=dataset.source)
    reporter.phase("fetch", one_line(f"{dataset.source}"))
    root, scratch = workdir / "source", workdir / "archive"
    try:
        root.mkdir()
        scratch.mkdir()
    except OSError as error:
        raise FetchError(f"cannot write the files: {error.strerror}", where=one_line(str(workdir))) from error
    task = {
        "dataset": asdict(dataset),
        "output": str(root.absolute()),
        "site": {
            "http_proxy": site.http_proxy,
            "https_proxy": site.https_proxy,
            "no_proxy": site.no_proxy,
            "ca_certificates": str(site.ca_certificates or ""),
        },
        "hosts": list(source.hosts),
        "ckan": list(source.ckan),
        "limit": size_limit(source),
        "token": _token(source.swh_token_file) if dataset.archive == "swh" else "",
    }
    told = _run(task, scratch, dataset, reporter)
    remove_tree(scratch)
    top, subdir = enter(root, subdir)
    reporter.phase("fetch", one_line(f"{dataset.source}: {told['id']}"), 1.0)
    return Checkout(
        root=top,
        name=slug(dataset.name, *subdir.split("/")[-1:]),
        source=dataset.source,
        ref=str(told["id"]),
        commit=commit,
        uncommitted=False,
        tree=None,
        subdir=subdir,
        timestamp=int(told["time"]),
    )


def size_limit(source: SourceConfig) -> int:
    """`source.limit` in bytes."""
    number, unit = re.fullmatch(r"([0-9]+)([KMGT]?)", source.limit).groups()  # type: ignore[union-attr]
    return int(number) << {"": 0, "K": 10, "M": 20, "G": 30, "T": 40}[unit]


def _token(path: Path | None) -> str:
    if path is None:
        return ""
    try:
        text = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeError) as error:
        raise UsageError(
            "the token cannot be read", where=one_line(str(path)), hint="see source.swh_token_file"
        ) from error
    if not re.fullmatch(r"[\x21-\x7e]{1,8192}", text):
        raise UsageError("holds no token", where=one_line(str(path)))
    return text


def _run(task: dict[str, Any], scratch: Path, dataset: Dataset, reporter: Reporter) -> dict[str, Any]:
    """Run the child until it has an answer.

    Raises:
        FetchError: What it says; or it says nothing, or dies.
    """
    paths = [path for path in sys.path if path and Path(path).is_absolute()]
    kept = ("PATH", "HOME", "LANG", "LC_ALL", "SSL_CERT_FILE", "SSL_CERT_DIR", "LD_LIBRARY_PATH")
    complaints = scratch / "stderr"
    try:
        with complaints.open("wb") as stderr:
            process = start(
                [sys.executable, "-I", "-c", _PROGRAM, *paths],
                env={**{name: os.environ[name] for name in kept if name in os.environ}, "TMPDIR": str(scratch)},
                stdin=subprocess.PIPE,
                stderr=stderr,
                cwd=scratch,
            )
    except OSError as error:
        raise FetchError(f"cannot start Python to fetch it: {error.strerror}", where=dataset.source) from error
    assert process.stdin is not None
    try:
        try:
            process.stdin.write(json.dumps(task).encode())
            process.stdin.close()
        except BrokenPipeError:
            pass  # it says why on its way out
        for words in _lines(process, dataset):
            if words[0] == "done":
                return dict(words[1])
            if words[0] == "error":
                message, where, hint = words[1:]
                if where and where != dataset.source:
                    message = f"{where}: {message}"
                raise FetchError(message, where=dataset.source, hint=hint)
            if words[0] == "progress":
                reporter.phase("fetch", words[1], words[2])
            else:
                reporter.log("fetch", words[1])
        said = complaints.read_text("utf-8", "replace")[-4096:].strip().splitlines()
        why = one_line(said[-1] if said else "no word why", 300)
        raise FetchError(f"fetching it failed: {why}", where=dataset.source)
    finally:
        stop(process)


def _lines(process: subprocess.Popen[bytes], dataset: Dataset) -> Iterator[list[Any]]:
    assert process.stdout is not None
    end, rest = time.monotonic() + _LONG, b""
    while True:
        patience = min(_SILENCE, end - time.monotonic())
        if patience <= 0 or not select.select([process.stdout], [], [], patience)[0]:
            raise FetchError("gave up: the archive says nothing any more", where=dataset.source, hint="try again later")
        piece = os.read(process.stdout.fileno(), 65536)
        if not piece:
            return
        *lines, rest = (rest + piece).split(b"\n")
        if len(rest) > _LINE:
            raise FetchError("the archive's answer cannot be read", where=dataset.source)
        for line in lines:
            yield json.loads(line)
