"""The git program, run so that it asks nothing, runs nothing of the repository and says what went wrong in one line."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from hpcbinder.config import SiteConfig, redact
from hpcbinder.errors import FetchError
from hpcbinder.source.location import SCHEMES, Remote
from hpcbinder.text import one_line

_OUTPUT_LIMIT = 64 << 20
_LINE_LIMIT = 8192

_SETTINGS = (
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "core.attributesFile=/dev/null",
    # The files are the same whatever the person's own preferences.
    "core.autocrlf=false",
    "core.eol=lf",
    "core.symlinks=true",
    "core.fileMode=true",
    "core.sparseCheckout=false",
    "core.untrackedCache=false",
    # On a network file system it is the waiting for each file that takes the time.
    "checkout.workers=4",
    "protocol.ext.allow=never",
    "submodule.recurse=false",
    "fetch.recurseSubmodules=false",
    "fetch.writeCommitGraph=false",
    "gc.auto=0",
    "maintenance.auto=false",
    # A server that sends not a byte for two minutes is dead; slow ones send keep-alives.
    "http.lowSpeedLimit=1",
    "http.lowSpeedTime=120",
)

_HELPER = (
    """!f() { test "$1" = get && printf 'username=%s\\npassword=%s\\n' """
    """"$HPCBINDER_GIT_USERNAME" "$HPCBINDER_GIT_PASSWORD"; }; f"""
)
"""A credential helper (gitcredentials(7)) with the login in its environment: arguments are everybody's to read."""

_SSH_OPTIONS = (
    "-o BatchMode=yes -o ConnectTimeout=30 -o ServerAliveInterval=20 -o ServerAliveCountMax=6 "
    "-o ClearAllForwardings=yes -o PermitLocalCommand=no"
)


@dataclass(frozen=True)
class Result:
    """What a git command said."""

    status: int
    stdout: str
    stderr: str


class GitCommand:
    """Runs git in a repository of ours.

    The person's own git configuration counts (proxies, `url.*.insteadOf`, credential helpers, `core.sshCommand`); what
    it could make git run for a repository's content does not.

    Args:
        git_dir: Our repository, apart from the files.
        site: Proxies and certificates.
        remote: Whose login to give, to its own host only.
        objects: Another repository's objects to read, without its configuration.
    """

    def __init__(
        self,
        git_dir: Path,
        *,
        site: SiteConfig | None = None,
        remote: Remote | None = None,
        objects: Path | None = None,
    ) -> None:
        self.git_dir = git_dir
        self._settings = list(_SETTINGS)
        self._environment = {
            "GIT_DIR": str(git_dir),
            "GIT_COMMON_DIR": str(git_dir),
            "GIT_INDEX_FILE": str(git_dir / "index"),
            "GIT_OBJECT_DIRECTORY": str(objects or git_dir / "objects"),
            "GIT_ALTERNATE_OBJECT_DIRECTORIES": "",
            "GIT_NAMESPACE": "",
            "GIT_CONFIG_PARAMETERS": "",
            "GIT_ATTR_NOSYSTEM": "1",
            "GIT_NO_LAZY_FETCH": "1",
            "GIT_OPTIONAL_LOCKS": "0",
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_ASKPASS": "",
            "SSH_ASKPASS": "",
            "SSH_ASKPASS_REQUIRE": "never",
            "GCM_INTERACTIVE": "never",
            "GIT_ALLOW_PROTOCOL": ":".join(SCHEMES),
            "GIT_SSH_COMMAND": ssh_command(os.environ),
        }
        self._site(site)
        self._login(remote)

    def _site(self, site: SiteConfig | None) -> None:
        if site is None:
            return
        for name in ("http_proxy", "https_proxy", "no_proxy"):
            if value := getattr(site, name):
                self._environment[name] = value
        if site.ca_certificates and "GIT_SSL_CAINFO" not in os.environ and not _configured("http.sslCAInfo"):
            self._environment["GIT_SSL_CAINFO"] = str(site.ca_certificates)

    def _login(self, remote: Remote | None) -> None:
        if remote is not None and not remote.named:
            # The person's helpers and keys would open what only the person may see, and a redirect lead into the site.
            self._settings += ["credential.helper=", "http.followRedirects=false", "http.extraHeader="]
            self._environment["GIT_ALLOW_PROTOCOL"] = "http:https"
            self._environment["GIT_CONFIG_GLOBAL"] = os.devnull
        if remote is None or remote.username is None:
            return
        origin = re.match(r"https?://[^/]+", remote.url)
        if origin is None:
            return
        if remote.password is not None:
            # The person's helpers would be told to remember this login.
            self._settings.append("credential.helper=")
        self._settings.append(f"credential.{origin[0]}.helper={_HELPER}")
        self._environment["HPCBINDER_GIT_USERNAME"] = remote.username
        self._environment["HPCBINDER_GIT_PASSWORD"] = remote.password or ""

    def init(self, *, sha256: bool = False) -> Result:
        """Make our repository; its ids are SHA-256 or SHA-1."""
        return self.run(["init", "--quiet", "--template=", *(["--object-format=sha256"] if sha256 else [])])

    def run(
        self,
        arguments: Sequence[str],
        *,
        timeout: float = 120,
        work_tree: Path | None = None,
        on_line: Callable[[str], None] | None = None,
        stdin: BinaryIO | None = None,
    ) -> Result:
        """Run `git ARGUMENTS`.

        Args:
            arguments: Nothing in them is a shell's.
            timeout: Seconds.
            work_tree: Folder to write files to.
            on_line: Gets each line of stderr, progress too.
            stdin: An open file for git to read, nothing without it.

        Raises:
            FetchError: There is no git, or it took too long.
        """
        git = _gitpython()
        settings = [word for setting in self._settings for word in ("-c", setting)]
        folder = work_tree if work_tree is not None else self.git_dir.parent
        # Always said: a git hook that called us has its own in the environment.
        environment = {**self._environment, "GIT_WORK_TREE": str(folder)}
        try:
            # A session of its own: no terminal to ask on, and all its helpers end with it.
            process = git(str(folder)).execute(
                ["git", *settings, *arguments],
                as_process=True,
                env=environment,
                start_new_session=True,
                istream=stdin,
            )
        except Exception as error:  # GitPython wraps the OSError
            raise FetchError(f"cannot run git: {one_line(str(error), 200)}", hint="install git") from error
        return _finish(process.proc, arguments[0], timeout, on_line)


