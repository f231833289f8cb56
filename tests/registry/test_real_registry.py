"""Pulls from and pushes to the distribution project's registry, with and without logins."""

from __future__ import annotations

import gzip
import json
import subprocess
import threading
import urllib.request
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

import pytest
import zstandard
from servers import DOCKER, OCI, Exchange, Script, TinyImage, config_of, descriptor, layer, manifest_of, script, sha256

from hpcbinder.errors import HpcbinderError, RegistryError, UsageError
from hpcbinder.registry import Login, Platform, RegistryImage, keep_login, parse_reference
from rig import Registry as RigRegistry
from rig.registry import private_registry

if TYPE_CHECKING:
    from conftest import Make

AMD64 = Platform("amd64")
LAYERS = (layer(one=b"1" * 100_000), layer(two=b"2"), layer(one=b"changed"))
USER, PASSWORD = "ada", "open sesame"
# htpasswd -nbB ada 'open sesame', at the lowest cost
HTPASSWD = "ada:$2b$05$rb3HfflX1deYghPmZgNKEu2TMoafTHJXpbrCXEqolrX8cYfPSzIda\n"


class Raw:
    """Speaks with a registry as bluntly as it can be done, to put there what our own push never would."""

    def __init__(self, host: str, name: str) -> None:
        self.host = host
        self.name = name

    def ask(
        self, method: str, url: str, body: bytes | None = None, **headers: str
    ) -> tuple[int, dict[str, str], bytes]:
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        request = urllib.request.Request(url, body, names, method=method)
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=30) as answer:
            return answer.status, dict(answer.headers), answer.read()

    def blob(self, content: bytes) -> bytes:
        _, headers, _ = self.ask("POST", f"http://{self.host}/v2/{self.name}/blobs/uploads/", b"")
        place = headers["Location"]
        kind = "application/octet-stream"
        self.ask("PUT", f"{place}&digest={sha256(content)}", content, Content_Type=kind)
        return content

    def manifest(self, content: bytes, tag: str, kind: str) -> bytes:
        url = f"http://{self.host}/v2/{self.name}/manifests/{tag}"
        self.ask("PUT", url, content, Content_Type=kind)
        return content


def content(image: RegistryImage) -> dict[str, bytes]:
    return {diff_id: stream.read() for diff_id, stream in image.layers(set(image.config.diff_ids))}


def expected(*layers: bytes) -> dict[str, bytes]:
    return {sha256(content): content for content in layers}


@pytest.mark.parametrize("style", [OCI, DOCKER])
@pytest.mark.parametrize("compress", [gzip.compress, zstandard.compress, bytes], ids=["gzip", "zstd", "none"])
def test_images_of_every_form_are_pulled(
    registry: RigRegistry, registries: Make, tmp_path: Path, style: str, compress: type
) -> None:
    raw = Raw(registry.host, "test/forms")
    blobs = [raw.blob(compress(content)) for content in LAYERS]
    config = raw.blob(config_of(LAYERS, Env=["A=1"]))
    kind = f"{OCI}.manifest.v1+json" if style == OCI else f"{DOCKER}.manifest.v2+json"
    manifest = raw.manifest(manifest_of(config, blobs, style=style), "1", kind)
    reference = parse_reference(f"{registry.host}/test/forms:1")
    image = registries().pull(reference, AMD64, tmp_path)
    assert content(image) == expected(*LAYERS)
    assert image.config.env == {"A": "1"}
    assert image.raw_config == config
    assert image.digest == sha256(config)
    assert registries().digest(reference) == sha256(manifest) == image.manifest.digest
    assert str(image.reference) == f"{registry.host}/test/forms:1@{sha256(manifest)}"
    pinned = parse_reference(f"{registry.host}/test/forms@{sha256(manifest)}")
    assert registries().pull(pinned, AMD64, tmp_path).config == image.config


