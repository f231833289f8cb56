"""What images can stand on: Debian from packages or a registry, and interpreters from folders and images.

Nothing is built here; bases are asked for what a plan asks them. A registry is the rig's, its images all but empty.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
import ssl
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from standins import OS_RELEASE, debian, image, push

from hpcbinder.bases import BaseImage, Bases, base_tag
from hpcbinder.bases.published import PublishedBase
from hpcbinder.bases.recipe import base_key
from hpcbinder.config import BasesConfig, BuildConfig, Config, RegistryConfig, SiteConfig, StoreConfig
from hpcbinder.errors import BuildError, DetectError, RegistryError
from hpcbinder.image import DockerArchive
from hpcbinder.model import BaseRef, Python, Stage
from hpcbinder.plan import SERVER_PYTHONS, SUITES, Foundation, debian_python
from hpcbinder.progress import Silent
from rig import Registry

BOOKWORM = debian_python("bookworm")


class Heard(Silent):
    """Remembers what is said."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def phase(self, name: str, message: str, done: float | None = None) -> None:
        self.lines.append(message)

    def log(self, name: str, line: str) -> None:
        self.lines.append(line)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    (tmp_path / "store").mkdir()
    return tmp_path / "store"


@pytest.fixture
def no_mmdebstrap(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))


@pytest.fixture
def mmdebstrap(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/mmdebstrap").write_text("#!/bin/sh\n")
    (tmp_path / "bin/mmdebstrap").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))


def bases(
    store: Path,
    *,
    suite: str = "bookworm",
    site: tuple[Path, ...] = (),
    mirrors: Mapping[str, str] | None = None,
    refresh: bool = False,
    heard: Heard | None = None,
    **settings: Any,
) -> Bases:
    config = Config(
        store=StoreConfig(path=store, site=site),
        build=BuildConfig(suite=suite),
        bases=BasesConfig(**{"python_images": "named", "older": (), **settings}),
        registry=RegistryConfig(mirrors=mirrors or {}),
    )
    return Bases(config, "amd64", heard or Silent(), refresh=refresh)


def stand(offered: Bases, python: Python = BOOKWORM) -> Foundation:
    return offered.stand(python, "amd64")


# Debian.


def test_debian_is_bootstrapped_where_it_can_be(store: Path, mmdebstrap: None) -> None:
    found = stand(bases(store))
    assert found == Foundation(BaseRef("debian:bookworm", "bookworm", "3.11", "amd64", "1"), BOOKWORM, BOOKWORM, ())


def test_a_kept_base_needs_no_tool(store: Path, no_mmdebstrap: None) -> None:
    ref = BaseRef("debian:bookworm", "bookworm", "3.11", "amd64", "1")
    (store / "bases" / base_key(ref)).mkdir(parents=True)
    (store / "bases" / base_key(ref) / "image.tar").write_bytes(b"")
    assert stand(bases(store)).base == ref


def test_without_the_tool_it_comes_from_a_registry_and_that_is_said(
    store: Path, no_mmdebstrap: None, registry: Registry, tmp_path: Path
) -> None:
    name = f"{registry.host}/offer/debian:bookworm-slim"
    digest = push(debian(tmp_path / "debian"), name, tmp_path)
    heard = Heard()
    found = stand(bases(store, images={"debian:bookworm-slim": name}, heard=heard))
    assert found.base.image == f"{name}@{digest}"
    assert found.base.name == "debian:bookworm"
    assert heard.lines == [f"no mmdebstrap here: Debian bookworm comes from {name}@{digest}"]
    (prepare,) = found.steps
    assert (prepare.name, prepare.stage) == ("base/prepare", Stage.SERVER)
    assert "git\n" in prepare.data["packages"] and prepare.data["suite"] == "bookworm"


def test_without_either_the_plan_is_the_usual_one(store: Path, no_mmdebstrap: None) -> None:
    heard = Heard()
    found = stand(bases(store, images={"debian:bookworm-slim": "127.0.0.1:9/debian:bookworm-slim"}, heard=heard))
    assert found.base.image == "" and found.steps == ()
    assert heard.lines[0].startswith("no mmdebstrap here, and no debian:bookworm-slim either: ")