def _finish(
    process: subprocess.Popen[bytes], name: str, timeout: float, on_line: Callable[[str], None] | None
) -> Result:
    late = threading.Event()

    def stop() -> None:
        late.set()
        _kill(process)

    lines = _Lines(on_line)
    reader = threading.Thread(target=lines.read, args=(process.stderr,), daemon=True)
    watchdog = threading.Timer(timeout, stop)
    watchdog.daemon = True
    assert process.stdout is not None and process.stderr is not None
    try:
        reader.start()
        watchdog.start()
        stdout = process.stdout.read(_OUTPUT_LIMIT)
        if process.stdout.read(1):
            _kill(process)
            raise FetchError(f"git {name} says more than {_OUTPUT_LIMIT >> 20} MiB")
        reader.join()
        status = process.wait()
    except BaseException:
        _kill(process)
        raise
    finally:
        watchdog.cancel()
        process.stdout.close()
        process.stderr.close()
    if late.is_set():
        raise FetchError(f"git {name} gave up after {timeout:.0f} s without an end")
    if lines.failure is not None:
        raise lines.failure
    return Result(status, stdout.decode("utf-8", "surrogateescape"), "\n".join(lines.kept))


def _kill(process: subprocess.Popen[bytes]) -> None:
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass
    process.wait()


class _Lines:
    """Reads stderr to its end, whatever its listener does; progress ends with a carriage return and is not kept."""

    def __init__(self, on_line: Callable[[str], None] | None) -> None:
        self.kept: list[str] = []
        self.failure: Exception | None = None
        self._on_line = on_line

    def read(self, stream: Any) -> None:
        rest = b""
        try:
            while chunk := stream.read1(65536):
                # ssh ends its lines with \r\n.
                *lines, rest = re.split(rb"(?<=\n)|(?<=\r)(?=[^\n])", rest + chunk)
                rest = _shortened(rest)
                for raw in lines:
                    self._line(raw)
        except (OSError, ValueError):
            pass  # closed on us
        self._line(rest)

    def _line(self, raw: bytes) -> None:
        line = _shortened(raw).decode("utf-8", "replace").rstrip()
        if not line:
            return
        if not raw.endswith(b"\r"):
            self.kept.append(line)
            del self.kept[:-200]
        if self._on_line is not None:
            try:
                self._on_line(line)
            except Exception as error:  # a full pipe would stop git
                self._on_line, self.failure = None, error


