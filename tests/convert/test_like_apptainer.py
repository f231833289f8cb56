"""A SIF of ours beside one that Apptainer makes of the same image: whoever asks Apptainer about it is told as much."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from stacks import MTIME, Layer, MemoryImage, write_oci_layout

from hpcbinder.convert import convert
from hpcbinder.progress import Silent
from hpcbinder.sif import Kind, Sif, read_object, read_sif
from hpcbinder.squashfs import Options
from rig import Apptainer

CONFIG = {
    "Env": ["PATH=/opt/bin:/bin", "A=it's $x", "LINES=a\nb"],
    "Entrypoint": ["/bin/echo", "a b"],
    "Cmd": ["x y"],
    "WorkingDir": "/opt",
    "User": "1000:1000",
    "ExposedPorts": {"8888/tcp": {}},
    "StopSignal": "SIGINT",
    "Volumes": {"/data": {}},
    "Labels": {"org.opencontainers.image.title": "t", "maintainer": 'the "me"'},
}
Ask = Callable[[str, str], str]


@pytest.fixture(scope="module")
def pair(apptainer: Apptainer, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pair")
    image = MemoryImage(Layer().file("bin/sh", "", 0o755).folder("etc").folder("opt"), config=CONFIG)
    write_oci_layout(image, folder / "oci")
    converted = convert(
        image,
        layers_dir=folder / "layers",
        folder=folder,
        name="ours",
        labels={},
        timestamp=MTIME,
        formats=("sif",),
        options=Options(),
        reporter=Silent(),
    )
    build = [apptainer.path, "--silent", "build", folder / "theirs.sif", f"oci:{folder}/oci"]
    subprocess.run(build, check=True, stdin=subprocess.DEVNULL, capture_output=True)
    return {"ours": converted.formats["sif"], "theirs": folder / "theirs.sif"}


@pytest.fixture
def ask(apptainer: Apptainer, pair: dict[str, Path]) -> Ask:
    def inspect(option: str, which: str) -> str:
        command = [apptainer.path, "inspect", option, pair[which]]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    return inspect


def test_the_same_objects_and_a_bill_of_materials(pair: dict[str, Path]) -> None:
    def objects(sif: Sif) -> list[tuple[int, str, int]]:
        return [(d.kind, "" if d.partition else d.name, d.group) for d in sif.descriptors]

    ours, theirs = read_sif(pair["ours"]), read_sif(pair["theirs"])
    assert [d[0] for d in objects(ours)] == [d[0] for d in objects(theirs)] + [Kind.SBOM]
    assert [d[1:] for d in objects(ours)][1:4] == [d[1:] for d in objects(theirs)][1:4]
    assert (ours.launch, ours.architecture) == (theirs.launch, theirs.architecture)
    partitions = [next(d.partition for d in sif.descriptors if d.partition) for sif in (ours, theirs)]
    assert partitions[0] == partitions[1]


def test_the_same_oci_configuration(pair: dict[str, Path]) -> None:
    def config(path: Path) -> Any:
        found = next(d for d in read_sif(path).descriptors if d.name == "oci-config.json")
        return json.loads(read_object(path, found))

    assert config(pair["ours"]) == config(pair["theirs"]) == CONFIG


def test_inspect_has_the_same_shape(ask: Ask) -> None:
    ours, theirs = (json.loads(ask("--all", which)) for which in ("ours", "theirs"))
    assert ours["type"] == theirs["type"]
    attributes, others = ours["data"]["attributes"], theirs["data"]["attributes"]
    assert attributes.keys() == others.keys()
    assert attributes["environment"].keys() == others["environment"].keys()


def test_the_image_s_labels_are_there(ask: Ask) -> None:
    theirs = ask("--labels", "theirs").splitlines()
    mine = [line for line in theirs if not line.startswith("org.label-schema.")]  # who built it, when, with what
    assert ask("--labels", "ours").splitlines() == mine


@pytest.mark.parametrize(
    "option", ["--deffile", "--runscript", "--startscript", "--environment", "--test", "--helpfile"]
)
def test_what_one_has_the_other_has(ask: Ask, option: str) -> None:
    assert bool(ask(option, "ours").strip()) == bool(ask(option, "theirs").strip())


def test_what_is_in_the_objects_is_what_inspect_reads_inside(pair: dict[str, Path], ask: Ask) -> None:
    found = next(d for d in read_sif(pair["ours"]).descriptors if d.name == "inspect-metadata.json")
    assert json.loads(read_object(pair["ours"], found)) == json.loads(ask("--all", "ours"))
