"""What is said of an image's space: names, origins, places; and what a site may say."""

from __future__ import annotations

import dataclasses

import pytest

from hpcbinder.config import SpaceConfig, load
from hpcbinder.contract import LABEL_PREFIX, LEVEL_LABEL, OWN_LEVEL, REPO_DIR
from hpcbinder.errors import UsageError
from hpcbinder.model import BaseRef, Entry, ImageConfig
from hpcbinder.runtime import space_of
from hpcbinder.runtime.launch.space import read_space
from hpcbinder.runtime.launch.space.templates import variables

COMMIT = "0123456789abcdef0123456789abcdef01234567"
ENTRY = Entry(
    id="analysis-0123456789ab",
    source="https://example.org/alice/analysis",
    ref="HEAD",
    commit=COMMIT,
    uncommitted=False,
    subdir="",
    buildpacks=(),
    base=BaseRef("debian:bookworm", "bookworm", "3.11", "amd64", "1"),
    image={},
    config=ImageConfig("sha256:0", "amd64", "", {}, (), (), "/home/jovyan", {}, (), ()),
    formats={},
    kernels=(),
    packages={},
    decisions=(),
    timings={},
    size=0,
    created=0,
)


@pytest.mark.parametrize(
    ("source", "origin"),
    [
        ("https://example.org/a/b.git", "https://example.org/a/b.git"),
        ("https://user:secret@example.org/a", "https://example.org/a"),
        ("https://token@example.org/a", "https://example.org/a"),
        ("ssh://git:secret@example.org:2222/a", "ssh://git@example.org:2222/a"),
        ("git@example.org:a/b.git", "git@example.org:a/b.git"),
        ("file:///srv/git/a.git", "file:///srv/git/a.git"),
        ("/home/alice/work", ""),
        ("ext::sh -c true", ""),
        ("host:--upload-pack=x", ""),
        ('https://example.org/a"\n[core]', ""),
    ],
)
def test_where_changes_are_pushed(source: str, origin: str) -> None:
    said = space_of(dataclasses.replace(ENTRY, source=source), SpaceConfig())
    assert said["origin"] == origin
    assert read_space(said).name == "analysis"


def test_what_has_no_origin() -> None:
    for changes in ({"commit": None}, {"uncommitted": True}):
        assert space_of(dataclasses.replace(ENTRY, **changes), SpaceConfig())["origin"] == ""


@pytest.mark.parametrize(
    ("ref", "name"),
    [
        ("HEAD", "analysis"),
        ("working tree", "analysis"),
        ("main", "analysis-main"),
        ("feature/new plot", "analysis-feature-new-plot"),
        (COMMIT, "analysis-0123456789ab"),
        ("../../x\n", "analysis-x"),
        ("ünï", "analysis-n"),
        ("é", "analysis"),
        ("x" * 300, "analysis-" + "x" * 40),
    ],
)
def test_a_folder_s_name(ref: str, name: str) -> None:
    said = space_of(dataclasses.replace(ENTRY, ref=ref), SpaceConfig())
    assert read_space(said).name == name


def test_where_the_content_is() -> None:
    labels = {f"{LABEL_PREFIX}{LEVEL_LABEL}": OWN_LEVEL}
    config = dataclasses.replace(ENTRY.config, labels=labels)
    assert space_of(ENTRY, SpaceConfig())["repository"] == REPO_DIR
    assert space_of(dataclasses.replace(ENTRY, config=config), SpaceConfig())["repository"] == "/home/jovyan"
    nowhere = dataclasses.replace(ENTRY, config=dataclasses.replace(config, workdir="/"))
    assert space_of(nowhere, SpaceConfig())["repository"] == REPO_DIR


def test_what_a_site_may_say() -> None:
    for good in ("{home}/x", "~/x", "/p/{user}/x y", "$SCRATCH", "${SCRATCH}/a", "/p/$PROJECT-x/{user}"):
        config = load({"space.folder": good, "space.caches": good, "space.purged_after": "30d"})
        variables(config.space.folder)  # is taken where it is used, too
        said = space_of(ENTRY, config.space)
        assert (said["root"], said["caches"], said["purged_after"]) == (good, good, 30)
    for bad in ("x", "{user}/x", "/p/{other}", "/p/$", "/p/$(id)", "/p/a:b", "/p/a,b", "/p/{user", "~bob/x", "/p\n"):
        with pytest.raises(UsageError):
            load({"space.folder": bad})
    for bad in ("0d", "30", "d", "-1d"):
        with pytest.raises(UsageError):
            load({"space.purged_after": bad})
