"""A server's key and certificate, where its hub's internal TLS is on; and how the launcher itself speaks with that hub.

server.json of the hub has, under "tls":

    {"key": PEM, "certificate": PEM,     which let this server in at the hub, and are no machine's yet
     "authorities": PEM,                 whom it trusts: the hub and its proxy
     "certify": URL}                     that gives the certificate which names this machine

Key and certificates lie in a folder of their own within the server's, the person's alone and gone with the server: what
the image sees of it.
"""

# Paths are text here: they become words of a command line.
# ruff: noqa: PTH102, PTH105, PTH118

from __future__ import annotations

import json
import os
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .hub import Hub
from .values import LaunchError

_TELL = (
    'export JUPYTERHUB_SSL_KEYFILE="$1" JUPYTERHUB_SSL_CERTFILE="$2" JUPYTERHUB_SSL_CLIENT_CA="$3"; shift 3; exec "$@"'
)


@dataclass(frozen=True)
class Tls:
    """The files of a server that speaks TLS.

    Attributes:
        key: Absolute path of its private key.
        certificate: Of its certificate.
        authorities: Of those that it trusts.
    """

    key: str
    certificate: str
    authorities: str

    def context(self) -> ssl.SSLContext:
        """Talks to the hub as this server, and to nobody who is not the hub.

        Raises:
            LaunchError: The files are no key, certificate or authorities.
        """
        try:
            # As JupyterHub's servers do (jupyterhub/utils.py, `make_ssl_context`): the address may be a proxy's.
            made = ssl.create_default_context(cafile=self.authorities)
            made.load_default_certs()
            made.load_cert_chain(self.certificate, self.key)
        except (OSError, ValueError) as error:
            raise LaunchError(f"what the hub sent for TLS cannot be read: {error}") from None
        return made

    def shown(self, argv: tuple[str, ...]) -> tuple[tuple[str, ...], dict[str, str]]:
        """A command that learns where these files are inside, and what `starting.prepare` is to show it for that."""
        words = ("/bin/sh", "-eu", "-c", _TELL, "hpcbinder", "{tls_key}", "{tls_certificate}", "{tls_authorities}")
        files = {"tls_key": self.key, "tls_certificate": self.certificate, "tls_authorities": self.authorities}
        return (*words, *argv), files


def furnish(folder: Path, given: Mapping[str, Any], token: str) -> Tls:
    """Write down what a hub sent, and get the certificate for this machine.

    Args:
        folder: The server's; closed to others, and removed with it.
        given: As above.
        token: The server's.

    Raises:
        LaunchError: The hub gives none, or nothing that can be used.
        OSError: The folder cannot be written to.
    """
    place = os.path.join(str(folder), "tls")
    os.mkdir(place, 0o700)
    made = Tls(*(os.path.join(place, f"{name}.pem") for name in ("key", "certificate", "authorities")))
    for path, text in ((made.key, given["key"]), (made.authorities, given["authorities"])):
        _write(path, text)
    _write(made.certificate, given["certificate"])
    answer = Hub(token, made.context()).post(given["certify"])
    try:
        certificate = json.loads(answer)["certificate"]
        _write(made.certificate + ".new", certificate)
    except (ValueError, LookupError, TypeError, RecursionError):
        raise LaunchError("the hub's answer has no certificate for this server") from None
    os.replace(made.certificate + ".new", made.certificate)
    made.context()
    return made


def _write(path: str, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(text)
