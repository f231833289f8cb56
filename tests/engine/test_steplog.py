"""What buildah 1.28 and podman 4.3 say while they build, as they said it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from hpcbinder.engine.steplog import StepLog

RUN = "RUN --mount=type=bind,source=steps/01.pin-5bc99a6fd0f12254,target=/run/hpcbinder/step"

PODMAN = f"""\
[1/2] STEP 1/2: FROM localhost/hpcbinder/tools:uv-0.13.8 AS tools
--> 3dfdfd90201
[2/2] STEP 2/4: {RUN} ["/bin/sh"]
Resolving dependencies...
--> 363929f0b93
[2/2] STEP 3/4: COPY ["content/", "/"]
--> Using cache 27fa198e18e7966d0894741ab61aa281668d515243d7736df22dcdfe9a37fe1d
--> 27fa198e18e
[2/2] STEP 4/4: ENTRYPOINT ["/x"]
[2/2] COMMIT localhost/hpcbinder/test:x
--> 2d1252558eb
Successfully tagged localhost/hpcbinder/test:x
2d1252558eb363bdf54cfac6d3ce862651362f6172eb9d1d0625763cf9d09586
"""

FAILED = f"""\
STEP 1/2: FROM localhost/hpcbinder/base:1
STEP 2/2: {RUN} ["/bin/sh"]
error: No solution found when resolving dependencies:
  ╰─▶ Because nonesuch was not found in the package registry
subprocess exited with status 1
subprocess exited with status 1
Error: building at STEP "{RUN} /bin/sh": exit status 1
"""


def read(text: str, hidden: tuple[str, ...] = ()) -> tuple[StepLog, list[str]]:
    lines: list[str] = []
    log = StepLog(lines.append, {"steps/01": "python/dependencies"}, hidden)
    for line in text.encode(errors="surrogateescape").split(b"\n"):
        log.feed(line + b"\n")
    return log, lines


def test_steps_are_named_and_their_words_are_theirs() -> None:
    _, lines = read(PODMAN)
    assert [line.partition(" 0.")[0] for line in lines] == [
        "python/dependencies",
        "python/dependencies | Resolving dependencies...",
        "python/dependencies: done",
        'COPY ["content/", "/"]',
        'COPY ["content/", "/"]: cached',
    ]


def test_buildah_does_not_say_where_a_step_ends() -> None:
    silent = "\n".join(line for line in PODMAN.splitlines() if not line.startswith("--> "))
    _, lines = read(silent)
    assert [line.partition(" 0.")[0] for line in lines if ": done" in line] == [
        "python/dependencies: done",
        'COPY ["content/", "/"]: done',
    ]


def test_a_failing_step_is_named_with_its_last_words() -> None:
    log, lines = read(FAILED)
    error = log.failure(1)
    assert error.message == (
        "step python/dependencies failed with exit status 1: error: No solution found when resolving dependencies: / "
        "╰─▶ Because nonesuch was not found in the package registry"
    )
    assert not any("subprocess exited" in line for line in lines)


def test_the_words_of_a_runtime_between_step_and_status() -> None:
    """With isolation oci."""
    text = FAILED.replace('/bin/sh": exit', '/bin/sh": while running runtime: exit')
    assert "python/dependencies failed with exit status 1" in read(text)[0].failure(1).message


def test_a_killed_step_says_why_that_may_be() -> None:
    log, _ = read(f'STEP 2/2: {RUN} x\nsubprocess exited on killed\nError: building at STEP "RUN x": exit status 1\n')
    assert "memory" in str(log.failure(1))
    assert "exit status 137" in str(log.failure(1))


def test_what_fails_before_any_step() -> None:
    log, _ = read("Error: creating build container: localhost/x: image not known\n")
    assert str(log.failure(125)) == "the build failed: creating build container: localhost/x: image not known"
    assert str(read("")[0].failure(125)) == "the build failed: exit status 125"


def test_a_step_may_say_error_too() -> None:
    text = f'STEP 2/2: {RUN} x\nError: no such table\nError: building at STEP "RUN x": exit status 3\n'
    log, lines = read(text)
    assert lines[1] == "python/dependencies | Error: no such table"
    assert "failed with exit status 3: Error: no such table" in str(log.failure(3))


def test_warnings_of_the_tool_are_no_output_of_a_step() -> None:
    _, lines = read('STEP 1/1: RUN x\ntime="2026-11-21T06:33:18Z" level=warning msg="x"\n')
    assert lines == ["RUN x"]


def test_nothing_commands_the_terminal_and_no_secret_is_shown() -> None:
    text = "STEP 1/1: RUN x\n\x1b]0;title\x07 10%\r 55%\r100% https://me:hunter2@host/ hunter2\n"
    assert read(text, ("hunter2",))[1][1] == "RUN x | 100% https://***@host/ ***"


@given(st.lists(st.binary(max_size=200), max_size=20))
def test_any_bytes_can_be_read(raw: list[bytes]) -> None:
    lines: list[str] = []
    log = StepLog(lines.append, {})
    for line in raw:
        log.feed(line)
    assert str(log.failure(1))
    assert all(not set(line) & set("\x1b\x07\r\n\0") for line in lines)
