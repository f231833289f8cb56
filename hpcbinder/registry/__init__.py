"""Registries of images, spoken with as the OCI distribution spec says; no engine is needed for it."""

from hpcbinder.registry.credentials import Credentials, Login
from hpcbinder.registry.logins import forget_login, keep_login, kept_logins
from hpcbinder.registry.manifest import Manifest, Platform
from hpcbinder.registry.pull import RegistryImage
from hpcbinder.registry.reference import Reference, parse_host, parse_reference
from hpcbinder.registry.registry import Registry
from hpcbinder.registry.transport import Patience

__all__ = [
    "Credentials",
    "Login",
    "Manifest",
    "Patience",
    "Platform",
    "Reference",
    "Registry",
    "RegistryImage",
    "forget_login",
    "keep_login",
    "kept_logins",
    "parse_host",
    "parse_reference",
]
