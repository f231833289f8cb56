"""What podman and buildah have in common: both build with buildah's code, and keep images in containers/storage."""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

from hpcbinder import process
from hpcbinder.catalog import remove_tree
from hpcbinder.engine.api import Foreign
from hpcbinder.engine.pinned import Pinned, has_mounts, pin
from hpcbinder.engine.secrets import passwords
from hpcbinder.engine.steplog import StepLog
from hpcbinder.engine.storage import LayerReader, Storage
from hpcbinder.engine.unpack import unpack
from hpcbinder.errors import BuildError
from hpcbinder.image import DockerArchive, parse_config
from hpcbinder.model import ImageConfig
from hpcbinder.text import one_line

OURS = "localhost/hpcbinder/"
"""How the names of all our images begin."""

_LINE_LIMIT = 64 * 1024
_TIMEOUT = 600
"""Seconds a command may take that is no build; loading a large image takes minutes."""

_KEPT = (
    *("PATH", "HOME", "USER", "LOGNAME", "LANG", "TMPDIR", "XDG_RUNTIME_DIR", "XDG_CONFIG_HOME", "XDG_DATA_HOME"),
    *("CONTAINERS_CONF", "CONTAINERS_STORAGE_CONF", "CONTAINERS_REGISTRIES_CONF", "STORAGE_DRIVER", "STORAGE_OPTS"),
    *("DBUS_SESSION_BUS_ADDRESS", "_CONTAINERS_USERNS_CONFIGURED", "_CONTAINERS_ROOTLESS_UID"),
    *("_CONTAINERS_ROOTLESS_GID",),
)
"""Variables the programs get: no proxy and no registry's credentials among them."""

_REFERENCE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@-]*")
_SYSTEM_PROGRAMS = ":/usr/local/sbin:/usr/sbin:/sbin:/usr/bin:/bin"

_ENTER = """\
set -eu
umask 022
# Where buildah puts secrets, and terminals: other builds and the person's own stay unseen.
mount -t tmpfs -o mode=1777,nosuid,nodev tmpfs /dev/shm
if [ -d /dev/pts ]; then mount -t devpts -o newinstance,ptmxmode=0666,mode=0620 devpts /dev/pts; fi
export TMPDIR="$1"
shift
exec 3<&0 </dev/null
"$@" 3<&- &
build=$!
# The end of our input is the end of who started us.
{ cat <&3 >/dev/null; kill -KILL "$build"; } &
wait "$build" || exit
"""
"""The first process of a build's PID namespace: when it ends, the kernel ends all others. $1: a folder for temporary
files and caches; then the command."""

_ALONE = ("unshare", "--pid", "--ipc", "--mount", "--fork", "--kill-child", "--mount-proc", "--")
"""Namespaces (util-linux) in which a build sees, and can end, only its own processes."""
_LOOPBACK = """\
import fcntl, os, socket, struct, sys
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as handle:
    name = struct.pack("16sH14x", b"lo", 0)
    flags = struct.unpack("16sH14x", fcntl.ioctl(handle, 0x8913, name))[1]
    fcntl.ioctl(handle, 0x8914, struct.pack("16sH14x", b"lo", flags | 1))
os.execv(sys.argv[1], sys.argv[1:])
"""
"""Sets `lo` up (netdevice(7): SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP): a build may speak to itself."""
_OFF = (*_ALONE[:1], "--net", *_ALONE[1:], sys.executable, "-I", "-S", "-c", _LOOPBACK)
"""And in which it has no network but `lo`, whichever its isolation is."""

_ENV_LIMIT = 100_000
"""Bytes of a secret that can be handed over in a variable: the kernel's limit (MAX_ARG_STRLEN) is 128 KiB."""


@contextmanager
def _folder(prefix: str, place: Path | None) -> Iterator[Path]:
    """A temporary folder, removed however deep it became."""
    folder = Path(tempfile.mkdtemp(prefix=prefix, dir=place))
    try:
        yield folder
    finally:
        remove_tree(folder)


