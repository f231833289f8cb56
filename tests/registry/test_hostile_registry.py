"""Registries that lie, stall and send us elsewhere. The server is the test's script: a real one does none of it."""

from __future__ import annotations

import base64
import gzip
import json
import ssl
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from servers import Exchange, Script, TinyImage, config_of, descriptor, layer, manifest_of, sha256

from hpcbinder.config import SiteConfig
from hpcbinder.errors import ConvertError, RegistryError
from hpcbinder.registry import Login, Platform, RegistryImage, parse_reference

if TYPE_CHECKING:
    from conftest import Make

AMD64 = Platform("amd64")
LAYER = layer(hello=b"world" * 1000)
CONFIG = config_of([LAYER])
BLOB = gzip.compress(LAYER)


@pytest.fixture
def image(server: Script) -> str:
    """A reference to an image that is as it should be."""
    server.serve_image("x", CONFIG, [BLOB])
    return f"{server.host}/x:1"


def pull(registries: Make, reference: str, scratch: Path, **more: object) -> RegistryImage:
    return registries(**more).pull(parse_reference(reference), AMD64, scratch)


def content(image: RegistryImage) -> list[bytes]:
    return [stream.read() for _, stream in image.layers(set(image.config.diff_ids))]


def log_in(tmp_path: Path, host: str, user: str = "me", password: str = "secret") -> str:
    """Keep a login; the header it is sent as."""
    pair = base64.b64encode(f"{user}:{password}".encode()).decode()
    (tmp_path / "auth.json").write_text(json.dumps({"auths": {host: {"auth": pair}}}))
    return f"Basic {pair}"


def test_the_script_can_be_an_honest_registry(image: str, registries: Make, tmp_path: Path) -> None:
    assert content(pull(registries, image, tmp_path)) == [LAYER]
    assert list(tmp_path.iterdir()) == []


def test_a_manifest_is_no_flood(server: Script, registries: Make, tmp_path: Path) -> None:
    def flood(exchange: Exchange) -> None:
        exchange.begin(1 << 40)
        while True:
            exchange.wfile.write(b" " * (1 << 16))

    server.answers["/v2/x/manifests/1"] = flood
    with pytest.raises(RegistryError, match="the answer is larger than 4096 KiB"):
        pull(registries, f"{server.host}/x:1", tmp_path)


def test_an_answer_that_never_ends_is_given_up(server: Script, registries: Make, tmp_path: Path) -> None:
    def trickle(exchange: Exchange) -> None:
        exchange.begin(1 << 20)
        while True:
            exchange.wfile.write(b" ")
            exchange.wfile.flush()
            time.sleep(0.05)

    server.answers["/v2/x/manifests/1"] = trickle
    with pytest.raises(RegistryError, match="does not come to an end"):
        pull(registries, f"{server.host}/x:1", tmp_path)


