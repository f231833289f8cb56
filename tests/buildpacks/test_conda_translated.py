"""Files that ask for conda packages, met with the Python index's and Debian's (`--conda pypi`): package by package."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path

import pytest
from checkouts import checkout_of, fill, reason, step
from recorded_index import RecordedResolver

from hpcbinder.errors import DetectError
from hpcbinder.model import Plan
from hpcbinder.plan import load_packs, make_plan, manifest, parse_toml

TABLE = next(pack.folder for pack in load_packs(()) if pack.name == "conda") / "translations.toml"


def translated(folder: Path, files: Mapping[str, str], index: RecordedResolver | None = None) -> Plan:
    return make_plan(
        checkout_of(fill(folder, files)),
        packs=load_packs(()),
        suite="bookworm",
        architecture="amd64",
        resolver=index or RecordedResolver(),
        translate_conda=True,
    )


def asked(folder: Path, *specs: str, **more: str) -> list[str]:
    """What the index is asked for, in an environment of these packages."""
    names = {re.split(r"[ =<>!~\[]", line.rpartition("::")[2])[0] for line in (*specs, *more)}
    index = RecordedResolver(packages=dict.fromkeys((*names, *more), ("1.0", ())))
    text = "dependencies:\n" + "".join(f"- {json.dumps(spec)}\n" for spec in specs)
    translated(folder, {"environment.yml": text}, index)
    (wanted,) = index.asked
    return [line for line in wanted.requirements if line not in ("ipykernel", "pip")]


@pytest.mark.parametrize(
    ("spec", "line"),
    [
        ("some", "some"),
        ("some=*", "some"),
        ("some *", "some"),
        ("some=1.2", "some==1.2.*"),
        ("some=1.2.*", "some==1.2.*"),
        ("some 1.2.*", "some==1.2.*"),
        ("some==1.2", "some==1.2"),
        ("some 1.2", "some==1.2"),
        ("some=1.2=py312h1_0", "some==1.2"),
        ("some 1.2 py312h1_0", "some==1.2"),
        ("some>=1.2,<2", "some<2,>=1.2"),
        ("some >=1.2, <2.0a0", "some<2.0a0,>=1.2"),
        ("some>=1.2.*", "some>=1.2"),
        ("some!=1.2.*", "some!=1.2.*"),
        ("some~=1.2", "some~=1.2"),
        ("conda-forge::some>1", "some>1"),
        ("Some_Name", "Some_Name"),
    ],
)
def test_versions_are_said_as_pip_says_them(tmp_path: Path, spec: str, line: str) -> None:
    assert asked(tmp_path, spec, **{"some": "1.0", "some-name": "1.0"}) == [line.lower() if "_" in line else line]


@pytest.mark.parametrize("version", ["=1.2|1.3", ">=2020x", "=1.2.*.3", "<<1", "=1.1.1k"])
def test_versions_that_pip_cannot_say_are_refused(tmp_path: Path, version: str) -> None:
    with pytest.raises(DetectError, match="has no counterpart for some: .* is no version as PEP 440 has it") as caught:
        asked(tmp_path, "numpy", f"some{version}")
    assert caught.value.where == "environment.yml:3"


def test_other_names_are_known(tmp_path: Path) -> None:
    more = {"dask": "1", "tables": "1", "torch": "1", "msgpack": "1"}
    specs = [
        "dask",
        "pytables=3.9",
        "pytorch",
        "msgpack-python>=1",
        "nomkl",
        "mamba",
        "pip",
        "libgcc-ng",
        "xorg-libx11",
    ]
    assert asked(tmp_path, *specs, **more) == ["dask[complete]", "tables==3.9.*", "torch", "msgpack>=1"]


def test_programs_are_debians(tmp_path: Path) -> None:
    text = "channels: [conda-forge]\ndependencies: [python-graphviz, nodejs>=18, compilers, numpy]\n"
    index = RecordedResolver(packages={"graphviz": ("1.0", ())})
    plan = translated(tmp_path, {"environment.yml": text}, index)
    installed = step(plan, "apt/install").data["packages"].split()
    assert installed == ["build-essential", "gfortran", "graphviz", "nodejs", "npm"]
    said = reason(plan, "environment.yml")
    assert "python-graphviz is graphviz and Debian's graphviz" in said
    assert "by the same name on PyPI: numpy" in said
    assert "in Debian's version, whatever is asked for: nodejs" in said
    assert "its channels say nothing" in said
    assert "--conda pypi" in json.loads(manifest(plan))["rebuild"]
    # It is made as from a requirements.txt: nothing of conda's.
    assert [lock.ecosystem for lock in plan.locks] == ["pypi"]
    assert not any(name.startswith("CONDA") for name in plan.env)


def test_all_that_has_no_counterpart_is_named_at_once(tmp_path: Path) -> None:
    text = "dependencies:\n- numpy\n- gdal\n- esmpy=8\n- strange=1=h7_0\n- libfew=2=h6a678d5_0\n- six=1.16.0=pyhd_0\n"
    with pytest.raises(DetectError) as caught:
        translated(tmp_path, {"environment.yml": text})
    assert caught.value.where == "environment.yml:3"
    for words in (
        "gdal: its Python part",
        "esmpy: neither Debian nor",
        "strange: by its build",
        "libfew: by its build",
    ):
        assert words in caught.value.message
    assert "six" not in caught.value.message
    assert "--conda packages" in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("spec", "python"),
    [("python=3.11", "3.11"), ("python=3.11.4", "3.11"), ("python>=3.9,<3.12", "3.11"), ("numpy", "3.11")],
)
def test_its_python_is_honoured(tmp_path: Path, spec: str, python: str) -> None:
    plan = translated(tmp_path, {"environment.yml": f"dependencies: ['{spec}']\n"})
    assert plan.python.version == python


@pytest.mark.parametrize("spec", ["python=2.6", "python>=4", "python=3.11|3.12"])
def test_a_python_that_is_not_there(tmp_path: Path, spec: str) -> None:
    with pytest.raises(DetectError) as caught:
        translated(tmp_path, {"environment.yml": f"dependencies:\n- numpy\n- {spec}\n"})
    assert caught.value.where == "environment.yml:3"


def test_a_runtime_counts_only_where_the_environment_says_nothing(tmp_path: Path) -> None:
    files = {"environment.yml": "dependencies: [python=3.11]\n", "runtime.txt": "python-3.9\n"}
    assert reason(translated(tmp_path, files), "runtime.txt").startswith("not used: environment.yml")


def test_the_pip_section_stays_as_it_is(tmp_path: Path) -> None:
    text = "dependencies:\n- numpy=2.1\n- pip:\n  - six==1.16.0\n  - -r more.txt\nvariables:\n  MODE: fast\n"
    index = RecordedResolver()
    plan = translated(tmp_path, {"environment.yml": text, "more.txt": "pandas\n"}, index)
    assert index.asked[0].requirements[:3] == ("numpy==2.1.*", "six==1.16.0", "pandas")
    assert plan.env["MODE"] == "fast"
    assert reason(plan, "more.txt") == "used: 1 requirement"


def test_r_is_debians_with_its_kernel(tmp_path: Path) -> None:
    text = "dependencies: [r-base=4.3, r-ggplot2, bioconductor-deseq2, rpy2]\n"
    index = RecordedResolver(packages={"rpy2": ("3.5", ())})
    plan = translated(tmp_path, {"environment.yml": text}, index)
    installed = step(plan, "apt/install").data["packages"].split()
    assert installed == ["r-base-core", "r-base-dev", "r-bioc-deseq2", "r-cran-ggplot2", "r-cran-irkernel"]
    assert plan.labels["org.hpcbinder.kernels"] == "ir python3"
    made = step(plan, "conda/r-kernel")
    assert made.assembly is not None
    (path,) = made.assembly.files
    assert path == "/opt/env/share/jupyter/kernels/ir/kernel.json"
    assert json.loads(made.assembly.files[path].text)["argv"][0] == "/usr/bin/R"


def test_what_was_asked_for_goes_before_a_lock_and_a_lock_alone_will_do(tmp_path: Path) -> None:
    channel = "https://conda.anaconda.org/conda-forge"
    files = ["linux-64/python-3.11.9-h1_0_cpython", "linux-64/numpy-2.1.1-py311h1_0", "linux-64/libgcc-ng-13.2.0-h1_0"]
    lock = "@EXPLICIT\n" + "".join(f"{channel}/{file}.conda#{'a' * 32}\n" for file in files)
    index = RecordedResolver()
    (tmp_path / "lock").mkdir()
    plan = translated(tmp_path / "lock", {"conda-linux-64.lock": lock}, index)
    assert (plan.python.version, index.asked[0].requirements[0]) == ("3.11", "numpy==2.1.1")
    (tmp_path / "both").mkdir()
    both = translated(tmp_path / "both", {"conda-linux-64.lock": lock, "environment.yml": "dependencies: [pandas]\n"})
    assert reason(both, "conda-linux-64.lock").startswith("not used: environment.yml, which counts more")


def test_the_table_says_one_thing_of_each_package_and_names_debian_packages() -> None:
    values = parse_toml(TABLE.read_text(), "translations.toml")
    groups = [*values["needless"].values(), *values["refused"].values(), list(values["packages"])]
    names = [name for group in groups for name in group]
    assert len(names) == len(set(names))
    debian = [name for each in values["packages"].values() for name in each.get("debian", [])]
    assert all(re.fullmatch(r"[a-z0-9][a-z0-9+.-]+", name) for name in debian)
    assert all(each.keys() <= {"pypi", "debian"} and each for each in values["packages"].values())
