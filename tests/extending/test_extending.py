"""A new image of one, with packages of a test's own index added: what is in it, what stays, and what is refused."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from package_index import PackageIndex

from hpcbinder.builders.assembling import Entry as TreeEntry
from hpcbinder.builders.assembling import File, Layer, layer_tar
from hpcbinder.builders.assembling.tree import Folder, Link
from hpcbinder.catalog import Catalog
from hpcbinder.config import Config, SiteConfig, StoreConfig
from hpcbinder.contract import MANIFEST, PACKAGES_DIR
from hpcbinder.convert import LayerCache, convert
from hpcbinder.errors import BuildError, DetectError, HpcbinderError, UsageError
from hpcbinder.extending import Addition, extend, requirements_of
from hpcbinder.lock import Resolver
from hpcbinder.model import BaseRef, Entry, ImageConfig, Lock, Python, Wanted
from hpcbinder.progress import Silent
from hpcbinder.squashfs import Image, Options, write_layer
from hpcbinder.wheels import Target, WheelStore
from rig import Apptainer, Registry

PYTHON = ".".join(map(str, sys.version_info[:3]))
SITE = f"/opt/env/lib/python{sys.version_info[0]}.{sys.version_info[1]}/site-packages"
BASE = BaseRef("debian:bookworm", "bookworm", "3.11", "amd64", "1")
OPTIONS = Options("gzip", 1, 262144)


@dataclass
class Place:
    """A store with an image of `pack 1.0`, which needs `part`, and an index with more."""

    catalog: Catalog
    config: Config
    index: PackageIndex
    image: Entry

    def extend(self, *requirements: str, image: Entry | None = None, upgrade: bool = False) -> Entry:
        wish = Addition(requirements, upgrade)
        return extend(image or self.image, wish, self.config, self.catalog, Silent())

    def command(self, *words: str, environment: Mapping[str, str]) -> str:
        """What the program prints, on this store."""
        argv = [sys.executable, "-B", "-m", "hpcbinder", "--store", str(self.catalog.path), *words]
        given = {**os.environ, "CI": "1", **environment}
        done = subprocess.run(argv, env=given, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout


@pytest.fixture
def place(tmp_path: Path, package_index: PackageIndex) -> Iterator[Place]:
    package_index.ours()
    package_index.wheel("pack", "1.0", requires=["part"], files={"pack_more/old.py": "OLD = 1\n", "pack_same.py": "\n"})
    package_index.wheel("pack", "2.0", requires=["part"], files={"pack_more/new.py": "NEW = 1\n", "pack_same.py": "\n"})
    package_index.wheel("part", "1.0")
    package_index.wheel("extra", "1.0", requires=["part", "other"])
    package_index.wheel("other", "1.0")
    package_index.wheel("newer", "1.0", requires=["pack>=2"])
    package_index.sdist("source", "1.0")
    catalog = Catalog(tmp_path / "store")
    config = replace(Config(), store=StoreConfig(tmp_path / "store"), site=SiteConfig(pip_index_url=package_index.url))
    yield Place(catalog, config, package_index, image(catalog, config, ("pack==1.0",)))


def image(catalog: Catalog, config: Config, requirements: tuple[str, ...]) -> Entry:
    """An image as an engine or the assembler leaves it, on a base of a few files."""
    wanted = Wanted("pypi", (*requirements, "ipykernel", "pip"), (), (), False, PYTHON, "amd64", "bookworm", "test")
    lock = Resolver(catalog.path, config.site, refresh=False, reporter=Silent())(wanted)
    listed = [{"name": package.name, "version": package.version} for package in lock.packages]
    tree: dict[str, TreeEntry] = {
        "/usr/bin/python3": File(b"#!/bin/sh\n", 0o755),
        "/opt/env/bin/python": Link("/usr/bin/python3"),
        "/opt/env/pyvenv.cfg": File(f"home = /usr/bin\nversion_info = {PYTHON}\n".encode()),
        SITE: Folder(),
        MANIFEST: File(json.dumps({"id": "chirp-1", "rebuild": "hpcbinder build -- X", "locks": []}).encode()),
        f"{PACKAGES_DIR}/python.json": File(json.dumps(listed).encode()),
        "/srv/repo/start.txt": File(b"as it was\n"),
    }
    with catalog.temporary() as scratch:
        lowest = scratch / "lowest.layer"
        diff_id = write_layer(io.BytesIO(layer_tar(tree)), lowest, OPTIONS)
        target = Target("/opt/env", PYTHON, "/opt/env/bin/python", "amd64", lock.platform)
        wheels = WheelStore(catalog.path / "wheels", config.site, OPTIONS, Silent())
        packages = wheels.layers(lock, target, scratch=scratch)
        layers = [LayerCache(catalog.layers_dir, OPTIONS).keep(lowest, diff_id), *packages]
        diff_ids = (diff_id, *(Layer.of_package(path).identity for path in packages))
        about = ImageConfig("sha256:0", "amd64", "", {"PATH": "/opt/env/bin"}, (), (), "/srv/repo", {}, (), diff_ids)
        folder = scratch / "image"
        folder.mkdir()
        made = _converted(about, catalog, folder, layers)
        return catalog.add(_entry(about, made, lock), folder)


def _converted(about: ImageConfig, catalog: Catalog, folder: Path, layers: list[Path]) -> dict[str, Path]:
    class Given:
        config = about

        def layers(self, wanted: object) -> Iterator[tuple[str, io.BytesIO]]:
            raise AssertionError("they are squashed")

    return convert(
        Given(),  # type: ignore[arg-type]
        layers_dir=catalog.layers_dir,
        folder=folder,
        name="chirp-000000000001",
        labels={},
        timestamp=0,
        formats=("sif", "squashfs"),
        options=OPTIONS,
        reporter=Silent(),
        layers=layers,
    ).formats


def _entry(about: ImageConfig, formats: dict[str, Path], lock: Lock) -> Entry:
    major = f"{sys.version_info[0]}.{sys.version_info[1]}"
    return Entry(
        id="chirp-000000000001",
        source="https://example.org/chirp",
        ref="main",
        commit="c" * 40,
        uncommitted=False,
        subdir="",
        buildpacks=(),
        base=BASE,
        image={"name": "localhost/hpcbinder/chirp:000000000001", "digest": "sha256:0", "engine": "docker"},
        config=about,
        formats={name: str(path) for name, path in formats.items()},
        kernels=(),
        packages={},
        decisions=(),
        timings={},
        size=1,
        created=int(time.time()),
        locks=(lock,),
        asked={"python": ("pack",)},
        python=Python(major, PYTHON, "bookworm", "debian"),
        compression={"name": "gzip:1", "why": ""},
    )


def files(entry: Entry) -> dict[str, bytes]:
    with Image.open(entry.formats["squashfs"]) as opened:
        return {path: opened.read(path) for path, node in opened.walk() if node.kind == "file"}


def environment(entry: Entry) -> dict[str, bytes]:
    return {path: content for path, content in files(entry).items() if path.startswith("opt/env/")}


def test_packages_are_added_and_nothing_else_changes(place: Place) -> None:
    before = files(place.image)
    new = place.extend("extra")
    after = files(new)
    assert new.id != place.image.id and new.id.startswith("chirp-")
    assert new.added == ("extra 1.0", "other 1.0") and new.parent == place.image.id
    ours = ("opt/hpcbinder/", ".singularity.d/")
    assert {path for path in before if before[path] != after.get(path) and not path.startswith(ours)} == set()
    added = {path for path in after.keys() - before.keys() if path.startswith("opt/")}
    site = SITE.lstrip("/")
    assert f"{site}/extra.py" in added and f"{site}/other-1.0.dist-info/RECORD" in added
    assert all("extra" in path or "other" in path for path in added)
    assert {path for path in added if path.endswith(".pyc")}
    # The image that it was made of is as it was.
    assert files(place.catalog.get(place.image.id)) == before


def test_the_image_and_the_catalog_say_what_was_added(place: Place) -> None:
    new = place.extend("extra")
    found = files(new)
    manifest = json.loads(found[MANIFEST.lstrip("/")])
    assert (manifest["id"], manifest["parent"]) == (new.id, place.image.id)
    assert manifest["added"] == ["extra 1.0", "other 1.0"]
    assert manifest["rebuild"].endswith(f"&& hpcbinder extend {place.image.id} extra==1.0 other==1.0")
    assert [package["name"] for package in manifest["locks"][-1]["packages"]] == ["extra", "other"]
    names = [package["name"] for package in new.packages["python"]]
    assert names == ["extra", "ipykernel", "other", "pack", "part", "pip"]
    assert new.config.labels["org.hpcbinder.parent"] == place.image.id
    assert new.asked["python"] == ("extra", "pack")
    assert new.image["engine"] == "none" and new.locks[:-1] == place.image.locks
    assert new.formats.keys() == place.image.formats.keys()


def test_the_same_again_is_the_same_image(place: Place) -> None:
    first = place.extend("extra")
    asked = len(place.index.requests)
    assert place.extend("extra").id == first.id
    assert len(place.index.requests) == asked
    # Nor is anything made if all of it is there.
    assert place.extend("part", image=first).id == first.id
    assert len(place.catalog.list()) == 2


def test_what_is_there_stays_in_its_version(place: Place) -> None:
    with pytest.raises(DetectError, match="pack") as refused:
        place.extend("newer")
    assert "--upgrade" in (refused.value.hint or "")
    with pytest.raises(DetectError) as unknown:
        place.extend("nosuch")
    assert "--upgrade" not in str(unknown.value)


def test_an_upgrade_leaves_nothing_of_the_old_version(place: Place) -> None:
    new = place.extend("newer", upgrade=True)
    assert new.added == ("newer 1.0", "pack 2.0")
    # The very same as an environment made at once.
    directly = image(place.catalog, place.config, ("pack==2.0", "newer"))
    assert environment(new) == environment(directly)
    with Image.open(new.formats["squashfs"]) as mine, Image.open(directly.formats["squashfs"]) as theirs:
        folders = [{path for path, node in opened.walk() if node.kind == "directory"} for opened in (mine, theirs)]
    assert folders[0] == folders[1]


def test_a_sif_is_enough(place: Place) -> None:
    only = replace(place.image, id="chirp-000000000002", formats={"sif": place.image.formats["sif"]})
    new = extend(only, Addition(("extra",)), place.config, place.catalog, Silent())
    assert new.formats.keys() == {"sif"}


def test_an_image_of_an_image(place: Place) -> None:
    first = place.extend("other")
    second = place.extend("extra", image=first)
    assert (second.parent, second.added) == (first.id, ("extra 1.0",))
    assert environment(second) == environment(place.extend("extra"))


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ("extra @ https://example.org/extra-1.0-py3-none-any.whl", UsageError),
        ("./folder", UsageError),
        ("--index-url=https://example.org", UsageError),
        ("source", DetectError),
    ],
)
def test_what_cannot_be_added_is_refused(place: Place, line: str, error: type[HpcbinderError]) -> None:
    with pytest.raises(error):
        place.extend(line)
    assert len(place.catalog.list()) == 1


def test_an_image_without_an_environment_is_refused(place: Place, tmp_path: Path) -> None:
    bare = tmp_path / "bare.squashfs"
    write_layer(io.BytesIO(layer_tar({"/etc/hostname": File(b"x\n")})), bare, OPTIONS)
    entry = replace(place.image, id="bare-000000000001", formats={"squashfs": str(bare)})
    with pytest.raises(BuildError, match="no Python environment at /opt/env"):
        extend(entry, Addition(("extra",)), place.config, place.catalog, Silent())


def test_a_record_cannot_take_away_what_is_not_its_own(place: Place) -> None:
    """RECORD is what a wheel says: its lines may lead anywhere."""
    hostile = "/etc/hostname,,\n../../../../../srv/repo/start.txt,,\nhostile.py,,\nhostile-1.0.dist-info/RECORD,,\n"
    tree: dict[str, TreeEntry] = {
        f"{SITE}/hostile.py": File(b"1\n"),
        f"{SITE}/hostile-1.0.dist-info/RECORD": File(hostile.encode()),
    }
    with place.catalog.temporary() as scratch:
        from hpcbinder.squashfs import merge

        top, path = scratch / "top", place.catalog.path / "hostile.squashfs"
        write_layer(io.BytesIO(layer_tar(tree)), top, OPTIONS)
        with path.open("w+b") as out:
            merge([Path(place.image.formats["squashfs"]), top], out)
    place.index.wheel("hostile", "2.0")
    entry = replace(place.image, id="chirp-000000000003", formats={"squashfs": str(path)})
    new = extend(entry, Addition(("hostile==2.0",), upgrade=True), place.config, place.catalog, Silent())
    found = files(new)
    assert found["srv/repo/start.txt"] == b"as it was\n"
    assert f"{SITE.lstrip('/')}/hostile-2.0.dist-info/RECORD" in found
    assert f"{SITE.lstrip('/')}/hostile-1.0.dist-info/RECORD" not in found


def test_requirements_come_from_files_too(tmp_path: Path) -> None:
    path = tmp_path / "more.txt"
    path.write_text("# what we like\nextra >= 1  # at least\n\nother==1.0 \\\n  ; python_version >= '3'\n")
    assert requirements_of(path) == ("extra >= 1", "other==1.0    ; python_version >= '3'")
    path.write_text("extra\n-r others.txt\n")
    with pytest.raises(UsageError, match=r"more.txt:2: options have no place here"):
        requirements_of(path)


def test_nothing_of_an_image_is_started_to_compile_for_it(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where this machine has no such Python the base's is: whoever built the image could replace its own."""
    monkeypatch.setattr("hpcbinder.wheels.store.host_interpreter", lambda target: None)
    monkeypatch.setattr(
        "hpcbinder.bases.Bases.image", lambda *_: (_ for _ in ()).throw(BuildError("the base is asked"))
    )
    with pytest.raises(BuildError, match="the base is asked"):
        place.extend("extra")


