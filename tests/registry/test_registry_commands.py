"""`hpcbinder push`, `login` and `logout`, and the page about them."""

from __future__ import annotations

import io
import json
import re
import stat
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from hpcbinder.catalog import Catalog
from hpcbinder.model import BaseRef, Entry, ImageConfig
from hpcbinder.registry import Login, Platform, keep_login, parse_reference
from hpcbinder.squashfs import Options, merge, write_layer
from rig import Registry as RigRegistry
from rig.registry import private_registry

if TYPE_CHECKING:
    from conftest import Make

PAGE = Path(__file__).parents[2] / "docs/registries.md"
ID = "chirp-0123456789ab"


@dataclass(frozen=True)
class Person:
    """Somebody without an engine, in whose catalog there is one image of one file."""

    home: Path

    def __call__(self, *arguments: str, text: str = "") -> subprocess.CompletedProcess[str]:
        environment = {
            "HOME": str(self.home),
            "PATH": "/usr/bin:/bin",
            "DOCKER_HOST": f"unix://{self.home}/none.sock",
        }
        command = [sys.executable, "-m", "hpcbinder", "--store", str(self.home / "store"), *arguments]
        return subprocess.run(command, input=text, env=environment, cwd=self.home, capture_output=True, text=True)

    @property
    def logins(self) -> Path:
        return self.home / ".config/hpcbinder/auth.json"


@pytest.fixture
def person(tmp_path: Path) -> Person:
    member, tar = tarfile.TarInfo("hello"), io.BytesIO()
    member.size = 5
    with tarfile.open(fileobj=tar, mode="w") as out:
        out.addfile(member, io.BytesIO(b"world"))
    tar.seek(0)
    catalog = Catalog(tmp_path / "store")
    with catalog.temporary() as scratch:
        folder = scratch / "image"
        folder.mkdir()
        write_layer(tar, scratch / "layer", Options())
        with (folder / "image.squashfs").open("w+b") as file:
            merge([scratch / "layer"], file)
        labels = {"org.opencontainers.image.source": "https://example.org/chirp", "mine": "1"}
        config = ImageConfig("sha256:1", "amd64", "", {"A": "1"}, ("/e",), (), "/srv/repo", labels, (), ("sha256:2",))
        entry = Entry(
            id=ID,
            source="https://example.org/chirp",
            ref="HEAD",
            commit="c" * 40,
            uncommitted=False,
            subdir="",
            buildpacks=(),
            base=BaseRef("debian:bookworm", "bookworm", "3.11", "amd64", "1"),
            image={"name": "localhost/hpcbinder/chirp:0123456789ab", "digest": "sha256:1", "engine": "docker"},
            config=config,
            formats={"squashfs": "image.squashfs"},
            kernels=(),
            packages={},
            decisions=(),
            timings={},
            size=1,
            created=1,
            timestamp=1_700_000_000,
        )
        catalog.add(entry, folder)
    return Person(tmp_path)


@pytest.fixture(scope="module")
def guarded(registry: RigRegistry, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RigRegistry]:
    """A registry that lets in ada with the password `open sesame`."""
    folder = tmp_path_factory.mktemp("guarded")
    (folder / "htpasswd").write_text("ada:$2b$05$rb3HfflX1deYghPmZgNKEu2TMoafTHJXpbrCXEqolrX8cYfPSzIda\n")
    with private_registry(folder, {"htpasswd": {"realm": "rig", "path": str(folder / "htpasswd")}}) as registry:
        yield registry


def test_an_image_is_pushed_and_the_catalog_knows(
    registry: RigRegistry, registries: Make, person: Person, tmp_path: Path
) -> None:
    place = f"{registry.host}/commands/chirp"
    done = person("push", "chirp", place)
    assert done.returncode == 0, done.stderr
    pushed = re.fullmatch(rf"({re.escape(place)}:0123456789ab)@(sha256:[0-9a-f]{{64}})\n", done.stdout)
    assert pushed is not None
    assert "no Docker daemon" in done.stderr
    assert "what is pushed is its squashfs, as one layer" in done.stderr
    image = registries().pull(parse_reference(f"{place}:0123456789ab"), Platform("amd64"), tmp_path)
    assert image.reference.digest == pushed[2]
    assert image.config.created == "2023-11-14T22:13:20Z"
    assert image.config.labels["org.hpcbinder.id"] == ID
    layers = image.layers(image.config.diff_ids)
    _, stream = next(layers)
    with tarfile.open(fileobj=stream, mode="r|") as tar:
        assert [member.name for member in tar] == [".", "hello"]
    again = person("push", ID, f"{place}:1.0", "--json")
    assert json.loads(again.stdout) == {"id": ID, "reference": f"{place}:1.0", "digest": pushed[2]}
    shown = json.loads(person("show", "chirp", "--json").stdout)["pushed"]
    assert shown == {f"{place}:0123456789ab": pushed[2], f"{place}:1.0": pushed[2]}
    assert f"{place}:1.0@{pushed[2]}" in person("show", "chirp").stdout


