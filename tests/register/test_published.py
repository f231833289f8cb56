"""What a store says of its images to hubs: written whole, read by whoever need not trust it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner
from descriptors import none_left
from hypothesis import given
from hypothesis import strategies as st
from stored_image import put

from hpcbinder.catalog import Catalog
from hpcbinder.cli.main import cli
from hpcbinder.cli.session import Session
from hpcbinder.errors import CatalogError, HpcbinderError, RegisterError, UsageError
from hpcbinder.register import (
    Published,
    checked,
    icon_url,
    is_published,
    publish,
    published_ids,
    published_of,
    repository_path,
    unpublish,
)

ID = "ligo-0123456789ab"
PNG = b"\x89PNG\r\n\x1a\n" + b"\0" * 20


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    return Catalog(tmp_path / "store")


def test_what_is_published_is_read_until_it_is_taken_back(catalog: Catalog) -> None:
    record = Published("LIGO", description="First.", path="./a//b.ipynb", resources={"cpus": "4"}, groups=("phys",))
    path = publish(catalog, put(catalog), record)
    found = published_of(catalog.path, ID, trusted=True)
    assert found is not None and (found.title, found.path, found.groups) == ("LIGO", "a/b.ipynb", ("phys",))
    assert published_of(catalog.path, ID) == found
    assert published_ids(catalog.path) == [ID] and is_published(catalog, ID)
    assert path.stat().st_mode & 0o777 == 0o644 and path.parent.stat().st_mode & 0o777 == 0o755
    assert unpublish(catalog, ID) == path
    assert unpublish(catalog, ID) is None
    assert published_ids(catalog.path) == [] and published_of(catalog.path, ID, trusted=True) is None


def test_a_sites_image_is_published_where_it_lies(catalog: Catalog, tmp_path: Path) -> None:
    entry = put(catalog)
    with pytest.raises(RegisterError, match="lies in a site's store"):
        publish(Catalog(tmp_path / "own", [catalog.path]), entry, Published("LIGO"))


@pytest.mark.parametrize(
    ("record", "why"),
    [
        (Published(""), "a title is not empty"),
        (Published("x" * 101), "a title is one line"),
        (Published("a\nb"), "a title is one line"),
        (Published("x", description="\u202eabc"), "a description is one line"),
        (Published("x", path="../x"), "relative to it and without"),
        (Published("x", icon="javascript:alert(1)"), "an icon is a PNG or an SVG"),
        (Published("x", icon="data:text/html;base64,PHNjcmlwdD4="), "an icon is a PNG or an SVG"),
        (Published("x", resources={"cpus": "many"}), "cpus is a number"),
        (Published("x", resources={"prologue": "sh"}), "a server's job has no 'prologue'"),
        (Published("x", resources={"tasks": "4"}), "a server's job has no 'tasks'"),
        (Published("x", resources={"time": "1\n2"}), "is not a time"),
        (Published("x", groups=("a b",)), "is no name of a group"),
    ],
)
def test_what_cannot_be_meant_is_refused(catalog: Catalog, record: Published, why: str) -> None:
    with pytest.raises(UsageError, match=why):
        publish(catalog, put(catalog), record)
    assert published_ids(catalog.path) == []


def test_icons_are_pictures(tmp_path: Path) -> None:
    file = tmp_path / "icon"
    file.write_bytes(PNG)
    assert checked(Published("x", icon=icon_url(file))).icon.startswith("data:image/png;base64,iVBOR")
    file.write_text('<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"/>')
    assert checked(Published("x", icon=icon_url(file))).icon.startswith("data:image/svg+xml;base64,")
    for content, why in ((b"GIF89a", "neither a PNG nor an SVG"), (PNG + b"\0" * (64 << 10), "larger than 64 KiB")):
        file.write_bytes(content)
        with pytest.raises(UsageError, match=why):
            icon_url(file)
    with pytest.raises(UsageError, match="cannot be read"):
        icon_url(tmp_path / "none")


@given(st.text())
def test_a_path_stays_in_the_repository(text: str) -> None:
    try:
        path = repository_path(text)
    except UsageError:
        return
    assert repository_path(path) == path
    inside = os.path.normpath(f"/srv/repo/{path}")
    assert inside == "/srv/repo" or inside.startswith("/srv/repo/")


def write(catalog: Catalog, content: bytes) -> Path:
    put(catalog)
    folder = catalog.path / "published"
    folder.mkdir(mode=0o755)
    path = folder / f"{ID}.json"
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"{}",
        b'{"title": 3}',
        b'{"title": "x", "groups": "phys"}',
        b'{"title": "x", "resources": {"cpus": 4}}',
        b'{"title": "x", "path": "/etc"}',
        b"[" * 100_000,
        b"\xff\xfe",
        b'{"title": "' + b"x" * (300 << 10) + b'"}',
    ],
)
def test_a_damaged_record_is_said_to_be_one(catalog: Catalog, content: bytes) -> None:
    write(catalog, content)
    with pytest.raises(CatalogError):
        published_of(catalog.path, ID)


def test_nothing_but_a_file_of_the_stores_own_is_read(catalog: Catalog, tmp_path: Path) -> None:
    path = write(catalog, b'{"title": "x"}')
    assert published_of(catalog.path, ID) == Published("x")
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(CatalogError):
        published_of(catalog.path, ID)
    path.unlink()
    path.mkdir()
    # A hub looks again and again.
    with none_left(), pytest.raises(CatalogError):
        published_of(catalog.path, ID)
    path.rmdir()
    (tmp_path / "other").write_bytes(b'{"title": "x"}')
    path.symlink_to(tmp_path / "other")
    with pytest.raises(CatalogError):
        published_of(catalog.path, ID, trusted=True)


def test_where_everybody_may_write_nobody_is_believed(catalog: Catalog) -> None:
    path = write(catalog, b'{"title": "x"}')
    path.parent.chmod(0o777)
    assert published_of(catalog.path, ID) is None


VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text()),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(), inner, max_size=3)),
    max_leaves=6,
)
NAMES = ("title", "repository", "ref", "description", "icon", "path", "resources", "groups")


@given(st.dictionaries(st.sampled_from(NAMES), VALUES).map(lambda said: {"title": "x", **said}))
def test_a_strangers_record_is_fit_to_be_shown_or_damaged(said: dict[str, Any]) -> None:
    from hpcbinder.catalog import parse

    try:
        record: Published = checked(parse(json.dumps(said).encode(), Published, Path("record")))
    except HpcbinderError:
        return
    assert record.title.strip() and "\n" not in record.title + record.description + record.ref + record.repository
    assert checked(record) == record


# Through the command line


def hpcbinder(catalog: Catalog, *arguments: str) -> str:
    home = str(catalog.path.parent)
    ran = CliRunner().invoke(
        cli,
        ["--store", str(catalog.path), *arguments],
        obj=Session(),
        env={"HOME": home, "JUPYTER_DATA_DIR": home},
        standalone_mode=False,
    )
    if ran.exception is not None:
        raise ran.exception
    return ran.stdout


def test_the_command_line_publishes_and_takes_back(catalog: Catalog, tmp_path: Path) -> None:
    put(catalog)
    (tmp_path / "icon.png").write_bytes(PNG)
    said = ["--title", "LIGO", "--open", "index.ipynb", "--icon", str(tmp_path / "icon.png"), "--group", "phys"]
    said += ["--on", "slurm", "--cpus-per-task", "4", "--gpus", "a100:1"]
    answer = json.loads(hpcbinder(catalog, "register", "ligo", "--jupyterhub", *said, "--json"))
    assert answer["id"] == ID
    assert answer["published"]["resources"] == {"cpus": "4", "gpus": "a100:1"}
    assert answer["published"]["repository"] == "https://example.org/ligo/tutorials"
    assert answer["published"]["ref"] == "main (8c1f0a2)"
    (listed,) = json.loads(hpcbinder(catalog, "list", "--own", "--json"))
    assert listed["published"] == answer["published"]
    again = hpcbinder(catalog, "register", ID, "--jupyterhub")
    assert f"{ID}  offered to hubs of {catalog.path} as ligo" in again
    found = published_of(catalog.path, ID, trusted=True)
    assert found is not None and (found.title, found.groups, found.resources) == ("ligo", (), {})
    assert "no longer offered to hubs" in hpcbinder(catalog, "unregister", ID)
    assert "no kernel, hub or module" in hpcbinder(catalog, "unregister", ID)
    assert json.loads(hpcbinder(catalog, "list", "--own", "--json"))[0]["published"] is None


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ((), "--kernel, --jupyterhub or --module"),
        (("--kernel", "--title", "x"), "--title is about an environment of a hub (add --jupyterhub)"),
        (("--jupyterhub", "--modules-folder", "x"), "--modules-folder is about a module"),
        (("--jupyterhub", "--name", "x"), "--name is a kernel's or a module's"),
        (("--jupyterhub", "--module", "--kernel", "--name", "x"), "--name is a kernel's or a module's"),
        (("--module", "--on", "slurm"), "a module's commands run where they are called"),
        (("--jupyterhub", "--on", "slurm", "-n", "2"), "a server is one process"),
        (("--jupyterhub", "--export", "kubespawner", "--json"), "--export registers nothing"),
        (("--jupyterhub", "--export", "wrapspawner", "--group", "x"), "an export is for all who may choose it"),
    ],
)
def test_what_does_not_go_together(catalog: Catalog, words: tuple[str, ...], why: str) -> None:
    put(catalog)
    with pytest.raises((click.UsageError, UsageError)) as caught:
        hpcbinder(catalog, "register", ID, *words)
    assert why in str(caught.value)
    assert published_ids(catalog.path) == []


def test_an_image_that_goes_is_offered_no_more(catalog: Catalog) -> None:
    publish(catalog, put(catalog), Published("LIGO"))
    kept = hpcbinder(catalog, "gc", "--images", "--older-than", "0", "--json")
    assert json.loads(kept)["kept"] == {ID: "offered to hubs"}
    hpcbinder(catalog, "rm", ID)
    assert published_ids(catalog.path) == []
