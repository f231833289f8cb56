"""Running a build step on squashed layers that are no image yet: as an ordinary user, without an engine.

Apptainer does it in a user namespace whose root is the caller, with an overlay over the merged layers (facts checked
against 1.4.5; `--ignore-subuid` is there since 1.1). The step finds there what an engine's build gives it: an empty
`/run/hpcbinder/work`, its files, the tools and what the site says, and a root of its own. It sees nothing of the
person's: no home, no environment, no other process, no network unless it may have it. What it changed is read back
from inside of the same namespace, where the ids mean what they meant to the step, and becomes a layer's tar.
"""

from __future__ import annotations

import os
import secrets
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from hpcbinder import process
from hpcbinder.config import Config
from hpcbinder.contract import STEP_DIR
from hpcbinder.errors import BuildError, ConvertError, RunError
from hpcbinder.output import advice, clean, telling
from hpcbinder.progress import Reporter
from hpcbinder.runtime.changed import write_changed
from hpcbinder.runtime.launch.environment import host_environment, without_own_containers
from hpcbinder.runtime.launch.prologue import environment_after
from hpcbinder.runtime.launch.runtimes import find
from hpcbinder.runtime.launch.values import LaunchError, bindable
from hpcbinder.runtime.pretending import can_pretend
from hpcbinder.runtime.probing import IDS, probe
from hpcbinder.squashfs import Image, merge
from hpcbinder.text import one_line

RUN = ("/bin/sh", "-eu", f"{STEP_DIR}/step/run.sh")
"""What runs a step."""

_LINE_LIMIT = 64 * 1024
_KEPT = 60
"""Lines of a step's output that are remembered."""
_PATIENCE = 20.0
"""Seconds in which what was killed is gone."""
_HIDDEN = (f"{STEP_DIR}", "/dev", "/etc/hosts", "/etc/resolv.conf", "/proc", "/sys", "/.singularity.d")
"""What is mounted over the layers: nothing below is the step's."""

_SUPERVISE = """\
import os, sys
sys.path.insert(0, sys.argv[1])
if sys.argv.pop(2):
    from pretending import pretend
    pretend()
from launch.supervise import supervise
from launch.values import Command
sys.exit(supervise(Command(tuple(sys.argv[3:]), dict(os.environ), stays=True), parent=int(sys.argv[2])))
"""
"""Keeps a runtime, so that nothing of it outlives us: see `launch.supervise`."""


def workshop(config: Config, reporter: Reporter) -> ApptainerWorkshop:
    """Find what runs build steps here, and try it.

    Args:
        reporter: Hears what it is.

    Raises:
        RunError: Nothing here can, with the reason.
    """
    try:
        environ = environment_after(config.runtime.prologue, host_environment(os.environ))
    except LaunchError as error:
        raise RunError(str(error)) from error
    program = find("apptainer", environ)
    if program is None:
        raise RunError(
            "nothing here runs build steps without an engine: Apptainer is not installed",
            hint="install Apptainer (https://apptainer.org) or load its module (runtime.prologue)",
        )
    ours = without_own_containers(environ)
    found = probe(program, ours)
    made = ApptainerWorkshop(program, ours, version=found.version, ids=found.ids)
    reporter.log("build", f"build steps are run by {made.description}")
    return made


@dataclass(frozen=True)
class Step:
    """What is run.

    Attributes:
        argv: Program and arguments.
        env: Its whole environment.
        network: Whether it has the machine's network, or none.
        binds: (source, target, writable).
        several: Whether it needs several ids.
    """

    argv: Sequence[str]
    env: Mapping[str, str]
    network: bool
    binds: Sequence[tuple[Path, str, bool]]
    several: bool


