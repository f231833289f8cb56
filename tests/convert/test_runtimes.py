"""Converted images in the real runtimes, as an ordinary user."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from stacks import MTIME, Layer, MemoryImage, base_layer

from hpcbinder.contract import PROFILE
from hpcbinder.convert import Converted, convert
from hpcbinder.progress import Silent
from hpcbinder.squashfs import Options
from rig import Apptainer, Charliecloud, User

QUOTED = 'it\'s a "test" $x'


@pytest.fixture(scope="module")
def image() -> MemoryImage:
    middle = (
        Layer()
        .folder("opt")
        .folder("opt/old")
        .file("opt/old/file", "old")
        .file("opt/both", "one")
        .hard_link("opt/name", "opt/both")
    )
    top = (
        Layer()
        .folder("opt")
        .whiteout("opt/old")
        .file("opt/big", bytes(range(256)) * 4000)
        .folder("opt/hpcbinder")
        .file(PROFILE.lstrip("/"), "export FROM_PROFILE=yes\n", 0o644)
        .file("opt/say", '#!/bin/sh\nprintf "[%s]" "$@"\n', 0o755)
    )
    config = {
        "Env": [f"PATH={'/opt/bin:/usr/bin:/bin'}", f"QUOTED={QUOTED}", "LINES=one\ntwo", "HOME=/root", "EMPTY="],
        "Entrypoint": ["/opt/say", "it's"],
        "Cmd": ["$x `id`", ""],
        "Labels": {"org.opencontainers.image.title": "t"},
    }
    return MemoryImage(base_layer(), middle, top, config=config)


@pytest.fixture(scope="module", params=["gzip", "zstd"])
def converted(request: pytest.FixtureRequest, image: MemoryImage) -> Iterator[Converted]:
    with tempfile.TemporaryDirectory(prefix="hpcbinder-test-") as name:
        folder = Path(name)
        folder.chmod(0o755)  # for every user, other than pytest's own folders
        yield convert(
            image,
            layers_dir=folder / "layers",
            folder=folder,
            name="image",
            labels={"org.hpcbinder.note": 'a "quoted"\nlabel'},
            timestamp=MTIME,
            formats=("sif", "squashfs", "charliecloud", "enroot"),
            options=Options(request.param),
            reporter=Silent(),
        )


def shown(output: str) -> dict[str, str]:
    return dict(item.split("=", 1) for item in output.split("\0") if "=" in item)


@pytest.mark.parametrize("form", ["sif", "squashfs"])
class TestApptainer:
    def test_the_files_are_those_of_the_layers(
        self, apptainer: Apptainer, user: User, converted: Converted, form: str
    ) -> None:
        done = user.run(
            [apptainer.path, "-s", "exec", converted.formats[form], "/bin/sh", "-c", "cat /opt/both /opt/name; ls /opt"]
        )
        assert done.stdout == "oneonebig\nboth\nhpcbinder\nname\nsay\n"

    def test_the_environment_arrives(self, apptainer: Apptainer, user: User, converted: Converted, form: str) -> None:
        env = shown(user.run([apptainer.path, "-s", "exec", "--cleanenv", converted.formats[form], "env", "-0"]).stdout)
        assert (env["QUOTED"], env["LINES"], env["FROM_PROFILE"]) == (QUOTED, "one\ntwo", "yes")
        assert env["PATH"].startswith("/opt/bin:/usr/bin:/bin")
        assert env["HOME"] == str(user.home)

    def test_the_image_wins_over_the_host_and_options_win_over_the_image(
        self, apptainer: Apptainer, user: User, converted: Converted, form: str
    ) -> None:
        run = [apptainer.path, "-s", "exec"]
        host = user.run([*run, converted.formats[form], "env", "-0"], env={"QUOTED": "host", "HOST_ONLY": "1"})
        assert (shown(host.stdout)["QUOTED"], shown(host.stdout)["HOST_ONLY"]) == (QUOTED, "1")
        option = user.run([*run, "--env", "QUOTED=mine", converted.formats[form], "env", "-0"])
        assert shown(option.stdout)["QUOTED"] == "mine"
        injected = user.run([*run, converted.formats[form], "env", "-0"], env={"APPTAINERENV_QUOTED": "theirs"})
        assert shown(injected.stdout)["QUOTED"] == "theirs"

    def test_run_is_docker_run(self, apptainer: Apptainer, user: User, converted: Converted, form: str) -> None:
        run = [apptainer.path, "-s", "run", converted.formats[form]]
        assert user.run(run).stdout == "[it's][$x `id`][]"
        assert user.run([*run, "a b", "$(id)"]).stdout == "[it's][a b][$(id)]"

    def test_inspect_shows_it(
        self, apptainer: Apptainer, user: User, converted: Converted, image: MemoryImage, form: str
    ) -> None:
        done = user.run([apptainer.path, "-s", "inspect", "--json", "--all", converted.formats[form]])
        attributes = json.loads(done.stdout)["data"]["attributes"]
        assert attributes["labels"]["org.hpcbinder.note"] == 'a "quoted"\nlabel'
        assert attributes["labels"]["org.opencontainers.image.title"] == "t"
        assert "QUOTED" in attributes["environment"]["/.singularity.d/env/10-docker2singularity.sh"]
        assert "/opt/say" in attributes["runscript"]

    def test_it_is_read_only_and_home_is_the_persons(
        self, apptainer: Apptainer, user: User, converted: Converted, form: str
    ) -> None:
        script = "touch /opt/x 2>/dev/null && echo written; touch $HOME/mine && id -u"
        done = user.run([apptainer.path, "-s", "exec", converted.formats[form], "/bin/sh", "-c", script], network=False)
        assert done.stdout == f"{user.uid}\n"
        assert (user.home / "mine").exists()


def test_the_sif_is_known_to_apptainers_own_tool(
    apptainer: Apptainer, user: User, converted: Converted, image: MemoryImage
) -> None:
    listing = user.run([apptainer.path, "sif", "list", converted.formats["sif"]]).stdout
    assert "FS (Squashfs/*System/amd64)" in listing
    header = user.run([apptainer.path, "sif", "header", converted.formats["sif"]]).stdout
    assert "2020-09-13" in header
    deffile = user.run([apptainer.path, "-s", "inspect", "--deffile", converted.formats["sif"]]).stdout
    assert f"From: {image.config.digest}" in deffile


class TestEnroot:
    """Where enroot is installed: Debian has no package of it."""

    @pytest.fixture
    def enroot(self, user: User) -> Callable[..., str]:
        if not shutil.which("enroot"):
            pytest.skip("no enroot on PATH")
        env = {"PATH": os.environ["PATH"], "ENROOT_MOUNT_HOME": "n", "HOST_ONLY": "1"}
        env |= {f"ENROOT_{part}_PATH": str(user.home / part) for part in ("RUNTIME", "DATA", "CACHE")}
        return lambda *argv: user.run(["enroot", *argv], env=env, network=False).stdout

    def test_it_starts_the_image_as_docker_would(self, enroot: Callable[..., str], converted: Converted) -> None:
        file = str(converted.formats["enroot"])
        assert enroot("start", file) == "[it's][$x `id`][]"
        assert enroot("start", file, "a b", "$(id)") == "[it's][a b][$(id)]"

    def test_the_environment_is_the_images_alone(
        self, enroot: Callable[..., str], converted: Converted, open_tmp_path: Path
    ) -> None:
        rc = open_tmp_path / "rc"
        rc.write_text("exec env -0\n")
        rc.chmod(0o644)
        env = shown(enroot("start", "--rc", str(rc), str(converted.formats["enroot"])))
        assert (env["QUOTED"], env["PATH"], env["EMPTY"]) == (QUOTED, "/opt/bin:/usr/bin:/bin", "")
        assert not env.keys() & {"HOST_ONLY", "LINES"}

    def test_it_is_unpacked_and_run(self, enroot: Callable[..., str], converted: Converted) -> None:
        enroot("create", "--name", "x", str(converted.formats["enroot"]))
        assert enroot("start", "x", "a b") == "[it's][a b]"


class TestCharliecloud:
    def run(
        self, charliecloud: Charliecloud, user: User, converted: Converted, *argv: str, bind: str | None = None
    ) -> str:
        options = ["--env-no-expand", "--set-env", "--home", *([f"--bind={bind}"] if bind else [])]
        done = user.run([charliecloud.path, *options, converted.formats["charliecloud"], "--", *argv], network=False)
        return done.stdout

    def test_files_and_environment(self, charliecloud: Charliecloud, user: User, converted: Converted) -> None:
        assert self.run(charliecloud, user, converted, "cat", "/opt/both", "/opt/name") == "oneone"
        env = shown(self.run(charliecloud, user, converted, "env", "-0"))
        assert env["QUOTED"] == QUOTED
        assert env["HOME"].startswith("/home/")
        assert "LINES" not in env

    def test_the_runscript_runs(self, charliecloud: Charliecloud, user: User, converted: Converted) -> None:
        assert self.run(charliecloud, user, converted, "/.singularity.d/runscript", "x y") == "[it's][x y]"

    def test_a_scratch_folder_can_be_mounted(
        self, charliecloud: Charliecloud, user: User, converted: Converted
    ) -> None:
        (user.home / "data").write_text("data")
        user.own(user.home / "data")
        assert self.run(charliecloud, user, converted, "cat", "/scratch/data", bind=f"{user.home}:/scratch") == "data"
