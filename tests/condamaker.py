"""Conda packages and channels made for a test, good and bad."""

from __future__ import annotations

import hashlib
import io
import json
import ssl
import sys
import sysconfig
import tarfile
import threading
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import trustme
import zstandard

from hpcbinder.model import LockedPackage

PLACEHOLDER = "/home/builder/placehold_" + "placehold_" * 20
X_Y = f"{sys.version_info[0]}.{sys.version_info[1]}"
PYTHON = f"{X_Y}.{sys.version_info[2]}"
TIME = 1_700_000_000


@dataclass(frozen=True)
class Link:
    """A symbolic link."""

    target: str


@dataclass(frozen=True)
class Hard:
    """A hard link to another file of the package."""

    target: str


Content = str | bytes | Link | Hard


@dataclass(frozen=True)
class Made:
    """A package.

    Attributes:
        file: `NAME-VERSION-BUILD.conda`.
        about: Its `index.json`.
    """

    file: str
    subdir: str
    content: bytes
    about: Mapping[str, Any] = field(default_factory=dict)

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()

    def locked(self, channel: str) -> LockedPackage:
        stem = self.file.removesuffix(".conda").removesuffix(".tar.bz2")
        name, version, build = stem.rsplit("-", 2)
        url = f"{channel}/{self.subdir}/{self.file}"
        return LockedPackage(name, version, (f"sha256:{self.sha256}",), url, build, len(self.content))


def package(
    name: str = "pack",
    version: str = "1.0",
    files: Mapping[str, Content] | None = None,
    *,
    build: str = "0",
    depends: Sequence[str] = (),
    noarch: str = "",
    entry_points: Sequence[str] = (),
    prefixes: Mapping[str, str] | None = None,
    executable: Sequence[str] = (),
    kind: str = ".conda",
    old: bool = False,
    placeholder: str = PLACEHOLDER,
    index: Mapping[str, Any] | None = None,
    paths: Callable[[list[dict[str, Any]]], object] = lambda entries: None,
    members: Callable[[tarfile.TarFile], None] = lambda archive: None,
) -> Made:
    """A package.

    Args:
        prefixes: Path -> `text` or `binary`.
        executable: Paths of those that can be run.
        kind: `.conda` or `.tar.bz2`.
        old: As before there was `paths.json`.
        index: More of `index.json`.
        paths: Changes the entries of `paths.json`.
        members: Adds to the files' archive what no package has.
    """
    files, prefixes = files or {}, prefixes or {}
    number = build.rpartition("_")[2]
    about: dict[str, Any] = {
        "name": name,
        "version": version,
        "build": build,
        "build_number": int(number) if number.isdigit() else 0,
        "depends": list(depends),
        "subdir": "noarch" if noarch else "linux-64",
        "timestamp": TIME * 1000,
        **({"noarch": noarch} if noarch else {}),
        **(index or {}),
    }
    entries = [_entry(path, content, files, prefixes, placeholder) for path, content in sorted(files.items())]
    paths(entries)
    info: dict[str, Content] = {"info/index.json": json.dumps(about)}
    if old:
        info["info/files"] = "".join(f"{path}\n" for path in sorted(files))
        info["info/has_prefix"] = "".join(f'"{placeholder}" {mode} "{path}"\n' for path, mode in prefixes.items())
    else:
        info["info/paths.json"] = json.dumps({"paths": entries, "paths_version": 1})
    if noarch == "python":
        link = {"noarch": {"type": "python", "entry_points": list(entry_points)}, "package_metadata_version": 1}
        info["info/link.json"] = json.dumps(link)
    stem = f"{name}-{version}-{build}"
    subdir = "noarch" if noarch else "linux-64"
    if kind == ".tar.bz2":
        return Made(f"{stem}.tar.bz2", subdir, _tar({**info, **files}, executable, members, "w:bz2"), about)
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        pack = partial(zstandard.ZstdCompressor(level=3).compress)
        archive.writestr("metadata.json", json.dumps({"conda_pkg_format_version": 2}))
        archive.writestr(f"info-{stem}.tar.zst", pack(_tar(info, (), lambda tar: None, "w")))
        archive.writestr(f"pkg-{stem}.tar.zst", pack(_tar(files, executable, members, "w")))
    return Made(f"{stem}.conda", subdir, out.getvalue(), about)


def _entry(
    path: str, content: Content, files: Mapping[str, Content], prefixes: Mapping[str, str], placeholder: str
) -> dict[str, Any]:
    if isinstance(content, Link):
        return {"_path": path, "path_type": "softlink"}
    raw = _raw(files[content.target] if isinstance(content, Hard) else content)
    entry = {
        "_path": path,
        "path_type": "hardlink",
        "sha256": hashlib.sha256(raw).hexdigest(),
        "size_in_bytes": len(raw),
    }
    return {**entry, **({"prefix_placeholder": placeholder, "file_mode": prefixes[path]} if path in prefixes else {})}


