"""A small package index on loopback, with packages made for a test: what uv resolves against without the network.

The pages are PEP 691's JSON with PEP 658's metadata files, as PyPI serves them.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import tarfile
import threading
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

TIME = (2020, 1, 1, 0, 0, 0)


@dataclass
class File:
    """A file of a package: its name, bytes, metadata (of a wheel), whether it is yanked, and when it was uploaded (""
    if the index does not say it)."""

    name: str
    content: bytes
    metadata: bytes = b""
    yanked: bool = False
    uploaded: str = "2020-01-01T00:00:00Z"

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()


@dataclass
class PackageIndex:
    """The index.

    Attributes:
        url: Its address, as `site.pip_index_url` has it.
        requests: Paths that were asked for.
        login: What `Authorization: Basic` must be followed by, "" for anything.
        answer: Instead of what is there: (path) -> (status, body) or None.
    """

    url: str = ""
    packages: dict[str, list[File]] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    login: str = ""
    answer: Callable[[str], tuple[int, bytes] | None] | None = None

    def wheel(
        self,
        name: str,
        version: str = "1.0",
        *,
        requires: Sequence[str] = (),
        tag: str = "py3-none-any",
        files: Mapping[str, str] | None = None,
        yanked: bool = False,
        uploaded: str = "2020-01-01T00:00:00Z",
    ) -> File:
        """Publish a wheel that holds one module (and other files: path in the wheel -> text)."""
        content, metadata = _wheel(name, version, requires, tag, files or {})
        stem = name.replace("-", "_")
        return self._add(name, File(f"{stem}-{version}-{tag}.whl", content, metadata, yanked, uploaded))

    def sdist(
        self,
        name: str,
        version: str = "1.0",
        *,
        requires: Sequence[str] = (),
        setup: str = "",
        uploaded: str = "2020-01-01T00:00:00Z",
    ) -> File:
        """Publish a source archive, whose build begins with some lines of one's own."""
        content = _sdist(name, version, requires, setup)
        return self._add(name, File(f"{name.replace('-', '_')}-{version}.tar.gz", content, uploaded=uploaded))

    def ours(self) -> None:
        """Publish what is in every environment."""
        kernel = json.dumps({"argv": ["python", "-m", "ipykernel_launcher"], "language": "python"}, indent=1)
        files = {"ipykernel-7.0.data/data/share/jupyter/kernels/python3/kernel.json": kernel}
        self.wheel("ipykernel", "7.0", files=files)
        self.wheel("pip", "26.0")

    def _add(self, name: str, file: File) -> File:
        self.packages.setdefault(name, []).append(file)
        return file

    def respond(self, path: str, headers: Mapping[str, str]) -> tuple[int, str, bytes]:
        """Status, content type and body for a path."""
        self.requests.append(path)
        if self.login and headers.get("Authorization") != f"Basic {self.login}":
            return 401, "text/plain", b""
        if self.answer is not None and (answer := self.answer(path)) is not None:
            return answer[0], "text/html", answer[1]
        parts = path.strip("/").split("/")
        if parts[0] == "simple" and len(parts) == 2 and parts[1] in self.packages:
            return 200, "application/vnd.pypi.simple.v1+json", json.dumps(self._page(parts[1])).encode()
        if parts[0] == "files" and len(parts) == 2:
            for file in (file for files in self.packages.values() for file in files):
                if parts[1] == file.name:
                    return 200, "application/octet-stream", file.content
                if parts[1] == f"{file.name}.metadata" and file.metadata:
                    return 200, "text/plain", file.metadata
        return 404, "text/plain", b""

    def _page(self, name: str) -> dict[str, Any]:
        files = [
            {
                "filename": file.name,
                "url": f"../../files/{file.name}",
                "hashes": {"sha256": file.sha256},
                "size": len(file.content),
                **({"upload-time": file.uploaded} if file.uploaded else {}),
                "yanked": file.yanked,
                "core-metadata": {"sha256": hashlib.sha256(file.metadata).hexdigest()} if file.metadata else False,
            }
            for file in self.packages[name]
        ]
        return {"meta": {"api-version": "1.1"}, "name": name, "files": files}


@contextmanager
def serving(index: PackageIndex) -> Iterator[PackageIndex]:
    """The index, reachable at `index.url` as long as the block runs."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, kind, body = index.respond(self.path, dict(self.headers))
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            try:
                self.wfile.write(body)
            except OSError:
                pass  # whoever asked has gone

        def log_message(self, format: str, *args: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    index.url = f"http://127.0.0.1:{server.server_port}/simple"
    try:
        yield index
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def package_index() -> Iterator[PackageIndex]:
    with serving(PackageIndex()) as index:
        yield index


def _metadata(name: str, version: str, requires: Sequence[str]) -> bytes:
    lines = [f"Requires-Dist: {line}\n" for line in requires]
    return f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{''.join(lines)}".encode()


def _wheel(name: str, version: str, requires: Sequence[str], tag: str, files: Mapping[str, str]) -> tuple[bytes, bytes]:
    stem = name.replace("-", "_")
    info = f"{stem}-{version}.dist-info"
    metadata = _metadata(name, version, requires)
    content: dict[str, bytes] = {
        f"{stem}.py": f"VERSION = {version!r}\n".encode(),
        **{path: text.encode() for path, text in files.items()},
        f"{info}/METADATA": metadata,
        f"{info}/WHEEL": f"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: {tag}\n".encode(),
    }
    record = "".join(
        f"{path},sha256={base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b'=').decode()},{len(data)}\n"
        for path, data in content.items()
    )
    content[f"{info}/RECORD"] = f"{record}{info}/RECORD,,\n".encode()
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for path, data in content.items():
            archive.writestr(zipfile.ZipInfo(path, TIME), data)
    return out.getvalue(), metadata


BACKEND = """\
import base64, hashlib, os, zipfile

def build_wheel(directory, config_settings=None, metadata_directory=None):
    info = f"{STEM}-{VERSION}.dist-info"
    content = {
        f"{STEM}.py": f"VERSION = {VERSION!r}\\n",
        f"{info}/METADATA": open("PKG-INFO").read(),
        f"{info}/WHEEL": "Wheel-Version: 1.0\\nGenerator: test\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n",
    }
    rows = []
    for path, text in content.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
        rows.append(f"{path},sha256={digest},{len(text.encode())}\\n")
    content[f"{info}/RECORD"] = "".join(rows) + f"{info}/RECORD,,\\n"
    name = f"{STEM}-{VERSION}-py3-none-any.whl"
    with zipfile.ZipFile(os.path.join(directory, name), "w") as archive:
        for path, text in content.items():
            archive.writestr(path, text)
    return name
"""


def _sdist(name: str, version: str, requires: Sequence[str], setup: str) -> bytes:
    """A source archive that needs nothing to be built with."""
    stem = name.replace("-", "_")
    files = {
        "pyproject.toml": '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n',
        "backend.py": f"{setup}\nSTEM, VERSION = {stem!r}, {version!r}\n{BACKEND}",
        "PKG-INFO": _metadata(name, version, requires).decode(),
    }
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        for path, text in files.items():
            member = tarfile.TarInfo(f"{stem}-{version}/{path}")
            member.size = len(text.encode())
            archive.addfile(member, io.BytesIO(text.encode()))
    return out.getvalue()
