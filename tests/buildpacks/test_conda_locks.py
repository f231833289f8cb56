"""conda-lock.yml, pixi.lock and pixi.toml: what of them an image takes, and what of a hostile one is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from checkouts import plan_of, reason
from recorded_index import RecordedConda, RecordedResolver

from hpcbinder.errors import DetectError
from hpcbinder.model import Lock, Plan, WantedConda

CHANNEL = "https://conda.anaconda.org/conda-forge"
SHA256 = "0f3c1cd1c1a8a3e5d2b1f0e9c8d7a6b5f4e3d2c1b0a9f8e7d6c5b4a3f2e1d0c9"
MD5 = "a502d7aad449a1206efb366d6a12c52d"
PYTHON = f"{CHANNEL}/linux-64/python-3.11.9-hb806964_0_cpython.conda"
NUMPY = f"{CHANNEL}/linux-64/numpy-2.1.1-py311h64a7726_0.conda"
SIX = "https://files.pythonhosted.org/packages/d9/5a/six-1.16.0-py2.py3-none-any.whl"


class Conda(RecordedConda):
    """The recorded channels, with what they were asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[WantedConda] = []

    def __call__(self, wanted: WantedConda) -> tuple[Lock, tuple[str, ...]]:
        self.asked.append(wanted)
        return super().__call__(wanted)


def planned(folder: Path, **files: str) -> tuple[Plan, WantedConda, list[str]]:
    """The plan, what the channels were asked for, and what the index was asked for besides a kernel."""
    conda, index = Conda(), RecordedResolver()
    there = {name.replace("__", ".").replace("conda_", "conda-"): text for name, text in files.items()}
    plan = plan_of(folder, there, conda=conda, resolver=index)
    lines = index.asked[0].requirements if index.asked else ()
    return plan, conda.asked[0], [line for line in lines if line not in ("ipykernel", "pip")]


def entry(name: str, url: str, *, manager: str = "conda", platform: str = "linux-64", **more: Any) -> str:
    values = {"version": "1.16.0", "category": "main", "sha256": SHA256, **more}
    hashes = "".join(f"    {kind}: {values[kind]}\n" for kind in ("md5", "sha256") if values.get(kind))
    return (
        f"- name: {name}\n  version: {values['version']}\n  manager: {manager}\n  platform: {platform}\n"
        f"  dependencies:\n    python: '>=3'\n  url: {url}\n  hash:\n{hashes}"
        f"  category: {values['category']}\n  optional: false\n"
    )


def conda_lock(*entries: str, version: str = "1") -> str:
    metadata = "metadata:\n  content_hash:\n    linux-64: 1\n  sources:\n  - environment.yml\n"
    return f"# Made by conda-lock.\nversion: {version}\n{metadata}package:\n{''.join(entries)}"


BASIS = (entry("python", PYTHON), entry("numpy", NUMPY, md5=MD5, sha256=""))


def test_a_conda_lock_is_taken_for_the_images_platform(tmp_path: Path) -> None:
    others = (
        entry("python", PYTHON.replace("linux-64", "osx-64"), platform="osx-64"),
        entry("pytest", f"{CHANNEL}/noarch/pytest-8.0.0-pyhd8ed1ab_0.conda", category="tests"),
        entry("black", f"{CHANNEL}/noarch/black-24.1.0-pyhd8ed1ab_0.conda", category="dev"),
        entry("six", SIX, manager="pip"),
        entry("own", "https://example.org/own-1-py3-none-any.whl", manager="pip"),
        entry("tool", f"git+https://git.example.org/tool.git@{'a' * 40}", manager="pip"),
    )
    plan, wanted, lines = planned(tmp_path, conda_lock__yml=conda_lock(*BASIS, *others))
    black = f"{CHANNEL}/noarch/black-24.1.0-pyhd8ed1ab_0.conda"
    assert wanted.exact == (f"{PYTHON}#{SHA256}", f"{NUMPY}#{MD5}", f"{black}#{SHA256}")
    assert lines == [f"six==1.16.0 --hash=sha256:{SHA256}"]
    said = reason(plan, "conda-lock.yml")
    assert "with the categories main and dev, as conda-lock installs them; without category tests (1)" in said
    # What comes from a URL is built, as from a requirements file.
    assert any(step.name == "python/packages" for step in plan.steps)


