"""What a plan stands on: the interpreter that was chosen, its base, and the steps that make both ready."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from checkouts import checkout_of, fill

from hpcbinder.errors import DetectError
from hpcbinder.model import BaseRef, Plan, Python, Stage, Step
from hpcbinder.plan import Foundation, debian_python, dockerfile, explain, load_packs, make_plan

FOLDER = Python(
    "3.12", "3.12.4", "bookworm", "folder", "/opt/python/3.12/bin/python3.12", "/sw/python/3.12.4", "sha256:" + "a" * 64
)
OWN = debian_python("bookworm")
BASE = BaseRef("debian:bookworm", "bookworm", "3.11", "amd64", "1")
PUT = Step(Stage.INTERPRETER, "base/python", "puts it there", "true\n", image="localhost/hpcbinder/python:3.12-aaaa")
PREPARE = Step(Stage.SERVER, "base/prepare", "installs", "true\n")


def stand(python: Python, architecture: str) -> Foundation:
    assert architecture == "amd64"
    return Foundation(BASE, python, OWN, (PUT,)) if python.origin == "folder" else Foundation(BASE, python, OWN)


def plan(folder: Path, wanted: str = "3.12", **changes: Any) -> Plan:
    fill(folder, {"runtime.txt": f"python-{wanted}\n"})
    return make_plan(
        checkout_of(folder),
        packs=load_packs(()),
        suite="bookworm",
        architecture="amd64",
        **{"pythons": (FOLDER,), "stand": stand, **changes},
    )


def test_the_interpreter_is_there_before_its_environment(tmp_path: Path) -> None:
    made = plan(tmp_path)
    assert made.python == FOLDER
    assert [step.name for step in made.steps][:3] == ["server/jupyterlab", "base/python", "python/environment"]
    environment, server = made.steps[2], made.steps[0]
    assert environment.env == {"HPCBINDER_PYTHON": "/opt/python/3.12/bin/python3.12"}
    assert server.env["SERVER_PYTHON"] == "/usr/bin/python3"
    assert "  python   3.12.4 from /sw/python/3.12.4\n" in explain(made)


def test_a_repository_that_does_not_need_it_has_nothing_of_it(tmp_path: Path) -> None:
    made = plan(tmp_path, "3.11")
    assert made.python == OWN
    assert "base/python" not in [step.name for step in made.steps]


def test_what_makes_the_base_ready_comes_before_the_server(tmp_path: Path) -> None:
    image = f"docker.io/library/debian:bookworm-slim@sha256:{'b' * 64}"

    def pulled(python: Python, architecture: str) -> Foundation:
        return Foundation(replace(BASE, image=image), python, OWN, (PREPARE, PUT))

    made = plan(tmp_path, stand=pulled)
    assert [step.name for step in made.steps][:3] == ["base/prepare", "server/jupyterlab", "base/python"]
    assert made.labels["org.opencontainers.image.base.name"] == "docker.io/library/debian:bookworm-slim"
    assert made.labels["org.opencontainers.image.base.digest"] == f"sha256:{'b' * 64}"
    assert f"  image    {image}\n" in explain(made)


def test_where_an_interpreter_lay_is_no_part_of_what_an_image_is(tmp_path: Path) -> None:
    made = plan(tmp_path)
    moved = plan(tmp_path, pythons=(replace(FOLDER, source="/elsewhere"),))
    other = plan(tmp_path, pythons=(replace(FOLDER, digest="sha256:" + "c" * 64),))
    assert made.id == moved.id != other.id


def test_a_server_on_another_python(tmp_path: Path) -> None:
    def served(python: Python, architecture: str) -> Foundation:
        return Foundation(BASE, python, FOLDER, (replace(PUT, stage=Stage.SERVER, name="base/server-python"),))

    made = plan(tmp_path, "3.11", stand=served)
    assert [step.name for step in made.steps][:2] == ["base/server-python", "server/jupyterlab"]
    assert made.steps[1].env["SERVER_PYTHON"] == FOLDER.executable


def test_too_old_for_a_kernel(tmp_path: Path) -> None:
    old = replace(FOLDER, version="3.4", full="3.4.10", source="/sw/python/3.4")
    with pytest.raises(DetectError) as caught:
        plan(tmp_path, "3.4", pythons=(FOLDER, old))
    assert caught.value.message == "Python 3.4 is too old for a notebook's kernel"
    assert caught.value.hint == (
        "the oldest are 2.7 and 3.5; there is Python 3.11 (Debian bookworm), 3.12 (/sw/python/3.12.4) or "
        "3.13 (Debian trixie)"
    )


def test_a_version_that_cannot_be_had_after_all_says_why(tmp_path: Path) -> None:
    def refusing(python: Python, architecture: str) -> Foundation:
        raise DetectError("no")

    with pytest.raises(DetectError, match="no"):
        plan(tmp_path, stand=refusing)


def test_suites_that_a_site_leaves_out_are_not_offered(tmp_path: Path) -> None:
    with pytest.raises(DetectError, match="asks for Python 3.13, which no base has"):
        plan(tmp_path, "3.13", suites=("bookworm",))


def test_a_bootstrapped_base_has_debians_python_only(tmp_path: Path) -> None:
    fill(tmp_path, {"runtime.txt": "python-3.12\n"})
    with pytest.raises(DetectError, match="Python 3.12 of /sw/python/3.12.4 is not one of Debian bookworm"):
        make_plan(
            checkout_of(tmp_path),
            packs=load_packs(()),
            suite="bookworm",
            architecture="amd64",
            pythons=(FOLDER,),
        )


def test_a_step_reads_the_image_it_names(tmp_path: Path) -> None:
    text = dockerfile(plan(tmp_path), base_image="base", tools_image="tools", server_image=None)
    at = text.index("FROM localhost/hpcbinder/python:3.12-aaaa AS image-1\n")
    assert text.index("--mount=type=bind,from=image-1,source=/,target=/run/hpcbinder/image") > at
