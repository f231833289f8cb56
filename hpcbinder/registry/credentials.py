"""Logins at registries: where Docker, podman and we keep them.

Formats: Docker's `config.json` (docker/cli, `cli/config/configfile/file.go`; `auths`, `credHelpers`, `credsStore`),
containers-auth.json(5) of podman, buildah and skopeo, and the protocol of `docker-credential-NAME` programs
(docker/docker-credential-helpers, README.md). Nothing here logs, and no login's text shows its password.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import re
import subprocess
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hpcbinder.registry.reference import DOCKER_HUB
from hpcbinder.text import one_line

_HELPER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_HELPER_TIMEOUT = 60
"""Seconds; a helper may ask its person to unlock a wallet."""

_HUB_KEY = "https://index.docker.io/v1/"
"""What Docker and its helpers file Docker Hub's login under."""

_TOKEN_USER = "<token>"
"""The name a helper gives for an identity token (docker-credential-helpers)."""

_LIMIT = 4 << 20


@dataclass(frozen=True)
class Login:
    """What somebody proves to a registry who they are with.

    Attributes:
        identity_token: For the registry's token server instead of a password (OAuth 2 refresh token).
        registry_token: For the registry itself; asks no token server.
        origin: The file or program it is from.
    """

    username: str = ""
    password: str = field(default="", repr=False)
    identity_token: str = field(default="", repr=False)
    registry_token: str = field(default="", repr=False)
    origin: str = ""


