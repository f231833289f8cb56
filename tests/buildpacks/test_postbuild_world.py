"""What postBuild finds: the programs that stand in front of others, and the line that is named when it fails.

Run as plain processes; the whole of it in an image is in test_built_image.py."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from checkouts import plan_of, reason, step

from hpcbinder.plan import load_packs

PACK = next(pack.folder for pack in load_packs() if pack.name == "postbuild")


def program(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


class Bench:
    """An environment, a server's environment, and the programs in front of theirs, which say their words."""

    def __init__(self, folder: Path) -> None:
        self.env, self.server, self.shims = folder / "env", folder / "server", folder / "shims"
        self.has("env/bin/jupyter", folder)
        for shim in ("jupyter", "conda", "pip"):
            program(self.shims / shim, (PACK / shim).read_text())
        for name, target in (("mamba", "conda"), ("jupyter-labextension", "jupyter"), ("pip3", "pip")):
            (self.shims / name).symlink_to(target)
        self.folder = folder

    def has(self, name: str, folder: Path | None = None) -> None:
        program((folder or self.folder) / name, f'#!/bin/sh\nprintf "%s" "{name}"\nprintf " <%s>" "$@"\n')

    def run(self, *argv: str) -> subprocess.CompletedProcess[str]:
        environment = {
            "PATH": f"{self.shims}:{self.env}/bin:{self.server}/bin:/usr/bin:/bin",
            "HPCBINDER_SHIMS": str(self.shims),
            "HPCBINDER_ENV": str(self.env),
            "HPCBINDER_SERVER": str(self.server),
        }
        return subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=60)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_what_is_not_of_old_is_the_real_programs(bench: Bench) -> None:
    assert bench.run("jupyter", "kernelspec", "list", "--json").stdout == "env/bin/jupyter <kernelspec> <list> <--json>"
    bench.has("server/bin/jupyter-labextension")
    done = bench.run("jupyter-labextension", "disable", "@jupyterlab/a b")
    assert done.stdout == "server/bin/jupyter-labextension <disable> <@jupyterlab/a b>"


def test_labextension_install_says_what_takes_its_place(bench: Bench) -> None:
    (bench.env / "share/jupyter/labextensions/@jupyter-widgets/jupyterlab-manager").mkdir(parents=True)
    words = ["@jupyter-widgets/jupyterlab-manager@^2.0", "@jupyterlab/toc", "@bokeh/jupyter_bokeh", "own-thing@1.2"]
    done = bench.run("jupyter", "labextension", "install", *words, "--no-build")
    assert done.returncode == 0
    assert [line.partition("install ")[2] for line in done.stderr.splitlines()] == [
        "@jupyter-widgets/jupyterlab-manager: there already, with its Python package",
        "@jupyterlab/toc: part of JupyterLab itself by now",
        "@bokeh/jupyter_bokeh: left out; JupyterLab 4 takes it from PyPI: add jupyter_bokeh to the requirements",
        "own-thing: left out; JupyterLab 4 takes extensions from Python packages: add the one that brings it to the "
        "requirements",
    ]


@pytest.mark.parametrize("words", ["lab build", "lab clean", "labextension uninstall x", "nbextension enable --py x"])
def test_what_has_become_nothing_does_nothing(bench: Bench, words: str) -> None:
    done = bench.run("jupyter", *words.split())
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr.startswith(f"hpcbinder: postBuild: jupyter {' '.join(words.split()[:2])}: ")


def test_an_environment_with_a_classic_notebook_gets_its_extensions(bench: Bench) -> None:
    bench.has("env/bin/jupyter-nbextension")
    assert bench.run("jupyter", "nbextension", "enable", "x").stdout == "env/bin/jupyter-nbextension <enable> <x>"


