"""Docker: its SDK for the API, its client for building."""

from __future__ import annotations

import json
import os
import re
import stat
import tempfile
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import IO, Any, BinaryIO

from hpcbinder.engine.api import Foreign
from hpcbinder.engine.dockercli import DockerCli
from hpcbinder.errors import BuildError, ConvertError
from hpcbinder.image import DockerArchive, parse_config, uncompressed
from hpcbinder.model import ImageConfig
from hpcbinder.progress import Reporter, Silent
from hpcbinder.text import one_line

_FIXED_TIME = 1577836800
"""Unix time (s), 1 January 2020: what we load was "created" then, or never. Without any other time it counts as new."""

_EXPORT_GAIN = 5
"""How many times as many bytes are exported (`docker save`) as pushed in the same CPU time: what is pushed, the daemon
compresses. Measured for 522 MB, with ours: 5.0 s and 27 s."""

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
        """See `EngineImage.layers`: one `docker save` into the scratch folder where most of the image is wanted, or the
        daemon cannot push; else what is wanted is pushed."""
        if missing := sorted(set(wanted) - set(self.config.diff_ids)):
            raise ConvertError(f"the image has no layer {missing[0]}", where=self.name)
        if not wanted:
            return
        with tempfile.TemporaryDirectory(prefix="docker-layers-", dir=self.scratch) as name:
            folder = Path(name)
            files = None if self.engine.is_most(self, wanted) else self.engine.pushed(self, wanted, folder)
            if files is None:
                archive = folder / "image.tar"
                with archive.open("wb") as out:
                    self.engine.save(self.config.digest, out)
                yield from DockerArchive(archive).layers(wanted)
            else:
                for diff_id, path in files.items():
                    with path.open("rb", buffering=0) as file, uncompressed(file, diff_id) as stream:
                        yield diff_id, stream
                    path.unlink()