class ApptainerWorkshop:
    """Runs steps with Apptainer; `workshop` finds it. Implements `Workshop`.

    Args:
        program: Where Apptainer is.
        environ: Environment that it gets; nothing of it enters.
        version: Its version.
        ids: How many ids its namespaces have.

    Attributes:
        description: `apptainer 1.4.5, root-mapped namespace`.
        fakeroot: Whether a step can give files to several users, as dpkg does: with subordinate ids, or by a filter
            that only makes believe (`pretending`).
    """

    is_engine = False

    def __init__(self, program: str, environ: Mapping[str, str], *, version: str, ids: int) -> None:
        self._program = program
        self._environ = dict(environ)
        self._pretends = ids < IDS and can_pretend()
        self.fakeroot = ids >= IDS or self._pretends
        kind = f"{ids} ids" if ids >= IDS else "root-mapped namespace"
        self.description = f"apptainer {version}, {kind}"

    def run(
        self,
        layers: Sequence[Path],
        step_folder: Path,
        *,
        env: Mapping[str, str],
        argv: Sequence[str] = RUN,
        network: bool,
        binds: Sequence[tuple[Path, str, bool]] = (),
        log: Callable[[str], None],
        scratch: Path,
        title: str = "",
        site: Mapping[str, bytes] | None = None,
        hidden: Collection[str] = (),
        several_ids: bool = True,
    ) -> Path:
        """Run a step on layers.

        Args:
            layers: Squashed layers, the lowest first.
            step_folder: What the step finds at `/run/hpcbinder/step`, read-only.
            env: Its variables, not secret; it gets no others. PATH belongs to them.
            argv: Program and arguments.
            network: Whether it has this machine's network. Without it there is no way out of the step.
            binds: (source, target, writable): more that it finds; targets are absolute. Nothing that is of use to
                anybody else: where there are several ids, a step that wants to can write to all of them.
            log: Gets `title | text` for each line the step prints, safe to print.
            scratch: Folder for temporary files, large enough for what the step makes; the tar stays there.
            title: The step's name, for logs and errors; the name of `step_folder` if there is none.
            site: Name -> content of files at `/run/hpcbinder/site`, which may be secret.
            hidden: Texts that must never be shown.
            several_ids: The step may give files to several users, if that can be had here (`fakeroot`).

        Returns:
            A tar of what the step changed: a layer as the OCI image spec has it (layer.md), without what was mounted.

        Raises:
            BuildError: The step failed, or Apptainer did.
            ConvertError: A layer cannot be read, or the scratch folder not be written.
        """
        title = title or step_folder.name
        with _private(scratch) as room, _site(site or {}, room) as told:
            image = _merged(layers, room, rooted=self._pretends or not several_ids)
            mounts = [*_mounts(step_folder, room), (told, f"{STEP_DIR}/site", False), _tools(room), *binds]
            try:
                self._step(Step(argv, env, network, mounts, several_ids), image, room, title, log, hidden)
                targets = [target for _, target, _ in mounts if not target.startswith(f"{STEP_DIR}/")]
                return self._changed(image, room, scratch, targets, several=several_ids)
            finally:
                self._remove(image, room, several=several_ids)

    def run_aside(
        self,
        layers: Sequence[Path],
        step_folder: Path,
        *,
        env: Mapping[str, str],
        binds: Sequence[tuple[Path, str, bool]],
        log: Callable[[str], None],
        scratch: Path,
        title: str,
    ) -> None:
        """Run what leaves all that is wanted of it in one of `binds`; what it changes elsewhere is forgotten.

        It has one id, no network, no tools and nothing of the site's. See `run` for the arguments and errors.
        """
        with _private(scratch) as room:
            image = _merged(layers, room, rooted=True)
            step = Step(RUN, env, network=False, binds=[*_mounts(step_folder, room), *binds], several=False)
            try:
                self._step(step, image, room, title, log, ())
            finally:
                self._remove(image, room, several=False)

    def _step(
        self, step: Step, image: Path, room: Path, title: str, log: Callable[[str], None], hidden: Collection[str]
    ) -> None:
        begin = f"hpcbinder-{secrets.token_hex(8)}"
        output = _Output(log, title, hidden, begin)
        overlay = ("--overlay", str(room / "overlay"))
        code = self._execute(self._argv(step, image, room, overlay, begin), room, output.feed)
        if not output.begun:
            raise BuildError(f"Apptainer cannot run step {title}: {output.end()}", hint="docs/engines.md")
        if code != 0:
            raise output.failure(code)
        output.done()

    def _argv(self, step: Step, image: Path, room: Path, more: Sequence[str], begin: str = "") -> list[str]:
        """Apptainer's command line. Other users of the machine can read it: variables go by a file."""
        variables = [f"{name}={value}" for name, value in step.env.items()]
        words = ["exec", "/usr/bin/env", "-i", *variables, *step.argv]
        enter = room / f"enter-{secrets.token_hex(4)}.sh"
        enter.write_text(f"umask 022\n{f'echo {begin}' if begin else ''}\n{shlex.join(words)}\n", encoding="utf-8")
        binds = [*step.binds, (enter, f"{STEP_DIR}/enter.sh", False)]
        argv = [self._program, "-s", "exec", "--userns", "--fakeroot"]
        if not step.several or self._pretends:
            argv += ["--ignore-subuid", "--ignore-fakeroot-command"]
        # With it a step can write to what is bound read-only. Apptainer does not heed this where there are several ids:
        # so nothing is ever bound but what was made for the step.
        argv += ["--drop-caps", "CAP_SYS_ADMIN"]
        argv += ["--containall", "--no-home", "--no-init", "--cleanenv", "--no-mount", "hostfs,bind-paths,tmp"]
        argv += [] if step.network else ["--net", "--network", "none"]
        for source, target, writable in binds:
            if not bindable(str(source)) or not bindable(target):
                raise BuildError(f"{str(source)!r} cannot be bound: its name has a colon, a comma or a line end")
            argv += ["--bind", f"{source}:{target}" + ("" if writable else ":ro")]
        return [*argv, *more, "--pwd", "/", str(image), "/bin/sh", f"{STEP_DIR}/enter.sh"]

    def _execute(self, argv: Sequence[str], room: Path, feed: Callable[[bytes], None]) -> int:
        """Run Apptainer to its end; nothing of it is left, however this ends. Returns its exit status."""
        child = self._start(argv, room, subprocess.STDOUT)
        assert child.stdout is not None
        try:
            while line := child.stdout.readline(_LINE_LIMIT):
                feed(line)
            return child.wait()
        finally:
            _end(child)

    def _start(self, argv: Sequence[str], room: Path, stderr: int) -> subprocess.Popen[bytes]:
        keeper = [sys.executable, "-I", "-S", "-c", _SUPERVISE, str(Path(__file__).parent)]
        keeper += ["yes" if self._pretends else "", str(os.getpid())]
        env = {**self._environ, "APPTAINER_CONFIGDIR": str(room / "config"), "APPTAINER_CACHEDIR": str(room / "cache")}
        try:
            return process.start([*keeper, *argv], env=env, stderr=stderr, cwd=room)
        except OSError as error:
            raise BuildError(f"{argv[0]} cannot be started: {error.strerror}") from error

    def _changed(self, image: Path, room: Path, scratch: Path, targets: Collection[str], *, several: bool) -> Path:
        """Read the overlay's upper folder, by the layers' own tar(1), to which all ids are as they were to the step."""
        upper = room / "overlay" / "upper"
        hidden = sorted({*_HIDDEN, *targets})
        options = ["--create", "--format=pax", "--sort=name", "--numeric-owner", "--xattrs", "--anchored"]
        exclude = [f"--exclude=.{path}" for path in hidden]
        step = Step(
            argv=["/usr/bin/tar", *options, "--no-wildcards", *exclude, f"--directory={STEP_DIR}/upper", "."],
            env={"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"},
            network=False,
            binds=[(upper, f"{STEP_DIR}/upper", False)],
            several=several,
        )
        handle, name = tempfile.mkstemp(prefix="step-", suffix=".tar", dir=scratch)
        out = Path(name)
        try:
            with os.fdopen(handle, "wb") as file, Image.open(image) as lower, (room / "tar.log").open("w+b") as said:
                child = self._start(self._argv(step, image, room, ()), room, said.fileno())
                assert child.stdout is not None
                try:
                    write_changed(child.stdout, lower, file, hidden)
                    code = child.wait()
                finally:
                    _end(child)
                if code != 0:
                    said.seek(0)
                    words = said.read(_LINE_LIMIT).decode("utf-8", "replace")
                    raise BuildError(f"what a step made cannot be read: {one_line(words, 300) or f'status {code}'}")
        except BaseException:
            out.unlink(missing_ok=True)
            raise
        return out

    def _remove(self, image: Path, room: Path, *, several: bool) -> None:
        """Remove what the step made, which may belong to ids that only the namespace has, and deny being entered."""
        folders = [name for name in ("overlay", "work") if (room / name).exists()]
        for name in folders:
            shutil.rmtree(room / name, ignore_errors=True)
        left = [name for name in folders if (room / name).exists()]
        if left:
            binds = [(room / name, f"{STEP_DIR}/left/{name}", True) for name in left]
            # No file that a step made is executed: the layers' own programs do it.
            script = f"find {STEP_DIR}/left -mindepth 2 -delete"
            argv = ["/bin/sh", "-c", f"chmod -R u+rwx {STEP_DIR}/left; {script}"]
            step = Step(argv, {"PATH": "/usr/bin:/bin"}, network=False, binds=binds, several=several)
            try:
                self._execute(self._argv(step, image, room, ()), room, lambda line: None)
            except (BuildError, OSError):
                pass  # who removes the scratch folder says what is left


