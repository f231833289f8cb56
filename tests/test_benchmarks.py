"""The programs in `benchmarks/` do not rot: one runs on a tiny image, and its claims follow from its figures."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rig import Apptainer

ROOT = Path(__file__).parent.parent
SIF = {"image": "demo", "source": "oci", "cached": "nothing", "daemon_cpu": 0.5, "peak": 1, "load": 0.0}


def benchmark(module: str, *arguments: str | Path, **environment: str) -> str:
    command = [sys.executable, "-m", f"benchmarks.{module}", *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


def test_the_converter_is_measured_against_the_others(apptainer: Apptainer, tmp_path: Path) -> None:
    places = ["--cache", tmp_path / "cache", "--out", tmp_path / "out"]
    path = f"{apptainer.bin}:{os.environ['PATH']}"
    said = benchmark("convert", "--image", "tiny", "--part", "layout", "--part", "top", *places, PATH=path)
    results = json.loads((tmp_path / "out/results.json").read_text())
    tools = {"hpcbinder", "apptainer"}
    if shutil.which("umoci"):
        tools.add("mksquashfs")
    assert {(figure["tool"], figure["cached"]) for figure in results["figures"]} == {
        *((tool, "nothing") for tool in tools),
        ("hpcbinder", "all but the top"),
    }
    for figure in results["figures"]:
        assert figure["size"] > 4096
        assert 0 < figure["cpu"] < 60
        assert figure["peak"] > 1e6
    assert results["images"] == {"tiny": {"layers": 1, "files": 42, "size": pytest.approx(80_000, rel=0.5)}}
    assert results["claims"]
    for claim in results["claims"]:
        assert f"| {claim['text']} | `tiny` | {claim['measured']} |" in said
    assert (tmp_path / "out/results.md").read_text() in said
    assert not list((tmp_path / "cache").glob("run-*"))


@pytest.mark.parametrize(
    ("cpu", "size", "verdicts"), [(9.9, 100, ["holds"] * 2), (10.0, 101, ["**does not hold**"] * 2)]
)
def test_a_claim_is_judged_by_the_figures(tmp_path: Path, cpu: float, size: int, verdicts: list[str]) -> None:
    figures: list[dict[str, Any]] = [
        {**SIF, "tool": "hpcbinder", "compression": "gzip", "wall": 9.0, "cpu": cpu, "size": size},
        {**SIF, "tool": "apptainer", "compression": "gzip", "wall": 99.0, "cpu": 99.5, "size": 100},
    ]
    machine = {"date": "", "cores": 2, "memory": 1, "system": "", "user": "", "programs": {}, "rounds": 1}
    images = {"demo": {"layers": 1, "files": 1, "size": 1}}
    file = tmp_path / "results.json"
    file.write_text(
        json.dumps({"machine": machine, "images": images, "figures": figures, "starts": [], "left_out": []})
    )
    rows = [line for line in benchmark("convert.report", file).splitlines() if "hold" in line]
    assert [row.split("|")[-2].strip() for row in rows] == verdicts


@pytest.fixture
def measure(monkeypatch: pytest.MonkeyPatch) -> Callable[[list[str]], Any]:
    monkeypatch.syspath_prepend(str(ROOT))
    from benchmarks.convert import meter

    return meter.measure


def test_what_a_command_leaves_behind_is_counted(measure: Callable[[list[str]], Any]) -> None:
    busy = "import time\nwhile time.process_time() < 0.5: pass"
    cost = measure(["sh", "-c", f"(setsid {sys.executable} -c '{busy}' &); exit 0"])
    assert 0.5 <= cost.cpu < 5


def test_memory_is_that_of_the_largest_moment(measure: Callable[[list[str]], Any]) -> None:
    cost = measure([sys.executable, "-c", "bytearray(b'x') * (200 << 20)"])
    assert 200 << 20 <= cost.peak < 260 << 20


def test_a_command_that_fails_is_no_figure(measure: Callable[[list[str]], Any]) -> None:
    with pytest.raises(Exception, match="(?s)exit 3.*this went wrong"):
        measure(["sh", "-c", "echo this went wrong >&2; exit 3"])


LINK = {"part": "seen", "packages": 40, "files": 0, "size": 1, "cpu": 1.0, "merge": 0.0, "own": 0, "load": 0.0}
LOCK = {**LINK, "part": "unseen", "packages": 10, "wall": 1.0}
EQUAL = {
    "name": "data",
    "asked": 2,
    "packages": 3,
    "files": 4,
    "different": [],
    "check": "No broken requirements found.",
    "versions": 3,
    "imported": 2,
    "failed": {},
    "neither": {"mpi4py": "no libmpi.so"},
    "extensions": 1,
    "bad": [],
    "kernels": ["python3"],
    "seconds": 1.0,
}


@pytest.mark.parametrize(
    ("figures", "equal", "verdicts"),
    [
        (
            [
                {**LINK, "tool": "hpcbinder", "wall": 4.0, "peak": 299_000_000},
                {**LINK, "tool": "docker", "wall": 60.0, "peak": 1},
                {**LINK, "tool": "apptainer", "wall": 60.0, "peak": 1},
            ],
            [EQUAL],
            ["holds"] * 4,
        ),
        (
            [
                {**LINK, "tool": "hpcbinder", "wall": 5.1, "peak": 301_000_000},
                {**LINK, "tool": "docker", "wall": 60.0, "peak": 1},
                {**LINK, "tool": "apptainer", "wall": 60.0, "peak": 1},
            ],
            [
                {**EQUAL, "different": ["x: 644 and 755"]},
                {**EQUAL, "failed": {"six": "gone"}},
                {**EQUAL, "versions": 2},
            ],
            ["**does not hold**"] * 6,
        ),
        (
            [
                # The merge comes on top of one and a half times uv.
                {**LOCK, "tool": "hpcbinder", "wall": 1.8, "merge": 0.4, "own": 200_000_000, "peak": 1},
                {**LOCK, "tool": "uv", "wall": 1.0, "peak": 1},
                {**LOCK, "packages": 20, "tool": "hpcbinder", "wall": 1.8, "own": 400_000_000, "peak": 1},
                {**LOCK, "packages": 20, "tool": "uv", "wall": 1.0, "peak": 1},
            ],
            [{**EQUAL, "check": None, "versions": 0, "kernels": []}],
            ["holds", "**does not hold**", "holds", "**does not hold**", "holds"],
        ),
    ],
)
def test_claims_about_assembling_hold_by_the_figures_alone(
    tmp_path: Path, figures: list[dict[str, Any]], equal: list[dict[str, Any]], verdicts: list[str]
) -> None:
    machine = {"date": "", "cores": 2, "memory": 1, "system": "", "user": "", "programs": {}, "rounds": 1}
    file, page = tmp_path / "results.json", tmp_path / "page.md"
    found = {"machine": machine, "figures": figures, "courses": [], "equal": equal, "left_out": []}
    file.write_text(json.dumps(found))
    rows = [line for line in benchmark("assemble.report", file).splitlines() if "hold" in line]
    assert [row.split("|")[-2].strip() for row in rows] == verdicts
    page.write_text((ROOT / "docs/performance-assemble.md").read_text())
    benchmark("assemble.report", file, page)
    assert "does not hold" in page.read_text() or set(verdicts) == {"holds"}


MACHINE = {"date": "", "cores": 2, "memory": 1, "system": "", "user": "", "programs": {}, "rounds": 1}
COURSES = {"images": 50, "alone": 1000, "layers": 300, "used": 240, "empty": 1, "file_system": "XFS", "walls": [1.0]}


def test_a_store_of_courses_is_judged_by_what_it_takes_and_the_layers_where_files_are_copies(tmp_path: Path) -> None:
    courses = [COURSES, {**COURSES, "file_system": "no reflinks"}]
    found = {"machine": MACHINE, "figures": [], "courses": courses, "equal": [], "left_out": []}
    (tmp_path / "results.json").write_text(json.dumps(found))
    rows = [line for line in benchmark("assemble.report", tmp_path / "results.json").splitlines() if "hold" in line]
    assert [row.split("|")[-2].strip() for row in rows] == ["holds", "**does not hold**"]


@pytest.mark.parametrize(
    ("parts", "left", "courses", "environments"),
    [
        (["seen"], ["merge", "hpcbinder", "uv"], 1, ["data", "earth"]),
        (["unseen", "courses"], ["hpcbinder", "docker"], 0, ["data", "earth"]),
        (["check"], ["hpcbinder", "merge", "docker", "hpcbinder", "uv"], 1, ["data"]),
    ],
)
def test_what_is_not_measured_again_is_the_last_run_s(
    tmp_path: Path, parts: list[str], left: list[str], courses: int, environments: list[str]
) -> None:
    figures = [("seen", "hpcbinder"), ("seen", "merge"), ("seen", "docker"), ("unseen", "hpcbinder"), ("unseen", "uv")]
    last = {
        "machine": MACHINE,
        "figures": [{**LINK, "wall": 1.0, "peak": 1, "part": part, "tool": tool} for part, tool in figures],
        "courses": [COURSES],
        "equal": [{**EQUAL, "name": name} for name in ("data", "earth")],
        "left_out": [],
    }
    (tmp_path / "last.json").write_text(json.dumps(last))
    keep = (
        "import pathlib, sys\nfrom benchmarks.assemble.figures import Results\nfolder = pathlib.Path(sys.argv[1])\n"
        "found = Results()\nfound.keep(Results.read(folder / 'last.json'), sys.argv[2:], ['earth'])\n"
        "found.write(folder / 'now.json')\n"
    )
    subprocess.run([sys.executable, "-c", keep, str(tmp_path), *parts], cwd=ROOT, check=True)
    now = json.loads((tmp_path / "now.json").read_text())
    assert [figure["tool"] for figure in now["figures"]] == left
    assert (len(now["courses"]), [each["name"] for each in now["equal"]]) == (courses, environments)