class DockerEngine:
    """A Docker daemon; implements `Engine`. Nothing is asked of it before the first call.

    Args:
        host: Its address as in DOCKER_HOST; None for what the environment or Docker's current context say.
        network: Network of build steps, `host` or `default`.
        environ: The environment.
        reporter: Hears how layers come out of it.
    """

    name = "docker"

    def __init__(
        self,
        host: str | None = None,
        *,
        network: str = "host",
        environ: Mapping[str, str] = os.environ,
        reporter: Reporter | None = None,
    ) -> None:
        self._environ = environ
        self._host = host or environ.get("DOCKER_HOST") or _current_context(environ)
        self._network = network
        self._reporter = reporter or Silent()
        self._sdk: Any = None
        self._cli: DockerCli | None = None

    def check(self) -> None:
        """Make sure that it can build.

        Raises:
            BuildError: There is no daemon, it does not let us in, or no client here can use BuildKit.
        """
        with _explained("docker does not tell its version"):
            parts = self._client().version().get("Components") or ()
        if any("podman" in str(part.get("Name")).lower() for part in parts):
            raise BuildError(
                f"at {self._host} podman answers, which has no BuildKit", hint="--engine podman, or unset DOCKER_HOST"
            )
        self._builder()

    def check_offline(self) -> None:
        """See `Engine.check_offline`: it always can."""

    @property
    def rootful(self) -> bool:
        """Whether the daemon runs build steps as the machine's root."""
        return not any("name=rootless" in option for option in self._info().get("SecurityOptions") or ())

    @property
    def description(self) -> str:
        """`docker 20.10.24, as root`."""
        return f"docker {self._info().get('ServerVersion') or ''}, {'as root' if self.rootful else 'rootless'}"

    @property
    def warning(self) -> str | None:
        """Nothing that a person should know about it."""
        return None

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
            repository, _, version = tag.rpartition(":")
            # Also if it has the tag already: only now does the daemon note when it got it (see `tags`).
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
        foreign: Foreign | None = None,
        network: bool = True,
    ) -> DockerImage:
        """See `Engine.build`."""
        self._client()
        digest = self._builder().build(
            write_context,
            tag=tag,
            target=target,
            network=self._network if network else "none",
            secrets=secrets or {},
            log=log or (lambda line: None),
            titles=titles or {},
            scratch=scratch,
            foreign=foreign,
        )
        image = self.image(digest, scratch=scratch) or self.image(tag, scratch=scratch)
        if image is None:
            raise BuildError(f"docker built {tag} but does not have it")
        return replace(image, name=tag)

    def tags(self) -> list[tuple[str, int, float]]:
        """See `Engine.tags`."""
        import docker.errors

        found = []
        with _explained("docker does not tell what it has"):
            api = self._client().api
            for image in api.images():
                if not image.get("RepoTags"):
                    continue
                try:
                    tagged = (api.inspect_image(image["Id"]).get("Metadata") or {}).get("LastTagTime") or ""
                except docker.errors.ImageNotFound:  # it went meanwhile
                    continue
                created = max(float(image["Created"]), _unix_time(tagged))
                if created <= _FIXED_TIME:
                    created = time.time()
                found += [(str(tag), int(image["Size"]), created) for tag in image["RepoTags"]]
        return found

    def remove(self, ref: str) -> None:
        """See `Engine.remove`."""
        import docker.errors

        with _explained(f"docker does not remove {ref}"):
            try:
                self._client().api.remove_image(ref)
            except docker.errors.ImageNotFound:
                pass

    def is_most(self, image: DockerImage, wanted: Collection[str]) -> bool:
        """Whether to export all of an image costs less than to have the wanted layers pushed."""
        config = image.config
        missing = set(config.diff_ids) - set(wanted)
        if missing:
            with _explained("docker does not tell what the image is made of"):
                steps = self._client().api.history(config.digest)
            sizes = [int(step["Size"]) for step in reversed(steps) if step.get("Size")]
            if len(sizes) != len(config.diff_ids):  # layers of no bytes: which step made which cannot be told
                return False
            size = sum(size for diff_id, size in zip(config.diff_ids, sizes, strict=True) if diff_id in wanted)
            if size * _EXPORT_GAIN < sum(sizes):
                return False
        self._reporter.phase("convert", f"taking all layers out of docker ({len(wanted)} are new)")
        return True

    def pushed(self, image: DockerImage, wanted: Collection[str], folder: Path) -> Mapping[str, Path] | None:
        """Layers of an image as compressed files in a folder, see `pushed_layers`; None if they cannot be had so."""
        from hpcbinder.engine.pushed import pushed_layers

        config = image.config
        what = f"taking {len(wanted)} new layer{'s' * (len(wanted) != 1)} out of docker"
        try:
            with _explained("docker does not push"):
                api = self._client().api
                if not api.inspect_image(config.digest).get("RepoTags"):
                    # The tag it is pushed by would be its only one, and it would go with it.
                    raise BuildError("an image without a name is not pushed")
                return pushed_layers(
                    api,
                    config.digest,
                    config.diff_ids,
                    wanted,
                    folder,
                    progress=lambda done: self._reporter.phase("convert", what, done),
                )
        except BuildError as error:
            self._reporter.log("convert", f"{error.message}: all of the image is exported instead")
            return None

    def save(self, ref: str, out: IO[bytes]) -> None:
        """Write an image as `docker save` does.

        Raises:
            BuildError: The daemon fails.
            ConvertError: `out` cannot be written.
        """
        with _explained(f"docker does not export {ref}"):
            for block in self._client().api.get_image(ref):
                try:
                    out.write(block)
                except OSError as error:  # the client's own errors are such too
                    raise ConvertError(f"the exported image cannot be written: {error.strerror}") from error

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

    def _info(self) -> Mapping[str, Any]:
        with _explained("docker does not tell what it is"):
            info: Mapping[str, Any] = self._client().info()
            return info

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


def _unix_time(text: str) -> float:
    """Of an RFC 3339 time as Go writes it (nanoseconds, `0001-01-01T00:00:00Z` for never); 0 if it is none."""
    match = re.match(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.\d+)?(Z|[+-]\d\d:\d\d)\Z", text)
    if match is None or match[1].startswith("0001"):
        return 0.0
    return datetime.fromisoformat(match[1] + match[2].replace("Z", "+00:00")).timestamp()


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
