"""The Python pack: which Python, what a project is and depends on, and what its installation reads."""

from __future__ import annotations

from pathlib import Path

import pytest
from checkouts import fill, plan_of, reason, step

from hpcbinder.errors import DetectError
from hpcbinder.model import Plan

PYPROJECT = """
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "My.Tool"
version = "1"
requires-python = ">=3.9"
dependencies = ["numpy>=1.20", "scipy ; python_version > '3'"]
[project.optional-dependencies]
plots = ["matplotlib"]
all = ["my-tool[plots]"]
"""


def dependencies(plan: Plan) -> list[str]:
    return step(plan, "python/packages").data["requirements.txt"].splitlines()


@pytest.mark.parametrize(
    ("files", "suite", "expected"),
    [
        ({}, "bookworm", "3.11"),
        ({}, "trixie", "3.13"),
        ({"runtime.txt": "python-3.13\n"}, "bookworm", "3.13"),
        ({"runtime.txt": "python-3.11"}, "trixie", "3.11"),
        ({"runtime.txt": " python-3.11.5 \n"}, "trixie", "3.11"),
        ({"runtime.txt": "python-3"}, "trixie", "3.13"),
        ({"runtime.txt": ""}, "bookworm", "3.11"),
        ({"pyproject.toml": "[project]\nname='x'\nrequires-python='>=3.12'"}, "bookworm", "3.13"),
        ({"pyproject.toml": "[project]\nname='x'\nrequires-python='<3.13'"}, "trixie", "3.11"),
        ({"pyproject.toml": "[project]\nname='x'\nrequires-python='>=3.8'"}, "trixie", "3.13"),
        # bookworm has 3.11.2.
        ({"pyproject.toml": "[project]\nname='x'\nrequires-python='>=3.11.4'"}, "bookworm", "3.13"),
        (
            {
                "requirements.txt": "./a\n./b",
                "a/pyproject.toml": "[project]\nname='a'\nrequires-python='>=3.9'",
                "b/pyproject.toml": "[project]\nname='b'\nrequires-python='>=3.12'",
            },
            "bookworm",
            "3.13",
        ),
    ],
)
def test_which_python(tmp_path: Path, files: dict[str, str], suite: str, expected: str) -> None:
    assert plan_of(tmp_path, files, suite=suite).base.python == expected


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (
            {"runtime.txt": "python-3.7"},
            r"^runtime\.txt:1: asks for Python 3\.7, which no base has \(there is Python 3\.11 \(Debian bookworm\) or ",
        ),
        ({"runtime.txt": "python-2"}, r"^runtime\.txt:1: asks for Python 2.7, which"),
        ({"runtime.txt": "python-3.11; touch canary"}, r"^runtime\.txt:1: 'python-3\.11; touch canary' is no version"),
        ({"runtime.txt": "python-3.11\npython-3.13"}, r"^runtime\.txt:1: 'python-3\.11' is no version"),
        ({"runtime.txt": "3.11"}, r"^runtime\.txt:1: '3\.11' is no version.*write python-X\.Y"),
        (
            {"pyproject.toml": "[project]\nname='x'\nrequires-python='<3.10'"},
            r"^pyproject\.toml:3: needs Python <3\.10, which no base has",
        ),
        (
            {"pyproject.toml": "[project]\nname='x'\nrequires-python='>=3.12'", "runtime.txt": "python-3.11"},
            r"^pyproject\.toml:3: needs Python >=3\.12, but runtime\.txt asks for 3\.11",
        ),
        (
            {"pyproject.toml": "[project]\nrequires-python='three'"},
            r"^pyproject\.toml:2: requires-python 'three' is not",
        ),
        ({"pyproject.toml": "[project]\nrequires-python=3"}, r"^pyproject\.toml:2: requires-python is not a string"),
        (
            {
                "requirements.txt": "./a\n./b",
                "a/pyproject.toml": "[project]\nname='a'\nrequires-python='<3.12'",
                "b/pyproject.toml": "[project]\nname='b'\nrequires-python='>=3.12'",
            },
            r"^b/pyproject\.toml:3: needs Python >=3\.12, but another project of the repository needs another",
        ),
    ],
)
def test_a_python_that_no_base_has(tmp_path: Path, files: dict[str, str], message: str) -> None:
    with pytest.raises(DetectError, match=message):
        plan_of(tmp_path, files)