def test_a_registry_that_was_asked_for_must_answer(store: Path, mmdebstrap: None) -> None:
    with pytest.raises(RegistryError, match="127.0.0.1:9"):
        stand(bases(store, source="registry", images={"debian:bookworm-slim": "127.0.0.1:9/debian:bookworm-slim"}))


def published(archive: Path, suite: str = "bookworm", *, key: str = "") -> PublishedBase:
    ref = BaseRef(f"debian:{suite}", suite, SUITES[suite].python, "amd64", "1")
    return PublishedBase(BaseImage(archive, DockerArchive(archive).config, ""), key or base_key(ref))


def test_a_base_of_ours_in_a_registry_lacks_nothing(
    store: Path, no_mmdebstrap: None, registry: Registry, tmp_path: Path
) -> None:
    name = f"{registry.host}/offer/ours:1"
    archive = debian(tmp_path / "ours", mark="ours")
    digest = push(published(tmp_path / "ours/image.tar"), name, tmp_path)
    offered = bases(store, images={"debian:bookworm-slim": name})
    for again in (offered, bases(store, images={"debian:bookworm-slim": name})):  # the second knows it by its pin
        found = stand(again)
        assert (found.base.image, found.steps) == (f"{name}@{digest}", ())
        assert again.lacks_nothing("bookworm") is True
    kept = offered.image(found.base, store / "bases")
    # The very layer that whoever published it has, and nothing of what tells it in a registry from others.
    assert kept.config.diff_ids == archive.config.diff_ids
    assert set(kept.config.labels) == {"org.hpcbinder.base", "org.hpcbinder.base.variant"}


def test_a_suite_that_has_no_base_is_not_published(store: Path) -> None:
    with pytest.raises(BuildError, match=r"no base for Debian sid"):
        bases(store).published("sid", store / "bases")
    assert not (store / "bases").exists()


@pytest.mark.parametrize("what", ["another recipe", "another suite", "more layers"])
def test_what_only_stands_on_a_base_of_ours_is_no_base(
    store: Path, registry: Registry, tmp_path: Path, what: str
) -> None:
    name = f"{registry.host}/offer/{what.replace(' ', '-')}:1"
    archive, path = debian(tmp_path / "one", mark=what), tmp_path / "one/image.tar"
    if what == "more layers":
        archive, path = image(tmp_path / "two", {"etc/more": "x"}, below=archive), tmp_path / "two/image.tar"
    key = "0123456789abcdef" if what == "another recipe" else ""
    push(published(path, "trixie" if what == "another suite" else "bookworm", key=key), name, tmp_path)
    offered = bases(store, source="registry", images={"debian:bookworm-slim": name})
    found = stand(offered)
    assert [step.name for step in found.steps] == ["base/prepare"]
    assert offered.lacks_nothing("bookworm") is False
    assert len(offered.image(found.base, store / "bases").config.diff_ids) == len(archive.config.diff_ids) + 1


# Pins.


def test_a_name_stays_what_it_was_when_it_was_first_used(store: Path, registry: Registry, tmp_path: Path) -> None:
    name = f"{registry.host}/offer/moving:1"
    settings: dict[str, Any] = {"source": "registry", "images": {"debian:bookworm-slim": name}}
    first = push(debian(tmp_path / "one", mark="one"), name, tmp_path)
    assert stand(bases(store, **settings)).base.image == f"{name}@{first}"
    second = push(debian(tmp_path / "two", mark="two"), name, tmp_path)
    assert second != first
    assert stand(bases(store, **settings)).base.image == f"{name}@{first}"
    assert stand(bases(store, **settings, refresh=True)).base.image == f"{name}@{second}"
    assert stand(bases(store, **settings)).base.image == f"{name}@{second}"


