"""Whether names mean anything to an index, asked of the real uv and of the index itself."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from package_index import PackageIndex

from hpcbinder.config import SiteConfig
from hpcbinder.errors import FetchError
from hpcbinder.lock import Resolver
from hpcbinder.model import Wanted
from hpcbinder.progress import Silent

WANTED = Wanted(
    ecosystem="pypi",
    requirements=(),
    constraints=(),
    elsewhere=(),
    prereleases=False,
    python="3.11.2",
    architecture="amd64",
    suite="bookworm",
    source="https://git.example.org/a#",
)


def resolver(index: PackageIndex, tmp_path: Path, *, refresh: bool = False) -> Resolver:
    (tmp_path / "store").mkdir(exist_ok=True)
    site = SiteConfig(pip_index_url=index.url)
    return Resolver(tmp_path / "store", site, refresh=refresh, reporter=Silent(), cache=tmp_path / "cache")


def known(
    index: PackageIndex, tmp_path: Path, *requirements: str, as_of: str = "", python: str = "3.11.2", built: bool = True
) -> set[str]:
    wanted = replace(WANTED, requirements=requirements, as_of=as_of, python=python)
    return set(resolver(index, tmp_path).known(wanted, built=built))


def test_what_is_not_there(package_index: PackageIndex, tmp_path: Path) -> None:
    package_index.wheel("here", requires=["nowhere"])
    package_index.wheel("other-name", "2.0")
    package_index.sdist("to-build")
    asked = ("here", "absent", "Other_Name", "other-name[extra]", "here==9", "to-build", "gone", "here>=1")
    # Neither what a package depends on nor what is asked for beside it counts.
    assert known(package_index, tmp_path, *asked) == {"here", "Other_Name", "other-name[extra]", "to-build", "here>=1"}
    assert known(package_index, tmp_path) == set()
    assert known(package_index, tmp_path, "here", "to-build", built=False) == {"here"}
    assert known(package_index, tmp_path, "to-build", python="2.7.18", built=False) == set()


@pytest.mark.parametrize("python", ["3.11.2", "2.7.18"])
def test_what_was_not_there_then(package_index: PackageIndex, tmp_path: Path, python: str) -> None:
    package_index.wheel("old", tag="py2.py3-none-any", uploaded="2015-01-01T00:00:00Z")
    package_index.wheel("young", tag="py2.py3-none-any", uploaded="2020-01-01T00:00:00Z")
    package_index.wheel("timeless", tag="py2.py3-none-any", uploaded="")
    then = {"as_of": "2017-01-01T00:00:00Z", "python": python}
    assert known(package_index, tmp_path, "old", "young", "absent", **then) == {"old"}
    assert "timeless" in known(package_index, tmp_path, "timeless", "absent", **then)


def test_what_was_found_before_needs_no_index(package_index: PackageIndex, tmp_path: Path) -> None:
    package_index.wheel("here", "1.5")
    resolver(package_index, tmp_path)(replace(WANTED, requirements=("here",)))
    package_index.answer = lambda path: (403, b"no")
    package_index.requests.clear()
    assert known(package_index, tmp_path, "here", "here>=1") == {"here", "here>=1"} and not package_index.requests
    # Of the rest nothing is known then; where nothing was found before, that is an error.
    assert known(package_index, tmp_path, "here", "here>=9") == {"here"}
    with pytest.raises(FetchError):
        resolver(package_index, tmp_path).known(replace(WANTED, requirements=("here",), source="another"), built=True)