def _shortened(line: bytes) -> bytes:
    """Both ends of a line: what happened stands before and after a path that has no end."""
    half = _LINE_LIMIT // 2
    return line if len(line) <= _LINE_LIMIT else line[:half] + line[-half:]


def _gitpython() -> Any:
    try:
        from git.cmd import Git
    except ImportError as error:  # GitPython looks for the program when imported
        raise FetchError("git is not installed", hint="install git and have it on the PATH") from error
    return Git


def ssh_command(environ: Mapping[str, str]) -> str:
    """The person's ssh, never asking. `core.sshCommand` is weaker than the variable in git too, so it is read here."""
    program = shlex.quote(environ.get("GIT_SSH") or "ssh")
    command = environ.get("GIT_SSH_COMMAND") or _configured("core.sshCommand") or program
    return f"{command} {_SSH_OPTIONS}"


def _configured(key: str) -> str:
    """A value of the person's or the system's git configuration, "" if there is none."""
    environment = {name: value for name, value in os.environ.items() if name not in ("GIT_DIR", "GIT_COMMON_DIR")}
    try:
        found = subprocess.run(
            ["git", "config", "--includes", "--get", key],
            env=environment,
            cwd="/",
            capture_output=True,
            timeout=20,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return found.stdout.decode("utf-8", "surrogateescape").strip() if found.returncode == 0 else ""


_CAUSES: tuple[tuple[str, str, str | None], ...] = (
    (r"dubious ownership", "git does not trust a repository that another user owns", "see safe.directory in git help"),
    # git cuts its own words at 4096 bytes, before the system's reason
    (
        r"File name too long|path too long|(unable to|cannot) create .{3500}",
        "a path in the repository is longer than this system allows",
        None,
    ),
    (r"No space left|Disk quota exceeded", "the disk or the quota is full", None),
    (r"invalid path|bad path", "the repository holds a path that git refuses", None),
    (
        r"could not read (Username|Password)|terminal prompts disabled|Authentication failed|Permission denied"
        r"|Access denied|Host key verification failed|error: 40[13]",
        "needs a login that git does not have, or there is no such repository",
        "try git ls-remote on it: a credential helper or an ssh key must let you in without a question",
    ),
    (
        r"[Rr]epository .{0,300}not found|does not appear to be a git repository|not found: did you run"
        r"|error: 404|does not exist|not a git repository|no such file or directory.*repository",
        "no such repository",
        None,
    ),
    (
        r"SSL|certificate|TLS",
        "no trust in the server's certificate",
        "set site.ca_certificates if your site has its own authority",
    ),
    (
        r"Could not resolve|unable to look up|Name or service not known|Failed to connect|Connection refused"
        r"|unable to connect"
        r"|[Tt]imed out|unreachable|No route|Couldn't connect|Connection reset|Connection closed|Operation too slow",
        "cannot reach the server",
        None,
    ),
)


def explain(result: Result, url: str) -> FetchError:
    """One line for what git said.

    Args:
        result: Of a command that failed.
        url: Of the repository, without credentials.
    """
    lines = [line for line in result.stderr.splitlines() if not line.startswith(("hint:", "warning:"))]
    telling = [line for line in lines if re.match(r"(fatal|error|ssh|remote: *(fatal|error)):", line)] or lines[-1:]
    said = redact(one_line(re.sub(r"^((remote|fatal|error): *)+", "", telling[0]), 300)) if telling else ""
    everything = "\n".join(lines)
    for pattern, meaning, hint in _CAUSES:
        if re.search(pattern, everything):
            detail = next((line for line in lines if re.search(pattern, line)), said)
            detail = redact(one_line(re.sub(r"^((remote|fatal|error): *)+", "", detail), 200))
            return FetchError(f"{meaning}: {detail}", where=url, hint=hint)
    if result.status < 0:
        return FetchError(
            f"git crashed on it (signal {-result.status})",
            where=url,
            hint="its folders may be nested too deeply for git",
        )
    return FetchError(f"git failed: {said or f'exit status {result.status}'}", where=url)
