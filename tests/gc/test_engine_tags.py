"""What `gc` does to a real Docker's images: those of no catalog go, what an image stands on stays."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hpcbinder.catalog import Catalog
from hpcbinder.config import Config, KernelsConfig
from hpcbinder.engine import DockerEngine
from hpcbinder.gc import Report, Wish, collect
from hpcbinder.model import BaseRef, Entry
from hpcbinder.progress import Silent
from rig import Dockerd

UNIQUE = "gctest"


def tag(name: str) -> str:
    return f"localhost/hpcbinder/{UNIQUE}-{name}:0123456789ab"


@pytest.fixture
def engine(dockerd: Dockerd) -> Iterator[DockerEngine]:
    engine = DockerEngine(dockerd.host)
    yield engine
    for name, _, _ in engine.tags():
        if UNIQUE in name:
            engine.remove(name)


def load(engine: DockerEngine, folder: Path, name: str, *layers: str) -> Any:
    """An image of one file in each layer."""
    import hashlib

    from hpcbinder.image import write_docker_archive

    paths = []
    for content in layers:
        raw = io.BytesIO()
        with tarfile.open(fileobj=raw, mode="w") as tar:
            member = tarfile.TarInfo("file")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content.encode()))
        path = folder / f"{name}-{content}.tar"
        path.write_bytes(raw.getvalue())
        paths.append((f"sha256:{hashlib.sha256(raw.getvalue()).hexdigest()}", path))
    archive = folder / f"{name}.tar"
    with archive.open("wb") as out:
        write_docker_archive(out, {"architecture": "amd64", "os": "linux", "config": {}}, paths, tag(name))
    engine.load(archive, tag(name))
    image = engine.image(tag(name))
    assert image is not None
    return image.config


def put(catalog: Catalog, name: str, config: Any) -> None:
    entry = Entry(
        id=f"{UNIQUE}-{name}-0123456789ab",
        source="x",
        ref="HEAD",
        commit=None,
        uncommitted=False,
        subdir="",
        buildpacks=(),
        base=BaseRef("debian:bookworm", "bookworm", "3.11", "amd64", "1"),
        image={"name": tag(name), "digest": config.digest},
        config=config,
        formats={"sif": "image.sif"},
        kernels=(),
        packages={},
        decisions=(),
        timings={},
        size=1,
        created=1,
    )
    with catalog.temporary() as scratch:
        (scratch / "image").mkdir()
        (scratch / "image/image.sif").write_text("x")
        catalog.add(entry, scratch / "image")


def ours(engine: DockerEngine) -> set[str]:
    return {name for name, _, _ in engine.tags() if UNIQUE in name}


def tags(report: Report) -> set[str]:
    return {removed.name for removed in report.removed if removed.kind == "tag" and UNIQUE in removed.name}


def test_tags(engine: DockerEngine, tmp_path: Path) -> None:
    catalog = Catalog(tmp_path / "store")
    put(catalog, "image", load(engine, tmp_path, "image", "base", "server", "content"))
    load(engine, tmp_path, "server", "base", "server")
    load(engine, tmp_path, "other", "base", "another")
    everything = {tag(name) for name in ("image", "server", "other")}
    assert ours(engine) == everything

    # Other stores use this engine, too: what is young stays.
    assert tags(collect(Wish(dry_run=True), catalog, Config(), engine, Silent())) == set()
    report = collect(Wish(age=0, dry_run=True), catalog, Config(), Only(engine), Silent())
    assert tags(report) == {tag("other")}
    assert ours(engine) == everything
    assert tags(collect(Wish(age=0), catalog, Config(), Only(engine), Silent())) == {tag("other")}
    assert ours(engine) == {tag("image"), tag("server")}
    # With the image goes its tag, and what it stood on is needed by nothing any more.
    removed = collect(Wish(images=True, age=0), catalog, Config(), Only(engine), Silent())
    assert json.dumps(removed.kept) == "{}"
    assert ours(engine) == set()


def test_the_tag_of_an_image_of_another_store_stays_while_a_kernel_points_at_it(
    engine: DockerEngine, tmp_path: Path
) -> None:
    load(engine, tmp_path, "elsewhere", "base", "content")
    kernel = tmp_path / "prefix/share/jupyter/kernels/elsewhere"
    kernel.mkdir(parents=True)
    launch = {"image": {"id": f"{UNIQUE}-elsewhere-0123456789ab", "location": tag("elsewhere")}}
    (kernel / "launch.json").write_text(json.dumps(launch))
    config = Config(kernels=KernelsConfig(prefix=tmp_path / "prefix"))
    assert tags(collect(Wish(age=0), Catalog(tmp_path / "store"), config, Only(engine), Silent())) == set()
    assert ours(engine) == {tag("elsewhere")}
    (kernel / "launch.json").unlink()
    assert tags(collect(Wish(age=0), Catalog(tmp_path / "store"), config, Only(engine), Silent())) == {tag("elsewhere")}


class Only(DockerEngine):
    """A Docker that seems to hold nothing but this test's images: other tests have theirs in it."""

    def __init__(self, engine: DockerEngine) -> None:
        self.__dict__.update(engine.__dict__)

    def tags(self) -> list[tuple[str, int, float]]:
        """As the real one, without the others."""
        return [found for found in super().tags() if UNIQUE in found[0]]
