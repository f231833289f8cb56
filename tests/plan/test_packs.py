"""The buildpack folder format: what strangers write, and what they are told when it is wrong."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from checkouts import checkout_of, fill, plan_of, reason, step

from hpcbinder.errors import DetectError, UsageError
from hpcbinder.model import Cache, Stage
from hpcbinder.plan import load_packs, make_plan

MODULES = """
api = 1
name = "modules"
version = "2.1"
summary = "Perl modules from cpanfile"

[[file]]
name = "cpanfile"

[[step]]
name = "install"
when = "cpanfile"
stage = "dependencies"
reason = "installs Perl modules"
script = "install.sh"
reads = ["cpanfile", "cpanfile.snapshot"]
caches = ["cpan"]
system = ["perl", "cpanminus"]
env = {PERL_MM_USE_DEFAULT = "1"}
"""


@pytest.fixture
def site(tmp_path: Path) -> Path:
    folder = tmp_path / "site"
    folder.mkdir()
    return folder


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    folder = tmp_path / "repo"
    folder.mkdir()
    return folder


def test_the_built_in_packs_load_and_have_no_privilege() -> None:
    packs = load_packs()
    assert {"apt", "python", "postbuild", "start", "conda"} <= {pack.name for pack in packs}
    assert {pack.origin for pack in packs} == {"built-in"}
    assert [pack.order for pack in packs] == sorted(pack.order for pack in packs)


def test_a_site_adds_a_pack_without_any_code(site: Path, repo: Path) -> None:
    fill(site, {"modules/buildpack.toml": MODULES, "modules/install.sh": "cpanm --installdeps .\n"})
    files = {"binder/cpanfile": "requires 'JSON';", "binder/cpanfile.snapshot": "x", "cpanfile": "root"}
    plan = plan_of(repo, files, packs=[site])
    install = step(plan, "modules/install")
    assert install.stage is Stage.DEPENDENCIES
    assert install.script == "cpanm --installdeps .\n"
    assert install.reads == ("binder/cpanfile", "binder/cpanfile.snapshot")
    assert install.caches == (Cache("cpan", "cpan"),)
    assert install.env == {"PERL_MM_USE_DEFAULT": "1"}
    # It composes with the packs that are there: its Debian packages go into their one step.
    assert step(plan, "apt/install").data["packages"] == "cpanminus\nperl\n"
    assert next(pack for pack in plan.packs if pack.name == "modules").origin == str(site / "modules")
    assert reason(plan, "binder/cpanfile") == "used: installs Perl modules"
    assert reason(plan, "cpanfile").startswith("not used: there is a binder folder")
    assert plan.labels["org.hpcbinder.buildpacks"] == "python/1 modules/2.1 apt/2"


def test_a_pack_that_nothing_triggers_takes_no_part(site: Path, repo: Path) -> None:
    fill(site, {"modules/buildpack.toml": MODULES, "modules/install.sh": "x"})
    assert plan_of(repo, packs=[site]).steps == plan_of(repo).steps


def test_a_site_overrides_the_built_in_apt(site: Path, repo: Path) -> None:
    fill(
        site,
        {
            "whatever/buildpack.toml": """
            api = 1
            name = "apt"
            version = "site-3"
            summary = "Our packages come from the site's own store"
            order = 90
            """,
            "whatever/pack.py": """
from hpcbinder.plan import Stage

def plan(repo, draft):
    wanted = [package.name for package in draft.take_system()]
    if path := repo.config("apt.txt"):
        wanted += repo.read_text(path).split()
        draft.used(path, "from the site's store")
    draft.add_step(Stage.SYSTEM, "store", "from the site's store", "store-install", data={"names": " ".join(wanted)})
""",
        },
    )
    plan = plan_of(repo, {"apt.txt": "sox\n"}, packs=[site])
    assert step(plan, "apt/store").data == {"names": "sox"}
    assert not [s for s in plan.steps if s.name == "apt/install"]
    assert reason(plan, "apt.txt") == "used: from the site's store"


def test_a_pack_in_python_may_have_modules_of_its_own(site: Path, repo: Path) -> None:
    fill(
        site,
        {
            "mpi/buildpack.toml": 'api = 1\nname = "mpi"\nversion = "1"\nsummary = "MPI"\norder = 20\n',
            "mpi/pack.py": """
