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
from hpcbinder.plan import dockerfile, environment_fingerprint, environment_points, step_titles
from hpcbinder.plan.render import PRELUDE, quote, run_script

PRINTABLE = st.text(st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"]))


def render(plan: Plan, server_image: str | None = "server:1") -> str:
    return dockerfile(plan, base_image="base:1", tools_image="localhost/tools:uv-1", server_image=server_image)


def instructions(text: str) -> list[str]:
    """The instructions as BuildKit's parser reads them (frontend/dockerfile/parser): comments dropped, lines joined."""
    joined = re.sub(r"\\[ \t]*\n", "", "".join(line + "\n" for line in text.split("\n") if not line.startswith("#")))
    return [re.sub(r"\s+", " ", line) for line in joined.split("\n") if line.strip()]


def pairs(text: str, word: str) -> list[tuple[str, str]]:
    """Name and value, quoted as they are, of an ENV or LABEL instruction."""
    found: list[tuple[str, str]] = []
    inside = False
    for line in text.split("\n"):
        inside = inside or line.startswith(f"{word} ")
        if inside:
            name, _, value = line.removeprefix(f"{word} ").strip(" ").removesuffix(" \\").partition("=")
            found.append((name, value))
            inside = line.endswith(" \\")
    return found


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
    # FROM lines between steps only give the point a name.
    words = [line.split(" ")[0] for line in instructions(render(plan)) if not line.startswith("FROM before-")]
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
    assert [line for line in lines if line.startswith("FROM")] == [
        "FROM localhost/tools:uv-1 AS tools",
        "FROM server:1 AS server",
        "FROM server AS before-03",
        "FROM before-03 AS before-04",
        "FROM before-04 AS before-05",
        "FROM before-05",
    ]
    assert 'COPY ["content/", "/"]' in lines
    assert lines[-2:] == [
        'ENTRYPOINT ["/opt/hpcbinder/bin/entrypoint"]',
        'CMD ["/opt/jupyter/bin/jupyter-lab", "--ip=0.0.0.0", "--no-browser"]',
    ]


def test_without_a_server_image_its_stage_is_built(tmp_path: Path) -> None:
    lines = instructions(render(plan_of(tmp_path), None))
    assert lines[1] == "FROM base:1 AS server"
    assert lines[2].startswith("RUN --mount=type=bind,source=steps/00,")
    assert lines[3] == "FROM server AS before-02"


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
    assert [line.split("=")[0].strip() for line in different] == ['"org.opencontainers.image.revision"']


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
    text = render(plan)
    assert {unquote(name): unquote(value) for name, value in pairs(text, "LABEL")} == labels
    assert unquote(dict(pairs(text, "ENV"))["X"]) == " ".join(labels.values())


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


def line_of(*steps: Step, **changes: object) -> Plan:
    """A plan of these steps on a server of one step."""
    return dataclasses.replace(PLAIN, steps=(PLAIN.steps[0], *steps), **changes)  # type: ignore[arg-type]


def step(name: str, stage: Stage = Stage.DEPENDENCIES, **more: object) -> Step:
    return Step(stage, f"x/{name}", "because", f"make {name}", **more)  # type: ignore[arg-type]


EMPTY, A, B = step("empty", Stage.INTERPRETER), step("a"), step("b", apart=("/opt/env", "/opt/other"))


def stages(text: str) -> dict[str, list[str]]:
    """FROM line -> what runs in that stage: `run N`, `join N`, or the instruction's word."""
    found: dict[str, list[str]] = {}
    for line in instructions(text):
        if line.startswith("FROM"):
            here = found[line] = []
        elif match := re.search(r"source=steps/(\d\d),.*/(run|join)\.sh", line):
            here.append(f"{match[2]} {match[1]}")
        else:
            here.append(line.split(" ")[0])
    return found


def test_a_step_apart_runs_on_what_its_stage_stands_on() -> None:
    found = stages(render(line_of(EMPTY, A, B, step("project", Stage.PROJECT, reads=("x",)))))
    assert found == {
        "FROM localhost/tools:uv-1 AS tools": [],
        "FROM server:1 AS server": [],
        "FROM server AS before-02": ["ENV", "run 01"],
        "FROM before-02 AS before-03": ["run 02"],
        "FROM before-02 AS apart-03": ["run 03"],
        "FROM before-03 AS before-04": ["join 03"],
        "FROM before-04": ["run 04", "COPY", "LABEL", "WORKDIR", "ENTRYPOINT", "CMD"],
    }


def test_what_comes_in_is_seen_by_no_credentials() -> None:
    (join,) = [line for line in instructions(render(line_of(EMPTY, A, B))) if "join.sh" in line]
    assert join == (
        "RUN --mount=type=bind,source=steps/03,target=/run/hpcbinder/step "
        "--mount=type=tmpfs,target=/run/hpcbinder/work "
        "--mount=type=bind,from=apart-03,source=/opt/env,target=/run/hpcbinder/work/made/0 "
        "--mount=type=bind,from=before-02,source=/opt/env,target=/run/hpcbinder/work/before/0 "
        "--mount=type=bind,from=apart-03,source=/opt/other,target=/run/hpcbinder/work/made/1 "
        "--mount=type=bind,from=before-02,source=/opt/other,target=/run/hpcbinder/work/before/1 "
        '["/bin/sh", "-eu", "/run/hpcbinder/step/join.sh"]'
    )


@pytest.mark.parametrize(
    ("ready", "froms"),
    [
        ({4: "env:4"}, ["FROM env:4 AS before-04", "FROM before-04"]),
        (
            {3: "env:3", 2: "env:2"},
            ["FROM env:3 AS before-03", "FROM env:2 AS before-02", "FROM before-02 AS apart-03"]
            + ["FROM before-03 AS before-04", "FROM before-04"],
        ),
        (
            {3: "env:3"},
            ["FROM env:3 AS before-03", "FROM server:1 AS server", "FROM server AS before-02"]
            + ["FROM before-02 AS apart-03", "FROM before-03 AS before-04", "FROM before-04"],
        ),
    ],
)
def test_only_what_is_not_ready_is_made(ready: dict[int, str], froms: list[str]) -> None:
    text = dockerfile(line_of(EMPTY, A, B), base_image="b", tools_image="t", server_image="server:1", ready=ready)
    assert [line for line in instructions(text) if line.startswith("FROM")][1:] == froms
    # Whoever stands on an image has its variables from it.
    assert text.count("ENV PATH=") == ("AS before-02\nENV" in text)


def test_points_of_a_plan_that_others_can_have_too() -> None:
    assert environment_points(line_of(EMPTY, A, B)) == (2, 3, 4)
    assert environment_points(line_of(A)) == (2,)  # the server's is no environment
    assert environment_points(line_of(EMPTY, step("r", reads=("x",)), A)) == (2,)
    assert environment_points(line_of(step("r", Stage.SYSTEM, reads=("x",)), EMPTY, A)) == ()
    assert environment_points(line_of(EMPTY, step("p", Stage.PROJECT))) == (2,)
    assert environment_points(line_of()) == ()


def test_what_names_an_environment() -> None:
    def name(*steps: Step, point: int = 2, server: str = "s", **changes: object) -> str:
        return environment_fingerprint(line_of(*steps, **changes), point, server)

    own = name(A)
    other_words = dataclasses.replace(A, name="x/other", reason="other words")
    assert own == name(other_words) == name(A, B)
    assert own == name(A, source="elsewhere", env={**PLAIN.env, "HPCBINDER_START": "/srv/repo/start"})
    others = {
        name(A, server="t"),
        name(A, env={**PLAIN.env, "X": "y"}),
        name(A, path=("/bin",)),
        name(dataclasses.replace(A, script="make more")),
        name(dataclasses.replace(A, data={"x": "y"})),
        name(dataclasses.replace(A, env={"X": "y"})),
        name(dataclasses.replace(A, runs_repository_code=True)),
        name(dataclasses.replace(A, image="localhost/x:1")),
        name(dataclasses.replace(A, apart=("/opt/env",))),
        name(A, B, point=3),
    }
    assert len(others) == 10 and own not in others


@pytest.mark.parametrize(
    "folder", ["opt", "/", "/opt/../etc", "/opt,from=x", "/opt env", "/opt\nRUN x", "/-x", "/opt/"]
)
def test_folders_apart_are_checked(folder: str, tmp_path: Path) -> None:
    plan = line_of(EMPTY, step("c", apart=(folder,)))
    with pytest.raises(DetectError, match="cannot fill"):
        render(plan)


def test_the_start_script_makes_no_environment_another(tmp_path: Path) -> None:
    text = render(plan_of(tmp_path, {"start": '#!/bin/sh\nexec "$@"\n'}))
    before, _, after = text.partition("COPY")
    assert "HPCBINDER_START" not in before
    assert 'ENV HPCBINDER_START="/srv/repo/start"' in after


PLAIN = plan_of(Path(__file__).parent / "repos/plain/repo")


def test_no_step_looks_for_libraries_where_the_repository_says(tmp_path: Path) -> None:
    made = dataclasses.replace(PLAIN, env={**PLAIN.env, "LD_LIBRARY_PATH": "/opt/env/lib"})
    before, _, after = dockerfile(made, base_image="base", tools_image="tools", server_image="s").partition("content/")
    assert "LD_LIBRARY_PATH" not in before
    assert 'ENV LD_LIBRARY_PATH="/opt/env/lib"' in after