def test_everybody_of_a_site_has_its_pins(store: Path, registry: Registry, tmp_path: Path) -> None:
    name = f"{registry.host}/offer/site:1"
    settings: dict[str, Any] = {"source": "registry", "images": {"debian:bookworm-slim": name}}
    first = push(debian(tmp_path / "one", mark="site one"), name, tmp_path)
    stand(bases(store, **settings))
    push(debian(tmp_path / "two", mark="site two"), name, tmp_path)
    (tmp_path / "mine").mkdir()
    assert stand(bases(tmp_path / "mine", site=(store,), **settings)).base.image == f"{name}@{first}"
    assert not list((tmp_path / "mine").iterdir())


def test_to_look_at_a_plan_makes_no_store(registry: Registry, tmp_path: Path) -> None:
    name = f"{registry.host}/offer/plan:1"
    push(debian(tmp_path / "one"), name, tmp_path)
    stand(bases(tmp_path / "none", source="registry", images={"debian:bookworm-slim": name}))
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("text", ["", "{", '{"image": 1}', '{"image": "debian:bookworm", "python": ""}'])
def test_a_pin_that_is_damaged_is_asked_for_again(store: Path, registry: Registry, tmp_path: Path, text: str) -> None:
    name = f"{registry.host}/offer/damaged:1"
    settings: dict[str, Any] = {"source": "registry", "images": {"debian:bookworm-slim": name}}
    digest = push(debian(tmp_path / "one"), name, tmp_path)
    stand(bases(store, **settings))
    (pin,) = (store / "pins").iterdir()
    pin.write_text(text)
    assert stand(bases(store, **settings)).base.image == f"{name}@{digest}"
    assert json.loads(pin.read_text())["image"] == f"{name}@{digest}"


def test_a_digest_in_the_configuration_counts(store: Path, registry: Registry, tmp_path: Path) -> None:
    name = f"{registry.host}/offer/digest:1"
    first = push(debian(tmp_path / "one", mark="digest one"), name, tmp_path)
    push(debian(tmp_path / "two", mark="digest two"), name, tmp_path)
    found = stand(bases(store, source="registry", images={"debian:bookworm-slim": f"{name}@{first}"}))
    assert found.base.image == f"{name}@{first}"


def test_through_a_mirror_it_is_still_the_image_it_was_asked_for_as(
    store: Path, registry: Registry, tmp_path: Path
) -> None:
    digest = push(debian(tmp_path / "one"), f"{registry.host}/hub/library/debian:bookworm-slim", tmp_path)
    found = stand(bases(store, source="registry", mirrors={"docker.io": f"{registry.host}/hub"}))
    assert found.base.image == f"docker.io/library/debian:bookworm-slim@{digest}"


def test_apt_reaches_an_encrypted_mirror_from_an_image_without_certificates(store: Path, tmp_path: Path) -> None:
    bundle = tmp_path / "ca.pem"
    ref = BaseRef("debian:bookworm", "bookworm", "3.11", "amd64", "1", f"debian@sha256:{'0' * 64}")
    mirrored = SiteConfig(apt_mirror="https://mirror.site/debian")
    machine = ssl.get_default_verify_paths().cafile

    def certificates(ref: BaseRef, site: SiteConfig) -> Path | None:
        return Bases(Config(store=StoreConfig(path=store), site=site), "amd64", Silent()).site(ref).ca_certificates

    assert certificates(ref, mirrored) == (Path(machine) if machine else None)
    assert certificates(ref, dataclasses.replace(mirrored, ca_certificates=bundle)) == bundle
    assert certificates(dataclasses.replace(ref, image=""), mirrored) is None
    assert certificates(ref, SiteConfig()) is None


# Images that have a Python.