from hpcbinder.plan import Stage
from .flavour import FLAVOUR

def plan(repo, draft):
    if any(item.path.endswith(".c") and not item.ignored for item in repo.files()):
        draft.want_system([FLAVOUR], "mpi.h")
        draft.set_env("OMPI_MCA_btl", "^openib") if False else draft.set_env("MPI_FLAVOUR", FLAVOUR)
        draft.add_kernel("mpi")
""",
            "mpi/flavour.py": 'FLAVOUR = "mpich"\n',
        },
    )
    before = list(sys.path)
    plan = plan_of(repo, {"a.c": "#include <mpi.h>\n"}, packs=[site])
    assert sys.path == before
    assert "flavour" not in sys.modules
    assert plan.env["MPI_FLAVOUR"] == "mpich"
    assert plan.labels["org.hpcbinder.kernels"] == "mpi python3"
    assert "mpich" in step(plan, "apt/install").data["packages"]


def test_the_first_folder_on_the_path_wins(tmp_path: Path) -> None:
    for name in ("user", "site"):
        text = f'api = 1\nname = "x"\nversion = "{name}"\nsummary = "s"\n'
        fill(tmp_path / name, {"x/buildpack.toml": text, "not-a-pack/readme": "", "file": ""})
    packs = load_packs([tmp_path / "nowhere", tmp_path / "user", tmp_path / "site"])
    assert [pack.version for pack in packs if pack.name == "x"] == ["user"]


def test_a_pack_can_be_left_out(repo: Path) -> None:
    plan = plan_of(repo, {"postBuild": "#!/bin/sh\n"}, without=["postbuild"])
    assert reason(plan, "postBuild") == "not used: left out by --without postbuild"
    assert not [s for s in plan.steps if s.name.startswith("postbuild/")]
    with pytest.raises(UsageError, match=r"no buildpack 'nothing\\n' to leave out \(there are apptainer, apt,"):
        plan_of(repo, without=["nothing\n"])


def test_what_a_pack_needs_cannot_silently_be_missing(site: Path, repo: Path) -> None:
    fill(site, {"modules/buildpack.toml": MODULES, "modules/install.sh": "x", "../repo/cpanfile": "x"})
    with pytest.raises(DetectError, match="modules needs the Debian package perl .* --without modules"):
        plan_of(repo, packs=[site], without=["apt"])


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("api = 1", "api = 2", r":2: .*api is 2, this hpcbinder reads 1"),
        ("api = 1", "", r":1: .*has no 'api'"),
        ("api = 1", "api = true", r":2: .*api is not a number"),
        ('"modules"', '"My Modules"', r":3: .*'My Modules' is not"),
        ('"2.1"', '"2 1"', r":4: .*version '2 1' is not"),
        ('"2.1"', "2.1", r":4: .*version is not a string"),
        ("summary", "sumary", r":1: .*has no 'summary'"),
        ('[[file]]\nname = "cpanfile"', '[[file]]\nname = "../x"', r":8: .*name of a file"),
        ('"dependencies"', '"server"', r":13: .*'server' is not one of system,"),
        ("env = {", "colour = {", r":19: .*unknown key 'colour'"),
        ('"cpan"]', "3]", r":17: .*caches is not a list of strings"),
        ('"1"}', "1}", r":19: .*env holds something that is not a string"),
        ("[[step]]", "[step]", r":10: .*step is not a list"),
        ('when = "cpanfile"', "when = ", r":12: malformed TOML: invalid value"),
        ('"install.sh"', '"missing.sh"', r"modules/missing\.sh: cannot be read"),
        ('"install.sh"', '"../install.sh"', r"'\.\./install\.sh' is not the name of a file"),
    ],
)
def test_malformed_packs_are_told_where(site: Path, old: str, new: str, message: str) -> None:
    assert old in MODULES
    fill(site, {"modules/buildpack.toml": MODULES.replace(old, new, 1), "modules/install.sh": ""})
    with pytest.raises(DetectError, match=message) as caught:
        load_packs([site])
    assert len(str(caught.value).splitlines()) == 1


def test_two_packs_of_one_name_in_one_folder(site: Path) -> None:
    text = 'api = 1\nname = "x"\nversion = "1"\nsummary = "s"\n'
    fill(site, {"a/buildpack.toml": text, "b/buildpack.toml": text})
    with pytest.raises(DetectError, match=r"/b: buildpack 'x' is in .*/a too"):
        load_packs([site])


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("1 / 0", r"pack\.py:4: buildpack x failed: ZeroDivisionError"),
        ("import nothing_of_the_kind", r"pack\.py:4: buildpack x failed: ModuleNotFoundError"),
        ("draft.add_step(Stage.SERVER, 'a', 'r', 's')", "stage server, which is not for buildpacks"),
        ("draft.add_step(Stage.SYSTEM, 'A b', 'r', 's')", "step name 'x/A b' is taken or not"),
        ("[draft.add_step(Stage.SYSTEM, 'a', 'r', 's') for _ in 'ab']", "step name 'x/a' is taken"),
        ("draft.add_step(Stage.SYSTEM, 'a', 'r', 's', reads=['../x'])", r"reads '\.\./x', which is no file"),
        ("draft.add_step(Stage.SYSTEM, 'a', 'r', 's', data={'../x': ''})", "data file name"),
        ("draft.add_step(Stage.SYSTEM, 'a', 'r', 's', env={'HOME': '/'})", "variable 'HOME' cannot be set"),
        ("draft.add_step(Stage.SYSTEM, 'a', 'r', 's', caches=['../x'])", "cache name"),
        (
            "draft.add_step(Stage.SYSTEM, 'a', 'r', 's', caches=['uv'], runs_repository_code=True)",
            "cannot have caches that others share",
        ),
        ("draft.add_step(Stage.FINISH, 'a', 'r', 's', into_repo=True)", "whole repository is in place"),
        ("draft.set_env('LD_PRELOAD', 'x')", "cannot be set by a buildpack"),
        ("draft.set_env('X', 'a\\nb')", "control characters"),
        ("draft.want_system(['a; b'], 'r')", "not the name of a Debian package"),
        ("draft.add_kernel('a b')", "not a kernel's name"),
        ("draft.script('nothing.sh')", "cannot be read"),
    ],
)
def test_a_pack_that_errs_is_named(site: Path, repo: Path, body: str, message: str) -> None:
    text = 'api = 1\nname = "x"\nversion = "1"\nsummary = "s"\n'
    program = f"from hpcbinder.plan import Stage\n\ndef plan(repo, draft):\n    {body}\n"
    fill(site, {"x/buildpack.toml": text, "x/pack.py": program})
    with pytest.raises(DetectError, match=message):
        plan_of(repo, packs=[site])


@pytest.mark.parametrize(
    ("program", "message"), [("def plan(:", r"pack\.py:1: .*SyntaxError"), ("x = 1", "no function")]
)
def test_a_pack_that_is_no_program(site: Path, repo: Path, program: str, message: str) -> None:
    text = 'api = 1\nname = "x"\nversion = "1"\nsummary = "s"\n'
    fill(site, {"x/buildpack.toml": text, "x/pack.py": program})
    with pytest.raises(DetectError, match=message):
        plan_of(repo, packs=[site])


def test_a_search_path_out_of_reach_is_told(tmp_path: Path) -> None:
    # Stands for a folder that others closed, which root could enter all the same.
    with pytest.raises(DetectError, match="cannot be read: File name too long"):
        load_packs([tmp_path / ("x" * 300)])


def test_loading_packs_runs_none_of_their_code(site: Path, tmp_path: Path) -> None:
    text = 'api = 1\nname = "x"\nversion = "1"\nsummary = "s"\n'
    fill(site, {"x/buildpack.toml": text, "x/pack.py": f"open({str(tmp_path / 'canary')!r}, 'w')\n"})
    packs = load_packs([site])
    with pytest.raises(DetectError):
        make_plan(checkout_of(fill(tmp_path / "r", {"a": ""})), packs=packs, suite="bookworm", architecture="amd64")
    assert (tmp_path / "canary").exists()
    (tmp_path / "canary").unlink()
    load_packs([site])
    assert not (tmp_path / "canary").exists()