class Credentials:
    """Finds logins; nothing is read before the first question.

    The files are asked in the order below, the first that knows a login wins; in one file, the longest name does
    (`ghcr.io/org/name` before `ghcr.io/org` before `ghcr.io`).

    1. ours, `hpcbinder/auth.json` in the person's configuration folder (`hpcbinder login`);
    2. `$REGISTRY_AUTH_FILE`, or else `$XDG_RUNTIME_DIR/containers/auth.json`, `~/.config/containers/auth.json`
       (`podman login`, `buildah login`);
    3. `config.json` in `$DOCKER_CONFIG` or `~/.docker` (`docker login`).

    Args:
        own: Our file; None for the person's.
        environ: The environment.

    Attributes:
        notes: What went wrong while looking: a broken file or helper is no reason to fail where no login is needed.
    """

    def __init__(self, own: Path | None = None, environ: Mapping[str, str] = os.environ) -> None:
        self._own = own
        self._environ = environ
        self._lock = threading.Lock()
        self._found: dict[str, Login | None] = {}
        self.notes: list[str] = []

    def find(self, host: str, repository: str) -> Login | None:
        """The login for a repository; None if there is none.

        Args:
            host: As in `Reference`.
            repository: As in `Reference`.
        """
        name = f"{host}/{repository}" if repository else host
        with self._lock:  # a helper may ask its person something: once is enough
            if name not in self._found:
                self._found[name] = next(filter(None, (self._in_file(path, name) for path in self._files())), None)
            return self._found[name]

    def _files(self) -> Iterator[Path]:
        yield self._own or own_file()
        environ = self._environ
        home = environ.get("HOME") or os.path.expanduser("~")  # noqa: PTH111 (no exception without a home)
        if given := environ.get("REGISTRY_AUTH_FILE"):
            yield Path(given)
        else:
            if runtime := environ.get("XDG_RUNTIME_DIR"):
                yield Path(runtime) / "containers/auth.json"
            yield Path(environ.get("XDG_CONFIG_HOME") or f"{home}/.config") / "containers/auth.json"
        yield Path(environ.get("DOCKER_CONFIG") or f"{home}/.docker") / "config.json"

    def _in_file(self, path: Path, name: str) -> Login | None:
        data = self._read(path)
        host = name.partition("/")[0]
        helpers = {_key(key): helper for key, helper in _object(data, "credHelpers").items()}
        for prefix in _prefixes(name):
            if prefix in helpers and (login := self._ask(helpers[prefix], prefix, path)):
                return login
        if data.get("credsStore") and (login := self._ask(data["credsStore"], host, path)):
            return login
        logins = {_key(key): value for key, value in _object(data, "auths").items()}
        for prefix in _prefixes(name):
            if (value := logins.get(prefix)) and (login := _login(value, str(path))):
                return login
        return None

    def _read(self, path: Path) -> Mapping[str, Any]:
        try:
            with path.open("rb") as file:
                data = json.loads(file.read(_LIMIT))
        except (FileNotFoundError, NotADirectoryError):
            return {}
        except OSError as error:
            self._note(f"{path} cannot be read: {error.strerror}")
            return {}
        except (ValueError, RecursionError):  # its text may hold a password: not a word of it
            self._note(f"{path} is no JSON")
            return {}
        return data if isinstance(data, dict) else {}

    def _ask(self, helper: object, server: str, path: Path) -> Login | None:
        if not isinstance(helper, str) or not _HELPER.fullmatch(helper):
            self._note(f"{path} names a credential helper that cannot be one")
            return None
        program = f"docker-credential-{helper}"
        try:
            done = subprocess.run(
                [program, "get"],
                input=(_HUB_KEY if server == DOCKER_HUB else server).encode(),
                capture_output=True,
                env=dict(self._environ),
                timeout=_HELPER_TIMEOUT,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            why = "said nothing for too long" if isinstance(error, subprocess.TimeoutExpired) else "cannot be run"
            self._note(f"{program}, which {path} names, {why}")
            return None
        if done.returncode != 0:
            said = one_line(done.stdout.decode("utf-8", "replace").strip(), 200)
            if "credentials not found" not in said:
                self._note(f"{program}, which {path} names, failed: {said}")
            return None
        try:
            answer = json.loads(done.stdout)
            username, secret = answer["Username"], answer["Secret"]
        except (ValueError, RecursionError, TypeError, KeyError):
            answer = username = secret = None
        if not isinstance(username, str) or not isinstance(secret, str):
            self._note(f"{program}, which {path} names, gave no login")
            return None
        if username == _TOKEN_USER:
            return Login(identity_token=secret, origin=program)
        return Login(username, secret, origin=program) if secret else None

    def _note(self, text: str) -> None:
        line = one_line(text, 300)
        if line not in self.notes:
            self.notes.append(line)


def own_file() -> Path:
    """Where `hpcbinder login` keeps logins."""
    import platformdirs

    return platformdirs.user_config_path("hpcbinder") / "auth.json"


def _prefixes(name: str) -> Iterator[str]:
    """`h/a/b` -> `h/a/b`, `h/a`, `h`."""
    while name:
        yield name
        name = name.rpartition("/")[0]


def _key(key: str) -> str:
    """The registry, or the part of one, that a file's entry is for: old entries are URLs."""
    bare = re.sub(r"^https?://", "", key).rstrip("/")
    if bare != key.rstrip("/") or re.search(r"/v[12]$", bare):
        bare = bare.partition("/")[0]
    host, slash, path = bare.partition("/")
    if host in ("index.docker.io", "registry-1.docker.io"):
        host = DOCKER_HUB
    return f"{host.lower()}{slash}{path}"


def _object(data: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = data.get(key)
    return value if isinstance(value, dict) else {}


def _login(value: object, origin: str) -> Login | None:
    """An entry of `auths`; None if it holds no login (Docker leaves empty ones where a helper has it)."""
    if not isinstance(value, dict):
        return None
    texts = {key: text for key, text in value.items() if isinstance(text, str)}
    username, password = texts.get("username", ""), texts.get("password", "")
    if texts.get("auth"):
        try:
            pair = base64.b64decode(texts["auth"], validate=True).decode()
        except (binascii.Error, ValueError):
            return None
        username, _, password = pair.rstrip("\0").partition(":")
    login = Login(username, password, texts.get("identitytoken", ""), texts.get("registrytoken", ""), origin)
    return login if password or login.identity_token or login.registry_token else None
