"""Files that a repository keeps in Git LFS, fetched by us: a commit only holds pointers to them.

The client of git-lfs is a filter, and filters are programs that a repository would choose (see `command.py`). What it
would do is small: find the pointers, ask the server where the files are, fetch them and compare their SHA-256.
Sources: git-lfs docs/spec.md (pointers), docs/api/batch.md, server-discovery.md, authentication.md.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import stat
import subprocess
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Event, Lock
from typing import IO, Any, BinaryIO
from urllib.parse import quote, unquote, urljoin, urlsplit

from hpcbinder.errors import FetchError
from hpcbinder.regular import open_regular
from hpcbinder.source.command import ssh_command
from hpcbinder.source.location import Remote, host_of, parse_remote
from hpcbinder.source.reach import Reach, split
from hpcbinder.source.repository import Repository
from hpcbinder.source.unpack import check_room
from hpcbinder.text import one_line

WITHOUT = "--no-lfs leaves the pointers"
_POINTER_SIZE = 1024
_ATTRIBUTES_SIZE = 16 << 20
_POINTER = re.compile(
    rb"version https?://(?:git-lfs\.github\.com/spec/v1|git-media\.io/v/2|hawser\.github\.com/spec/v1)\n"
    rb"(?P<extensions>(?:ext-[^\n]*\n)*)oid sha256:(?P<oid>[0-9a-f]{64})\nsize (?P<size>[0-9]{1,18})\n?"
)
_BATCH = 100
_TOGETHER = 4
_TRIES = 3
_PIECE = 1 << 20
_MEDIA = "application/vnd.git-lfs+json"


@dataclass(frozen=True)
class Pointer:
    """A file that is elsewhere.

    Attributes:
        path: Below the repository's root.
        oid: SHA-256 (hex) of its contents.
        size: Their bytes.
    """

    path: str
    oid: str
    size: int


@dataclass
class _Endpoint:
    """Where to ask, and what to send along."""

    url: str
    headers: dict[str, str] = field(default_factory=dict, repr=False)


def find_pointers(repository: Repository, below: str) -> list[Pointer]:
    """The pointers among the checked-out files that `.gitattributes` gives to LFS.

    Args:
        below: Only those in this folder; "" for all.

    Raises:
        FetchError: A pointer asks for programs to be run on its file.
    """
    root = repository.root
    attributes = [path for _, _, path in repository.entries(":(glob)**/.gitattributes")]
    if not any(b"filter=lfs" in (_small(root / path, _ATTRIBUTES_SIZE) or b"") for path in attributes):
        return []
    # the files are written: no filter can run any more
    (repository.git.git_dir / "info" / "attributes").unlink(missing_ok=True)
    found = []
    for mode, _, path in repository.entries(":(attr:filter=lfs)"):
        if mode not in ("100644", "100755") or (below and not path.startswith(f"{below}/")):
            continue
        match = _POINTER.fullmatch(_small(root / path, _POINTER_SIZE) or b"")
        if match is None:
            continue
        if match["extensions"]:
            raise FetchError("its Git LFS pointer names programs to run", where=_at(repository, path), hint=WITHOUT)
        found.append(Pointer(path, match["oid"].decode(), int(match["size"])))
    return found


def fetch_lfs(repository: Repository, pointers: Sequence[Pointer], *, reach: Reach, limit: int) -> None:
    """Put the files in the place of their pointers.

    Args:
        limit: Bytes they may have together.

    Raises:
        FetchError: One cannot be had, or is not what its pointer says.
    """
    try:
        _fetch(repository, pointers, reach, limit)
    except OSError as error:
        where = one_line(str(error.filename or repository.root))
        raise FetchError(f"cannot write the files: {error.strerror}", where=where) from error


def _fetch(repository: Repository, pointers: Sequence[Pointer], reach: Reach, limit: int) -> None:
    scratch = repository.scratch / "lfs"
    scratch.mkdir(exist_ok=True)
    wanted = {pointer.oid: pointer for pointer in pointers}
    total = sum(pointer.size for pointer in wanted.values())
    check_room(sum(pointer.size for pointer in pointers), scratch, limit)
    remote = _effective(repository)
    meter = _Meter(repository, total)
    if split(remote.url)[0] == "file":
        _take(repository, remote.url, wanted, scratch, meter)
    else:
        _download(repository, _endpoint(repository, remote.url, reach), remote, wanted, scratch, reach, meter)
    left = Counter(pointer.oid for pointer in pointers)
    for pointer in pointers:
        left[pointer.oid] -= 1
        _place(scratch, repository.root / pointer.path, pointer, last=not left[pointer.oid])
    repository.reporter.phase("fetch", f"{len(pointers)} files of Git LFS", 1.0)


class _Meter:
    def __init__(self, repository: Repository, total: int) -> None:
        self._reporter, self._total, self._done, self._shown, self._lock = repository.reporter, total, 0, -1, Lock()
        self.stopped = Event()

    def add(self, size: int) -> None:
        if self.stopped.is_set():
            raise FetchError("stopped")
        with self._lock:
            self._done += size
            percent = self._done * 100 // max(self._total, 1)
            if percent != self._shown:
                self._shown = percent
                self._reporter.phase("fetch", "Git LFS", min(percent, 100) / 100)


def _small(path: Path, limit: int) -> bytes | None:
    """The bytes of a regular file that is no larger, None for anything else."""
    try:
        file = open_regular(path)
    except OSError:
        return None
    if file is None:
        return None
    with file:
        return file.read() if os.fstat(file.fileno()).st_size <= limit else None


def _effective(repository: Repository) -> Remote:
    """What git really asks, and with which login: the person's `url.*.insteadOf` counts here, too."""
    said = repository.checked(repository.git.run(["ls-remote", "--get-url", "--", repository.url])).stdout.strip()
    remote = parse_remote(f"file://{quote(said)}" if said.startswith("/") else said)
    own = repository.remote
    if remote.username is None and _origin(remote.url) == _origin(own.url):
        remote = replace(remote, username=own.username, password=own.password)
    return remote


