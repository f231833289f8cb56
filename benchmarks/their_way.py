"""repo2docker's way to an image, for `benchmarks.environment`: its application, its pack's rendering, its engine.

One thing is replaced: where its Python pack makes a conda environment from a frozen list, this makes a venv with the
notebook server from PyPI. Conda's channels are not reached from everywhere, and the step is in the layer cache long
before anything is measured; what follows it (the requirements with its pip, the repository, labels) is repo2docker's
own. Its engine asks for the buildx plugin; this one gives the same arguments to any client that drives BuildKit.

    python -m benchmarks.their_way SOURCE IMAGE_NAME BASE_IMAGE
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from typing import Any

from repo2docker.app import Repo2Docker
from repo2docker.buildpacks import PythonBuildPack
from repo2docker.buildpacks.base import BaseImage
from repo2docker.contentproviders import Git, Local
from repo2docker.docker import DockerEngine

from hpcbinder.engine.dockercli import DockerCli

NOTEBOOK = (
    "ipywidgets==8.* jupyter-resource-usage==1.* jupyter_server==2.* jupyterhub==5.* jupyterlab==4.* notebook==7.*"
)
"""What repo2docker's own environment is made of (buildpacks/conda/environment.yml)."""


class VenvBuildPack(PythonBuildPack):
    """Its Python pack with a venv of the base's interpreter instead of conda's."""

    def get_build_env(self) -> list[tuple[str, str]]:
        prefix = [(name, "${APP_BASE}/venv") for name in ("NB_PYTHON_PREFIX", "KERNEL_PYTHON_PREFIX")]
        return [*BaseImage.get_build_env(self), *prefix]

    def get_env(self) -> list[tuple[str, str]]:
        return []

    def get_path(self) -> list[str]:
        return ["${NB_PYTHON_PREFIX}/bin"]

    def get_build_script_files(self) -> dict[str, str]:
        return {}

    def get_build_scripts(self) -> list[tuple[str, str]]:
        install = f"${{NB_PYTHON_PREFIX}}/bin/pip install --no-cache-dir {NOTEBOOK}".replace("*", "\\*")
        make = f"python3 -m venv ${{NB_PYTHON_PREFIX}} && {install}"
        return [("root", f"{make} && chown -R ${{NB_USER}}:${{NB_USER}} ${{NB_PYTHON_PREFIX}}")]


class Engine(DockerEngine):  # type: ignore[misc]
    """Its engine with `docker build` of a client that has BuildKit in it, where there is no plugin."""

    @property
    def container_cli(self) -> str:
        return DockerCli.find(os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock")).program

    def build(self, **arguments: Any) -> Iterator[str]:
        import repo2docker.docker

        def run(command: list[str], capture: bool) -> Any:
            program, _, *rest = command
            return execute([program, *rest], capture)

        execute, repo2docker.docker.execute_cmd = repo2docker.docker.execute_cmd, run
        os.environ["DOCKER_BUILDKIT"] = "1"
        yield from super().build(**arguments)


class Application(Repo2Docker):  # type: ignore[misc]
    def get_engine(self) -> Engine:
        return Engine(parent=self)


def main(source: str, image: str, base: str) -> None:
    """Fetch the repository and build its image."""
    app = Application()
    app.buildpacks = [VenvBuildPack]
    app.content_providers = [Local, Git]  # its other ones would ask the network whose URL this is
    app.base_image = base
    app.repo = source
    app.output_image_spec = image
    app.user_id, app.user_name = 1000, "jovyan"
    app.run = False
    app.config.DockerEngine.extra_buildx_build_args = ["--network=host"]
    app.initialize()
    app.start()


if __name__ == "__main__":
    main(*sys.argv[1:])
