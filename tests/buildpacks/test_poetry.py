"""poetry: its notation for versions, its tables without a lock, and poetry.lock."""

from __future__ import annotations

from pathlib import Path

import pytest
from checkouts import plan_of, reason, step
from hypothesis import given
from hypothesis import strategies as st
from locks import built, sha, wheels
from packaging.markers import Marker
from packaging.version import Version

from hpcbinder.buildpacks.python.poetry import parse_constraint, python_marker
from hpcbinder.errors import DetectError
from hpcbinder.model import Plan

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.mark.parametrize(
    ("text", "specifiers"),
    [
        # poetry's documentation, "Dependency specification".
        ("^1.2.3", ["<2,>=1.2.3"]),
        ("^1.2", ["<2,>=1.2"]),
        ("^1", ["<2,>=1"]),
        ("^0.2.3", ["<0.3,>=0.2.3"]),
        ("^0.0.3", ["<0.0.4,>=0.0.3"]),
        ("^0.0", ["<0.1,>=0.0"]),
        ("^0", ["<1,>=0"]),
        ("~1.2.3", ["<1.3,>=1.2.3"]),
        ("~1.2", ["<1.3,>=1.2"]),
        ("~1", ["<2,>=1"]),
        ("*", [""]),
        ("1.*", ["==1.*"]),
        ("1.2.x", ["==1.2.*"]),
        ("!=1.2.*", ["!=1.2.*"]),
        (">=1.2,<2", ["<2,>=1.2"]),
        (">= 1.2  < 2", ["<2,>=1.2"]),
        ("== 1.2.3", ["==1.2.3"]),
        ("1.2.3", ["==1.2.3"]),
        ("~=1.2.3", ["~=1.2.3"]),
        ("^2.7 || ^3.6", ["<3,>=2.7", "<4,>=3.6"]),
        ("^1.0a1", ["<2,>=1.0a1"]),
    ],
)
def test_a_constraint_in_pep_440s_terms(text: str, specifiers: list[str]) -> None:
    found = parse_constraint(text, "x")
    assert [",".join(sorted(str(s) for s in alternative)) for alternative in found.alternatives] == specifiers


@pytest.mark.parametrize(
    "text", ["", ",", "one", "^", "^*", ">=1; touch x", "1" * 2000, "==1.2.3.*.4", "git+https://x"]
)
def test_what_is_no_constraint(text: str) -> None:
    if text in ("", ","):
        assert parse_constraint(text, "x").allows("1")
        return
    with pytest.raises(DetectError, match="^x: '.*' is not a version constraint of poetry"):
        parse_constraint(text, "x")


RELEASES = st.lists(st.integers(0, 20), min_size=1, max_size=4)


@given(RELEASES, RELEASES)
def test_a_caret_allows_what_changes_no_part_left_of_the_first_that_is_not_zero(
    base: list[int], other: list[int]
) -> None:
    text, version = ".".join(map(str, base)), ".".join(map(str, other))
    at = next((number for number, part in enumerate(base) if part), len(base) - 1)
    padded = [*other, 0, 0, 0, 0]
    same = padded[: at + 1] == base[: at + 1]
    assert parse_constraint(f"^{text}", "x").allows(version) == (Version(version) >= Version(text) and same)


@given(RELEASES, RELEASES)
def test_a_tilde_allows_what_changes_only_what_is_behind_the_second_part(base: list[int], other: list[int]) -> None:
    text, version = ".".join(map(str, base)), ".".join(map(str, other))
    kept = base[:2] if len(base) > 1 else base
    same = [*other, 0, 0][: len(kept)] == kept
    assert parse_constraint(f"~{text}", "x").allows(version) == (Version(version) >= Version(text) and same)


@given(st.sampled_from(["^3.9", "~3.11", ">=3.8,<3.12 || ^3.13", "3.11.*", "!=3.12.1", "3.12.4"]), st.integers(8, 14))
def test_a_constraint_on_python_is_the_same_as_a_marker(text: str, minor: int) -> None:
    constraint = parse_constraint(text, "x")
    for version in (f"3.{minor}.1", f"3.{minor}.4"):
        environment = {"python_full_version": version, "python_version": f"3.{minor}"}
        assert Marker(python_marker(constraint)).evaluate(environment) == constraint.allows(version)


