"""mmdebstrap(1): Debian's packages into a root file system, as root or as an ordinary user."""

from __future__ import annotations

import os
import re
import shutil
import tarfile
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TypeVar

from hpcbinder import process
from hpcbinder.config import SiteConfig, redact
from hpcbinder.errors import BuildError
from hpcbinder.text import one_line

_T = TypeVar("_T")
_LINE_LIMIT = 4096
_APT = ('Acquire::Languages "none"', 'Acquire::Retries "3"', 'APT::Install-Recommends "false"')


SYSTEM_PATH = "/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin"


class Mmdebstrap:
    """The tool, as it is on this machine.

    Args:
        environ: Where PATH and TMPDIR come from.

    Raises:
        BuildError: It is not there.
    """

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        found = shutil.which("mmdebstrap", path=environ.get("PATH"))
        if found is None:
            raise BuildError(
                "a Debian base cannot be made here: mmdebstrap is not installed",
                hint="apt-get install mmdebstrap uidmap, or take the base from a site's store (store.site), or Debian "
                "from a registry (bases.source)",
            )
        self._program = found
        self._environ = environ

    def bootstrap(
        self,
        suite: str,
        *,
        architecture: str,
        packages: Sequence[str],
        sources: str,
        slim: str,
        site: SiteConfig,
        epoch: int,
        take: Callable[[IO[bytes]], _T],
        log: Callable[[str], None],
    ) -> _T:
        """Make a root file system and hand its tar to `take` while it is written.

        Args:
            architecture: Debian's name, the machine's own.
            sources: apt's sources.list; reaches the tool by a pipe, since it may hold credentials.
            slim: Options of dpkg.cfg(5), one a line.
            site: Proxies and certificates, for the downloads only.
            epoch: Unix time (s), SOURCE_DATE_EPOCH of the tool and of all it runs.
            take: Reads the tar to its end.
            log: Gets each line the tool says.

        Raises:
            BuildError: It did not work, with what to do about it.
        """
        with _readable(site.ca_certificates) as bundle, _pipe(sources) as listing, _Said(log) as said:
            argv = [
                self._program,
                f"--mode={'root' if os.geteuid() == 0 else 'unshare'}",
                "--variant=minbase",
                "--format=tar",
                f"--architectures={architecture}",
                f"--include={','.join(packages)}",
                *(
                    f"--aptopt={option}"
                    for option in (*_APT, *([f'Acquire::https::CaInfo "{bundle}"'] if bundle else []))
                ),
                *(f"--dpkgopt={option}" for option in (*slim.splitlines(), "force-unsafe-io")),
                "--",
                suite,
                "-",
                "-",
            ]
            child = process.start(
                argv, env=self._env(site, epoch), stdin=listing, stderr=said.file, private_mounts=os.geteuid() == 0
            )
            assert child.stdout is not None
            try:
                result = take(child.stdout)
                child.stdout.read()  # tar pads its end
                code = child.wait()
            except tarfile.TarError as error:
                child.wait()
                raise _failure(suite, said.lines()) from error
            finally:
                process.stop(child)
            if code != 0:
                raise _failure(suite, said.lines())
            return result

    def _env(self, site: SiteConfig, epoch: int) -> dict[str, str]:
        proxies = {"http_proxy": site.http_proxy, "https_proxy": site.https_proxy, "no_proxy": site.no_proxy}
        kept = {name: self._environ[name] for name in ("HOME", "TMPDIR") if name in self._environ}
        # mmdebstrap and its helpers (`#!/usr/bin/env python3`) are the system's and want the system's programs: a
        # Python of the person's own in front may lack a module, or be a shim that needs their whole environment.
        kept["PATH"] = os.pathsep.join(filter(None, (SYSTEM_PATH, self._environ.get("PATH"))))
        return {
            **kept,
            **{name: value for name, value in proxies.items() if value},
            "LC_ALL": "C.UTF-8",
            "DEBIAN_FRONTEND": "noninteractive",
            "SOURCE_DATE_EPOCH": str(epoch),
        }


