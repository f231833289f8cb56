"""The program uv, asked for versions only: it builds nothing, and reads nothing of this machine's or the repository's
settings."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from hpcbinder.config import SiteConfig
from hpcbinder.errors import BuildError, FetchError
from hpcbinder.process import start, stop

DEFAULT_INDEX = "https://pypi.org/simple"

TIMEOUT = 300.0
"""Seconds that finding versions may take: more means that they contradict each other in too many ways to tell."""

_LIMIT = 64 << 20
"""Bytes of an answer of uv."""


@dataclass(frozen=True)
class Answer:
    """What uv said.

    Attributes:
        pylock: Text of the pylock.toml (PEP 751), None if there are no versions that fit.
        message: uv's explanation of that, or what it warns of.
    """

    pylock: str | None
    message: str


class Uv:
    """`uv pip compile`, for one index.

    Args:
        site: Index, certificates and proxies; all that uv gets of this machine.
        cache: Folder of this user's for uv's cache of the index; None for none.
        timeout: Seconds for one call.
    """

    def __init__(self, site: SiteConfig, *, cache: Path | None, timeout: float = TIMEOUT) -> None:
        self._site = site
        self._cache = cache
        self._timeout = timeout

    def compile(
        self,
        requirements: Sequence[str],
        *,
        constraints: Sequence[str] = (),
        excluded: Collection[str] = (),
        preferences: Sequence[tuple[str, str]] = (),
        prereleases: bool = False,
        python: str,
        platform: str,
        refresh: bool = False,
        dependencies: bool = True,
        as_of: str = "",
        free: Collection[str] = (),
    ) -> Answer:
        """Find versions. Nothing is installed, built, or taken from anywhere but the index.

        Args:
            requirements: PEP 508 lines without URLs (a git URL would make uv run git).
            constraints: Lines of the same kind.
            excluded: Names that are left out, whoever depends on them.
            preferences: (name, version) to keep where they fit.
            python: `X.Y.Z`.
            platform: See `platform.uv_platform`.
            refresh: Ask the index anew even for what is cached.
            dependencies: Also those of what is required.
            as_of: Time (RFC 3339) before which files must have been uploaded, "" for any. A file of which the index
                does not say it is not taken, and warned of.
            free: Names of packages for which that does not count.

        Raises:
            FetchError: The index cannot be asked, or it takes too long.
            BuildError: There is no uv.
        """
        with _temporary() as folder:
            home = folder / "home"
            home.mkdir()
            output = folder / "pylock.toml"
            for file, lines in (
                ("requirements.in", requirements),
                ("constraints", constraints),
                ("excluded", excluded),
            ):
                (folder / file).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
            (folder / "uv.toml").write_text(self.settings(), encoding="utf-8")
            if preferences:
                output.write_text(_preferences(preferences), encoding="utf-8")
            argv = [
                _program(),
                *("pip", "compile", f"--config-file={folder / 'uv.toml'}"),
                *("--no-sources", "--no-progress", "--color=never"),
                *("--only-binary=:all:", "--generate-hashes", "--format=pylock.toml", f"--output-file={output}"),
                # The interpreter only has to be there: it is the version and the platform that count.
                *(f"--python={sys.executable}", "--no-python-downloads", "--keyring-provider=disabled"),
                *(f"--python-version={python}", f"--python-platform={platform}"),
                *([f"--constraints={folder / 'constraints'}"] if constraints else []),
                *([f"--excludes={folder / 'excluded'}"] if excluded else []),
                *(["--prerelease=allow"] if prereleases else []),
                *(["--refresh"] if refresh else []),
                *([] if dependencies else ["--no-deps"]),
                *([f"--exclude-newer={as_of}"] if as_of else []),
                *(f"--exclude-newer-package={name}=false" for name in free if as_of),
                *([f"--cache-dir={self._cache}"] if self._cache else ["--no-cache"]),
                "--",
                str(folder / "requirements.in"),
            ]
            code, message = self._run(argv, home)
            message = _clean(message, folder)
            if code == 0:
                return Answer(_read(output), message)
        if "No solution found" not in message or "401 Unauthorized" in message or "403 Forbidden" in message:
            raise self._failed(message)
        return Answer(None, message)

    def _run(self, argv: list[str], home: Path) -> tuple[int, str]:
        try:
            process = start(
                argv, env=self._environment(home), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, cwd=home
            )
        except OSError as error:
            raise BuildError(f"uv cannot be started: {error.strerror}", hint="reinstall the package uv") from error
        try:
            _, errors = process.communicate(timeout=self._timeout)
        except subprocess.TimeoutExpired:
            raise FetchError(
                f"finding versions on {self._index} took more than {self._timeout:.0f} s",
                hint="pin some versions; or --no-lock leaves it to the build",
            ) from None
        finally:
            stop(process)
        return process.returncode, errors.decode("utf-8", "replace")

    def _environment(self, home: Path) -> dict[str, str]:
        """All that uv gets: no PATH, so that it finds no other program; no home with settings or logins."""
        site = self._site
        values = {
            "HOME": str(home),
            "TMPDIR": str(home),
            "PATH": str(home),
            "LC_ALL": "C.UTF-8",
            "UV_HTTP_RETRIES": "2",
            "UV_PYTHON_DOWNLOADS": "never",
        }
        for name in ("http_proxy", "https_proxy", "no_proxy"):
            if value := getattr(site, name):
                values |= {name: value, name.upper(): value}
        if site.ca_certificates is not None:
            values["SSL_CERT_FILE"] = str(site.ca_certificates)
        login = urlsplit(site.pip_index_url or DEFAULT_INDEX)
        for what, text in (("USERNAME", login.username), ("PASSWORD", login.password)):
            if text is not None:
                values[f"UV_INDEX_SITE_{what}"] = unquote(text)
        return values

    def settings(self) -> str:
        """All settings that count: uv reads no other file when it is given one. The index's login is not among them: a
        variable leaves nothing on disk.

        A file of an index never becomes another, which mirrors fail to say: so its metadata are asked for once, and not
        once in every resolution.
        """
        url = json.dumps(self._index, ensure_ascii=False)
        kept = 'cache-control = { files = "max-age=365000000, immutable" }'
        return f'[[index]]\nname = "site"\nurl = {url}\ndefault = true\n{kept}\n'

    @property
    def _index(self) -> str:
        return _without_credentials(self._site.pip_index_url or DEFAULT_INDEX)

    def _failed(self, message: str) -> FetchError:
        lines = [line.strip() for line in message.splitlines() if line.strip()]
        causes = [line.removeprefix("error: ").removeprefix("cause: ") for line in lines]
        # The first says what failed, the last why.
        words = "; ".join(dict.fromkeys((*causes[:2], *causes[-1:]))) or "uv failed without a word"
        return FetchError(
            f"the package index {self._index} could not be asked: {words[:800]}",
            hint="check site.pip_index_url, the proxies and certificates; --no-lock leaves it to the build",
        )


@contextmanager
def _temporary() -> Iterator[Path]:
    try:
        with tempfile.TemporaryDirectory(prefix="hpcbinder-lock-") as name:
            yield Path(name)
    except OSError as error:
        raise FetchError(f"no temporary folder can be used: {error.strerror}", hint="set TMPDIR") from error


def _program() -> str:
    import uv

    try:
        return str(uv.find_uv_bin())
    except FileNotFoundError as error:
        raise BuildError("uv's program is not there", hint="reinstall the package uv from PyPI") from error


def _preferences(wanted: Sequence[tuple[str, str]]) -> str:
    """A pylock.toml that holds versions only: what uv finds in its output file, it keeps where it fits."""
    packages = "".join(f'[[packages]]\nname = "{name}"\nversion = "{version}"\n' for name, version in wanted)
    return f'lock-version = "1.0"\ncreated-by = "hpcbinder"\n{packages}'


def _read(path: Path) -> str:
    if path.stat().st_size > _LIMIT:
        raise FetchError(f"the package index has more to say than {_LIMIT >> 20} MiB")
    return path.read_text(encoding="utf-8")


def _clean(message: str, folder: Path) -> str:
    return _without_credentials(message.replace(f"{folder}/", ""))


def _without_credentials(text: str) -> str:
    return re.sub(r"://[^\s/'\"`]*@", "://", text)
