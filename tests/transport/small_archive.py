"""A small image as a docker-archive, for the tests of this folder: two layers, one of which takes from the other."""

from __future__ import annotations

import hashlib
import io
import tarfile
from pathlib import Path

from hpcbinder.image import write_docker_archive

NAME = "localhost/hpcbinder-test/transport:1"
CREATED = "2024-05-06T07:08:09.123456789Z"
CONFIG = {
    "architecture": "amd64",
    "os": "linux",
    "created": CREATED,
    "config": {
        "Env": ["PATH=/usr/bin:/bin", "B=two words", "A=1"],
        "Cmd": ["sh", "-c", "echo it's"],
        "Entrypoint": ["/usr/bin/env"],
        "WorkingDir": "/srv",
        "Labels": {"org.example.kind": "small"},
    },
    # Docker takes one line for each layer.
    "history": [{"created": CREATED, "created_by": "first"}, {"created": CREATED, "created_by": "second"}],
}


def layer(*members: tuple[str, bytes | None]) -> bytes:
    """A tar; a folder has no content. Times are later than the image's, as engines make them."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.mtime = 1_800_000_000
            member.type, member.mode = (tarfile.DIRTYPE, 0o755) if content is None else (tarfile.REGTYPE, 0o644)
            member.size = len(content or b"")
            tar.addfile(member, io.BytesIO(content or b""))
    return out.getvalue()


LAYERS = (
    layer(
        ("srv", None), ("srv/kept", b"kept\n"), ("srv/gone", b"gone\n"), ("usr", None), ("usr/big", b"0123" * 90_000)
    ),
    layer(("srv", None), ("srv/.wh.gone", b""), ("srv/new", b"new\n")),
)


def write(path: Path, name: str | None = NAME) -> Path:
    """The archive, at `path`."""
    layers = []
    for content in LAYERS:
        digest = hashlib.sha256(content).hexdigest()
        file = path.parent / f"{digest}.layer"
        file.write_bytes(content)
        layers.append((f"sha256:{digest}", file))
    with path.open("wb") as out:
        write_docker_archive(out, CONFIG, layers, name)
    return path
