"""environment.yml and explicit lists: what is read, what is refused, and what of a repository counts beside them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from checkouts import plan_of, reason, step

from hpcbinder.errors import DetectError
from hpcbinder.model import Lock, LockedPackage, Plan, Wanted, WantedConda
from hpcbinder.plan import manifest

FILES = {"environment.yml": "channels: [conda-forge]\ndependencies:\n  - numpy=1.26\n"}


class Conda:
    """Stands for the solver, which has tests of its own: gives the same packages whatever is wanted."""

    def __init__(self, *more: tuple[str, str, str]) -> None:
        self.asked: list[WantedConda] = []
        self.packages = [("python", "3.12.4", "h1_0_cpython"), ("numpy", "1.26.4", "py312h1_0"), *more]

    def __call__(self, wanted: WantedConda) -> tuple[Lock, tuple[str, ...]]:
        self.asked.append(wanted)
        url = "https://conda.anaconda.org/conda-forge/linux-64"
        packages = tuple(
            LockedPackage(name, version, (f"sha256:{'0' * 64}",), f"{url}/{name}-{version}-{build}.conda", build, 7)
            for name, version, build in sorted(self.packages)
        )
        order = tuple(name for name, _, _ in self.packages)
        return Lock("conda", "resolved", "3.12", "x86_64-manylinux_2_36", packages, (order,)), ("a note",)


class Index:
    """Stands for the package index: gives what was asked for and what it needs, each in version 1."""

    def __init__(self, *needs: str) -> None:
        self.asked: list[Wanted] = []
        self.needs = needs

    def __call__(self, wanted: Wanted) -> Lock:
        self.asked.append(wanted)
        names = sorted({*(line.split("=")[0].split(">")[0] for line in wanted.requirements), *self.needs})
        packages = tuple(LockedPackage(name, "1", (f"sha256:{'1' * 64}",)) for name in names)
        return Lock("pypi", "resolved", "3.12", "x86_64-manylinux_2_36", packages, (tuple(names),))

    def known(self, wanted: Wanted, *, built: bool) -> frozenset[str]:
        return frozenset(wanted.requirements)

    def layered(self, lock: Lock) -> Lock:
        return lock


def planned(tmp_path: Path, text: str, conda: Conda | None = None, index: Index | None = None, **more: str) -> Plan:
    files = {"environment.yml": text, **{name.replace("__", "."): content for name, content in more.items()}}
    return plan_of(tmp_path, files, conda=conda or Conda(), resolver=index or Index())


def test_an_environment_is_data(tmp_path: Path) -> None:
    conda = Conda(("ipykernel", "6.29", "pyhd_0"), ("pip", "24.0", "pyhd8ed1ab_0"))
    plan = planned(
        tmp_path,
        "name: x\nprefix: /home/me/x\nchannels:\n- conda-forge\n- bioconda\n"
        "dependencies:\n- numpy=1.26\n- bioconda::samtools\nvariables:\n  MODE: fast\n",
        conda,
    )
    (asked,) = conda.asked
    assert asked.specs == ("numpy=1.26", "bioconda::samtools")
    assert asked.channels == ("conda-forge", "bioconda")
    assert (asked.python, asked.suite, asked.architecture) == ("3.11", "bookworm", "amd64")
    assert (plan.python.full, plan.python.origin, plan.base.python) == ("3.12.4", "conda", "3.11")
    made = step(plan, "conda/environment")
    assert made.assembly is not None and made.assembly.conda == "conda.json"
    listed = json.loads(made.data["conda.json"])
    assert [each["name"] for each in listed] == ["python", "numpy", "ipykernel", "pip"]
    assert listed[1] == {
        "name": "numpy",
        "version": "1.26.4",
        "build": "py312h1_0",
        "url": "https://conda.anaconda.org/conda-forge/linux-64/numpy-1.26.4-py312h1_0.conda",
        "sha256": "0" * 64,
        "size": 7,
    }
    assert "exit 1" in made.script
    assert plan.env["MODE"] == "fast" and plan.env["CONDA_PREFIX"] == "/opt/env"
    # All of it is conda's: no environment of ours, and no wheels.
    assert not any(each.name.startswith("python/") for each in plan.steps)
    assert (
        reason(plan, "environment.yml") == "used: 4 conda packages, Python 3.12.4; its prefix says nothing here; a note"
    )
    assert plan.asked["conda"] == ("numpy", "samtools")
    assert "--conda packages" in json.loads(manifest(plan))["rebuild"]


def test_a_pip_section_joins_on_top(tmp_path: Path) -> None:
    index = Index("numpy", "needed")
    text = "dependencies:\n- numpy\n- pip:\n  - wanted>=1  # why\n  - -r requirements.txt\n"
    plan = planned(tmp_path, text, index=index, requirements__txt="another\n")
    (asked,) = index.asked
    assert asked.requirements == ("wanted>=1", "another", "ipykernel", "pip")
    # What conda brought is kept: pip chooses what goes with it.
    assert asked.constraints == ("numpy==1.26.4", "ipykernel>=4.8")
    assert asked.python == "3.12.4"
    wheels = step(plan, "python/wheels")
    assert wheels.assembly is not None and wheels.assembly.python == "3.12.4"
    assert [line.split("==")[0] for line in wheels.data["wheels.txt"].splitlines()] == [
        "another",
        "ipykernel",
        "needed",
        "pip",
        "wanted",
    ]
    names = [each.name for each in plan.steps]
    assert names.index("conda/environment") < names.index("python/wheels")
    assert "python/environment" not in names
    assert reason(plan, "requirements.txt") == "used: 1 requirement"


def test_what_counts_less_is_said(tmp_path: Path) -> None:
    plan = planned(
        tmp_path, "dependencies: [numpy]\n", requirements__txt="six\n", setup__py="", runtime__txt="python-3.9\n"
    )
    assert reason(plan, "requirements.txt") == "used: pip installs what environment.yml does not have: six"
    assert reason(plan, "runtime.txt") == "not used: environment.yml, which counts more, says what is installed"
    assert reason(plan, "setup.py").startswith("not used: ")


def test_an_environment_without_anything(tmp_path: Path) -> None:
    plan = planned(tmp_path, "name: empty\n")
    assert "it names no dependencies" in reason(plan, "environment.yml")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("dependencies: [a\n", "environment.yml:2: is not YAML"),
        ("- a\n", "environment.yml: is no environment file"),
        ("dependencies: numpy\n", "environment.yml:1: has dependencies that are no list"),
        ("dependencies:\n- numpy\n- [a]\n", "environment.yml:3: has a dependency that is neither"),
        ("dependencies:\n- conda: [a]\n", "environment.yml:2: has a dependency that is neither"),
        ("dependencies:\n- pip: {a: 1}\n", "environment.yml:2: has a pip section that is no list"),
        ("channels: [1]\n", "environment.yml:1: has something in channels that is no text"),
        ("variables: [a]\n", "environment.yml:1: has variables that are no table"),
        ("variables:\n  'a b': 1\n", "environment.yml:2: has a variable a b that can be none"),
        ("variables:\n  PATH: /x\n", "variable 'PATH' cannot be set"),
        ("dependencies:\n- numpy\n- pip:\n  - six\n  - ${HOME}\n", r"environment.yml:5: .*\$\{…\}"),
        ("dependencies:\n- pip:\n  - git+ssh://x/y\n", "environment.yml:3: "),
        ("a: &a [x, x]\nb: &b [*a, *a]\ndependencies: *b\n", "environment.yml:[123]: has a dependency that is neither"),
        ("a: !!python/object/apply:os.system ['id']\n", "it names no dependencies"),
        ("- " * 3000, "is larger, or deeper, than any"),
        ("a:\n" + "".join(" " * n + "a:\n" for n in range(300)), "is larger, or deeper, than any"),
        ("# " + "x" * (1 << 18), "is larger, or deeper, than any"),
        ("dependencies: " + "[" * 3000 + "\n", "is larger, or deeper, than any"),
    ],
)
def test_what_is_no_environment(tmp_path: Path, text: str, words: str) -> None:
    try:
        said = reason(planned(tmp_path, text), "environment.yml")
    except DetectError as error:
        said = str(error)
    import re

    assert re.search(words, said), said


def test_a_pip_section_that_is_one_text(tmp_path: Path) -> None:
    index = Index()
    plan = planned(tmp_path, "dependencies:\n- pip: six\n", index=index)
    assert "six" in index.asked[0].requirements
    said = [each.reason for each in plan.decisions if each.file == "environment.yml"]
    assert "line 2: its pip section is a text, taken as the one requirement of a list" in said[0]
    with pytest.raises(DetectError, match=r"environment.yml:3: has a pip section that is one text: put a dash before"):
        planned(tmp_path, "dependencies:\n- numpy\n- pip: |\n    six\n    numpy\n")


@pytest.mark.parametrize(
    ("text", "export"),
    [
        ("dependencies: [numpy=1.26.4=py312h1_0, python=3.12.4=h1_0, scipy]\n", True),
        ("dependencies: [numpy=1.26.4, python=3.12.4, six=1.16]\nprefix: /x\n", True),
        ("dependencies: [numpy=1.26.4, python=3.12.4, six=1.16]\n", False),
        ("dependencies: [numpy=1.26.4, python, six]\nprefix: /x\n", False),
        ("dependencies: [" + ", ".join(f"p{n}=1.{n}" for n in range(90)) + "]\n", True),
        ("dependencies: [numpy=1.26.4=*_mkl, scipy, six]\n", False),
    ],
)
def test_an_export_is_known_by_its_look(tmp_path: Path, text: str, export: bool) -> None:
    conda = Conda()
    planned(tmp_path, text, conda)
    assert conda.asked[0].export is export


def test_r_brings_its_kernel(tmp_path: Path) -> None:
    conda = Conda(("r-base", "4.3.3", "h1_0"), ("r-irkernel", "1.3.2", "r43_0"))
    plan = planned(tmp_path, "dependencies: [r-base]\n", conda)
    assert conda.asked[0].extras == ("ipykernel", "pip", "r-irkernel")
    assert plan.labels["org.hpcbinder.kernels"] == "python3 ir"
    planned(tmp_path, "dependencies: [numpy]\n", conda)
    assert conda.asked[1].extras == ("ipykernel", "pip")


LISTED = "https://conda.anaconda.org/conda-forge/linux-64/numpy-1.26.4-py312h1_0.conda"


def test_an_explicit_list_goes_before_what_has_to_be_solved(tmp_path: Path) -> None:
    conda = Conda()
    text = f"# platform: linux-64\n@EXPLICIT\n{LISTED}#{'a' * 32}\n"
    files = {**FILES, "conda-linux-64.lock": text, "conda-linux-aarch64.lock": text}
    plan = plan_of(tmp_path, files, conda=conda, resolver=Index())
    assert conda.asked[0].exact == (f"{LISTED}#{'a' * 32}",)
    assert reason(plan, "conda-linux-64.lock").startswith("used: 2 conda packages")
    assert reason(plan, "environment.yml").startswith("not used: conda-linux-64.lock, which counts more")
    assert reason(plan, "conda-linux-aarch64.lock") == "not used: is for linux-aarch64, the image for linux-64"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "lists no packages"),
        ("@EXPLICIT\n", "lists no packages"),
        (f"{LISTED}#{'a' * 32}\n", "conda-linux-64.lock:1: .* comes before @EXPLICIT"),
        (f"@EXPLICIT\n{LISTED}\n", "conda-linux-64.lock:2: a package without a hash"),
        ("@EXPLICIT\nfile:///x-1-0.conda#" + "a" * 32, "conda-linux-64.lock:2: .* is no package's address"),
        ("@EXPLICIT\nhttps://u:p@x.org/a/noarch/x-1-0.conda#" + "a" * 32, "is no package's address"),
    ],
)
def test_what_is_no_explicit_list(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(DetectError, match=words):
        plan_of(tmp_path, {"conda-linux-64.lock": text}, conda=Conda(), resolver=Index())


def test_an_environment_without_python(tmp_path: Path) -> None:
    conda: Any = Conda()
    conda.packages = [("numpy", "1.26.4", "py312h1_0")]
    with pytest.raises(DetectError, match="has no python, which a notebook's kernel needs"):
        planned(tmp_path, "dependencies: [numpy]\n", conda)


def test_nothing_is_left_to_the_build(tmp_path: Path) -> None:
    with pytest.raises(DetectError, match="environment.yml: conda packages are found before the build"):
        plan_of(tmp_path, FILES)