@pytest.mark.parametrize(
    ("name", "suite"),
    [
        ("python:3.12-slim", "bookworm"),
        ("python:3.12-slim-trixie", "trixie"),
        ("docker.io/library/python:3.12-slim-bookworm", "bookworm"),
    ],
)
def test_an_image_that_is_named_offers_its_python(
    store: Path, registry: Registry, tmp_path: Path, name: str, suite: str
) -> None:
    place = f"{registry.host}/offer/python:{suite}"
    digest = push(debian(tmp_path / "python", suite, python="3.12.7"), place, tmp_path)
    offered = bases(store, images={name: place})
    (python,) = offered.pythons
    assert (python.version, python.suite, python.origin) == ("3.12", suite, "image")
    found = stand(offered, python)
    assert found.python == dataclasses.replace(python, full="3.12.7", digest=digest)
    assert found.python.executable == "/usr/local/bin/python3.12"
    assert (found.base.name, found.base.image) == (name, f"{place}@{digest}")
    # The server is on Debian's own.
    assert found.server == debian_python(suite) and found.base.python == SUITES[suite].python
    assert [step.name for step in found.steps] == ["base/prepare"]


def test_the_official_images_are_offered_without_asking_anybody(store: Path) -> None:
    offered = bases(store, python_images="official").pythons
    assert [p.version for p in offered if p.version in ("3.8", "3.10", "3.12")] == ["3.12", "3.10", "3.8"]
    assert {p.source for p in offered if p.version == "3.12"} == {"python:3.12-slim-bookworm"}
    assert bases(store, python_images="named").pythons == ()
    assert bases(store, python_images="official", suite="bullseye").pythons == ()


def test_images_of_old_releases_are_offered_where_the_server_has_a_python_there(
    store: Path, prefix: Path, pretended: Any
) -> None:
    def old(offered: Bases) -> set[str]:
        return {python.source for python in offered.pythons if python.suite in ("bullseye", "buster")}

    assert old(bases(store, python_images="official")) == set()
    pretended(glibc=[2, 17], system={})
    offered = bases(store, pythons=(prefix,), python_images="official")
    assert old(offered) == {"python:3.6-slim-bullseye", "python:3.5-slim-buster", "python:2.7-slim-buster"}


def test_the_packages_of_an_older_release_bring_a_python(store: Path, mmdebstrap: None) -> None:
    offered = bases(store, older=("bullseye",))
    assert [(p.version, p.full, p.source) for p in offered.pythons] == [
        ("3.9", "3.9.2", "Debian bullseye"),
        ("2.7", "2.7.18", "Debian bullseye"),
    ]
    found = stand(offered, offered.pythons[1])
    assert found.base.name == "debian:bookworm" and found.server == BOOKWORM
    (put,) = found.steps
    assert (put.name, put.stage, put.image) == ("base/older-python", Stage.INTERPRETER, "")
    assert put.data["version"] == "2.7" and "python2.7-minimal\n" in put.data["packages"]
    # Nothing of where packages come from: mirrors are mounted for the step.
    assert put.data["sources.list"].splitlines()[0].endswith("http://deb.debian.org/debian bullseye main")
    # A suite that is no older has none of it.
    assert bases(store, suite="bullseye", older=("bullseye",)).pythons == ()
    assert bases(store, older=()).pythons == ()


def test_other_images_offer_none(store: Path) -> None:
    names = ("python:3.12", "python:latest", "debian:bookworm-slim", "me/python:3.12-slim", "python:3.12-slim-sid")
    assert bases(store, images=dict.fromkeys(names, "registry.example.org/x:1")).pythons == ()


def test_an_image_out_of_reach_says_what_to_do(store: Path) -> None:
    offered = bases(store, images={"python:3.12-slim": "127.0.0.1:9/python:3.12"})
    with pytest.raises(RegistryError) as caught:
        stand(offered, offered.pythons[0])
    assert caught.value.message.startswith("Python 3.12 would come from the image python:3.12-slim: ")
    assert "bases.images" in (caught.value.hint or "") and "bases.pythons" in (caught.value.hint or "")


@pytest.mark.parametrize(("says", "shown"), [("3.11.9", "3.11.9"), ("", "(it does not say which)")])
def test_an_image_with_another_python_is_refused(
    store: Path, registry: Registry, tmp_path: Path, says: str, shown: str
) -> None:
    place = f"{registry.host}/offer/other:{says or 'none'}"
    push(debian(tmp_path / "python", python=says), place, tmp_path)
    offered = bases(store, images={"python:3.12-slim": place})
    with pytest.raises(DetectError) as caught:
        stand(offered, offered.pythons[0])
    assert f" has Python {shown}, not 3.12" in caught.value.message


