"""One line more in the requirements of a repository with 40 packages: from command start to the kernel, and what a
second repository with the same requirements costs. Against repo2docker's way on the same daemon, in the same run.

Everything that a person who has worked with the repository before would have warm is warm on both sides: the base, the
notebook server, the layer caches, the image of the repository as it was before. (A salt below everything keeps layers
of earlier runs out of it.) Then, in each round, one more small pure-Python package is asked for, and measured is

- ours: `hpcbinder build`, to the registered kernel, files for Apptainer and others included;
- theirs: repo2docker (see `their_way.py` for what is replaced in it and why), to the image in the daemon;
- what then takes it to a cluster: `apptainer build` of that image;
- ours again, for another repository with the same requirements.

    python -m benchmarks.environment [--rounds N]

Uses the daemon of DOCKER_HOST, else the tests' rig's, and takes away what it made there, with all that came into the
build cache meanwhile. Some 8 GB of disk are needed for a while.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import docker

from hpcbinder.config import SiteConfig, load, mirrors
from hpcbinder.debian import sources_list
from hpcbinder.engine.dockercli import DockerCli
from tests.rig import Rig, RigError
from tests.rig.githttp import commit_folder

PACKAGES = """\
beautifulsoup4==4.13.4 certifi==2025.4.26 charset-normalizer==3.4.2 contourpy==1.3.2 cycler==0.12.1
et-xmlfile==2.0.0 fonttools==4.58.0 h5py==3.13.0 idna==3.10 jinja2==3.1.6 joblib==1.5.1 kiwisolver==1.4.8
markupsafe==3.0.2 matplotlib==3.10.3 mpmath==1.3.0 networkx==3.4.2 numpy==2.2.6 openpyxl==3.1.5 packaging==25.0
pandas==2.2.3 patsy==1.0.1 pillow==11.2.1 pyparsing==3.2.3 python-dateutil==2.9.0.post0 pytz==2025.2 pyyaml==6.0.2
requests==2.32.3 scikit-learn==1.6.1 scipy==1.15.3 seaborn==0.13.2 six==1.17.0 soupsieve==2.7 statsmodels==0.14.4
sympy==1.14.0 threadpoolctl==3.6.0 tqdm==4.67.1 typing-extensions==4.13.2 tzdata==2025.2 urllib3==2.4.0
xarray==2025.4.0
"""
"""What a person's `pip freeze` said: 40 packages, with all that they need."""

MORE = ("humanize==4.12.3", "tabulate==0.9.0", "more-itertools==10.7.0", "toolz==1.0.0", "inflection==0.5.1")
"""One a round."""


class Repository:
    """A git repository with a notebook and requirements."""

    def __init__(self, folder: Path, name: str) -> None:
        self._work = folder / f"{name}-work"
        self._git = folder / f"{name}.git"
        self._work.mkdir()
        (self._work / "README.md").write_text(f"# {name}\n")
        self.url = f"file://{self._git}"

    def commit(self, packages: list[str]) -> None:
        """A commit with these requirements."""
        (self._work / "requirements.txt").write_text("".join(f"{line}\n" for line in packages))
        commit_folder(self._work, self._git, message="as it is")


class Machine:
    """Where both sides build.

    Args:
        folder: Scratch.
        environment: That of a person, with DOCKER_HOST.
    """

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self.folder = folder
        self.environment = dict(environment)
        self.logs = folder / "logs"
        self.logs.mkdir()

    def seconds(self, *command: str) -> tuple[float, str]:
        """Wall seconds of a command, and what it wrote to stdout."""
        log = self.logs / f"{time.monotonic_ns()}.log"
        start = time.perf_counter()
        with log.open("w") as errors:
            done = subprocess.run(command, env=self.environment, stdout=subprocess.PIPE, stderr=errors, text=True)
        wall = time.perf_counter() - start
        if done.returncode:
            sys.exit(f"{' '.join(command)}: exit {done.returncode}\n{log.read_text()[-3000:]}{done.stdout[-3000:]}")
        return wall, done.stdout

    def ours(self, url: str) -> tuple[float, dict[str, Any]]:
        """`hpcbinder build`: wall seconds, and its result."""
        command = [sys.executable, "-m", "hpcbinder", "--store", str(self.folder / "store"), "build", url, "--json"]
        wall, out = self.seconds(*command, "--prefix", str(self.folder / "jupyter"))
        return wall, json.loads(out)

    def theirs(self, url: str, image: str, base: str) -> float:
        """repo2docker's way to an image: wall seconds."""
        return self.seconds(sys.executable, "-m", "benchmarks.their_way", url, image, base)[0]


