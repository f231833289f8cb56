"""A repository with several recipes at once: which one counts, which Python it gets, and what is said of the others."""

from __future__ import annotations

from pathlib import Path

import pytest
from checkouts import checkout_of, fill, plan_of, reason
from locks import PROJECT, sha, uv_lock, uv_package, wheels

from hpcbinder.errors import DetectError, RegistryError
from hpcbinder.model import Plan, Python
from hpcbinder.plan import Foundation, bootstrapped, load_packs, make_plan

POETRY_LOCK = (
    '[[package]]\nname = "of-poetry"\nversion = "1"\npython-versions = "*"\n'
    f'files = [{{file = "of_poetry-1-py3-none-any.whl", hash = "{sha("a")}"}}]\n'
    '[metadata]\nlock-version = "2.1"\npython-versions = ">=3.9"\n'
)
PYLOCK = (
    'lock-version = "1.0"\n[[packages]]\nname = "of-pylock"\nversion = "1"\nindex = "https://pypi.org/simple"\n'
    f'wheels = [{{name = "of_pylock-1-py3-none-any.whl", hashes = {{sha256 = "{sha("a")[7:]}"}}}}]\n'
)
ALL = {
    "uv.lock": uv_lock(uv_package("of-uv"), root='dependencies = [{ name = "of-uv" }]'),
    "pylock.toml": PYLOCK,
    "poetry.lock": POETRY_LOCK,
    "Pipfile.lock": '{"default": {"of-pipenv": {"version": "==1"}}}',
    "Pipfile": "[packages]\nof-pipfile = '*'",
    "requirements.txt": "of-pip",
    "pyproject.toml": PROJECT + "[tool.poetry.dependencies]\nof-poetry = '*'",
    "hum/__init__.py": "",
}
WINNERS = ["uv.lock", "pylock.toml", "poetry.lock", "Pipfile.lock", "Pipfile", "requirements.txt"]


@pytest.mark.parametrize("number", range(len(WINNERS)))
def test_the_strongest_recipe_counts_alone_and_the_others_are_named(tmp_path: Path, number: int) -> None:
    winner, losers = WINNERS[number], WINNERS[number + 1 :]
    files = {name: text for name, text in ALL.items() if name not in WINNERS[:number]}
    plan = plan_of(tmp_path, files)
    assert reason(plan, winner).startswith("used: ")
    for loser in losers:
        said = reason(plan, loser)
        if (winner, loser) == ("Pipfile.lock", "Pipfile"):
            assert said == "not used: Pipfile.lock says which versions of it"
        else:
            assert said == f"not used: {winner}, which counts more, says what is installed"
    text = "".join(line for s in plan.steps for line in s.data.values())
    names = {"uv.lock": "of-uv", "pylock.toml": "of-pylock", "poetry.lock": "of-poetry"}
    assert [name for kind, name in names.items() if name in wheels(plan)] == [
        name for kind, name in names.items() if kind == winner
    ]
    assert ("of-pip\n" in text) == (winner == "requirements.txt")


def test_what_could_be_read_but_is_not_needed_is_not_read(tmp_path: Path) -> None:
    files = {
        **ALL,
        "poetry.lock": "[",
        "Pipfile": "[",
        "Pipfile.lock": "[",
        "requirements.txt": "\0",
        "pylock.toml": "[",
    }
    assert wheels(plan_of(tmp_path, files)) == {"of-uv": "1.0"}


def test_locks_of_the_root_do_not_count_beside_a_binder_folder(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, {**ALL, "binder/requirements.txt": "numpy"})
    assert not plan.locks
    for name in WINNERS:
        assert reason(plan, name) == "not used: there is a binder folder, so that config files count only there"
    assert reason(plan, "binder/requirements.txt") == "used: 1 requirement"


def test_a_lock_of_pdm_is_said_not_to_be_read(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, {"pdm.lock": "", "pyproject.toml": PROJECT, "hum/__init__.py": ""})
    assert reason(plan, "pdm.lock").startswith("not used: locks of PDM are not read; `pdm export")


def asked(**files: str) -> dict[str, str]:
    """Files by the names of the tests below."""
    names = {
        "runtime": "runtime.txt",
        "pyenv": ".python-version",
        "pipfile": "Pipfile",
        "pyproject": "pyproject.toml",
        "uv": "uv.lock",
    }
    return {names.get(name, name): text for name, text in files.items()}


