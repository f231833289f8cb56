"""Versions as of a time, found with the real uv against an index that says when its files were uploaded."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import uv
from package_index import PackageIndex

from hpcbinder.config import SiteConfig, load
from hpcbinder.errors import DetectError, FetchError, OldMetadataError
from hpcbinder.lock import Resolver
from hpcbinder.lock.dated import Answered, find_dated, limits
from hpcbinder.lock.times import Uploaded, UploadTimes
from hpcbinder.model import Lock, Wanted
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
    as_of="2019-06-01T23:59:59Z",
)
BUILDING = Path(__file__).parents[2] / "buildpacks/python/building.sh"


@pytest.fixture
def resolver(package_index: PackageIndex, tmp_path: Path) -> Resolver:
    (tmp_path / "store").mkdir()
    site = SiteConfig(pip_index_url=package_index.url)
    return Resolver(tmp_path / "store", site, refresh=False, reporter=Silent(), cache=tmp_path / "cache")


Resolve = Callable[..., Lock]


@pytest.fixture
def resolve(resolver: Resolver) -> Resolve:
    return lambda *requirements, **changes: resolver(replace(WANTED, requirements=requirements, **changes))


def pins(lock: Lock) -> list[str]:
    return [f"{package.name}=={package.version}" for package in lock.packages]


@pytest.fixture
def index(package_index: PackageIndex) -> PackageIndex:
    """`top` 1 and 2, of 2019 and 2021, each with the `below` of its time."""
    for version, needs, day in (("1.0", "below", "2019-05-01"), ("2.0", "below>=2", "2021-05-01")):
        package_index.wheel("top", version, requires=[needs], uploaded=f"{day}T10:00:00Z")
        package_index.wheel("below", version, uploaded=f"{day}T11:00:00.123456Z")
        package_index.wheel("pip", version, uploaded=f"{day}T10:00:00Z")
    return package_index


def test_nothing_is_younger_than_the_date_but_pip(index: PackageIndex, resolve: Resolve) -> None:
    lock = resolve("top", "pip")
    assert pins(lock) == ["below==1.0", "pip==2.0", "top==1.0"]
    assert (lock.as_of, lock.note) == (WANTED.as_of, "")
    newest = resolve("top", "pip", as_of="")
    assert pins(newest) == ["below==2.0", "pip==2.0", "top==2.0"]
    assert (newest.as_of, newest.note) == ("", "")


@pytest.mark.parametrize("requirement", ["top==2.0", "top>=1.5"])
@pytest.mark.parametrize("exact", [False, True])
def test_what_is_required_in_a_younger_version_moves_the_date(
    index: PackageIndex, resolve: Resolve, requirement: str, exact: bool
) -> None:
    index.wheel("free", "1.0", uploaded="2021-05-02T00:00:00Z")
    index.wheel("free", "2.0", uploaded="2022-05-02T00:00:00Z")
    lock = resolve(requirement, "free", as_of_exact=exact)
    assert pins(lock) == ["below==2.0", "free==1.0", "top==2.0"]
    assert lock.as_of == "2021-05-08T23:59:59Z"
    assert lock.note == f"moved on from 2019-06-01, as {requirement} was not there before 2021-05-01"


def test_what_a_lock_pins_is_there_whatever_the_date(index: PackageIndex, resolve: Resolve) -> None:
    """Else uv would go back to the last version of all that depends on it that did not need it."""
    index.wheel("top", "0.1", uploaded="2015-05-01T10:00:00Z")
    lock = resolve("top", constraints=("below==2.0",))
    assert pins(lock) == ["below==2.0", "top==1.0"]
    assert (lock.as_of, lock.note) == (WANTED.as_of, "")


def test_where_none_of_that_time_fit_the_newest_are_taken_and_it_is_said(index: PackageIndex, resolve: Resolve) -> None:
    index.wheel("young", requires=["below"], uploaded="2022-05-02T00:00:00Z")
    lock = resolve("top", "young")
    assert pins(lock) == ["below==2.0", "top==2.0", "young==1.0"]
    assert lock.as_of == "" and lock.note.startswith("as of 2019-06-01 no versions fit together: ")
    with pytest.raises(DetectError, match=r"as of 2019-06-01 no versions fit together: there are no versions of young"):
        resolve("top", "young", as_of_exact=True)
    with pytest.raises(DetectError, match=r"^no versions fit together"):  # not the date's fault
        resolve("top==1.0", "below>=3")


def test_what_has_no_wheels_any_more_is_built_instead_of_taken_from_another_time(
    package_index: PackageIndex, resolve: Resolve
) -> None:
    package_index.wheel("quiet", "1.0", uploaded="2015-01-01T00:00:00Z")
    package_index.sdist("quiet", "2.0", uploaded="2015-06-01T00:00:00Z")
    package_index.wheel("gone", "1.0", uploaded="2015-01-01T00:00:00Z")
    package_index.sdist("gone", "2.0", uploaded="2018-01-01T00:00:00Z")
    package_index.wheel("gone", "3.0", uploaded="2020-01-01T00:00:00Z")
    package_index.wheel("compiled", "1.0", uploaded="2015-01-01T00:00:00Z")
    package_index.sdist("compiled", "2.0", uploaded="2018-01-01T00:00:00Z")
    package_index.wheel("compiled", "2.0", tag="cp311-cp311-win_amd64", uploaded="2018-01-01T00:00:00Z")
    package_index.wheel("top", "1.0", requires=["below"], uploaded="2015-01-01T00:00:00Z")
    package_index.wheel("below", "1.0", uploaded="2015-01-01T00:00:00Z")
    package_index.sdist("below", "2.0", uploaded="2018-01-01T00:00:00Z")
    lock = resolve("quiet", "gone", "compiled", "top")
    # What others depend on is not looked at.
    assert pins(lock) == ["below==1.0", "compiled==1.0", "quiet==1.0", "top==1.0"]
    assert lock.unresolved == ("gone",)
    assert pins(resolve("gone==1.0")) == pins(resolve("gone<2")) == ["gone==1.0"]
    assert pins(resolve("gone", constraints=("gone==1.0",))) == ["gone==1.0"]
    newest = resolve("gone", as_of="")
    assert (pins(newest), newest.unresolved) == (["gone==3.0"], ())


def test_an_index_without_times(package_index: PackageIndex, resolve: Resolve) -> None:
    package_index.wheel("top", requires=["below"], uploaded="")
    package_index.wheel("below", uploaded="")
    lock = resolve("top")
    assert pins(lock) == ["below==1.0", "top==1.0"]
    assert lock.as_of == ""
    assert lock.note == "the package index does not say when its files were uploaded: the newest versions"
    # What was kept of that is no answer to who insists on the date.
    with pytest.raises(DetectError, match=r"^versions as of 2019-06-01 cannot be told: the package index does not say"):
        resolve("top", as_of_exact=True)


def test_packages_without_times_among_others(index: PackageIndex, resolve: Resolve) -> None:
    for version in ("1.0", "2.0"):
        index.wheel("ours-site", version, requires=["ours-core"], uploaded="")
        index.wheel("ours-core", version, uploaded="")
    lock = resolve("top", "ours-site", as_of_exact=True)
    assert pins(lock) == ["below==1.0", "ours-core==2.0", "ours-site==2.0", "top==1.0"]
    assert lock.as_of == WANTED.as_of
    assert lock.note.endswith("the index does not say when it was uploaded: ours-core, ours-site")


def test_each_date_has_a_lock_of_its_own(index: PackageIndex, resolve: Resolve) -> None:
    first = resolve("top")
    assert pins(resolve("top", as_of="2022-01-01T00:00:00Z")) == ["below==2.0", "top==2.0"]
    asked = len(index.requests)
    assert resolve("top") == first
    assert len(index.requests) == asked
    assert len({resolve("top").inputs, resolve("top", as_of="").inputs}) == 2


def test_what_has_no_wheel_of_that_time_is_built(index: PackageIndex, resolve: Resolve) -> None:
    index.sdist("late", "1.0", uploaded="2019-01-01T00:00:00Z")
    index.wheel("late", "2.0", uploaded="2021-01-01T00:00:00Z")
    assert resolve("late", "top").unresolved == ("late",)


def test_pandas_of_old_is_not_built_from_an_even_older_source(index: PackageIndex, resolve: Resolve) -> None:
    """uv refuses the wheels of its time for their metadata: the last pip takes them (buildpacks/python/by_pip.py)."""
    index.sdist("pandas", "0.11.0", uploaded="2013-01-01T00:00:00Z")
    index.wheel("pandas", "1.0", uploaded="2020-01-01T00:00:00Z")
    with pytest.raises(OldMetadataError, match="pandas has invalid metadata"):
        resolve("pandas", python="3.7.16")
    assert resolve("pandas").unresolved == ("pandas",)


def constraints(resolver: Resolver, *requirements: str, **changes: Any) -> tuple[str, ...]:
    return resolver.constraints_as_of(replace(WANTED, requirements=requirements, python="3.6.15", **changes))


def test_constraints_stand_for_the_date_where_an_installer_knows_none(index: PackageIndex, resolver: Resolver) -> None:
    index.wheel("old", "0.24.2", requires=["pytz (>=2011k)", "below (>=0.5)"], uploaded="2019-03-01T00:00:00Z")
    index.wheel("old", "0.25.0rc1", uploaded="2019-05-01T00:00:00Z")
    index.wheel("old", "1.0", uploaded="2020-05-01T00:00:00Z")
    index.wheel("pytz", "2019.1", uploaded="2019-05-01T00:00:00Z")
    index.wheel("pytz", "2026.1", uploaded="2026-05-01T00:00:00Z")
    assert constraints(resolver, "old", "pip", "nowhere") == ("below<=1.0", "old<=0.24.2", "pytz<=2019.1")
    # A pin stays as it is, and so does what is only there later.
    assert constraints(resolver, "old==0.24.2") == ("below<=1.0", "pytz<=2019.1")
    assert constraints(resolver, "old", constraints=("old==0.24.2",)) == ("below<=1.0", "pytz<=2019.1")
    assert constraints(resolver, "top>=2", "old ; python_version > '3.8'") == ()
    assert constraints(resolver, "old", elsewhere=("below",)) == ("old<=0.24.2", "pytz<=2019.1")


def test_constraints_of_an_index_without_times(package_index: PackageIndex, resolver: Resolver) -> None:
    package_index.wheel("old", uploaded="")
    assert constraints(resolver, "old") == ()
    with pytest.raises(DetectError, match="cannot be told"):
        constraints(resolver, "old", as_of_exact=True)


HTML = b"""<!DOCTYPE html><html><body>
<a href="../../files/old-1.0-py3-none-any.whl#sha256=00" data-upload-time="2019-03-01T10:00:00.5Z"
   data-core-metadata="sha256=00" data-requires-python="&gt;=3.6">old-1.0-py3-none-any.whl</a><br>