def _endpoint(repository: Repository, url: str, reach: Reach) -> _Endpoint:
    chosen = _configured(repository, url, reach)
    if chosen is not None:
        return _Endpoint(chosen)
    scheme, _ = split(url)
    if scheme in ("http", "https"):
        base = url.rstrip("/")
        return _Endpoint(f"{base}/info/lfs" if base.endswith(".git") else f"{base}.git/info/lfs")
    if scheme in ("ssh", "") or "://" not in url:
        return _through_ssh(repository, url)
    raise FetchError(f"files in Git LFS cannot be had over {scheme}", where=repository.url, hint=WITHOUT)


def _configured(repository: Repository, url: str, reach: Reach) -> str | None:
    """`.lfsconfig` is the repository's word, so it may only name the repository's own host, or the site's."""
    settings = dict(repository.settings(".lfsconfig", r"^lfs\.url$") or [])
    chosen = settings.get("lfs.url")
    if not chosen:
        return None
    scheme, host = split(chosen)
    where = _at(repository, ".lfsconfig")
    own = host_of(url)
    same = host == own and scheme in ("https", split(url)[0])
    allowed = same or (host != own and reach.knows(host))
    if scheme not in ("http", "https") or "@" in chosen or not allowed:
        hint = f"source.hosts can allow it: HPCBINDER_SOURCE_HOSTS={one_line(host, 100)}; {WITHOUT}"
        raise FetchError(
            f"keeps its large files at {one_line(chosen, 200)}, elsewhere than itself", where=where, hint=hint
        )
    return chosen.rstrip("/")


def _through_ssh(repository: Repository, url: str) -> _Endpoint:
    """Ask the server over ssh where its LFS is, and for a pass (server-discovery.md, "SSH")."""
    if "://" in url:
        parts = urlsplit(url)
        target, port, path = parts.netloc.rpartition(":")[0] or parts.netloc, parts.port, unquote(parts.path)
        if parts.port is None:
            target = parts.netloc
    else:
        target, _, path = url.partition(":")
        port = None
    if not re.fullmatch(r"[A-Za-z0-9._/~+-]+", path) or not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.@\[\]:+-]*", target):
        raise FetchError(
            "this address cannot be asked for files in Git LFS over ssh", where=repository.url, hint=WITHOUT
        )
    argv = [*(["-p", str(port)] if port else []), target, f"git-lfs-authenticate {path} download"]
    try:
        asked = subprocess.run(
            # the person's ssh command is a line of shell to git, too
            ["/bin/sh", "-c", f'{ssh_command(os.environ)} "$@"', "ssh", *argv],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=120,
            check=False,
            cwd="/",
        )
        answer = json.loads(asked.stdout) if asked.returncode == 0 else {}
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        raise FetchError(
            "the server does not say where its files in Git LFS are", where=repository.url, hint=WITHOUT
        ) from error
    if isinstance(answer, dict) and isinstance(answer.get("href"), str):
        headers = answer.get("header") if isinstance(answer.get("header"), dict) else {}
        return _Endpoint(answer["href"].rstrip("/"), {str(k): str(v) for k, v in (headers or {}).items()})
    name = path.strip("/").removesuffix(".git")
    return _Endpoint(f"https://{host_of(url)}/{name}.git/info/lfs")