def test_only_the_layers_that_are_wanted_come(server: Script, registries: Make, tmp_path: Path) -> None:
    blobs = [gzip.compress(content) for content in LAYERS]
    server.serve_image("x", config_of(LAYERS), blobs)
    image = registries().pull(parse_reference(f"{server.host}/x:1"), AMD64, tmp_path)
    wanted = image.config.diff_ids[1]
    assert [(diff_id, stream.read()) for diff_id, stream in image.layers({wanted})] == [(wanted, LAYERS[1])]
    assert list(image.layers(())) == []
    asked = [path.rpartition("/")[2] for _, path, _, _ in server.requests if "/blobs/" in path]
    assert asked == [sha256(config_of(LAYERS)), sha256(blobs[1])]


def test_of_an_index_the_machines_image_is_pulled(registry: RigRegistry, registries: Make, tmp_path: Path) -> None:
    raw = Raw(registry.host, "test/index")
    manifests = []
    for architecture in ("arm64", "amd64"):
        mine = layer(architecture=architecture.encode())
        config = raw.blob(config_of([mine], architecture))
        manifest = manifest_of(config, [raw.blob(gzip.compress(mine))])
        raw.manifest(manifest, sha256(manifest), f"{OCI}.manifest.v1+json")
        platform = {"os": "linux", "architecture": architecture}
        manifests.append(descriptor(manifest, f"{OCI}.manifest.v1+json", platform=platform))
    attestation = manifests[0] | {"platform": {"os": "unknown", "architecture": "unknown"}}
    index = json.dumps({"schemaVersion": 2, "manifests": [attestation, *manifests]}).encode()
    raw.manifest(index, "1", f"{OCI}.index.v1+json")
    reference = parse_reference(f"{registry.host}/test/index:1")
    for architecture in ("amd64", "arm64"):
        image = registries().pull(reference, Platform(architecture), tmp_path)
        assert content(image) == expected(layer(architecture=architecture.encode()))
        assert image.reference.digest == registries().digest(reference) == sha256(index)
    with pytest.raises(RegistryError, match="not there for linux/ppc64le, only for linux/arm64, linux/amd64"):
        registries().pull(reference, Platform("ppc64le"), tmp_path)


def test_an_image_of_another_machine_is_refused(registry: RigRegistry, registries: Make, tmp_path: Path) -> None:
    raw = Raw(registry.host, "test/arm")
    config = raw.blob(config_of([], "arm64"))
    raw.manifest(manifest_of(config, []), "1", f"{OCI}.manifest.v1+json")
    with pytest.raises(RegistryError, match="is for linux/arm64, not for linux/amd64"):
        registries().pull(parse_reference(f"{registry.host}/test/arm:1"), AMD64, tmp_path)


@pytest.mark.parametrize("name", ["test/none:1", "test/forms:none", "test/forms@sha256:" + "0" * 64])
def test_what_is_not_there_is_one_line(registry: RigRegistry, registries: Make, tmp_path: Path, name: str) -> None:
    with pytest.raises(RegistryError, match="there is no such image"):
        registries().pull(parse_reference(f"{registry.host}/{name}"), AMD64, tmp_path)
    if "@" not in name:
        with pytest.raises(RegistryError, match="there is no such image"):
            registries().digest(parse_reference(f"{registry.host}/{name}"))


def test_a_mirror_comes_first_and_the_registry_itself_after_it(
    registry: RigRegistry, registries: Make, tmp_path: Path, server: Script
) -> None:
    ours = registries()
    ours.push(TinyImage(LAYERS[:1]), parse_reference(f"{registry.host}/hub/library/tiny:1"), scratch=tmp_path)
    ours.push(TinyImage(LAYERS[:2]), parse_reference(f"{registry.host}/hub/org/tiny:1"), scratch=tmp_path)
    ours.push(TinyImage(LAYERS[:3]), parse_reference(f"{registry.host}/one/tiny:1"), scratch=tmp_path)
    mirrors = {"docker.io": f"{registry.host}/hub", "other.example/tiny": f"{registry.host}/one/tiny"}
    theirs = registries(mirrors=mirrors)

    def layers(name: str) -> int:
        return len(theirs.pull(parse_reference(name), AMD64, tmp_path).config.diff_ids)

    assert [layers(name) for name in ("tiny:1", "org/tiny:1", "other.example/tiny:1")] == [1, 2, 3]
    server.serve_image("only/here", config_of(LAYERS[:1]), [gzip.compress(LAYERS[0])])
    fallback = registries(mirrors={server.host: f"{registry.host}/hub"})
    image = fallback.pull(parse_reference(f"{server.host}/only/here:1"), AMD64, tmp_path)
    assert image.reference.name == f"{server.host}/only/here"
    with pytest.raises(RegistryError, match=r"no such image.*; its mirror: .*no such image"):
        fallback.digest(parse_reference(f"{server.host}/nowhere:1"))