def salt_ours(folder: Path, salt: str) -> None:
    """A buildpack with a step below all others, which makes this run's layers its own."""
    folder.mkdir(parents=True)
    (folder / "buildpack.toml").write_text(
        'api = 1\nname = "salt"\nversion = "1"\nsummary = "Layers of this run alone"\norder = 1\n'
    )
    (folder / "pack.py").write_text(
        "from hpcbinder.plan import Draft, Repo, Stage\n\n\n"
        "def plan(repo: Repo, draft: Draft) -> None:\n"
        '    script = "mkdir -p /opt/salt; cp /run/hpcbinder/step/files/salt /opt/salt/; settle /opt/salt"\n'
        f'    draft.add_step(Stage.SYSTEM, "salt", "this run", script, data={{"salt": "{salt}"}})\n'
    )


def their_base(machine: Machine, url: str, site: SiteConfig, tag: str, salt: str) -> None:
    """Our base, with the site's certificates and mirrors in it: repo2docker knows no other way to tell them a step."""
    plan = machine.seconds(sys.executable, "-m", "hpcbinder", "plan", url, "--format", "dockerfile")[1]
    found = re.search(r"^FROM (\S+) AS server$", plan, re.M)
    assert found is not None
    folder = machine.folder / "base"
    folder.mkdir()
    lines = [f"FROM {found[1]}", f"LABEL salt={salt}", "COPY salt /opt/salt"]
    (folder / "salt").write_text(salt)
    if site.ca_certificates is not None:
        (folder / "ca.pem").write_bytes(site.ca_certificates.read_bytes())
        lines += ["COPY ca.pem /etc/ssl/certs/ca-certificates.crt", "ENV PIP_CERT=/etc/ssl/certs/ca-certificates.crt"]
    if site.apt_mirror or site.apt_security_mirror:
        (folder / "sources.list").write_text(sources_list("bookworm", mirrors(site)))
        lines += ["RUN rm -f /etc/apt/sources.list.d/*", "COPY sources.list /etc/apt/sources.list"]
    values = {"PIP_INDEX_URL": site.pip_index_url, "http_proxy": site.http_proxy, "https_proxy": site.https_proxy}
    lines += [f"ENV {name}={value}" for name, value in values.items() if value]
    (folder / "Dockerfile").write_text("\n".join([*lines, ""]))
    client = DockerCli.find(machine.environment["DOCKER_HOST"], machine.environment).program
    machine.seconds("env", "DOCKER_BUILDKIT=1", client, "build", f"--tag={tag}", str(folder))


@contextlib.contextmanager
def left_clean(environment: Mapping[str, str]) -> Iterator[None]:
    """Take away, at the end, the tags that came meanwhile, of both images and of what ours stand on; and what came
    into the build cache, which is gigabytes."""
    api = docker.from_env(environment=dict(environment), timeout=600).api

    def tags() -> dict[str, list[str]]:
        """Tag -> the image's layers."""
        names = [tag for image in api.images() for tag in image.get("RepoTags") or () if tag.startswith("localhost/")]
        return {name: api.inspect_image(name)["RootFS"].get("Layers") or [] for name in names}

    def records() -> set[str]:
        return {record["ID"] for record in api.df().get("BuildCache") or ()}

    tags_before, records_before = tags(), records()
    try:
        yield
    finally:
        new = {name: layers for name, layers in tags().items() if name not in tags_before}
        images = [name for name in new if re.match(r"localhost/(theirs/|hpcbinder/(first|second):)", name)]
        for name, layers in new.items():
            below = any(new[image][: len(layers)] == layers for image in images)
            if name in images or (name.startswith("localhost/hpcbinder/env:") and below):
                api.remove_image(name)
        while going := records() - records_before:  # one that others stand on goes when those are gone
            gone = [api.prune_builds(filters={"id": [record]}, all=True)["CachesDeleted"] for record in sorted(going)]
            if not any(gone):
                break


