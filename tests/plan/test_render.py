"""The Dockerfile: its shape, and that no text of anybody's can become anything but text in it."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest
from checkouts import plan_of
from hypothesis import given
from hypothesis import strategies as st

from hpcbinder.errors import DetectError
from hpcbinder.model import Plan, Stage, Step
from hpcbinder.plan import dockerfile, step_titles
from hpcbinder.plan.render import PRELUDE, quote, run_script

PRINTABLE = st.text(st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"]))


def render(plan: Plan, server_image: str | None = "server:1") -> str:
    return dockerfile(plan, base_image="base:1", tools_image="localhost/tools:uv-1", server_image=server_image)


def instructions(text: str) -> list[str]:
    """The instructions as BuildKit's parser reads them (frontend/dockerfile/parser): comments dropped, lines joined."""
    joined = re.sub(r"\\[ \t]*\n", "", "".join(line + "\n" for line in text.split("\n") if not line.startswith("#")))
    return [re.sub(r"\s+", " ", line) for line in joined.split("\n") if line.strip()]


def unquote(text: str) -> str:
    """What BuildKit's shell lexer makes of a double-quoted word (shell/lex.go, processDoubleQuote)."""
    assert text[0] == '"'
    out, i = [], 1
    while text[i] != '"':
        if text[i] == "$":
            raise AssertionError("a variable would be put in here")
        if text[i] == "\\" and text[i + 1] in '"$\\':
            i += 1
        out.append(text[i])
        i += 1
    assert i == len(text) - 1, "something follows the closing quote"
    return "".join(out)


def test_the_order_of_a_dockerfile(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, {"requirements.txt": "numpy", "apt.txt": "sox", "postBuild": "#!/bin/sh\n"})
    words = [line.split(" ")[0] for line in instructions(render(plan))]
    assert [word for i, word in enumerate(words) if word != words[i - 1]] == [
        "FROM",
        "ENV",
        "RUN",
        "COPY",
        "RUN",
        "LABEL",
        "WORKDIR",
        "ENTRYPOINT",
        "CMD",
    ]
    lines = instructions(render(plan))
    assert lines[:3] == ["FROM localhost/tools:uv-1 AS tools", "FROM server:1 AS server", "FROM server"]
    assert 'COPY ["content/", "/"]' in lines
    assert lines[-2:] == [
        'ENTRYPOINT ["/opt/hpcbinder/bin/entrypoint"]',
        'CMD ["/opt/jupyter/bin/jupyter-lab", "--ip=0.0.0.0", "--no-browser"]',
    ]


def test_without_a_server_image_its_stage_is_built(tmp_path: Path) -> None:
    lines = instructions(render(plan_of(tmp_path), None))
    assert lines[1] == "FROM base:1 AS server"
    assert lines[2].startswith("RUN --mount=type=bind,source=steps/00,")
    assert lines[3] == "FROM server"


def test_what_a_step_sees(tmp_path: Path) -> None:
    lines = instructions(render(plan_of(tmp_path, {"requirements.txt": "numpy"})))
    wheels = next(line for line in lines if "source=steps/02," in line)
    assert wheels == (
        "RUN --mount=type=bind,source=steps/02,target=/run/hpcbinder/step "
        "--mount=type=bind,from=tools,source=/,target=/run/hpcbinder/tools "
        "--mount=type=tmpfs,target=/run/hpcbinder/work "
        "--mount=type=tmpfs,target=/run/hpcbinder/site "
        "--mount=type=secret,id=hpcbinder-ca,target=/run/hpcbinder/site/ca.pem "
        "--mount=type=secret,id=hpcbinder-env,target=/run/hpcbinder/site/env "
        "--mount=type=secret,id=hpcbinder-apt,target=/run/hpcbinder/site/apt.conf "
        "--mount=type=secret,id=hpcbinder-sources,target=/run/hpcbinder/site/sources.list "
        "--mount=type=cache,id=hpcbinder-uv,target=/run/hpcbinder/cache/uv "
        '["/bin/sh", "-eu", "/run/hpcbinder/step/run.sh"]'
    )
    packages = next(line for line in lines if "source=steps/03," in line)
    assert "type=cache" not in packages
    assert re.findall(r"id=([a-z-]+)", packages) == [
        "hpcbinder-ca",
        "hpcbinder-env-public",
        "hpcbinder-apt-public",
        "hpcbinder-sources-public",
    ]


def test_another_commit_with_another_notebook_changes_labels_only(tmp_path: Path) -> None:
    files = {"requirements.txt": "numpy", "setup.py": "", "a.ipynb": "{}"}
    before = render(plan_of(tmp_path, files))
    after = render(plan_of(tmp_path, {"a.ipynb": "{} "}, commit="f" * 40, timestamp=1))
    different = [line for line, other in zip(before.split("\n"), after.split("\n"), strict=True) if line != other]
    assert [line.split("=")[0] for line in different] == ['LABEL "org.opencontainers.image.revision"']


@given(PRINTABLE)
def test_quoting_is_undone_by_the_parser_and_by_nothing_else(text: str) -> None:
    assert unquote(quote(text)) == text
    assert "\n" not in quote(text)


@given(st.text(max_size=20), st.sampled_from(["\n", "\r", "\0", "\x1b", "\x85", "\u2028", "\udcff"]), st.text())
def test_what_no_dockerfile_can_hold_is_refused(before: str, bad: str, after: str) -> None:
    with pytest.raises(DetectError):
        quote(before + bad + after)