@pytest.mark.parametrize(
    "arguments, status, message",
    [
        (["push", "chirp", "https://ghcr.io/a/b"], 2, "is a URL, not an image"),
        (["push", "chirp", "ghcr.io/a/b@sha256:" + "0" * 64], 2, "says what is to come out of a push"),
        (["push", "nothing", "ghcr.io/a/b"], 8, "no image 'nothing'"),
        (["push", "chirp", "127.0.0.1:1/a/b"], 10, "127.0.0.1:1"),
        (["push", "debian:bookworm", "127.0.0.1:1/a/b"], 10, "127.0.0.1:1"),
        (["push", "debian:bookworm", "127.0.0.1:1/a/b@sha256:" + "0" * 64], 10, "127.0.0.1:1"),
        (["push", "debian:", "ghcr.io/a/b"], 8, "no image 'debian:'"),
        (["login", "https://ghcr.io"], 2, "is no registry"),
        (["login", "ghcr.io"], 2, "no terminal to ask at"),
        (["login", "ghcr.io", "--password-stdin"], 2, "wants --username too"),
        (["login", "ghcr.io", "--username", "a", "--password-stdin"], 2, "the password is empty"),
        (["build", ".", "--push", "No Image"], 2, "names no image"),
        (["build", ".", "--push", "127.0.0.1:1/a/b"], 10, "127.0.0.1:1"),
    ],
)
def test_what_does_not_work_is_one_line_and_a_code(
    person: Person, arguments: list[str], status: int, message: str
) -> None:
    done = person(*arguments)
    assert done.returncode == status
    assert message in done.stderr.splitlines()[-1]


def test_a_login_is_kept_if_it_is_let_in(guarded: RigRegistry, person: Person) -> None:
    place = f"{guarded.host}/ada/chirp"
    refused = person("push", "chirp", place)
    assert refused.returncode == 10
    assert f"hpcbinder login {guarded.host}" in refused.stderr
    wrong = person("login", guarded.host, "--username", "ada", "--password-stdin", text="wrong one\n")
    assert wrong.returncode == 10
    assert "wrong one" not in wrong.stdout + wrong.stderr
    assert not person.logins.exists()
    right = person("login", guarded.host, "--username", "ada", "--password-stdin", text="open sesame\n")
    assert right.returncode == 0, right.stderr
    assert stat.S_IMODE(person.logins.stat().st_mode) == 0o600
    assert "sesame" not in right.stdout + right.stderr
    assert person("push", "chirp", place).returncode == 0
    assert person("logout", guarded.host).stdout == f"logged out of {guarded.host}\n"
    assert person("logout", guarded.host).stdout == f"no login for {guarded.host} is kept\n"
    assert person("push", "chirp", f"{place}:2").returncode == 10


def test_a_login_that_stays_is_told(person: Person) -> None:
    theirs = person.home / ".docker/config.json"
    theirs.parent.mkdir()
    keep_login("ghcr.io", Login("ada", "x"), theirs)
    assert f"there still is one in {theirs}" in person("logout", "ghcr.io").stdout


def test_the_page_is_what_one_does(guarded: RigRegistry, person: Person, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("open sesame\n")
    lines = re.findall(r"^hpcbinder (login|push|logout) (.*)$", PAGE.read_text(), re.MULTILINE)
    assert [command for command, _ in lines] == ["login", "push", "push", "logout"]
    for command, rest in lines:
        words, _, file = rest.replace("registry.example.org", guarded.host).partition(" < ")
        done = person(command, *words.split(), text=(tmp_path / file).read_text() if file else "")
        assert done.returncode == 0, done.stderr
