"""pylock.toml (PEP 751): what an installer without extras would install."""

from __future__ import annotations

from pathlib import Path

import pytest
from checkouts import plan_of, reason, step
from locks import PROJECT, built, sha, wheels

from hpcbinder.errors import DetectError
from hpcbinder.model import Plan

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def pylock(*packages: str, head: str = "") -> str:
    bodies = "".join(f"\n[[packages]]\n{body}\n" for body in packages)
    return f'lock-version = "1.0"\ncreated-by = "test"\n{head}\n{bodies}'


def package(name: str, version: str = "1.0", *, more: str = "", host: str = "files.pythonhosted.org") -> str:
    file = f"{name}-{version}-py3-none-any.whl"
    return (
        f'name = "{name}"\nversion = "{version}"\n{more}\n'
        f'wheels = [{{ url = "https://{host}/{file}", hashes = {{ sha256 = "{sha("a")[7:]}" }} }}]'
    )


def locked(tmp_path: Path, lock: str, **files: str) -> Plan:
    return plan_of(tmp_path, {"pylock.toml": lock, **files})


def test_packages_whose_markers_hold_are_installed(tmp_path: Path) -> None:
    lock = pylock(
        package("six", more='index = "https://pypi.org/simple"\nrequires-python = ">=3.6"'),
        package("windows", more="marker = \"sys_platform == 'win32'\""),
        package("extra", more="marker = \"'x' in extras\""),
        package("group", more="marker = \"'dev' in dependency_groups or 'x' in dependency_groups\""),
        head='requires-python = ">=3.10"\nextras = ["x"]\ndependency-groups = ["dev"]\ndefault-groups = ["dev"]',
    )
    plan = locked(tmp_path, lock)
    assert wheels(plan) == {"six": "1.0", "group": "1.0"}
    assert reason(plan, "pylock.toml") == "used: 2 packages; with the group dev, its default"


def test_a_lock_of_other_environments_is_refused(tmp_path: Path) -> None:
    lock = pylock(package("six"), head="environments = [\"sys_platform == 'win32'\", \"python_version < '3'\"]")
    with pytest.raises(DetectError, match=r"^pylock\.toml: is no lock for Python 3\.11\.2 on x86_64-manylinux_2_36$"):
        locked(tmp_path, lock)


def test_files_may_be_anywhere(tmp_path: Path) -> None:
    lock = pylock(
        package("own", host="example.org"),
        package("indexed", more='index = "https://index.example.org/simple"', host="example.org"),
        f'name = "git"\nvcs = {{ type = "git", url = "https://example.org/git", commit-id = "{COMMIT}" }}',
        'name = "arc"\n'
        f'archive = {{ url = "https://example.org/arc-1.zip", hashes = {{ sha256 = "{sha("b")[7:]}" }} }}',
        'name = "folder"\ndirectory = { path = "parts", subdirectory = "folder", editable = true }',
        'name = "here"\nversion = "1"\nwheels = [{ path = "dist/here-1-py3-none-any.whl", hashes = {} }]',
    )
    files = {"parts/folder/pyproject.toml": PROJECT, "dist/here-1-py3-none-any.whl": ""}
    plan = locked(tmp_path, lock, **files)
    assert plan.locks[0].packages[0].url == "https://example.org/own-1.0-py3-none-any.whl"
    assert built(plan) == [
        "--extra-index-url https://index.example.org/simple",
        f"arc @ https://example.org/arc-1.zip --hash={sha('b')}",
        f"git @ git+https://example.org/git@{COMMIT}",
        f"indexed==1.0 --hash={sha('a')}",
    ]
    assert step(plan, "python/project").data["targets"] == (
        "editable\tparts/folder\t\nplain\tdist/here-1-py3-none-any.whl\t\n"
    )


def test_the_project_is_installed_once_whether_it_is_in_the_lock_or_not(tmp_path: Path) -> None:
    without = locked(tmp_path / "a", pylock(package("six")), **{"pyproject.toml": PROJECT, "hum.py": ""})
    assert step(without, "python/project").data["targets"] == "plain\t.\t\n"
    lock = pylock(package("six"), 'name = "hum"\ndirectory = { path = ".", editable = true }')
    within = locked(tmp_path / "b", lock, **{"pyproject.toml": PROJECT, "hum.py": ""})
    assert step(within, "python/project").data["targets"] == "editable\t.\t\n"


def test_a_lock_of_another_name_counts_if_it_is_the_only_one(tmp_path: Path) -> None:
    one, two = pylock(package("six")), pylock(package("toml"))
    assert wheels(plan_of(tmp_path, {"pylock.paper.toml": one})) == {"six": "1.0"}
    plan = plan_of(tmp_path, {"pylock.dev.toml": two})
    assert not plan.locks
    assert reason(plan, "pylock.dev.toml") == "not used: there are several; name one of them pylock.toml"
    plan = plan_of(tmp_path, {"pylock.toml": two})
    assert wheels(plan) == {"toml": "1.0"}
    assert reason(plan, "pylock.paper.toml") == "not used: pylock.toml is used"


def test_it_counts_in_a_binder_folder(tmp_path: Path) -> None:
    lock = pylock(package("six"), 'name = "part"\ndirectory = { path = "part" }')
    plan = plan_of(tmp_path, {"binder/pylock.toml": lock, "binder/part/setup.py": "", "pylock.toml": "x"})
    assert wheels(plan) == {"six": "1.0"}
    assert step(plan, "python/project").data["targets"] == "plain\tbinder/part\t\n"
    assert reason(plan, "pylock.toml").startswith("not used: there is a binder folder")


@pytest.mark.parametrize(
    ("lock", "message"),
    [
        ("", r": is version \(none\) of the lock format; 1\.0 can be read"),
        ('lock-version = "2.0"', r": is version 2\.0 of the lock format"),
        (pylock('name = "six"'), r":6: says not where six comes from"),
        (pylock(package("six", more='requires-python = ">=4"')), r":6: locks a six that does not run on Python 3\.11"),
        (pylock(package("six", more='marker = "os"')), r":6: 'os' is not a marker"),
        (pylock(package("six"), package("six", "2")), r":6: locks six twice for one Python: 1\.0 and 2"),
        (pylock(package("six", host="user:pw@example.org")), r":6: has credentials in a URL"),
        (pylock('name = "six"\nvcs = { type = "hg", url = "https://x.org" }'), r":6: takes six from version control"),
        (pylock('name = "six"\ndirectory = { path = "../x" }'), r":6: names \.\./x, which is outside the repository"),
        (pylock('name = "six"\narchive = { path = "/x.whl" }'), r":6: names /x\.whl, which is outside"),
        (pylock('name = "six"\narchive = { url = "file:///x.whl" }'), r":6: "),
    ],
)
def test_a_lock_that_says_what_cannot_be(tmp_path: Path, lock: str, message: str) -> None:
    with pytest.raises(DetectError, match=rf"^pylock\.toml{message}"):
        locked(tmp_path, lock)
