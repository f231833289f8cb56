"""Debian's package lists and packages: signed, hashed, and no older than Debian says they may be.

Of a release three lists count, as in sources.list: its own, its updates', its security fixes' (apt-secure(8); the form
of the files is https://wiki.debian.org/DebianRepository/Format).
"""

from __future__ import annotations

import email.utils
import hashlib
import lzma
import re
import secrets
import shutil
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from hpcbinder.apt.archive import Archive
from hpcbinder.apt.programs import Programs
from hpcbinder.apt.resolving import Deb
from hpcbinder.catalog import make_folder, mark_used
from hpcbinder.debian import END_OF_LIFE
from hpcbinder.errors import FetchError
from hpcbinder.model import fingerprint

_RELEASE_LIMIT = 8 << 20
_LIST_LIMIT = 256 << 20
_UNPACKED_LIMIT = 1 << 30
_JOBS = 4
_FILENAME = re.compile(rb"^Filename: (\S+)$", re.MULTILINE)
_LINE = re.compile(r" ([0-9a-f]{64}) +([0-9]{1,12}) (\S+)")


@dataclass(frozen=True)
class _Release:
    """What Debian signed of one of the lists.

    Attributes:
        source: Of `Archive.sources`.
        text: The signed text.
        sha256: Of its list of packages, compressed by xz; hex.
        size: Bytes of that.
    """

    source: tuple[str, str]
    text: bytes
    sha256: str
    size: int
    by_hash: bool


class Lists:
    """What there is of a release today.

    Args:
        archive: Where it is asked.
        suite: Of Debian.
        architecture: Debian's name.
        programs: Of the base, whose keys count.
        scratch: For what is not whole yet, on the file system of the folder that keeps lists.

    Raises:
        FetchError: The mirror cannot be asked, or nobody vouches for what it says.
        BuildError: The base cannot check signatures.
    """

    def __init__(self, archive: Archive, suite: str, architecture: str, programs: Programs, scratch: Path) -> None:
        self._archive = archive
        self._architecture = architecture
        self._scratch = scratch

        def one(source: tuple[str, str]) -> _Release:
            content = archive.read(source, f"dists/{source[1]}/InRelease", _RELEASE_LIMIT)
            text = _verified(content, source[1], programs, scratch)
            return _read(text, source, suite, architecture)

        with ThreadPoolExecutor(len(archive.sources)) as pool:
            self._releases = list(pool.map(one, archive.sources))

    @property
    def digest(self) -> str:
        """Names the lists, hex: others have another one."""
        return fingerprint([(release.source, release.sha256) for release in self._releases])

    def write(self, folder: Path, kept: Path, below: Sequence[Path] = ()) -> None:
        """Have them as apt wants them in its folder of lists.

        Args:
            folder: New.
            kept: Folder in which they stay, compressed, for the next time.
            below: Folders of the same kind that are only read.

        Raises:
            FetchError: One cannot be had.
            OSError: A folder cannot be written.
        """
        (folder / "partial").mkdir(parents=True)
        make_folder(kept)

        def one(release: _Release) -> None:
            start = f"{release.source[0].partition('://')[2]}/dists/{release.source[1]}".replace("/", "_")
            # apt takes one that is there for one that it verified itself.
            (folder / f"{start}_InRelease").write_bytes(release.text)
            _unpack(
                self._compressed(release, kept, below), folder / f"{start}_main_binary-{self._architecture}_Packages"
            )

        with ThreadPoolExecutor(_JOBS) as pool:
            list(pool.map(one, self._releases))

    def _compressed(self, release: _Release, kept: Path, below: Sequence[Path]) -> Path:
        for folder in (kept, *below):
            path = folder / f"{release.sha256}.xz"
            if path.exists() and _sha256(path) == release.sha256:
                mark_used(path)
                return path
        path = kept / f"{release.sha256}.xz"
        unfinished = self._scratch / f"{secrets.token_hex(8)}.xz"
        place = f"dists/{release.source[1]}/main/binary-{self._architecture}"
        names = [f"{place}/Packages.xz"]
        if release.by_hash:
            names.insert(0, f"{place}/by-hash/SHA256/{release.sha256}")  # stays there while the mirror is updated
        try:
            for name in names:
                try:
                    self._archive.save(release.source, name, unfinished, sha256=release.sha256, size=release.size)
                    break
                except FetchError:
                    if name == names[-1]:
                        raise
            unfinished.chmod(0o644)
            unfinished.replace(path)
        finally:
            unfinished.unlink(missing_ok=True)
        return path


