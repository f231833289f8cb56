"""Layers of assembled images: how they become those of a registry, and what names the layer of a step that is run."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import resource
import tarfile
from pathlib import Path

import pytest
from checkouts import checkout_of, plan_of
from recorded_index import RecordedResolver

from hpcbinder.builders.assembling import AssembledImage
from hpcbinder.builders.assembling.layer import Layer
from hpcbinder.builders.assembling.oci import MOST, stacked
from hpcbinder.builders.assembling.steps import only_apart, step_identity
from hpcbinder.builders.assembling.tree import File, Folder, layer_tar
from hpcbinder.builders.obstacle import obstacle, only_assembled
from hpcbinder.convert import convert
from hpcbinder.errors import BuildError, ConvertError
from hpcbinder.image import OciImage, OciLayout, StackedImage, parse_config, raw_config
from hpcbinder.model import Assembly, ImageConfig, Plan, Stage
from hpcbinder.progress import Silent
from hpcbinder.squashfs import Image, Options, write_layer

CONFIG = ImageConfig("", "amd64", "", {"PATH": "/bin"}, ("/entry",), (), "/", {"a": "b"}, (), ())


def package(folder: Path, name: str, size: int = 10) -> Layer:
    path = folder / f"{hashlib.sha256(name.encode()).hexdigest()}-{'0' * 16}-gzip1-131072.squashfs"
    # Random enough that it stays as large as it is.
    content = hashlib.shake_256(name.encode()).digest(size)
    write_layer(io.BytesIO(layer_tar({f"/opt/env/{name}": File(content)})), path, Options())
    return Layer.of_package(path)


def other(folder: Path, name: str) -> Layer:
    path = folder / name
    return Layer(path, write_layer(io.BytesIO(layer_tar({f"/srv/{name}": File(b"1")})), path, Options()))


def contents(image: OciImage) -> list[list[str]]:
    """The files of each layer."""
    found = {}
    for diff_id, stream in image.layers(image.config.diff_ids):
        raw = stream.read()
        assert f"sha256:{hashlib.sha256(raw).hexdigest()}" == diff_id
        with tarfile.open(fileobj=io.BytesIO(raw)) as tar:
            found[diff_id] = [member.name.rpartition("/")[2] for member in tar if member.isreg()]
    return [found[diff_id] for diff_id in image.config.diff_ids]


def test_each_layer_is_in_its_place_and_small_packages_come_together(tmp_path: Path) -> None:
    small = [package(tmp_path, f"small{n:02d}") for n in range(40)]
    layers = [other(tmp_path, "server"), *small[:20], package(tmp_path, "large", 5 << 20), *small[20:]]
    layers += [other(tmp_path, "changes"), other(tmp_path, "content")]
    found = contents(stacked(CONFIG, None, layers))
    assert found[0] == ["server"] and found[-2:] == [["changes"], ["content"]] and ["large"] in found
    assert [name for names in found for name in names] == [
        "server", *(f"small{n:02d}" for n in range(20)), "large", *(f"small{n:02d}" for n in range(20, 40)),
        "changes", "content",
    ]  # fmt: skip
    assert 6 < len(found) < 25


def test_one_package_more_leaves_most_layers_as_they_were(tmp_path: Path) -> None:
    packages = [package(tmp_path, f"small{n:02d}") for n in range(60)]
    whole = stacked(CONFIG, None, packages).config.diff_ids
    without = stacked(CONFIG, None, [*packages[:30], *packages[31:]]).config.diff_ids
    assert len(set(whole) - set(without)) <= 2 < len(whole)


def test_there_are_never_more_layers_than_docker_takes(tmp_path: Path) -> None:
    layers = [other(tmp_path, f"layer{n:03d}") for n in range(130)]
    found = contents(stacked(CONFIG, None, layers))
    assert len(found) == MOST
    assert [name for names in found for name in names] == [f"layer{n:03d}" for n in range(130)]


def test_a_stacked_image_has_the_bases_own_tar_and_remembers_diff_ids(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Base:
        config = dataclasses.replace(CONFIG, diff_ids=(f"sha256:{hashlib.sha256(b'the base').hexdigest()}",))

        def layers(self, wanted: object) -> object:
            yield self.config.diff_ids[0], io.BytesIO(b"the base")

    layer = other(tmp_path, "layer")
    known = tmp_path / "known"
    known.mkdir()
    image = StackedImage(CONFIG, Base(), [[layer.path]], known)  # type: ignore[arg-type]
    assert image.config.diff_ids[0] == Base.config.diff_ids[0]
    parsed = parse_config(raw_config(image))
    assert parsed == image.config
    assert [stream.read() for _, stream in image.layers(image.config.diff_ids)][0] == b"the base"
    with pytest.raises(ConvertError, match="has no layer"):
        list(image.layers(["sha256:" + "0" * 64]))

    def never(layers: object) -> None:
        raise AssertionError("unpacked for nothing")

    monkeypatch.setattr("hpcbinder.image.stacked.open_tar", never)
    assert StackedImage(CONFIG, Base(), [[layer.path]], known).config == image.config  # type: ignore[arg-type]
    for path in known.iterdir():
        path.write_text("sha256:damaged\n")
    with pytest.raises(AssertionError):
        StackedImage(CONFIG, Base(), [[layer.path]], known).config  # type: ignore[arg-type]  # noqa: B018


def planned(folder: Path, **files: str) -> Plan:
    folder.mkdir(exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("_", ".")).write_text(text)
    return plan_of(folder, name="some", resolver=RecordedResolver())


def test_what_a_step_is_given_names_its_layer(tmp_path: Path) -> None:
    source = tmp_path / "source"
    plan = planned(source, postBuild="#!/bin/sh\n", requirements_txt="six\n", README="one")
    number = next(n for n, step in enumerate(plan.steps) if step.name == "postbuild/run")

    def identity(plan: Plan, *, config: ImageConfig = CONFIG, below: str = "sha256:1") -> str:
        return step_identity(plan, checkout_of(source, name="some"), number, config, [Layer(tmp_path, below)])

    first = identity(plan)
    assert identity(plan) == first
    assert identity(plan, below="sha256:2") != first
    assert identity(plan, config=dataclasses.replace(CONFIG, env={"PATH": "/other"})) != first
    assert identity(planned(source, README="two")) == first  # which lies in a layer below
    assert identity(planned(source, postBuild="#!/bin/sh\necho\n")) != first


def test_of_what_is_made_apart_only_that_is_taken_over(tmp_path: Path) -> None:
    entries = {"/opt/env": Folder(), "/opt/env/new": File(b"1"), "/opt/environment": File(b""), "/tmp/left": File(b"")}
    whole = tmp_path / "whole.tar"
    whole.write_bytes(layer_tar(entries))
    with tarfile.open(whole, "a") as tar:
        tar.addfile(tarfile.TarInfo("opt/env/.wh.old"))
        link = tarfile.TarInfo("./opt/env/link")
        link.type, link.linkname = tarfile.LNKTYPE, "opt/env/new"
        tar.addfile(link)
    out = io.BytesIO()
    only_apart(whole, ["/opt/env"], out)
    with tarfile.open(fileobj=io.BytesIO(out.getvalue())) as tar:
        assert tar.getnames() == ["opt/env", "opt/env/new", "./opt/env/link"]
    whole.write_bytes(b"no tar" * 200)
    with pytest.raises(BuildError, match="no tar"):
        only_apart(whole, ["/opt/env"], io.BytesIO())


@pytest.mark.parametrize("origin", ["packages", "image"])
def test_what_makes_bytecode_must_be_in_the_base(tmp_path: Path, origin: str) -> None:
    plan = plan_of(tmp_path, {"requirements.txt": "six"}, resolver=RecordedResolver())
    assert obstacle(plan, running=True) is None
    other = dataclasses.replace(
        plan, python=dataclasses.replace(plan.python, version="3.9", full="3.9.2", origin=origin)
    )
    assert "Python 3.9.2" in (obstacle(other, running=True) or "")
    # One whose environment is made by what is run anyway.
    run = dataclasses.replace(
        other, steps=tuple(dataclasses.replace(s, assembly=None) for s in plan.steps if s.stage is not Stage.SERVER)
    )
    assert obstacle(run, running=True) is None


def test_what_can_be_run_on_what_is_assembled_is_no_obstacle(tmp_path: Path) -> None:
    plan = planned(tmp_path / "source", postBuild="#!/bin/sh\n")
    assert obstacle(plan) is not None and obstacle(plan, running=True) is None
    *steps, last = plan.steps
    reads = dataclasses.replace(plan, steps=(*steps, dataclasses.replace(last, image="localhost/python:3.9")))
    assert "postbuild/run has to be run" in (obstacle(reads, running=True) or "")
    # What a Debian of a registry lacks is installed before anything else; the server is one layer for all images.
    first = dataclasses.replace(last, stage=Stage.SERVER, name="base/prepare")
    assert obstacle(dataclasses.replace(plan, steps=(first, *plan.steps)), running=True) is None
    behind = dataclasses.replace(plan, steps=(plan.steps[0], first, *plan.steps[1:]))
    assert "base/prepare has to be run" in (obstacle(behind, running=True) or "")
    inside = dataclasses.replace(first, name="server/other")
    assert "server/other has" in (obstacle(dataclasses.replace(plan, steps=(inside, *plan.steps)), running=True) or "")
    assert only_assembled(plan) is None
    conda = dataclasses.replace(last, assembly=Assembly(conda="list"))
    assert only_assembled(dataclasses.replace(plan, steps=(*steps, conda))) is not None


def test_nothing_of_it_is_unpacked_on_the_way_to_a_registry(tmp_path: Path) -> None:
    """No file may become as large as what is in the layers."""
    zeros = File(bytes(64 << 20))
    path = tmp_path / "large"
    large = Layer(path, write_layer(io.BytesIO(layer_tar({"/srv/large": zeros})), path, Options()))
    layers = [large, other(tmp_path, "content")]
    image = stacked(CONFIG, None, layers)
    folder = tmp_path / "results"
    folder.mkdir()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8 << 20, before[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            (tmp_path / "unpacked").write_bytes(zeros.content)
        done = convert(
            AssembledImage(CONFIG, "some", (), image),
            layers_dir=tmp_path / "unused",
            folder=folder,
            name="some",
            labels={},
            timestamp=0,
            formats=("oci",),
            options=Options(),
            reporter=Silent(),
            layers=[layer.path for layer in layers],
            tars=image,
        )
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert contents(OciLayout(done.formats["oci"])) == [["large"], ["content"]]


def test_a_layout_has_the_layers_where_the_rest_is_merged_of_squashed_ones(tmp_path: Path) -> None:
    layers = [other(tmp_path, "server"), other(tmp_path, "content")]
    image = stacked(CONFIG, None, layers)
    folder = tmp_path / "results"
    folder.mkdir()
    done = convert(
        AssembledImage(CONFIG, "some", (), image),
        layers_dir=tmp_path / "unused",
        folder=folder,
        name="some",
        labels={},
        timestamp=0,
        formats=("squashfs", "oci"),
        options=Options(),
        reporter=Silent(),
        layers=[layer.path for layer in layers],
        tars=image,
    )
    layout = OciLayout(done.formats["oci"])
    assert layout.config == image.config
    assert contents(layout) == [["server"], ["content"]]
    with Image.open(done.formats["squashfs"]) as opened:
        assert opened.listdir("/srv") == ["content", "server"]