class _Output:
    """What a step prints."""

    def __init__(self, log: Callable[[str], None], title: str, hidden: Collection[str], begin: str) -> None:
        self._log = log
        self._title = title
        self._hidden = sorted((text for text in hidden if len(text) > 3), key=len, reverse=True)
        self._begin = begin.encode()
        self._lines: deque[str] = deque(maxlen=_KEPT)
        self.begun = False

    def feed(self, raw: bytes) -> None:
        """Take one line, or a piece of one that is too long."""
        if not self.begun and raw.strip() == self._begin:
            self.begun = True
            self._lines.clear()
            self._log(self._title)
            return
        text = clean(raw, self._hidden).rstrip()
        if text:
            self._lines.append(text)
            self._log(f"{self._title} | {text}")

    def end(self) -> str:
        """The last words that tell something."""
        return " / ".join(telling(self._lines)) or "it said nothing"

    def failure(self, status: int) -> BuildError:
        """The error of a step that ended with this exit status."""
        message = f"step {self._title} failed with exit status {status}: {self.end()}"
        return BuildError(message, hint=advice(status, self._lines))

    def done(self) -> None:
        """The step is done."""
        self._log(f"{self._title}: done")


def _merged(layers: Sequence[Path], room: Path, *, rooted: bool) -> Path:
    """The layers as one image. Of no id that a namespace does not have could a file be that is changed in it."""
    image = room / "image.squashfs"
    with image.open("w+b") as file:
        merge(list(layers), file, rooted=rooted)
    return image