def _download(
    repository: Repository,
    endpoint: _Endpoint,
    remote: Remote,
    wanted: dict[str, Pointer],
    scratch: Path,
    reach: Reach,
    meter: _Meter,
) -> None:
    import requests

    from hpcbinder.source.web import explained, session

    # where the person's own `insteadOf` leads is the person's word
    meant = remote.url != repository.url or reach.knows(host_of(repository.url))
    asked = Reach({*reach.named, *({host_of(remote.url)} - {""} if meant else ())}, reach.allowed)
    try:
        with session(repository.site, asked) as web:
            auth = _login(endpoint, remote)
            for start in range(0, len(wanted), _BATCH):
                batch = list(wanted.values())[start : start + _BATCH]
                actions, auth = _batch(repository, web, endpoint, remote, batch, auth)
                with ThreadPoolExecutor(_TOGETHER) as pool:
                    jobs = [
                        pool.submit(_one, web, endpoint, auth, wanted[oid], action, scratch, meter)
                        for oid, action in actions.items()
                    ]
                    try:
                        for job in jobs:
                            job.result()
                    except BaseException:
                        meter.stopped.set()
                        pool.shutdown(cancel_futures=True)
                        raise
    except (requests.exceptions.RequestException, FetchError) as error:
        problem = explained(error)
        at = f"{problem.where}: " if problem.where and problem.where != repository.url else ""
        hint = (
            problem.hint
            if problem.hint and WITHOUT in problem.hint
            else "; ".join(filter(None, (problem.hint, WITHOUT)))
        )
        raise FetchError(f"files in Git LFS: {at}{problem.message}", where=repository.url, hint=hint) from error


def _login(endpoint: _Endpoint, remote: Remote) -> tuple[str, str] | None:
    """The login the person gave in the repository's URL, for its own host only."""
    if endpoint.headers or remote.username is None or _origin(endpoint.url) != _origin(remote.url):
        return None
    return remote.username, remote.password or ""


def _ask_git(repository: Repository, endpoint: _Endpoint, remote: Remote) -> tuple[str, str] | None:
    """A login from the person's credential helpers (git-credential(1)), for the repository's own host only."""
    if _origin(endpoint.url) != _origin(remote.url):
        return None
    parts = urlsplit(endpoint.url)
    question = repository.scratch / "credential"
    question.write_text(f"protocol={parts.scheme}\nhost={parts.netloc}\npath={parts.path.lstrip('/')}\n\n")
    with question.open("rb") as stdin:
        answer = repository.git.run(["credential", "fill"], stdin=stdin)
    told = dict(line.split("=", 1) for line in answer.stdout.splitlines() if "=" in line)
    if answer.status != 0 or "username" not in told or "password" not in told:
        return None
    return told["username"], told["password"]


def _batch(
    repository: Repository,
    web: Any,
    endpoint: _Endpoint,
    remote: Remote,
    pointers: list[Pointer],
    auth: tuple[str, str] | None,
) -> tuple[dict[str, dict[str, Any]], tuple[str, str] | None]:
    """Ask where some files are: oid -> how to download it, and the login that was needed."""
    body = {
        "operation": "download",
        "transfers": ["basic"],
        "objects": [{"oid": pointer.oid, "size": pointer.size} for pointer in pointers],
        "hash_algo": "sha256",
    }
    headers = {**endpoint.headers, "Accept": _MEDIA, "Content-Type": _MEDIA}

    def ask(login: tuple[str, str] | None) -> Any:
        url = f"{endpoint.url}/objects/batch"
        for _ in range(5):
            answer = web.post(url, data=json.dumps(body), headers=headers, auth=login, allow_redirects=False)
            moved = urljoin(url, answer.headers.get("Location", ""))
            # a repository that got another name; what we send along is for its own host
            if answer.status_code not in (301, 302, 307, 308) or _origin(moved) != _origin(url):
                break
            url = moved
        return answer

    response = ask(auth)
    if response.status_code == 401 and auth is None and not endpoint.headers:
        auth = _ask_git(repository, endpoint, remote)
        response = ask(auth) if auth else response
    if response.status_code != 200:
        raise _refused(response)
    answer = response.json()
    found: dict[str, dict[str, Any]] = {}
    paths = {pointer.oid: pointer.path for pointer in pointers}
    missing: list[str] = []
    for item in answer.get("objects", []) if isinstance(answer, dict) else []:
        oid = item.get("oid") if isinstance(item, dict) else None
        if oid not in paths:
            continue
        action = (item.get("actions") or {}).get("download")
        if isinstance(action, dict) and isinstance(action.get("href"), str):
            found[oid] = action
        else:
            said = (item.get("error") or {}).get("message", "")
            missing.append(f"{one_line(paths[oid], 80)}" + (f" ({one_line(str(said), 80)})" if said else ""))
    missing += [one_line(path, 80) for oid, path in paths.items() if oid not in found and not missing]
    if missing:
        some = ", ".join(missing[:5]) + (f" and {len(missing) - 5} more" if len(missing) > 5 else "")
        raise FetchError(f"not on the server: {some}", hint=WITHOUT)
    return found, auth


