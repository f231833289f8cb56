"""The catalog as its users see it."""

from __future__ import annotations

import dataclasses
import errno
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from entries import KERNEL, entry, fill, names, put

from hpcbinder.catalog import Catalog
from hpcbinder.errors import CatalogError
from hpcbinder.model import to_json

AB, AC, B = "chirp-ab0000000000", "chirp-ac0000000000", "wave-ab0000000000"


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    return Catalog(tmp_path / "store")


def test_what_was_added_is_found_with_absolute_paths(catalog: Catalog) -> None:
    added = put(catalog, entry(AB))
    folder = catalog.path / "images" / AB
    assert added == dataclasses.replace(
        entry(AB), formats={"sif": f"{folder}/image.sif", "squashfs": f"{folder}/image.squashfs"}
    )
    assert catalog.get(AB) == catalog.find(AB) == added
    assert catalog.list() == [added]
    assert Path(added.formats["sif"]).read_text() == "abc"


def test_the_record_is_exactly_the_entry_with_relative_paths(catalog: Catalog) -> None:
    import json

    put(catalog, entry(AB))
    record = json.loads((catalog.path / "images" / AB / "record.json").read_text())
    assert record == json.loads(json.dumps(to_json(entry(AB))))


def test_a_store_can_move(catalog: Catalog, tmp_path: Path) -> None:
    put(catalog, entry(AB))
    moved = Catalog(catalog.path.rename(tmp_path / "elsewhere"))
    assert Path(moved.get(AB).formats["sif"]).is_file()


def test_asking_writes_nothing(catalog: Catalog) -> None:
    assert catalog.list() == []
    assert catalog.find(AB) is None
    with pytest.raises(
        CatalogError, match=r"no image 'x' in the catalog \(it is empty; make one with hpcbinder build\)"
    ):
        catalog.get("x")
    assert not catalog.path.exists()


def test_an_image_is_named_by_the_beginning_of_its_id(catalog: Catalog) -> None:
    for id_ in (AB, AC, B):
        put(catalog, entry(id_))
    assert catalog.get("chirp-ab").id == AB
    assert catalog.get("w").id == B
    with pytest.raises(CatalogError) as caught:
        catalog.get("chirp")
    assert str(caught.value) == f"chirp is the beginning of 2 images ({AB}, {AC})"
    with pytest.raises(CatalogError, match=f"no image 'chrip-ab0000000000' in the catalog .did you mean {AB}"):
        catalog.get("chrip-ab0000000000")
    for odd in ("", "zzz", "../..", "a\0b", "\x1b[31m", "/etc", "x" * 9999):
        with pytest.raises(CatalogError) as caught:
            catalog.get(odd)
        assert "\x1b" not in str(caught.value) and "\0" not in str(caught.value)
        assert catalog.find(odd) is None


def test_the_whole_id_wins_over_a_longer_one(catalog: Catalog) -> None:
    put(catalog, entry("chirp-ab"))
    put(catalog, entry(AB))
    assert catalog.get("chirp-ab").id == "chirp-ab"


def test_the_newest_comes_first(catalog: Catalog) -> None:
    for id_, created in ((AB, 1), (AC, 3), (B, 2)):
        put(catalog, entry(id_, created))
    assert [e.id for e in catalog.list()] == [AC, B, AB]


def test_a_rebuilt_image_takes_the_place_of_the_old(catalog: Catalog) -> None:
    put(catalog, entry(AB), "old")
    put(catalog, entry(AB, created=5), "new")
    assert catalog.get(AB).created == 5
    assert Path(catalog.get(AB).formats["sif"]).read_text() == "new"
    assert names(catalog.path / "images") == [AB]
    assert names(catalog.path / "tmp") == []


def test_removing_leaves_only_caches(catalog: Catalog) -> None:
    put(catalog, entry(AB))
    (catalog.layers_dir / "layer").write_text("x")
    (catalog.bases_dir / "base").write_text("x")
    catalog.remove(AB)
    assert catalog.list() == []
    assert names(catalog.path / "tmp") == []
    assert (catalog.path / "layers" / "layer").exists() and (catalog.path / "bases" / "base").exists()
    for id_ in (AB, "../layers", ""):
        with pytest.raises(CatalogError, match="no image"):
            catalog.remove(id_)


def test_registered_kernels_are_what_changes_later(catalog: Catalog) -> None:
    added = put(catalog, entry(AB))
    updated = catalog.update(dataclasses.replace(added, registered=(KERNEL,), source="something else"))
    assert updated == catalog.get(AB) == dataclasses.replace(added, registered=(KERNEL,))
    catalog.remove(AB)
    with pytest.raises(CatalogError, match="no image .* in the catalog .any more"):
        catalog.update(updated)


