"""An image of a few bytes in a store: what lists, publishes or removes images need know no more of it."""

from __future__ import annotations

from typing import Any

from hpcbinder.catalog import Catalog
from hpcbinder.model import BaseRef, Entry, ImageConfig

DIGEST = f"sha256:{'1' * 64}"


def put(catalog: Catalog, id_: str = "ligo-0123456789ab", **changes: Any) -> Entry:
    """Add one, and get its entry with the paths that it has in the store."""
    values: dict[str, Any] = {
        "source": "https://example.org/ligo/tutorials",
        "ref": "main",
        "commit": "8c1f0a2" + "0" * 33,
        "uncommitted": False,
        "subdir": "",
        "buildpacks": (),
        "base": BaseRef("debian:bookworm", "bookworm", "3.11", "amd64", "1"),
        "image": {"name": f"localhost/hpcbinder/{id_.replace('-', ':')}", "digest": DIGEST},
        "config": ImageConfig(DIGEST, "amd64", "", {}, (), (), "", {}, (), ()),
        "formats": {"sif": "image.sif"},
        "kernels": (),
        "packages": {},
        "decisions": (),
        "timings": {},
        "size": 3,
        "created": 1_700_000_000,
        **changes,
    }
    with catalog.temporary() as scratch:
        (scratch / "image").mkdir()
        (scratch / "image" / "image.sif").write_bytes(b"abc")
        return catalog.add(Entry(id=id_, **values), scratch / "image")
