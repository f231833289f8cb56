"""What podman and buildah promise an ordinary user: run by test_podman_buildah.py, as one, once for each.

`HPCBINDER_TEST_ENGINE` names the engine, `HPCBINDER_TEST_BASE` the base's archive.
"""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import tarfile
import textwrap
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import pytest
from waiting import eventually

from hpcbinder.engine import BuildahEngine, Foreign, PodmanEngine, ensure_tools_image, tools_tag
from hpcbinder.engine.containers import ContainersEngine
from hpcbinder.engine.storage import Storage
from hpcbinder.errors import BuildError, FetchError
from hpcbinder.image import DockerArchive

Context = Callable[[BinaryIO], None]
ENGINE = {"podman": PodmanEngine, "buildah": BuildahEngine}[os.environ["HPCBINDER_TEST_ENGINE"]]
ARCHIVE = Path(os.environ["HPCBINDER_TEST_BASE"])
BASE = "localhost/hpcbinder/base:promises"
TAG = "localhost/hpcbinder/test:promises"


def context(dockerfile: str, files: dict[str, str] | None = None) -> Context:
    """A build context with these files."""

    def write(out: BinaryIO) -> None:
        with tarfile.open(fileobj=out, mode="w|") as tar:
            folders: set[str] = set()
            for name, text in {"Dockerfile": dockerfile, **(files or {})}.items():
                parts = name.split("/")[:-1]
                for folder in ("/".join(parts[:end]) for end in range(1, len(parts) + 1)):
                    if folder not in folders:
                        member = tarfile.TarInfo(folder)
                        member.type, member.mode = tarfile.DIRTYPE, 0o755
                        tar.addfile(member)
                        folders.add(folder)
                member = tarfile.TarInfo(name)
                member.size = len(text.encode())
                tar.addfile(member, io.BytesIO(text.encode()))

    return write


def devices(text: str) -> set[str]:
    """Of a network, as proc_pid_net(5) tells them."""
    return {line.split(":")[0].strip() for line in text.splitlines()[2:]}


DEVICES = devices(Path("/proc/self/net/dev").read_text())
"""Of this machine's."""


def anew() -> str:
    """A word that keeps a build cache from answering for a step."""
    return f": {uuid.uuid4()};"


def layer_bytes(image: Any, wanted: tuple[str, ...]) -> bytes:
    return b"".join(stream.read() for _, stream in image.layers(wanted))


def top_layer(image: Any) -> dict[str, bytes | None]:
    """Names in the uppermost layer, with the files' contents."""
    with tarfile.open(fileobj=io.BytesIO(layer_bytes(image, image.config.diff_ids[-1:]))) as tar:
        return {m.name: tar.extractfile(m).read() if m.isreg() else None for m in tar}  # type: ignore[union-attr]


@pytest.fixture(scope="module")
def engine() -> ContainersEngine:
    engine = ENGINE()
    engine.check()
    engine.load(ARCHIVE, BASE)
    return engine


@pytest.fixture
def tag(engine: ContainersEngine) -> Iterator[str]:
    yield TAG
    engine.remove(TAG)


def test_it_says_what_it_is(engine: ContainersEngine) -> None:
    assert engine.description.startswith(f"{engine.name} ") and engine.description.endswith(", rootless")
    assert not engine.rootful


def test_a_build_and_its_layers(engine: ContainersEngine, tag: str, tmp_path: Path) -> None:
    text = f'FROM {BASE} AS first\nRUN echo hello > /srv/hello\nFROM first\nENV A="b c"\nLABEL x=y\nCMD ["x"]\n'
    lines: list[str] = []
    image = engine.build(context(text), tag=tag, log=lines.append, scratch=tmp_path)
    base = DockerArchive(ARCHIVE).config
    assert (image.name, image.config.env["A"], image.config.cmd) == (tag, "b c", ("x",))
    assert {**base.labels, "x": "y"} == image.config.labels  # and nothing that names the engine
    assert image.config.diff_ids[:-1] == base.diff_ids
    found = engine.image(tag)
    assert found is not None and found.config == image.config
    assert lines[0] == "RUN echo hello > /srv/hello"

    ((diff_id, stream),) = list(image.layers(image.config.diff_ids[-1:]))
    assert diff_id == image.config.diff_ids[-1]
    assert list(image.layers(())) == []
    assert list(tmp_path.iterdir()) == []
    assert top_layer(image)["srv/hello"] == b"hello\n"


