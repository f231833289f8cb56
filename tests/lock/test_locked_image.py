"""Images whose packages were locked before the build, for real: from an index of packages made for the test."""

from __future__ import annotations

import json
import shlex
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from package_index import PackageIndex, serving

from images import Line

STEAL = (
    "import os, pathlib; "
    "seen = str(dict(os.environ)) + ''.join(p.read_text() for p in pathlib.Path('/run/hpcbinder/site').glob('env')); "
    "('hun' + 'ter2') in seen and pathlib.Path('/opt/env/stolen').write_text(seen); "
    "pathlib.Path('/opt/env/ran').exists() or pathlib.Path('/opt/env/ran').write_text('')\n"
)
"""A line of a .pth file, which Python runs whenever it starts: it looks for the password of the site's index."""


@pytest.fixture(scope="module")
def index() -> Iterator[PackageIndex]:
    with serving(PackageIndex()) as index:
        index.ours()
        index.wheel("top", requires=["below>=1"])
        index.wheel("below", "1.0")
        index.wheel("below", "2.0")
        index.wheel("hooked", files={"hooked.pth": STEAL})
        index.wheel("more")
        index.sdist("source", requires=["below"], setup=STEAL)
        index.sdist("old-source", requires=["below<2"])
        yield index


@pytest.fixture(scope="module")
def site(line: Line, index: PackageIndex) -> Line:
    """A site whose index has a password."""
    line.build(line.repository("edited"), "--no-register")  # the server's environment, from the real index
    url = index.url.replace("://", "://me:hunter2@")
    return replace(line, environment={**line.environment, "HPCBINDER_SITE_PIP_INDEX_URL": url})


def build(site: Line, name: str, requirements: str, *arguments: str) -> dict[str, Any]:
    def write(folder: Path) -> None:
        (folder / "requirements.txt").write_text(requirements)

    built = site.build(site.repository(name, write, of="plain"), "--no-register", "--format", "squashfs", *arguments)
    record = json.loads(site.hpcbinder("show", built["id"], "--json").stdout)
    assert isinstance(record, dict)
    return record


