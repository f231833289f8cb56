"""The same three repositories built by Docker, podman and buildah: the same files, and the same bytes."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
from engines import NAMES, EngineLines

from hpcbinder.squashfs import Image

pytestmark = pytest.mark.heavy

REPOSITORIES = {
    "contract": "apt, requirements, a local package, postBuild and start",
    "project": "a pyproject.toml",
    "plain": "a page and nothing else",
}


def digest(path: str) -> str:
    whole = hashlib.sha256()
    with Path(path).open("rb") as file:
        while block := file.read(1 << 20):
            whole.update(block)
    return whole.hexdigest()


def tree(squashfs: str) -> dict[str, Any]:
    """Everything in an image: kind, mode, owner, time, and content or target."""
    found: dict[str, Any] = {}
    with Image.open(Path(squashfs)) as image:
        for path, node in image.walk():
            content: Any = None
            if node.kind == "file":
                content = hashlib.sha256(image.read(f"/{path}")).hexdigest()
            elif node.kind == "symlink":
                content = image.readlink(f"/{path}")
            found[path] = (node.kind, f"{node.mode:o}", node.uid, node.gid, node.mtime, content)
    return found


def differences(one: str, other: str) -> dict[str, Any]:
    """Path -> what the two images have there, where that is not the same. Files of the same bytes are not unpacked."""
    if digest(one) == digest(other):
        return {}
    mine, theirs = tree(one), tree(other)
    return {p: (mine.get(p), theirs.get(p)) for p in mine.keys() | theirs.keys() if mine.get(p) != theirs.get(p)}


@pytest.mark.parametrize("repository", REPOSITORIES)
def test_every_engine_makes_the_same_files(engine_lines: EngineLines, repository: str) -> None:
    built = {name: engine_lines[name].build(repository) for name in NAMES}
    assert len({image["id"] for image in built.values()}) == 1
    files = {name: image["formats"]["squashfs"] for name, image in built.items()}
    for name in ("podman", "buildah"):
        assert differences(files["docker"], files[name]) == {}, name


@pytest.mark.parametrize("repository", REPOSITORIES)
def test_and_the_same_bytes(engine_lines: EngineLines, repository: str) -> None:
    """Point 8 of the image contract, on any engine."""
    for form in ("squashfs", "sif"):
        files = {name: engine_lines[name].build(repository)["formats"][form] for name in NAMES}
        digests = {name: digest(file) for name, file in files.items()}
        assert len(set(digests.values())) == 1, (form, digests)


def test_an_image_says_which_engine_made_it(engine_lines: EngineLines) -> None:
    for name in NAMES:
        line = engine_lines[name]
        record = line.hpcbinder("show", line.build("plain")["id"], "--json")
        assert record["image"]["engine"] == name