@pytest.mark.parametrize(
    "name", ["tiny", "docker.io/tiny", "docker.io/library/tiny", "docker.io/library", "index.docker.io"]
)
def test_a_mirrors_name_may_be_short(registry: RigRegistry, registries: Make, tmp_path: Path, name: str) -> None:
    target = {"docker.io/library": "/hub/library", "index.docker.io": "/hub"}.get(name, "/hub/library/tiny")
    registries().push(TinyImage(()), parse_reference(f"{registry.host}/hub/library/tiny:2"), scratch=tmp_path)
    mirrors = {name: f"{registry.host}{target}"}
    assert registries(mirrors=mirrors).digest(parse_reference("tiny:2")).startswith("sha256:")


def test_a_mirror_of_an_image_is_an_image(registries: Make) -> None:
    with pytest.raises(UsageError, match="registry.mirrors: 'docker.io/library/tiny' is an image"):
        registries(mirrors={"tiny": "localhost:5000"}).digest(parse_reference("tiny"))


def test_what_was_pushed_is_what_is_pulled(registry: RigRegistry, registries: Make, tmp_path: Path) -> None:
    image = TinyImage(
        (*LAYERS, LAYERS[0], b""),
        {"B": "2", "A": "é"},
        {"org.opencontainers.image.source": "https://example.org", "other": "x"},
    )
    reference = parse_reference(f"{registry.host}/test/there-and-back:1")
    digest = registries().push(image, reference, scratch=tmp_path)
    found = registries().pull(reference, AMD64, tmp_path)
    assert content(found) == expected(*image.content)
    assert found.config.diff_ids == image.config.diff_ids
    assert (found.config.env, found.config.labels) == (image.env, image.labels)
    assert (found.config.entrypoint, found.config.cmd, found.config.workdir) == (("/entry",), ("run",), "/srv")
    assert found.reference.digest == digest
    raw = Raw(registry.host, "test/there-and-back")
    url = f"http://{registry.host}/v2/test/there-and-back/manifests/{digest}"
    _, headers, manifest = raw.ask("GET", url, Accept=f"{OCI}.manifest.v1+json")
    assert headers["Content-Type"] == f"{OCI}.manifest.v1+json"
    assert json.loads(manifest)["annotations"] == {"org.opencontainers.image.source": "https://example.org"}
    assert registries().push(image, parse_reference(f"{registry.host}/test/again:2"), scratch=tmp_path) == digest
    assert list(tmp_path.iterdir()) == []


def test_what_the_registry_has_is_not_asked_of_the_image(
    registry: RigRegistry, registries: Make, tmp_path: Path
) -> None:
    known = tmp_path / "known"
    known.mkdir()
    first, second = TinyImage(LAYERS[:2]), TinyImage(LAYERS)
    for image, name in ((first, "test/known"), (second, "test/known"), (second, "test/mounted")):
        registries().push(image, parse_reference(f"{registry.host}/{name}:1"), scratch=tmp_path, known=known)
    assert first.asked == [sorted(first.config.diff_ids)]
    assert second.asked == [[second.config.diff_ids[2]]]
    assert len(list(known.iterdir())) == 3
    for file in known.iterdir():
        file.write_text("{")
    registries().push(first, parse_reference(f"{registry.host}/test/known:1"), scratch=tmp_path, known=known)
    assert first.asked[1:] == [sorted(first.config.diff_ids)]