@given(st.dictionaries(st.text("abc.", min_size=1), PRINTABLE))
def test_labels_and_variables_come_back_whole(labels: dict[str, str]) -> None:
    plan = dataclasses.replace(PLAIN, labels=labels, env={"X": " ".join(labels.values())})
    found = {}
    for line in render(plan).split("\n"):
        if line.startswith("LABEL "):
            name, value = line.removeprefix("LABEL ").split("=", 1)
            found[unquote(name)] = unquote(value)
        if line.startswith("ENV X="):
            assert unquote(line.removeprefix("ENV X=")) == " ".join(labels.values())
    assert found == labels


@given(st.text(max_size=200))
def test_a_reason_is_a_comment_whatever_it_says(text: str) -> None:
    steps = tuple(dataclasses.replace(step, reason=text) for step in PLAIN.steps)
    assert instructions(render(dataclasses.replace(PLAIN, steps=steps))) == instructions(render(PLAIN))


@pytest.mark.parametrize("image", ["a b", "x\nRUN y", "--platform=x", "", "$X"])
def test_image_references_are_checked(image: str) -> None:
    with pytest.raises(DetectError, match="not an image reference"):
        dockerfile(PLAIN, base_image=image, tools_image="t", server_image=None)


def test_a_step_has_a_name_in_logs() -> None:
    assert step_titles(PLAIN)["steps/00"] == "server/jupyterlab"


def test_variables_of_a_step_are_quoted_for_its_shell(tmp_path: Path) -> None:
    value = "a'b\"c$(touch canary)\\`x`"
    step = Step(Stage.SYSTEM, "x/y", "r", 'printf %s "$X"', env={"X": value})
    script = run_script(step)
    program = script.partition(PRELUDE)[2]
    done = subprocess.run(["/bin/sh", "-eu", "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout == value
    assert list(tmp_path.iterdir()) == []
    assert shlex.quote(value) in script


def test_a_step_with_credentials_runs_no_program_that_a_wheel_brought(tmp_path: Path) -> None:
    # `settle` calls find and touch; a wheel may hold scripts of these names, which land in /opt/env/bin.
    plan = plan_of(
        tmp_path, {"requirements.txt": "x @ https://example.org/x-1-py3-none-any.whl", "postBuild": "#!/bin/sh"}
    )
    first = {step.name: run_script(step).partition(PRELUDE)[0] for step in plan.steps}
    assert {step.name for step in plan.steps if step.runs_repository_code} == {"python/packages", "postbuild/run"}
    for step in plan.steps:
        done = subprocess.run(
            ["/bin/sh", "-euc", first[step.name] + 'echo "$PATH"'],
            env={"PATH": ":".join(plan.path)},
            capture_output=True,
            text=True,
            check=True,
        )
        folders = done.stdout.strip().split(":")
        assert ("/opt/env/bin" in folders) is step.runs_repository_code, step.name
        assert {"/usr/bin", "/bin"} <= set(folders)


def test_readable_and_timeless_touch_only_what_needs_it(tmp_path: Path) -> None:
    folder, work = tmp_path / "folder", tmp_path / "work"
    functions = PRELUDE[PRELUDE.index("# readable") :].replace("/run/hpcbinder/work", str(work))
    folder.mkdir()
    work.mkdir()
    folder.chmod(0o755)
    for name, mode in {"private": 0o600, "program": 0o700, "open": 0o666, "fine": 0o644}.items():
        (folder / name).write_text("")
        (folder / name).chmod(mode)
    (folder / "sub").mkdir(mode=0o700)
    (folder / "link").symlink_to("/nowhere")
    (work / ".begin").touch()
    for path in (folder, *folder.iterdir()):
        os.utime(path, (1, 1), follow_symlinks=False)
    (folder / "fine").write_text("changed")

    def run(call: str) -> dict[str, int]:
        environment = {"SOURCE_DATE_EPOCH": "1577836800", "PATH": "/usr/bin:/bin"}
        subprocess.run(["/bin/sh", "-euc", functions + call, "sh", str(folder)], check=True, env=environment)
        return {path.name: path.lstat().st_ctime_ns for path in folder.iterdir()}

    before = run("")
    after = run('readable "$1"')
    assert {name for name in before if before[name] != after[name]} == {"private", "program", "open", "sub"}
    modes = {path.name: oct(path.stat().st_mode & 0o777) for path in folder.iterdir() if not path.is_symlink()}
    assert modes == {"private": "0o644", "program": "0o755", "open": "0o644", "fine": "0o644", "sub": "0o755"}
    again = run('settle "$1"')
    assert {name for name in after if after[name] != again[name]} == {"fine"}
    assert (folder / "fine").stat().st_mtime == 1577836800
    assert run('settle "$1"') == again


def test_no_instruction_holds_a_word_of_the_repository(tmp_path: Path) -> None:
    files = {
        "requirements.txt": "canarypackage",
        "canary\nRUN touch x": "",
        "apt.txt": "canary-apt",
        "postBuild": "canary",
    }
    plan = plan_of(tmp_path, files)
    lines = [line for line in instructions(render(plan)) if not line.startswith(("LABEL", "ENV"))]
    assert not any("canary" in line for line in lines)
    assert json.loads(lines[-1].removeprefix("CMD "))


PLAIN = plan_of(Path(__file__).parent / "repos/plain/repo")
