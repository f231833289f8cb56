"""From a repository whose code is years older than its README to versions of that time, by the command line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from package_index import PackageIndex, serving

COMMITS = (("2023-08-05T10:00:00Z", {"fit.ipynb": "{}", "requirements.txt": "top\n"}), ("2025-05-05T10:00:00Z", {}))
LABEL = "org.hpcbinder.as-of"


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("git") / "repository"
    folder.mkdir()
    identity = ["-c", "user.name=A", "-c", "user.email=a@example.org"]
    subprocess.run(["git", "init", "--quiet", "--initial-branch=main"], cwd=folder, check=True)
    for date, files in COMMITS:
        for name, text in {"README.md": date, **files}.items():
            (folder / name).write_text(text)
        environment = {**os.environ, "GIT_AUTHOR_DATE": date, "GIT_COMMITTER_DATE": date}
        for arguments in (["add", "--all"], ["commit", "--quiet", "--message", "x"]):
            subprocess.run(["git", *identity, *arguments], cwd=folder, env=environment, check=True)
    return f"file://{folder}"


@pytest.fixture(scope="module")
def index() -> Iterator[PackageIndex]:
    with serving(PackageIndex()) as index:
        index.ours()
        for version, day in (("1.0", "2023-05-01"), ("2.0", "2024-05-01"), ("3.0", "2026-01-01")):
            index.wheel("top", version, uploaded=f"{day}T10:00:00Z")
        yield index


Hpcbinder = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def hpcbinder(index: PackageIndex, tmp_path: Path) -> Hpcbinder:
    (tmp_path / "store").mkdir()
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("HPCBINDER_")},
        "HPCBINDER_SITE_PIP_INDEX_URL": index.url,
        "HPCBINDER_STORE_PATH": str(tmp_path / "store"),
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
        "XDG_CONFIG_HOME": str(tmp_path / "config"),
    }

    def hpcbinder(*arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
        argv = [sys.executable, "-m", "hpcbinder", *arguments]
        return subprocess.run(argv, env={**environment, **more}, capture_output=True, text=True, check=False)

    return hpcbinder


def planned(hpcbinder: Hpcbinder, *arguments: str, **more: str) -> dict[str, Any]:
    done = hpcbinder("plan", "--json", *arguments, **more)
    assert done.returncode == 0, done.stderr
    plan: dict[str, Any] = json.loads(done.stdout)
    return plan


def version(plan: dict[str, Any]) -> str:
    return str(next(package["version"] for package in plan["locks"][0]["packages"] if package["name"] == "top"))


def test_versions_are_those_of_the_notebooks_time(url: str, hpcbinder: Hpcbinder) -> None:
    plan = planned(hpcbinder, url)
    assert version(plan) == "1.0"
    assert plan["as_of"]["date"] == plan["labels"][LABEL] == plan["locks"][0]["as_of"] == "2023-08-05T23:59:59Z"
    assert ".ipynb in " in plan["as_of"]["reason"]
    newest = planned(hpcbinder, url, "--as-of", "now")
    assert version(newest) == "3.0"
    assert LABEL not in newest["labels"] and newest["id"] != plan["id"]
    assert version(planned(hpcbinder, url, "--as-of", "2024-12-24")) == "2.0"
    # A site may have it otherwise, and a person has the last word.
    assert version(planned(hpcbinder, url, HPCBINDER_BUILD_AS_OF_AGE="99999d")) == "3.0"
    assert version(planned(hpcbinder, url, "--as-of", "commit", HPCBINDER_BUILD_AS_OF="now")) == "1.0"


def test_an_image_is_made_again_as_of_its_date(url: str, hpcbinder: Hpcbinder, tmp_path: Path) -> None:
    plan = planned(hpcbinder, url)
    (tmp_path / "manifest.json").write_text(json.dumps({"locks": plan["locks"]}))
    again = planned(hpcbinder, url, "--locks", str(tmp_path / "manifest.json"), "--as-of", plan["as_of"]["date"])
    assert (again["id"], again["locks"]) == (plan["id"], plan["locks"])
    # A lock that is given counts more than a date that nobody named.
    newest = planned(hpcbinder, url, "--as-of", "now")
    (tmp_path / "newest.json").write_text(json.dumps({"locks": newest["locks"]}))
    assert planned(hpcbinder, url, "--locks", str(tmp_path / "newest.json"))["locks"] == newest["locks"]


def test_a_date_that_is_none(url: str, hpcbinder: Hpcbinder) -> None:
    done = hpcbinder("plan", url, "--as-of", "last year")
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        "hpcbinder: --as-of must be commit, now, YYYY-MM-DD or a time as in RFC 3339, not 'last year'"
    ]
