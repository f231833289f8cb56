"""The store for podman-hpc: judged by podman as an ordinary user, and by podman-hpc itself.

Both mount with `fuse-overlayfs-wrap`; under plain podman with a script that does the same."""

from __future__ import annotations

import json
import multiprocessing
import os
import stat
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from stacks import MTIME, Layer, MemoryImage, base_layer

from hpcbinder.convert import convert, is_store, join_store
from hpcbinder.convert.formats.podman_hpc import reference
from hpcbinder.errors import ConvertError, RunError
from hpcbinder.progress import Silent
from hpcbinder.runtime import Command, RuntimeImage, command
from hpcbinder.runtime.launch.runtimes import runtime
from hpcbinder.squashfs import Options
from rig import RigError, fuse, packages
from rig.builder import Builder

MOUNT = """\
#!/bin/sh
# What podman-hpc's fuse-overlayfs-wrap does: the squashfs beside the lowest layer's link is mounted over that first.
lower=${*##*lowerdir=}
lower=${lower%%,*}
lower=${lower##*:}
[ ! -e "$lower.squash" ] || squashfuse "$lower.squash" "$lower" || exit 1
exec fuse-overlayfs "$@"
"""


def store_of(image: MemoryImage, folder: Path, name: str, *others: str) -> Path:
    folder.mkdir(exist_ok=True)
    made = convert(
        image,
        layers_dir=folder / "layers",
        folder=folder,
        name=name,
        labels={},
        timestamp=MTIME,
        formats=("podman-hpc", *others),
        options=Options(),
        reporter=Silent(),
    )
    return made.formats["podman-hpc"]


def small(content: str = "x") -> MemoryImage:
    return MemoryImage(Layer().file("file", content), config={"Env": ["A=1"]})


def listed(store: Path, part: str = "images") -> list[dict[str, Any]]:
    records = json.loads((store / f"overlay-{part}" / f"{part}.json").read_text())
    assert isinstance(records, list)
    return records


def squashes(store: Path) -> list[Path]:
    return sorted((store / "overlay/l").glob("*.squash"))


def test_the_squashfs_is_another_name_of_the_one_there_is(tmp_path: Path) -> None:
    store = store_of(small(), tmp_path, "x", "squashfs", "sif")
    (squash,) = squashes(store)
    assert squash.samefile(tmp_path / "x.squashfs")
    assert squash.with_suffix("").resolve() == store / "overlay" / listed(store, "layers")[0]["id"] / "diff"


def test_the_same_image_gives_the_same_store(tmp_path: Path) -> None:
    def content(store: Path) -> dict[str, bytes | Path]:
        return {
            str(path.relative_to(store)): path.readlink() if path.is_symlink() else path.read_bytes()
            for path in store.rglob("*")
            if path.is_symlink() or path.is_file()
        }

    one = content(store_of(small(), tmp_path / "one", "x"))
    assert one == content(store_of(small(), tmp_path / "two", "x", "squashfs"))
    other = content(store_of(small("y"), tmp_path / "three", "x"))
    assert one.keys() & other.keys() == {
        f"overlay-{part}/{part}.{end}" for part in ("images", "layers") for end in ("json", "lock")
    }


def test_others_may_read_it_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        store = store_of(small(), tmp_path / "out", "x")
    finally:
        os.umask(before)
    for path in (store, *store.rglob("*")):
        if not path.is_symlink():
            assert stat.S_IMODE(path.stat().st_mode) == (0o755 if path.is_dir() else 0o644), path


@pytest.mark.parametrize(
    ("name", "called"),
    [("x", "x"), ("My_Image.2-b", "my_image.2-b"), ("a--b..c_-_d", "a-b-c-d"), ("x-", "x"), ("x._", "x")],
)
def test_names_are_such_as_podman_takes(name: str, called: str) -> None:
    assert reference(name) == f"localhost/{called}:latest"