def measure(machine: Machine, apptainer: str | None, rounds: int) -> list[dict[str, float]]:
    """Warm everything up, then the rounds: what -> wall seconds."""
    site, salt = load({}).site, uuid.uuid4().hex
    salt_ours(machine.folder / "packs/salt", salt)
    machine.environment["HPCBINDER_BUILDPACKS_PATH"] = str(machine.folder / "packs")
    first, second = Repository(machine.folder, "first"), Repository(machine.folder, "second")
    packages = PACKAGES.split()
    first.commit(packages)
    wall, _ = machine.ours(first.url)
    print(f"ours, for the first time in a new store: {wall:.1f} s", flush=True)
    base = "localhost/theirs/base:benchmark"
    their_base(machine, first.url, site, base, salt)
    wall = machine.theirs(first.url, "localhost/theirs/first:0", base)
    print(f"theirs, for the first time: {wall:.1f} s", flush=True)
    found = []
    for number, package in enumerate(MORE[:rounds], start=1):
        packages.append(package)
        first.commit(packages)
        second.commit(packages)
        image = f"localhost/theirs/first:{number}"
        row: dict[str, float] = {}
        row["ours"], result = machine.ours(first.url)
        print(f"one package more: {result['timings']}", flush=True)
        row["second"], result = machine.ours(second.url)
        print(f"second repository: {result['timings']}", flush=True)
        row["theirs"] = machine.theirs(first.url, image, base)
        if apptainer is not None:
            sif = str(machine.folder / "theirs.sif")
            row["apptainer"] = machine.seconds(apptainer, "build", "--force", sif, f"docker-daemon:{image}")[0]
        print(f"round {number}: {', '.join(f'{name} {wall:.1f} s' for name, wall in row.items())}", flush=True)
        found.append(row)
    return found


def report(rows: list[dict[str, float]]) -> None:
    """Print medians and ratios."""
    middle = {name: statistics.median(row[name] for row in rows) for name in rows[0]}
    theirs, whole = middle["theirs"], middle["theirs"] + middle.get("apptainer", 0.0)
    lines = [
        ("one package more: hpcbinder build, to the kernel", middle["ours"]),
        ("  repo2docker's way, to the image", theirs),
        *([("  the same, then apptainer build", whole)] if "apptainer" in middle else []),
        ("second repository: hpcbinder build, to the kernel", middle["second"]),
    ]
    print(f"\n{'':<52}{'wall':>8}{'ratio':>9}")
    for label, seconds in lines:
        print(f"{label:<52}{seconds:>7.1f}s{seconds / middle['ours']:>8.1f}x")


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, choices=range(1, len(MORE) + 1), default=2)
    rounds = parser.parse_args().rounds
    with contextlib.ExitStack() as stack:
        environment = {**os.environ, "CI": "1"}
        for name in ("PIP_FIND_LINKS", "PIP_CONFIG_FILE"):
            environment.pop(name, None)
        rig = Rig()
        if "DOCKER_HOST" not in environment:
            stack.enter_context(rig.borrowed("dockerd"))
            environment.update(rig.dockerd.environment)
        apptainer = None
        with contextlib.suppress(RigError):
            stack.enter_context(rig.borrowed("apptainer"))
            apptainer = str(rig.apptainer.path)
            environment["PATH"] = f"{rig.apptainer.bin}:{environment['PATH']}"
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="hpcbinder-benchmark-")))
        stack.enter_context(left_clean(environment))
        rows = measure(Machine(folder, environment), apptainer, rounds)
    report(rows)


if __name__ == "__main__":
    main()
