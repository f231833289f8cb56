"""Servers a build fetches from. Asked only on request: a check-up should work on a node without network, at once."""

from __future__ import annotations

from collections.abc import Sequence

from hpcbinder.debian import MIRROR
from hpcbinder.doctor.finding import Finding, Machine, Status, clean
from hpcbinder.errors import RegistryError

_INDEX = "https://pypi.org/simple"
_PATIENCE = (5.0, 5.0)
"""Seconds to connect, and between two bytes."""


def index(machine: Machine) -> Sequence[Finding]:
    """The index of Python packages."""
    url = (machine.config.site.pip_index_url or _INDEX).rstrip("/")
    return _reach(machine, "package index", f"{url}/pip/", "site.pip_index_url")


def debian(machine: Machine) -> Sequence[Finding]:
    """The mirror of Debian's packages."""
    url = (machine.config.site.apt_mirror or MIRROR).rstrip("/")
    return _reach(machine, "Debian mirror", f"{url}/dists/{machine.config.build.suite}/InRelease", "site.apt_mirror")


def registries(machine: Machine) -> Sequence[Finding]:
    """The registries that somebody configured or logged in to; none is asked who we are."""
    if not machine.network:
        return []
    from hpcbinder.registry import kept_logins

    settings = machine.config.registry
    try:
        logins = kept_logins()
    except RegistryError as error:
        return [Finding("network", "logins", Status.PROBLEM, clean(str(error)), "hpcbinder login makes a new one")]
    names = {name.partition("/")[0] for name in (*settings.mirrors.values(), *settings.insecure, *logins)}
    hosts = sorted("registry-1.docker.io" if name == "docker.io" else name for name in names)
    findings: list[Finding] = []
    for host in hosts:
        # 401 is how a registry says that it is one (OCI distribution spec, "Determining support").
        found = _reach(machine, f"registry {clean(host, 80)}", f"https://{host}/v2/", "registry.mirrors", (401, 403))
        if found[0].status is not Status.OK and host in settings.insecure:
            found = _reach(
                machine, f"registry {clean(host, 80)}", f"http://{host}/v2/", "registry.insecure", (401, 403)
            )
        findings += found
    return findings


def _reach(machine: Machine, name: str, url: str, key: str, also: Sequence[int] = ()) -> Sequence[Finding]:
    """Whether a server answers; `also` are answers above 400 that will do."""
    if not machine.network:
        return []
    import requests

    site = machine.config.site
    session = requests.Session()
    session.trust_env = False  # the configuration has taken what it wants of the environment
    session.proxies = {
        scheme: proxy for scheme, proxy in (("http", site.http_proxy), ("https", site.https_proxy)) if proxy
    }
    if site.no_proxy:
        session.proxies["no_proxy"] = site.no_proxy
    if site.ca_certificates is not None:
        session.verify = str(site.ca_certificates)
    try:
        with session.get(url, timeout=_PATIENCE, stream=True) as answer:
            code = answer.status_code
    except (requests.RequestException, OSError) as error:
        advice = f"see {key}, site.https_proxy, site.ca_certificates"
        return [Finding("network", name, Status.PROBLEM, clean(f"{url}: {_reason(error)}"), advice)]
    if code >= 400 and code not in also:
        return [Finding("network", name, Status.PROBLEM, clean(f"{url} answers {code}"), f"see {key}")]
    return [Finding("network", name, Status.OK, clean(url))]


def _reason(error: BaseException) -> str:
    """The innermost cause: requests wraps it in several layers of its own words."""
    inner: BaseException | None = error
    while inner is not None:
        error, inner = inner, inner.__cause__ or inner.__context__
    return f"{type(error).__name__}: {error}"
