"""Building with a real Docker daemon."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import textwrap
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import pytest
from waiting import eventually

import memory
from hpcbinder.bases import BaseImage
from hpcbinder.engine import DockerEngine, ensure_tools_image, tools_tag
from hpcbinder.errors import BuildError, FetchError
from hpcbinder.image import DockerArchive
from rig import Dockerd

Context = Callable[[BinaryIO], None]


def context(dockerfile: str, files: dict[str, str] | None = None) -> Context:
    """A build context with these files."""

    def write(out: BinaryIO) -> None:
        with tarfile.open(fileobj=out, mode="w|") as tar:
            for name, text in {"Dockerfile": dockerfile, **(files or {})}.items():
                member = tarfile.TarInfo(name)
                member.size = len(text.encode())
                tar.addfile(member, io.BytesIO(text.encode()))

    return write


def anew() -> str:
    """A word that keeps a build cache from answering for a step."""
    return f": {uuid.uuid4()};"


def layer_bytes(image: Any, wanted: tuple[str, ...]) -> bytes:
    return b"".join(stream.read() for _, stream in image.layers(wanted))


def test_a_build_and_its_layers(engine: DockerEngine, base: BaseImage, tag: str, tmp_path: Path) -> None:
    text = f'FROM {base.tag} AS first\nRUN echo hello > /srv/hello\nFROM first\nENV A="b c"\nLABEL x=y\nCMD ["x"]\n'
    lines: list[str] = []
    image = engine.build(context(text), tag=tag, log=lines.append, scratch=tmp_path)
    assert image.name == tag
    assert image.config.env["A"] == "b c"
    assert image.config.labels["x"] == "y"
    assert image.config.cmd == ("x",)
    assert image.config.diff_ids[:-1] == base.config.diff_ids
    found = engine.image(tag)
    assert found is not None and found.config == image.config
    assert "RUN echo hello > /srv/hello" in lines

    (layer,) = list(image.layers(image.config.diff_ids[-1:]))
    assert layer[0] == image.config.diff_ids[-1]
    assert list(image.layers(())) == []
    assert list(tmp_path.iterdir()) == []
    with tarfile.open(fileobj=io.BytesIO(layer_bytes(image, image.config.diff_ids[-1:]))) as tar:
        hello = tar.extractfile("srv/hello")
        assert hello is not None and hello.read() == b"hello\n"


def test_only_the_target_is_built(engine: DockerEngine, base: BaseImage, tag: str) -> None:
    text = f"FROM {base.tag} AS server\nLABEL stage=server\nFROM server\nRUN exit 1\n"
    assert engine.build(context(text), tag=tag, target="server").config.labels["stage"] == "server"


def test_nothing_of_a_secret_stays(engine: DockerEngine, base: BaseImage, tag: str) -> None:
    mount = "--mount=type=tmpfs,target=/run/hpcbinder/site --mount=type=secret,id=env,target=/run/hpcbinder/site/env"
    program = f"{anew()} . /run/hpcbinder/site/env && echo $CANARY && echo ${{CANARY#c}} > /srv/seen"
    text = f"FROM {base.tag}\nRUN {mount} {program}\n"
    canary = "canary-5ac1e9"
    lines: list[str] = []
    secrets = {"env": f"export CANARY={canary} URL=https://me:hidden-7f@host/\necho hidden-7f\n".encode()}
    image = engine.build(context(text), tag=tag, secrets=secrets, log=lines.append)
    assert f"{canary}" in " ".join(lines)  # the step had it, and said so itself
    assert "hidden-7f" not in " ".join(lines)  # a password in a URL is known to be one
    layer = layer_bytes(image, image.config.diff_ids[-1:])
    assert b"anary-5ac1e9" in layer and canary.encode() not in layer
    with tarfile.open(fileobj=io.BytesIO(layer)) as tar:
        assert [name for name in tar.getnames() if name.startswith("run")] == []
    assert canary not in json.dumps(engine._client().api.inspect_image(tag))
    assert canary not in json.dumps(engine._client().api.history(tag))


def test_a_failing_step(engine: DockerEngine, base: BaseImage, tag: str) -> None:
    text = f'FROM {base.tag}\nRUN --mount=type=bind,source=steps/00,target=/srv ["/bin/sh","-eu","/srv/run.sh"]\n'
    files = {"steps/00/run.sh": "echo fine\necho 'E: Unable to locate package nonesuch' >&2\nexit 100\n"}
    with pytest.raises(BuildError) as caught:
        engine.build(context(text, files), tag=tag, titles={"steps/00": "apt/packages"})
    assert str(caught.value) == ("step apt/packages failed with exit status 100: E: Unable to locate package nonesuch")
    assert engine.image(tag) is None


def test_a_step_without_a_network(engine: DockerEngine, base: BaseImage, tag: str) -> None:
    lines: list[str] = []
    text = f"FROM {base.tag}\nRUN {anew()} grep -c : /proc/self/net/dev; ls /etc/hostname\n"
    engine.build(context(text), tag=tag, log=lines.append, network=False)
    said = [line.rpartition("| ")[2].strip() for line in lines]
    assert "1" in said and "/etc/hostname" in said


def test_a_base_that_is_not_there_is_not_looked_for_far_away(engine: DockerEngine, tag: str) -> None:
    with pytest.raises(BuildError, match="localhost/hpcbinder/none"):
        engine.build(context("FROM localhost/hpcbinder/none:1\nRUN true\n"), tag=tag)


def test_a_context_that_cannot_be_written(engine: DockerEngine, tag: str) -> None:
    def write(out: BinaryIO) -> None:
        out.write(b"\0" * 512)
        raise FetchError("the repository changed under us")

    with pytest.raises(FetchError, match="changed under us"):
        engine.build(write, tag=tag)


def test_the_persons_docker_settings_do_not_reach_a_step(
    dockerd: Dockerd, base: BaseImage, engine: DockerEngine, tag: str, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    (home / ".docker").mkdir(parents=True)
    proxies = {"default": {"httpProxy": "http://me:canary-proxy@proxy.site:1", "noProxy": "*"}}
    (home / ".docker/config.json").write_text(json.dumps({"proxies": proxies}))
    mine = DockerEngine(dockerd.host, environ={**os.environ, "HOME": str(home), "http_proxy": "http://canary-env"})
    lines: list[str] = []
    mine.build(context(f"FROM {base.tag}\nRUN {anew()} echo begin; env\n"), tag=tag, log=lines.append)
    assert any("begin" in line for line in lines)
    assert "canary" not in " ".join(lines)


def test_load_is_done_once_and_remove_twice(engine: DockerEngine, base: BaseImage) -> None:
    engine.load(base.archive, base.tag)
    engine.load(base.archive, base.tag)
    engine.load(base.archive, "localhost/hpcbinder/test:other-name")
    image = engine.image("localhost/hpcbinder/test:other-name")
    assert image is not None and image.digest == base.config.digest
    engine.remove("localhost/hpcbinder/test:other-name")
    engine.remove("localhost/hpcbinder/test:other-name")
    assert engine.image("localhost/hpcbinder/test:other-name") is None
    assert engine.image(base.tag) is not None


def test_the_tools_image_holds_uv_alone(engine: DockerEngine, base: BaseImage, tag: str, tmp_path: Path) -> None:
    assert ensure_tools_image(engine, tmp_path) == tools_tag()
    engine.remove(tools_tag())
    assert ensure_tools_image(engine, tmp_path) == tools_tag()
    assert list(tmp_path.iterdir()) == []
    image = engine.image(tools_tag(), scratch=tmp_path)
    assert image is not None
    with tarfile.open(fileobj=io.BytesIO(layer_bytes(image, image.config.diff_ids))) as tar:
        assert [(m.name, m.mode, m.mtime) for m in tar] == [("uv", 0o755, 0)]
    mount = "--mount=type=bind,from=tools,target=/mnt"
    text = f"FROM {tools_tag()} AS tools\nFROM {base.tag}\nRUN {mount} {anew()} /mnt/uv --version\n"
    lines: list[str] = []
    engine.build(context(text), tag=tag, log=lines.append)
    assert any(line.endswith(tools_tag().rpartition("-")[2]) or "uv " in line for line in lines)


@pytest.mark.heavy  # leaves 1 GiB in the daemon's build cache
def test_a_large_context_does_not_pass_through_memory(engine: DockerEngine, base: BaseImage, tag: str) -> None:
    size = 1 << 30

    def write(out: BinaryIO) -> None:
        with tarfile.open(fileobj=out, mode="w|") as tar:
            text = (
                f"FROM {base.tag}\nRUN --mount=type=bind,source=data,target=/mnt/data {anew()} stat -c %s /mnt/data\n"
            )
            member = tarfile.TarInfo("Dockerfile")
            member.size = len(text)
            tar.addfile(member, io.BytesIO(text.encode()))
            member = tarfile.TarInfo("data")
            member.size = size
            with Path("/dev/zero").open("rb") as zeros:
                tar.addfile(member, zeros)

    before = memory.start()
    lines: list[str] = []
    engine.build(write, tag=tag, log=lines.append)
    assert any(line.endswith(f"| {size}") for line in lines)
    assert memory.peak() - before < 50_000  # KiB


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_build_ends_with_us(dockerd: Dockerd, base: BaseImage, tmp_path: Path, sign: signal.Signals) -> None:
    marker = f"314{int(sign)}.{os.getpid()}"
    program = textwrap.dedent(
        f"""
        import io, signal, sys, tarfile
        from pathlib import Path
        from hpcbinder.engine import DockerEngine

        def write(out):
            with tarfile.open(fileobj=out, mode="w|") as tar:
                text = b"FROM {base.tag}\\nRUN echo begun; exec sleep {marker}\\n"
                member = tarfile.TarInfo("Dockerfile")
                member.size = len(text)
                tar.addfile(member, io.BytesIO(text))

        signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell ignores it for what runs in the background
        DockerEngine("{dockerd.host}").build(
            write, tag="localhost/hpcbinder/test:{marker}", scratch=Path("{tmp_path}"),
            log=lambda line: print(line, flush=True))
        """
    )
    child = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert child.stdout is not None
    assert any(line.endswith(b"| begun\n") for line in child.stdout)
    assert eventually(lambda: running("sleep", marker))
    child.send_signal(sign)
    child.wait(120)  # BuildKit takes its time to give up on a busy machine
    child.stdout.close()
    assert eventually(lambda: not running("sleep", marker))
    assert eventually(lambda: not running("docker", f"--tag=localhost/hpcbinder/test:{marker}"))
    if sign == signal.SIGINT:  # the others give Python no chance to clean up; the store does when it is next used
        assert list(tmp_path.iterdir()) == []


def running(program: str, argument: str) -> bool:
    """Whether a process of this program has this argument."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            argv = (folder / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if argv[0].endswith(program.encode()) and argument.encode() in argv:
            return True
    return False


def test_the_archive_on_disk_is_what_the_engine_has(engine: DockerEngine, base: BaseImage) -> None:
    image = engine.image(base.tag)
    assert image is not None
    assert image.config == DockerArchive(base.archive).config
