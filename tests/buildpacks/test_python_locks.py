"""The Python pack with versions that are found before the build: which steps there are, and what they get."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from checkouts import plan_of, reason, step
from recorded_index import RecordedResolver

from hpcbinder.errors import DetectError
from hpcbinder.model import Plan, to_json
from hpcbinder.plan import explain
from hpcbinder.plan.manifest import manifest

PROJECT = "[build-system]\nrequires = ['hatchling']\n[project]\nname = 'My.Tool'\nversion = '1'\n"


def python_steps(plan: Plan) -> list[str]:
    return [s.name.removeprefix("python/") for s in plan.steps if s.name.startswith("python/")]


def wheels(plan: Plan, name: str = "python/wheels") -> list[str]:
    return [line.split(" --hash=sha256:")[0] for line in step(plan, name).data["wheels.txt"].splitlines()]


def test_wheels_alone_need_one_step_that_runs_nothing(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, {"requirements.txt": "scipy>1"}, resolver=RecordedResolver())
    assert python_steps(plan) == ["environment", "wheels"]
    made = step(plan, "python/wheels")
    assert wheels(plan) == ["ipykernel==6.29.5", "numpy==2.1.1", "pip==24.2", "pyzmq==26.2.0", "scipy==1.14.1",
                            "traitlets==5.14.3"]  # fmt: skip
    assert all(line.count(" --hash=sha256:") == 1 for line in made.data["wheels.txt"].splitlines())
    assert made.reason == "unpacks 6 wheels: ipykernel, pip, scipy, numpy, pyzmq, traitlets"
    assert [cache.name for cache in made.caches] == ["uv"]
    assert not made.runs_repository_code
    assert json.loads(made.data["python.json"])[-1] == {"name": "traitlets", "version": "5.14.3"}
    assert [lock.packages for lock in plan.locks] != []


def test_the_plan_says_what_was_found(tmp_path: Path) -> None:
    text = "numpy\ndocopt"
    shown = explain(plan_of(tmp_path, {"requirements.txt": text}, resolver=RecordedResolver())).splitlines()
    at = shown.index("Versions")
    assert shown[at + 1 : at + 4] == [
        "  pypi: 5 wheels in 1 layer, resolved from the package index, for x86_64-manylinux_2_36, Python 3.11",
        "      ipykernel==6.29.5 numpy==2.1.1 pip==24.2 pyzmq==26.2.0 traitlets==5.14.3",
        "      without a wheel, and so built in the image's build: docopt",
    ]
    assert "Versions" not in explain(plan_of(tmp_path, {"requirements.txt": text})).splitlines()


def test_the_manifest_holds_the_lock_and_how_to_build_with_it(tmp_path: Path) -> None:
    files = {"requirements.txt": "numpy"}
    for resolver, words in ((RecordedResolver(), "build --locks manifest.json --ref"), (None, "build --ref")):
        plan = plan_of(tmp_path, files, resolver=resolver)
        values = json.loads(manifest(plan))
        assert values["locks"] == to_json(plan.locks)
        assert words in values["rebuild"]


def test_a_step_for_each_layer_that_knows_only_its_own_packages(tmp_path: Path) -> None:
    before = (("ipykernel", "pip", "pyzmq", "traitlets"), ("numpy",))
    plan = plan_of(tmp_path, {"requirements.txt": "scipy"}, resolver=RecordedResolver(before))
    assert python_steps(plan) == ["environment", "wheels", "wheels-2", "wheels-3"]
    assert wheels(plan, "python/wheels-2") == ["numpy==2.1.1"]
    assert wheels(plan, "python/wheels-3") == ["scipy==1.14.1"]
    assert step(plan, "python/wheels").apart == ()
    for name in ("python/wheels-2", "python/wheels-3"):
        assert step(plan, name).apart == ("/opt/env", "/opt/hpcbinder/packages")
    assert len(json.loads(step(plan, "python/wheels-2").data["python.json"])) == 5
    assert len(json.loads(step(plan, "python/wheels-3").data["python.json"])) == 6
    # What an environment made before has is the very same step.
    small = plan_of(tmp_path / "small", {"requirements.txt": "numpy"}, resolver=RecordedResolver(before))
    for name in ("python/wheels", "python/wheels-2"):
        assert vars(step(small, name)) == vars(step(plan, name))


def test_what_has_no_wheel_is_built_with_the_lock_as_limits(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, {"requirements.txt": "numpy\ndocopt==0.6.2"}, resolver=RecordedResolver())
    assert python_steps(plan) == ["environment", "wheels", "packages"]
    built = step(plan, "python/packages")
    assert built.reason == "installs what has to be built or comes from a URL: docopt"
    assert built.data["requirements.txt"] == "numpy\ndocopt==0.6.2\n"
    assert "numpy==2.1.1\n" in built.data["locked.txt"]
    assert built.runs_repository_code and not built.caches


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("git+https://example.org/numpy#egg=numpy", "numpy"),
        ("numpy @ https://example.org/numpy.zip", "numpy"),
        ("https://example.org/NumPy-3.0-py3-none-any.whl", "numpy"),
        ("--no-binary numpy", "numpy"),
    ],
)
def test_what_comes_from_a_url_is_not_taken_from_the_index(tmp_path: Path, line: str, name: str) -> None:
    resolver = RecordedResolver()
    plan = plan_of(tmp_path, {"requirements.txt": f"scipy\n{line}"}, resolver=resolver)
    assert resolver.asked[0].elsewhere == (name,)
    assert not any("http" in line for line in resolver.asked[0].requirements)
    assert name not in [line.split("==")[0] for line in wheels(plan)]
    assert name in step(plan, "python/packages").reason


def test_a_projects_dependencies_are_locked_and_it_is_not(tmp_path: Path) -> None:
    resolver = RecordedResolver()
    files = {"pyproject.toml": f"{PROJECT}dependencies = ['scipy']", "my_tool.py": ""}
    plan = plan_of(tmp_path, files, resolver=resolver)
    assert python_steps(plan) == ["environment", "wheels", "project"]
    assert "scipy==1.14.1" in wheels(plan)
    assert resolver.asked[0].elsewhere == ("my-tool",)
    assert step(plan, "python/project").data == {"targets": "plain\t.\t\n"}


def test_what_a_project_depends_on_dynamically_is_limited_by_the_lock(tmp_path: Path) -> None:
    files = {"setup.py": "", "requirements.txt": "numpy"}
    plan = plan_of(tmp_path, files, resolver=RecordedResolver())
    assert python_steps(plan) == ["environment", "wheels", "project"]
    data = step(plan, "python/project").data
    assert data["requirements.txt"] == "numpy\n"
    assert "numpy==2.1.1\n" in data["locked.txt"]


@pytest.mark.parametrize(
    "line",
    [
        "--extra-index-url https://example.org/simple",
        "--index-url https://example.org/simple",
        "--find-links https://example.org/",
        "--no-binary :all:",
    ],
)
def test_an_index_of_the_repositorys_own_is_never_asked_here_nor_with_the_sites_credentials(
    tmp_path: Path, line: str
) -> None:
    resolver = RecordedResolver()
    plan = plan_of(tmp_path, {"requirements.txt": f"{line}\nnumpy"}, resolver=resolver)
    assert resolver.asked == []
    assert plan.locks == ()
    for made in plan.steps:
        assert made.runs_repository_code or "index" not in made.data.get("wheels.txt", "")
    if "https" in line:
        assert python_steps(plan) == ["environment", "packages"]
        assert step(plan, "python/packages").data["requirements.txt"] == f"{line}\nnumpy\n"
        assert "so that the build finds the versions" in reason(plan, "requirements.txt")


def test_constraints_hashes_and_prereleases_are_asked_for(tmp_path: Path) -> None:
    digest = "0" * 64
    text = f"--pre\n-c limits.txt\nnumpy --hash=sha256:{digest}\nscipy; python_version < '3'"
    resolver = RecordedResolver()
    plan_of(tmp_path, {"requirements.txt": text, "limits.txt": "six<2\nfoo @ https://example.org/foo.zip"},
            resolver=resolver)  # fmt: skip
    (asked,) = resolver.asked
    assert asked.requirements[:2] == (f"numpy --hash=sha256:{digest}", 'scipy ; python_version < "3"')
    assert asked.requirements[2:] == ("ipykernel", "pip")
    assert asked.constraints == ("six<2", "ipykernel>=4.8")
    assert asked.elsewhere == ("foo",)
    assert asked.prereleases
    assert (asked.python, asked.suite, asked.architecture) == ("3.11.2", "bookworm", "amd64")


def test_a_conflict_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(DetectError, match=r"^requirements\.txt: no versions fit together: nothing was not found"):
        plan_of(tmp_path, {"requirements.txt": "nothing"}, resolver=RecordedResolver())
    with pytest.raises(DetectError, match=r"^pyproject\.toml: no versions fit together"):
        plan_of(tmp_path / "b", {"pyproject.toml": f"{PROJECT}dependencies = ['nothing']"}, resolver=RecordedResolver())


def test_the_plan_is_the_same_for_the_same_lock(tmp_path: Path) -> None:
    files = {"requirements.txt": "numpy"}
    first, second = (plan_of(tmp_path, files, resolver=RecordedResolver()) for _ in range(2))
    assert first.id == second.id
    other = plan_of(tmp_path, files, resolver=RecordedResolver((("numpy",),)))
    assert other.id != first.id
    assert plan_of(tmp_path, files).id != first.id