# Bases made of images.


def test_the_archive_has_the_images_layers_and_our_places(store: Path, registry: Registry, tmp_path: Path) -> None:
    name = f"{registry.host}/offer/archive:1"
    theirs = debian(tmp_path / "debian", mark="archive")
    push(theirs, name, tmp_path)
    offered = bases(store, source="registry", images={"debian:bookworm-slim": name})
    ref = stand(offered).base
    made = offered.image(ref, store / "bases")
    assert made.config.diff_ids[:-1] == theirs.config.diff_ids
    assert set(made.config.env) == {"PATH"} and made.config.labels["org.hpcbinder.base"] == "debian:bookworm"
    places = {}
    for _, stream in DockerArchive(made.archive).layers([made.config.diff_ids[-1]]):
        with tarfile.open(fileobj=stream, mode="r|") as tar:
            places = {member.name: member for member in tar}
    assert places["run/hpcbinder/step"].isdir() and places["scratch"].isdir()
    assert places["etc/apt/sources.list.d/debian.sources"].isreg()
    assert offered.image(ref, store / "bases") == made
    assert base_tag(ref) == made.tag != base_tag(dataclasses.replace(ref, image=""))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (OS_RELEASE.format("trixie"), "is Debian trixie, where Debian bookworm is wanted"),
        ("ID=alpine\nVERSION_ID=3.20\n", "is no Debian, where Debian bookworm is wanted"),
    ],
)
def test_an_image_of_something_else_is_refused(
    store: Path, registry: Registry, tmp_path: Path, content: str, message: str
) -> None:
    name = f"{registry.host}/offer/wrong:{len(content)}"
    digest = push(image(tmp_path / "image", {"usr/lib/os-release": content}), name, tmp_path)
    offered = bases(store, source="registry", images={"debian:bookworm-slim": name})
    with pytest.raises(BuildError) as caught:
        offered.image(stand(offered).base, store / "bases")
    assert (caught.value.message, caught.value.where) == (message, f"{name}@{digest}")
    assert not list((store / "bases").glob("*/image.tar"))


def test_an_image_that_went_away_is_a_build_error(store: Path, registry: Registry) -> None:
    ref = BaseRef("debian:bookworm", "bookworm", "3.11", "amd64", "1", f"{registry.host}/debian@sha256:{'0' * 64}")
    with pytest.raises(BuildError, match="the base debian:bookworm cannot be had from a registry: "):
        bases(store).image(ref, store / "bases")


# Folders of interpreters: see tests/interpreters for what is found in them.


@pytest.fixture
def pretended(store: Path, prefix: Path) -> Any:
    """Makes an interpreter seem another one, by what was found out about it and kept: builds for older systems cannot
    be had here."""

    def change(**values: Any) -> Bases:
        stand_in = bases(store, pythons=(prefix,))
        assert stand_in.pythons
        (kept,) = (store / "interpreters").glob("*.json")
        kept.write_text(json.dumps({**json.loads(kept.read_text()), **values}))
        return bases(store, pythons=(prefix,))

    return change


def test_an_interpreter_of_a_folder_is_a_step_of_its_own(store: Path, prefix: Path, mmdebstrap: None) -> None:
    offered = bases(store, pythons=(prefix,))
    (python,) = offered.pythons
    assert (python.origin, python.suite, python.source) == ("folder", "bookworm", str(prefix))
    assert python.executable == f"/opt/python/{python.version}/bin/python{python.version}"
    found = stand(offered, python)
    assert found.python.digest.startswith("sha256:")
    (step,) = found.steps
    assert (step.name, step.stage) == ("base/python", Stage.INTERPRETER)
    assert step.image == f"localhost/hpcbinder/python:{python.version}-{found.python.digest[7:23]}"
    assert str(prefix) not in json.dumps([step.reason, step.script, dict(step.data)])

    made = offered.image_of(step, "bookworm", store / "bases")
    assert made.tag == step.image and made.config.diff_ids == (found.python.digest,)
    assert bases(store, pythons=(prefix,)).image_of(step, "bookworm", store / "bases") == made