def _refused(response: Any) -> FetchError:
    from hpcbinder.source.web import refused

    try:
        said = one_line(str(response.json()["message"]), 200)
    except (ValueError, KeyError, TypeError):
        said = ""
    problem = refused(response)
    if response.status_code == 404:
        return FetchError(said or "there is no Git LFS server", where=problem.where)
    return FetchError(f"{problem.message}{f': {said}' if said else ''}", where=problem.where, hint=problem.hint)


def _one(
    web: Any,
    endpoint: _Endpoint,
    auth: tuple[str, str] | None,
    pointer: Pointer,
    action: dict[str, Any],
    scratch: Path,
    meter: _Meter,
) -> None:
    import requests

    from hpcbinder.source.web import refused

    given = action.get("header")
    headers = {str(k): str(v) for k, v in given.items()} if isinstance(given, dict) else {}
    own = _origin(action["href"]) == _origin(endpoint.url) and not any(k.lower() == "authorization" for k in headers)
    for attempt in range(1, _TRIES + 1):
        try:
            with web.get(action["href"], headers=headers, auth=auth if own else None, stream=True) as response:
                if response.status_code != 200:
                    raise refused(response)
                _keep(response.iter_content(None), pointer, scratch, meter)
            return
        except (
            requests.exceptions.ConnectionError,
            requests.exceptions.ChunkedEncodingError,
            requests.exceptions.Timeout,
        ):
            if attempt == _TRIES:
                raise


def _keep(pieces: Any, pointer: Pointer, scratch: Path, meter: _Meter) -> None:
    """Write a file by its pointer's name, if it is what the pointer says."""
    path, digest, size = scratch / pointer.oid, hashlib.sha256(), 0
    with path.open("wb") as file:
        for piece in pieces:
            size += len(piece)
            if size > pointer.size:
                break
            digest.update(piece)
            file.write(piece)
            meter.add(len(piece))
    if size != pointer.size or digest.hexdigest() != pointer.oid:
        path.unlink()
        raise FetchError(f"'{one_line(pointer.path, 120)}' is not what its pointer says", hint=WITHOUT)


def _take(repository: Repository, url: str, wanted: dict[str, Pointer], scratch: Path, meter: _Meter) -> None:
    """From a repository of this machine, which keeps them below `lfs/objects` (spec.md, "Objects")."""
    base = Path(unquote(url.removeprefix("file://")))
    folders = [base / ".git" / "lfs" / "objects", base / "lfs" / "objects"]
    for pointer in wanted.values():
        for folder in folders:
            file = _regular(folder / pointer.oid[:2] / pointer.oid[2:4] / pointer.oid)
            if file is not None:
                with file:
                    _keep(_pieces(file), pointer, scratch, meter)
                break
        else:
            raise FetchError(
                f"'{one_line(pointer.path, 120)}' is in Git LFS, and not in the folder of that repository",
                where=repository.url,
                hint=f"run git lfs fetch there; {WITHOUT}",
            )


def _regular(path: Path) -> BinaryIO | None:
    try:
        return open_regular(path, follow=True)
    except OSError:
        return None


def _pieces(file: IO[bytes]) -> Any:
    read: Callable[[], bytes] = lambda: file.read(_PIECE)  # noqa: E731
    return iter(read, b"")


def _place(scratch: Path, path: Path, pointer: Pointer, *, last: bool) -> None:
    """In the pointer's stead, with its mode; the same contents may be wanted in several places."""
    mode = stat.S_IMODE(path.lstat().st_mode)
    kept = scratch / pointer.oid
    new = kept
    if not last:
        new = scratch / "copy"
        shutil.copyfile(kept, new)
    new.chmod(mode)
    new.replace(path)


def _origin(url: str) -> tuple[str, str]:
    parts = urlsplit(url)
    return parts.scheme.lower(), parts.netloc.rpartition("@")[2].lower()


def _at(repository: Repository, path: str) -> str:
    return f"{repository.url}: {one_line(path, 120)}"
