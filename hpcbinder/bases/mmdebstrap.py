"""mmdebstrap(1): Debian's packages into a root file system, as root or as an ordinary user."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
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
                hint="apt-get install mmdebstrap uidmap, or take the base from a site's store (store.site)",
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
        with _settings(site, slim) as (aptopt, dpkgopt), tempfile.TemporaryFile() as listing:
            listing.write(sources.encode())
            listing.seek(0)
            argv = [
                self._program,
                f"--mode={'root' if os.geteuid() == 0 else 'unshare'}",
                "--variant=minbase",
                "--format=tar",
                f"--architectures={architecture}",
                f"--include={','.join(packages)}",
                f"--aptopt={aptopt}",
                f"--dpkgopt={dpkgopt}",
                "--",
                suite,
                "-",
                "-",
            ]
            child = process.start(argv, env=self._env(site, epoch), stdin=listing, stderr=subprocess.PIPE)
            assert child.stdout is not None and child.stderr is not None
            last: deque[str] = deque(maxlen=40)
            reader = threading.Thread(target=_read_lines, args=(child.stderr, last, log), daemon=True)
            reader.start()
            try:
                try:
                    result = take(child.stdout)
                    child.stdout.read()  # tar pads its end
                except tarfile.TarError as error:
                    child.wait()
                    reader.join()
                    raise _failure(suite, last) from error
                code = child.wait()
                reader.join()
                if code != 0:
                    raise _failure(suite, last)
                return result
            finally:
                process.stop(child)

    def _env(self, site: SiteConfig, epoch: int) -> dict[str, str]:
        proxies = {"http_proxy": site.http_proxy, "https_proxy": site.https_proxy, "no_proxy": site.no_proxy}
        kept = {name: self._environ[name] for name in ("HOME", "PATH", "TMPDIR") if name in self._environ}
        return {
            **kept,
            **{name: value for name, value in proxies.items() if value},
            "LC_ALL": "C.UTF-8",
            "DEBIAN_FRONTEND": "noninteractive",
            "SOURCE_DATE_EPOCH": str(epoch),
        }


@contextmanager
def _settings(site: SiteConfig, slim: str) -> Iterator[tuple[Path, Path]]:
    """apt's and dpkg's options as files that the users mmdebstrap becomes can read; none of it is a secret."""
    with tempfile.TemporaryDirectory(prefix="hpcbinder-base-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        apt = ['Acquire::Languages "none";', 'Acquire::Retries "3";', 'APT::Install-Recommends "false";']
        if site.ca_certificates is not None:
            bundle = folder / "ca.pem"
            try:
                bundle.write_bytes(site.ca_certificates.read_bytes())
            except OSError as error:
                raise BuildError(
                    f"cannot read the certificates: {error.strerror}", where=str(site.ca_certificates)
                ) from error
            bundle.chmod(0o644)
            apt.append(f'Acquire::https::CaInfo "{bundle}";')
        aptopt, dpkgopt = folder / "apt.conf", folder / "dpkg.cfg"
        aptopt.write_text("\n".join(apt) + "\n")
        dpkgopt.write_text(slim + "force-unsafe-io\n")
        for path in (aptopt, dpkgopt):
            path.chmod(0o644)
        yield aptopt, dpkgopt


def _read_lines(stream: IO[bytes], last: deque[str], log: Callable[[str], None]) -> None:
    while raw := stream.readline(_LINE_LIMIT):
        line = one_line(redact(raw.decode(errors="replace").rstrip()))
        if line:
            last.append(line)
            log(line)


_WAYS_OUT = (
    (
        r"subuid|subgid|newuidmap|newgidmap",
        "an ordinary user needs the package uidmap and a range of ids in /etc/subuid and /etc/subgid: ask an "
        "administrator for `usermod --add-subuids 100000-165535 --add-subgids 100000-165535 USER`, or take the base "
        "from a site's store (store.site)",
    ),
    (
        r"unshare syscall failed|unprivileged.*clone|user namespace",
        "unprivileged user namespaces are switched off here: ask an administrator (sysctl user.max_user_namespaces, "
        "kernel.unprivileged_userns_clone, AppArmor), or take the base from a site's store (store.site)",
    ),
    (
        r"NO_PUBKEY|not signed|signatures were invalid|keyring",
        "the package debian-archive-keyring is missing here or older than the release",
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