def test_the_same_interpreter_elsewhere_is_the_same(store: Path, prefix: Path, tmp_path: Path) -> None:
    shutil.copytree(prefix, tmp_path / "copy", symlinks=True)
    first, second = (bases(store, pythons=(place,)) for place in (prefix, tmp_path / "copy"))
    one, two = (stand(offered, offered.pythons[0]) for offered in (first, second))
    assert one.steps == two.steps
    assert one.python.digest == two.python.digest


def test_an_interpreter_that_changed_since_the_plan_is_not_taken(store: Path, prefix: Path, tmp_path: Path) -> None:
    mine = Path(shutil.copytree(prefix, tmp_path / "copy", symlinks=True))
    offered = bases(store, pythons=(mine,))
    (step,) = stand(offered, offered.pythons[0]).steps
    with next(mine.glob("lib/python*/os.py")).open("a") as file:
        file.write("# changed\n")
    with pytest.raises(BuildError, match="is not there any more, or another one than when the plan was made"):
        bases(store, pythons=(mine,)).image_of(step, "bookworm", store / "bases")


def test_an_interpreter_for_a_newer_system_is_refused_with_the_reason(store: Path, pretended: Any) -> None:
    offered = pretended(glibc=[2, 99])
    (python,) = offered.pythons
    with pytest.raises(DetectError) as caught:
        stand(offered, python)
    assert caught.value.message.endswith(
        "cannot be had in an image: it needs version 2.99 of the GNU C library, Debian bookworm has 2.36"
    )


def test_it_takes_the_suite_that_it_runs_on(store: Path, pretended: Any) -> None:
    (python,) = pretended(glibc=[2, 40]).pythons
    assert python.suite == "trixie"


def test_libraries_that_a_base_lacks(store: Path, pretended: Any) -> None:
    dynload = "lib/python3/lib-dynload"
    offered = pretended(system={"libssl.so.1.1": [f"{dynload}/_ssl.so"]})
    with pytest.raises(DetectError, match=r"its _ssl.so needs libssl.so.1.1, which a base of Debian bookworm does not"):
        stand(offered, offered.pythons[0])
    offered = pretended(system={"libtk8.6.so": [f"{dynload}/_tkinter.so"]})
    assert stand(offered, offered.pythons[0]).python.digest  # it does without


def test_folders_that_hold_nothing_are_told_of(store: Path, tmp_path: Path, prefix: Path) -> None:
    heard = Heard()
    assert len(bases(store, pythons=(tmp_path / "none", prefix), heard=heard).pythons) == 1
    assert heard.lines == [f"{tmp_path}/none: no such file or directory"]


# Suites at the end of their life.


def test_the_server_of_an_old_suite_needs_an_interpreter(store: Path, mmdebstrap: None) -> None:
    with pytest.raises(DetectError) as caught:
        stand(bases(store, suite="bullseye"), debian_python("bullseye"))
    assert caught.value.message == (
        "no notebook server runs on Debian bullseye: it has Python 3.9, the server needs 3.11 to 3.13"
    )
    assert caught.value.hint == "name a folder with one that runs on glibc 2.31 (uv's do) in bases.pythons"


def test_the_server_of_an_old_suite_stands_on_one_of_a_folder(
    store: Path, prefix: Path, pretended: Any, mmdebstrap: None
) -> None:
    pretended(glibc=[2, 17], system={})
    offered = bases(store, suite="bullseye", pythons=(prefix,))
    (mine,) = offered.pythons
    assert mine.version in SERVER_PYTHONS and mine.suite == "bullseye"
    found = stand(offered, debian_python("bullseye"))
    assert found.python == debian_python("bullseye")
    assert (found.server.executable, found.server.origin) == (mine.executable, "folder")
    assert [(step.name, step.stage) for step in found.steps] == [("base/server-python", Stage.SERVER)]
    # The environment can have it too: it is there already.
    found = stand(offered, mine)
    assert found.python == found.server
    assert [step.name for step in found.steps] == ["base/server-python"]
