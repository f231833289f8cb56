"""An image of the catalog in further formats: the same bytes as if they had been made at once, and nothing lost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from stacks import Layer, MemoryImage

from hpcbinder.catalog import Catalog
from hpcbinder.config import load
from hpcbinder.convert import convert
from hpcbinder.converting import Wish, add_formats, can_add, convert_source
from hpcbinder.errors import ConvertError
from hpcbinder.model import BaseRef, Entry, RegisteredKernel
from hpcbinder.progress import Silent
from hpcbinder.sif import primary_partition
from hpcbinder.squashfs import Options

IMAGE = MemoryImage(
    Layer().folder("srv").file("srv/hello", "hello\n").file("srv/big", bytes(range(256)) * 2000),
    config={"Env": ["A=b"], "Cmd": ["sh"], "Labels": {"org.hpcbinder.commit": "0"}},
)
TIMESTAMP = 1_700_000_000


ID = "chirp-0123456789ab"
KERNEL = RegisteredKernel("k", "/k", "python", "K")


def record(formats: dict[str, str]) -> Entry:
    return Entry(
        id=ID,
        source="https://example.org/chirp",
        ref="main",
        commit="c" * 40,
        uncommitted=False,
        subdir="",
        buildpacks=(),
        base=BaseRef("debian:bookworm", "bookworm", "3.11", "amd64", "1"),
        image={"name": f"hpcbinder/{ID}", "digest": IMAGE.config.digest},
        config=IMAGE.config,
        formats=formats,
        kernels=(),
        packages={},
        decisions=(),
        timings={"build": 1.5},
        size=3,
        created=TIMESTAMP,
        timestamp=TIMESTAMP,
    )


def add(catalog: Catalog, formats: Sequence[str]) -> Entry:
    with catalog.temporary() as scratch:
        folder = scratch / "image"
        folder.mkdir()
        made = convert(
            IMAGE,
            layers_dir=catalog.layers_dir,
            folder=folder,
            name=ID,
            labels={**IMAGE.config.labels, "org.hpcbinder.id": ID},
            timestamp=TIMESTAMP,
            formats=formats,
            options=Options(),
            reporter=Silent(),
            origin="hpcbinder/chirp:0123456789ab",
        )
        return catalog.add(record({form: str(path) for form, path in made.formats.items()}), folder)


def added(catalog: Catalog, of: Entry, formats: Sequence[str]) -> Entry:
    with catalog.temporary() as scratch:
        return add_formats(of, formats, catalog, scratch, Silent())


def contents(found: Entry) -> dict[str, bytes]:
    return {form: Path(path).read_bytes() for form, path in found.formats.items()}


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    return Catalog(tmp_path / "store")


@pytest.mark.parametrize("first", ["squashfs", "sif"])
def test_the_same_bytes_as_at_once(catalog: Catalog, tmp_path: Path, first: str) -> None:
    whole = add(Catalog(tmp_path / "whole"), ("squashfs", "shifter", "sif"))
    entry = add(catalog, (first,))
    later = added(catalog, entry, [form for form in whole.formats if form != first])
    assert contents(later) == contents(whole)
    assert [p.name for p in Path(later.formats["shifter"]).parent.iterdir()] == [
        p.name for p in Path(whole.formats["shifter"]).parent.iterdir()
    ]
    assert catalog.find(entry.id) == later


def test_convert_gives_a_person_the_same_bytes(catalog: Catalog, tmp_path: Path) -> None:
    entry = add(catalog, ("squashfs", "sif"))
    wish = Wish(ID[:9], ("squashfs", "shifter", "sif"), output=str(tmp_path / "out"))
    done = convert_source(wish, load(environ={"HOME": str(tmp_path)}), catalog, Silent())
    assert done.name == ID
    for form in ("squashfs", "sif"):
        assert done.products[form].path.read_bytes() == contents(entry)[form]
        # The store's own file is not the person's to change.
        assert not done.products[form].path.samefile(entry.formats[form])


def test_what_the_record_says_stays_and_so_does_the_file(catalog: Catalog) -> None:
    entry = add(catalog, ("squashfs",))
    catalog.update(replace(entry, registered=(KERNEL,)))
    before = catalog.pushed(entry.id, "r.io/x:1", "sha256:0")
    inode = Path(entry.formats["squashfs"]).stat().st_ino
    after = added(catalog, before, ["sif", "enroot"])
    assert replace(after, formats=before.formats) == before
    # Who has it open, or runs it, sees no change; and it lies on the disk once.
    assert {Path(after.formats[form]).stat().st_ino for form in ("squashfs", "enroot")} == {inode}
    assert not list((catalog.path / "tmp").iterdir())


def test_a_sites_image_comes_into_ones_own_store(catalog: Catalog, tmp_path: Path) -> None:
    site = add(Catalog(tmp_path / "site"), ("sif",))
    mine = Catalog(tmp_path / "store", (tmp_path / "site",))
    found = mine.get(site.id)
    after = added(mine, found, ["squashfs"])
    assert set(after.formats) == {"sif", "squashfs"} and mine.own(after)
    assert set(Catalog(tmp_path / "site").get(site.id).formats) == {"sif"}


def test_a_damaged_file_leaves_the_image_as_it_was(catalog: Catalog) -> None:
    entry = add(catalog, ("sif",))
    path = Path(entry.formats["sif"])
    offset, size = primary_partition(path)
    raw = path.read_bytes()
    path.write_bytes(raw[:offset] + bytes(size) + raw[offset + size :])
    with pytest.raises(ConvertError, match="--rebuild"):
        added(catalog, entry, ["squashfs"])
    assert catalog.find(entry.id) == entry
    assert not list((catalog.path / "tmp").iterdir())


def test_an_oci_layout_is_made_of_layers_only(catalog: Catalog) -> None:
    entry = add(catalog, ("oci",))
    assert not can_add(entry, ["sif"]) and not can_add(add(catalog, ("sif",)), ["oci"])
