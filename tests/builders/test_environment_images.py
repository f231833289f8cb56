"""Environments made once by a real Docker daemon, whichever repository asks for the same again."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import tarfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from checkouts import checkout_of, plan_of

from hpcbinder.builders import build_with_engine
from hpcbinder.builders import dockerfile as builder
from hpcbinder.config import load
from hpcbinder.engine import DockerEngine, Engine, EngineImage
from hpcbinder.errors import BuildError
from hpcbinder.image import write_docker_archive
from hpcbinder.model import Lock, LockedPackage, Plan, Stage, Step
from rig import Dockerd, Rig

EMPTY = Step(
    Stage.INTERPRETER,
    "test/environment",
    "an empty environment",
    """\
mkdir -p /opt/env/bin /opt/env/lib
echo "#!/bin/sh" >/opt/env/bin/activate
ln -s lib /opt/env/lib64
settle /opt
""",
)


def filling(name: str, script: str, **more: Any) -> Step:
    return Step(Stage.DEPENDENCIES, f"test/{name}", f"adds {name}", f"{script}\nsettle /opt\n", **more)


class Heard:
    def __init__(self) -> None:
        self.phases: list[str] = []

    def phase(self, phase: str, message: str, progress: float | None = None) -> None:
        self.phases.append(message)

    def log(self, phase: str, line: str) -> None: ...


class Recording:
    """An engine that remembers which stages it was asked to build, above that of the (empty) server."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.built: list[str | None] = []
        self.tags_made: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def build(self, *arguments: Any, tag: str, target: str | None = None, **more: Any) -> EngineImage:
        if target != "server":
            self.built.append(target)
        self.tags_made.append(tag)
        return self._engine.build(*arguments, tag=tag, target=target, **more)


@dataclasses.dataclass
class Bench:
    """Builds plans of hand-made steps, without a notebook server, on the rig's daemon."""

    engine: Recording
    folder: Path
    bases: Path
    heard: Heard = dataclasses.field(default_factory=Heard)

    def plan(self, *steps: Step, name: str = "example", files: dict[str, str] | None = None, **changes: Any) -> Plan:
        folder = self.folder / name
        plan = plan_of(folder, {"README": name, **(files or {})}, name=name)
        return dataclasses.replace(plan, steps=steps, **changes)

    def build(self, plan: Plan) -> EngineImage:
        config = load({}, user_file=Path("/nonexistent"), site_file=Path("/nonexistent"))
        self.engine.built.clear()
        self.heard.phases.clear()
        return build_with_engine(
            plan,
            checkout_of(self.folder / plan.name, name=plan.name),
            self.engine,
            bases_dir=self.bases,
            scratch=self.folder,
            config=config,
            reporter=self.heard,
        )


