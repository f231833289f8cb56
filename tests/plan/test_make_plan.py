"""Plans of small repositories: where config files are looked for, what is decided and why, and what names a plan."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from checkouts import COMMIT, checkout_of, fill, plan_of, reason, step

from hpcbinder.errors import DetectError, UsageError
from hpcbinder.model import Stage, to_json
from hpcbinder.plan import load_packs, make_plan


def test_a_repository_that_asks_for_nothing_still_gets_a_kernel(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, {"README.md": "hello"})
    assert [s.name for s in plan.steps] == [
        "server/jupyterlab",
        "python/environment",
        "python/wheels",
        "python/packages",
    ]
    assert plan.base.name == "debian:bookworm"
    assert plan.base.python == "3.11"
    assert plan.path[:2] == ("/opt/env/bin", "/opt/jupyter/bin")
    assert plan.env["PYTHONNOUSERSITE"] == "1"
    assert not {"USER", "HOME", "LOGNAME", "PATH"} & set(plan.env)
    assert plan.labels["org.hpcbinder.kernels"] == "python3"


def test_steps_stand_in_the_order_of_how_rarely_they_change(tmp_path: Path) -> None:
    files = {
        "apt.txt": "sox",
        "requirements.txt": "numpy",
        "setup.py": "",
        "postBuild": "#!/bin/sh\n",
        "start": '#!/bin/sh\nexec "$@"\n',
    }
    plan = plan_of(tmp_path, files)
    assert [s.stage.value for s in plan.steps] == [
        "server",
        "system",
        "interpreter",
        "dependencies",
        "dependencies",
        "project",
        "finish",
    ]
    assert plan.env["HPCBINDER_START"] == "/srv/repo/start"


def test_only_the_step_that_touches_no_repository_code_sees_the_shared_cache(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, {"requirements.txt": "numpy", "setup.py": "", "postBuild": "#!/bin/sh\n"})
    assert {s.name: bool(s.caches) for s in plan.steps if s.stage is not Stage.SERVER} == {
        "python/environment": False,
        "python/wheels": True,
        "python/packages": False,
        "python/project": False,
        "postbuild/run": False,
    }
    own_code = {s.name for s in plan.steps if s.runs_repository_code}
    assert own_code == {"python/packages", "python/project", "postbuild/run"}


@pytest.mark.parametrize("binder", ["binder", ".binder"])
def test_a_binder_folder_is_the_only_place_for_config_files(tmp_path: Path, binder: str) -> None:
    files = {
        f"{binder}/requirements.txt": "numpy",
        "requirements.txt": "pandas",
        "apt.txt": "sox",
        "setup.py": "",
        "pyproject.toml": "[project",
        "environment.yml": "",
        "Dockerfile": "",
        ".dockerignore": "*",
    }
    plan = plan_of(tmp_path, files)
    assert step(plan, "python/wheels").data["wheels.txt"] == "numpy\n"
    assert [s.stage for s in plan.steps if s.stage in (Stage.SYSTEM, Stage.PROJECT)] == []
    for name in ("requirements.txt", "apt.txt", "setup.py", "pyproject.toml", "environment.yml", "Dockerfile"):
        assert reason(plan, name) == f"not used: there is a {binder} folder, so that config files count only there"
    assert reason(plan, ".dockerignore").startswith(f"not used: there is a {binder} folder")
    assert plan.content.files == 8


def test_both_binder_folders_are_one_too_many(tmp_path: Path) -> None:
    with pytest.raises(DetectError, match="both a binder and a .binder folder"):
        plan_of(tmp_path, {"binder/apt.txt": "", ".binder/apt.txt": ""})


def test_a_binder_folder_may_be_a_symlink_inside_the_repository(tmp_path: Path) -> None:
    fill(tmp_path, {"repo/config/requirements.txt": "numpy", "outside/requirements.txt": "pandas"})
    repo = tmp_path / "repo"
    (repo / "binder").symlink_to("config")
    assert reason(plan_of(repo), "config/requirements.txt") == "used: 1 requirement"
    (repo / "binder").unlink()
    (repo / "binder").symlink_to("../outside")
    with pytest.raises(DetectError, match="^binder: symlink that leaves the repository"):
        plan_of(repo)


def test_a_file_called_binder_is_just_a_file(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, {"binder": "", "requirements.txt": "numpy"})
    assert reason(plan, "requirements.txt") == "used: 1 requirement"


def test_a_config_file_may_be_a_symlink_inside_the_repository(tmp_path: Path) -> None:
    fill(tmp_path, {"requirements.txt": "numpy", "binder/README": ""})
    (tmp_path / "binder/requirements.txt").symlink_to("../requirements.txt")
    assert reason(plan_of(tmp_path), "binder/requirements.txt") == "used: 1 requirement"


@pytest.mark.parametrize(
    ("files", "file", "pack"),
    [
        ({"Manifest.toml": 'julia_version = "1.9"\n'}, "Manifest.toml", "julia"),
        ({"REQUIRE": ""}, "REQUIRE", "julia"),
        ({"default.nix": ""}, "default.nix", "nix"),
        ({"flake.nix": ""}, "flake.nix", "nix"),
        ({"shell.nix": "", "a.py": ""}, "shell.nix", "nix"),
    ],
)
def test_what_no_pack_can_do_is_one_message_with_the_file_and_the_way_out(
    tmp_path: Path, files: dict[str, str], file: str, pack: str
) -> None:
    with pytest.raises(DetectError) as caught:
        plan_of(tmp_path, files)
    assert caught.value.where == file
    assert caught.value.hint is not None
    assert f"--without {pack}" in caught.value.hint
    assert len(str(caught.value).splitlines()) == 1
    # The way out is one.
    plan = plan_of(tmp_path, without=[pack])
    assert reason(plan, file) == f"not used: left out by --without {pack}"


def test_several_refused_files_are_named_at_once(tmp_path: Path) -> None:
    files = {"default.nix": "", "REQUIRE": ""}
    with pytest.raises(DetectError) as caught:
        plan_of(tmp_path, files)
    assert str(caught.value).endswith("--without nix --without julia leaves all of them out)")
    plan_of(tmp_path, without=["nix", "julia"])


@pytest.mark.parametrize(
    ("files", "file", "what"),
    [
        ({"shell.nix": "", "requirements.txt": ""}, "shell.nix", "requirements.txt"),
    ],
)
def test_what_stands_beside_something_that_can_be_built_is_only_reported(
    tmp_path: Path, files: dict[str, str], file: str, what: str
) -> None:
    assert reason(plan_of(tmp_path, files), file).endswith(f"{what} is used instead")


@pytest.mark.parametrize("name", ["Project.toml", "Manifest.toml", "DESCRIPTION"])
def test_files_of_these_names_that_are_something_else_do_not_matter(tmp_path: Path, name: str) -> None:
    assert plan_of(tmp_path, {name: "[tool]\nname = 'no Julia, no R'\n"}).decisions == ()


def test_an_ignore_file_is_honoured_and_named(tmp_path: Path) -> None:
    files = {".dockerignore": "data\n", "data/large": "x" * 1000, "notebook.ipynb": "{}", "start": "", "postBuild": ""}
    plan = plan_of(tmp_path, files)
    assert plan.content.ignore_file == ".dockerignore"
    assert (plan.content.files, plan.content.size) == (4, 7)
    assert reason(plan, ".dockerignore") == "used: its patterns leave files out of the image"
    # What the image cannot do without is there all the same.
    fill(tmp_path, {".dockerignore": "*\n"})
    assert plan_of(tmp_path).content.files == 2


def test_the_id_changes_with_what_the_image_depends_on_and_with_nothing_else(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, {"requirements.txt": "numpy", "a.ipynb": "{}"})
    assert plan.id == plan_of(tmp_path, timestamp=1).id
    assert plan.id != plan_of(tmp_path, suite="trixie").id
    assert plan.id != plan_of(tmp_path, commit="f" * 40).id
    assert plan.id != plan_of(tmp_path, {"a.ipynb": "{} "}).id
    changed = dataclasses.replace(plan, steps=(dataclasses.replace(plan.steps[0], reason="other words"),))
    assert changed.id == dataclasses.replace(plan, steps=plan.steps[:1]).id


def test_git_names_the_content_where_it_can(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, {"a": "1", ".dockerignore": "x"}, tree="a" * 40)
    fill(tmp_path, {"a": "2"})
    assert plan.id == plan_of(tmp_path, tree="a" * 40).id
    assert plan.id != plan_of(tmp_path, tree="b" * 40).id
    fill(tmp_path, {".dockerignore": "y"})
    assert plan.id != plan_of(tmp_path, tree="a" * 40).id


def test_a_changed_notebook_changes_no_step(tmp_path: Path) -> None:
    files = {
        "a.ipynb": "{}",
        "pyproject.toml": "[build-system]\nrequires = []\n[project]\nname = 'x'\ndependencies = ['numpy']\n",
        "postBuild": "#!/bin/sh\n# hpcbinder: reads = x.py\n",
        "x.py": "",
    }
    before = plan_of(tmp_path, files)
    after = plan_of(tmp_path, {"a.ipynb": '{"cells": []}', "b.ipynb": "{}"})
    assert before.steps == after.steps
    assert before.id != after.id


def test_labels_say_where_it_came_from_on_one_line_each(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, {"a": ""}, ref='v1"; evil="1\nRUN touch x', subdir="sub\u2028dir")
    assert plan.labels["org.opencontainers.image.source"] == "https://git.example.org/group/example.git"
    assert plan.labels["org.opencontainers.image.revision"] == COMMIT
    assert plan.labels["org.hpcbinder.ref"] == 'v1"; evil="1\\nRUN touch x'
    assert plan.labels["org.hpcbinder.subdir"] == "sub\\u2028dir"
    assert plan.labels["org.hpcbinder.manifest"] == "/opt/hpcbinder/manifest.json"
    assert "org.hpcbinder.start" not in plan.labels


def test_the_plan_is_plain_data(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, {"odd\udcff\nname": "", "apt.txt": "sox"})
    assert json.loads(json.dumps(to_json(plan)))["name"] == "example"


def test_unknown_suites_are_a_matter_of_configuration(tmp_path: Path) -> None:
    with pytest.raises(
        UsageError, match="build.suite and bases.suites name some of buster, bullseye, bookworm, trixie"
    ):
        plan_of(tmp_path, suite="sid")


def test_special_files_are_left_out_and_said(tmp_path: Path) -> None:
    import os

    fill(tmp_path, {"a": ""})
    os.mkfifo(tmp_path / "pipe")
    plan = plan_of(tmp_path)
    assert reason(plan, "pipe") == "not used: a pipe, socket or device has no place in an image"
    assert plan.content.files == 1


def test_no_step_sees_credentials_after_one_that_runs_repository_code(tmp_path: Path) -> None:
    pack = """api = 1
