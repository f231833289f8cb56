"""Registries of images, spoken with as the OCI distribution spec says; no engine is needed for it."""

from hpcbinder.registry.compress import compress
from hpcbinder.registry.credentials import Credentials, Login
from hpcbinder.registry.logins import forget_login, keep_login, kept_logins
from hpcbinder.registry.manifest import (
    OCI_CONFIG,
    OCI_MANIFEST,
    Descriptor,
    Manifest,
    Platform,
    described,
    dump_manifest,
)
from hpcbinder.registry.pull import RegistryImage
from hpcbinder.registry.reference import Reference, parse_host, parse_reference
from hpcbinder.registry.registry import Registry
from hpcbinder.registry.transport import Patience, Transport

__all__ = [
    "OCI_CONFIG",
    "OCI_MANIFEST",
    "Credentials",
    "Descriptor",
    "Login",
    "Manifest",
    "Patience",
    "Platform",
    "Reference",
    "Registry",
    "RegistryImage",
    "Transport",
    "compress",
    "described",
    "dump_manifest",
    "forget_login",
    "keep_login",
    "kept_logins",
    "parse_host",
    "parse_reference",
]