def test_site_stores_lie_below_and_are_never_written(tmp_path: Path) -> None:
    first, second = Catalog(tmp_path / "site1"), Catalog(tmp_path / "site2")
    put(first, entry(AB, created=1), "site1")
    put(second, entry(AB, created=2), "site2")
    put(second, entry(AC, created=3), "site2")
    before = {p: p.lstat().st_mtime_ns for s in (first, second) for p in s.path.rglob("*")}
    mine = Catalog(tmp_path / "mine", [first.path, second.path, tmp_path / "not mounted"])
    put(mine, entry(B, created=4))
    assert [e.id for e in mine.list()] == [B, AC, AB]
    assert Path(mine.get(AB).formats["sif"]).read_text() == "site1"
    with pytest.raises(CatalogError, match=f"{AB} belongs to the site's store and is read-only"):
        mine.remove(AB)

    mine.update(dataclasses.replace(mine.get(AB), registered=(KERNEL,)))
    assert mine.get(AB).registered == (KERNEL,)
    assert first.get(AB).registered == ()
    mine.update(dataclasses.replace(mine.get(AB), registered=()))
    assert mine.get(AB).registered == ()
    assert names(mine.path / "registered") == []

    put(mine, entry(AB, created=9), "mine")
    assert Path(mine.get(AB).formats["sif"]).read_text() == "mine"
    mine.remove(AB)
    assert Path(mine.get(AB).formats["sif"]).read_text() == "site1"
    assert {p: p.lstat().st_mtime_ns for s in (first, second) for p in s.path.rglob("*")} == before


def test_others_can_read_whatever_the_umask(tmp_path: Path) -> None:
    old = os.umask(0o077)
    try:
        catalog = Catalog(tmp_path / "store")
        with catalog.temporary() as scratch:
            assert stat.S_IMODE(scratch.stat().st_mode) == 0o700
            folder = fill(scratch / "image")
            (folder / "sub").mkdir()
            (folder / "sub" / "tool").write_text("x")
            (folder / "sub" / "tool").chmod(0o700)
            catalog.add(entry(AB), folder)
        with catalog.lock(AB):
            pass
    finally:
        os.umask(old)
    modes = {str(p.relative_to(catalog.path)): stat.S_IMODE(p.stat().st_mode) for p in catalog.path.rglob("*")}
    assert stat.S_IMODE(catalog.path.stat().st_mode) == 0o755
    image = f"images/{AB}"
    assert modes[f"{image}/sub/tool"] == 0o755
    for name in ("version", f"{image}/record.json", f"{image}/image.sif", f"locks/{AB}.lock"):
        assert modes[name] == 0o644, name
    for name in ("images", "layers", "bases", "locks", "tmp", image, f"{image}/sub"):
        assert modes[name] == 0o755, name


def test_a_format_must_be_in_the_folder(catalog: Catalog, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_text("x")
    for path in ("missing.sif", str(tmp_path / "elsewhere"), "../elsewhere"):
        with catalog.temporary() as scratch, pytest.raises(CatalogError, match="no sif in the finished image"):
            catalog.add(dataclasses.replace(entry(AB), formats={"sif": path}), fill(scratch / "image"))
    assert catalog.list() == []


@pytest.mark.parametrize("id_", ["", "..", "a/b", "A", ".old-x", "-x", "x" * 200])
def test_an_id_can_only_be_an_id(catalog: Catalog, id_: str) -> None:
    with catalog.temporary() as scratch, pytest.raises(CatalogError, match="cannot be an image's id"):
        catalog.add(entry(id_), fill(scratch / "image"))
    with pytest.raises(CatalogError, match="cannot be an image's id"), catalog.lock(id_):
        pass


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "damaged record: Expecting value"),
        ("{", "damaged record: Expecting property name"),
        ("[]", "damaged record: record: not an object"),
        ("{}", "damaged record: id is missing"),
        ('{"id": 3}', "damaged record: id: not str"),
        ("[" * 100_000, "damaged record: "),
    ],
)
def test_a_damaged_record_is_named(catalog: Catalog, text: str, message: str) -> None:
    put(catalog, entry(AB))
    record = catalog.path / "images" / AB / "record.json"
    record.write_text(text)
    for ask in (lambda: catalog.get(AB), catalog.list):
        with pytest.raises(CatalogError) as caught:
            ask()
        assert str(caught.value).startswith(f"{record}: {message}")
    catalog.remove(AB)
    assert catalog.list() == []


def test_a_record_cannot_point_elsewhere(catalog: Catalog) -> None:
    put(catalog, entry(AB))
    record = catalog.path / "images" / AB / "record.json"
    text = record.read_text()
    for path in ("/etc/passwd", "../../x"):
        record.write_text(text.replace('"image.sif"', f'"{path}"'))
        with pytest.raises(CatalogError, match="a format outside its folder"):
            catalog.get(AB)
    record.write_text(text.replace(AB, AC))
    with pytest.raises(CatalogError, match="it is another image's"):
        catalog.get(AB)