name = "late"
version = "1"
summary = "a step after the code of the repository"
{order}
[[file]]
name = "late.txt"
[[step]]
name = "fetch"
when = "late.txt"
stage = "{stage}"
reason = "fetches with the login of the site"
script = "fetch.sh"
runs-repository-code = {runs}
"""

    def planned(stage: str, *, order: str = "", runs: str = "false") -> list[str]:
        text = pack.format(stage=stage, order=order, runs=runs)
        fill(tmp_path / "site", {"late/buildpack.toml": text, "late/fetch.sh": "true\n"})
        return [s.name for s in plan_of(tmp_path / "repo", {"late.txt": ""}, packs=[tmp_path / "site"]).steps]

    for stage in ("project", "finish"):
        with pytest.raises(DetectError, match="late/fetch.* after python/packages.*runs code of the repo") as caught:
            planned(stage)
        assert caught.value.message.startswith("buildpack late: ")
    assert planned("dependencies", runs="true")[-2:] == ["python/packages", "late/fetch"]
    # Within a stage it comes first by itself.
    assert planned("dependencies")[-3:] == ["python/wheels", "late/fetch", "python/packages"]
    with pytest.raises(DetectError, match="python/wheels.* after late/fetch") as caught:
        planned("interpreter", order="order = 20", runs="true")
    assert caught.value.message.startswith("buildpack python: ")


def test_what_is_made_apart_sees_nothing_of_the_code_that_ran_in_its_stage(tmp_path: Path) -> None:
    toml = 'api = 1\nname = "own"\nversion = "1"\nsummary = "steps"\norder = 90\n[[file]]\nname = "own.txt"\n'
    code = """from hpcbinder.plan import Stage