class TestJoin:
    def test_images_side_by_side(self, tmp_path: Path) -> None:
        store = tmp_path / "store"
        assert not is_store(store)
        for name in ("one", "two"):
            join_store(store_of(small(name), tmp_path / name, name), store)
        assert is_store(store)
        assert [image["names"] for image in listed(store)] == [["localhost/one:latest"], ["localhost/two:latest"]]
        assert len(squashes(store)) == len(listed(store, "layers")) == 2

    def test_a_name_goes_with_the_newer_image(self, tmp_path: Path) -> None:
        store = store_of(small("old"), tmp_path / "a", "x")
        join_store(store_of(small("new"), tmp_path / "b", "x"), store)
        assert [image["names"] for image in listed(store)] == [[], ["localhost/x:latest"]]

    def test_an_image_keeps_its_other_names(self, tmp_path: Path) -> None:
        store = tmp_path / "store"
        for name in ("one", "two"):
            join_store(store_of(small(), tmp_path / name, name), store)
        assert [image["names"] for image in listed(store)] == [["localhost/two:latest", "localhost/one:latest"]]

    def test_nothing_is_written_through_a_link_that_another_put_there(self, tmp_path: Path) -> None:
        store = store_of(small(), tmp_path / "a", "x")
        victim = tmp_path / "victim"
        victim.write_text("mine")
        lock = store / "overlay-layers/layers.lock"
        lock.unlink()
        lock.symlink_to(victim)
        with pytest.raises(OSError):
            join_store(store_of(small("y"), tmp_path / "b", "y"), store)
        assert victim.read_text() == "mine"

    def test_what_only_has_the_name_of_the_image_is_not_taken_for_it(self, tmp_path: Path) -> None:
        made, store = store_of(small(), tmp_path / "a", "x"), tmp_path / "store"
        name, right = squashes(made)[0].name, squashes(made)[0].read_bytes()
        (store / "overlay/l").mkdir(parents=True)
        (store / "overlay/l" / name).write_bytes(b"\0" * len(right))
        join_store(made, store)
        assert squashes(store)[0].read_bytes() == right

    def test_the_same_again_changes_nothing(self, tmp_path: Path) -> None:
        store = store_of(small(), tmp_path / "a", "x")
        before = (listed(store), listed(store, "layers"), squashes(store)[0].stat().st_ino)
        join_store(store_of(small(), tmp_path / "b", "x"), store)
        assert (listed(store), listed(store, "layers"), squashes(store)[0].stat().st_ino) == before

    def test_what_podman_wrote_there_stays(self, tmp_path: Path) -> None:
        store = store_of(small(), tmp_path / "a", "x")
        theirs = {"id": "a" * 64, "names": None, "unknown": {"x": 1}}
        (store / "overlay-images/images.json").write_text(json.dumps([theirs, *listed(store)]))
        join_store(store_of(small("y"), tmp_path / "b", "y"), store)
        assert listed(store)[0] == {**theirs, "names": []}
        assert len(listed(store)) == 3

    @pytest.mark.parametrize(
        "text",
        ["", "null", "{}", "[1]", '[{"id": "../x"}]', "[" * 100_000, f'[{{"id": "{"a" * 64}", "names": [{{}}]}}]'],
    )
    def test_a_damaged_store_is_one_clear_error(self, tmp_path: Path, text: str) -> None:
        store = store_of(small(), tmp_path / "a", "x")
        (store / "overlay-layers/layers.json").write_text(text)
        made = store_of(small("y"), tmp_path / "b", "y")
        if text in ("", "null"):
            join_store(made, store)
            assert len(listed(store)) == 2
            return
        with pytest.raises(ConvertError, match="layers.json: is no list"):
            join_store(made, store)
        assert len(listed(store)) == 1

    def test_two_at_once_lose_nothing(self, tmp_path: Path) -> None:
        made = [store_of(small(name), tmp_path / name, name) for name in "abcdef"]
        store = tmp_path / "store"
        context = multiprocessing.get_context("fork")
        processes = [context.Process(target=join_store, args=(one, store)) for one in made]
        for process in processes:
            process.start()
        for process in processes:
            process.join(60)
        assert [process.exitcode for process in processes] == [0] * 6
        assert sorted(name for image in listed(store) for name in image["names"]) == [
            f"localhost/{name}:latest" for name in "abcdef"
        ]

    def test_from_another_file_system(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        made, store = store_of(small(), tmp_path / "a", "x"), tmp_path / "store"
        replace = Path.replace

        def refuse(self: Path, target: Path) -> Path:
            if self.is_relative_to(made) and not Path(target).is_relative_to(made):
                raise OSError(18, "Invalid cross-device link")
            return replace(self, target)

        monkeypatch.setattr(Path, "replace", refuse)
        join_store(made, store)
        assert squashes(store)[0].read_bytes() == squashes(made)[0].read_bytes()
        assert listed(store) == listed(made)
        assert not list(store.rglob(".*"))


class TestTold:
    """What podman-hpc is told."""

    def command(self, store: Path) -> Command:
        return command(
            RuntimeImage("x", str(store)),
            ["true"],
            runtime=runtime("podman-hpc", "/bin/podman-hpc"),
            cwd=Path("/"),
            environ={"HOME": "/home/ann", "PATH": "/bin", "SQUASH_DIR": "/another"},
        )

    def test_the_store_and_the_only_image_in_it(self, tmp_path: Path) -> None:
        store = store_of(small(), tmp_path, "x")
        told = self.command(store)
        assert told.env["SQUASH_DIR"] == str(store)
        assert told.argv[-2:] == ("localhost/x:latest", "true")

    def test_a_store_of_several_is_not_ours(self, tmp_path: Path) -> None:
        store = store_of(small(), tmp_path, "x")
        join_store(store_of(small("y"), tmp_path / "b", "y"), store)
        with pytest.raises(RunError, match="holds 2 named images"):
            self.command(store)

    def test_what_is_no_store(self, tmp_path: Path) -> None:
        with pytest.raises(RunError, match="is no image store"):
            self.command(tmp_path)

    def test_a_comma_parts_stores(self, tmp_path: Path) -> None:
        with pytest.raises(RunError, match="comma"):
            self.command(store_of(small(), tmp_path / "a,b", "x"))


@pytest.fixture(scope="module")
def shared() -> Iterator[Path]:
    """A store of two images, which every user can read and only root can write."""
    with tempfile.TemporaryDirectory(prefix="hpcbinder-test-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        say = Layer().folder("opt").file("opt/say", '#!/bin/sh\nprintf "[%s]" "$@"\n', 0o755).file("opt/x", "content")
        config = {"Env": ["PATH=/usr/bin:/bin", "A=it's"], "Entrypoint": ["/opt/say"], "Cmd": ["b c"]}
        config["WorkingDir"] = "/opt"
        store = store_of(MemoryImage(base_layer(), say, config=config), folder, "judged")
        join_store(store_of(small(), folder / "other", "other"), store)
        yield store


@pytest.fixture
def place(builder: Builder) -> Iterator[Path]:
    """A folder of the builder's, for a podman that mounts through a program, which the builder's own does not."""
    try:
        packages.ensure(["fuse-overlayfs", "fuse3", "squashfuse"])
        fuse.ensure()
    except RigError as error:
        pytest.skip(str(error))
    folder = builder.home / "store-test"
    builder.run(["mkdir", "-p", folder])
    yield folder
    builder.run(["podman", "unshare", "rm", "-rf", folder, run_root(builder)])


def run_root(builder: Builder) -> str:
    """podman wants it to have at most 50 characters."""
    return f"{builder.environment()['XDG_RUNTIME_DIR']}/s"


@pytest.fixture
def podman(builder: Builder, shared: Path, place: Path) -> Callable[..., str]:
    program = place / "mount"
    program.write_text(MOUNT)
    program.chmod(0o755)
    options = [f"--root={place}/root", f"--runroot={run_root(builder)}", "--storage-driver=overlay"]
    options += [f"--storage-opt=mount_program={program}", f"--storage-opt=additionalimagestore={shared}"]

    def run(*argv: str) -> str:
        return builder.run(["podman", *options, *argv], cwd=place).stdout

    return run


class TestPodman:
    def test_it_lists_and_runs_them(self, podman: Callable[..., str], shared: Path) -> None:
        images = json.loads(podman("images", "--format=json"))
        assert {name for image in images for name in image["Names"]} == {
            "localhost/judged:latest",
            "localhost/other:latest",
        }
        assert all(image["ReadOnly"] for image in images)
        before = {path: path.lstat().st_mtime_ns for path in shared.rglob("*")}
        run = ["run", "--rm", "--network=host", "--read-only"]
        assert podman(*run, "localhost/judged") == "[b c]"
        assert podman(*run, "localhost/judged", "a b", "$x") == "[a b][$x]"
        script = "pwd; cat /opt/x; echo $A; touch /opt/new 2>/dev/null || echo read-only"
        out = podman(*run, "--entrypoint=", "localhost/judged", "sh", "-c", script)
        assert out == "/opt\ncontentit's\nread-only\n"
        # And with a writable layer on top, which the container takes with it.
        out = podman(
            "run", "--rm", "--network=host", "--entrypoint=", "judged", "sh", "-c", "echo n >/opt/x; cat /opt/x"
        )
        assert out == "n\n"
        assert {path: path.lstat().st_mtime_ns for path in shared.rglob("*")} == before


def test_podman_hpc_runs_it(builder: Builder, place: Path, shared: Path) -> None:
    """podman-hpc itself, told as `hpcbinder run` tells it; what a site configures is in its environment here."""
    alone = shared.parent / "alone"
    store = store_of(MemoryImage(base_layer(), config={"Env": ["PATH=/usr/bin:/bin"]}), alone, "alone", "sif")
    programs = Path(sys.executable).parent
    site = {
        "PATH": f"{programs}:{builder.environment()['PATH']}",
        "TMPDIR": str(place),  # podman-hpc takes XDG_RUNTIME_DIR away
        "STORAGE_DRIVER": "overlay",
        "PODMANHPC_CONFIG_HOME": str(builder.home / ".config"),
        "PODMANHPC_GRAPH_ROOT": f"{place}/root",
        "PODMANHPC_RUN_ROOT": run_root(builder),
        "PODMANHPC_HOOKS_DIR": str(place),
        "PODMANHPC_MODULES_DIR": str(place),
    }
    (place / "file").write_text("of the host")
    told = command(
        RuntimeImage("alone", str(store)),
        ["sh", "-c", 'cat file; printf "[%s]" "$@"; pwd; touch /opt/x 2>/dev/null || echo read-only', "sh", "a b"],
        runtime=runtime("podman-hpc", str(programs / "podman-hpc")),
        cwd=place,
        environ=builder.environment(site),
    )
    done = builder.run(told.argv, env=told.env, cwd=place)
    assert done.stdout == f"of the host[a b]{place}\nread-only\n"
    listing = builder.run([programs / "podman-hpc", "images"], env=told.env, cwd=place).stdout
    assert "localhost/alone" in listing
