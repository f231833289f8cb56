"""What a server's launcher says to the hub that sent it, and what it hears."""

from __future__ import annotations

import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass

from .values import LaunchError

_PATIENCE = 900.0
"""Seconds that a hub may be away: it is restarted now and then, and its servers go on."""
_PAUSE = 2.0
"""Seconds until it is tried again."""
_ANSWER = 1 << 18
"""Bytes of an answer that are read."""


class _Stay(urllib.request.HTTPRedirectHandler):
    """Follows nobody: the token would go along, wherever that is."""

    def redirect_request(self, *_: object) -> None: ...


@dataclass(frozen=True)
class Hub:
    """A hub's API, as this server is known there.

    Attributes:
        token: The server's own.
        context: How TLS is spoken with it; None for a hub that speaks HTTP.
    """

    token: str
    context: ssl.SSLContext | None = None

    def post(self, url: str, body: bytes = b"", *, while_: Callable[[], bool] = lambda: True) -> bytes:
        """Say something, again as long as there is no answer.

        Args:
            url: Where.
            body: What: JSON, or nothing.
            while_: Whether it is still to be said.

        Returns:
            The answer, b"" if it was to be said no more.

        Raises:
            LaunchError: The hub does not want it, is another one, or does not answer for long.
        """
        end = time.monotonic() + _PATIENCE
        while while_():
            try:
                return self._post(url, body)
            except urllib.error.HTTPError as error:
                why = f"HTTP {error.code} {error.reason}"
                if error.code < 400:
                    raise LaunchError(f"what answers at {url} leads elsewhere, and is not the hub: {why}") from None
                if error.code < 500:
                    raise LaunchError(f"the hub does not want this server: {why}") from None
            except (OSError, ValueError) as error:
                why = str(error)
                if isinstance(getattr(error, "reason", None), ssl.SSLCertVerificationError):
                    raise LaunchError(
                        f"what answers at {url} does not show that it is the hub (JupyterHub.trusted_alt_names): {why}"
                    ) from None
            if time.monotonic() > end:
                raise LaunchError(f"the hub cannot be reached at {url}: {why}")
            time.sleep(_PAUSE)
        return b""

    def _post(self, url: str, body: bytes) -> bytes:
        headers = {"Authorization": f"token {self.token}", "Content-Type": "application/json"}
        request = urllib.request.Request(url, body, headers, method="POST")
        # A proxy of the environment is for the world outside.
        direct = urllib.request.ProxyHandler({})
        opener = urllib.request.build_opener(direct, _Stay, urllib.request.HTTPSHandler(context=self.context))
        with opener.open(request, timeout=30) as answer:
            found: bytes = answer.read(_ANSWER)
            return found
