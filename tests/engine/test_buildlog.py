"""What BuildKit says, as it said it: Docker 20.10's own client, and one with buildx."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from hpcbinder.engine.buildlog import BuildLog

RUN = (
    "RUN     --mount=type=bind,source=steps/01,target=/run/hpcbinder/step     "
    '--mount=type=tmpfs,target=/run/hpcbinder/work     ["/bin/sh", "-eu", "/run/hpcbinder/step/run.sh"]'
)

DOCKER_20_10 = f"""\
#1 [internal] load remote build context
#1 DONE 0.0s

#5 [server 1/2] {RUN}
#5 sha256:2ddcc7a5d3a9a7e8c8f3b3f4b0e6ad1c7ee2b6b4d0a8e9f2c9a4a5b6c7d8e9f0
#5 0.412 Resolving dependencies...
#5 1.530 \x1b[1m\x1b[31merror\x1b[0m\x1b[1m:\x1b[0m No solution found when resolving dependencies:
#5 1.531   ╰─▶ Because nonesuch was not found in the package registry
#5 ERROR: executor failed running [/bin/sh -eu /run/hpcbinder/step/run.sh]: exit code: 1
------
 > [server 1/2] {RUN}:
#5 1.531   ╰─▶ Because nonesuch was not found in the package registry
------
executor failed running [/bin/sh -eu /run/hpcbinder/step/run.sh]: exit code: 1
"""

BUILDX = f"""\
#0 building with "default" instance using docker driver

#1 [internal] load build definition from Dockerfile
#1 transferring dockerfile: 1.2kB done
#1 DONE 0.0s

#5 [server 1/2] {RUN}
#5 0.100 E: Unable to locate package nonesuch
#5 ERROR: process "/bin/sh -eu /run/hpcbinder/step/run.sh" did not complete successfully: exit code: 100
------
 > [server 1/2] {RUN}:
0.100 E: Unable to locate package nonesuch
------
Dockerfile:5
--------------------
   4 |     FROM base AS server
   5 | >>> RUN
--------------------
ERROR: failed to solve: process "/bin/sh -eu /run/hpcbinder/step/run.sh" did not complete successfully: exit code: 100
"""


def read(text: str, hidden: tuple[str, ...] = ()) -> tuple[BuildLog, list[str]]:
    lines: list[str] = []
    log = BuildLog(lines.append, {"steps/01": "python/dependencies"}, hidden)
    for line in text.encode(errors="surrogateescape").split(b"\n"):
        log.feed(line + b"\n")
    return log, lines


def test_a_failing_step_is_named_with_its_last_words() -> None:
    log, lines = read(DOCKER_20_10)
    assert str(log.failure(1)) == (
        "step python/dependencies failed with exit status 1: error: No solution found when resolving dependencies: / "
        "╰─▶ Because nonesuch was not found in the package registry"
    )
    assert lines == [
        "python/dependencies",
        "python/dependencies | Resolving dependencies...",
        "python/dependencies | error: No solution found when resolving dependencies:",
        "python/dependencies |   ╰─▶ Because nonesuch was not found in the package registry",
    ]


def test_a_cause_that_uv_names_is_told_too() -> None:
    log, _ = read(
        f"#5 [2/4] {RUN}\n#5 1.5 error: No solution found when resolving dependencies\n"
        "#5 1.5   cause: Because there is no version of six==99.0, your requirements are unsatisfiable.\n"
        "#5 ERROR: executor failed running [/bin/sh]: exit code: 1\n"
    )
    assert "there is no version of six==99.0" in str(log.failure(1))


def test_the_same_from_buildx() -> None:
    log, lines = read(BUILDX)
    assert str(log.failure(1)) == (
        "step python/dependencies failed with exit status 100: E: Unable to locate package nonesuch"
    )
    assert lines == ["python/dependencies", "python/dependencies | E: Unable to locate package nonesuch"]


def test_a_step_that_went_well_and_one_that_was_cached() -> None:
    _, lines = read('#6 [2/3] COPY ["content/", "/"]\n#6 DONE 0.3s\n#7 [3/3] RUN true\n#7 CACHED\n')
    assert lines == ['COPY ["content/", "/"]', 'COPY ["content/", "/"]: done 0.3s', "RUN true", "RUN true: cached"]


def test_a_killed_step_says_why_that_may_be() -> None:
    log, _ = read("#5 [1/1] RUN make\n#5 ERROR: executor failed running [make]: exit code: 137\n")
    assert "memory" in str(log.failure(1))


def test_what_fails_before_any_step() -> None:
    log, _ = read("failed to solve with frontend dockerfile.v0: failed to read dockerfile: no such file\n")
    assert "failed to read dockerfile" in str(log.failure(1))
    assert str(read("")[0].failure(125)) == "the build failed: exit status 125"


def test_a_daemon_side_failure_is_the_engines() -> None:
    log, _ = read("#3 [internal] load metadata for localhost/x:1\n#3 ERROR: no space left on device\n")
    assert str(log.failure(1)) == (
        "the build failed at [internal] load metadata for localhost/x:1: no space left on device"
    )


def test_nothing_commands_the_terminal_and_no_secret_is_shown() -> None:
    _, lines = read(
        "#5 [1/1] RUN x\n#5 0.1 \x1b]0;title\x07 10%\r 55%\r100% https://me:hunter2@host/ hunter2\n", ("hunter2",)
    )
    assert lines[1] == "RUN x | 100% https://***@host/ ***"


@given(st.lists(st.binary(max_size=200), max_size=20))
def test_any_bytes_can_be_read(raw: list[bytes]) -> None:
    lines: list[str] = []
    log = BuildLog(lines.append, {})
    for line in raw:
        log.feed(line)
    assert str(log.failure(1))
    assert all(line.isprintable() or not set(line) & set("\x1b\x07\r\n\0") for line in lines)