def test_a_folder_that_is_no_image_does_not_count(catalog: Catalog) -> None:
    put(catalog, entry(AB))
    (catalog.path / "images" / AC).mkdir()
    (catalog.path / "images" / "README").write_text("x")
    assert [e.id for e in catalog.list()] == [AB]
    put(catalog, entry(AC))
    assert len(catalog.list()) == 2


def test_a_store_of_another_version_is_left_alone(catalog: Catalog) -> None:
    put(catalog, entry(AB))
    (catalog.path / "version").write_text("2\n")
    for ask in (lambda: catalog.get(AB), lambda: put(catalog, entry(AC))):
        with pytest.raises(CatalogError, match="the store has version '2', this hpcbinder reads 1"):
            ask()


def test_a_store_that_cannot_be_written_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "store", Path("/proc/store")):
        with pytest.raises(CatalogError) as caught, Catalog(path).temporary():
            pass
        assert "store" in str(caught.value) and "\n" not in str(caught.value)


def test_an_ordinary_user_without_the_right_to_write(tmp_path: Path) -> None:
    tmp_path.chmod(0o555)
    code = (
        "import os, sys; from pathlib import Path; from hpcbinder.catalog import Catalog\n"
        "from hpcbinder.errors import CatalogError\n"
        "if os.geteuid() == 0: os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "try:\n  Catalog(Path(sys.argv[1])).layers_dir\nexcept CatalogError as error:\n  print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "store"], capture_output=True, text=True, check=True)
    assert "cannot write to the store: Permission denied (set store.path to a folder of yours)" in done.stdout


@pytest.mark.parametrize(
    ("number", "message"),
    [(errno.ENOSPC, "the file system is full"), (errno.EDQUOT, "the quota is used up"), (errno.EIO, "cannot use the")],
)
def test_a_full_disk_leaves_nothing(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch, number: int, message: str
) -> None:
    with catalog.temporary() as scratch:
        folder = fill(scratch / "image")

        def full(descriptor: int) -> None:
            raise OSError(number, os.strerror(number))

        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", full)
            with pytest.raises(CatalogError, match=message):
                catalog.add(entry(AB), folder)
        assert names(folder) == ["image.sif", "image.squashfs"]
    assert catalog.list() == []
    assert names(catalog.path / "tmp") == []


def test_a_really_full_file_system_is_one_clear_line(tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full")
    from hpcbinder.catalog.files import writing

    with pytest.raises(CatalogError) as caught, writing(tmp_path), Path("/dev/full").open("wb", buffering=0) as file:
        file.write(b"x")
    assert str(caught.value).startswith(f"{tmp_path}: the file system is full (free some space")


def test_pushes_are_kept_with_the_image(catalog: Catalog) -> None:
    put(catalog, entry(AB))
    catalog.pushed(AB, "ghcr.io/a/b:1", "sha256:x")
    catalog.pushed(AB, "ghcr.io/a/b:2", "sha256:y")
    catalog.pushed(AB, "ghcr.io/a/b:1", "sha256:z")
    assert catalog.get(AB).pushed == {"ghcr.io/a/b:1": "sha256:z", "ghcr.io/a/b:2": "sha256:y"}
    catalog.update(dataclasses.replace(catalog.get(AB), registered=(KERNEL,)))
    assert len(catalog.get(AB).pushed) == 2
    with pytest.raises(CatalogError, match="no image"):
        catalog.pushed(B, "ghcr.io/a/b:1", "sha256:x")


def test_a_person_pushes_a_sites_image_and_the_site_does_not_notice(tmp_path: Path) -> None:
    site = Catalog(tmp_path / "site")
    put(site, entry(AB))
    mine = Catalog(tmp_path / "mine", [site.path])
    mine.pushed(AB, "ghcr.io/a/b:1", "sha256:x")
    mine.pushed(AB, "ghcr.io/a/b:2", "sha256:y")
    assert mine.get(AB).pushed == {"ghcr.io/a/b:1": "sha256:x", "ghcr.io/a/b:2": "sha256:y"}
    assert site.get(AB).pushed == {}


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_running_image_is_known_whatever_its_format(catalog: Catalog, tmp_path: Path, kind: str) -> None:
    place = tmp_path / "place"
    if kind == "file":
        place.touch()
    else:
        place.mkdir()
    image = dataclasses.replace(entry(AB), formats={"podman-hpc": str(place)})
    assert not catalog.is_running(image)
    with catalog.running(image):
        assert catalog.is_running(image)
    assert not catalog.is_running(image)