def inside(site: Line, record: dict[str, Any], program: str) -> str:
    argv = ["docker", "run", "--rm", "--network=none", "--entrypoint=/bin/sh", record["image"]["name"], "-euc", program]
    done = subprocess.run(argv, env=site.environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def installed(record: dict[str, Any]) -> dict[str, str]:
    return {package["name"]: package["version"] for package in record["packages"]["python"]}


def locked(record: dict[str, Any]) -> dict[str, str]:
    return {package["name"]: package["version"] for lock in record["locks"] for package in lock["packages"]}


@pytest.fixture(scope="module")
def first(site: Line) -> dict[str, Any]:
    return build(site, "locked", "top\nhooked\nsource\n")


def test_an_image_holds_exactly_what_was_locked_and_what_had_to_be_built(site: Line, first: dict[str, Any]) -> None:
    assert locked(first) == {"below": "2.0", "hooked": "1.0", "ipykernel": "7.0", "pip": "26.0", "top": "1.0"}
    assert first["locks"][0]["unresolved"] == ["source"]
    assert installed(first) == {**locked(first), "source": "1.0"}
    program = "import below, source, top; print(below.VERSION, source.VERSION, top.VERSION)"
    assert inside(site, first, f"/opt/env/bin/python -c '{program}'") == "2.0 1.0 1.0\n"
    manifest = json.loads(inside(site, first, "cat /opt/hpcbinder/manifest.json"))
    assert manifest["locks"] == first["locks"]
    shown = site.hpcbinder("show", first["id"]).stdout
    assert "5 wheels, resolved from the package index" in shown


def test_no_code_of_a_package_runs_where_there_are_credentials(site: Line, first: dict[str, Any]) -> None:
    # It did run, where the source was built.
    assert inside(site, first, "ls /opt/env").split() == ["bin", "lib", "lib64", "pyvenv.cfg", "ran", "share"]
    assert inside(site, first, "grep -r hunter2 /opt /etc /srv /var /run || :") == ""
    assert "hunter2" not in json.dumps(first)


def test_what_is_unpacked_has_bytecode_and_a_kernel_and_no_time(site: Line, first: dict[str, Any]) -> None:
    spec = json.loads(inside(site, first, "cat /opt/env/share/jupyter/kernels/python3/kernel.json"))
    assert spec["argv"][0] == "/opt/env/bin/python"
    names = inside(site, first, "cd /opt/env/lib/python3*/site-packages/__pycache__; ls").split()
    assert {name.split(".")[0] for name in names} >= {"below", "hooked", "source", "top"}
    assert inside(site, first, "find /opt/env /opt/hpcbinder/packages -newermt 2020-01-02") == ""
    assert inside(site, first, "find /opt/env -name '.*'") == ""


def test_one_line_more_is_one_layer_on_top_of_what_was_there(site: Line, first: dict[str, Any]) -> None:
    second = build(site, "locked", "top\nhooked\nsource\nmore\n")
    assert installed(second) == {**installed(first), "more": "1.0"}
    assert [len(layer) for layer in second["locks"][0]["layers"]] == [5, 1]
    before, after = first["config"]["diff_ids"], second["config"]["diff_ids"]
    # Below it the base, the server, the empty environment and the wheels; above it what is built, and the content.
    assert before[:4] == after[:4]
    assert len(set(after) - set(before)) == 3
    assert len(after) == len(before) + 1
    assert inside(site, second, "/opt/env/bin/python -c 'import more, top, source; print(more.VERSION)'") == "1.0\n"
    assert inside(site, second, "find /opt/env /opt/hpcbinder/packages -newermt 2020-01-02") == ""


def test_the_manifest_and_the_record_are_enough_to_plan_the_same_environment_elsewhere(
    site: Line, index: PackageIndex, first: dict[str, Any], tmp_path: Path
) -> None:
    manifest = json.loads(inside(site, first, "cat /opt/hpcbinder/manifest.json"))
    words = shlex.split(manifest["rebuild"])
    assert words[:4] == ["hpcbinder", "build", "--locks", "manifest.json"]
    index.wheel("top", "2.0")
    try:
        for name, content in (("manifest.json", manifest), ("record.json", first)):
            (tmp_path / name).write_text(json.dumps(content))
            arguments = ["--store", str(tmp_path / "store"), "plan", "--json"]
            arguments += ["--locks", str(tmp_path / name), *words[4:]]
            plan = json.loads(site.hpcbinder(*arguments).stdout)
            assert plan["locks"] == first["locks"]
            assert [step["name"] for step in plan["steps"]][-2:] == ["python/wheels", "python/packages"]
    finally:
        index.packages["top"].pop()


def test_another_repository_with_the_same_packages_has_the_same_layers(site: Line, first: dict[str, Any]) -> None:
    other = build(site, "locked-too", "hooked\nsource\ntop\n")
    assert other["id"] != first["id"]
    differ = [a != b for a, b in zip(first["config"]["diff_ids"], other["config"]["diff_ids"], strict=True)]
    assert sum(differ) <= 1


def test_what_is_built_may_need_other_versions_than_were_locked(site: Line, first: dict[str, Any]) -> None:
    record = build(site, "older", "top\nold-source\n")
    assert locked(record)["below"] == "2.0"
    assert installed(record) == {"below": "1.0", "ipykernel": "7.0", "old-source": "1.0", "pip": "26.0", "top": "1.0"}


def test_without_a_lock_the_build_finds_the_same(site: Line, first: dict[str, Any]) -> None:
    record = build(site, "locked", "top\nhooked\nsource\n", "--no-lock")
    assert record["locks"] == []
    assert record["id"] != first["id"]
    assert installed(record) == installed(first)
    spec = json.loads(inside(site, record, "cat /opt/env/share/jupyter/kernels/python3/kernel.json"))
    assert spec["argv"][0] == "/opt/env/bin/python"
