"""The top-level Dockerfile: built on the base that our images stand on, and good for what docs/container.md says."""

from __future__ import annotations

import json
import os
import re
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from hpcbinder.config import load
from hpcbinder.engine import site_secrets
from images import Line
from rig import Dockerd

ROOT = Path(__file__).parent.parent
BUILDING = [
    "--cap-add=SYS_ADMIN",
    *(f"--security-opt={name}=unconfined" for name in ("seccomp", "apparmor", "systempaths")),
]
"""What docs/container.md says a build needs."""


class Own:
    """Our image in the rig's Docker.

    Attributes:
        tag: Its name.
    """

    tag = "localhost/hpcbinder-own:test"

    def __init__(self, dockerd: Dockerd, line: Line) -> None:
        self._docker = [str(dockerd.client)]
        self._environment = {**os.environ, **dockerd.environment, "DOCKER_BUILDKIT": "1"}
        self._line = line

    def docker(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [*self._docker, *arguments], env=self._environment, capture_output=True, text=True, timeout=900
        )
        assert not check or done.returncode == 0, done.stdout[-2000:] + done.stderr[-6000:]
        return done

    def build(self, base: str, secrets: Path) -> None:
        words = [f"--secret=id={file.name},src={file}" for file in secrets.iterdir()]
        self.docker("build", "--network=host", f"--build-arg=BASE={base}", f"--tag={self.tag}", *words, str(ROOT))

    def run(
        self, *arguments: str, options: list[str] | None = None, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Run hpcbinder in it, with the site's certificates and index as a person would hand them in."""
        site = load().site
        words = ["--rm", "--network=host"]
        if site.ca_certificates:
            words += [f"--volume={site.ca_certificates}:/ca.pem:ro", "--env=SSL_CERT_FILE=/ca.pem"]
        if site.pip_index_url:
            words += [f"--env=PIP_INDEX_URL={site.pip_index_url}"]
        words += [
            f"--env={name}={os.environ[name]}"
            for name in ("http_proxy", "https_proxy", "no_proxy")
            if os.environ.get(name)
        ]
        words += [f"--volume={self._line.folder}/store:/site:ro", "--env=HPCBINDER_STORE_SITE=/site"]
        words += [f"--volume={self._line.folder}/git:/git:ro"]
        return self.docker("run", *words, *(options or []), self.tag, *arguments, check=check)

    def files(self) -> list[str]:
        """Paths of all its files."""
        container = self.docker("create", self.tag).stdout.strip()
        command = [*self._docker, "export", container]
        try:
            with (
                subprocess.Popen(command, env=self._environment, stdout=subprocess.PIPE) as export,
                tarfile.open(fileobj=export.stdout, mode="r|") as tree,
            ):
                return [member.name for member in tree]
        finally:
            self.docker("rm", container)


@pytest.fixture(scope="module")
def own(dockerd: Dockerd, line: Line, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Own]:
    # An image built here leaves the base in the engine, and in the store.
    line.build(line.repository("plain"), "--no-register", "--format", "squashfs")
    listed = json.loads(line.hpcbinder("list", "--json").stdout)
    assert listed
    made = Own(dockerd, line)
    bases = made.docker("images", "--format", "{{.Repository}}:{{.Tag}}", "localhost/hpcbinder/base").stdout.split()
    secrets = tmp_path_factory.mktemp("secrets")
    for name, content in site_secrets(load().site, suite="bookworm").items():
        if not name.endswith("-public"):
            (secrets / name).write_bytes(content)
    made.build(next(base for base in bases if ":bookworm-" in base), secrets)
    yield made
    made.docker("rmi", "--force", made.tag)


def test_the_page_says_what_a_build_needs() -> None:
    page = (ROOT / "docs/container.md").read_text().replace("\\\n", " ")
    (command,) = re.findall(r"^docker run .*--cap-add.*$", page, re.MULTILINE)
    options = re.findall(r"--(?:cap-add|security-opt) \S+", command)
    assert [option.replace(" ", "=", 1) for option in options] == BUILDING


@pytest.mark.heavy
def test_it_plans_without_any_privilege(own: Own, line: Line) -> None:
    assert own.run("--version").stdout.startswith("hpcbinder, version ")
    plan = own.run("plan", f"file:///git/{Path(line.repository('plain')).name}").stdout
    assert "debian:bookworm" in plan
    # Of the site nothing stays in it.
    names = own.files()
    assert "opt/hpcbinder-cli/bin/hpcbinder" in names
    assert not [name for name in names if name.startswith(("run/hpcbinder/site/", "src/", "root/.cache/pip"))]


@pytest.mark.heavy
def test_it_builds_with_what_the_docs_say_it_needs(own: Own, line: Line) -> None:
    source = f"file:///git/{Path(line.repository('plain')).name}"
    command = ["build", source, "--no-register", "--format", "squashfs", "--json"]
    refused = own.run(*command, check=False)
    assert refused.returncode == 5, refused.stderr
    built = json.loads(own.run(*command, options=BUILDING).stdout)
    assert built["image"]["engine"] == "buildah"
    assert set(built["formats"]) == {"squashfs"}
