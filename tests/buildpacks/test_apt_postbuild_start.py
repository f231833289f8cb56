"""The packs for apt.txt, postBuild and start."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from checkouts import fill, plan_of, reason, step
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hpcbinder.errors import DetectError
from hpcbinder.model import Stage
from hpcbinder.plan import load_packs


def test_apt_txt(tmp_path: Path) -> None:
    text = "# tools\nsox ffmpeg\n\nlibfftw3-dev   # for the filter\ng++\ngfortran=4:12.2.0-3\r\nsox\n"
    plan = plan_of(tmp_path, {"apt.txt": text})
    apt = step(plan, "apt/install")
    assert apt.stage is Stage.SYSTEM
    assert apt.data["packages"].splitlines() == ["ffmpeg", "g++", "gfortran=4:12.2.0-3", "libfftw3-dev", "sox"]
    assert not apt.runs_repository_code
    assert reason(plan, "apt.txt") == "used: 6 Debian packages"


def test_an_apt_txt_without_packages_is_no_step(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, {"apt.txt": "# nothing yet\n"})
    assert reason(plan, "apt.txt") == "used: names no package"
    assert not [s for s in plan.steps if s.stage is Stage.SYSTEM]


@pytest.mark.parametrize(
    ("line", "word"),
    [
        ("curl; touch canary", "curl;"),
        ("$(touch canary)", "$(touch"),
        ("`x`", "`x`"),
        ("-o=Dpkg::Pre-Invoke::=x", "-o=Dpkg::Pre-Invoke::=x"),
        ("--reinstall", "--reinstall"),
        ("bash-", "bash-"),
        ("lib*", "lib*"),
        ("./local.deb", "./local.deb"),
        ("sox/bookworm-backports", "sox/bookworm-backports"),
        ("libc6:i386", "libc6:i386"),
        ("Sox", "Sox"),
        ("x", "x"),
        ("sox=", "sox="),
        ("sox=1 || true", "||"),
        ("söx", "söx"),
        ("sox\x1b[2J", r"sox\x1b[2J"),
        ("sox\u2028x!", "x!"),
    ],
)
def test_what_is_no_package_is_refused_with_its_line(tmp_path: Path, line: str, word: str) -> None:
    with pytest.raises(DetectError) as caught:
        plan_of(tmp_path, {"apt.txt": f"sox\n{line}\n"})
    assert str(caught.value).startswith(f"apt.txt:2: '{word}' is not the name of a Debian package")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_whatever_gets_through_is_a_word_no_shell_or_apt_can_misread(tmp_path: Path, text: str) -> None:
    try:
        plan = plan_of(tmp_path, {"apt.txt": text})
    except DetectError:
        return
    for s in plan.steps:
        if s.stage is Stage.SYSTEM:
            words = s.data["packages"].split()
            assert all(word[0].isalnum() and set(word) <= set(WORD) and not word.endswith("-") for word in words)


WORD = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.+-:~="


def test_post_build_runs_last_with_everything_in_place(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, {"binder/postBuild": "#!/bin/bash\nset -e\n"})
    run = step(plan, "postbuild/run")
    assert run.stage is Stage.FINISH
    assert run.reads == ("binder/postBuild",)
    assert run.data["path"] == "binder/postBuild" and run.data["interpreter"] == ""
    assert run.runs_repository_code and not run.caches and not run.into_repo


def test_post_build_without_a_first_line_runs_with_bash(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, {"postBuild": "echo hello\n"})
    assert step(plan, "postbuild/run").data["interpreter"] == "bash"
    assert "its first line names no interpreter" in reason(plan, "postBuild")


def test_post_build_that_says_what_it_reads_runs_before_the_content(tmp_path: Path) -> None:
    files = {
        "postBuild": "#!/bin/bash\n\n# Fetch the catalogue.\n#hpcbinder: reads = list.txt ./data/ \nset -e\n",
        "list.txt": "",
        "data/a": "",
        "data/sub/b": "",
        "other.ipynb": "",
    }
    run = step(plan_of(tmp_path, files), "postbuild/run")
    assert run.stage is Stage.PREPARE
    assert run.into_repo
    assert run.reads == ("data/a", "data/sub/b", "list.txt", "postBuild")


def test_post_build_may_read_nothing_or_everything(tmp_path: Path) -> None:
    files = {"postBuild": "#!/bin/sh\n# hpcbinder: reads =\n", "a": "", "b.ipynb": ""}
    assert step(plan_of(tmp_path, files), "postbuild/run").reads == ("postBuild",)
    plan = plan_of(tmp_path, {"postBuild": "#!/bin/sh\n# hpcbinder: reads = .\n"})
    assert step(plan, "postbuild/run").reads == ("a", "b.ipynb", "postBuild")


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("reads = ../x", r"^postBuild:2: reads \.\./x, which is outside"),
        ("reads = /etc/passwd", r"^postBuild:2: reads /etc/passwd, which is outside"),
        ("reads = a/../../x", r"^postBuild:2: reads a/\.\./\.\./x, which is outside"),
        ("reads = missing", r"^postBuild:2: reads missing, which is no file or folder"),
        ("read = a", r"^postBuild:2: unknown setting 'read'"),
    ],
)
def test_headers_that_cannot_be_meant(tmp_path: Path, header: str, message: str) -> None:
    with pytest.raises(DetectError, match=message):
        plan_of(tmp_path, {"postBuild": f"#!/bin/sh\n# hpcbinder: {header}\n"})


def test_a_header_behind_the_first_command_is_just_a_comment(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, {"postBuild": "#!/bin/sh\nset -e\n# hpcbinder: reads = ../x\n"})
    assert step(plan, "postbuild/run").stage is Stage.FINISH


def test_post_build_may_be_a_link_inside_the_repository(tmp_path: Path) -> None:
    fill(tmp_path, {"tools/prepare.sh": "#!/bin/sh\n", "binder/x": ""})
    (tmp_path / "binder/postBuild").symlink_to("../tools/prepare.sh")
    assert step(plan_of(tmp_path), "postbuild/run").reads == ("binder/postBuild", "tools/prepare.sh")


def test_a_start_with_windows_line_ends_cannot_run(tmp_path: Path) -> None:
    with pytest.raises(DetectError, match="^start:1: has Windows line ends.*dos2unix"):
        plan_of(tmp_path, {"start": "#!/bin/bash\r\necho\r\n"})


def test_start(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, {".binder/start": '#!/bin/sh\nexport A=1\nexec "$@"\n'})
    assert plan.start == ".binder/start"
    assert plan.env["HPCBINDER_START"] == "/srv/repo/.binder/start"
    assert plan.labels["org.hpcbinder.start"] == ".binder/start"
    assert reason(plan, ".binder/start") == "used: runs before every kernel and server"
    plan = plan_of(tmp_path, {".binder/start": "#!/bin/sh\nexport A=1\n"})
    assert 'never says exec "$@"' in reason(plan, ".binder/start")


def test_a_start_of_repo2docker_has_its_variables(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, {"start": '#!/bin/bash\nexport A="${NB_PYTHON_PREFIX}/share"\nexec "$@"\n'})
    assert plan.env["NB_PYTHON_PREFIX"] == "/opt/env" and "CONDA_DIR" not in plan.env
    plan = plan_of(tmp_path, {"start": '#!/bin/bash\ncd /home/jovyan\nexec "$@"\n'})
    assert {d.reason for d in plan.decisions if not d.used} == {
        "what it looks for in /home/jovyan, a folder of repo2docker's images, is in /srv/repo"
    }


def test_start_must_be_a_file(tmp_path: Path) -> None:
    (tmp_path / "start").mkdir()
    assert plan_of(tmp_path).start is None
    (tmp_path / "start").rmdir()
    fill(tmp_path, {"real": "#!/bin/sh\n"})
    (tmp_path / "start").symlink_to("real")
    with pytest.raises(DetectError, match="^start: start is not a regular file"):
        plan_of(tmp_path)
    (tmp_path / "start").unlink()
    os.mkfifo(tmp_path / "start")
    with pytest.raises(DetectError, match="^start: start is not a regular file"):
        plan_of(tmp_path)


@pytest.mark.parametrize(
    "script",
    sorted(path for pack in load_packs() for path in pack.folder.glob("*.sh")),
    ids=lambda p: f"{p.parent.name}",
)
def test_scripts_are_posix_shell(script: Path) -> None:
    subprocess.run(["/bin/sh", "-n", str(script)], check=True)
    assert not script.read_text().startswith("#!"), "it is the end of a longer script"
