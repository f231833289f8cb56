"""uv.lock: what `uv sync` would install, and nothing that has not been checked."""

from __future__ import annotations

from pathlib import Path

import pytest
from checkouts import fill, plan_of, reason, step
from locks import PROJECT, built, sha, uv_lock, uv_package, wheels

from hpcbinder.errors import DetectError
from hpcbinder.model import LockedPackage, Plan


def locked(tmp_path: Path, lock: str, project: str = PROJECT, suite: str = "bookworm", **files: str) -> Plan:
    return plan_of(tmp_path, {"pyproject.toml": project, "uv.lock": lock, "hum/__init__.py": "", **files}, suite=suite)


def test_what_is_reachable_from_the_project_is_installed_with_its_hashes(tmp_path: Path) -> None:
    lock = uv_lock(
        uv_package("six", more='dependencies = [{ name = "below" }]'),
        uv_package("below", "2.0"),
        uv_package("unreached"),
        root='dependencies = [{ name = "six" }]',
    )
    plan = locked(tmp_path, lock)
    assert plan.locks[0].packages == (
        LockedPackage("below", "2.0", (sha("a"),)),
        LockedPackage("six", "1.0", (sha("a"),)),
    )
    assert plan.locks[0].origin == "uv.lock"
    assert step(plan, "python/wheels").data["wheels.txt"] == (
        f"below==2.0 --hash={sha('a')}\nsix==1.0 --hash={sha('a')}\n"
    )
    assert reason(plan, "uv.lock") == "used: 2 packages"
    # The project itself comes on top, without anybody looking at what it depends on again.
    assert "requirements.txt" not in step(plan, "python/project").data


def test_markers_are_those_of_the_images_interpreter(tmp_path: Path) -> None:
    lock = uv_lock(
        *(uv_package(name) for name in ("old", "new", "windows", "linux")),
        root="""dependencies = [
          { name = "old", marker = "python_full_version < '3.12'" },
          { name = "new", marker = "python_full_version >= '3.12'" },
          { name = "windows", marker = "sys_platform == 'win32'" },
          { name = "linux", marker = "platform_machine == 'x86_64' and platform_system == 'Linux'" },
        ]""",
    )
    assert wheels(locked(tmp_path, lock)) == {"old": "1.0", "linux": "1.0"}
    assert wheels(locked(tmp_path, lock, suite="trixie")) == {"new": "1.0", "linux": "1.0"}


def test_a_fork_is_told_by_version_and_source(tmp_path: Path) -> None:
    lock = uv_lock(
        uv_package("six", "1.0"),
        uv_package("six", "2.0"),
        root="""dependencies = [
          { name = "six", version = "1.0", marker = "python_full_version < '3.12'" },
          { name = "six", version = "2.0", marker = "python_full_version >= '3.12'" },
        ]""",
    )
    assert wheels(locked(tmp_path, lock)) == {"six": "1.0"}
    assert wheels(locked(tmp_path, lock, suite="trixie")) == {"six": "2.0"}


def test_extras_that_exclude_each_other(tmp_path: Path) -> None:
    """uv writes them as extras of a long name into markers."""
    torch = """dependencies = [
      { name = "math", version = "1.0", marker = "extra == 'extra-3-hum-cpu'" },
      { name = "math", version = "2.0", marker = "extra != 'extra-3-hum-cpu' or extra == 'extra-3-hum-gpu'" },
      { name = "only", marker = "extra == 'group-3-hum-dev'" },
    ]"""
    lock = uv_lock(
        uv_package("torch", more=torch),
        uv_package("math", "1.0"),
        uv_package("math", "2.0"),
        uv_package("only"),
        root='dependencies = [{ name = "torch" }]\n[package.dev-dependencies]\ndev = []',
    )
    assert wheels(locked(tmp_path, lock)) == {"torch": "1.0", "math": "2.0", "only": "1.0"}


def test_extras_of_a_dependency_come_with_it(tmp_path: Path) -> None:
    more = '[package.optional-dependencies]\nsocks = [{ name = "pysocks" }]\nother = [{ name = "nothing" }]'
    lock = uv_lock(
        uv_package("requests", more=more),
        uv_package("pysocks"),
        root='dependencies = [{ name = "requests", extra = ["socks"] }]',
    )
    assert set(wheels(locked(tmp_path, lock))) == {"requests", "pysocks"}


