"""Docker: its SDK for the API, its client for building."""

from __future__ import annotations

import json
import os
import stat
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any, BinaryIO

from hpcbinder.engine.dockercli import DockerCli
from hpcbinder.errors import BuildError
from hpcbinder.image import DockerArchive, parse_config
from hpcbinder.model import ImageConfig
from hpcbinder.text import one_line

_TIMEOUT = 600
"""Seconds the daemon may be silent; loading a large image takes it minutes."""


@dataclass(frozen=True)
class DockerImage:
    """An image in a Docker daemon; implements `EngineImage`."""

    name: str
    config: ImageConfig
    engine: DockerEngine
    scratch: Path | None

    @property
    def digest(self) -> str:
        return self.config.digest

    def layers(self, wanted: Collection[str]) -> Iterator[tuple[str, BinaryIO]]:
        """See `EngineImage.layers`: one `docker save` into the scratch folder."""
        if not wanted:
            return
        with tempfile.NamedTemporaryFile(prefix="docker-save-", suffix=".tar", dir=self.scratch) as file:
            self.engine.save(self.config.digest, file)
            file.flush()
            yield from DockerArchive(Path(file.name)).layers(wanted)


class DockerEngine:
    """A Docker daemon; implements `Engine`. Nothing is asked of it before the first call.

    Args:
        host: Its address as in DOCKER_HOST; None for what the environment or Docker's current context say.
        network: Network of build steps, `host` or `default`.
        environ: The environment.
    """

    name = "docker"

    def __init__(
        self, host: str | None = None, *, network: str = "host", environ: Mapping[str, str] = os.environ
    ) -> None:
        self._environ = environ
        self._host = host or environ.get("DOCKER_HOST") or _current_context(environ)
        self._network = network
        self._sdk: Any = None
        self._cli: DockerCli | None = None

    def check(self) -> None:
        """Make sure that it can build.

        Raises:
            BuildError: There is no daemon, it does not let us in, or no client here can use BuildKit.
        """
        self._client()
        self._builder()

    def image(self, ref: str, *, scratch: Path | None = None) -> DockerImage | None:
        """See `Engine.image`."""
        import docker.errors

        with _explained(f"docker does not tell about {ref}"):
            try:
                found = self._client().api.inspect_image(ref)
            except docker.errors.ImageNotFound:
                return None
        return DockerImage(ref, _config(found), self, scratch)

    def load(self, archive: Path, tag: str) -> None:
        """See `Engine.load`."""
        wanted = DockerArchive(archive).config
        present = self.image(tag)
        if present is not None and replace(present.config, digest="") == replace(wanted, digest=""):
            return
        with _explained(f"docker does not load {archive.name}"), archive.open("rb") as file:
            loaded = self._client().images.load(file)
            if not any(tag in image.tags for image in loaded):
                repository, _, version = tag.rpartition(":")
                loaded[0].tag(repository, version)

    def build(
        self,
        write_context: Callable[[BinaryIO], None],
        *,
        tag: str,
        target: str | None = None,
        secrets: Mapping[str, bytes] | None = None,
        log: Callable[[str], None] | None = None,
        scratch: Path | None = None,
        titles: Mapping[str, str] | None = None,
    ) -> DockerImage:
        """See `Engine.build`."""
        self._client()
        digest = self._builder().build(
            write_context,
            tag=tag,
            target=target,
            network=self._network,
            secrets=secrets or {},
            log=log or (lambda line: None),
            titles=titles or {},
            scratch=scratch,
        )
        image = self.image(digest, scratch=scratch) or self.image(tag, scratch=scratch)
        if image is None:
            raise BuildError(f"docker built {tag} but does not have it")
        return replace(image, name=tag)

    def remove(self, ref: str) -> None:
        """See `Engine.remove`."""
        import docker.errors

        with _explained(f"docker does not remove {ref}"):
            try:
                self._client().api.remove_image(ref)
            except docker.errors.ImageNotFound:
                pass

    def save(self, ref: str, out: IO[bytes]) -> None:
        """Write an image as `docker save` does.

        Raises:
            BuildError: The daemon fails, or there is no space for it.
        """
        with _explained(f"docker does not export {ref}"):
            for block in self._client().api.get_image(ref):
                out.write(block)

    def _client(self) -> Any:
        if self._sdk is None:
            _check_socket(self._host)
            import docker

            environment = {**self._environ, "DOCKER_HOST": self._host}
            with _explained(f"no Docker daemon answers at {self._host}"):
                client = docker.from_env(
                    environment=environment, timeout=_TIMEOUT, use_ssh_client=self._host.startswith("ssh://")
                )
                client.ping()
            self._sdk = client
        return self._sdk

    def _builder(self) -> DockerCli:
        if self._cli is None:
            self._cli = DockerCli.find(self._host, self._environ)
        return self._cli


def _config(found: Mapping[str, Any]) -> ImageConfig:
    """From the API's image (`GET /images/{name}/json`) to OCI terms."""
    config = found.get("Config") or {}
    oci = {
        "architecture": found.get("Architecture") or "",
        "os": found.get("Os") or "linux",
        "created": found.get("Created") or "",
        "config": {key: value for key, value in config.items() if value is not None},
        "rootfs": {"type": "layers", "diff_ids": (found.get("RootFS") or {}).get("Layers") or []},
    }
    return replace(parse_config(json.dumps(oci).encode()), digest=str(found["Id"]))


def _current_context(environ: Mapping[str, str]) -> str:
    """Address of Docker's current context (`docker context use`), as the client would take it."""
    import docker.context
    import docker.errors

    try:
        name = environ.get("DOCKER_CONTEXT") or None
        context = (
            docker.context.ContextAPI.get_context(name) if name else docker.context.ContextAPI.get_current_context()
        )
        host = context.Host if context is not None else None
    except (docker.errors.DockerException, OSError, ValueError, KeyError):
        host = None
    return str(host or "unix:///var/run/docker.sock").replace("http+unix://", "unix://")


def _check_socket(host: str) -> None:
    """Say plainly what the SDK buries in a chain of exceptions."""
    if not host.startswith("unix://"):
        return
    path = Path(host.removeprefix("unix://"))
    try:
        is_socket = stat.S_ISSOCK(path.stat().st_mode)
    except PermissionError:
        is_socket = True
    except OSError:
        is_socket = False
    if not is_socket:
        raise BuildError(
            f"no Docker daemon at {host}",
            hint="start one, or name yours in build.dockerd or DOCKER_HOST",
        )
    if not os.access(path, os.R_OK | os.W_OK):
        raise BuildError(
            f"you may not use the Docker daemon at {host}",
            hint="ask to be put into the group that owns the socket, or run rootless Docker",
        )


@contextmanager
def _explained(what: str) -> Iterator[None]:
    """Turn what the SDK and the system raise into one BuildError."""
    import docker.errors
    import requests.exceptions

    try:
        yield
    except docker.errors.APIError as error:
        raise BuildError(f"{what}: {one_line(str(error.explanation or error), 500)}") from error
    except (docker.errors.DockerException, requests.exceptions.RequestException) as error:
        raise BuildError(f"{what}: {one_line(str(error), 500)}") from error
    except OSError as error:
        raise BuildError(f"{what}: {error.strerror or error}") from error
