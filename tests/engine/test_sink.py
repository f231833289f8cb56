"""Layers out of a real Docker daemon through a registry of our own, and what that registry refuses."""

from __future__ import annotations

import gzip
import hashlib
import http.client
import io
import json
import secrets
import shutil
import socket
import subprocess
import sys
import tarfile
import textwrap
import uuid
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

import pytest

from hpcbinder.bases import BaseImage
from hpcbinder.engine import DockerEngine
from hpcbinder.engine.docker import DockerImage
from hpcbinder.engine.sink import Sink
from hpcbinder.errors import ConvertError
from rig import Dockerd


class Heard:
    """A reporter that remembers."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.progress: list[float | None] = []

    def phase(self, phase: str, message: str, progress: float | None = None) -> None:
        self.progress.append(progress)

    def log(self, phase: str, line: str) -> None:
        self.lines.append(line)


@pytest.fixture
def heard() -> Heard:
    return Heard()


@pytest.fixture
def mine(dockerd: Dockerd, engine: DockerEngine, heard: Heard) -> DockerEngine:
    """The rig's daemon, which has the base, and a reporter."""
    return DockerEngine(dockerd.host, reporter=heard)


def build(engine: DockerEngine, tag: str, scratch: Path, *steps: str) -> DockerImage:
    """An image of these lines of a Dockerfile."""

    def write(out: io.BytesIO) -> None:
        text = "\n".join([*steps, ""]).encode()
        with tarfile.open(fileobj=out, mode="w|") as tar:
            member = tarfile.TarInfo("Dockerfile")
            member.size = len(text)
            tar.addfile(member, io.BytesIO(text))

    return engine.build(write, tag=tag, scratch=scratch)  # type: ignore[arg-type]


def read(image: DockerImage, wanted: Collection[str]) -> dict[str, bytes]:
    """The layers that came, each checked to be what its DiffID says."""
    found = {diff_id: stream.read() for diff_id, stream in image.layers(wanted)}
    for diff_id, tar in found.items():
        assert f"sha256:{hashlib.sha256(tar).hexdigest()}" == diff_id
    return found


def names(tar: bytes) -> list[str]:
    with tarfile.open(fileobj=io.BytesIO(tar)) as archive:
        return archive.getnames()


def traces(engine: DockerEngine) -> list[str]:
    """Tags of pushes that the daemon still has."""
    return [tag for tag, _, _ in engine.tags() if tag.startswith("127.0.0.1")]


def test_layers_come_by_a_push(
    mine: DockerEngine, heard: Heard, base: BaseImage, tag: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mine, "save", lambda *_: pytest.fail("exported"))
    first = build(mine, tag, tmp_path, f"FROM {base.tag}", f"RUN echo {uuid.uuid4()} >/srv/a && mkdir /srv/b")
    found = read(first, first.config.diff_ids[-1:])
    assert names(found[first.config.diff_ids[-1]]) == ["srv", "srv/a", "srv/b"]

    second = build(mine, tag, tmp_path, f"FROM {tag}", f"RUN echo {uuid.uuid4()} >/srv/c", "RUN rm /srv/a")
    old, new, newest = second.config.diff_ids[-3:]
    assert old == first.config.diff_ids[-1]
    assert names(read(second, [newest])[newest]) == ["srv", "srv/.wh.a"]
    # What the daemon sent before and so would not send again, together with what it never sent.
    found = read(second, [old, new])
    assert set(found) == {old, new} and names(found[new]) == ["srv", "srv/c"]
    assert list(second.layers([])) == []
    assert heard.lines == [] and list(tmp_path.iterdir()) == []
    assert traces(mine) == []
    kept = mine.image(tag)
    assert kept is not None and kept.config == second.config