@dataclass(frozen=True)
class ContainersImage:
    """An image in containers/storage; implements `EngineImage`."""

    name: str
    config: ImageConfig
    engine: ContainersEngine
    scratch: Path | None

    @property
    def digest(self) -> str:
        return self.config.digest

    def layers(self, wanted: Collection[str]) -> Iterator[tuple[str, BinaryIO]]:
        """See `EngineImage.layers`: read where they lie; what cannot be is exported into the scratch folder."""
        readable = self.engine.storage.readable_layers(wanted)
        if readable:
            yield from self.engine.reader.read(readable)
        missing = [diff_id for diff_id in wanted if diff_id not in readable]
        if missing:
            with tempfile.TemporaryDirectory(prefix="layers-", dir=self.scratch) as folder:
                archive = Path(folder) / "image.tar"
                self.engine.save(self.config.digest, archive)
                yield from DockerArchive(archive).layers(missing)


class ContainersEngine(ABC):
    """podman or buildah; implements `Engine`. Nothing is asked of it before the first call.

    As an ordinary user it works in a user namespace, with `--isolation chroot` unless told otherwise: that needs
    nothing of a machine but the namespace. What buildah's chroot lacks is added: a PID and an IPC namespace, a
    /dev/shm and terminals of its own, and no capability to leave it.

    Args:
        network: Network of build steps, `host` or `default`.
        isolation: `auto`, `chroot`, `oci` or `rootless`, as buildah-build(1) means them.
        environ: The environment.
    """

    name = ""
    oldest: tuple[int, int] = (0, 0)
    """The oldest version known to work."""

    safe_mounts: tuple[int, int] = (0, 0)
    """The oldest in which a stranger's `RUN --mount` stays in its context."""

    def __init__(
        self, *, network: str = "host", isolation: str = "auto", environ: Mapping[str, str] = os.environ
    ) -> None:
        self._environ = environ
        self._network = network
        self._isolation = isolation
        self._storage: Storage | None = None
        self._rootless = os.geteuid() != 0
        self._version = ""
        self._numbers = (0, 0)

    # What each tool does in its own way.

    @abstractmethod
    def _info(self) -> tuple[Path, str, bool]:
        """graphRoot, driver, whether it is rootless."""

    @abstractmethod
    def _inspect(self, ref: str) -> tuple[str, dict[str, Any]] | None:
        """Id and OCI configuration of an image."""

    @abstractmethod
    def _load(self, archive: Path) -> None:
        """Take in a docker-archive."""

    @abstractmethod
    def _images(self) -> list[tuple[str, list[str], int, float]]:
        """Id, names, bytes and Unix time (s) of every image."""

    @abstractmethod
    def _left_over(self) -> list[tuple[str, str, str]]:
        """Id, name and image's id of the containers that builds left."""

    @abstractmethod
    def _take_away(self, container: str) -> None:
        """Remove a container by its id."""

    @abstractmethod
    def save(self, ref: str, archive: Path) -> None:
        """Write an image as an OCI archive.

        Raises:
            BuildError: It cannot.
        """

    # What both do alike.

    @property
    def storage(self) -> Storage:
        """Where its images lie.

        Raises:
            BuildError: It does not say.
        """
        if self._storage is None:
            root, driver, self._rootless = self._info()
            self._storage = Storage(root, driver)
        return self._storage

    @property
    def reader(self) -> LayerReader:
        """Reads layers in its storage."""
        return LayerReader(self.storage, self._inside(), self._env())

    @property
    def description(self) -> str:
        """`podman 4.3.1, rootless`, once `check` has been called."""
        return f"{self.name} {self._version}, {'rootless' if self._rootless else 'as root'}"

    @property
    def rootful(self) -> bool:
        """Whether it runs build steps as the machine's root."""
        return not self._rootless

    @property
    def warning(self) -> str | None:
        """What makes it slow, if anything does."""
        if self.storage.driver != "vfs":
            return None
        return (
            f"{self.name} keeps every layer as a whole copy (storage driver vfs): slow and large. "
            "docs/engines.md says how to choose overlay"
        )

    def check(self) -> None:
        """Make sure that it can build.

        Raises:
            BuildError: It is not installed, too old, or has no user namespace or storage to work with.
        """
        if shutil.which(self.name, path=self._environ.get("PATH", os.defpath)) is None:
            raise BuildError(f"{self.name} is not installed")
        self._version = self._check_version()
        if self._rootless and (
            missing := [p for p in ("newuidmap", "newgidmap") if not shutil.which(p, path=self._path())]
        ):
            raise BuildError(f"{self.name} needs {missing[0]}", hint="ask your administrator for the package uidmap")
        _ = self.storage
        if self._isolation == "chroot" and self._network != "host":
            raise BuildError(
                "isolation chroot has no network of its own",
                hint="build.network = host, or build.isolation = rootless",
            )
        self._check_namespace()

    def image(self, ref: str, *, scratch: Path | None = None) -> ContainersImage | None:
        """See `Engine.image`."""
        found = self._inspect(_checked(ref))
        if found is None:
            return None
        id_, oci = found
        config = replace(parse_config(json.dumps(oci).encode()), digest=f"sha256:{id_.removeprefix('sha256:')}")
        return ContainersImage(ref, config, self, scratch)

    def load(self, archive: Path, tag: str) -> None:
        """See `Engine.load`."""
        wanted = DockerArchive(archive).config.digest
        present = self.image(tag)
        if present is not None and present.digest == wanted:
            return
        self._load(archive)
        present = self.image(tag)
        if present is None or present.digest != wanted:
            self._run("tag", wanted.removeprefix("sha256:"), _checked(tag))

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
    ) -> ContainersImage:
        """See `Engine.build`."""
        output = StepLog(log or (lambda line: None), titles or {}, passwords(secrets or {}))
        with _folder(f"hpcbinder-{self.name}-", scratch) as folder, self._working() as tmp:
            context = folder / "context"
            context.mkdir()
            unpack(write_context, context)
            argv = self._build_command(context, folder, _checked(tag), target, foreign, network)
            given, variables = _secrets(secrets or {}, folder)
            # Without a user namespace of its own the storage is root's, and so is everything below.
            alone = _ALONE if network else _OFF
            command = [*self._inside(), *alone, "/bin/sh", "-c", _ENTER, "hpcbinder-build", str(tmp), *argv]
            command[-1:-1] = given
            digest = self._run_build(command, {**self._env(), **variables}, output, folder / "image-id")
        image = self.image(digest, scratch=scratch)
        if image is None:
            raise BuildError(f"{self.name} built {tag} but does not have it")
        return replace(image, name=tag)

    def tags(self) -> list[tuple[str, int, float]]:
        """See `Engine.tags`."""
        storage = self.storage
        return [
            (name, size, max(created, storage.made(id_.removeprefix("sha256:"))))
            for id_, names, size, created in self._images()
            for name in names
        ]

    def remove(self, ref: str) -> None:
        """See `Engine.remove`."""
        if self._inspect(_checked(ref)) is not None:
            self._run("rmi", ref)

    def _build_command(
        self, context: Path, folder: Path, tag: str, target: str | None, foreign: Foreign | None, network: bool
    ) -> list[str]:
        file = context / (foreign.path if foreign is not None else "Dockerfile")
        try:
            if not file.resolve(strict=True).is_relative_to(context.resolve()):
                raise BuildError("the Dockerfile is a link that leads out of the repository")
            text = file.read_text(encoding="utf-8", errors="surrogateescape")
            if foreign is not None:
                self._check_mounts(foreign, has_mounts(text))
                # Others use what we do not (heredocs, folders that are mounted and copied): it stays as it is, and with
                # mounts nothing is taken from a cache that cannot tell them apart.
                pinned = Pinned(text, cacheable=not has_mounts(text))
            else:
                pinned = pin(
                    text, context, lambda ref: (found := self._inspect(ref)) and found[0] if _is_name(ref) else None
                )
            (folder / "Dockerfile").write_text(pinned.text, encoding="utf-8", errors="surrogateescape")
        except OSError as error:
            raise BuildError(f"the build context cannot be read: {error.strerror}", where=str(file)) from error
        isolation = self._isolation
        if isolation == "auto":
            # A chroot without a user namespace around it would hold nobody who is root in it.
            isolation = "chroot" if self._rootless and self._network == "host" else "oci"
        # Without --layers all steps of a stage would be one.
        argv = [self.name, "build", "--layers", f"--isolation={isolation}"]
        # Who asks for no network keeps what comes of it, under all that it depends on: buildah looks at less.
        argv += [] if pinned.cacheable and network else ["--no-cache"]
        argv += ["--cap-drop=CAP_SYS_CHROOT"] if isolation == "chroot" else []
        # Without a network the host's is that of our own namespace.
        argv += ["--network=host"] if isolation != "chroot" and (self._network == "host" or not network) else []
        if foreign is not None:
            argv += [f"--build-arg={name}={value}" for name, value in sorted(foreign.arguments.items())]
        argv += ["--pull=never", "--http-proxy=false", "--identity-label=false", f"--tag={tag}"]
        argv += [f"--target={pinned.stages.get(target.lower(), target)}"] if target else []
        return [*argv, f"--iidfile={folder / 'image-id'}", f"--file={folder / 'Dockerfile'}", str(context)]

    def _check_mounts(self, foreign: Foreign, mounts: bool) -> None:
        """Refuse mounts of a stranger's choosing where they can lead to the person's own files: by symlinks in what is
        mounted (CVE-2024-11218), by the id of a cache (CVE-2024-9675). Of ours neither is anybody's choice."""
        if mounts and self._numbers < self.safe_mounts:
            safe = ".".join(map(str, self.safe_mounts))
            raise BuildError(
                f"RUN --mount is not safe in {self.name} {self._version}, which lets it reach your own files",
                where=foreign.path,
                hint=f"{self.name} {safe} or newer, or --engine docker",
            )

    def _run_build(self, command: Sequence[str], env: Mapping[str, str], output: StepLog, id_file: Path) -> str:
        try:
            # Its input says when we end; a signal would reach the first of four processes only.
            child = process.start(command, env=env, stdin=subprocess.PIPE, ending=signal.SIGTERM)
        except OSError as error:
            raise BuildError(f"{self.name} cannot be started: {error.strerror}") from error
        try:
            assert child.stdout is not None
            while line := child.stdout.readline(_LINE_LIMIT):
                output.feed(line)
            code = child.wait()
        finally:
            process.stop(child, signal.SIGKILL)
        if code != 0:
            raise output.failure(code)
        return id_file.read_text().strip()

    @contextmanager
    def _working(self) -> Iterator[Path]:
        """Take part in building; yields the folder for temporary files and cache mounts.

        It lies beside the images, where there is room and user namespaces work, and is nobody else's: buildah's own
        choice is one folder in /var/tmp for all. Who is the last to build takes away what buildah forgot: containers
        of stages that were only mounted, and all that a killed build had.
        """
        folder = self.storage.root / "hpcbinder"
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = (folder / "lock").open("a")
        except OSError as error:
            raise BuildError(f"{self.name}'s storage cannot be written: {error.strerror}", where=str(folder)) from error
        with lock:
            _flock(lock.fileno(), fcntl.LOCK_SH)
            try:
                yield folder
            finally:
                if _flock(lock.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB):
                    self._sweep(folder)

    def _sweep(self, folder: Path) -> None:
        # Each by itself: one that cannot be taken away now, and which the next build tries again, keeps none of the
        # others here.
        with suppress(BuildError):
            left = self._left_over()
            ours = self.storage.holders(OURS) if left else set()
            for container in [id_ for id_, name, image in left if image in ours and _WORKING.search(name)]:
                with suppress(BuildError):
                    self._take_away(container)
        stale = [str(path) for path in folder.glob("buildah[0-9]*")]
        if stale:
            with suppress(BuildError):
                self._execute([*self._inside(), "rm", "-rf", "--", *stale])

    def _check_version(self) -> str:
        said = self._try("--version").stdout
        match = re.search(r"version (\d+)\.(\d+)(\.\d+)?", said)
        if match is None:
            raise BuildError(f"{self.name} does not tell its version: {one_line(said, 100)}")
        self._numbers = int(match[1]), int(match[2])
        if self._numbers < self.oldest:
            oldest = ".".join(map(str, self.oldest))
            raise BuildError(f"{self.name} {match[1]}.{match[2]} is too old", hint=f"{oldest} or newer is needed")
        return f"{match[1]}.{match[2]}{match[3] or ''}"

    def check_offline(self) -> None:
        """See `Engine.check_offline`."""
        self._check_namespace(_OFF)

    def _check_namespace(self, alone: Sequence[str] = _ALONE) -> None:
        """Enter the namespaces that a build runs in."""
        script = [*alone, "/bin/sh", "-c", _ENTER, "hpcbinder-check", "/", "cat", "/proc/self/uid_map"]
        reading, writing = os.pipe()
        try:
            done = self._execute([*self._inside(), *script], stdin=reading)
        finally:
            os.close(reading)
            os.close(writing)
        if done.returncode != 0:
            said = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
            raise BuildError(
                f"{self.name} cannot make the namespaces of a build: {one_line(said, 300)}",
                hint="docs/engines.md: what a machine must allow",
            )
        ids = sum(int(line.split()[2]) for line in done.stdout.splitlines() if len(line.split()) == 3)
        if ids < 65536:
            who = self._environ.get("USER") or str(os.getuid())
            raise BuildError(
                f"{self.name} has {ids} user id{'s' * (ids != 1)} to work with, an image's files need 65536",
                hint=f"ask for lines in /etc/subuid and /etc/subgid: usermod --add-subuids 100000-165535 "
                f"--add-subgids 100000-165535 {who}",
            )

    def _inside(self) -> list[str]:
        """Command line that enters the user namespace the storage belongs to."""
        return [self.name, "unshare"] if self._rootless else []

    def _run(self, *arguments: str) -> str:
        """Run a command of the tool that must not fail; its output."""
        done = self._try(*arguments)
        if done.returncode != 0:
            raise BuildError(f"{self.name} {arguments[0]}: {_said(done.stderr)}")
        return done.stdout

    def _json(self, *arguments: str) -> Any:
        try:
            return json.loads(self._run(*arguments) or "null")
        except ValueError as error:
            raise BuildError(f"{self.name} {arguments[0]} gave no JSON") from error

    def _try(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return self._execute([self.name, *arguments])

    def _execute(self, argv: Sequence[str], *, stdin: int = subprocess.DEVNULL) -> subprocess.CompletedProcess[str]:
        try:
            return subprocess.run(
                argv,
                env=self._env(),
                stdin=stdin,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=_TIMEOUT,
            )
        except OSError as error:
            raise BuildError(f"{argv[0]} cannot be started: {error.strerror}") from error
        except subprocess.TimeoutExpired as error:
            raise BuildError(f"{argv[0]} does not come to an end") from error

    def _path(self) -> str:
        return self._environ.get("PATH", os.defpath) + _SYSTEM_PROGRAMS

    def _env(self) -> dict[str, str]:
        kept = {name: self._environ[name] for name in _KEPT if name in self._environ}
        return {**kept, "PATH": self._path()}


_WORKING = re.compile(r"-working-container(-\d+)?\Z")
"""The names buildah gives containers that nobody named."""


def _secrets(secrets: Mapping[str, bytes], folder: Path) -> tuple[list[str], dict[str, str]]:
    """Arguments and variables that hand over the secrets of a build.

    buildah copies a secret that comes from a file to its storage, where a crash leaves it behind; one from a variable
    to /dev/shm, which is the build's own. What no variable holds is larger than any password: a bundle of certificates.
    """
    arguments: list[str] = []
    variables: dict[str, str] = {}
    for number, (name, content) in enumerate(sorted(secrets.items())):
        try:
            text = content.decode()
        except UnicodeDecodeError:
            text = "\0"
        if len(content) < _ENV_LIMIT and "\0" not in text:
            variables[f"HPCBINDER_SECRET_{number}"] = text
            arguments.append(f"--secret=id={name},type=env,src=HPCBINDER_SECRET_{number}")
            continue
        path = folder / f"secret-{number}"
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(content)
        arguments.append(f"--secret=id={name},src={path}")
    return arguments, variables


def _checked(ref: str) -> str:
    """An image's name or id, checked: it becomes an argument."""
    if not _REFERENCE.fullmatch(ref):
        raise BuildError(f"not an image reference: {one_line(ref, 100)}")
    return ref.removeprefix("sha256:")


def _is_name(ref: str) -> bool:
    return _REFERENCE.fullmatch(ref) is not None


def _said(stderr: str) -> str:
    """The last thing a tool said, without its decoration."""
    lines = [line for line in stderr.strip().splitlines() if line.strip()]
    errors = [line for line in lines if "level=warning" not in line]
    return one_line((errors or lines or ["it said nothing"])[-1].removeprefix("Error: "), 500)


def _flock(descriptor: int, operation: int) -> bool:
    try:
        fcntl.flock(descriptor, operation)
        return True
    except OSError:  # held by others, or a file system without locks
        return False