@pytest.mark.parametrize(
    ("settings", "groups"),
    [
        ("", {"dev"}),
        ("[tool.uv]\ndefault-groups = ['docs']", {"docs"}),
        ("[tool.uv]\ndefault-groups = 'all'", {"dev", "docs"}),
        ("[tool.uv]\ndefault-groups = []", set()),
    ],
)
def test_groups_are_those_uv_takes_by_itself(tmp_path: Path, settings: str, groups: set[str]) -> None:
    root = '[package.dev-dependencies]\ndev = [{ name = "in-dev" }]\ndocs = [{ name = "in-docs" }]'
    plan = locked(tmp_path, uv_lock(uv_package("in-dev"), uv_package("in-docs"), root=root), PROJECT + settings)
    assert set(wheels(plan)) == {f"in-{group}" for group in groups}
    assert ("as `uv sync`" in reason(plan, "uv.lock")) == bool(groups)


def test_a_wheel_must_fit_the_bases_python_and_c_library(tmp_path: Path) -> None:
    files = {
        "six-1.0-cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64.whl": sha("1"),
        "six-1.0-cp39-abi3-manylinux_2_28_x86_64.whl": sha("2"),
        "six-1.0-cp311-cp311-manylinux_2_39_x86_64.whl": sha("3"),
        "six-1.0-cp313-cp313-manylinux_2_39_x86_64.whl": sha("4"),
        "six-1.0-cp311-cp311-musllinux_1_2_x86_64.whl": sha("5"),
        "six-1.0-cp311-cp311-manylinux_2_17_aarch64.whl": sha("6"),
        "six-1.0.tar.gz": sha("7"),
    }
    lock = uv_lock(uv_package("six", files=files), root='dependencies = [{ name = "six" }]')
    assert locked(tmp_path, lock).locks[0].packages[0].hashes == (sha("1"), sha("2"))
    assert locked(tmp_path, lock, suite="trixie").locks[0].packages[0].hashes == (sha("2"), sha("4"))


def test_what_has_no_wheel_that_fits_is_built_from_just_the_locked_files(tmp_path: Path) -> None:
    files = {"six-1.0-cp39-cp39-win_amd64.whl": sha("1"), "six-1.0.tar.gz": sha("2")}
    lock = uv_lock(uv_package("six", files=files), uv_package("good"), root='dependencies = [{ name = "six" }]')
    plan = locked(tmp_path, lock)
    assert plan.locks[0].unresolved == ("six",)
    assert built(plan) == [f"six==1.0 --hash={sha('1')} --hash={sha('2')}"]
    packages = step(plan, "python/packages")
    assert packages.runs_repository_code and not packages.caches
    assert "--no-deps" in packages.script


COMMIT = "0123456789abcdef0123456789abcdef01234567"


def test_git_urls_and_other_indexes_are_left_to_the_build(tmp_path: Path) -> None:
    lock = uv_lock(
        f'name = "a"\nversion = "1"\nsource = {{ git = "https://git.example.org/a?subdirectory=x&rev=main#{COMMIT}" }}',
        'name = "b"\nversion = "1"\nsource = { url = "https://example.org/b-1.tar.gz" }\n'
        f'sdist = {{ hash = "{sha("b")}" }}',
        uv_package("c").replace("https://pypi.org/simple", "https://index.example.org/simple"),
        root='dependencies = [{ name = "a" }, { name = "b" }, { name = "c" }]',
    )
    plan = locked(tmp_path, lock)
    assert wheels(plan) == {}
    assert built(plan) == [
        "--extra-index-url https://index.example.org/simple",
        f"a @ git+https://git.example.org/a@{COMMIT}#subdirectory=x",
        f"b @ https://example.org/b-1.tar.gz --hash={sha('b')}",
        f"c==1.0 --hash={sha('a')}",
    ]
    assert step(plan, "python/packages").env == {"UV_INDEX_STRATEGY": "unsafe-best-match"}
    assert "packages also from https://index.example.org/simple, by the build" in reason(plan, "uv.lock")


def test_a_wheel_at_a_url_is_a_wheel(tmp_path: Path) -> None:
    url = "https://example.org/b-1-py3-none-any.whl"
    lock = uv_lock(
        f'name = "b"\nversion = "1"\nsource = {{ url = "{url}" }}\nwheels = [{{ url = "{url}", hash = "{sha("b")}" }}]',
        root='dependencies = [{ name = "b" }]',
    )
    plan = locked(tmp_path, lock)
    assert plan.locks[0].packages == (LockedPackage("b", "1", (sha("b"),), url),)
    assert step(plan, "python/wheels").data["wheels.txt"] == f"b @ {url} --hash={sha('b')}\n"


