"""One registry, spoken with as the OCI distribution spec says; its token servers, its errors, its redirects."""

from __future__ import annotations

import base64
import json
import re
import threading
import time
from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from hpcbinder.errors import RegistryError
from hpcbinder.registry.credentials import Credentials, Login
from hpcbinder.registry.reference import DOCKER_HUB
from hpcbinder.registry.transport import (
    PASSING,
    NotEncrypted,
    Transport,
    Unreachable,
    is_loopback,
    origin,
    resolve,
    shown,
    split,
)
from hpcbinder.text import one_line

if TYPE_CHECKING:
    import requests

_HUB_API = "registry-1.docker.io"
_ERROR_LIMIT = 64 << 10
_TOKEN_LIMIT = 1 << 20
_REDIRECTS = 5
_TOKEN_LIFE = 60.0
"""Seconds a token is good for that does not say (distribution, token spec)."""

MANIFEST_LIMIT = 4 << 20
"""Bytes a manifest may have (distribution spec, "Pushing Manifests": registries take at least that)."""


class Client:
    """Speaks with one registry. May be used by several threads.

    Args:
        host: As in `Reference`.
        transport: Sends what is said.
        credentials: Who we are, asked only when the registry wants to know.
        insecure: Registries that may be spoken with unencrypted, besides this machine's own.
    """

    def __init__(
        self, host: str, transport: Transport, credentials: Credentials, insecure: Collection[str] = ()
    ) -> None:
        self.host = host
        self.transport = transport
        self._credentials = credentials
        self._api_host = _HUB_API if host == DOCKER_HUB else host
        self._local = is_loopback(_bare(self._api_host))
        self._insecure = {name.lower() for name in insecure}
        self._may_be_plain = self._local or host in self._insecure
        self._base: str | None = None
        self._lock = threading.Lock()
        self._tokens: dict[tuple[str, ...], tuple[str, float]] = {}
        self._challenges: dict[str, Mapping[str, str]] | None = None

    def request(
        self,
        method: str,
        path: str,
        *,
        repository: str = "",
        actions: str = "pull",
        source: str = "",
        headers: Mapping[str, str] | None = None,
        body: Callable[[], Any] | None = None,
        expect: Collection[int] = (200,),
        follow: bool = False,
        repeat: bool = True,
    ) -> requests.Response:
        """Ask the registry something, with a login if it wants one.

        Args:
            path: `/v2/…`, or a whole URL that the registry gave as `Location`.
            repository: What the login must be good for.
            actions: What for: `pull` or `pull,push`.
            source: Another repository that it must be good for to pull from.
            body: Makes what is sent, anew for each attempt.
            expect: Statuses that are no error.
            follow: Follow redirects, to other hosts without our login.
            repeat: Whether doing it twice is as good as once.

        Returns:
            The answer, its body unread.

        Raises:
            RegistryError: Another status, or no answer.
        """
        scopes = (f"repository:{repository}:{actions}", *((f"repository:{source}:pull",) if source else ()))

        def once() -> requests.Response:
            return self._once(method, path, repository, scopes, headers or {}, body, follow)

        response = self.transport.patiently(once) if repeat else once()
        if response.status_code not in expect:
            error = self._refusal(response, repository, actions)
            if response.status_code in PASSING and not repeat:  # who asks may repeat more than this request
                raise Unreachable(error.message, where=error.where, hint=error.hint)
            raise error
        return response

    def json(self, response: requests.Response, limit: int = MANIFEST_LIMIT) -> dict[str, Any]:
        """An answer that is a JSON object.

        Raises:
            RegistryError: It is none.
        """
        return as_object(self.transport.read(response, limit), shown(response.url))

    def check(self, login: Login) -> None:
        """See whether the registry lets somebody in.

        Raises:
            RegistryError: It does not.
        """
        url = f"{self._address()}/v2/"
        response = self.transport.patiently(lambda: self.transport.send("GET", url))
        response.close()
        if response.status_code == 401:
            challenges = _challenges(response)
            if "bearer" in challenges:
                authorization = f"Bearer {self._fetch_token(challenges['bearer'], (), login)[0]}"
            else:
                authorization = _basic(login)
            response = self.transport.patiently(
                lambda: self.transport.send("GET", url, headers={"Authorization": authorization})
            )
        if response.status_code != 200:
            raise self._refusal(response, "", "pull")
        response.close()

    def _once(
        self,
        method: str,
        path: str,
        repository: str,
        scopes: tuple[str, ...],
        headers: Mapping[str, str],
        body: Callable[[], Any] | None,
        follow: bool,
    ) -> requests.Response:
        base = self._address()
        url = self._checked(resolve(base, path))

        def send(url: str, authorization: str | None) -> requests.Response:
            # Ours is told to nobody but the registry itself, wherever it sends us.
            known = {"Authorization": authorization} if authorization and origin(url) == origin(base) else {}
            return self.transport.send(method, url, headers={**headers, **known}, body=body() if body else None)

        authorization = self._authorization(repository, scopes)
        response = send(url, authorization)
        if response.status_code == 401 and origin(url) == origin(base):
            authorization = self._answer(response, repository, scopes, refused=authorization)
            if authorization is None:
                return response
            response.close()
            response = send(url, authorization)
        for _ in range(_REDIRECTS if follow else 0):
            if response.status_code not in (301, 302, 303, 307, 308):
                break
            response.close()
            url = self._checked(resolve(url, response.headers.get("Location", "")))
            response = send(url, authorization)
        return response

    def _address(self) -> str:
        """`https://host`, or `http://host` where that is allowed and nothing else is spoken."""
        with self._lock:
            if self._base is None:
                base = f"https://{self._api_host}"
                if self._may_be_plain:
                    try:
                        self.transport.send("GET", f"{base}/v2/").close()
                    except NotEncrypted:
                        base = f"http://{self._api_host}"
                    except Unreachable:  # only a port for http (80) is open, or none: the next request says so
                        base = base if ":" in self._api_host.rpartition("]")[2] else f"http://{self._api_host}"
                self._base = base
            return self._base

    def _checked(self, url: str) -> str:
        """A URL that the registry may send us to.

        Raises:
            RegistryError: It is not encrypted where that is not allowed, or leads to this machine from elsewhere.
        """
        scheme, host, port = origin(url)
        if is_loopback(host):
            if not self._local:
                raise RegistryError(f"{self.host} sends us to {shown(url)}, which is this machine")
        elif scheme == "http":
            names = {host, f"{host}:{port}"}
            if not names & self._insecure and not (self._may_be_plain and host == _bare(self._api_host)):
                hint = f"if that is meant: registry.insecure with {host}:{port}"
                raise RegistryError(f"{self.host} sends us to {shown(url)}, which is not encrypted", hint=hint)
        return url

    def _authorization(self, repository: str, scopes: tuple[str, ...]) -> str | None:
        """What is known to be wanted, before the registry has to ask for it again."""
        if self._challenges is None:
            return None
        if "bearer" in self._challenges:
            with self._lock:
                token, end = self._tokens.get(scopes, ("", 0.0))
            return f"Bearer {token}" if time.monotonic() < end else None
        login = self._credentials.find(self.host, repository)
        return _basic(login) if login and login.password else None

    def _answer(
        self, response: requests.Response, repository: str, scopes: tuple[str, ...], *, refused: str | None
    ) -> str | None:
        """The Authorization that a 401 asks for; None if we have none, or it was refused just now."""
        challenges = _challenges(response)
        login = self._credentials.find(self.host, repository)
        if login and login.registry_token:
            authorization: str | None = f"Bearer {login.registry_token}"
        elif "bearer" in challenges:
            authorization = f"Bearer {self._token(challenges['bearer'], scopes, login)}"
        elif "basic" in challenges and login and login.password:
            authorization = _basic(login)
        else:
            authorization = None
        self._challenges = challenges
        return authorization if authorization != refused else None

    def _token(self, challenge: Mapping[str, str], scopes: tuple[str, ...], login: Login | None) -> str:
        token, life = self._fetch_token(challenge, scopes, login)
        with self._lock:
            self._tokens[scopes] = (token, time.monotonic() + life)
        return token

    def _fetch_token(
        self, challenge: Mapping[str, str], scopes: tuple[str, ...], login: Login | None
    ) -> tuple[str, float]:
        """Ask the token server that the registry names (distribution, docs/spec/auth/token.md and oauth.md).

        Returns:
            A token, and the seconds it is good for.

        Raises:
            RegistryError: It gives none, or is at an address that no login may be sent to.
        """
        realm = self._checked(challenge.get("realm", ""))
        service = challenge.get("service")
        query = [("service", service)] if service else []
        if login and login.identity_token:
            form = [*query, ("grant_type", "refresh_token"), ("client_id", "hpcbinder")]
            form += [("scope", " ".join(scopes)), ("refresh_token", login.identity_token)]
            headers = {"Content-Type": "application/x-www-form-urlencoded"}
            response = self.transport.patiently(
                lambda: self.transport.send("POST", realm, headers=headers, body=urlencode(form).encode())
            )
        else:
            headers = {"Authorization": _basic(login)} if login and login.password else {}
            query += [("scope", scope) for scope in scopes]
            if login and headers:
                query.append(("account", login.username))
            url = f"{realm}{'&' if '?' in realm else '?'}{urlencode(query)}"
            response = self.transport.patiently(lambda: self.transport.send("GET", url, headers=headers))
        if response.status_code != 200:
            _, repository, actions = (scopes or ("::",))[0].split(":")
            raise self._refusal(response, repository, actions, login=login)
        answer = self.json(response, _TOKEN_LIMIT)
        token = answer.get("token") or answer.get("access_token")
        if not isinstance(token, str) or not re.fullmatch(r"[\x21-\x7e]+", token):
            raise RegistryError("the token server gives no token", where=shown(realm))
        life = answer.get("expires_in")
        # Some seconds less, for the way there takes time too.
        return token, (float(life) if isinstance(life, (int, float)) and 0 < life < 1e6 else _TOKEN_LIFE) * 0.8

    def _refusal(
        self, response: requests.Response, repository: str, actions: str, *, login: Login | None = None
    ) -> RegistryError:
        """One line for a status that is an error."""
        said = self._said(response)
        status = response.status_code
        where = f"{self.host}/{repository}" if repository else self.host
        tail = f": {said}" if said else ""
        if status in (401, 403):
            known = login or self._credentials.find(self.host, repository)
            what = "push to it" if "push" in actions else "pull from it" if repository else "enter"
            notes = "; ".join(self._credentials.notes)
            if known is None:
                hint = f"hpcbinder login {self.host}"
                return RegistryError(f"you may not {what} without a login{tail}", where=where, hint=_join(hint, notes))
            hint = f"the login is from {known.origin}" if known.origin else ""
            return RegistryError(f"you may not {what}{tail}", where=where, hint=_join(hint, notes) or None)
        if status == 404:
            what = "repository to push to" if "push" in actions else "image"
            return RegistryError(f"there is no such {what}{tail}", where=where)
        if status == 429:
            return RegistryError(f"the registry was asked too often{tail}", where=where, hint="try again later")
        return RegistryError(f"the registry answers with status {status}{tail}", where=where)

    def _said(self, response: requests.Response) -> str:
        """What the registry says about an error (distribution spec, "Error Codes"), in one safe line."""
        try:
            raw = self.transport.read(response, _ERROR_LIMIT)
        except RegistryError:
            return ""
        try:
            errors = json.loads(raw)["errors"]
            first = errors[0]
            texts = [str(first[key]) for key in ("message", "detail") if isinstance(first.get(key), str)]
            return one_line(" ".join(texts) or str(first["code"]), 200)
        except (ValueError, RecursionError, TypeError, KeyError, IndexError, AttributeError):
            return ""