def test_the_command_reads_files_and_leaves_kernels_that_are_to_be_kept(
    place: Place, apptainer: Apptainer, tmp_path: Path
) -> None:
    environment = {"PATH": f"{apptainer.bin}:{os.defpath}", "HPCBINDER_SITE_PIP_INDEX_URL": place.index.url}
    jupyter = tmp_path / "jupyter"

    def command(*words: str) -> dict[str, Any]:
        found = json.loads(place.command(*words, "--json", environment=environment))
        assert isinstance(found, dict)
        return found

    def runs(image: dict[str, Any], name: str) -> bool:
        return image["id"] in (jupyter / "share/jupyter/kernels" / name / "launch.json").read_text()

    first = command("extend", place.image.id, "other", "--name", "mine", "--prefix", str(jupyter))
    assert runs(first, "mine")
    (tmp_path / "more.txt").write_text("extra==1.0\n# and no more\n")
    wish = ["extend", first["id"], "-r", str(tmp_path / "more.txt")]
    second = command(*wish, "--keep-kernel", "--name", "beside", "--prefix", str(jupyter))
    assert second["added"] == ["extra 1.0"]
    assert runs(first, "mine") and runs(second, "beside")
    # The same image is there: now its parent's kernel is to run it.
    assert command(*wish)["id"] == second["id"]
    assert runs(second, "mine") and not runs(first, "mine")


def test_it_is_pushed_and_pulled_as_it_is(place: Place, registry: Registry, tmp_path: Path) -> None:
    new = place.extend("newer", upgrade=True)  # with something taken away
    name = f"{registry.host}/extended/chirp:one"
    place.command("push", new.id, name, environment={})
    out = tmp_path / "pulled.squashfs"
    place.command("convert", f"docker://{name}", "--to", "squashfs", "--output", str(out), environment={})
    with Image.open(out) as image:
        pulled = {path: image.read(path) for path, node in image.walk() if node.kind == "file"}
    before = files(new)
    assert {path for path in pulled.keys() | before.keys() if pulled.get(path) != before.get(path)} <= {
        *(path for path in before if path.startswith(".singularity.d/")),
    }
