"""The bill of materials in a SIF: right, valid by its own schema, the same each time, read by Apptainer."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packageurl import PackageURL
from stacks import MTIME, Layer, MemoryImage

from hpcbinder.convert import convert
from hpcbinder.convert.sbom import LEFT_OUT, make_sbom, read_sbom, sbom_format
from hpcbinder.errors import ConvertError, UsageError
from hpcbinder.look import inspect, stored_sbom
from hpcbinder.progress import Silent
from hpcbinder.sif import Kind, SbomFormat, read_sif
from hpcbinder.squashfs import Image, Options
from rig import Apptainer

SERIAL = "01234567-89ab-8def-8123-456789abcdef"
STATUS = """\
Package: libstdc++6
Status: install ok installed
Architecture: amd64
Source: gcc-12 (12.2.0-14)
Version: 12.2.0-14+deb12u1
Description: GNU Standard C++ Library v3
 Version: not this line

Package: git
Status: install ok installed
Architecture: amd64
Version: 1:2.39.5-0~deb12u2

Package: gone
Status: deinstall ok config-files
Architecture: amd64
Version: 1.0
"""
ENV, BASE = "opt/env/lib/python3.11/site-packages", "usr/lib/python3/dist-packages"


def layer() -> Layer:
    return (
        Layer()
        .file("usr/lib/os-release", 'ID=debian\nVERSION_ID="12"\n')
        .link("etc/os-release", "../usr/lib/os-release")
        .file("var/lib/dpkg/status", STATUS)
        .file("var/lib/dpkg/status.d/tzdata", "Package: tzdata\nVersion: 2025b-0\nArchitecture: all\n")
        .file("lib/apk/db/installed", "C:Q1\nP:musl\nV:1.2.5-r0\nA:x86_64\n\nP:zlib\nV:1.3-r2\nA:x86_64\n")
        .file(f"{ENV}/ruamel.yaml-0.18.6.dist-info/METADATA", "Name: ruamel.yaml\n")
        .file(f"{ENV}/Jinja2-3.1.4.dist-info/METADATA", "Name: Jinja2\n")
        .file(f"{ENV}/torch-2.4.0+cu121.dist-info/METADATA", "Name: torch\n")
        .file(f"{ENV}/setuptools/_vendor/inner-1.0.dist-info/METADATA", "Name: inner\n")
        .file("opt/jupyter/lib/python3.11/site-packages/jinja2-3.1.4.dist-info/METADATA", "Name: Jinja2\n")
        .file(f"{BASE}/six-1.16.0.egg-info/PKG-INFO", "Name: six\n")
        .file(f"{BASE}/PyYAML-6.0-py3.11.egg-info", "Name: PyYAML\n")
        .file("opt/conda/conda-meta/python-3.11.9-h955ad1f_0.json", "{}")
        .file("opt/conda/conda-meta/history", "")
        .file("usr/share/doc/site-packages/never-1.0.dist-info/METADATA", "")
        .file("opt/hpcbinder/packages/python.json", '[{"name": "stale", "version": "1"}]')
        .file("opt/hpcbinder/packages/julia.json", '[{"name": "Plots", "version": "1.40.8"}]')
    )


def converted(folder: Path, layer: Layer, **options: Any) -> Path:
    folder.mkdir(parents=True)
    labels = {"org.opencontainers.image.title": "chirp", "org.opencontainers.image.version": "1.2"}
    image = MemoryImage(layer, config={"Labels": labels})
    done = convert(
        image,
        layers_dir=folder / "layers",
        folder=folder,
        name="image",
        labels={},
        timestamp=MTIME,
        formats=options.pop("formats", ("sif",)),
        options=Options("zstd"),
        reporter=Silent(),
        **options,
    )
    return done.formats["sif"]


@pytest.fixture(scope="module")
def sif(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return converted(tmp_path_factory.mktemp("sbom") / "one", layer())


def components(raw: bytes) -> dict[str, dict[str, Any]]:
    return {component["bom-ref"]: component for component in json.loads(raw)["components"]}


def test_it_lists_what_is_installed_and_nothing_else(sif: Path) -> None:
    found = components(stored_sbom(sif))
    assert list(found) == [
        "os",
        "pkg:apk/debian/musl@1.2.5-r0?arch=x86_64&distro=debian-12",
        "pkg:apk/debian/zlib@1.3-r2?arch=x86_64&distro=debian-12",
        "pkg:conda/python@3.11.9?build=h955ad1f_0",
        "pkg:deb/debian/git@1:2.39.5-0~deb12u2?arch=amd64&distro=debian-12",
        "pkg:deb/debian/libstdc%2B%2B6@12.2.0-14%2Bdeb12u1?arch=amd64&distro=debian-12",
        "pkg:deb/debian/tzdata@2025b-0?arch=all&distro=debian-12",
        "julia:Plots@1.40.8",
        "pkg:pypi/jinja2@3.1.4",
        "pkg:pypi/pyyaml@6.0",
        "pkg:pypi/ruamel-yaml@0.18.6",
        "pkg:pypi/six@1.16.0",
        "pkg:pypi/torch@2.4.0%2Bcu121",
    ]
    assert [o["location"] for o in found["pkg:pypi/jinja2@3.1.4"]["evidence"]["occurrences"]] == [
        "/opt/env/lib/python3.11/site-packages",
        "/opt/jupyter/lib/python3.11/site-packages",
    ]
    assert found["julia:Plots@1.40.8"]["properties"] == [{"name": "hpcbinder:ecosystem", "value": "julia"}]


def test_it_is_cyclonedx_and_its_urls_are_package_urls(sif: Path) -> None:
    raw = stored_sbom(sif)
    problem = JsonStrictValidator(SchemaVersion.V1_6).validate_str(raw.decode())
    assert problem is None, problem
    for component in components(raw).values():
        if "purl" in component:
            url = PackageURL.from_string(component["purl"])
            assert (url.to_string(), url.version) == (component["purl"], component["version"])


def test_it_tells_which_image_it_is_about_and_no_time_of_day(sif: Path) -> None:
    bill = json.loads(stored_sbom(sif))
    header = inspect(sif)["sif"]
    assert bill["serialNumber"] == f"urn:uuid:{header['uuid']}"
    assert bill["metadata"]["timestamp"] == "2020-09-13T12:26:40Z"
    component = bill["metadata"]["component"]
    assert (component["name"], component["version"], component["type"]) == ("chirp", "1.2", "container")


def test_the_same_image_gives_the_same_bytes_whichever_format_was_written_first(sif: Path, tmp_path: Path) -> None:
    assert converted(tmp_path / "a", layer(), formats=("sif", "squashfs")).read_bytes() == sif.read_bytes()


def test_ones_own_is_taken_as_it_is_and_none_is_none(tmp_path: Path) -> None:
    small = Layer().file("x", "x")
    mine = b'{"spdxVersion": "SPDX-2.3", "packages": [{}, {}]}'
    (tmp_path / "mine.json").write_bytes(mine)
    path = converted(tmp_path / "mine", small, sbom=read_sbom(tmp_path / "mine.json"))
    assert stored_sbom(path) == mine
    assert inspect(path)["sbom"] == {"object": 5, "format": "spdx-json", "components": 2}
    without = converted(tmp_path / "none", small, sbom=LEFT_OUT)
    assert Kind.SBOM not in [descriptor.kind for descriptor in read_sif(without).descriptors]
    with pytest.raises(ConvertError, match="has no bill of materials"):
        stored_sbom(without)


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ('{"bomFormat": "CycloneDX", "specVersion": "1.5"}', SbomFormat.CYCLONEDX_JSON),
        ('{"spdxVersion": "SPDX-2.3"}', SbomFormat.SPDX_JSON),
        ('{"@context": "https://spdx.org/rdf/3.0.1/spdx-context.jsonld"}', SbomFormat.SPDX_JSON),
        ('{"bomFormat": "CycloneDX"}', None),
        ('["bomFormat"]', None),
        ("SPDXVersion: SPDX-2.3", None),
        ("[" * 100_000, None),
        ("\udcff", None),
    ],
)
def test_formats_are_told_apart(text: str, form: SbomFormat | None) -> None:
    raw = text.encode("utf-8", "surrogateescape")
    if form is not None:
        assert sbom_format(raw) is form
        return
    with pytest.raises(UsageError, match="no bill of materials"):
        sbom_format(raw)


def test_a_hostile_image_gives_a_valid_bill(tmp_path: Path) -> None:
    hostile = (
        Layer()
        .file("etc/os-release", 'ID="../x?y#"\nVERSION_ID=1\x1b[2J\n')
        .file(
            "var/lib/dpkg/status", b"Package: a" + b" " * 500_000 + b"b\nVersion: 1\n\nPackage: \x1b[2J\nVersion: 1\n\n"
        )
        .file("var/lib/dpkg/status.d", b"no folder")
        .folder("lib/apk/db/installed")
        .file(f"{ENV}/a@b?c#d-1.0.dist-info/METADATA")
        .file(f"{ENV}/a\nb-1.0.dist-info/METADATA")
        .file(f"{ENV}/nodash.dist-info/METADATA")
        .file(f"{ENV}/-.dist-info/METADATA")
        .file("opt/\udcff/site-packages/good-1.0.dist-info/METADATA")
        .file("c/conda-meta/--.json")
        .file("opt/hpcbinder/packages/deb.json", '[{"name": "x y", "version": "1"}, {"name": "x", "version": "1&y=z"}]')
    )
    with Image.open(converted(tmp_path / "x", hostile, formats=("sif", "squashfs")).with_suffix(".squashfs")) as image:
        raw = make_sbom(
            image, labels={"org.hpcbinder.id": "x\x1b\u202e" * 100}, digest="sha256:0", serial=SERIAL, timestamp=2**60
        )
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(raw.decode()) is None
    assert list(components(raw)) == [
        "pkg:deb/debian/x@1%26y%3Dz",
        "pkg:pypi/a%40b%3Fc%23d@1.0",
        "pkg:pypi/good@1.0",
    ]


def test_a_bill_that_would_have_no_end_says_that_it_is_not_whole(sif: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hpcbinder.convert.sbom._MOST", 3)
    with Image.open(sif, offset=inspect(sif)["squashfs"]["offset"]) as image:
        raw = make_sbom(image, labels={}, digest="sha256:0", serial=SERIAL, timestamp=0)
    assert json.loads(raw)["compositions"] == [{"aggregate": "incomplete", "assemblies": ["image"]}]
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(raw.decode()) is None


def test_apptainer_knows_what_it_is_and_gives_it_back(apptainer: Apptainer, sif: Path) -> None:
    def ask(*words: str) -> bytes:
        return subprocess.run([str(apptainer.path), "sif", *words, str(sif)], capture_output=True, check=True).stdout

    (line,) = [line for line in ask("list").splitlines() if b"SBOM" in line]
    assert line.split()[0] == b"5" and line.endswith(b"SBOM (cyclonedx-json)")
    assert ask("dump", "5") == stored_sbom(sif)