def project(requires: str) -> str:
    return f"[project]\nname = 'x'\nrequires-python = '{requires}'\n"


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (asked(pyenv="3.13"), "3.13"),
        (asked(pyenv="3.13.1\n"), "3.13"),
        (asked(pyenv="cpython-3.13\n"), "3.13"),
        (asked(pyenv="cpython@3.13"), "3.13"),
        (asked(pyenv="python3.13"), "3.13"),
        (asked(pyenv="3.13-dev"), "3.13"),
        (asked(pyenv="# ours\n\n3.13 3.11\n3.12\n"), "3.13"),
        (asked(pyenv="3"), "3.11"),
        (asked(pyenv="my-environment\n"), "3.11"),
        (asked(pyenv="pypy3.9-7.3.9"), "3.11"),
        (asked(pyenv="3.13t"), "3.11"),
        (asked(pyenv=""), "3.11"),
        # The strongest counts.
        (asked(runtime="python-3.11", pyenv="3.13"), "3.11"),
        (asked(runtime="python-3.13", pipfile="[requires]\npython_version='3.11'"), "3.13"),
        (asked(pyenv="3.11", pipfile="[requires]\npython_version='3.13'"), "3.13"),
        (asked(pipfile="[requires]\npython_full_version='3.13.1'"), "3.13"),
        (asked(pipfile="[requires]\npython_version='*'"), "3.11"),
        (asked(pipfile="[requires]\npython_version='>=3.12'"), "3.11"),
        # A range chooses, and a .python-version gives way to it.
        (asked(pyenv="3.11", pyproject=project(">=3.12")), "3.13"),
        (asked(pyenv="3.12", pyproject=project(">=3.12")), "3.13"),
        (asked(uv=uv_lock(requires=">=3.12"), pyproject=PROJECT), "3.13"),
        (asked(pyproject="[tool.poetry]\npackage-mode = false\n[tool.poetry.dependencies]\npython = '^3.12'"), "3.13"),
        ({"setup.py": "", "setup.cfg": "[options]\npython_requires = >=3.12 \n"}, "3.13"),
        ({"setup.py": "setup(python_requires = '>=3.12')"}, "3.13"),
        ({"setup.py": "setup(python_requires = REQUIRES)"}, "3.11"),
    ],
)
def test_which_python(tmp_path: Path, files: dict[str, str], expected: str) -> None:
    assert plan_of(tmp_path, files).python.version == expected


def test_what_is_said_of_the_files_that_ask_for_a_python(tmp_path: Path) -> None:
    plan = plan_of(tmp_path / "a", asked(pyenv="3.13.9"))
    assert reason(plan, ".python-version") == "used: Python 3.13: the base has its own patch release, not 3.13.9"
    plan = plan_of(tmp_path / "b", asked(pyenv="3.13.5", runtime="python-3.13"))
    assert reason(plan, ".python-version") == "used: Python 3.13, as runtime.txt says"
    plan = plan_of(tmp_path / "c", asked(pyenv="3.11", runtime="python-3.13"))
    assert reason(plan, ".python-version") == "not used: runtime.txt, which counts more, asks for Python 3.13"
    plan = plan_of(tmp_path / "d", asked(pyenv="system"))
    assert reason(plan, ".python-version") == "not used: 'system' is the name of no CPython"
    plan = plan_of(tmp_path / "e", asked(pyenv="3.12.1", pyproject=project(">=3.10")))
    assert reason(plan, ".python-version") == (
        "not used: asks for Python 3.12.1, which no base has; pyproject.toml:3 allows 3.11"
    )
    plan = plan_of(tmp_path / "f", asked(runtime="python-3.11", pipfile="[requires]\npython_version='3.13'"))
    assert reason(plan, "Pipfile") == (
        "used: 0 requirements; asks for Python 3.13, but runtime.txt, which counts more, for 3.11"
    )
    plan = plan_of(tmp_path / "g", {"binder/apt.txt": "", ".python-version": "3.13"})
    assert reason(plan, ".python-version").startswith("not used: there is a binder folder")


def test_a_version_that_only_a_registry_has_gives_way_where_there_is_no_way_to_it(tmp_path: Path) -> None:
    """With a .python-version and a range that allows another; what else asks for it must have it."""

    def stand(python: Python, architecture: str) -> Foundation:
        if python.origin == "image":
            raise RegistryError("no way to the registry", where="docker.io")
        return bootstrapped(python, architecture)

    def planned(name: str, **files: str) -> Plan:
        folder = fill(tmp_path / name, asked(**files))
        twelve = Python("3.12", "3.12.99", "bookworm", "image", "/usr/local/bin/python3.12", "python:3.12-slim")
        packs = load_packs()
        return make_plan(
            checkout_of(folder), packs=packs, suite="bookworm", architecture="amd64", pythons=[twelve], stand=stand
        )

    plan = planned("a", pyenv="3.12", pyproject=project(">=3.11"))
    assert plan.python.version == "3.11"
    assert reason(plan, ".python-version") == (
        "not used: Python 3.12 cannot be had (no way to the registry); pyproject.toml:3 allows 3.11"
    )
    for name, files in (("b", {"pyenv": "3.12"}), ("c", {"runtime": "python-3.12", "pyproject": project(">=3.11")})):
        with pytest.raises(RegistryError):
            planned(name, **files)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (
            asked(pyenv="3.12.1"),
            r"^\.python-version:1: asks for Python 3\.12, which no base has \(there is Python 3\.11",
        ),
        (asked(pyenv="# x\n2.7\n"), r"^\.python-version:2: asks for Python 2\.7, which no base has"),
        (asked(pyenv="3.12", pyproject=project("<3.10")), r"^\.python-version:1: asks for Python 3\.12"),
        (
            asked(pipfile="[requires]\npython_version='3.8'"),
            r"^Pipfile: asks for Python 3\.8, which no base has",
        ),
        (
            asked(runtime="python-3.11", uv=uv_lock(requires=">=3.12"), pyproject=PROJECT),
            r"^uv\.lock:2: needs Python >=3\.12, but runtime\.txt asks for 3\.11",
        ),
        (asked(uv=uv_lock(requires="three"), pyproject=PROJECT), r"^uv\.lock:2: 'three' is not a range of versions"),
        (
            {"setup.py": "", "setup.cfg": "[options]\npython_requires = <3.5\n"},
            r"^setup\.cfg:2: needs Python <3\.5, which no base has",
        ),
    ],
)
def test_a_python_that_cannot_be(tmp_path: Path, files: dict[str, str], message: str) -> None:
    with pytest.raises(DetectError, match=message):
        plan_of(tmp_path, files)