@pytest.fixture
def bench(rig: Rig, dockerd: Dockerd, tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(Recording(DockerEngine(dockerd.host)), tmp_path, rig.folder / "bases")
    yield bench
    for tag in reversed(bench.engine.tags_made):
        bench.engine.remove(tag)


def layers(image: EngineImage) -> tuple[str, ...]:
    """DiffIDs of the base's layer and of one for each step: without those of the content and of WORKDIR."""
    return image.config.diff_ids[:-2]


def files(image: EngineImage, wanted: str) -> dict[str, tarfile.TarInfo]:
    (raw,) = [stream.read() for _, stream in image.layers([wanted])]
    assert f"sha256:{hashlib.sha256(raw).hexdigest()}" == wanted
    with tarfile.open(fileobj=io.BytesIO(raw)) as tar:
        return {member.name: member for member in tar}


def test_a_second_repository_with_the_same_environment_builds_none(bench: Bench) -> None:
    salt = uuid.uuid4()
    numbers = filling("numbers", f"echo {salt} >/opt/env/lib/numbers")
    first = bench.build(bench.plan(EMPTY, numbers, name="first"))
    assert bench.engine.built == ["before-01", "before-02", None]
    other = dataclasses.replace(numbers, reason="adds numbers, as another repository puts it")
    second = bench.build(bench.plan(EMPTY, other, name="second", files={"start": '#!/bin/sh\nexec "$@"\n'}))
    assert bench.engine.built == [None]
    assert bench.heard.phases[0] == "environment: 2 of 2 steps are there already"
    assert layers(second) == layers(first)
    assert second.config.diff_ids != first.config.diff_ids


def test_an_environment_outlives_the_build_cache(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    # A step that gives something else each time it runs, and tools of which the cache has never heard: whatever is made
    # again is another layer.
    numbers = filling("numbers", f": {uuid.uuid4()}; cat /proc/sys/kernel/random/uuid >/opt/env/lib/numbers")
    first = bench.build(bench.plan(EMPTY, numbers, name="first"))
    monkeypatch.setattr(builder, "ensure_tools_image", lambda engine, scratch: other_tools(engine, scratch))
    second = bench.build(bench.plan(EMPTY, numbers, name="second"))
    assert layers(second) == layers(first)

    more = filling("more", "echo more >/opt/env/lib/more", apart=("/opt/env",))
    third = bench.build(bench.plan(EMPTY, numbers, more, name="third"))
    assert bench.engine.built == ["before-03", None]
    assert layers(third)[:-1] == layers(first)

    for tag in bench.engine.tags_made:
        bench.engine.remove(tag)
    assert layers(bench.build(bench.plan(EMPTY, numbers, name="first"))) != layers(first)


def other_tools(engine: Engine, scratch: Path) -> str:
    tag = f"localhost/hpcbinder/test-tools:{uuid.uuid4().hex}"
    layer, archive = scratch / "tools-layer.tar", scratch / "tools.tar"
    with tarfile.open(layer, "w") as tar:
        member = tarfile.TarInfo("salt")
        member.size = 32
        tar.addfile(member, io.BytesIO(uuid.uuid4().hex.encode()))
    config = {"architecture": "amd64", "os": "linux", "config": {}}
    with archive.open("wb") as out:
        diff_id = f"sha256:{hashlib.sha256(layer.read_bytes()).hexdigest()}"
        write_docker_archive(out, config, [(diff_id, layer)], tag)
    engine.load(archive, tag)
    assert isinstance(engine, Recording)
    engine.tags_made.append(tag)
    return tag


def test_one_package_more_is_one_layer_more(bench: Bench) -> None:
    packages = tuple(LockedPackage(name, "1", ("sha256:00",)) for name in ("a", "b", "c"))
    lock = Lock("pypi", "resolved", "3.11", "x", packages[:2], (("a", "b"),))
    salt = uuid.uuid4()
    ab = filling("ab", f"echo {salt} >/opt/env/lib/ab; echo old >/opt/env/lib/both; chmod 755 /opt/env/lib/both")
    c = filling(
        "c",
        """\
mkdir -p /opt/env/lib/c/empty /opt/env/share
echo c >/opt/env/lib/c/file; chmod 600 /opt/env/lib/c/file
echo c >"/opt/env/lib/c/-n a
me"
ln -s file /opt/env/lib/c/link
ln -s /opt/env/lib/c /opt/env/share/c
echo new >/opt/env/lib/both
echo "#!/bin/sh" >/opt/env/bin/c; chmod 755 /opt/env/bin/c
test ! -e /opt/env/lib/ab
""",
        apart=("/opt/env",),
    )
    first = bench.build(bench.plan(EMPTY, ab, name="first", locks=(lock,)))
    more = dataclasses.replace(lock, packages=packages, layers=(("a", "b"), ("c",)))
    second = bench.build(bench.plan(EMPTY, ab, c, name="second", locks=(more,)))
    assert bench.heard.phases[0] == "environment: 3 packages, 2 of them there already"
    assert bench.engine.built == ["before-03", None]
    assert layers(second)[:-1] == layers(first)

    added = files(second, layers(second)[-1])
    assert sorted(added) == [
        *("opt", "opt/env", "opt/env/bin", "opt/env/bin/c", "opt/env/lib", "opt/env/lib/both", "opt/env/lib/c"),
        *("opt/env/lib/c/-n a\nme", "opt/env/lib/c/empty", "opt/env/lib/c/file", "opt/env/lib/c/link"),
        *("opt/env/share", "opt/env/share/c"),
    ]
    assert {member.mtime for member in added.values()} == {1577836800}
    assert [added[f"opt/env/{name}"].mode & 0o7777 for name in ("bin/c", "lib/c/file", "lib/both")] == [
        0o755,
        0o644,
        0o644,
    ]
    assert added["opt/env/lib/both"].size == len("new\n")
    assert (added["opt/env/lib/c/link"].linkname, added["opt/env/share/c"].linkname) == ("file", "/opt/env/lib/c")
    assert added["opt/env/lib/c/empty"].isdir()

    # The same bytes whatever else is there, and whenever it is made.
    other = filling("ab", f"echo {uuid.uuid4()} >/opt/env/lib/ab")
    third = bench.build(bench.plan(EMPTY, other, c, name="third", locks=(more,)))
    assert layers(third)[-1] == layers(second)[-1]
    assert layers(third)[-2] != layers(second)[-2]


def test_what_two_steps_have_alike_is_not_written_twice(bench: Bench) -> None:
    """A step that runs on the image as it was before the stage makes nothing of what was there already."""
    c = filling("c", "chmod 755 /opt/env/bin/activate; echo c >/opt/env/lib/c", apart=("/opt/env", "/opt/hpcbinder"))
    start = dataclasses.replace(EMPTY, script=f"mkdir -p /opt/hpcbinder\n{EMPTY.script}: {uuid.uuid4()}\n")
    image = bench.build(bench.plan(start, c))
    assert bench.engine.built == ["before-01", "before-02", None]
    assert sorted(files(image, layers(image)[-1])) == [
        "opt",
        "opt/env",
        "opt/env/bin",
        "opt/env/bin/activate",
        "opt/env/lib",
        "opt/env/lib/c",
    ]


def test_what_reads_the_repository_is_no_environment(bench: Bench) -> None:
    salt = uuid.uuid4()
    numbers = filling("numbers", f"echo {salt} >/opt/env/lib/numbers")
    reading = filling("reading", "cp /run/hpcbinder/step/repo/README /opt/env/lib/README", reads=("README",))
    first = bench.build(bench.plan(EMPTY, numbers, reading, name="first"))
    assert bench.engine.built == ["before-01", "before-02", None]
    second = bench.build(bench.plan(EMPTY, numbers, reading, name="second"))
    assert bench.engine.built == [None]
    assert layers(first)[:-1] == layers(second)[:-1]
    assert layers(first)[-1] != layers(second)[-1]


def test_what_a_failing_step_stood_on_is_kept(bench: Bench) -> None:
    salt = uuid.uuid4()
    numbers = filling("numbers", f"echo {salt} >/opt/env/lib/numbers")
    with pytest.raises(BuildError, match=r"step test/broken failed with exit status 3"):
        bench.build(bench.plan(EMPTY, numbers, filling("broken", "exit 3", apart=("/opt/env",))))
    assert bench.engine.built == ["before-01", "before-02", "before-03"]
    bench.build(bench.plan(EMPTY, numbers))
    assert bench.engine.built == [None]