def test_a_tag_moves_when_all_is_there(registry: RigRegistry, registries: Make, tmp_path: Path) -> None:
    reference = parse_reference(f"{registry.host}/test/moves:1")
    before = registries().push(TinyImage(LAYERS[:1]), reference, scratch=tmp_path)

    class Broken(TinyImage):
        def layers(self, wanted: object) -> Iterator[object]:  # type: ignore[override]
            yield from super().layers(wanted)  # type: ignore[arg-type]
            raise HpcbinderError("the engine died")

    with pytest.raises(HpcbinderError, match="the engine died"):
        registries().push(Broken(LAYERS), reference, scratch=tmp_path)
    assert registries().digest(reference) == before
    assert list(tmp_path.iterdir()) == []


def test_nobody_pushes_by_digest(registries: Make, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="says what is to come out"):
        registries().push(TinyImage(()), parse_reference("a.io/b@sha256:" + "0" * 64), scratch=tmp_path)


def test_progress_is_told(registry: RigRegistry, registries: Make, tmp_path: Path) -> None:
    class Ears:
        def __init__(self) -> None:
            self.heard: list[tuple[str, str, float | None]] = []
            self.lock = threading.Lock()

        def phase(self, phase: str, message: str, progress: float | None = None) -> None:
            with self.lock:
                self.heard.append((phase, message, progress))

        def log(self, phase: str, line: str) -> None: ...

    ears, name = Ears(), f"{registry.host}/test/told:1"
    registries(reporter=ears).push(TinyImage(LAYERS), parse_reference(name), scratch=tmp_path)
    content(registries(reporter=ears).pull(parse_reference(name), AMD64, tmp_path))
    pushes = [
        progress
        for phase, message, progress in ears.heard
        if (phase, message) == ("push", f"pushing 3 layers to {name}")
    ]
    assert pushes == [0, 1 / 3, 2 / 3, 1]
    pulls = [progress for phase, message, progress in ears.heard if phase == "pull" and f"pulling {name}" in message]
    assert (pulls[0], pulls[-1]) == (0, 1)


# Registries that want a login


@pytest.fixture(scope="module")
def guarded(registry: RigRegistry, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RigRegistry]:
    """A registry that wants a name and a password (Basic)."""
    folder = tmp_path_factory.mktemp("guarded")
    (folder / "htpasswd").write_text(HTPASSWD)
    with private_registry(folder, {"htpasswd": {"realm": "rig", "path": str(folder / "htpasswd")}}) as registry:
        yield registry


class TokenServer:
    """A token server (distribution, docs/spec/auth): who proves to be ada gets what is asked for, others may pull."""

    def __init__(self, folder: Path, server: Script) -> None:
        self._key, self._certificate = folder / "key.pem", folder / "cert.pem"
        command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=rig"]
        files = ["-keyout", str(self._key), "-out", str(self._certificate)]
        subprocess.run([*command, *files], check=True, capture_output=True)
        self.logins: list[str] = []
        server.answers["/token"] = self._answer
        self.auth = {
            "token": {
                "realm": f"http://{server.host}/token",
                "service": "rig",
                "issuer": "rig's",
                "rootcertbundle": str(self._certificate),
            }
        }

    def _answer(self, exchange: Exchange) -> None:
        given = exchange.headers.get("Authorization")
        if given is not None and given != f"Basic {b64encode(f'{USER}:{PASSWORD}'.encode()).decode()}":
            exchange.say(401, b'{"errors":[{"code":"UNAUTHORIZED","message":"wrong password"}]}')
            return
        query = parse_qs(urlsplit(exchange.path).query)
        access = []
        for scope in query.get("scope", []):
            kind, name, actions = scope.split(":")
            allowed = [action for action in actions.split(",") if given or action == "pull"]
            access.append({"type": kind, "name": name, "actions": allowed})
        self.logins.append(query.get("account", ["nobody"])[0])
        exchange.say(200, json.dumps({"token": self._token(access), "expires_in": 60}).encode())

    def _token(self, access: list[dict[str, object]]) -> str:
        pem = self._certificate.read_text().split("-----")[2]
        head = {"typ": "JWT", "alg": "RS256", "x5c": ["".join(pem.split())]}
        claims = {
            "iss": "rig's",
            "sub": "",
            "aud": "rig",
            "exp": 4_000_000_000,
            "nbf": 0,
            "iat": 0,
            "jti": "1",
            "access": access,
        }

        def encoded(raw: bytes) -> str:
            return urlsafe_b64encode(raw).rstrip(b"=").decode()

        text = f"{encoded(json.dumps(head).encode())}.{encoded(json.dumps(claims).encode())}"
        command = ["openssl", "dgst", "-sha256", "-sign", str(self._key)]
        signature = subprocess.run(command, input=text.encode(), capture_output=True, check=True).stdout
        return f"{text}.{encoded(signature)}"


