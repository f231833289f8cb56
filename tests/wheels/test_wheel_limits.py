"""What a wheel, a server or another user costs us at most."""

from __future__ import annotations

import os
import signal
import socket
import struct
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import contextmanager
from pathlib import Path

import pytest
from package_index import File, PackageIndex
from wheelmaker import Install, contents, locked, publish, target, wheel

from hpcbinder.config import SiteConfig
from hpcbinder.errors import BuildError, FetchError
from hpcbinder.wheels import Interpreter
from hpcbinder.wheels.bytecode import Compiled, Compilers
from hpcbinder.wheels.index import wheel_name
from hpcbinder.wheels.locks import Lock

BOMB = "x = (" + ",".join(f"'{number:05x}' * 819" for number in range(2000)) + ")\n"
"""30 KB, of which a compiler makes 8 MB: it multiplies what is short."""
ENDLESS = "# coding: punycode\na-" + "b" * 1_500_000 + "\n"
"""That codec takes the square of the time."""


def test_bytecode_far_larger_than_its_source(package_index: PackageIndex, install: Install) -> None:
    file = wheel(files={"bomb.py": BOMB, "good.py": "x = 1\n"})
    publish(package_index, file)
    (layer,) = install(locked(file))
    made = [path.rpartition("/")[2] for path in contents(layer) if path.endswith(".pyc")]
    assert [name.partition(".")[0] for name in made] == ["good"]
    assert layer.stat().st_size < 1 << 20