def test_a_projects_dependencies_are_a_layer_below_the_project(tmp_path: Path) -> None:
    plan = plan_of(
        tmp_path, {"pyproject.toml": PYPROJECT, "my_tool/__init__.py": "", "a.ipynb": "{}", "sub/b.ipynb": ""}
    )
    assert dependencies(plan) == ["numpy>=1.20", 'scipy ; python_version > "3"']
    project = step(plan, "python/project")
    assert project.data == {"targets": "plain\t.\t\n"}
    assert project.reads == ("my_tool/__init__.py", "pyproject.toml")
    assert project.reason == "installs My.Tool"
    assert reason(plan, "pyproject.toml") == "used: is installed; 2 dependencies"


def test_a_requirements_file_and_a_project_come_together(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, {"pyproject.toml": PYPROJECT, "requirements.txt": "numpy>=1.20\npandas", "x": ""})
    assert dependencies(plan) == ["numpy>=1.20", "pandas", 'scipy ; python_version > "3"']


def test_extras_are_dependencies_too(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, {"pyproject.toml": PYPROJECT, "requirements.txt": "-e .[plots]"})
    assert "matplotlib" in dependencies(plan)
    assert step(plan, "python/project").data["targets"] == "editable\t.\t[plots]\n"
    assert step(plan, "python/project").into_repo
    # What an extra of itself comes to, only the build can tell.
    plan = plan_of(tmp_path, {"requirements.txt": ".[all]"})
    assert "requirements.txt" in step(plan, "python/project").data
    with pytest.raises(DetectError, match=r"^requirements\.txt:1: asks for the extra 'none'"):
        plan_of(tmp_path, {"requirements.txt": ".[none]"})


