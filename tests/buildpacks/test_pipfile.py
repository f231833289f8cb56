"""Pipfile and Pipfile.lock: what repo2docker has pipenv install."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from checkouts import plan_of, reason, step
from locks import PROJECT, built, sha

from hpcbinder.errors import DetectError
from hpcbinder.model import Plan

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def dependencies(plan: Plan) -> list[str]:
    return step(plan, "python/packages").data["requirements.txt"].splitlines()


def test_packages_and_dev_packages_are_wanted(tmp_path: Path) -> None:
    pipfile = """
[packages]
numpy = "*"
six = ">=1.15,<2"
attrs = "23.2.0"
requests = {extras = ["socks"], version = "*"}
win = {version = "*", sys_platform = "== 'win32'", markers = "python_version > '3'"}
[dev-packages]
pytest = "*"
[requires]
python_version = "3.13"
[scripts]
run = "touch canary"
"""
    plan = plan_of(tmp_path, {"Pipfile": pipfile, "requirements.txt": "pandas", "pyproject.toml": PROJECT})
    assert dependencies(plan) == [
        "numpy",
        "six<2,>=1.15",
        "attrs==23.2.0",
        "requests[socks]",
        'win ; python_version > "3" and sys_platform == "win32"',
        "pytest",
    ]
    assert plan.base.python == "3.13"
    assert reason(plan, "Pipfile") == "used: 6 requirements; with its dev-packages, as repo2docker does"
    assert reason(plan, "requirements.txt") == "not used: Pipfile, which counts more, says what is installed"
    assert reason(plan, "pyproject.toml") == "not used: Pipfile, which says what is installed, does not name it"


def test_what_comes_from_elsewhere(tmp_path: Path) -> None:
    pipfile = """