def test_much_bytecode_in_all(package_index: PackageIndex, install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hpcbinder.wheels.tarring._FREE_BYTECODE", 1 << 20)
    line = "x = (" + ",".join(f"'{number:05x}' * 819" for number in range(200)) + ")\n"
    file = wheel(files={f"m{number}.py": f"{line}# {number}\n" for number in range(3)})
    publish(package_index, file)
    with pytest.raises(BuildError, match="pack 1.0 is refused: its .* bytes of Python compile to more than"):
        install(locked(file))


@pytest.mark.parametrize(
    ("limit", "most", "words"),
    [
        ("bytecode._SECONDS", 1, "m/slow.py' takes more than 1 seconds to compile"),
        ("bytecode._PATIENCE", 1, "m/slow.py' is not compiled after 1 seconds"),
        ("tarring._BUDGET", 0, "compiling it takes more than 0 seconds"),
    ],
)
def test_a_source_that_takes_long(
    limit: str,
    most: int,
    words: str,
    package_index: PackageIndex,
    install: Install,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(f"hpcbinder.wheels.{limit}", most)
    file = wheel(files={"m/slow.py": ENDLESS if most else ENDLESS[:40_000]})
    publish(package_index, file)
    with pytest.raises(BuildError, match=f"the wheel of pack 1.0 is refused: .*{words}") as caught:
        install(locked(file))
    assert "again" in str(caught.value.hint)
    # Without its bytecode it would be another layer than elsewhere.
    assert not list((folder / "layers").glob("*.squashfs"))


def group(leader: int) -> list[int]:
    """The processes of a group, without zombies (proc(5), /proc/PID/stat)."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, member_of = path.read_text().rpartition(")")[2].split()[:3]
        except (FileNotFoundError, ProcessLookupError):
            continue
        if member_of == str(leader) and state != "Z":
            found.append(int(path.parent.name))
    return found


def test_an_error_elsewhere_ends_all_compilers() -> None:
    compilers = Compilers(Interpreter((sys.executable, "-s", "-S", "-B")), target(), 1)

    def fail() -> int:
        with compilers:
            made = compilers.submit([("/a.py", ENDLESS.encode()), ("/b.py", ENDLESS.encode())])
            # The interpreter, and the process that it has for these files.
            while not (children := compilers._children) or len(group(next(iter(children))._process.pid)) < 2:
                assert not made.done()
                time.sleep(0.02)
            leaders.append(next(iter(children))._process.pid)
            raise InterruptedError

    leaders: list[int] = []
    with pytest.raises(InterruptedError):
        fail()
    for _ in range(100):  # until the system has put them away
        if not group(leaders[0]):
            break
        time.sleep(0.05)
    assert group(leaders[0]) == []


def test_some_compilers_are_there_before_the_first_file_is() -> None:
    with Compilers(Interpreter((sys.executable, "-s", "-S", "-B")), target(), 8) as compilers:
        deadline = time.monotonic() + 60
        while not compilers._children and time.monotonic() < deadline:
            time.sleep(0.02)
        # As many as cores would be many on a large machine, for one small wheel.
        assert 1 <= len(compilers._children) <= 2


def test_a_killed_compiler_is_no_source_without_bytecode() -> None:
    with Compilers(Interpreter((sys.executable, "-s", "-S", "-B")), target(), 1) as compilers:
        made = compilers.submit([("/a.py", ENDLESS.encode())])
        while not (children := compilers._children) or len(group(next(iter(children))._process.pid)) < 2:
            assert not made.done()
            time.sleep(0.02)
        (leader,) = (child._process.pid for child in children)
        # As a machine that is out of memory does: the process that compiles, not the one that answers.
        os.kill(max(process for process in group(leader) if process != leader), signal.SIGKILL)
        with pytest.raises(BuildError, match="was killed"):
            made.result()


def test_chunked_answers(package_index: PackageIndex, install: Install) -> None:
    file = wheel()
    half = len(file.content) // 2
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (file.content[:half], file.content[half:], b""))
    with dripping(b"Transfer-Encoding: chunked", chunks, b"") as url:
        package_index.answer = lambda path: (200, f'<a href="{url}/{file.name}#sha256={file.sha256}">x</a>'.encode())
        assert install(locked(file))


def test_an_error_elsewhere_is_not_held_up_by_a_compiler(
    package_index: PackageIndex, install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow, refused = wheel("slow", files={"slow.py": ENDLESS}), wheel("bad", files={"../x": ""})
    publish(package_index, slow, refused)
    monkeypatch.setattr("hpcbinder.wheels.bytecode._SECONDS", 10)
    compile_, begun, ended = Compilers._compile, threading.Event(), []

    def watched(self: Compilers, sources: Sequence[tuple[str, bytes]]) -> Compiled:
        begun.set()
        try:
            return compile_(self, sources)
        except BaseException as error:
            ended.append(type(error))
            raise

    monkeypatch.setattr(Compilers, "_compile", watched)
    respond = package_index.respond

    def later(path: str, headers: dict[str, str]) -> tuple[int, str, bytes]:
        assert not path.startswith("/files/bad") or begun.wait(60)
        return respond(path, headers)

    package_index.respond = later  # type: ignore[method-assign, assignment]
    with pytest.raises(BuildError, match="the wheel of bad 1.0 is refused"):
        install(locked(slow), locked(refused), jobs=2)
    assert ended == [CancelledError]


def test_two_ends_of_an_archive(package_index: PackageIndex, install: Install) -> None:
    """A small list of files where the end's locator points, a long one where it is looked for."""
    header = struct.Struct("<4s4B4HL2L5H2L")
    files = b"".join(
        header.pack(b"PK\1\2", 20, 3, 20, 0, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0) + b"%07d" % number
        for number in range(300)
    )
    record = struct.Struct("<4sQ2H2L4Q")
    small = record.pack(b"PK\6\6", 44, 45, 45, 0, 0, 1, 1, 100, 0)
    true = record.pack(b"PK\6\6", 44, 45, 45, 0, 0, 300, 300, len(files), len(small))
    locator = struct.pack("<4sLQL", b"PK\6\7", 0, 0, 1)
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    refuse(small + files + true + locator + end, "has two ends", package_index, install)


def test_more_files_in_an_archive_than_it_counts(package_index: PackageIndex, install: Install) -> None:
    content = bytearray(wheel(files=dict.fromkeys(map(str, range(9)), "x")).content)
    end = content.rindex(b"PK\5\6")
    struct.pack_into("<2H", content, end + 8, 2, 2)
    refuse(bytes(content), "list of files is not as long as it says", package_index, install)


def test_a_long_list_of_few_files(package_index: PackageIndex, install: Install) -> None:
    content = bytearray(wheel().content)
    struct.pack_into("<L", content, content.rindex(b"PK\5\6") + 12, 1 << 20)
    refuse(bytes(content), "list of files is too long", package_index, install)


def refuse(content: bytes, words: str, index: PackageIndex, install: Install) -> None:
    file = File(wheel().name, content)
    publish(index, file)
    with pytest.raises(BuildError, match=f"the wheel of pack 1.0 is refused: .*{words}"):
        install(locked(file))


@contextmanager
def dripping(head: bytes, begin: bytes, drop: bytes) -> Iterator[str]:
    """A server that sends a byte now and then, until nobody listens; its address."""

    def serve() -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            with connection:
                connection.recv(65536)
                try:
                    connection.sendall(b"HTTP/1.1 200 OK\r\n" + head + b"\r\n\r\n" + begin)
                    for _ in range(200 if drop else 0):
                        connection.sendall(drop)
                        time.sleep(0.02)
                except OSError:
                    pass

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
        server.shutdown(socket.SHUT_RDWR)
        thread.join()


EMPTY_BLOCK = b"\x1f\x8b\x08" + bytes(7), b"\0\0\0\xff\xff"
"""A gzip file's head, and a block of it that unpacks to nothing."""


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("page", [False, True])
def test_a_server_that_drips(
    page: bool, packed: bool, package_index: PackageIndex, install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hpcbinder.wheels.download._PATIENCE", 0.2)
    file = wheel()
    head = b"Content-Length: 100000000" + (b"\r\nContent-Encoding: gzip" if packed else b"")
    with dripping(head, *(EMPTY_BLOCK if packed else (b"", b"x"))) as url:
        site = SiteConfig(pip_index_url=f"{url}/simple" if page else package_index.url)
        link = f'<a href="{url}/{file.name}#sha256={file.sha256}">x</a>'
        package_index.answer = lambda path: (200, link.encode())
        with pytest.raises(FetchError, match="pack: the server is too slow"):
            install(locked(file), site=site)


@pytest.mark.parametrize("page", [False, True])
def test_a_server_that_says_nothing(
    page: bool, package_index: PackageIndex, install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hpcbinder.source.web._TIMEOUTS", (5.0, 0.3))
    file = wheel()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        site = SiteConfig(pip_index_url=f"{url}/simple" if page else package_index.url)
        link = f'<a href="{url}/{file.name}#sha256={file.sha256}">x</a>'
        package_index.answer = lambda path: (200, link.encode())
        with pytest.raises(FetchError, match="pack: the server says nothing"):
            install(locked(file), site=site)


def test_packed_pages(package_index: PackageIndex, install: Install) -> None:
    import gzip

    file = wheel()
    publish(package_index, file)
    respond = package_index.respond

    def packed(path: str, headers: dict[str, str]) -> tuple[int, str, bytes]:
        status, kind, body = respond(path, headers)
        if path.startswith("/files/"):
            return status, kind, body
        assert headers["Accept-Encoding"] == "gzip"
        return status, f"{kind}\r\nContent-Encoding: gzip", gzip.compress(body + b" " * 3_000_000)

    package_index.respond = packed  # type: ignore[method-assign, assignment]
    assert install(locked(file))


def test_downloads_are_unfinished_where_all_is(package_index: PackageIndex, install: Install, folder: Path) -> None:
    file = wheel()
    publish(package_index, file)
    respond, seen = package_index.respond, []

    class Watched(bytes):
        def __len__(self) -> int:
            return super().__len__() + 1  # what comes is one byte short of what is promised: it is tried again

    def once(path: str, headers: dict[str, str]) -> tuple[int, str, bytes]:
        if path.startswith("/files/"):
            seen.extend(path.name for path in folder.iterdir() if path.is_file())
            status, kind, body = respond(path, headers)
            return status, kind, Watched(body) if len(package_index.requests) < 4 else body
        return respond(path, headers)

    package_index.respond = once  # type: ignore[method-assign, assignment]
    assert install(locked(file))
    assert seen == []
    assert not list((folder.parent / "scratch").iterdir())


LONG = "1" * 5000


def test_versions_of_thousands_of_digits(package_index: PackageIndex, install: Install) -> None:
    file = wheel()
    publish(package_index, File(f"pack-{LONG}-py3-none-any.whl", b""), file)
    assert install(locked(file))
    with pytest.raises(FetchError, match="no name of a wheel"):
        wheel_name(f"https://host.example/pack-{LONG}-py3-none-any.whl")


def test_metadata_of_thousands_of_digits(package_index: PackageIndex, install: Install) -> None:
    text = f"Metadata-Version: 2.1\nName: pack\nVersion: {LONG}\n"
    refuse(
        wheel(files={"pack-1.0.dist-info/METADATA": text}).content,
        "its METADATA is of pack 111",
        package_index,
        install,
    )


def test_credentials_of_a_lock_are_not_shown(package_index: PackageIndex, install: Install) -> None:
    with pytest.raises(FetchError) as caught:
        wheel_name("https://me:s3cret@host.example/pack.tar.gz")
    assert "s3cret" not in f"{caught.value} {caught.value.where}"


def test_credentials_of_a_lock_are_not_kept(package_index: PackageIndex, install: Install) -> None:
    file = wheel()
    publish(package_index, file)
    url = package_index.url.replace("/simple", f"/files/{file.name}").replace("://", "://me:s3cret@")
    package_index.answer = lambda path: (200, file.content)
    (layer,) = install(locked(file, url=f"{url}?X-Amz-Signature=t0ken"), hosts=("127.0.0.1",))
    text = next(content for path, (_, content) in contents(layer).items() if path.endswith("direct_url.json")).decode()
    assert "s3cret" not in text
    assert "t0ken" not in text
    assert f"/files/{file.name}" in text


def test_who_may_only_read_holds_no_lock(tmp_path: Path) -> None:
    path = tmp_path / "a.lock"
    lock = Lock(path)
    assert path.stat().st_mode & 0o777 == 0o600
    lock.release(done=True)


def test_a_lock_of_another_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.lock"
    path.touch()

    def refuse(*_: object, **__: object) -> int:
        raise PermissionError(13, "Permission denied")

    # root, who may run the tests, is refused nothing: this stands for it.
    monkeypatch.setattr(os, "open", refuse)
    lock = Lock(path)
    monkeypatch.undo()
    # The work is done twice then.
    assert lock.take(wait=True)
    lock.release(done=False)
