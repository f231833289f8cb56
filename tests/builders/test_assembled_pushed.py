"""Assembled images as ones of registries and engines: pushed, pulled and run by Docker and podman, and converted again.

They are the same images then. Only directories have other times: an image's own have the time of its commit, in layers
that several images share all have one and the same.
"""

from __future__ import annotations

import json
import subprocess
import urllib.request
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from hpcbinder import contract
from hpcbinder.builders import assembled_image
from hpcbinder.catalog import Catalog
from hpcbinder.config import load
from hpcbinder.progress import Silent
from hpcbinder.squashfs import Image
from images import Line
from rig import Builder, Dockerd, Registry

NOTEBOOK = (
    f"{contract.SERVER_PREFIX}/bin/jupyter-nbconvert",
    *("--to", "notebook", "--execute", "--stdout", f"{contract.REPO_DIR}/notebook.ipynb"),
)
BARE = ("run", "--rm", "--read-only", "--network", "none", "--user", "12345:54321", "--entrypoint", contract.ENTRYPOINT)
MANIFEST = "application/vnd.oci.image.manifest.v1+json"


@dataclass(frozen=True)
class Pushed:
    """An image that was assembled and pushed.

    Attributes:
        built: What `build --json` printed.
        manifest: What the registry has of it.
    """

    built: dict[str, Any]
    reference: str
    digest: str
    manifest: dict[str, Any]
    config: dict[str, Any]

    @property
    def name(self) -> str:
        """With the digest, without the tag."""
        return f"{self.reference.rpartition(':')[0]}@{self.digest}"


def in_registry(registry: Registry, path: str) -> Any:
    request = urllib.request.Request(f"http://{registry.host}/v2/{path}", headers={"Accept": MANIFEST})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


def own(work: Path) -> None:
    (work / "README.md").write_text(work.name)
    (work / "start").write_text('#!/bin/sh\nexport STARTED=yes\nexec "$@"\n')
    (work / "start").chmod(0o755)


@pytest.fixture(scope="module")
def images(line: Line, registry: Registry) -> list[Pushed]:
    """Two repositories with the same packages."""
    found: list[Pushed] = []
    locks = line.folder / "pushed-locks.json"
    # Packages are squashed once for all tests that compress alike.
    line = replace(line, environment={**line.environment, "HPCBINDER_BUILD_COMPRESSION": "gzip"})
    for name in ("pushed-one", "pushed-two"):
        place = f"{registry.host}/assembled/{name}"
        source = line.repository(name, own, of="edited")
        arguments = ["--engine", "none", "--no-register", "--push", place, "--format", "squashfs"]
        if found:
            # What was resolved before decides in how many steps packages come.
            arguments += ["--locks", str(locks)]
        built = line.build(source, *arguments)
        locks.write_text(line.hpcbinder("show", built["id"], "--json").stdout)
        digest = built["pushed"]["digest"]
        manifest = in_registry(registry, f"assembled/{name}/manifests/{digest}")
        config = in_registry(registry, f"assembled/{name}/blobs/{manifest['config']['digest']}")
        found.append(Pushed(built, built["pushed"]["reference"], digest, manifest, config))
    return found


def printed(output: str) -> str:
    cells = json.loads(output)["cells"]
    return "".join(text for cell in cells for out in cell.get("outputs", ()) for text in out.get("text", ()))


def tree(squashfs: Path) -> dict[str, Any]:
    """Everything in an image but the times of directories, and what a conversion adds."""
    found: dict[str, Any] = {}
    with Image.open(squashfs) as image:
        for path, node in image.walk():
            if not path.startswith(".singularity.d"):
                kind, links = (node.kind, node.nlink) if node.kind != "directory" else ("directory", 0)
                time = 0 if kind == "directory" else node.mtime
                content = image.read(path, 1 << 30) if kind == "file" and node.size < 1 << 16 else node.size
                if path in ("etc/environment", "ch/environment") and isinstance(content, bytes):
                    content = sorted(content.splitlines())  # whose order a registry does not keep
                found[path] = (kind, node.mode, node.uid, node.gid, time, links, node.target, node.xattrs, content)
    return found