def _mounts(step_folder: Path, room: Path) -> list[tuple[Path, str, bool]]:
    for name in ("overlay", "work"):
        (room / name).mkdir()
    return [(step_folder, f"{STEP_DIR}/step", False), (room / "work", f"{STEP_DIR}/work", True)]


@contextmanager
def _private(scratch: Path) -> Iterator[Path]:
    """A folder that nobody else can enter: a step may leave programs there that run as who owns them."""
    try:
        with tempfile.TemporaryDirectory(prefix="workshop-", dir=scratch, ignore_cleanup_errors=True) as name:
            yield Path(name)
    except OSError as error:
        raise ConvertError(f"a step cannot be run: {error.strerror or error}", where=str(scratch)) from error


@contextmanager
def _site(files: Mapping[str, bytes], room: Path) -> Iterator[Path]:
    """A folder with the site's files, in memory where that can be: it is no place for a crash to leave them."""
    memory = Path("/dev/shm")
    parent = memory if files and os.access(memory, os.W_OK | os.X_OK) else room
    with tempfile.TemporaryDirectory(prefix="hpcbinder-site-", dir=parent) as name:
        for file, content in files.items():
            with os.fdopen(os.open(Path(name) / file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as out:
                out.write(content)
        yield Path(name)


def _tools(room: Path) -> tuple[Path, str, bool]:
    """A copy of uv, as this installation has it."""
    import uv

    folder = room / "tools"
    folder.mkdir()
    try:
        shutil.copyfile(uv.find_uv_bin(), folder / "uv")
    except FileNotFoundError as error:
        raise BuildError("a build step needs uv, which is not there", hint="reinstall the package uv") from error
    (folder / "uv").chmod(0o755)
    return folder, f"{STEP_DIR}/tools", False


def _end(child: subprocess.Popen[bytes]) -> None:
    """Kill what still runs, and wait for the last process of it: the one who holds its output."""
    if child.poll() is None:
        try:
            os.killpg(child.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        child.wait()
    if child.stdout is not None and not child.stdout.closed:
        _drain(child.stdout.fileno())
        child.stdout.close()


def _drain(descriptor: int) -> None:
    import select
    import time

    end = time.monotonic() + _PATIENCE
    waiting = select.poll()
    waiting.register(descriptor, select.POLLIN)
    while (left := end - time.monotonic()) > 0 and waiting.poll(left * 1000):
        if not os.read(descriptor, _LINE_LIMIT):
            return