def test_an_image_that_is_mostly_new_is_exported_at_once(
    mine: DockerEngine, heard: Heard, base: BaseImage, tag: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = build(mine, tag, tmp_path, f"FROM {base.tag}", f"RUN echo {uuid.uuid4()} >/srv/a")
    monkeypatch.setattr(mine, "pushed", lambda *_: pytest.fail("pushed"))
    all_, wanted = image.config.diff_ids, image.config.diff_ids[:-1]
    assert set(read(image, wanted)) == set(wanted)
    assert heard.lines == [] and list(tmp_path.iterdir()) == []
    assert mine.is_most(image, all_) and not mine.is_most(image, all_[-1:])


def test_a_large_layer_comes_though_the_daemon_sent_it_before(
    mine: DockerEngine, heard: Heard, base: BaseImage, tag: str, tmp_path: Path
) -> None:
    # Of layers above 10 MB the daemon asks whether they are there under whatever name it sent them before.
    image = build(mine, tag, tmp_path, f"FROM {base.tag}", "RUN head -c 12000000 /dev/urandom >/srv/noise")
    wanted = image.config.diff_ids[-1:]
    for _ in range(2):
        assert set(read(image, wanted)) == set(wanted)
    assert heard.lines == []
    assert heard.progress and all(done is not None and 0 <= done <= 1 for done in heard.progress)


def test_a_layer_the_image_does_not_have(mine: DockerEngine, base: BaseImage, tag: str, tmp_path: Path) -> None:
    image = build(mine, tag, tmp_path, f"FROM {base.tag}", "LABEL a=b")
    with pytest.raises(ConvertError, match="no layer sha256:00"):
        list(image.layers([f"sha256:{'0' * 64}"]))
    assert list(tmp_path.iterdir()) == [] and traces(mine) == []


def test_an_image_without_a_name_is_exported_and_stays(
    mine: DockerEngine, heard: Heard, base: BaseImage, tag: str, tmp_path: Path
) -> None:
    image = build(mine, tag, tmp_path, f"FROM {base.tag}", f"RUN echo {uuid.uuid4()} >/srv/a")
    build(mine, tag, tmp_path, f"FROM {base.tag}", "LABEL other=image")
    wanted = image.config.diff_ids[-1:]
    assert set(read(image, wanted)) == set(wanted)
    assert heard.lines == ["an image without a name is not pushed: all of the image is exported instead"]
    assert mine.image(image.digest) is not None
    mine.remove(image.digest)


def test_a_daemon_that_cannot_reach_us_exports(
    dockerd: Dockerd, mine: DockerEngine, base: BaseImage, tag: str, tmp_path: Path
) -> None:
    """It shares our file system, and so its socket, but not our loopback: as rootless ones and virtual machines do."""
    image = build(mine, tag, tmp_path, f"FROM {base.tag}", f"RUN echo {uuid.uuid4()} >/srv/a")
    program = textwrap.dedent(
        """
        import sys
        from pathlib import Path
        from hpcbinder.engine import DockerEngine

        class Aloud:
            def phase(self, *_): pass
            def log(self, phase, line): print(line)

        image = DockerEngine(sys.argv[1], reporter=Aloud()).image(sys.argv[2], scratch=Path(sys.argv[3]))
        for diff_id, stream in image.layers(image.config.diff_ids[-1:]):
            print(diff_id, len(stream.read()))
        """
    )
    alone = ["unshare", "--net", "sh", "-euc", 'ip link set lo up; exec "$@"', "sh"]
    done = subprocess.run(
        [*alone, sys.executable, "-c", program, dockerd.host, tag, str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
    )
    said, layer = done.stdout.splitlines()
    assert said == "docker does not reach this process on 127.0.0.1: all of the image is exported instead"
    assert layer.startswith(image.config.diff_ids[-1])
    assert traces(mine) == []


def test_what_a_killed_process_left_is_taken_away(
    mine: DockerEngine, base: BaseImage, tag: str, tmp_path: Path
) -> None:
    image = build(mine, tag, tmp_path, f"FROM {base.tag}", f"RUN echo {uuid.uuid4()} >/srv/a")
    api = mine._client().api
    with socket.create_server(("127.0.0.1", 0)) as alive, socket.create_server(("127.0.0.1", 0)) as dead:
        repositories = [f"127.0.0.1:{s.getsockname()[1]}/hpcbinder-{secrets.token_hex(16)}" for s in (alive, dead)]
        for repository in repositories:
            api.tag(tag, repository, "layers")
        dead.close()
        read(image, image.config.diff_ids[-1:])
        assert traces(mine) == [f"{repositories[0]}:layers"]
    read(image, image.config.diff_ids[-1:])
    assert traces(mine) == []


# The registry itself.


@pytest.fixture
def sink(tmp_path: Path) -> Iterator[Sink]:
    folder = tmp_path / "blobs"
    folder.mkdir()
    with Sink(folder) as sink:
        yield sink


def ask(
    sink: Sink,
    method: str,
    path: str,
    body: bytes | Iterator[bytes] | None = None,
    headers: Mapping[str, str] | None = None,
) -> tuple[int, dict[str, str]]:
    """One request on a connection of its own, a body in pieces sent in chunks: (status, headers)."""
    connection = http.client.HTTPConnection(sink.repository.partition("/")[0], timeout=120)
    pieces = body is not None and not isinstance(body, bytes)
    coding = {"Transfer-Encoding": "chunked"} if pieces else {}
    try:
        connection.request(method, path, body=body, headers={**coding, **(headers or {})}, encode_chunked=pieces)
        answer = connection.getresponse()
        answer.read()
        return answer.status, dict(answer.getheaders())
    finally:
        connection.close()


def ours(sink: Sink, path: str) -> str:
    return f"/v2/{sink.repository.partition('/')[2]}/{path}"


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def test_a_push_as_the_distribution_spec_has_it(sink: Sink) -> None:
    whole, piecewise = b"whole" * 1000, gzip.compress(b"in pieces" * 100_000)
    assert ask(sink, "GET", "/v2/")[0] == 200 and not sink.asked
    assert ask(sink, "POST", ours(sink, f"blobs/uploads/?digest={digest_of(whole)}"), whole)[0] == 201
    status, headers = ask(sink, "POST", ours(sink, "blobs/uploads/?mount=sha256:00&from=x"), b"")
    assert status == 202 and headers["Location"].startswith(f"http://{sink.repository.partition('/')[0]}/v2/")
    place = headers["Location"].partition("/v2/")[2]
    half = len(piecewise) // 2
    status, headers = ask(sink, "PATCH", f"/v2/{place}", iter([piecewise[:10], piecewise[10:half]]))
    assert (status, headers["Range"]) == (202, f"0-{half - 1}")
    status, headers = ask(sink, "PUT", f"/v2/{place}?digest={digest_of(piecewise)}", piecewise[half:])
    assert (status, headers["Docker-Content-Digest"]) == (201, digest_of(piecewise))
    manifest = {"layers": [{"digest": digest_of(data)} for data in (whole, piecewise)]}
    assert ask(sink, "PUT", ours(sink, "manifests/layers"), json.dumps(manifest).encode())[0] == 201
    assert sink.layers(2) == [digest_of(whole), digest_of(piecewise)]
    assert [path.read_bytes() for d in sink.layers(2) if (path := sink.blob(d))] == [whole, piecewise]
    assert sink.asked and sink.failure is None


def test_it_says_that_it_has_all_but_what_it_is_told_to_lack(sink: Sink) -> None:
    known, lacking = digest_of(b"known"), digest_of(b"lacking")
    sink.lacking.add(lacking)
    assert [ask(sink, "HEAD", ours(sink, f"blobs/{d}"))[0] for d in (known, lacking)] == [200, 404]
    assert ask(sink, "POST", ours(sink, f"blobs/uploads/?digest={lacking}"), b"lacking")[0] == 201
    assert ask(sink, "HEAD", ours(sink, f"blobs/{lacking}"))[0] == 200
    assert sink.blob(known) is None and sink.blob(lacking) is not None


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"])
def test_who_does_not_know_the_name_gets_nowhere(sink: Sink, method: str, tmp_path: Path) -> None:
    wrong = f"hpcbinder-{'0' * 32}"
    for path in (
        f"/v2/{wrong}/blobs/uploads/",
        f"/v2/{wrong}/manifests/layers",
        f"/v2/{wrong}/blobs/{digest_of(b'')}",
        "/v2/_catalog",
        "/",
        f"/v2/{sink.repository.partition('/')[2][:-1]}/blobs/uploads/",
    ):
        assert ask(sink, method, path, b"{}")[0] == 404
    assert not sink.asked and list((tmp_path / "blobs").iterdir()) == []


@pytest.mark.parametrize(
    "digest",
    ["", "sha256:00", "sha256:../../x", f"sha256:{'A' * 64}", f"md5:{'0' * 64}", f"sha256:{'0' * 64}%0a", "%2e%2e"],
)
def test_digests_that_are_none(sink: Sink, digest: str, tmp_path: Path) -> None:
    assert ask(sink, "HEAD", ours(sink, f"blobs/{digest}"))[0] == 404
    assert ask(sink, "POST", ours(sink, f"blobs/uploads/?digest={digest}"), b"x")[0] in (202, 400)
    assert {path.name.partition("-")[0] for path in tmp_path.rglob("*") if path.is_file()} <= {"upload"}


def test_content_that_is_not_what_its_digest_says(sink: Sink, tmp_path: Path) -> None:
    assert ask(sink, "POST", ours(sink, f"blobs/uploads/?digest={digest_of(b'good')}"), b"bad")[0] == 400
    assert sink.blob(digest_of(b"good")) is None and list((tmp_path / "blobs").iterdir()) == []


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"[]",
        b"{",
        b"[" * 100_000,
        b'{"layers": 5}',
        b'{"layers": [5]}',
        b'{"layers": [{"digest": "sha256:../x"}]}',
    ],
)
def test_manifests_that_are_none(sink: Sink, raw: bytes) -> None:
    assert ask(sink, "PUT", ours(sink, "manifests/layers"), raw)[0] in (201, 400)
    with pytest.raises(ValueError, match="no manifest"):
        sink.layers(1)


