"""Where a server says at which port it listens: `POST /hub/api/batchspawner`, in batchspawner's place; and where one is
told its certificate, should the hub's internal TLS be on: `POST /hub/api/hpcbinder/certificate`.

A server's token lies in a job, with a person and all that runs as that person. So one thing and one thing only is
believed: a port, from the server whose token it is, while that server is starting, once. It has no say in what its
certificate holds.
"""

from __future__ import annotations

import json
from typing import Any

from batchspawner import BatchSpawnerBase
from jupyterhub import apihandlers
from jupyterhub.apihandlers import APIHandler
from tornado import web

from hpcbinder.errors import HpcbinderError

PATH = "/api/batchspawner"
"""Below the hub's prefix. The path of batchspawner's own, so that nothing else answers there."""

CERTIFICATE_PATH = "/api/hpcbinder/certificate"

_LONGEST = 200
"""Bytes of `{"port": 65535}`, generously."""


class _FromServer(APIHandler):
    def _spawner(self) -> Any:
        token = self.get_auth_token()
        user = self.current_user
        # A cookie, a service, or a person's other token is no server.
        if token is None or not getattr(self, "_token_authenticated", True) or not hasattr(user, "spawners"):
            raise web.HTTPError(403)
        for each in list(user.spawners.values()):
            # One that has other spawners to choose from (wrapspawner) has the chosen one in it.
            spawner = getattr(each, "child_spawner", None) or each
            if spawner is not None and _is_token(spawner, token):
                return spawner
        self.log.warning("%s by %s was refused: not a server's own token", self.request.path, user.name)
        raise web.HTTPError(403)

    def _refuse(self, status: int, why: str, spawner: Any) -> None:
        self.log.warning("%s by %s was refused: %s", self.request.path, spawner._log_name, why)
        raise web.HTTPError(status, why)


class CertificateHandler(_FromServer):
    """Gives `{"certificate": PEM}`; takes nothing."""

    async def post(self) -> None:
        """Have the server whose token it is get a certificate for where it runs.

        Answers 400 where anything is said; 403 for a token that is no server's own; 409 if that server does not start
        now, or speaks HTTP; 503 while it is not known where it runs, or it has asked already and waits.
        """
        spawner = self._spawner()
        if self.request.body:
            self._refuse(400, "there is nothing to say here", spawner)
        if not getattr(spawner, "awaits_port", False) or not spawner.job_facts.get("public"):
            self._refuse(409, "the server waits for no certificate", spawner)
        try:
            certificate = await spawner.certificate()
        except HpcbinderError as error:
            self.log.error("No certificate for %s: %s", spawner._log_name, error)
            raise web.HTTPError(500, "no certificate can be made: the hub's log says why") from None
        if not certificate:
            raise web.HTTPError(503, "it is not known yet where the server runs")
        self.set_header("Content-Type", "application/json")
        self.finish(json.dumps({"certificate": certificate}))


class PortHandler(_FromServer):
    """Takes `{"port": NUMBER}`."""

    def post(self) -> None:
        """Have the server whose token it is be at a port.

        Answers 204; 400 for anything but one port in the range; 403 for a token that is no server's own; 409 if that
        server waits for no port.
        """
        spawner = self._spawner()
        port = self._port(spawner)
        # Stock batch spawners of the same hub wait until their port is no longer 0.
        waiting = getattr(spawner, "awaits_port", None)
        if waiting is None:
            waiting = isinstance(spawner, BatchSpawnerBase) and spawner.pending == "spawn" and spawner.port == 0
        if not waiting:
            self._refuse(409, "the server waits for no port", spawner)
        if hasattr(spawner, "take_port"):
            spawner.take_port(port)
        else:
            spawner.port = port
        self.set_status(204)

    def _port(self, spawner: Any) -> int:
        body = self.request.body
        try:
            said = json.loads(body) if len(body) <= _LONGEST else None
        except (ValueError, RecursionError):
            said = None
        port = said.get("port") if isinstance(said, dict) and len(said) == 1 else None
        lowest, highest = getattr(spawner, "port_range", (1024, 65535))
        if type(port) is not int or not lowest <= port <= highest:
            self._refuse(400, "not a port, and nothing else", spawner)
        assert isinstance(port, int)
        return port


def _is_token(spawner: Any, token: str) -> bool:
    import hmac

    if hasattr(spawner, "is_token"):
        return bool(spawner.is_token(token))
    return bool(spawner.api_token) and hmac.compare_digest(spawner.api_token.encode(), token.encode())


def install() -> None:
    """Have the hub ask these handlers, and none of batchspawner's. Doing it again changes nothing."""
    handlers = apihandlers.default_handlers
    ours = [(PATH, PortHandler), (CERTIFICATE_PATH, CertificateHandler)]
    handlers[:] = [each for each in handlers if each not in ours and not _stock(each[1])] + ours


def _stock(handler: Any) -> bool:
    return getattr(handler, "__module__", "").partition(".")[0] == "batchspawner"