def test_a_layer_that_trickles_is_given_up(image: str, server: Script, registries: Make, tmp_path: Path) -> None:
    def trickle(exchange: Exchange) -> None:
        exchange.begin(len(BLOB))
        for byte in BLOB:
            exchange.wfile.write(bytes([byte]))
            exchange.wfile.flush()
            time.sleep(0.05)

    server.answers[f"/v2/x/blobs/{sha256(BLOB)}"] = trickle
    with pytest.raises(RegistryError, match="too slowly"):
        content(pull(registries, image, tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_silence_is_given_up(server: Script, registries: Make, tmp_path: Path) -> None:
    server.answers["/v2/x/manifests/1"] = lambda exchange: time.sleep(3)
    with pytest.raises(RegistryError, match="says nothing"):
        pull(registries, f"{server.host}/x:1", tmp_path)


@pytest.mark.parametrize(
    "blob, message",
    [
        (BLOB[:-1] + b"x", "a blob is not what its digest says"),
        (BLOB + b"x", "a blob is not what its digest says"),
        (b"", "breaks off after 0 of"),
        (BLOB[:10], "breaks off after 10 of"),
    ],
    ids=["changed", "longer", "empty", "shorter"],
)
def test_a_layer_is_what_its_digest_says(
    image: str, server: Script, registries: Make, tmp_path: Path, blob: bytes, message: str
) -> None:
    server.answers[f"/v2/x/blobs/{sha256(BLOB)}"] = blob
    with pytest.raises(RegistryError, match=message):
        content(pull(registries, image, tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_a_layer_is_what_the_configuration_says(server: Script, registries: Make, tmp_path: Path) -> None:
    server.serve_image("x", config_of([layer(other=b"")]), [BLOB])
    with pytest.raises(RegistryError, match="a layer is not what the configuration says"):
        content(pull(registries, f"{server.host}/x:1", tmp_path))


def test_a_damaged_layer_is_one_error(server: Script, registries: Make, tmp_path: Path) -> None:
    blob = BLOB[:-20]
    server.serve_image("x", CONFIG, [blob])
    with pytest.raises(ConvertError, match="a compressed layer is damaged"):
        content(pull(registries, f"{server.host}/x:1", tmp_path))


def test_a_configuration_is_what_its_digest_says(image: str, server: Script, registries: Make, tmp_path: Path) -> None:
    server.answers[f"/v2/x/blobs/{sha256(CONFIG)}"] = CONFIG.replace(b"amd64", b"arm64")
    with pytest.raises(RegistryError, match="a blob is not what its digest says"):
        pull(registries, image, tmp_path)


def test_a_manifest_is_what_was_asked_for(image: str, server: Script, registries: Make, tmp_path: Path) -> None:
    wanted = "sha256:" + "0" * 64
    server.answers[f"/v2/x/manifests/{wanted}"] = manifest_of(CONFIG, [BLOB])
    with pytest.raises(RegistryError, match="the manifest is not what its digest says"):
        pull(registries, f"{server.host}/x@{wanted}", tmp_path)


def test_a_registry_may_not_contradict_itself(server: Script, registries: Make, tmp_path: Path) -> None:
    manifest = manifest_of(CONFIG, [BLOB])
    other = "sha256:" + "0" * 64
    server.answers["/v2/x/manifests/1"] = lambda exchange: exchange.say(200, manifest, Docker_Content_Digest=other)
    with pytest.raises(RegistryError, match="the manifest is not what its digest says"):
        pull(registries, f"{server.host}/x:1", tmp_path)


ODD = {
    "no JSON": (b"{", "is no JSON"),
    "deep": (b"[" * 100_000, "is no JSON"),
    "a list": (b"[]", "is no JSON object"),
    "of no form": (b"{}", "of a form that is no longer read"),
    "of the first form": (b'{"schemaVersion":1,"fsLayers":[]}', "of a form that is no longer read"),
    "layers as text": (b'{"schemaVersion":2,"config":{},"layers":"x"}', "the manifest is damaged"),
    "a path for a digest": (
        json.dumps(
            {"schemaVersion": 2, "config": {"digest": "sha256:../../../etc/passwd", "size": 1}, "layers": []}
        ).encode(),
        "which is no SHA-256 digest",
    ),
    "a size below nothing": (
        json.dumps({"schemaVersion": 2, "config": {"digest": sha256(b""), "size": -1}, "layers": []}).encode(),
        "a blob without a size",
    ),
    "a huge configuration": (
        json.dumps({"schemaVersion": 2, "config": {"digest": sha256(b""), "size": 1 << 40}, "layers": []}).encode(),
        "configuration is too large",
    ),
    "a layer elsewhere": (
        json.dumps(
            {
                "schemaVersion": 2,
                "config": descriptor(CONFIG, ""),
                "layers": [
                    descriptor(
                        BLOB,
                        "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
                        urls=["http://169.254.169.254/"],
                    )
                ],
            }
        ).encode(),
        "a layer of the kind 'application/vnd.docker.image.rootfs.foreign",
    ),
    "too many layers": (
        json.dumps(
            {
                "schemaVersion": 2,
                "config": descriptor(CONFIG, ""),
                "layers": [descriptor(BLOB, "application/vnd.oci.image.layer.v1.tar")] * 5000,
            }
        ).encode(),
        "the image has 5000 layers",
    ),
    "other layers than it says": (manifest_of(CONFIG, [BLOB, BLOB]), "names 2 layers, the configuration 1"),
}


@pytest.mark.parametrize("manifest, message", ODD.values(), ids=ODD)
def test_odd_manifests_are_one_error_each(
    image: str, server: Script, registries: Make, tmp_path: Path, manifest: bytes, message: str
) -> None:
    server.answers["/v2/x/manifests/1"] = manifest
    with pytest.raises(RegistryError, match=message) as caught:
        pull(registries, image, tmp_path)
    assert "\n" not in str(caught.value)


def test_an_index_of_itself_comes_to_an_end(server: Script, registries: Make, tmp_path: Path) -> None:
    def index(inner: bytes) -> bytes:
        platform = {"os": "linux", "architecture": "amd64"}
        return json.dumps({"schemaVersion": 2, "manifests": [descriptor(inner, "", platform=platform)]}).encode()

    manifest = b"{}"
    for _ in range(8):
        manifest = index(manifest)
        server.answers[f"/v2/x/manifests/{sha256(manifest)}"] = manifest
    server.answers["/v2/x/manifests/1"] = manifest
    with pytest.raises(RegistryError, match="nested too deep"):
        pull(registries, f"{server.host}/x:1", tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        "\x1b[2J\x1b]0;owned\x07 no",
        "two\nlines",
        "\u202eright to left",
        "x" * 100_000,
    ],
)
def test_what_a_registry_says_commands_no_terminal(server: Script, registries: Make, tmp_path: Path, text: str) -> None:
    body = json.dumps({"errors": [{"code": "DENIED", "message": text}]}).encode()
    server.answers["/v2/x/manifests/1"] = lambda exchange: exchange.say(400, body)
    with pytest.raises(RegistryError) as caught:
        pull(registries, f"{server.host}/x:1", tmp_path)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 400


# Who is told our login


def wants_basic(exchange: Exchange) -> None:
    exchange.say(401, WWW_Authenticate='Basic realm="x"')


def test_a_redirect_to_another_host_is_followed_without_our_login(
    image: str, server: Script, elsewhere: Script, registries: Make, tmp_path: Path
) -> None:
    login = log_in(tmp_path, server.host)

    def guarded(exchange: Exchange) -> None:
        if exchange.headers.get("Authorization") != login:
            wants_basic(exchange)
        else:
            exchange.say(307, Location=f"http://{elsewhere.host}/blob?signature=x")

    server.answers[f"/v2/x/blobs/{sha256(BLOB)}"] = guarded
    elsewhere.answers["/blob"] = BLOB
    assert content(pull(registries, image, tmp_path)) == [LAYER]
    assert all("Authorization" not in headers for headers in elsewhere.asked("/blob"))


def test_another_host_that_asks_for_a_login_gets_none(
    image: str, server: Script, elsewhere: Script, registries: Make, tmp_path: Path
) -> None:
    log_in(tmp_path, server.host)
    where = f"http://{elsewhere.host}/blob"
    server.answers[f"/v2/x/blobs/{sha256(BLOB)}"] = lambda exchange: exchange.say(307, Location=where)
    elsewhere.answers["/blob"] = wants_basic
    with pytest.raises(RegistryError, match="you may not pull"):
        content(pull(registries, image, tmp_path))
    assert [("Authorization" in headers) for headers in elsewhere.asked("/blob")] == [False]


def test_redirects_come_to_an_end(image: str, server: Script, registries: Make, tmp_path: Path) -> None:
    path = f"/v2/x/blobs/{sha256(BLOB)}"
    server.answers[path] = lambda exchange: exchange.say(307, Location=path)
    with pytest.raises(RegistryError, match="status 307"):
        content(pull(registries, image, tmp_path))
    assert len(server.asked(path)) < 10


def test_nobody_reads_what_comes_with_a_redirect(image: str, server: Script, registries: Make, tmp_path: Path) -> None:
    def flood(exchange: Exchange) -> None:
        exchange.send_response(307)
        exchange.send_header("Location", "/blob")
        exchange.send_header("Content-Length", str(1 << 40))
        exchange.end_headers()
        exchange.close_connection = True
        while True:
            exchange.wfile.write(b" " * (1 << 16))

    server.answers[f"/v2/x/blobs/{sha256(BLOB)}"] = flood
    server.answers["/blob"] = BLOB
    assert content(pull(registries, image, tmp_path)) == [LAYER]


@pytest.mark.parametrize("place", ["file:///etc/passwd", "ftp://x/y", "http://[", "http://x:port/"])
def test_a_redirect_goes_to_the_web_or_nowhere(
    image: str, server: Script, registries: Make, tmp_path: Path, place: str
) -> None:
    server.answers[f"/v2/x/blobs/{sha256(BLOB)}"] = lambda exchange: exchange.say(307, Location=place)
    with pytest.raises(RegistryError, match=r"which is no web address|not encrypted"):
        content(pull(registries, image, tmp_path))


def test_a_realm_of_another_registrys_login_gets_nothing(
    image: str, server: Script, elsewhere: Script, registries: Make, tmp_path: Path
) -> None:
    log_in(tmp_path, "ghcr.io")
    challenge = f'Bearer realm="http://{elsewhere.host}/token",service="ghcr.io",scope="repository:x:pull"'
    server.answers["/v2/x/manifests/1"] = lambda exchange: exchange.say(401, WWW_Authenticate=challenge)
    elsewhere.answers["/token"] = b'{"token":"T"}'
    with pytest.raises(RegistryError, match="without a login"):
        pull(registries, image, tmp_path)
    assert ["Authorization" in headers for headers in elsewhere.asked("/token")] == [
        False,
    ]


def test_a_token_goes_to_the_registry_alone(
    image: str, server: Script, elsewhere: Script, registries: Make, tmp_path: Path
) -> None:
    basic = log_in(tmp_path, server.host)
    challenge = f'Bearer realm="http://{elsewhere.host}/token",service="s"'
    manifest = manifest_of(CONFIG, [BLOB])

    def guarded(exchange: Exchange) -> None:
        if exchange.headers.get("Authorization") == "Bearer T":
            exchange.say(200, manifest)
        else:
            exchange.say(401, WWW_Authenticate=challenge)

    server.answers["/v2/x/manifests/1"] = guarded
    elsewhere.answers["/token"] = b'{"access_token":"T","expires_in":300}'
    assert content(pull(registries, image, tmp_path)) == [LAYER]
    assert [headers.get("Authorization") for headers in elsewhere.asked("/token")] == [basic]
    sent = {headers.get("Authorization") for _, _, headers, _ in server.requests}
    assert sent == {None, "Bearer T"}


def test_the_registry_says_what_a_token_is_asked_for_but_not_for_which_repository(
    image: str, server: Script, registries: Make, tmp_path: Path
) -> None:
    challenge = f'Bearer realm="http://{server.host}/token?a=b",service="s",scope="repository:all:*"'
    server.answers["/v2/x/manifests/1"] = lambda exchange: exchange.say(401, WWW_Authenticate=challenge)
    server.answers["/token"] = b'{"token":"T"}'
    with pytest.raises(RegistryError):
        pull(registries, image, tmp_path)
    (asked,) = {path for _, path, _, _ in server.requests if path.startswith("/token")}
    assert asked == "/token?a=b&service=s&scope=repository%3Ax%3Apull"


def test_an_identity_token_is_exchanged_for_one(image: str, server: Script, registries: Make, tmp_path: Path) -> None:
    (tmp_path / "auth.json").write_text(json.dumps({"auths": {server.host: {"auth": "", "identitytoken": "I&D"}}}))
    manifest = server.answers["/v2/x/manifests/1"]

    def guarded(exchange: Exchange) -> None:
        if exchange.headers.get("Authorization") == "Bearer T":
            assert isinstance(manifest, bytes)
            exchange.say(200, manifest)
        else:
            exchange.say(401, WWW_Authenticate=f'Bearer realm="http://{server.host}/token",service="s"')

    server.answers["/v2/x/manifests/1"] = guarded
    server.answers["POST /token"] = b'{"access_token":"T"}'
    assert content(pull(registries, image, tmp_path)) == [LAYER]
    (form,) = [body for method, _, _, body in server.requests if method == "POST"]
    fields = "service=s&grant_type=refresh_token&client_id=hpcbinder&scope=repository%3Ax%3Apull&refresh_token=I%26D"
    assert form.decode() == fields


@pytest.mark.parametrize(
    "answer", [b"", b"{}", b"[]", b'{"token":7}', b'{"token":"a\\r\\nX: y"}', b'{"token":""}', b" " * (2 << 20)]
)
def test_a_token_server_that_gives_none(
    image: str, server: Script, registries: Make, tmp_path: Path, answer: bytes
) -> None:
    challenge = f'Bearer realm="http://{server.host}/token"'
    server.answers["/v2/x/manifests/1"] = lambda exchange: exchange.say(401, WWW_Authenticate=challenge)
    server.answers["/token"] = answer
    with pytest.raises(RegistryError, match=r"gives no token|is no JSON|larger than"):
        pull(registries, image, tmp_path)


@pytest.mark.parametrize(
    "challenge",
    ["", "Bearer", "Bearer realm", 'Bearer realm="', "Negotiate", 'Digest realm="x"', 'Bearer realm="a b"', "," * 9000],
)
def test_odd_challenges_are_refusals(
    image: str, server: Script, registries: Make, tmp_path: Path, challenge: str
) -> None:
    server.answers["/v2/x/manifests/1"] = lambda exchange: exchange.say(401, WWW_Authenticate=challenge)
    with pytest.raises(RegistryError, match=r"you may not pull|no web address"):
        pull(registries, image, tmp_path)


# A registry elsewhere: named by a host that only the proxy knows, which is the script


@pytest.fixture
def abroad(server: Script) -> Iterator[SiteConfig]:
    """A site whose proxy answers for every host."""
    yield SiteConfig(http_proxy=f"http://{server.host}")


def test_a_site_has_a_proxy(server: Script, abroad: SiteConfig, registries: Make, tmp_path: Path) -> None:
    manifest = manifest_of(CONFIG, [BLOB])
    server.answers = {
        "http://registry.example/v2/x/manifests/1": manifest,
        f"http://registry.example/v2/x/blobs/{sha256(CONFIG)}": CONFIG,
        f"http://registry.example/v2/x/blobs/{sha256(BLOB)}": BLOB,
    }
    image = pull(registries, "registry.example/x:1", tmp_path, site=abroad, insecure=("registry.example",))
    assert content(image) == [LAYER]


def test_nothing_is_said_unencrypted_that_nobody_allowed(
    server: Script, abroad: SiteConfig, registries: Make, tmp_path: Path
) -> None:
    with pytest.raises(RegistryError):
        pull(registries, "registry.example/x:1", tmp_path, site=abroad)
    assert server.requests == []


@pytest.mark.parametrize(
    "place, message",
    [
        ("http://127.0.0.1:80/token", "which is this machine"),
        ("http://localhost/token", "which is this machine"),
        ("http://[::1]/token", "which is this machine"),
        ("http://other.example/token", r"which is not encrypted \(if that is meant: registry.insecure"),
        ("http://registry.example.evil.example/token", "which is not encrypted"),
    ],
)
@pytest.mark.parametrize("how", ["realm", "redirect"])
def test_a_registry_elsewhere_does_not_send_us_into_this_machine_or_out_of_the_encryption(
    server: Script, abroad: SiteConfig, registries: Make, tmp_path: Path, place: str, message: str, how: str
) -> None:
    log_in(tmp_path, "registry.example")

    def send_away(exchange: Exchange) -> None:
        if how == "realm":
            exchange.say(401, WWW_Authenticate=f'Bearer realm="{place}"')
        else:
            exchange.say(307, Location=place)

    server.answers = {"http://registry.example/v2/x/manifests/1": send_away}
    with pytest.raises(RegistryError, match=message):
        pull(registries, "registry.example/x:1", tmp_path, site=abroad, insecure=("registry.example",))
    assert {path for _, path, _, _ in server.requests} == {"http://registry.example/v2/x/manifests/1"}


# What passes by itself


def test_an_overloaded_registry_is_asked_again(image: str, server: Script, registries: Make, tmp_path: Path) -> None:
    manifest, waits = server.answers["/v2/x/manifests/1"], iter([503, 429])

    def busy(exchange: Exchange) -> None:
        status = next(waits, None)
        if status is None:
            assert isinstance(manifest, bytes)
            exchange.say(200, manifest)
        else:
            exchange.say(status, Retry_After="0")

    server.answers["/v2/x/manifests/1"] = busy
    assert content(pull(registries, image, tmp_path)) == [LAYER]


def test_a_registry_that_stays_overloaded_is_given_up(
    image: str, server: Script, registries: Make, tmp_path: Path
) -> None:
    server.answers["/v2/x/manifests/1"] = lambda exchange: exchange.say(429)
    with pytest.raises(RegistryError, match="asked too often"):
        pull(registries, image, tmp_path)
    assert len(server.asked("/v2/x/manifests/1")) == 3


@pytest.mark.parametrize("ranges", [True, False])
def test_a_layer_that_breaks_off_is_taken_up_again(
    image: str, server: Script, registries: Make, tmp_path: Path, ranges: bool
) -> None:
    half = len(BLOB) // 2

    def breaking(exchange: Exchange) -> None:
        begin = exchange.headers.get("Range")
        if begin is None and len(server.asked(exchange.path)) == 1:
            exchange.begin(len(BLOB))
            exchange.wfile.write(BLOB[:half])
        elif begin is None or not ranges:
            exchange.say(200, BLOB)
        else:
            assert begin == f"bytes={half}-"
            exchange.say(206, BLOB[half:], Content_Range=f"bytes {half}-{len(BLOB) - 1}/{len(BLOB)}")

    server.answers[f"/v2/x/blobs/{sha256(BLOB)}"] = breaking
    assert content(pull(registries, image, tmp_path)) == [LAYER]


def test_a_layer_that_always_breaks_off_is_given_up(server: Script, registries: Make, tmp_path: Path) -> None:
    blob = bytes(8 << 20)  # so much of it comes each time that the attempt seems worth it
    server.serve_image("x", config_of([blob]), [blob])

    def breaking(exchange: Exchange) -> None:
        exchange.begin(len(blob))
        exchange.wfile.write(blob[: 4 << 20])

    server.answers[f"/v2/x/blobs/{sha256(blob)}"] = breaking
    with pytest.raises(RegistryError, match="breaks off|cannot be reached"):
        content(pull(registries, f"{server.host}/x:1", tmp_path))
    assert len(server.asked(f"/v2/x/blobs/{sha256(blob)}")) <= 4


# Encryption


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate for `localhost` that nobody has signed, and its key."""
    folder = tmp_path_factory.mktemp("tls")
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=localhost"]
    files = ["-keyout", str(folder / "key.pem"), "-out", str(folder / "cert.pem")]
    names = ["-addext", "subjectAltName=DNS:localhost"]
    subprocess.run([*command, *names, *files], check=True, capture_output=True)
    return folder / "cert.pem", folder / "key.pem"


def test_a_sites_own_authority_is_trusted_and_no_other(
    server: Script, registries: Make, tmp_path: Path, certificate: tuple[Path, Path]
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    server.serve_image("x", CONFIG, [BLOB])
    host = server.host.replace("127.0.0.1", "localhost")
    site = SiteConfig(ca_certificates=certificate[0])
    assert content(pull(registries, f"{host}/x:1", tmp_path, site=site)) == [LAYER]
    seen = len(server.requests)
    with pytest.raises(RegistryError, match=r"no trust in its certificate.*site.ca_certificates"):
        pull(registries, f"{host}/x:1", tmp_path)
    with pytest.raises(RegistryError, match="no trust in its certificate"):
        pull(registries, f"{server.host}/x:1", tmp_path, site=site)  # it is nobody's certificate by this name
    assert len(server.requests) == seen


# Pushing


class Sink:
    """A registry that takes everything, in `said` the order of what came."""

    def __init__(self, server: Script, name: str) -> None:
        self.blobs: dict[str, bytes] = {}
        self.manifests: dict[str, bytes] = {}
        self._server = server
        self._parts: list[bytes] = []
        base = f"/v2/{name}"
        server.answers |= {
            f"POST {base}/blobs/uploads/": self._begin,
            f"{base}/up": self._upload,
            f"PUT {base}/manifests/1": self._manifest,
        }
        self.limit = 1 << 40

    def _begin(self, exchange: Exchange) -> None:
        self._parts.clear()
        exchange.say(202, Location=exchange.path.replace("blobs/uploads/", "up?state=a"))

    def _upload(self, exchange: Exchange) -> None:
        body = self._server.requests[-1][3]
        if len(body) > self.limit:
            exchange.say(413)
            return
        self._parts.append(body)
        if exchange.command == "PATCH":
            exchange.say(202, Location=exchange.path)
        else:
            content = b"".join(self._parts)
            assert exchange.path.endswith(f"?state=a&digest={sha256(content).replace(':', '%3A')}")
            self.blobs[sha256(content)] = content
            exchange.say(201)

    def _manifest(self, exchange: Exchange) -> None:
        body = self._server.requests[-1][3]
        self.manifests["1"] = body
        exchange.say(201, Docker_Content_Digest=sha256(body))


def test_large_bodies_go_in_pieces_where_a_proxy_takes_none(server: Script, registries: Make, tmp_path: Path) -> None:
    import random

    big = layer(noise=random.Random(1).randbytes(20 << 20))
    sink = Sink(server, "x")
    sink.limit = 9 << 20
    registries().push(TinyImage((big,)), parse_reference(f"{server.host}/x:1"), scratch=tmp_path)
    (found,) = [blob for blob in sink.blobs.values() if len(blob) > 1 << 20]
    assert gzip.decompress(found) == big
    assert [len(body) for method, _, _, body in server.requests if method == "PATCH"][:2] == [8 << 20, 8 << 20]


def test_a_registry_that_makes_another_image_of_it_is_found_out(
    server: Script, registries: Make, tmp_path: Path
) -> None:
    Sink(server, "x")
    other = "sha256:" + "0" * 64
    server.answers["PUT /v2/x/manifests/1"] = lambda exchange: exchange.say(201, Docker_Content_Digest=other)
    with pytest.raises(RegistryError, match="has made another image"):
        registries().push(TinyImage((LAYER,)), parse_reference(f"{server.host}/x:1"), scratch=tmp_path)


def test_an_upload_goes_elsewhere_without_our_login(
    server: Script, elsewhere: Script, registries: Make, tmp_path: Path
) -> None:
    login = log_in(tmp_path, server.host)
    Sink(server, "x")

    def guarded(exchange: Exchange) -> None:
        if exchange.headers.get("Authorization") != login:
            wants_basic(exchange)
        else:
            exchange.say(202, Location=f"http://{elsewhere.host}/up")

    server.answers["POST /v2/x/blobs/uploads/"] = guarded
    elsewhere.answers["/up"] = lambda exchange: exchange.say(201)
    registries().push(TinyImage((LAYER,)), parse_reference(f"{server.host}/x:1"), scratch=tmp_path)
    assert [method for method, path, _, _ in elsewhere.requests] == ["DELETE", "PUT", "PUT"]
    assert all("Authorization" not in headers for headers in elsewhere.asked("/up"))


def test_an_image_whose_layer_is_another_is_not_pushed(server: Script, registries: Make, tmp_path: Path) -> None:
    class Liar(TinyImage):
        def layers(self, wanted: object) -> Iterator[tuple[str, object]]:  # type: ignore[override]
            import io

            yield sha256(LAYER), io.BytesIO(b"something else")

    sink = Sink(server, "x")
    with pytest.raises(RegistryError, match="a layer is sha256:"):
        registries().push(Liar((LAYER,)), parse_reference(f"{server.host}/x:1"), scratch=tmp_path)
    assert sink.manifests == {}
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_login_is_told_from_none(image: str, server: Script, registries: Make, tmp_path: Path) -> None:
    server.answers["/v2/x/manifests/1"] = wants_basic
    with pytest.raises(RegistryError, match=r"without a login.*hpcbinder login 127.0.0.1"):
        pull(registries, image, tmp_path)
    log_in(tmp_path, server.host, password="geheim")
    with pytest.raises(RegistryError, match=r"the login is from .*auth.json") as caught:
        pull(registries, image, tmp_path)
    assert "geheim" not in str(caught.value)


def test_a_login_that_is_refused_is_no_login(server: Script, registries: Make) -> None:
    server.answers["/v2/"] = wants_basic
    with pytest.raises(RegistryError, match="you may not enter"):
        registries().check(server.host, Login("me", "wrong"))