PROJECT = """[tool.poetry]
name = "hum"
version = "1"
{more}
[tool.poetry.dependencies]
python = "^3.10"
{dependencies}
"""


def pyproject(dependencies: str = "", more: str = "package-mode = false") -> str:
    return PROJECT.format(dependencies=dependencies, more=more)


def wanted(plan: Plan) -> list[str]:
    return step(plan, "python/packages").data["requirements.txt"].splitlines()


def test_a_project_that_is_no_package_has_dependencies_all_the_same(tmp_path: Path) -> None:
    project = pyproject("""
six = "^1.15"
numpy = [{version = "1.26.4", python = "<3.12"}, {version = ">=2.1", python = "^3.12"}]
requests = {version = "*", extras = ["socks"], markers = "sys_platform == 'linux'"}
never = {version = "*", optional = true}
git = {git = "https://example.org/git.git", tag = "v1", subdirectory = "x"}
url = {url = "https://example.org/url-1.zip"}
part = {path = "./part", develop = true}
[tool.poetry.group.notebooks.dependencies]
jupyter = "*"
[tool.poetry.group.dev.dependencies]
pytest = "*"
[tool.poetry.group.docs]
optional = true
[tool.poetry.group.docs.dependencies]
sphinx = "*"
[[tool.poetry.source]]
name = "other"
url = "https://index.example.org/simple"
""")
    plan = plan_of(tmp_path, {"pyproject.toml": project, "part/setup.py": ""})
    assert wanted(plan) == [
        "--extra-index-url https://index.example.org/simple",
        "six<2,>=1.15",
        'numpy==1.26.4 ; python_full_version < "3.12"',
        'numpy>=2.1 ; python_full_version < "4" and python_full_version >= "3.12"',
        'requests[socks] ; sys_platform == "linux"',
        "git @ git+https://example.org/git.git@v1#subdirectory=x",
        "url @ https://example.org/url-1.zip",
        "jupyter",
    ]
    assert step(plan, "python/project").data["targets"] == "editable\tpart\t\n"
    assert reason(plan, "pyproject.toml").startswith(
        "used: is no package (package-mode): its dependencies are installed"
    )


def test_a_package_of_poetrys_is_installed_with_its_dependencies_below_it(tmp_path: Path) -> None:
    more = "[tool.poetry.extras]\nfast = ['zipp']\n[build-system]\nrequires = ['poetry-core']"
    project = pyproject('six = "^1.15"\nzipp = {version = "*", optional = true}\n' + more, more="")
    plan = plan_of(tmp_path / "a", {"pyproject.toml": project, "hum/__init__.py": ""})
    assert wanted(plan) == ["six<2,>=1.15"]
    assert step(plan, "python/project").data["targets"] == "plain\t.\t\n"
    plan = plan_of(
        tmp_path / "b", {"pyproject.toml": project, "src/hum/__init__.py": "", "requirements.txt": ".[fast]"}
    )
    assert wanted(plan) == ["six<2,>=1.15", "zipp"]
    # poetry would have nothing to build.
    plan = plan_of(tmp_path / "c", {"pyproject.toml": project, "a.ipynb": ""})
    assert not [s for s in plan.steps if s.name == "python/project"]


def test_lists_of_the_project_table_go_before_poetrys(tmp_path: Path) -> None:
    project = """[project]
name = "hum"
dependencies = ["six>=1.15", "git"]
requires-python = ">=3.12"
[tool.poetry]
package-mode = false
[tool.poetry.dependencies]
git = {git = "https://example.org/git.git"}
[dependency-groups]
notebooks = ["jupyter"]
dev = ["pytest"]
"""
    plan = plan_of(tmp_path, {"pyproject.toml": project})
    assert wanted(plan) == ["six>=1.15", "git @ git+https://example.org/git.git", "jupyter"]
    assert plan.base.python == "3.13"


