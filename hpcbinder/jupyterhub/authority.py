"""Who vouches for servers where a hub's internal TLS is on: JupyterHub's authority `notebooks-ca`.

JupyterHub has its authorities, and who trusts which of them, in a folder of its own (`internal_certs_location`,
jupyterhub/app.py, `init_internal_ssl`). A server's key is made in memory: no file of the hub's ever holds it.
"""

from __future__ import annotations

import datetime
import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from certipy import Certipy
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from hpcbinder.errors import UsageError
from hpcbinder.text import one_line

NAME = "notebooks-ca"
_LIFE = datetime.timedelta(days=400)
_SKEW = datetime.timedelta(minutes=10)
"""That a node's clock may be behind."""
_HOST = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9._-]{0,251}[A-Za-z0-9_])?", re.ASCII)


@dataclass(frozen=True)
class Credentials:
    """What a server shows, all of it PEM.

    Attributes:
        key: Private, in PKCS #8.
        certificate: For that key.
        public: The public key.
    """

    key: str
    certificate: str
    public: str


class Authority:
    """The hub's authority for servers.

    Args:
        folder: JupyterHub's `internal_certs_location`.

    Raises:
        UsageError: It is not there, or cannot be read.
    """

    def __init__(self, folder: Path) -> None:
        try:
            files = Certipy(store_dir=str(folder)).store.get_record(NAME)["files"]
            self._certificate = x509.load_pem_x509_certificate(Path(files["cert"]).read_bytes())
            self._key: Any = serialization.load_pem_private_key(Path(files["key"]).read_bytes(), None)
        except Exception as error:  # certipy's, and whatever a file's content leads to
            why = one_line(f"{type(error).__name__}: {error}", 200)
            raise UsageError(f"this hub's authority for servers ({NAME} in {folder}) cannot be used: {why}") from None

    def credentials(self, name: str) -> Credentials:
        """A new key, and a certificate that lets a program in as one of the hub's servers; it is no machine's yet.

        Args:
            name: Whose server it is.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        public = key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        return Credentials(private.decode(), self.certificate(public.decode(), name), public.decode())

    def certificate(self, public: str, name: str, machine: str = "", others: Sequence[str] = ()) -> str:
        """A certificate, PEM.

        Args:
            public: The public key that it is for, PEM.
            name: Whose server it is.
            machine: Name or address at which the server may be reached; "" for none, and then `others` are not in it.
            others: What else it may be called.

        Raises:
            UsageError: One is no name or address of a machine.
        """
        key: Any = serialization.load_pem_public_key(public.encode())
        now = datetime.datetime.now(datetime.timezone.utc)
        uses = [ExtendedKeyUsageOID.CLIENT_AUTH, *([ExtendedKeyUsageOID.SERVER_AUTH] if machine else [])]
        issuer = self._certificate.extensions
        try:
            identifier = x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(
                issuer.get_extension_for_class(x509.SubjectKeyIdentifier).value
            )
        except x509.ExtensionNotFound:
            identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        builder = (
            x509.CertificateBuilder()
            # X.520: a common name has 64 characters at most.
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"user-{name}"[:64])]))
            .issuer_name(self._certificate.subject)
            .serial_number(x509.random_serial_number())
            .not_valid_before(max(now - _SKEW, self._certificate.not_valid_before_utc))
            .not_valid_after(min(now + _LIFE, self._certificate.not_valid_after_utc))
            .public_key(key)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.ExtendedKeyUsage(uses), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
            .add_extension(identifier, critical=False)
        )
        if machine:
            names = [general_name(each) for each in dict.fromkeys([machine, *others])]
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()


def general_name(name: str) -> x509.GeneralName:
    """A machine's name or address, as a certificate has it (RFC 5280, 4.2.1.6).

    Raises:
        UsageError: It is none, or that of many machines (`*.example.org`, 0.0.0.0).
    """
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        if _HOST.fullmatch(name):
            return x509.DNSName(name)
    else:
        if not address.is_unspecified:
            return x509.IPAddress(address)
    raise UsageError(f"'{one_line(name, 80)}' is no name or address that a certificate can have")
