"""The docker program, for the one thing the SDK cannot do: building with BuildKit."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, BinaryIO, cast

from hpcbinder import process
from hpcbinder.engine.api import Foreign
from hpcbinder.engine.buildlog import BuildLog
from hpcbinder.engine.secrets import passwords, secret_files
from hpcbinder.errors import BuildError

_LINE_LIMIT = 64 * 1024
_ENDING = signal.SIGKILL
"""The client of 20.10 ignores SIGTERM while a step runs; the daemon ends a build whose client is gone."""

_KEPT = ("PATH", "HOME", "XDG_RUNTIME_DIR", "SSH_AUTH_SOCK", "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH", "no_proxy")


class DockerCli:
    """A docker client that can drive BuildKit.

    Args:
        program: Path of the client.
        host: Address of the daemon.
        environ: Where PATH, HOME and the settings of TLS come from.
    """

    def __init__(self, program: str, host: str, environ: Mapping[str, str]) -> None:
        self.program = program
        self._host = host
        self._environ = environ

    @classmethod
    def find(cls, host: str, environ: Mapping[str, str] = os.environ) -> DockerCli:
        """The first client on PATH that can: one with the buildx plugin, or one before 23.0, which has BuildKit in it.

        Raises:
            BuildError: There is none.
        """
        seen = []
        for program in _programs(environ):
            cli = cls(program, host, environ)
            version = cli._version()
            if version is not None and (version < (23,) or cli._has_buildx()):
                return cli
            seen.append(f"{program} ({'no buildx' if version else 'not Docker'})")
        if not seen:
            raise BuildError("Docker's client is not installed", hint="install docker-cli or docker.io, 20.10 or newer")
        raise BuildError(
            f"no docker client here can use BuildKit: {', '.join(seen)}",
            hint="install the package docker-buildx (or docker-buildx-plugin)",
        )

    def build(
        self,
        write_context: Callable[[BinaryIO], None],
        *,
        tag: str,
        target: str | None,
        network: str,
        secrets: Mapping[str, bytes],
        log: Callable[[str], None],
        titles: Mapping[str, str],
        scratch: Path | None,
        foreign: Foreign | None = None,
    ) -> str:
        """Build, and return the image's id. See `Engine.build`.

        Args:
            network: `host`, `default` or `none`.
        """
        output = BuildLog(log, titles, passwords(secrets))
        with self._config(scratch) as config, secret_files(secrets) as (paths, handles):
            id_file = config / "image-id"
            argv = [self.program, "build", "--progress=plain", f"--network={network}", f"--tag={tag}"]
            argv += [f"--target={target}"] if target else []
            argv += ["--no-cache"] if network == "none" else []
            argv += [f"--iidfile={id_file}"]
            if foreign is not None:
                argv += [f"--file={foreign.path}"]
                argv += [f"--build-arg={name}={value}" for name, value in sorted(foreign.arguments.items())]
            argv += [f"--secret=id={name},src={path}" for name, path in sorted(paths.items())]
            child = process.start(
                [*argv, "-"], env=self._env(config), stdin=subprocess.PIPE, pass_fds=handles, ending=_ENDING
            )
            context = _Context(write_context, cast(IO[bytes], child.stdin), child)
            try:
                assert child.stdout is not None
                while line := child.stdout.readline(_LINE_LIMIT):
                    output.feed(line)
                code = child.wait()
            finally:
                process.stop(child, _ENDING)
                context.join()
            context.raise_error()
            if code != 0:
                raise output.failure(code)
            return id_file.read_text().strip()

    def _version(self) -> tuple[int, ...] | None:
        """Version of the client; None when it is something else under its name (podman has such a script)."""
        said = self._ask("--version")
        match = re.match(r"Docker version (\d+)\.(\d+)", said or "")
        return (int(match[1]), int(match[2])) if match else None

    def _has_buildx(self) -> bool:
        return self._ask("buildx", "version") is not None

    def _ask(self, *argv: str) -> str | None:
        with self._config() as config:
            try:
                done = subprocess.run(
                    [self.program, *argv],
                    env=self._env(config),
                    stdin=subprocess.DEVNULL,
                    capture_output=True,
                    text=True,
                    errors="replace",
                    timeout=30,
                )
            except (OSError, subprocess.TimeoutExpired):
                return None
        return done.stdout if done.returncode == 0 else None

    def _env(self, config: Path) -> dict[str, str]:
        return {
            **{name: self._environ[name] for name in _KEPT if name in self._environ},
            "DOCKER_HOST": self._host,
            "DOCKER_CONFIG": str(config),
            "DOCKER_BUILDKIT": "1",
            "DOCKER_CLI_HINTS": "false",
            # The daemon's own builder, whatever the person chose elsewhere: only that one sees the daemon's images.
            "BUILDX_BUILDER": "default",
            "BUILDX_NO_DEFAULT_ATTESTATIONS": "1",
        }

    @contextmanager
    def _config(self, place: Path | None = None) -> Iterator[Path]:
        """A configuration of our own: the person's may name proxies and registries, credentials included, which the
        client would hand to every step. Only where plugins lie is kept."""
        with tempfile.TemporaryDirectory(prefix="hpcbinder-docker-", dir=place) as name:
            folder = Path(name)
            theirs = self._environ.get("DOCKER_CONFIG") or f"{self._environ.get('HOME', '')}/.docker"
            (folder / "config.json").write_text(json.dumps({"cliPluginsExtraDirs": [f"{theirs}/cli-plugins"]}))
            yield folder


class _Context:
    """Writes the context into a client, in a thread of its own, and keeps what went wrong."""

    def __init__(self, write: Callable[[BinaryIO], None], pipe: IO[bytes], child: subprocess.Popen[bytes]) -> None:
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, args=(write, pipe, child), daemon=True)
        self._thread.start()

    def join(self) -> None:
        self._thread.join()

    def raise_error(self) -> None:
        if self._error is not None:
            raise self._error

    def _run(self, write: Callable[[BinaryIO], None], pipe: IO[bytes], child: subprocess.Popen[bytes]) -> None:
        try:
            write(cast(BinaryIO, pipe))
            pipe.close()
        except BrokenPipeError:
            pass  # the client went away, and says why
        except BaseException as error:
            self._error = error
            child.kill()


def _programs(environ: Mapping[str, str]) -> list[str]:
    found: dict[str, str] = {}
    for folder in environ.get("PATH", os.defpath).split(os.pathsep):
        program = shutil.which("docker", path=folder) if folder else None
        if program:
            found.setdefault(os.path.realpath(program), program)
    return list(found.values())