@pytest.mark.parametrize(
    ("dependencies", "message"),
    [
        ('six = ">=1; touch x"', r":7: '>=1; touch x' is not a version constraint of poetry"),
        ('six = "^1 || ^2"', r":7: six has alternatives .* \(lock it: poetry lock\)"),
        ("six = 3", r":7: the dependency six is neither a text nor a table"),
        ('"six; x" = "*"', r":7: 'six; x' is not the name of a package"),
        ('six = {path = "../../etc"}', r":7: names \.\./\.\./etc, which is outside the repository"),
        ('six = {git = "ssh://x.org/six"}', r":7: has a URL of the kind 'git\+ssh'"),
        ('six = {url = "file:///etc/passwd"}', r":7: names ///etc/passwd, which is outside"),
        ('six = {version = "*", markers = "os ="}', r":7: is not a requirement"),
        ('[[tool.poetry.source]]\nname = "x"\nurl = "https://me:pw@x.org/"', r":9: has credentials in a URL"),
        ('[tool.poetry.group.dev.dependencies]\nx = "*"\n[project]\nname = 3\ndependencies = ["x y"]', r":11: "),
    ],
)
def test_poetry_tables_that_say_what_cannot_be(tmp_path: Path, dependencies: str, message: str) -> None:
    with pytest.raises(DetectError, match=rf"^pyproject\.toml{message}"):
        plan_of(tmp_path, {"pyproject.toml": pyproject(dependencies)})


def package(name: str, version: str = "1.0", *, more: str = "", below: str = "", file: str = "") -> str:
    wheel = file or f"{name}-{version}-py3-none-any.whl"
    return (
        f'[[package]]\nname = "{name}"\nversion = "{version}"\npython-versions = ">=3.6"\n'
        f'files = [{{file = "{wheel}", hash = "{sha("a")}"}}]\n{more}\n[package.dependencies]\n{below}\n'
    )


def lock(*packages: str, python: str = "^3.10", version: str = "2.1") -> str:
    return "".join(packages) + f'[metadata]\nlock-version = "{version}"\npython-versions = "{python}"\n'


def locked(tmp_path: Path, text: str, dependencies: str, suite: str = "bookworm") -> Plan:
    return plan_of(tmp_path, {"poetry.lock": text, "pyproject.toml": pyproject(dependencies)}, suite=suite)


def test_a_lock_is_followed_from_the_project(tmp_path: Path) -> None:
    text = lock(
        package("six", below='Below-It = ">=1"\nwindows = {version = "*", markers = "sys_platform == \'win32\'"}'),
        package("below-it"),
        package("requests", below='pysocks = {version = "*", optional = true, markers = "extra == \'socks\'"}')
        + '[package.extras]\nsocks = ["PySocks (>=1.5)"]\n',
        package("pysocks"),
        package("unreached"),
        package("in-dev"),
        package("in-docs"),
        package("never", more="optional = true"),
    )
    dependencies = """six = "*"
requests = {version = "*", extras = ["socks"]}
never = {version = "*", optional = true}
[tool.poetry.group.docs.dependencies]
in-docs = "*"
[tool.poetry.group.dev.dependencies]
in-dev = "*"
"""
    plan = locked(tmp_path, text, dependencies)
    assert set(wheels(plan)) == {"six", "below-it", "requests", "pysocks", "in-docs"}
    assert reason(plan, "poetry.lock").startswith("used: 5 packages; with the group docs; older than pyproject.toml")


def test_one_of_several_versions_is_for_this_interpreter(tmp_path: Path) -> None:
    text = lock(
        package("numpy", "1.0", more='markers = "python_version < \\"3.12\\""'),
        package("numpy", "2.0", more='markers = {main = "python_version >= \\"3.12\\"", dev = "os_name == \\"nt\\""}'),
        package("scipy", "1.0", below='numpy = [{version = "<2", python = "<3.12"}, {version = ">=2"}]'),
    )
    dependencies = "numpy = [{version = '^1', python = '<3.12'}, {version = '^2', python = '>=3.12'}]"
    assert wheels(locked(tmp_path, text, dependencies)) == {"numpy": "1.0"}
    assert wheels(locked(tmp_path, text, dependencies, "trixie")) == {"numpy": "2.0"}