@pytest.fixture(scope="module")
def tokens(
    registry: RigRegistry, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[RigRegistry, TokenServer]]:
    """A registry that wants tokens (Bearer), and the server that gives them."""
    folder = tmp_path_factory.mktemp("tokens")
    with script() as server:
        giver = TokenServer(folder, server)
        with private_registry(folder, giver.auth) as registry:
            yield registry, giver


@pytest.fixture(params=["basic", "bearer"])
def private(request: pytest.FixtureRequest) -> RigRegistry:
    """A registry of each kind."""
    registry = request.getfixturevalue("guarded" if request.param == "basic" else "tokens")
    if request.param == "bearer":
        registry = registry[0]
    assert isinstance(registry, RigRegistry)
    return registry


def test_only_who_is_logged_in_pushes(private: RigRegistry, registries: Make, tmp_path: Path) -> None:
    reference = parse_reference(f"{private.host}/mine/tiny:1")
    image = TinyImage(LAYERS)
    with pytest.raises(RegistryError, match=r"you may not push to it without a login.*hpcbinder login 127"):
        registries().push(image, reference, scratch=tmp_path)
    with pytest.raises(RegistryError, match="you may not push to it without a login"):
        registries().may_push(reference)
    assert image.asked == []
    keep_login(private.host, Login(USER, PASSWORD), tmp_path / "auth.json")
    registries().may_push(reference)
    registries().push(image, reference, scratch=tmp_path)
    assert content(registries().pull(reference, AMD64, tmp_path)) == expected(*LAYERS)


def test_a_login_is_tried_before_it_is_kept(private: RigRegistry, registries: Make) -> None:
    registries().check(private.host, Login(USER, PASSWORD))
    with pytest.raises(RegistryError, match="you may not enter") as caught:
        registries().check(private.host, Login(USER, "wrong one"))
    assert "wrong one" not in str(caught.value)


def test_dockers_login_opens_the_door_too(private: RigRegistry, registries: Make, tmp_path: Path) -> None:
    (tmp_path / ".docker").mkdir()
    login = {"auths": {private.host: {"auth": b64encode(f"{USER}:{PASSWORD}".encode()).decode()}}}
    (tmp_path / ".docker/config.json").write_text(json.dumps(login))
    registries().push(TinyImage(LAYERS), parse_reference(f"{private.host}/mine/tiny:2"), scratch=tmp_path)


def test_a_layer_is_given_from_one_repository_to_another(
    private: RigRegistry, registries: Make, tmp_path: Path
) -> None:
    (tmp_path / "known").mkdir()
    keep_login(private.host, Login(USER, PASSWORD), tmp_path / "auth.json")
    image = TinyImage(LAYERS)
    for name in ("mine/first", "mine/second"):
        reference = parse_reference(f"{private.host}/{name}:1")
        registries().push(image, reference, scratch=tmp_path, known=tmp_path / "known")
    assert image.asked == [sorted(image.config.diff_ids)]
    assert content(registries().pull(reference, AMD64, tmp_path)) == expected(*LAYERS)


def test_who_is_nobody_pulls_what_is_public(
    tokens: tuple[RigRegistry, TokenServer], registries: Make, tmp_path: Path
) -> None:
    registry, giver = tokens
    reference = parse_reference(f"{registry.host}/public/tiny:1")
    keep_login(registry.host, Login(USER, PASSWORD), tmp_path / "auth.json")
    registries().push(TinyImage(LAYERS), reference, scratch=tmp_path)
    (tmp_path / "auth.json").unlink()
    giver.logins.clear()
    assert content(registries().pull(reference, AMD64, tmp_path)) == expected(*LAYERS)
    assert giver.logins == ["nobody"]  # one token does for the whole image