def _raw(content: Content) -> bytes:
    assert isinstance(content, (str, bytes))
    return content.encode() if isinstance(content, str) else content


def _tar(
    files: Mapping[str, Content], executable: Sequence[str], members: Callable[[tarfile.TarFile], None], mode: Any
) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode, format=tarfile.PAX_FORMAT) as archive:
        # What hard links lead to comes first.
        for path, content in sorted(files.items(), key=lambda item: (isinstance(item[1], Hard), item[0])):
            member = tarfile.TarInfo(path)
            member.mtime, member.mode = TIME, 0o755 if path in executable else 0o664
            raw = b""
            if isinstance(content, Link):
                member.type, member.linkname = tarfile.SYMTYPE, content.target
            elif isinstance(content, Hard):
                member.type, member.linkname = tarfile.LNKTYPE, content.target
            else:
                raw = _raw(content)
                member.size = len(raw)
            archive.addfile(member, io.BytesIO(raw))
        members(archive)
    return out.getvalue()


def python_package() -> Made:
    """The Python that runs the tests, without what no test needs, as a conda package: found by where it lies."""
    library = Path(sysconfig.get_path("stdlib"))
    left = ("test", "tests", "idlelib", "tkinter", "turtledemo", "ensurepip", "lib2to3", "__pycache__", "pydoc_data")
    folders = ("site-packages", "dist-packages", "distutils", "unittest", "xmlrpc", "EXTERNALLY-MANAGED")
    files: dict[str, Content] = {}
    for path in sorted(library.rglob("*")):
        parts = path.relative_to(library).parts
        if path.is_file() and not {*left, *folders} & {*parts} and not parts[0].startswith("config-"):
            files[f"lib/python{X_Y}/{'/'.join(parts)}"] = path.read_bytes()
    # Debian's looks for packages elsewhere than everybody's, if it is not a virtual environment's.
    files[f"lib/python{X_Y}/sitecustomize.py"] = (
        f"import site, sys\nsite.addsitedir(sys.prefix + '/lib/python{X_Y}/site-packages')\n"
    )
    program = f"bin/python{X_Y}"
    files |= {
        program: Path(sys.executable).resolve().read_bytes(),
        "bin/python3": Link(f"python{X_Y}"),
        "bin/python": Link("python3"),
        f"lib/python{X_Y}/site-packages/README.txt": "packages\n",
    }
    return package("python", PYTHON, files, build="0_cpython", executable=[program])


class Said:
    """A reporter that remembers."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.logged: list[str] = []

    def phase(self, phase: str, message: str, progress: float | None = None) -> None:
        self.lines.append(message)

    def log(self, phase: str, line: str) -> None:
        self.logged.append(line)


@dataclass
class Channel:
    """A channel in a folder, served over HTTP.

    Attributes:
        url: Its address, without a slash at the end.
        requests: Paths that were asked for.
        fresh: Seconds for which answers are said to hold.
    """

    folder: Path
    url: str = ""
    requests: list[str] = field(default_factory=list)
    fresh: int = 0

    def add(self, *packages: Made) -> None:
        """Publish packages (docs.conda.io, "Channels": repodata.json)."""
        for subdir in ("linux-64", "noarch"):
            place = self.folder / subdir
            place.mkdir(parents=True, exist_ok=True)
            index = place / "repodata.json"
            data: dict[str, Any] = {"info": {"subdir": subdir}, "packages": {}, "packages.conda": {}}
            if index.exists():
                data = json.loads(index.read_text())
            for each in packages:
                if each.subdir == subdir:
                    (place / each.file).write_bytes(each.content)
                    md5 = hashlib.md5(each.content, usedforsecurity=False).hexdigest()
                    record = {**each.about, "sha256": each.sha256, "md5": md5, "size": len(each.content)}
                    data["packages" if each.file.endswith(".tar.bz2") else "packages.conda"][each.file] = record
            index.write_text(json.dumps(data))


@contextmanager
def serving(folder: Path, certificate: trustme.LeafCert | None = None) -> Iterator[Channel]:
    """A channel called `testing`, reachable as long as the block runs; encrypted if there is a certificate."""
    channel = Channel(folder / "testing")
    channel.folder.mkdir(parents=True)

    class Handler(SimpleHTTPRequestHandler):
        def do_GET(self) -> None:
            channel.requests.append(self.path)
            super().do_GET()

        def end_headers(self) -> None:
            self.send_header("Cache-Control", f"public, max-age={channel.fresh}")
            super().end_headers()

        def log_message(self, format: str, *args: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder)))
    server.daemon_threads = True
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        certificate.configure_cert(context)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    place = "http://127.0.0.1" if certificate is None else "https://localhost"
    channel.url = f"{place}:{server.server_port}/testing"
    try:
        yield channel
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