@contextmanager
def _readable(bundle: Path | None) -> Iterator[Path | None]:
    """Certificates where the users that mmdebstrap becomes can read them; they are no secret."""
    if bundle is None:
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="hpcbinder-ca-") as name:
        copy = Path(name) / "ca.pem"
        try:
            copy.write_bytes(bundle.read_bytes())
        except OSError as error:
            raise BuildError(f"cannot read the certificates: {error.strerror}", where=str(bundle)) from error
        copy.parent.chmod(0o755)
        copy.chmod(0o644)
        yield copy


@contextmanager
def _pipe(text: str) -> Iterator[IO[bytes]]:
    """A text to read from, that is nowhere on disk."""
    with os.fdopen(os.memfd_create("sources"), "w+b") as file:
        file.write(text.encode())
        file.seek(0)
        yield file


class _Said:
    """What the tool says, in a file and not in a pipe: were we killed, a pipe would break, and kill it before it has
    taken its mounts and its half-made root file system away."""

    def __init__(self, log: Callable[[str], None]) -> None:
        self.file: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115
        self._log = log
        self._reader = os.fdopen(os.dup(self.file.fileno()), "rb", buffering=0)
        self._offset = 0
        self._rest = b""
        self._last: deque[str] = deque(maxlen=40)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)

    def __enter__(self) -> _Said:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._finish()
        self._reader.close()
        self.file.close()

    def lines(self) -> list[str]:
        """The last lines, once the tool has ended."""
        self._finish()
        return list(self._last)

    def _finish(self) -> None:
        self._over.set()
        self._thread.join()

    def _follow(self) -> None:
        while not self._over.wait(0.2):
            self._take()
        self._take()
        self._say(self._rest)

    def _take(self) -> None:
        while block := os.pread(self._reader.fileno(), 1 << 16, self._offset):
            self._offset += len(block)
            *lines, self._rest = (self._rest + block).split(b"\n")
            for line in lines:
                self._say(line)
            self._rest = self._rest[-_LINE_LIMIT:]

    def _say(self, raw: bytes) -> None:
        line = one_line(redact(raw.decode(errors="replace").rstrip()))
        if line:
            self._last.append(line)
            self._log(line)


_WAYS_OUT = (
    (
        r"subuid|subgid|newuidmap|newgidmap",
        "an ordinary user needs the package uidmap and a range of ids in /etc/subuid and /etc/subgid: ask an "
        "administrator for `usermod --add-subuids 100000-165535 --add-subgids 100000-165535 USER`, or take the base "
        "from a site's store (store.site) or a registry (bases.source)",
    ),
    (
        r"unshare syscall failed|unprivileged.*clone|user namespace",
        "unprivileged user namespaces are switched off here: ask an administrator (sysctl user.max_user_namespaces, "
        "kernel.unprivileged_userns_clone, AppArmor), or take the base from a site's store (store.site) or a registry "
        "(bases.source)",
    ),
    (
        r"NO_PUBKEY|not signed|signatures were invalid|keyring",
        "the package debian-archive-keyring is missing here or older than the release",
    ),
    (
        r"does not have a Release file|Release file .* is expired|404  Not Found",
        "the mirror does not have this release: see site.apt_mirror, or site.apt_archive_mirror for a release at the "
        "end of its life",
    ),
    (
        r"Certificate|certificate|TLS|SSL|handshake",
        "name the authorities to trust in site.ca_certificates",
    ),
    (
        r"Could not resolve|Could not connect|Unable to connect|Failed to fetch|timed out|Connection failed",
        "the Debian mirror cannot be reached: see site.apt_mirror and site.http_proxy",
    ),
    (r"No space left|ENOSPC", "its root file system is made in $TMPDIR (about 700 MB)"),
)


def _failure(suite: str, last: Sequence[str]) -> BuildError:
    said = [line for line in last if re.match(r"(E:|Err:|W: .*(Fail|signed))", line)] or list(last)
    # mmdebstrap ends with lines about its own children, which say nothing of the cause.
    telling = [line for line in said if not re.search(r"run_chroot failed|mmdebstrap failed|apt-get .* failed", line)]
    reason = (telling or said or ["it said nothing"])[0].removeprefix("E: ")
    text = "\n".join(last)
    hint = next((hint for pattern, hint in _WAYS_OUT if re.search(pattern, text)), None)
    return BuildError(f"the base Debian {suite} could not be made: {reason}", hint=hint)