def test_serverextension_is_server_extension_by_now(bench: Bench) -> None:
    program(bench.server / "bin/python", f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    words = ["--py", "json.decoder", "nothing", "nothing.below", "a/b", "--sys-prefix"]
    done = bench.run("jupyter", "serverextension", "enable", *words)
    assert done.returncode == 0
    (file,) = (bench.env / "etc/jupyter/jupyter_server_config.d").iterdir()
    assert file.name == "json.decoder.json"
    assert json.loads(file.read_text()) == {"ServerApp": {"jpserver_extensions": {"json.decoder": True}}}
    assert [line.partition("enable ")[2] for line in done.stderr.splitlines()] == [
        "json.decoder: done, for Jupyter Server",
        "nothing: left out; the server finds no module of this name",
        "nothing.below: left out; the server finds no module of this name",
        "a/b: not the name of a module",
    ]
    assert bench.run("jupyter", "serverextension", "disable", "json.decoder").returncode == 0
    assert "false" in file.read_text()


def test_conda_runs_in_the_one_environment_there_is(bench: Bench) -> None:
    done = bench.run("conda", "run", "--no-capture-output", "-n", "notebook", "printf", "<%s>", "a b", "-n", "c")
    assert done.stdout == "<a b><-n><c>"
    for words in ("activate notebook", "shell.bash hook", "clean --all -y"):
        done = bench.run("mamba", *words.split())
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_conda_install_fails_and_says_what_to_do(bench: Bench) -> None:
    done = bench.run("mamba", "install", "-y", "nodejs")
    assert done.returncode == 1
    assert done.stderr == (
        "hpcbinder: postBuild: mamba install -y nodejs: there is no mamba in an image; write what it installs into "
        "environment.yml\n"
    )


def test_pip_installs_for_everybody(bench: Bench) -> None:
    bench.has("env/bin/python")
    done = bench.run("pip3", "install", "--user", "a b", "--upgrade", "c")
    assert done.stdout == "env/bin/python <-m> <pip> <install> <a b> <--upgrade> <c>"


def traced(tmp_path: Path, text: str, *more: str) -> tuple[int, list[str]]:
    """Exit status of a postBuild run by bash, and what is said of its lines."""
    script = program(tmp_path / "postBuild", text)
    environment = {**os.environ, "BASH_ENV": str(PACK / "trace")}
    argv = [*more, "./postBuild"]
    done = subprocess.run(argv, cwd=script.parent, env=environment, capture_output=True, text=True, timeout=60)
    return done.returncode, [line for line in done.stderr.splitlines() if line.startswith("hpcbinder: ")]


@pytest.mark.parametrize(
    ("lines", "status", "said"),
    [
        (["set -e", "cat /nonexistent", "echo"], 1, "3: failed with status 1: cat /nonexistent"),
        (["set -eu", "", "echo $nowhere"], 1, "4: failed with status 1: echo $nowhere"),
        (["f() {", "  exit 4", "}", "f"], 4, "3: failed with status 4: exit 4"),
        (["set -e", "for i in 1 2; do", "  (exit $i)", "done"], 1, "4: failed with status 1: ( exit $i )"),
        (["set -e", "x=$(nothing-like-it --a)"], 127, "3: failed with status 127: x=$(nothing-like-it --a)"),
        (["set -e", "echo x |", "  grep y"], 1, "4: failed with status 1: grep y"),
    ],
)
def test_the_line_that_failed_is_named(tmp_path: Path, lines: list[str], status: int, said: str) -> None:
    code, found = traced(tmp_path, "\n".join(["#!/bin/bash", *lines, ""]))
    assert code == status
    assert found[-1] == f"hpcbinder: postBuild:{said}"


def test_what_watches_its_lines_is_not_among_those_it_shows(tmp_path: Path) -> None:
    program(tmp_path / "postBuild", "#!/bin/bash\nset -ex\nfalse || true\ncat /nonexistent\n")
    environment = {**os.environ, "BASH_ENV": str(PACK / "trace"), "LC_ALL": "C"}
    done = subprocess.run(["./postBuild"], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60)
    assert done.stderr.splitlines() == [
        *("+ false", "+ true", "+ cat /nonexistent", "cat: /nonexistent: No such file or directory"),
        "hpcbinder: postBuild:4: failed with status 1: cat /nonexistent",
    ]


def test_a_login_shell_finds_the_environment(tmp_path: Path) -> None:
    """Debian's /etc/profile sets PATH anew, whatever it was."""
    for name, text in (("here", "#!/bin/sh\necho here\n"), ("postBuild", "#!/bin/bash -l\nhere\n")):
        program(tmp_path / "bin" / name, text)
    path = f"{tmp_path / 'bin'}:{os.environ['PATH']}"
    more = {"PATH": path, "HPCBINDER_PATH": path, "BASH_ENV": str(PACK / "trace"), "HOME": str(tmp_path)}
    environment = {**os.environ, **more}
    done = subprocess.run([tmp_path / "bin/postBuild"], env=environment, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "here\n")


def test_lines_it_went_on_after_are_named(tmp_path: Path) -> None:
    code, found = traced(tmp_path, "false || true\nif false; then :; fi\ncd /nonexistent\ntrue\n", "bash")
    assert (code, found) == (0, ["hpcbinder: postBuild:3: went on after status 1: cd /nonexistent"])


def test_a_script_it_sources_is_named_and_one_it_runs_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "more.sh").write_text("true\nnothing-like-it\n")
    program(tmp_path / "own.sh", '#!/bin/bash\n[ -z "${BASH_ENV:-}" ] && [ -z "$(trap -p DEBUG ERR EXIT)" ]\n')
    code, found = traced(tmp_path, "#!/bin/bash -e\n./own.sh\n. ./more.sh\n")
    assert (code, found) == (127, ["hpcbinder: more.sh:2: failed with status 127: nothing-like-it"])


def test_its_own_traps_take_over(tmp_path: Path) -> None:
    code, found = traced(tmp_path, "#!/bin/bash\ntrap 'exit 5' EXIT\nfalse\n")
    assert (code, found) == (5, [])


def test_only_bash_is_watched_and_windows_is_undone(tmp_path: Path) -> None:
    said = {}
    for first in ("#!/bin/bash -e", "#!/usr/bin/env bash", "", "#!/bin/sh", "#!/usr/bin/env python"):
        plan = plan_of(tmp_path, {"postBuild": f"{first}\necho\n"})
        said[first] = "trace" in step(plan, "postbuild/run").data
    assert list(said.values()) == [True, True, True, False, False]
    assert "windows" not in step(plan, "postbuild/run").data
    for text in (b"#!/bin/bash\r\necho\r\n", b"\xef\xbb\xbf#!/bin/bash\necho\n"):
        plan = plan_of(tmp_path, {"postBuild": text})
        data = step(plan, "postbuild/run").data
        assert "windows" in data and "trace" in data and data["interpreter"] == ""
        assert "line ends of Windows" in reason(plan, "postBuild")
