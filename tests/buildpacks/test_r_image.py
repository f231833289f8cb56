"""R for real: a notebook of R's run in the image by Apptainer, and the steps' programs by the image's own R.

CRAN is one of our own making on this machine: the real one's packages change.
"""

from __future__ import annotations

import functools
import io
import json
import shutil
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from checkouts import plan_of, step

from hpcbinder.plan import run_script
from images import Line
from rig import Apptainer, User

pytestmark = [pytest.mark.rig, pytest.mark.heavy]

DESCRIPTION = """\
Package: {name}
Version: {version}
Title: A Package
Description: A package.
Author: A
Maintainer: A <a@example.org>
License: MIT
NeedsCompilation: no
{more}"""


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *arguments: object) -> None:
        pass


def package(place: Path, name: str, version: str, more: str = "") -> None:
    """A source package of R, of one function that says which it is."""
    place.mkdir(parents=True, exist_ok=True)
    files = {
        "DESCRIPTION": DESCRIPTION.format(name=name, version=version, more=more),
        "NAMESPACE": "export(which_one)\n",
        "R/which.R": f'which_one <- function() "{name} {version}"\n',
    }
    with tarfile.open(place / f"{name}_{version}.tar.gz", "w:gz") as tar:
        for path, text in files.items():
            entry = tarfile.TarInfo(f"{name}/{path}")
            entry.size = len(text)
            tar.addfile(entry, io.BytesIO(text.encode()))


@pytest.fixture(scope="module")
def built(line: Line) -> dict[str, Any]:
    return line.build(line.repository("lang-r-python"), "--format", "sif")


@pytest.fixture(scope="module")
def cran(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("cran")
    now = folder / "2023-06-01" / "src" / "contrib"
    package(now, "wave", "1.2")
    package(now, "shore", "1.0", "Imports: wave, digest\n")
    package(now / "Archive" / "wave", "wave", "0.9")
    entries = [DESCRIPTION.format(name="wave", version="1.2", more="")]
    entries.append(DESCRIPTION.format(name="shore", version="1.0", more="Imports: wave, digest\n"))
    (now / "PACKAGES").write_text("\n".join(entries))
    handler = functools.partial(Quiet, directory=str(folder))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/{{date}}"
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_notebook_of_r_runs_in_the_sif(line: Line, user: User, apptainer: Apptainer, built: dict[str, Any]) -> None:
    assert [kernel["name"].rsplit("-", 1)[1] for kernel in built["kernels"]] == ["python3", "ir"]
    checkout = user.home / "lang-r-python"
    shutil.copytree(line.folder / "work" / "lang-r-python", checkout)
    # A person's own R, which is nothing of the image's.
    (user.home / ".Rprofile").write_text('stop("of the host")\n')
    user.own(user.home)
    command = [sys.executable, "-m", "hpcbinder", "--store", str(user.home / "store")]
    environment = {
        "PATH": f"{Path(apptainer.path).parent}:/usr/bin:/bin",
        "HPCBINDER_STORE_SITE": str(line.folder / "store"),
    }
    done = user.run(
        [*command, "verify", built["id"], "--checkout", str(checkout), "--json"],
        env=environment,
        check=False,
        timeout=300,
    )
    told = json.loads(done.stdout)
    assert [(verdict["status"], verdict["kernel"]) for verdict in told["notebooks"]] == [("runs", "ir")], told
    assert (told["runtime"], told["network"], told["passed"]) == ("apptainer", "off", True)


def run_steps(
    line: Line, built: dict[str, Any], cran: str, folder: Path, files: dict[str, str | bytes], *names: str, then: str
) -> subprocess.CompletedProcess[str]:
    """Run steps of a plan in the image, as a build does, and then something else."""
    plan = plan_of(folder / "repo", files)
    commands = []
    for number, name in enumerate(names):
        wanted = step(plan, name)
        place = folder / "steps" / str(number)
        for path in wanted.reads:
            (place / "repo" / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(folder / "repo" / path, place / "repo" / path)
        (place / "files").mkdir(parents=True, exist_ok=True)
        for file, text in wanted.data.items():
            (place / "files" / file).write_text(text)
        (place / "run.sh").write_text(run_script(wanted))
        commands.append(
            f"rm -rf /run/hpcbinder/step && cp -a /run/hpcbinder/given/{number} /run/hpcbinder/step && "
            "rm -rf /run/hpcbinder/work/* && sh -eu /run/hpcbinder/step/run.sh"
        )
    # As in a build nothing can be run from the working folder; that step scripts find out themselves. The steps' files
    # lie where a build's do: elsewhere in the image a step would give what is new (these files too) its fixed time.
    argv = ["docker", "run", "--rm", "--network", "host", "--tmpfs", "/run/hpcbinder/work:noexec"]
    argv += [
        "--volume",
        f"{folder / 'steps'}:/run/hpcbinder/given:ro",
        "--env",
        f"HPCBINDER_CRAN={cran}",
        "--entrypoint",
        "sh",
    ]
    whole = " && ".join([*commands, then])
    return subprocess.run(
        [*argv, built["image"]["name"], "-c", whole],
        env=line.environment,
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_what_debian_does_not_have_comes_from_cran(
    line: Line, built: dict[str, Any], cran: str, tmp_path: Path
) -> None:
    files: dict[str, str | bytes] = {
        "runtime.txt": "r-4.2-2023-06-01",
        "renv.lock": json.dumps({"Packages": {"wave": {"Version": "0.9", "Source": "Repository"}}}),
        "install.R": 'install.packages("shore")\nhere <- readLines("note.txt")\nstopifnot(shore::which_one() == here)',
        "note.txt": "shore 1.0\n",
        "DESCRIPTION": DESCRIPTION.format(name="own", version="0.1", more="Imports: digest\n"),
        "NAMESPACE": "export(high)\n",
        "R/high.R": "high <- function() digest::digest(1)\n",
    }
    then = "Rscript -e 'wave::which_one(); own::high()' && cat /opt/hpcbinder/packages/r.json"
    done = run_steps(line, built, cran, tmp_path, files, "r/packages", "r/install", "r/project", then=then)
    assert done.returncode == 0, done.stderr[-3000:]
    # The lock's version, though CRAN has a newer one; and Debian's digest was not installed again.
    assert '[1] "wave 0.9"\n[1] "' in done.stdout
    assert done.stdout.endswith('[{"name": "shore", "version": "1.0"},\n{"name": "wave", "version": "0.9"}]\n')


def test_what_fails_is_said_with_its_line(line: Line, built: dict[str, Any], cran: str, tmp_path: Path) -> None:
    files: dict[str, str | bytes] = {
        "runtime.txt": "r-4.2-2023-06-01",
        "install.R": 'x <- 1\nif (x > 0) {\n  install.packages("ocean")\n}\n',
    }
    done = run_steps(line, built, cran, tmp_path, files, "r/install", then="true")
    assert done.returncode == 1
    assert "hpcbinder: install.R:2: package ‘ocean’ is not available" in done.stderr
    missing: dict[str, str | bytes] = {"install.R": 'install.packages("ocean")'}
    done = run_steps(line, built, cran, tmp_path / "b", {**files, **missing}, "r/packages", then="true")
    assert done.returncode == 1
    assert "hpcbinder: could not be installed from" in done.stderr and ": ocean (see above)" in done.stderr