def test_a_lock_goes_before_what_has_to_be_solved_if_it_is_for_the_platform(tmp_path: Path) -> None:
    environment = "dependencies: [pandas]\n"
    plan, _, _ = planned(tmp_path / "1", conda_lock__yml=conda_lock(*BASIS), environment__yml=environment)
    assert reason(plan, "environment.yml").startswith("not used: conda-lock.yml, which counts more")
    foreign = conda_lock(entry("python", PYTHON, platform="osx-64"))
    plan, wanted, _ = planned(tmp_path / "2", conda_lock__yml=foreign, environment__yml=environment)
    assert wanted.specs == ("pandas",)
    assert reason(plan, "conda-lock.yml") == "not used: has nothing for linux-64"
    with pytest.raises(DetectError, match="conda-lock.yml: has no packages for linux-64"):
        planned(tmp_path / "3", conda_lock__yml=foreign)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "conda-lock.yml: is version .none. of conda-lock's format"),
        (conda_lock(*BASIS, version="2"), "is version 2 of conda-lock's format; 1 can be read"),
        (conda_lock(entry("python", "file:///etc/passwd")), "conda-lock.yml:9: says not where python is"),
        (conda_lock(entry("python", PYTHON, sha256="")), "conda-lock.yml:9: says not where python is, or not its hash"),
        (conda_lock(entry("python", PYTHON, sha256="a" * 63)), "says not where python is, or not its hash"),
        (conda_lock(*BASIS, entry("six", SIX, manager="pip", sha256="")), "conda-lock.yml:31: has no SHA-256 of six"),
        (conda_lock(*BASIS, entry("--pre", SIX, manager="pip")), "'--pre' is not the name of a package"),
        (conda_lock(*BASIS, entry("six", SIX, manager="pip", version="1 --pre")), "is not a version of six"),
        (conda_lock(*BASIS, entry("x", "file:///x-1-py3-none-any.whl", manager="pip")), "outside the repository"),
        (conda_lock(*BASIS, entry("x", "git+ssh://git.example.org/x", manager="pip")), "conda-lock.yml:31: "),
        (conda_lock(*BASIS, entry("x", "https://[x/", manager="pip")), "takes x from an address that is none"),
        (conda_lock(*BASIS, entry("x", SIX, manager="cargo")), "neither conda's nor pip's"),
        (conda_lock("- platform: linux-64\n  manager: conda\n  url: &a x\n"), "says not where a package is"),
        (conda_lock("- platform: linux-64\n  manager: !!python/name:x\n"), "package of '', which is neither"),
        (conda_lock("- platform: linux-64\n  manager: " + "[" * 3000 + "\n"), "package of '', which is neither"),
        (conda_lock("- platform: linux-64\n  manager: " + "x" * 70_000 + "\n"), "neither conda's nor pip's"),
        (conda_lock(*(entry(f"p{n}", f"{CHANNEL}/noarch/p{n}-1-0.conda") for n in range(5001))), "more than 5000"),
    ],
    ids=range(17),
)
def test_what_is_no_conda_lock(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(DetectError, match=words):
        planned(tmp_path, conda_lock__yml=text)


def pixi_lock(*packages: tuple[str, str, str], version: str = "6", environment: str = "default") -> str:
    """A lock of (kind, address, more of its entry), all for linux-64."""
    listed = "".join(f"      - {kind}: {url}\n" for kind, url, _ in packages)
    entries = "".join(
        (f"- kind: {kind}\n  url: {url}\n" if version != "6" else f"- {kind}: {url}\n")
        + "".join(f"  {line}\n" for line in more.split("\n") if line)
        for kind, url, more in packages
    )
    return (
        f"version: {version}\nenvironments:\n  {environment}:\n    channels:\n    - url: {CHANNEL}/\n"
        f"    indexes:\n    - https://pypi.org/simple\n    packages:\n      linux-64:\n{listed}"
        f"      osx-arm64:\n      - conda: {PYTHON.replace('linux-64', 'osx-arm64')}\n"
        f"  test:\n    packages:\n      linux-64:\n      - conda: {CHANNEL}/noarch/pytest-8-0.conda\n"
        f"packages:\n{entries}- conda: {CHANNEL}/noarch/pytest-8-0.conda\n  sha256: {SHA256}\n"
    )


LOCKED = (("conda", PYTHON, f"sha256: {SHA256}\nmd5: {MD5}"), ("conda", NUMPY, f"md5: {MD5}"))
PYPI = ("pypi", SIX, f"name: six\nversion: 1.16.0\nsha256: {SHA256}\nrequires_python: '>=2.7'")


@pytest.mark.parametrize("version", ["4", "5", "6"])
def test_a_pixi_lock_is_taken_for_the_images_platform(tmp_path: Path, version: str) -> None:
    plan, wanted, lines = planned(tmp_path, pixi__lock=pixi_lock(*LOCKED, PYPI, version=version))
    assert wanted.exact == (f"{PYTHON}#{SHA256}", f"{NUMPY}#{MD5}")
    assert lines == [f"six==1.16.0 --hash=sha256:{SHA256}"]
    assert reason(plan, "pixi.lock").startswith("used: 2 conda packages, Python 3.11.9; environment default")


def test_a_pixi_lock_may_name_folders_and_commits(tmp_path: Path) -> None:
    commit = f"git+https://git.example.org/tool.git?rev=main#{'b' * 40}"
    more = (("pypi", "./", "name: own\nversion: 1\neditable: true"), ("pypi", commit, "name: tool\nversion: 2"))
    files = {"pyproject__toml": '[project]\nname = "own"\nversion = "1"\n[build-system]\nrequires = ["hatchling"]\n'}
    plan, _, _ = planned(tmp_path, pixi__lock=pixi_lock(*LOCKED, *more), **files)
    project = next(step for step in plan.steps if step.name == "python/project")
    assert project.data["targets"] == "editable\t.\t\n"
    built = next(step for step in plan.steps if step.name == "python/packages")
    assert f"tool @ git+https://git.example.org/tool.git@{'b' * 40}" in built.data["requirements.txt"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (pixi_lock(*LOCKED, version="3"), "is version 3 of pixi's lock format; 4, 5, 6 can be read"),
        (pixi_lock(*LOCKED, environment="paper"), "has no environment default .it has paper, test."),
        (pixi_lock(("conda", PYTHON, "")), "has no hash of"),
        (pixi_lock(("conda", "file:///x/noarch/x-1-0.conda", f"sha256: {SHA256}")), "which is no package of a channel"),
        (
            pixi_lock(*LOCKED).replace(f"- conda: {NUMPY}\n  md5", f"- conda: {NUMPY}x\n  md5"),
            "says nothing more of it",
        ),
        (pixi_lock(*LOCKED, ("pypi", SIX, "name: six\nversion: 1")), "has no SHA-256 of six"),
        (pixi_lock(*LOCKED, ("pypi", "git+ssh://x/y", "name: x")), "which is no commit of an https address"),
        (pixi_lock(*LOCKED, ("pypi", "../../other", "name: x")), "outside"),
        (pixi_lock(*LOCKED, ("pypi", "https://u:p@example.org/x-1-py3-none-any.whl", PYPI[2])), "credentials"),
        (pixi_lock(*LOCKED, ("cargo", "https://example.org/x", "name: x")), "no package of conda or PyPI"),
    ],
    ids=range(10),
)
def test_what_is_no_pixi_lock(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(DetectError, match=words):
        planned(tmp_path, pixi__lock=text)


WORKSPACE = '[workspace]\nchannels = ["conda-forge", {channel = "bioconda"}]\nplatforms = ["linux-64"]\n'


def test_a_pixi_workspace_is_its_default_environment(tmp_path: Path) -> None:
    text = f"""{WORKSPACE}
[dependencies]
python = "3.11.*"
numpy = {{version = ">=2", build = "py311*"}}
scipy = {{version = "*", channel = "testing"}}
[host-dependencies]
pandas = "2.2.3"
[target.linux-64.dependencies]
six = "*"
[target.osx-arm64.dependencies]
nothing = "*"
[pypi-dependencies]
iniconfig = ">=2"
tool = {{git = "https://git.example.org/tool.git", rev = "v1", subdirectory = "python", extras = ["more"]}}
[feature.plots]
channels = ["plots"]
[feature.plots.dependencies]
matplotlib = "*"
[feature.test.dependencies]
pytest = "*"
[environments]
default = {{features = ["plots"], solve-group = "one"}}
test = ["test"]
[activation.env]
MODE = "fast"
"""
    plan, wanted, lines = planned(tmp_path, pixi__toml=text)
    assert wanted.channels == ("plots", "conda-forge", "bioconda")
    assert sorted(wanted.specs) == [
        "matplotlib",
        "numpy >=2 py311*",
        "pandas 2.2.3",
        "python 3.11.*",
        "six",
        "testing::scipy",
    ]
    assert lines == ["iniconfig>=2"]
    built = next(step for step in plan.steps if step.name == "python/packages").data["requirements.txt"]
    assert "tool[more] @ git+https://git.example.org/tool.git@v1#subdirectory=python" in built
    assert plan.env["MODE"] == "fast"
    assert "environment default with plots; not test" in reason(plan, "pixi.toml")


def test_a_pyproject_may_be_a_pixi_workspace(tmp_path: Path) -> None:
    text = (
        '[project]\nname = "x"\nrequires-python = ">=3.11, <3.13"\ndependencies = ["six"]\n'
        f'{WORKSPACE.replace("[workspace]", "[tool.pixi.workspace]")}[tool.pixi.dependencies]\nnumpy = "*"\n'
    )
    plan, wanted, lines = planned(tmp_path / "1", pyproject__toml=text)
    assert wanted.specs == ("numpy", "python >=3.11,<3.13")
    assert lines == ["six"]
    # It is for those who work on the project, where something else says what the notebooks need.
    (tmp_path / "2").mkdir()
    files = {"pyproject.toml": text, "requirements.txt": "six\n", "pixi.lock": pixi_lock(*LOCKED)}
    plan = plan_of(tmp_path / "2", files, resolver=RecordedResolver())
    assert [lock.ecosystem for lock in plan.locks] == ["pypi"]
    decided = [each for each in plan.decisions if each.pack == "conda"]
    assert [(each.file, each.used) for each in decided] == [("pixi.lock", False), ("pyproject.toml", False)]
    assert "its [tool.pixi] does not count beside requirements.txt" in decided[1].reason


def test_a_pixi_lock_says_which_versions_of_its_workspace(tmp_path: Path) -> None:
    text = f'{WORKSPACE}[dependencies]\nnumpy = "*"\n[activation.env]\nMODE = "fast"\n'
    plan, wanted, _ = planned(tmp_path, pixi__toml=text, pixi__lock=pixi_lock(*LOCKED))
    assert wanted.exact and plan.env["MODE"] == "fast" and plan.asked["conda"] == ("numpy",)
    assert reason(plan, "pixi.toml") == "used: asks for 1 packages; pixi.lock says which versions"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('[workspace]\nplatforms = ["osx-64"]\n', "pixi.toml:2: is for osx-64, and the image for linux-64"),
        (f'{WORKSPACE}[dependencies]\nx = {{path = "x"}}\n', "pixi.toml:5: takes x by its path"),
        (f'{WORKSPACE}[dependencies]\nx = {{git = "https://x"}}\n', "pixi.toml:5: takes x by its git"),
        (f"{WORKSPACE}[dependencies]\nx = 1\ny = []\n", "pixi.toml:6: asks for y in a way that is no match spec"),
        (f'{WORKSPACE}[dependencies]\n"x y" = "*"\n', "pixi.toml:5: asks for x y"),
        (f'{WORKSPACE}[pypi-dependencies]\nx = {{index = "https://x"}}\n', "pixi.toml:5: takes x by its index"),
        (f'{WORKSPACE}[pypi-dependencies]\nx = {{path = "../x"}}\n', "outside"),
        (f'{WORKSPACE}[pypi-dependencies]\nx = {{git = "https://x/y", rev = "--a"}}\n', "a revision that can be none"),
        (f'{WORKSPACE}[environments]\ndefault = ["x"]\n', "pixi.toml:4: has no feature x"),
        (f'{WORKSPACE}[activation.env]\n"a b" = "1"\n', "pixi.toml:5: has a variable a b that can be none"),
        ('[workspace]\nchannels = [1]\nplatforms = ["linux-64"]\n', "pixi.toml:2: has a channel that can be none"),
        ("[workspace\n", "malformed TOML"),
    ],
    ids=range(12),
)
def test_what_is_no_pixi_workspace(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(DetectError, match=words):
        planned(tmp_path, pixi__toml=text)