def plan(repo, draft):
    if "early" in repo.read_text("own.txt"):
        draft.add_step(Stage.INTERPRETER, "code", "runs", "true", runs_repository_code=True)
    draft.add_step(Stage.DEPENDENCIES, "first", "runs", "true", runs_repository_code=True)
    apart = ["/opt/own"] if "apart" in repo.read_text("own.txt") else []
    draft.add_step(Stage.DEPENDENCIES, "second", "fetches", "true", apart=apart)
"""
    fill(tmp_path / "site", {"own/buildpack.toml": toml, "own/pack.py": code})
    made = plan_of(tmp_path / "repo", {"own.txt": "apart"}, packs=[tmp_path / "site"])
    assert [s.name for s in made.steps][-2:] == ["own/first", "own/second"]
    # It stands on what was there before its stage, no further back.
    for text, after in (
        ("", "own/second .* after python/packages"),
        ("apart, early", "python/wheels .* after own/code"),
    ):
        with pytest.raises(DetectError, match=after):
            plan_of(tmp_path / "repo", {"own.txt": text}, packs=[tmp_path / "site"])


@pytest.fixture(scope="module")
def many_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("many")
    for part in range(100):
        (folder / f"d{part}").mkdir()
        for number in range(200):
            (folder / f"d{part}/f{number}.txt").write_text(str(number))
    fill(folder, {"setup.py": "", ".dockerignore": "**/*.pyc\n**/__pycache__\n.venv\n*.log\ndata\n!data/keep\n"})
    return folder


@pytest.mark.parametrize("tree", [None, "a" * 40])
def test_twenty_thousand_files_are_planned(many_files: Path, tree: str | None) -> None:
    packs = load_packs()
    plan = make_plan(checkout_of(many_files, tree=tree), packs=packs, suite="bookworm", architecture="amd64")
    assert len(plan.id) > 12
    assert plan.content.files == 20_002


def test_a_key_of_endless_parts_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(DetectError, match=r"pyproject.toml:2: malformed TOML: a line with more than 1000 dots"):
        plan_of(tmp_path, {"pyproject.toml": "[project]\n" + ".".join(["a"] * 100_000) + " = 1\n"})
