"""What of a site's store is taken: not what anybody could have put there."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from entries import entry, put

from hpcbinder.catalog import Catalog, open_places, vouched
from hpcbinder.convert import LayerCache
from hpcbinder.squashfs import Options

IDENTITY = f"sha256:{'a' * 64}"
NOBODY = 65534


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A store with a layer."""
    store = tmp_path / "site"
    for folder in (store, store / "layers"):
        folder.mkdir()
        folder.chmod(0o755)
    layer = LayerCache(store / "layers", Options()).made(IDENTITY)
    layer.write_bytes(b"a layer")
    layer.chmod(0o644)
    return store


def layer(site: Path) -> Path:
    return next((site / "layers").iterdir())


@pytest.mark.parametrize(
    ("folder", "file", "taken"),
    [
        (0o755, 0o644, True),
        (0o2775, 0o664, True),  # a group that the site lets write
        (0o755, 0o666, False),
        (0o777, 0o644, False),
        (0o1777, 0o644, True),  # ours, and nobody else can exchange it
    ],
)
def test_by_who_can_have_written_it(site: Path, folder: int, file: int, taken: bool) -> None:
    layer(site).chmod(file)
    (site / "layers").chmod(folder)
    assert vouched(layer(site), site) == taken
    cache = LayerCache(site.parent / "mine", Options(), below=[site / "layers"])
    assert cache.has_made(IDENTITY) == taken
    (site / "layers").chmod(0o755)
    site.chmod(0o777 if folder == 0o777 else 0o755)
    assert vouched(layer(site), site) == (folder != 0o777 and file != 0o666)


def test_what_is_not_there_is_nobodys(site: Path) -> None:
    assert not vouched(site / "layers" / "other", site)


@pytest.mark.skipif(os.geteuid() != 0, reason="gives a file to somebody else")
def test_where_everybody_may_add_only_some_count(site: Path) -> None:
    os.chown(layer(site), NOBODY, NOBODY)
    assert vouched(layer(site), site)  # in a closed folder it is the owner's word who wrote it
    (site / "layers").chmod(0o1777)
    assert not vouched(layer(site), site)
    os.chown(site, NOBODY, NOBODY)
    assert vouched(layer(site), site)


def test_a_link_does_not_count_where_everybody_may_add(site: Path) -> None:
    elsewhere = site.parent / "layer"
    layer(site).rename(elsewhere)
    link = site / "layers" / "link"
    link.symlink_to(elsewhere)
    assert vouched(link, site)  # in a closed folder whoever made it is trusted
    (site / "layers").chmod(0o1777)
    assert not vouched(link, site)  # its owner can have it lead elsewhere after the look at what it leads to
    folder = site / "layers" / "folder"
    folder.symlink_to(site.parent)
    assert not vouched(folder / "layer", site)
    (site / "layers").chmod(0o755)
    assert vouched(folder / "layer", site)


def test_links_of_who_keeps_the_store_may_lead_to_it(site: Path) -> None:
    name = layer(site).name
    linked = site.parent / "linked"
    linked.symlink_to(site)
    (site / "layers").rename(site.parent / "volume")
    (site / "layers").symlink_to(site.parent / "volume")
    for mode in (0o755, 0o1777):
        (site.parent / "volume").chmod(mode)
        assert vouched(linked / "layers" / name, linked)
    (site.parent / "volume").chmod(0o777)
    assert not vouched(linked / "layers" / name, linked)


@pytest.mark.skipif(os.geteuid() != 0, reason="gives a folder to somebody else")
def test_where_everybody_may_add_the_folders_below_count_too(site: Path) -> None:
    wheels = site / "layers" / "wheels"
    wheels.mkdir(0o755)
    (wheels / "layer").write_bytes(b"a layer")
    (wheels / "layer").chmod(0o644)
    (site / "layers").chmod(0o1777)
    assert vouched(wheels / "layer", site)
    os.chown(wheels, NOBODY, NOBODY)
    assert not vouched(wheels / "layer", site)


def test_an_image_that_anybody_could_have_put_there_is_none(tmp_path: Path) -> None:
    site = Catalog(tmp_path / "site")
    image = put(site, entry())
    mine = Catalog(tmp_path / "mine", [site.path])
    assert mine.find(image.id) is not None
    (site.path / "images").chmod(0o777)
    assert mine.find(image.id) is None
    assert mine.list() == []
    # To whom the store belongs it is one.
    assert Catalog(site.path).find(image.id) is not None


def test_open_folders_are_named(site: Path) -> None:
    assert open_places(site) == []
    site.chmod(0o777)
    (site / "layers").chmod(0o1777)
    assert open_places(site) == [".", "layers"]