def test_docker_pulls_and_runs_it(line: Line, dockerd: Dockerd, images: list[Pushed]) -> None:
    def docker(*arguments: str) -> str:
        command = [dockerd.client, *arguments]
        done = subprocess.run(command, env=line.environment, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stderr
        return done.stdout

    name = images[0].name
    docker("pull", "--quiet", name)
    try:
        about = json.loads(docker("inspect", name))[0]
        assert about["RootFS"]["Layers"] == images[0].config["rootfs"]["diff_ids"]
        assert printed(docker(*BARE, name, *NOTEBOOK)).startswith("1.17.0 yes ")
    finally:
        docker("rmi", name)


@pytest.mark.heavy
def test_podman_pulls_and_runs_it_as_an_ordinary_user(builder: Builder, images: list[Pushed]) -> None:
    name = images[0].name
    builder.run(["podman", "pull", "--quiet", "--tls-verify=false", name], timeout=600)
    try:
        output = builder.run(["podman", *BARE, "--pull=never", "--read-only-tmpfs=false", name, *NOTEBOOK]).stdout
        assert printed(output).startswith("1.17.0 yes ")
    finally:
        builder.run(["podman", "rmi", name])


def test_two_images_share_all_layers_but_the_content(line: Line, images: list[Pushed]) -> None:
    one, other = ([layer["digest"] for layer in image.manifest["layers"]] for image in images)
    assert one[:-1] == other[:-1]
    assert one[-1] != other[-1]
    # The base is the tar that every engine has of it.
    shown = json.loads(line.hpcbinder("show", images[0].built["id"], "--json").stdout)
    assert images[0].config["rootfs"]["diff_ids"][0] == shown["config"]["diff_ids"][0]
    assert len(one) < len(shown["config"]["diff_ids"])


def test_what_is_pulled_is_the_image_that_was_assembled(line: Line, images: list[Pushed]) -> None:
    folder = line.folder / "pulled"
    line.hpcbinder(
        "convert", f"docker://{images[0].name}", "--to", "squashfs", "--compression", "lz4", "-o", f"{folder}/"
    )
    (pulled,) = folder.glob("*.squashfs")
    mine, theirs = tree(Path(images[0].built["formats"]["squashfs"])), tree(pulled)
    assert {path for path in mine.keys() | theirs.keys() if mine.get(path) != theirs.get(path)} == set()
    shown = json.loads(line.hpcbinder("show", images[0].built["id"], "--json").stdout)["config"]
    assert images[0].config["config"]["Env"] == [f"{name}={value}" for name, value in sorted(shown["env"].items())]
    assert images[0].config["config"]["Entrypoint"] == shown["entrypoint"]


def test_its_layout_has_the_layers_that_were_pushed(line: Line, images: list[Pushed]) -> None:
    folder = line.folder / "layout"
    line.hpcbinder("convert", images[0].built["id"], "--to", "oci", "-o", f"{folder}/")
    (layout,) = folder.glob("*.oci")

    def blob(descriptor: dict[str, Any]) -> Any:
        return json.loads((layout / "blobs" / descriptor["digest"].replace(":", "/")).read_text())

    found = blob(json.loads((layout / "index.json").read_text())["manifests"][0])
    assert found["layers"] == images[0].manifest["layers"]


def test_of_what_is_kept_no_more_no_layers_are_left(line: Line, images: list[Pushed]) -> None:
    catalog = Catalog(line.folder / "store")
    entry, config = catalog.get(images[1].built["id"]), load(environ={"HOME": str(line.folder / "home")})
    image = assembled_image(entry, catalog, config, Silent())
    assert image is not None and list(image.config.diff_ids) == images[1].config["rootfs"]["diff_ids"]
    content = entry.config.diff_ids[-1].removeprefix("sha256:")
    (layer,) = catalog.layers_dir.glob(f"{content}-*.squashfs")
    aside = layer.rename(layer.with_suffix(".aside"))
    try:
        assert assembled_image(entry, catalog, config, Silent()) is None
    finally:
        aside.rename(layer)