<a href="https://elsewhere.example.org/old-0.9.tar.gz" data-yanked="broken">old-0.9.tar.gz</a>
<a>no file</a></body></html>"""


def test_pages_of_mirrors_that_write_html(package_index: PackageIndex) -> None:
    package_index.answer = lambda path: (200, HTML) if path == "/simple/old/" else None
    files = UploadTimes(package_index.url, SiteConfig()).of("old")
    root = package_index.url.removesuffix("/simple")
    assert files[:2] == (
        Uploaded(
            "old-1.0-py3-none-any.whl",
            "2019-03-01T10:00:00Z",
            ">=3.6",
            False,
            f"{root}/files/old-1.0-py3-none-any.whl.metadata",
        ),
        Uploaded("old-0.9.tar.gz", "", "", True, ""),
    )


@pytest.mark.parametrize("body", [b'{"files": [{}]}', b'{"files": 1}', b"[" * 100_000, b"{"])
def test_answers_that_are_no_list_of_files(package_index: PackageIndex, body: bytes) -> None:
    original = package_index.respond
    package_index.respond = (  # type: ignore[method-assign]
        lambda path, headers: (200, "application/json", body) if "old" in path else original(path, headers)
    )
    with pytest.raises(FetchError, match="no list of files"):
        UploadTimes(package_index.url, SiteConfig()).of("old")


def test_a_page_without_end_is_not_read(package_index: PackageIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hpcbinder.lock.times._PAGE", 1000)
    package_index.answer = lambda path: (200, b"x" * 3_000_000)
    with pytest.raises(FetchError, match="answers with more than"):
        UploadTimes(package_index.url, SiteConfig()).of("old")


def test_the_real_index_as_of_2020(tmp_path: Path) -> None:
    """h5py 3, which took `.value` away, is of November 2020; pandas 2 of 2023."""
    resolver = Resolver(tmp_path, load({}).site, refresh=False, reporter=Silent(), cache=tmp_path / "cache")
    wanted = replace(WANTED, requirements=("h5py", "pandas"), python="3.8.10", as_of="2020-10-01T23:59:59Z")
    lock = resolver(wanted)
    versions = {package.name: package.version for package in lock.packages}
    assert versions["h5py"].startswith("2.") and versions["pandas"].startswith("1."), lock.note


def test_builds_take_what_was_there_or_say_that_they_do_not(index: PackageIndex, tmp_path: Path) -> None:
    """What every step that builds begins with, run with the real uv."""
    functions = [line for line in BUILDING.read_text().splitlines() if not line.startswith("trap ")]
    (tmp_path / "building.sh").write_text("\n".join(functions))
    program = f"""
        set -eu
        uv={uv.find_uv_bin()} python={tmp_path}/env/bin/python
        "$uv" venv --quiet {tmp_path}/env
        . {tmp_path}/building.sh
        errors={tmp_path}/errors
        install "$@" || {{ cat "$errors" >&2; exit 1; }}
        "$uv" pip list --quiet --python "$python" --format=freeze
    """

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        environment = {
            "PATH": "/usr/bin:/bin",
            "HOME": str(tmp_path),
            "UV_DEFAULT_INDEX": index.url,
            "UV_NO_CACHE": "1",
            "UV_EXCLUDE_NEWER": WANTED.as_of,
            "HPCBINDER_UNDATED": "ipykernel pip",
        }
        done = subprocess.run(["sh", "-c", program, "sh", *arguments], env=environment, capture_output=True, text=True)
        shutil.rmtree(tmp_path / "env")
        return done

    done = run("top", "pip")
    assert done.stdout.split() == ["below==1.0", "pip==2.0", "top==1.0"], done.stderr
    index.wheel("timeless", uploaded="")
    done = run("timeless", "top")
    assert done.stdout.split() == ["below==2.0", "timeless==1.0", "top==2.0"]
    assert "taking the newest versions" in done.stderr
    assert run("nowhere").returncode == 1


@pytest.mark.parametrize("uploaded", ["2021-13-45T10:00:00Z", "9999-12-31T10:00:00Z"])
def test_a_day_that_is_none_moves_no_date(package_index: PackageIndex, uploaded: str) -> None:
    class Times(UploadTimes):
        def of(self, name: str) -> tuple[Uploaded, ...]:
            return (Uploaded(f"{name}-1.0.tar.gz", uploaded),)

    class Question:
        timeless: frozenset[str] = frozenset()

        def answer(self, as_of: str, free: Collection[str]) -> Answered:
            if as_of:
                raise DetectError("no versions fit together")
            return Answered((), frozenset(), frozenset())

    wanted = replace(WANTED, requirements=("odd>=1",))
    _, as_of, note = find_dated(Question(), wanted, Times(package_index.url, SiteConfig()))
    assert (as_of, note) == ("", "as of 2019-06-01 no versions fit together: the newest versions")


def told(index: PackageIndex, *requirements: str, metadata: str = "") -> tuple[str, ...]:
    """The constraints for `requirements`, of an index with numbers that Python does not read."""

    class Told(UploadTimes):
        def of(self, name: str) -> tuple[Uploaded, ...]:
            wheel = Uploaded(f"{name}-{'9' * 5000}-py3-none-any.whl", "2019-01-01T00:00:00Z")
            return (Uploaded(f"{name}-1.0.tar.gz", wheel.uploaded, f">={'9' * 5000}"), wheel)

        def metadata(self, file: Uploaded) -> str:
            return metadata

    return limits(replace(WANTED, requirements=requirements), Told(index.url, SiteConfig()))


def test_numbers_and_markers_that_nobody_can_compare(package_index: PackageIndex) -> None:
    assert told(package_index, "odd") == ("odd<=1.0",)
    assert told(package_index, f"odd=={'9' * 5000}") == ()
    needs = "Requires-Dist: other; os_name > 'a'\nRequires-Dist: more; extra == 'x' and nonsense ~= '1'\n"
    assert told(package_index, "odd", metadata=needs) == ("odd<=1.0",)
    assert told(package_index, "odd", 'more; platform_machine ~= "1"') == ("odd<=1.0",)