def narrow(lists: Path, debs: Sequence[Deb], out: Path) -> None:
    """Write lists that have nothing but some packages: an apt that reads these takes them, and is soon done reading.

    Args:
        lists: Folder of `Lists.write`.
        out: New folder.

    Raises:
        OSError: It cannot be written.
    """
    (out / "partial").mkdir(parents=True)
    wanted = {unquote(deb.path).encode() for deb in debs}
    for path in lists.iterdir():
        if path.is_file() and not path.name.endswith("_Packages"):
            shutil.copyfile(path, out / path.name)
        elif path.is_file():
            paragraphs = path.read_bytes().split(b"\n\n")
            found = [each for each in paragraphs if (name := _FILENAME.search(each)) and name[1] in wanted]
            (out / path.name).write_bytes(b"".join(each.strip(b"\n") + b"\n\n" for each in found))


def fetch_debs(debs: Sequence[Deb], archive: Archive, folder: Path) -> None:
    """Have packages in a folder, under the names that apt looks for.

    Raises:
        FetchError: One cannot be had, or is not what the lists say.
        OSError: The folder cannot be written.
    """

    def one(deb: Deb) -> None:
        try:
            archive.save(deb.source, deb.path, folder / deb.file, sha256=deb.sha256, size=deb.size)
        except FetchError as error:
            raise FetchError(f"{deb.name}: {error.message}", where=error.where, hint=error.hint) from None

    with ThreadPoolExecutor(_JOBS) as pool:
        list(pool.map(one, debs))


def _verified(content: bytes, name: str, programs: Programs, scratch: Path) -> bytes:
    """The text that one of Debian's keys signed, at the least, and that none signed wrongly."""
    given, out = (scratch / f"{secrets.token_hex(8)}.release" for _ in range(2))
    try:
        given.write_bytes(content)
        keyrings = [word for path in programs.keyrings for word in ("--keyring", str(path))]
        if programs.has("gpgv"):
            # Its exit status also tells of keys that are not there: Debian signs with those of later releases too.
            done = programs.run("gpgv", ["--status-fd", "1", *keyrings, "--output", str(out), str(given)])
            said = {line.split()[1] for line in done.stdout.decode(errors="replace").splitlines() if " " in line}
            good = "VALIDSIG" in said and "GOODSIG" in said and "BADSIG" not in said
        else:
            done = programs.run("sqv", [*keyrings, "--cleartext", "--output", str(out), str(given)])
            good = done.returncode == 0
        if not good or not out.is_file():
            raise FetchError(
                f"the list of {name} that the mirror has is not signed by a key of Debian's that the base knows",
                hint="the mirror gives out another file, or the base is older than the key: make it anew",
            )
        return out.read_bytes()
    finally:
        given.unlink(missing_ok=True)
        out.unlink(missing_ok=True)


def _read(text: bytes, source: tuple[str, str], suite: str, architecture: str) -> _Release:
    lines = text.decode("utf-8", "replace").splitlines()
    fields = dict(line.split(": ", 1) for line in lines if re.match(r"[A-Za-z-]+: ", line))
    # Security fixes of releases before bullseye have the release's own name.
    if fields.get("Codename") != (suite if "/" in source[1] else source[1]):
        raise FetchError(f"the mirror has another release where {source[1]} belongs")
    until = email.utils.parsedate_tz(fields.get("Valid-Until", ""))
    if suite not in END_OF_LIFE and until and email.utils.mktime_tz(until) < time.time():
        raise FetchError(
            f"the list of {source[1]} that the mirror has was valid until {fields['Valid-Until']}",
            hint="the mirror is not kept up to date, or this machine's clock is wrong",
        )
    start = lines.index("SHA256:") + 1 if "SHA256:" in lines else len(lines)
    for line in lines[start:]:
        match = _LINE.fullmatch(line)
        if match is None:
            break
        if match[3] == f"main/binary-{architecture}/Packages.xz":
            by_hash = fields.get("Acquire-By-Hash") == "yes"
            return _Release(source, text, match[1], min(int(match[2]), _LIST_LIMIT), by_hash)
    raise FetchError(f"{source[1]} has no packages for {architecture}")


def _unpack(path: Path, out: Path) -> None:
    size = 0
    try:
        with lzma.open(path) as file, out.open("xb") as target:
            while piece := file.read(1 << 20):
                size += len(piece)
                if size > _UNPACKED_LIMIT:
                    raise FetchError(f"a list of packages unpacks to more than {_UNPACKED_LIMIT >> 20} MiB")
                target.write(piece)
    except (lzma.LZMAError, EOFError):
        raise FetchError("a list of packages cannot be unpacked", where=str(path)) from None


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        hashing = hashlib.sha256()
        while piece := file.read(1 << 20):
            hashing.update(piece)
    return hashing.hexdigest()
