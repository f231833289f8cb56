"""The site's mirrors, proxies and certificates as secret mounts of build steps: there while a step runs, not after."""

from __future__ import annotations

import dataclasses
import os
import re
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from urllib.parse import unquote, urlsplit, urlunsplit

from hpcbinder.config import SiteConfig, mirrors
from hpcbinder.contract import STEP_DIR
from hpcbinder.debian import Mirrors, sources_list
from hpcbinder.errors import BuildError

_SITE = f"{STEP_DIR}/site"
_CA_VARIABLES = (
    "SSL_CERT_FILE",
    "CURL_CA_BUNDLE",
    "GIT_SSL_CAINFO",
    "NODE_EXTRA_CA_CERTS",
    "PIP_CERT",
    "REQUESTS_CA_BUNDLE",
)
_WGET = f"""\
export WGETRC="${{TMPDIR:-/tmp}}/hpcbinder-wgetrc"
printf 'ca_certificate = %s\\n' {_SITE}/ca.pem >"$WGETRC"
"""
"""wget has no variable for certificates, only for a file that names them; a step's TMPDIR is no part of the image."""

_LIMIT = 500 * 1024
"""Bytes of the largest secret BuildKit takes (session/secrets/secrets.go, MaxSecretSize)."""


def site_secrets(site: SiteConfig, *, suite: str) -> dict[str, bytes]:
    """The secret files of a build, by their ids; only those there is something to say in.

    `hpcbinder-ca` (PEM), `hpcbinder-env` (shell text that exports), `hpcbinder-apt` (apt.conf) and `hpcbinder-sources`
    (sources.list). Each of the last three also as `…-public`, without the credentials of its URLs: what a step gets
    that runs the repository's code.

    Args:
        suite: Debian suite of the base, whose packages a mirror is asked for.

    Raises:
        BuildError: The certificates cannot be read or are too many.
    """
    secrets: dict[str, bytes] = {}
    if site.ca_certificates is not None:
        try:
            secrets["hpcbinder-ca"] = site.ca_certificates.read_bytes()
        except OSError as error:
            raise BuildError(
                f"cannot read the certificates: {error.strerror}", where=str(site.ca_certificates)
            ) from error
        if len(secrets["hpcbinder-ca"]) > _LIMIT:
            raise BuildError(
                f"more than {_LIMIT // 1024} KiB of certificates, which BuildKit does not take",
                where=str(site.ca_certificates),
                hint="name a bundle of those that are needed in site.ca_certificates",
            )
    for variant, url in (("", _as_it_is), ("-public", _without_credentials)):
        sources = _sources(site, suite, url)
        apt = _apt(site, bool(sources))
        env = _environment(site, bool(apt), url)
        for name, text in (("env", env), ("apt", apt), ("sources", sources)):
            if text:
                secrets[f"hpcbinder-{name}{variant}"] = text.encode()
    return secrets


def passwords(secrets: Mapping[str, bytes]) -> set[str]:
    """What must not be shown of the secrets: the passwords (or tokens) of their URLs, as written and as meant."""
    found: set[str] = set()
    for content in secrets.values():
        for userinfo in re.findall(rb"://([^\s/'\"@]*(?:@[^\s/'\"@]+)*)@", content):
            user, _, password = userinfo.decode("utf-8", "replace").partition(":")
            found |= {password or user, unquote(password or user)}
    return found


@contextmanager
def secret_files(secrets: Mapping[str, bytes]) -> Iterator[tuple[dict[str, str], Sequence[int]]]:
    """The secrets as files in memory (memfd_create(2)), that no crash leaves behind.

    Yields:
        Id -> path that a child of ours can read which inherits the file descriptors; those descriptors.
    """
    paths: dict[str, str] = {}
    handles: list[int] = []
    try:
        for name, content in secrets.items():
            handle = os.memfd_create(name, os.MFD_CLOEXEC)
            handles.append(handle)
            with os.fdopen(os.dup(handle), "wb") as file:
                file.write(content)
            paths[name] = f"/proc/self/fd/{handle}"
        yield paths, handles
    finally:
        for handle in handles:
            os.close(handle)


def _as_it_is(url: str) -> str:
    return url


def _without_credentials(url: str) -> str:
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def _environment(site: SiteConfig, has_apt: bool, url: Callable[[str], str]) -> str:
    values: dict[str, str] = {}
    if site.ca_certificates is not None:
        values.update(dict.fromkeys(_CA_VARIABLES, f"{_SITE}/ca.pem"))
    if has_apt:
        values["APT_CONFIG"] = f"{_SITE}/apt.conf"
    if site.pip_index_url:
        values.update(dict.fromkeys(("UV_DEFAULT_INDEX", "PIP_INDEX_URL"), url(site.pip_index_url)))
    for name, mirror in (
        ("HPCBINDER_CRAN", site.cran_mirror),
        ("HPCBINDER_JULIA", site.julia_mirror),
        ("JULIA_PKG_SERVER", site.julia_package_server),
    ):
        if mirror:
            values[name] = url(mirror)
    for name, proxy in (("http_proxy", site.http_proxy), ("https_proxy", site.https_proxy)):
        if proxy:
            values.update(dict.fromkeys((name, name.upper()), url(proxy)))
    if site.no_proxy:
        values.update(dict.fromkeys(("no_proxy", "NO_PROXY"), site.no_proxy))
    lines = [f"export {name}={shlex.quote(value)}\n" for name, value in sorted(values.items())]
    if site.ca_certificates is not None:
        lines.append(_WGET)
    return "".join(lines)


def _apt(site: SiteConfig, has_sources: bool) -> str:
    """apt.conf(5). What apt reads of ours only root can read, so that apt must stay root."""
    lines = []
    if site.ca_certificates is not None:
        lines.append(f'Acquire::https::CaInfo "{_SITE}/ca.pem";')
    if has_sources:
        lines += [f'Dir::Etc::SourceList "{_SITE}/sources.list";', 'Dir::Etc::SourceParts "/dev/null";']
    return "\n".join([*lines, 'APT::Sandbox::User "root";']) + "\n" if lines else ""


def _sources(site: SiteConfig, suite: str, url: Callable[[str], str]) -> str:
    """sources.list(5), when the site has a mirror of its own."""
    found = mirrors(site)
    if not found.any_for(suite):
        return ""
    return sources_list(suite, Mirrors(*(address and url(address) for address in dataclasses.astuple(found))))