def test_a_manifest_without_end(sink: Sink) -> None:
    status, _ = ask(sink, "PUT", ours(sink, "manifests/layers"), b'{"x":"' + bytes(5 << 20))
    assert status == 400


def test_a_folder_that_takes_nothing_is_an_answer(sink: Sink, tmp_path: Path) -> None:
    shutil.rmtree(tmp_path / "blobs")
    assert ask(sink, "POST", ours(sink, "blobs/uploads/"), b"")[0] == 403
    assert isinstance(sink.failure, FileNotFoundError)


def test_a_daemon_that_tries_https_first_is_not_kept_waiting(sink: Sink) -> None:
    host, _, port = sink.repository.partition("/")[0].partition(":")
    with socket.create_connection((host, int(port)), timeout=120) as connection:
        connection.sendall(b"\x16\x03\x01\x02\x00")
        assert connection.recv(1) == b""


def test_connections_end_with_it(tmp_path: Path) -> None:
    with Sink(tmp_path) as sink:
        host, _, port = sink.repository.partition("/")[0].partition(":")
        connection = socket.create_connection((host, int(port)), timeout=120)
        ask(sink, "GET", "/v2/")
    with connection:
        assert connection.recv(1) == b""
    with pytest.raises(OSError):
        socket.create_connection((host, int(port)), timeout=120)
    assert list(tmp_path.iterdir()) == []