def test_older_formats_list_files_by_name(tmp_path: Path) -> None:
    body = '[[package]]\nname = "{0}"\nversion = "{1}"\ncategory = "main"\npython-versions = "{2}"\n'
    text = (
        body.format("six", "1.0", "*")
        + body.format("numpy", "1.2", "<3.12")
        + body.format("numpy", "1.22", ">=3.12")
        + '[metadata]\nlock-version = "1.1"\npython-versions = "*"\n[metadata.files]\n'
        + f'six = [{{file = "six-1.0-py3-none-any.whl", hash = "{sha("a")}"}}]\n'
        + f'numpy = [{{file = "numpy-1.2-py3-none-any.whl", hash = "{sha("b")}"}},'
        + f'{{file = "numpy-1.22-py3-none-any.whl", hash = "{sha("c")}"}}]\n'
    )
    plan = locked(tmp_path, text, 'six = "*"\nnumpy = "*"')
    assert {p.name: p.hashes for p in plan.locks[0].packages} == {"six": (sha("a"),), "numpy": (sha("b"),)}


def test_what_a_lock_takes_from_elsewhere(tmp_path: Path) -> None:
    def source(kind: str, url: str, more: str = "") -> str:
        return f'[package.source]\ntype = "{kind}"\nurl = "{url}"\n{more}\n'

    text = lock(
        package("git") + source("git", "https://example.org/git.git", f'resolved_reference = "{COMMIT}"'),
        package("url", file="url-1.zip") + source("url", "https://example.org/url-1.zip"),
        package("other") + source("legacy", "https://index.example.org/simple", 'reference = "x"'),
        package("part", more="develop = true") + source("directory", "part"),
        package("six") + source("legacy", "https://pypi.org/simple", 'reference = "y"'),
        package("sdist", file="sdist-1.0.tar.gz"),
    )
    dependencies = "".join(f'{name} = "*"\n' for name in ("git", "url", "other", "part", "six", "sdist"))
    files = {"poetry.lock": text, "pyproject.toml": pyproject(dependencies), "part/setup.py": ""}
    plan = plan_of(tmp_path, files)
    assert set(wheels(plan)) == {"six"}
    assert built(plan) == [
        "--extra-index-url https://index.example.org/simple",
        f"git @ git+https://example.org/git.git@{COMMIT}",
        f"other==1.0 --hash={sha('a')}",
        f"sdist==1.0 --hash={sha('a')}",
        f"url @ https://example.org/url-1.zip --hash={sha('a')}",
    ]
    assert step(plan, "python/project").data["targets"] == "editable\tpart\t\n"


def test_a_lock_needs_its_project(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, {"poetry.lock": lock(package("six"))})
    assert not plan.locks
    assert reason(plan, "poetry.lock") == "not used: there is no pyproject.toml that it could be the lock of"


def test_a_dependency_newer_than_the_lock_is_named(tmp_path: Path) -> None:
    plan = locked(tmp_path, lock(package("six")), 'six = "*"\nnew = "*"')
    assert "older than pyproject.toml (new): used as it is; `poetry lock` makes it anew" in reason(plan, "poetry.lock")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r": is version \(none\) of poetry's lock format"),
        (lock(version="3.0"), r": is version 3\.0 of poetry's lock format"),
        (lock(package("six; x")), r": 'six; x' is not the name of a package"),
        (lock(package("six", "1 --hash=x")), r":2: '1 --hash=x' is not a version of six"),
        (lock(package("six"), package("six", "2")), r":2: locks several versions of six for one Python"),
        (lock(package("six", below='gone = "*"')), r":2: six depends on gone, which it does not lock"),
        (lock(package("six", below='x = "!!"')), r":2: '!!' is not a version constraint of poetry"),
        (
            lock(package("six") + '[package.source]\ntype = "directory"\nurl = "../x"\n'),
            r":2: names \.\./x, which is out",
        ),
        (lock(package("six") + '[package.source]\ntype = "git"\nurl = "https://x.org"\n'), r":2: locks six to ''"),
        (lock(package("six") + '[package.source]\ntype = "hg"\nurl = "x"\n'), r":2: takes six from a place of a kind"),
        (lock(python="three"), r":3: 'three' is not a version constraint of poetry"),
        (lock(python="^3.14"), r":3: needs Python \^3\.14, which no base has"),
    ],
)
def test_a_lock_that_says_what_cannot_be(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DetectError, match=rf"^poetry\.lock{message}"):
        locked(tmp_path, text, 'six = "*"')