[packages]
here = {path = ".", editable = true, extras = ["plots"]}
git = {git = "https://example.org/git.git", ref = "v1", subdirectory = "sub", extras = ["x"]}
file = {file = "https://example.org/file-1.zip"}
wheel = {path = "./dist/wheel-1-py3-none-any.whl"}
"""
    project = PROJECT.replace(
        "[build-system]", "[project.optional-dependencies]\nplots = ['matplotlib']\n[build-system]"
    )
    files = {"Pipfile": pipfile, "pyproject.toml": project, "hum.py": "", "dist/wheel-1-py3-none-any.whl": ""}
    plan = plan_of(tmp_path, files)
    assert dependencies(plan) == [
        "git[x] @ git+https://example.org/git.git@v1#subdirectory=sub",
        "file @ https://example.org/file-1.zip",
        "matplotlib",
    ]
    targets = step(plan, "python/project").data["targets"]
    assert targets == "editable\t.\t[plots]\nplain\tdist/wheel-1-py3-none-any.whl\t\n"


def test_paths_in_a_binder_folder_are_below_it(tmp_path: Path) -> None:
    files = {"binder/Pipfile": '[packages]\nx = {path = "./x"}', "binder/x/setup.py": "", "Pipfile": "["}
    assert step(plan_of(tmp_path, files), "python/project").data["targets"] == "plain\tbinder/x\t\n"


@pytest.mark.parametrize(
    ("sources", "options"),
    [
        ("", []),
        ("[[source]]\nname = 'pypi'\nurl = 'https://pypi.python.org/simple/'", []),
        ("[[source]]\nname = 'x'\nurl = 'https://x.example.org/simple'", ["--index-url https://x.example.org/simple"]),
        (
            "[[source]]\nname = 'pypi'\nurl = 'https://pypi.org/simple'\n[[source]]\nurl = 'https://x.example.org/'",
            ["--extra-index-url https://x.example.org/"],
        ),
    ],
)
def test_sources(tmp_path: Path, sources: str, options: list[str]) -> None:
    plan = plan_of(tmp_path, {"Pipfile": f"{sources}\n[packages]\nsix = '*'\n"})
    assert dependencies(plan) == [*options, "six"]


@pytest.mark.parametrize(
    ("pipfile", "message"),
    [
        ("[packages", r":1: malformed TOML"),
        ("packages = 3", r":1: \[packages\] is not a table"),
        ("[packages]\nsix = 3", r":2: six is neither a text nor a table"),
        ("[packages]\n'six; x' = '*'", r":2: is not a requirement"),
        ("[packages]\n'./x' = '*'", r":2: \./x is not the name of a package"),
        ("[packages]\nsix = '>=1; touch x'", r":2: is not a requirement"),
        ("[packages]\nsix = '==${HOME}'", r":2: has \$\{…\}"),
        ("[packages]\nsix = {path = '../x'}", r":2: names \.\./x, which is outside the repository"),
        ("[packages]\nsix = {path = '/x'}", r":2: names /x, which is outside"),
        ("[packages]\nsix = {file = 'http://x.org/six.whl'}", r":2: has a URL of the kind 'http'"),
        ("[packages]\nsix = {git = 'ssh://x.org/six'}", r":2: has a URL of the kind 'git\+ssh'"),
        ("[packages]\nsix = {git = 'https://x.org/six', ref = '--upload-pack=x'}", r":2: has a URL whose revision"),
        ("[[source]]\nurl = 'https://$USER:$PASS@x.org/simple'", r":2: has credentials in a URL"),
        ("[[source]]\nurl = 'https://x.org/${TOKEN}'", r":2: has \$\{…\}"),
        ("[[source]]\nurl = 'http://x.org/simple'", r":2: has a URL of the kind 'http'"),
        ("[[source]]\nname = 'x'", r":1: a \[\[source\]\] without a URL"),
        ("[requires]\npython_version = '3.7'", r": asks for Python 3\.7, which no base has"),
    ],
)
def test_a_pipfile_that_says_what_cannot_be(tmp_path: Path, pipfile: str, message: str) -> None:
    with pytest.raises(DetectError, match=rf"^Pipfile{message}"):
        plan_of(tmp_path, {"Pipfile": pipfile})


def lock(default: dict[str, Any], develop: dict[str, Any] | None = None, **meta: Any) -> str:
    sources = [
        {"name": "pypi", "url": "https://pypi.org/simple", "verify_ssl": True},
        {"name": "other", "url": "https://other.example.org/simple", "verify_ssl": True},
    ]
    return json.dumps({"_meta": {"sources": sources, **meta}, "default": default, "develop": develop or {}}, indent=1)


SIX = {"six": {"version": "==1.17.0", "hashes": [sha("a"), sha("b")], "index": "pypi"}}


def test_a_lock_counts_alone_and_leaves_to_the_index_which_files_are_wheels(tmp_path: Path) -> None:
    default = {
        **SIX,
        "windows": {"version": "==1", "hashes": [sha("c")], "markers": "sys_platform == 'win32'"},
        "any": {"version": "*"},
    }
    develop = {"six": SIX["six"], "pytest": {"version": "==8.0", "hashes": [sha("d")], "markers": "python_version>'3'"}}
    plan = plan_of(tmp_path, {"Pipfile.lock": lock(default, develop), "Pipfile": "[packages]\nsix = '*'"})
    assert built(plan) == ["any", f"pytest==8.0 --hash={sha('d')}", f"six==1.17.0 --hash={sha('a')} --hash={sha('b')}"]
    said = reason(plan, "Pipfile.lock")
    assert said.startswith("used: 3 packages; with its develop packages, as repo2docker does; older than Pipfile")
    assert reason(plan, "Pipfile") == "not used: Pipfile.lock says which versions of it"


def test_what_a_lock_takes_from_elsewhere(tmp_path: Path) -> None:
    default = {
        "git": {"git": "https://example.org/git", "ref": COMMIT, "subdirectory": "sub"},
        "here": {"path": ".", "editable": True},
        "url": {"file": "https://example.org/url-1.zip", "hashes": [sha("e")]},
        "indexed": {"version": "==1", "hashes": [sha("f")], "index": "other"},
    }
    plan = plan_of(tmp_path, {"Pipfile.lock": lock(default), "setup.py": ""})
    assert built(plan) == [
        "--extra-index-url https://other.example.org/simple",
        f"git @ git+https://example.org/git@{COMMIT}#subdirectory=sub",
        f"indexed==1 --hash={sha('f')}",
        f"url @ https://example.org/url-1.zip --hash={sha('e')}",
    ]
    project = step(plan, "python/project")
    assert project.data["targets"] == "editable\t.\t\n"
    assert "requirements.txt" not in project.data


def test_a_locks_python_counts_before_the_pipfiles(tmp_path: Path) -> None:
    files = {
        "Pipfile": "[requires]\npython_version = '3.11'",
        "Pipfile.lock": lock({}, requires={"python_version": "3.13"}),
    }
    assert plan_of(tmp_path, files).base.python == "3.13"
    assert plan_of(tmp_path, {"Pipfile.lock": lock({})}, suite="trixie").base.python == "3.11"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", r":1: malformed JSON: expecting property name"),
        ('{\n"a": }', r":2: malformed JSON"),
        ("[" * 100_000, r": malformed JSON: nested too deep"),
        ("[]", r": is no lock of pipenv"),
        ('{"default": []}', r": holds something else where a table belongs"),
        (lock({"six": 3}), r":\d+: holds something else|^Pipfile\.lock: holds something else"),
        (lock({"six;": {}}), r": 'six;' is not the name of a package"),
        (lock({"six": {"version": "==1\n--index-url=x"}}), r":\d+: '1.*' is not a version of six"),
        (lock({"six": {"version": ">=1"}}), r":\d+: '>=1' is not a version of six"),
        (lock({"six": {"git": "https://x.org", "ref": "main"}}), r":\d+: locks six to 'main', which is no full git"),
        (lock({"six": {"path": "../x"}}), r":\d+: names \.\./x, which is outside the repository"),
        (lock({"six": {"file": "file:///etc/passwd"}}), r":\d+: "),
        (lock({"six": {"version": "==1", "markers": "x ="}}), r":\d+: '\(x =\)' is not a marker"),
    ],
)
def test_a_lock_that_says_what_cannot_be(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DetectError, match=rf"^Pipfile\.lock{message}"):
        plan_of(tmp_path, {"Pipfile.lock": text})