def test_members_of_a_workspace_are_projects_of_the_repository(tmp_path: Path) -> None:
    lock = uv_lock(
        'name = "part"\nversion = "1"\nsource = { editable = "parts/part" }\ndependencies = [{ name = "six" }]',
        'name = "loose"\nversion = "1"\nsource = { virtual = "parts/loose" }\ndependencies = [{ name = "only" }]',
        uv_package("six"),
        uv_package("only"),
        root='dependencies = [{ name = "part" }, { name = "loose" }]',
    )
    part = "[project]\nname = 'part'\ndependencies = ['six']\n[build-system]\nrequires = ['hatchling']\n"
    plan = locked(tmp_path, lock, **{"parts/part/pyproject.toml": part, "parts/loose/pyproject.toml": part})
    assert set(wheels(plan)) == {"six", "only"}
    assert step(plan, "python/project").data["targets"] == "plain\t.\t\nplain\tparts/part\t\n"


def test_a_workspace_without_a_project_of_its_own_is_all_its_members(tmp_path: Path) -> None:
    lock = uv_lock(
        'name = "a"\nversion = "1"\nsource = { editable = "a" }\ndependencies = [{ name = "six" }]',
        'name = "b"\nversion = "1"\nsource = { virtual = "b" }\ndependencies = [{ name = "only" }]',
        uv_package("six"),
        uv_package("only"),
        root="-",
        head='[manifest]\nmembers = ["a", "b"]',
    )
    part = "[project]\nname = 'a'\n[build-system]\nrequires = ['hatchling']\n"
    plan = locked(tmp_path, lock, "[tool.uv.workspace]\nmembers = ['a', 'b']\n", **{"a/pyproject.toml": part})
    assert set(wheels(plan)) == {"six", "only"}
    assert step(plan, "python/project").data["targets"] == "plain\ta\t\n"


def test_a_project_that_uv_takes_for_none_is_not_installed(tmp_path: Path) -> None:
    lock = uv_lock(
        'name = "hum"\nversion = "1"\nsource = { virtual = "." }\ndependencies = [{ name = "six" }]',
        uv_package("six"),
        root="-",
    )
    plan = locked(tmp_path, lock, "[project]\nname = 'hum'\ndependencies = ['six']\n")
    assert wheels(plan) == {"six": "1.0"}
    assert not [s for s in plan.steps if s.name == "python/project"]
    assert reason(plan, "pyproject.toml") == "used: describes what the lock is of, which is no package itself"


@pytest.mark.parametrize(
    ("dependencies", "stale"),
    [
        ("'Six>=1', 'requests[socks]'", False),
        ("'six >= 1', 'requests'", False),
        ("'six>=2', 'requests'", True),
        ("'six>=1', 'requests', 'new'", True),
    ],
)
def test_a_lock_older_than_its_project_is_used_and_called_so(tmp_path: Path, dependencies: str, stale: bool) -> None:
    root = """dependencies = [{ name = "six" }, { name = "requests" }]
[package.metadata]
requires-dist = [{ name = "six", specifier = ">=1" }, { name = "requests", extras = ["socks"] }]"""
    lock = uv_lock(uv_package("six"), uv_package("requests"), root=root)
    project = PROJECT.replace("[build-system]", f"dependencies = [{dependencies}]\n[build-system]")
    plan = locked(tmp_path, lock, project)
    assert set(wheels(plan)) == {"six", "requests"}
    assert ("older than pyproject.toml" in reason(plan, "uv.lock")) == stale


SIX = 'dependencies = [{ name = "six" }]'