def as_object(raw: bytes, where: str) -> dict[str, Any]:
    """A JSON object that a registry sent.

    Raises:
        RegistryError: It is none.
    """
    try:
        value = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise RegistryError("the registry's answer is no JSON", where=where) from error
    if not isinstance(value, dict):
        raise RegistryError("the registry's answer is no JSON object", where=where)
    return value


def _bare(host: str) -> str:
    return split(f"https://{host}").hostname or ""


def _join(*parts: str) -> str:
    return "; ".join(part for part in parts if part)


def _basic(login: Login) -> str:
    pair = base64.b64encode(f"{login.username}:{login.password}".encode()).decode("ascii")
    return f"Basic {pair}"


def _challenges(response: requests.Response) -> dict[str, Mapping[str, str]]:
    """WWW-Authenticate (RFC 9110, 11.6.1): scheme in lower case -> its parameters."""
    text = response.headers.get("WWW-Authenticate", "")[:8192]
    found: dict[str, Mapping[str, str]] = {}
    # A scheme is a word that no = follows; its parameters reach to the next one.
    heads = list(re.finditer(r"(?:^|,)\s*(bearer|basic)\b(?!\s*=)", _without_quoted(text), re.IGNORECASE))
    for head, after in zip(heads, [*heads, None][1:], strict=True):
        part = text[head.end() : after.start() if after else len(text)]
        pairs = re.findall(r'([A-Za-z_]+)\s*=\s*(?:"([^"]*)"|([^\s,"]+))', part)
        found.setdefault(head[1].lower(), {name.lower(): quoted or bare for name, quoted, bare in pairs})
    return found


def _without_quoted(text: str) -> str:
    """The same length, with nothing in the quotes."""
    return re.sub(r'"[^"]*"', lambda match: '"' + " " * (len(match[0]) - 2) + '"', text)
