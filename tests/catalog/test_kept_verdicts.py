"""What came of running an image's notebooks, kept beside the image and no part of it."""

from __future__ import annotations

from pathlib import Path

import pytest
from entries import entry, put

from hpcbinder.catalog import Catalog
from hpcbinder.errors import CatalogError

FOUND = {"digest": entry().config.digest, "summary": "1 of 1 notebook runs"}


def test_it_is_of_this_very_image(tmp_path: Path) -> None:
    catalog = Catalog(tmp_path / "store")
    added = put(catalog, entry())
    assert catalog.verified(added) == {}
    catalog.keep_verified(added.id, FOUND)
    assert catalog.verified(added) == FOUND
    assert catalog.find(added.id) == added
    again = put(catalog, entry(digest="sha256:" + "2" * 64))
    assert catalog.verified(again) == {}


def test_it_goes_with_the_image(tmp_path: Path) -> None:
    catalog = Catalog(tmp_path / "store")
    added = put(catalog, entry())
    catalog.keep_verified(added.id, FOUND)
    catalog.remove(added.id)
    assert list((tmp_path / "store/verified").iterdir()) == []
    with pytest.raises(CatalogError, match="no image"):
        catalog.keep_verified(added.id, FOUND)


def test_of_a_site_s_image_in_the_own_store(tmp_path: Path) -> None:
    added = put(Catalog(tmp_path / "site"), entry())
    own = Catalog(tmp_path / "own", [tmp_path / "site"])
    own.keep_verified(added.id, FOUND)
    assert own.verified(added) == FOUND
    assert list((tmp_path / "site/verified").iterdir()) == []


def test_a_damaged_one_is_none(tmp_path: Path) -> None:
    catalog = Catalog(tmp_path / "store")
    added = put(catalog, entry())
    (tmp_path / f"store/verified/{added.id}.json").write_text("[1, 2")
    assert catalog.verified(added) == {}