def test_setup_py_is_never_run_here_and_its_dependencies_wait_for_the_build(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    plan = plan_of(tmp_path / "repo", {"setup.py": f"open({str(canary)!r}, 'w')", "requirements.txt": "numpy"})
    assert not canary.exists()
    project = step(plan, "python/project")
    # The repository's pins hold for it as well.
    assert project.data["requirements.txt"] == "numpy\n"
    assert project.runs_repository_code and not project.caches


def test_dependencies_that_setuptools_reads_from_a_file_are_known(tmp_path: Path) -> None:
    files = {
        "pyproject.toml": "[build-system]\nrequires = ['setuptools']\n"
        "[project]\nname = 'x'\ndynamic = ['dependencies']\n"
        "[tool.setuptools.dynamic]\ndependencies = {file = ['deps.txt']}\n",
        "deps.txt": "numpy\n",
    }
    plan = plan_of(tmp_path, files)
    assert dependencies(plan) == ["numpy"]
    assert "requirements.txt" not in step(plan, "python/project").data
    assert reason(plan, "deps.txt") == "used: 1 dependencies of x"


@pytest.mark.parametrize(
    ("files", "installed"),
    [
        ({"x/__init__.py": ""}, True),
        ({"src/anything/__init__.py": ""}, True),
        ({"x.py": ""}, True),
        ({"setup.py": ""}, True),
        ({"analysis.ipynb": "", "data/__init__.py": ""}, False),
    ],
)
def test_without_a_build_system_only_what_looks_like_a_package_is_installed(
    tmp_path: Path, files: dict[str, str], installed: bool
) -> None:
    plan = plan_of(tmp_path, {"pyproject.toml": "[project]\nname='x'\ndependencies=['numpy']", **files})
    assert dependencies(plan) == ["numpy"]
    assert [s.name for s in plan.steps if s.name == "python/project"] == (["python/project"] if installed else [])
    assert ("no package of its name" in reason(plan, "pyproject.toml")) is not installed


@pytest.mark.parametrize("text", ["[tool.black]\nline-length = 100", "", "[build-system]\nrequires = []"])
def test_settings_of_tools_are_no_project(tmp_path: Path, text: str) -> None:
    plan = plan_of(tmp_path, {"pyproject.toml": text, "a.py": ""})
    assert reason(plan, "pyproject.toml").startswith("not used: describes no project")
    assert not [s for s in plan.steps if s.name == "python/project"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[project\nname = 'x'", r":1: malformed TOML: expected ']'"),
        ("[project]\nname = 'x'\nname = 'y'", r":3: malformed TOML"),
        ("project = 3", r":1: \[project\] is not a table"),
        ("[project]\nname='x'\ndependencies = 'numpy'", r":3: dependencies is not a list"),
        ("[project]\nname='x'\ndependencies = [3]", r":3: dependencies is not a list"),
        ("[project]\nname='x'\ndependencies = [\n 'num py']", r":4: is not a requirement"),
        ("[project]\nname='x'\ndependencies = ['${X}']", r":3: a dependency with control characters or"),
        ("[project]\nname='x'\ndependencies = ['a @ http://example.org/a.whl']", r":3: has a URL of the kind 'http'"),
        ("[project]\nname='x'\ndependencies = ['a @ file:b']", r":3: a dependency that is a path"),
        ("[project]\nname='x'\noptional-dependencies = 3", r":3: optional-dependencies is not a table"),
        ("[project]\nname='x'\ndynamic = ['dependencies']", r": has no \[build-system\]"),
        ("a = " + "[" * 100_000, r": malformed TOML"),
        ("a\0b", r":1: has a NUL byte"),
    ],
)
def test_a_pyproject_that_says_what_cannot_be(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DetectError, match=rf"^pyproject\.toml{message}"):
        plan_of(tmp_path, {"pyproject.toml": text})


@pytest.mark.parametrize(
    ("files", "packages"),
    [
        ({"setup.py": "Extension('x', ['x.c'])", "x.c": ""}, "build-essential\npython3-dev\n"),
        ({"setup.py": "cythonize('x.pyx')", "x.pyx": ""}, "build-essential\npython3-dev\n"),
        (
            {"setup.py": "from numpy.distutils.core import setup", "f.F90": ""},
            "build-essential\ngfortran\npython3-dev\n",
        ),
        (
            {"pyproject.toml": "[project]\nname='x'\n[build-system]\nrequires=['meson-python>=0.1']", "src/x.cpp": ""},
            "build-essential\npython3-dev\n",
        ),
        ({"setup.py": "setup()", "exercises/x.c": ""}, None),
        ({"setup.py": "Extension('x', ['x.c'])"}, None),
    ],
)
def test_what_must_be_compiled_gets_a_compiler(tmp_path: Path, files: dict[str, str], packages: str | None) -> None:
    plan = plan_of(tmp_path, files)
    assert [s.data["packages"] for s in plan.steps if s.name == "apt/install"] == ([packages] if packages else [])


def test_packages_of_several_packs_are_installed_in_one_step(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, {"setup.py": "cythonize('x.pyx')", "x.pyx": "", "apt.txt": "sox\nbuild-essential"})
    apt = step(plan, "apt/install")
    assert apt.data["packages"] == "build-essential\npython3-dev\nsox\n"
    assert apt.reason == "Debian packages (apt.txt; the repository's project has C, C++ or Cython sources)"


def test_versions_that_git_tags_would_tell(tmp_path: Path) -> None:
    files = {"pyproject.toml": "[build-system]\nrequires = ['setuptools', 'setuptools_scm']\n[project]\nname='x'\n"}
    plan = plan_of(tmp_path, files)
    assert step(plan, "python/project").env["SETUPTOOLS_SCM_PRETEND_VERSION"] == "0.0.0"
    assert "its version is 0.0.0" in reason(plan, "pyproject.toml")


def test_large_files_are_data_unless_they_lie_in_a_package(tmp_path: Path) -> None:
    fill(tmp_path, {"setup.py": "", "pkg/__init__.py": "", "pkg/sub/x": "", "data/y": "", "z": ""})
    for name in ("pkg/sub/x", "data/y", "z"):
        with (tmp_path / name).open("r+b") as file:
            file.truncate((16 << 20) + 1)
    assert step(plan_of(tmp_path, tree="a" * 40), "python/project").reads == (
        "pkg/__init__.py",
        "pkg/sub/x",
        "setup.py",
    )


def test_projects_and_wheels_inside_the_repository(tmp_path: Path) -> None:
    files = {
        "requirements.txt": "./libs/one\n-e libs/two\nwheels/x-1-py3-none-any.whl",
        "libs/one/setup.py": "",
        "libs/two/pyproject.toml": PYPROJECT,
        "wheels/x-1-py3-none-any.whl": "",
        "other.py": "",
    }
    plan = plan_of(tmp_path, files)
    project = step(plan, "python/project")
    assert project.data["targets"].splitlines() == [
        "plain\tlibs/one\t",
        "editable\tlibs/two\t",
        "plain\twheels/x-1-py3-none-any.whl\t",
    ]
    assert project.reads == ("libs/one/setup.py", "libs/two/pyproject.toml", "wheels/x-1-py3-none-any.whl")
    with pytest.raises(DetectError, match=r"^requirements\.txt:1: libs holds neither pyproject\.toml nor setup\.py"):
        plan_of(tmp_path, {"requirements.txt": "./libs"})


def test_a_project_asked_for_twice_is_installed_once(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, {"pyproject.toml": PYPROJECT, "requirements.txt": ".\n-e .[plots]"})
    assert step(plan, "python/project").data["targets"] == "editable\t.\t[plots]\n"


def test_ignored_files_are_no_part_of_a_project(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, {"setup.py": "", ".dockerignore": "data", "data/x.py": "", "y.py": ""})
    assert step(plan, "python/project").reads == (".dockerignore", "setup.py", "y.py")