def test_layers_are_what_their_digests_say_however_they_are_read(
    engine: ContainersEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Straight from storage; and exported, where that cannot be."""
    import hashlib

    change = "rm /etc/debian_version; rm -r /media; mkdir /media; ln -s x /srv/link; mkfifo /srv/p"
    text = f"FROM {BASE}\nRUN {anew()} {change}\n"
    tag = "localhost/hpcbinder/test:layers"
    image = engine.build(context(text), tag=tag, scratch=tmp_path)
    (top,) = image.config.diff_ids[-1:]
    straight = layer_bytes(image, (top,))
    assert f"sha256:{hashlib.sha256(straight).hexdigest()}" == top
    names = top_layer(image).keys()
    assert {"etc/.wh.debian_version", "srv/link", "srv/p"} <= names

    elsewhere = Storage(tmp_path, "elsewhere")  # as if its files could not be looked at
    monkeypatch.setattr(engine, "_storage", elsewhere)
    exported = layer_bytes(image, (top,))
    monkeypatch.undo()
    assert exported == straight
    engine.remove(tag)


def test_only_the_target_is_built(engine: ContainersEngine, tag: str) -> None:
    text = f"FROM {BASE} AS server\nLABEL stage=server\nFROM server\nRUN exit 1\n"
    assert engine.build(context(text), tag=tag, target="server").config.labels["stage"] == "server"


@pytest.mark.parametrize("size", [20, 200_000])
def test_nothing_of_a_secret_stays(engine: ContainersEngine, tag: str, size: int, tmp_path: Path) -> None:
    mount = "--mount=type=tmpfs,target=/run/hpcbinder/site --mount=type=secret,id=env,target=/run/hpcbinder/site/env"
    program = f"{anew()} . /run/hpcbinder/site/env && echo $CANARY && echo ${{CANARY#c}} > /srv/seen && ls -l /dev/shm"
    canary = f"canary-{uuid.uuid4().hex}"
    lines: list[str] = []
    script = f"export CANARY={canary} URL=https://me:hidden-7f@host/\necho hidden-7f\n"
    secrets = {"env": script.encode() + b"#" * size + b"\n"}
    image = engine.build(
        context(f"FROM {BASE}\nRUN {mount} {program}\n"), tag=tag, secrets=secrets, log=lines.append, scratch=tmp_path
    )
    said = " ".join(lines)
    assert canary in said  # the step had it, and said so itself
    assert "hidden-7f" not in said  # a password in a URL is known to be one
    layer = layer_bytes(image, image.config.diff_ids[-1:])
    assert canary[1:].encode() in layer and canary.encode() not in layer
    places = [str(path) for path in (engine.storage.root, tmp_path, Path("/dev/shm"), Path("/tmp"), Path("/var/tmp"))]
    found = subprocess.run(
        [engine.name, "unshare", "grep", "-rlsI", "--", canary, *places], capture_output=True, text=True
    ).stdout
    assert found == ""


def test_a_failing_step(engine: ContainersEngine, tag: str) -> None:
    text = f'FROM {BASE}\nRUN --mount=type=bind,source=steps/00,target=/srv ["/bin/sh","-eu","/srv/run.sh"]\n'
    files = {"steps/00/run.sh": "echo fine\necho 'E: Unable to locate package nonesuch' >&2\nexit 100\n"}
    with pytest.raises(BuildError) as caught:
        engine.build(context(text, files), tag=tag, titles={"steps/00": "apt/packages"})
    assert caught.value.message == (
        "step apt/packages failed with exit status 100: E: Unable to locate package nonesuch"
    )
    assert engine.image(tag) is None


def test_a_step_that_kills_all_it_can(engine: ContainersEngine, tag: str) -> None:
    """Which is itself and the build, and nothing of the person's besides."""
    with subprocess.Popen(["sleep", "60"]) as bystander:
        with pytest.raises(BuildError, match="failed"):
            engine.build(context(f"FROM {BASE}\nRUN {anew()} kill -KILL -1\n"), tag=tag)
        assert bystander.poll() is None
        bystander.kill()


def test_a_base_that_is_not_there_is_not_looked_for_far_away(engine: ContainersEngine, tag: str) -> None:
    with pytest.raises(BuildError, match="localhost/hpcbinder/none"):
        engine.build(context("FROM localhost/hpcbinder/none:1\nRUN true\n"), tag=tag)


def test_a_context_that_cannot_be_written(engine: ContainersEngine, tag: str) -> None:
    def write(out: BinaryIO) -> None:
        out.write(b"\0" * 512)
        raise FetchError("the repository changed under us")

    with pytest.raises(FetchError, match="changed under us"):
        engine.build(write, tag=tag)


@pytest.mark.parametrize("network", [True, False])
def test_a_step_has_a_network_or_none(engine: ContainersEngine, tag: str, network: bool) -> None:
    text = f"FROM {BASE}\nRUN {anew()} cat /proc/self/net/dev > /srv/devices\n"
    seen = top_layer(engine.build(context(text), tag=tag, network=network))["srv/devices"]
    assert seen is not None
    assert devices(seen.decode()) == (DEVICES if network else {"lo"})


def test_the_persons_proxies_do_not_reach_a_step(engine: ContainersEngine, tag: str) -> None:
    mine = ENGINE(environ={**os.environ, "http_proxy": "http://me:canary@proxy.site:1", "CANARY": "canary"})
    lines: list[str] = []
    mine.build(context(f"FROM {BASE}\nRUN {anew()} echo begin; env\n"), tag=tag, log=lines.append)
    assert any("begin" in line for line in lines)
    assert "canary" not in " ".join(lines)


def test_a_step_stays_in_its_root(engine: ContainersEngine, tag: str, tmp_path: Path) -> None:
    """It can neither leave it by another chroot(2), nor enter what another process sees, nor see the person's."""
    (tmp_path / "mine").write_text("private")
    escape = (
        "import os\n"
        "for attempt in (lambda: os.chroot('/srv'), lambda: os.listdir('/proc/1/root/'),\n"
        "                lambda: open('/proc/1/environ').read(), lambda: os.mknod('/srv/null', 0o020666, 0x103)):\n"
        "    try:\n"
        "        attempt()\n"
        "        print('it could')\n"
        "    except OSError as error:\n"
        "        print('refused', error.errno)\n"
        f"print('seen' if os.path.exists({str(tmp_path / 'mine')!r}) else 'unseen')\n"
        f"print(sorted(p for p in os.listdir('/proc') if p.isdigit())[:1], os.path.exists('/proc/{os.getpid()}'))\n"
    )
    mount = "--mount=type=bind,source=steps,target=/run/hpcbinder/step"
    program = "python3 /run/hpcbinder/step/escape.py; unshare -Ur true && echo it could || true"
    text = f"FROM {BASE}\nRUN {mount} {anew()} {program}\n"
    lines: list[str] = []
    engine.build(context(text, {"steps/escape.py": escape}), tag=tag, log=lines.append, scratch=tmp_path)
    said = [line.rpartition(" | ")[2] for line in lines if " | " in line]
    assert "it could" not in said and said.count("refused 1") + said.count("refused 13") == 4
    assert "unseen" in said
    assert "['1'] False" in said


def test_load_is_done_once_and_remove_twice(engine: ContainersEngine) -> None:
    other = "localhost/hpcbinder/test:other-name"
    engine.load(ARCHIVE, BASE)
    engine.load(ARCHIVE, other)
    image = engine.image(other)
    assert image is not None and image.config == DockerArchive(ARCHIVE).config
    engine.remove(other)
    engine.remove(other)
    assert engine.image(other) is None
    assert engine.image(BASE) is not None


def test_tags_are_told_with_size_and_time(engine: ContainersEngine) -> None:
    found = {tag: (size, created) for tag, size, created in engine.tags()}
    size, created = found[BASE]
    assert abs(size - ARCHIVE.stat().st_size) < 0.1 * size
    assert created > 1_700_000_000  # when it was loaded, not the fixed time it was made at


def test_the_tools_image_is_mounted(engine: ContainersEngine, tag: str, tmp_path: Path) -> None:
    assert ensure_tools_image(engine, tmp_path) == tools_tag()
    mount = "--mount=type=bind,from=tools,target=/mnt"
    text = f"FROM {tools_tag()} AS tools\nFROM {BASE}\nRUN {mount} {anew()} /mnt/uv --version\n"
    lines: list[str] = []
    engine.build(context(text), tag=tag, log=lines.append)
    assert any("| uv " in line for line in lines)
    assert left_over() == []


LIST_CONTAINERS = {
    "podman": ["ps", "--all", "--external", "--format={{.ID}} {{.Names}} of {{.ImageID}} by {{.Command}}, {{.Status}}"],
    "buildah": ["containers", "--format={{.ContainerID}} {{.ContainerName}} of {{.ImageID}}"],
}


def left_over() -> list[str]:
    """The containers there are, each with what tells whose it is."""
    name = os.environ["HPCBINDER_TEST_ENGINE"]
    done = subprocess.run([name, *LIST_CONTAINERS[name]], capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def test_one_that_cannot_be_taken_away_keeps_nothing_else(
    engine: ContainersEngine, tag: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor is a container of the person's own touched."""
    mine = subprocess.run(["buildah", "from", "--name=promises-mine", BASE], capture_output=True, text=True, check=True)
    left = [subprocess.run(["buildah", "from", BASE], capture_output=True, text=True).stdout.strip() for _ in range(2)]
    run, asked = engine._run, []

    def stuck(*arguments: str) -> str:
        if arguments[0] == "rm":
            asked.append(arguments[-1])
            if asked[0] in arguments:
                raise BuildError("device or resource busy")
        return run(*arguments)

    stale = engine.storage.root / "hpcbinder" / "buildah1234"
    stale.mkdir(parents=True)
    try:
        with monkeypatch.context() as patch:
            patch.setattr(engine, "_run", stuck)
            engine.build(context(f"FROM {BASE}\nRUN {anew()} true\n"), tag=tag)
        assert len(asked) == 2
        # By the whole listing: what is left of our two is the one that was stuck.
        assert [any(name in line.split() for line in left_over()) for name in left].count(True) == 1
        assert not stale.exists()
        engine.build(context(f"FROM {BASE}\nRUN {anew()} true\n"), tag=tag)
        assert [line.split()[1] for line in left_over()] == [mine.stdout.strip()]
    finally:
        subprocess.run(["buildah", "rm", "promises-mine"], capture_output=True)


def test_a_step_is_cached_as_long_as_what_it_mounts_is_the_same(engine: ContainersEngine, tag: str) -> None:
    step = 'RUN --mount=type=bind,source=steps/00,target=/mnt ["/bin/sh","-eu","/mnt/run.sh"]'
    joined = 'RUN --mount=type=bind,from=apart,source=/srv,target=/mnt ["/bin/cp","/mnt/seen","/srv/joined"]'
    text = f"FROM {BASE} AS apart\n{step}\nFROM {BASE}\n{joined}\n"

    def build(word: str) -> tuple[str, bytes | None]:
        script = f"cat /proc/sys/kernel/random/uuid > /srv/seen; echo {word} >> /srv/seen"
        image = engine.build(context(text, {"steps/00/run.sh": script}), tag=tag)
        return image.digest, top_layer(image)["srv/joined"]

    first, again = build("one"), build("one")
    assert first == again
    engine.remove(tag)  # what joined is gone, what was made apart is still in the cache
    assert build("one")[1] == first[1]
    other = build("two")
    assert other[1] is not None and other[1].endswith(b"two\n")


def test_somebodys_own_dockerfile(engine: ContainersEngine, tag: str, tmp_path: Path) -> None:
    """With arguments, from anywhere in the context; not with mounts, by which buildah before 1.39 can be led out."""
    lines: list[str] = []
    text = f"FROM {BASE}\nARG WORD\nCOPY . /srv/all\nRUN {anew()} echo $WORD; cat /srv/all/deep/Dockerfile | wc -l\n"
    foreign = Foreign("deep/Dockerfile", {"WORD": "given"})
    engine.build(context("FROM x", {"deep/Dockerfile": text}), tag=tag, log=lines.append, foreign=foreign)
    assert any(line.endswith("| given") for line in lines)
    mount = f"FROM {BASE}\nRUN --mo\\\n# a comment\nunt=type=cache,id=../../..,target=/x true\n"
    if engine._numbers < engine.safe_mounts:
        with pytest.raises(BuildError, match="not safe"):
            engine.build(context("FROM x", {"deep/Dockerfile": mount}), tag=tag, foreign=foreign)


def test_a_dockerfile_that_is_a_link_to_somewhere_else(engine: ContainersEngine, tag: str, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("private")

    def write(out: BinaryIO) -> None:
        with tarfile.open(fileobj=out, mode="w|") as tar:
            member = tarfile.TarInfo("Dockerfile")
            member.type, member.linkname = tarfile.SYMTYPE, str(tmp_path / "mine")
            tar.addfile(member)

    with pytest.raises(BuildError, match="leads out") as caught:
        engine.build(write, tag=tag, foreign=Foreign("Dockerfile", {}))
    assert "private" not in str(caught.value)


def test_a_cache_outlives_a_build_and_is_the_persons_own(engine: ContainersEngine, tag: str) -> None:
    mount = "--mount=type=cache,id=hpcbinder-promises,target=/run/hpcbinder/cache/x"
    for wanted in ("", "kept"):
        text = f"FROM {BASE}\nRUN {mount} {anew()} cat /run/hpcbinder/cache/x/word || true; "
        text += "echo kept > /run/hpcbinder/cache/x/word\n"
        lines: list[str] = []
        engine.build(context(text), tag=tag, log=lines.append)
        assert not wanted or any(line.endswith(f"| {wanted}") for line in lines)
    assert (engine.storage.root / "hpcbinder").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_build_ends_with_us(engine: ContainersEngine, tag: str, tmp_path: Path, sign: signal.Signals) -> None:
    marker = f"314{int(sign)}.{os.getpid()}"
    program = textwrap.dedent(
        f"""
        import io, signal, sys, tarfile
        from pathlib import Path
        from hpcbinder.engine import {ENGINE.__name__}

        def write(out):
            with tarfile.open(fileobj=out, mode="w|") as tar:
                text = b"FROM {BASE}\\nRUN echo begun; sleep {marker}; : done\\n"
                member = tarfile.TarInfo("Dockerfile")
                member.size = len(text)
                tar.addfile(member, io.BytesIO(text))

        signal.signal(signal.SIGINT, signal.default_int_handler)  # who runs us in the background ignores it
        {ENGINE.__name__}().build(
            write, tag="localhost/hpcbinder/test:{marker}", scratch=Path("{tmp_path}"),
            log=lambda line: print(line, flush=True))
        """
    )
    child = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    try:
        assert child.stdout is not None
        assert any(line.endswith(b"| begun\n") for line in child.stdout)
        assert eventually(lambda: running(marker))
        child.send_signal(sign)
        child.wait(120)
        child.stdout.close()
    finally:
        child.kill()
    assert eventually(lambda: not running(marker))
    # What it left is taken away by whoever builds next.
    engine.build(context(f"FROM {BASE}\nRUN {anew()} true\n"), tag=tag)
    assert left_over() == []
    assert list((engine.storage.root / "hpcbinder").glob("buildah[0-9]*")) == []


def running(argument: str) -> bool:
    """Whether a process has this argument."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            argv = (folder / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if argument.encode() in argv:
            return True
    return False