@pytest.mark.parametrize(
    ("lock", "message"),
    [
        ("version = 2", r"uv\.lock: is version 2 of uv's lock format; 1 can be read"),
        ("[[package", r"uv\.lock:1: malformed TOML"),
        ("version = 1\npackage = 3", r"uv\.lock: holds something else where a list of tables belongs"),
        (uv_lock(root="-"), r"uv\.lock: is the lock of no project of this repository"),
        (uv_lock(root=SIX), r"uv\.lock:6: hum depends on six, which it does not lock"),
        (uv_lock(uv_package("six"), uv_package("six", "2"), root=SIX), r"uv\.lock:6: .* of which it locks several"),
        (uv_lock(uv_package("six; touch x"), root=SIX), r"uv\.lock: 'six; touch x' is not the name of a package"),
        (uv_lock(uv_package("six", "1\\n--index-url x"), root=SIX), r"uv\.lock:\d+: '1.*' is not a version of six"),
        (uv_lock(uv_package("six", "${HOME}"), root=SIX), r"uv\.lock:\d+: '\$\{HOME\}' is not a version of six"),
        (
            uv_lock(uv_package("six"), root=SIX.replace("}", ', marker = "os_name; x" }')),
            r"uv\.lock:6: .* not a marker",
        ),
        (
            uv_lock(uv_package("six"), root=SIX.replace("}", f', marker = "{"(" * 3000}" }}')),
            r"uv\.lock:6: .* not a marker",
        ),
        (
            uv_lock(uv_package("six").replace("https://pypi.org/simple", "http://example.org/simple"), root=SIX),
            r"uv\.lock:\d+: .*'http', which is not supported",
        ),
        (
            uv_lock(uv_package("six").replace("https://pypi.org/simple", "https://me:pw@example.org/"), root=SIX),
            r"uv\.lock:\d+: has credentials in a URL",
        ),
        (
            uv_lock(uv_package("six").replace("https://pypi.org/simple", "https://x.org/${TOKEN}"), root=SIX),
            r"uv\.lock:\d+: has \$\{…\}",
        ),
        (
            uv_lock(uv_package("six").replace("https://pypi.org/simple", "../wheels"), root=SIX),
            r"uv\.lock:\d+: takes six from a folder of packages",
        ),
        (
            uv_lock('name = "six"\nsource = { git = "ssh://git@example.org/x#' + COMMIT + '" }', root=SIX),
            r"uv\.lock:\d+: has a URL of the kind 'git\+ssh'",
        ),
        (
            uv_lock('name = "six"\nsource = { git = "https://example.org/x#main" }', root=SIX),
            r"uv\.lock:\d+: locks six to 'main', which is no full git commit",
        ),
        (
            uv_lock('name = "six"\nsource = { directory = "../../etc" }', root=SIX),
            r"uv\.lock:\d+: names \.\./\.\./etc, which is outside the repository",
        ),
        (
            uv_lock('name = "six"\nsource = { path = "/etc/passwd" }', root=SIX),
            r"uv\.lock:\d+: names /etc/passwd, which is outside the repository",
        ),
        (uv_lock('name = "six"\nsource = { hg = "x" }', root=SIX), r"uv\.lock:\d+: takes six from a place of a kind"),
        ("a = " + "[" * 100_000, r"uv\.lock: malformed TOML: nested too deep"),
    ],
)
def test_a_lock_that_says_what_cannot_be(tmp_path: Path, lock: str, message: str) -> None:
    with pytest.raises(DetectError, match=f"^{message}") as caught:
        locked(tmp_path, lock)
    assert len(str(caught.value).splitlines()) == 1


def test_a_hash_of_another_kind_is_none(tmp_path: Path) -> None:
    files = {"six-1.0-py3-none-any.whl": "md5:0123456789abcdef0123456789abcdef"}
    plan = locked(tmp_path, uv_lock(uv_package("six", files=files), root=SIX))
    assert wheels(plan) == {}
    assert built(plan) == ["six==1.0"]
    assert "no sha256 of six==1.0: what the index has now is taken" in reason(plan, "uv.lock")


def test_a_lock_may_be_larger_than_other_config_files(tmp_path: Path) -> None:
    """Real ones reach several MiB."""
    lock = uv_lock(uv_package("six"), root=SIX)
    assert wheels(locked(tmp_path, lock + "# " + "x" * (2 << 20))) == {"six": "1.0"}
    with pytest.raises(DetectError, match=r"^uv\.lock: is longer than 8388608 bytes"):
        locked(tmp_path, lock + "# " + "x" * (8 << 20))


def test_a_link_out_of_the_repository_is_no_lock(tmp_path: Path) -> None:
    fill(tmp_path, {"outside": "version = 1", "repo/pyproject.toml": PROJECT})
    (tmp_path / "repo/uv.lock").symlink_to("../outside")
    with pytest.raises(DetectError, match=r"^uv\.lock: symlink that leaves the repository"):
        plan_of(tmp_path / "repo")
