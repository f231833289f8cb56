"""A server's part in the hub's internal TLS (`JupyterHub.internal_ssl`), for spawners of ours.

Where a job will run is not known before it runs, and a certificate that names every node would let one person's program
be another's server on any of them. So a server gets two for one key: with the first, made at its start, it may talk to
the hub and no more; the second, which the launcher asks for where it runs (`hpcbinder.jupyterhub.handler`), names one
machine, the one that the scheduler, and not the server, says that it is on; and what browsers call the hub, for that is
what configurable-http-proxy wants to see (Node.js, lib/_http_agent.js: the servername is the request's Host).
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from jupyterhub.utils import url_path_join
from traitlets.config import LoggingConfigurable

from hpcbinder.errors import UsageError
from hpcbinder.jupyterhub.authority import NAME, Authority, general_name
from hpcbinder.jupyterhub.handler import CERTIFICATE_PATH

if TYPE_CHECKING:
    from jupyterhub.spawner import Spawner as _Behind
else:
    _Behind = LoggingConfigurable

_LOOKS, _PAUSE = 4, 1.0
"""How often, and how many seconds apart, it is looked where a server runs before it is told that it asks too early:
whoever has its token could ask without end."""


class TlsMixin(_Behind):
    """What JupyterHub has a spawner do for its certificates, and how servers get theirs."""

    user: Any
    job_facts: Any
    awaits_port: bool

    async def create_certs(self) -> dict[str, str]:
        """None yet, nor any of JupyterHub's, which lie in the hub's folder for as long as it is there."""
        return {}

    async def move_certs(self, paths: dict[str, str]) -> dict[str, str]:
        """Nothing: what there is goes with the server's other files."""
        return {}

    def listening_at(self, machine: str, port: int) -> str:
        """The URL of a server that a hub finds starting when it is restarted."""
        protocol = "https" if self.job_facts.get("public") else "http"
        # JupyterHub takes host and port from the URL (app.py, `init_spawners`), and not this.
        self.server.proto = protocol
        return f"{protocol}://{machine}:{port}"

    async def credentials(self, api: str) -> dict[str, str]:
        """What the launcher is told of TLS (`hpcbinder.runtime.launch.tls`), {} where servers speak HTTP.

        Args:
            api: URL of the hub's API, as the server is told it.

        Raises:
            UsageError: It cannot be had.
        """
        self.job_facts = {name: fact for name, fact in self.job_facts.items() if name != "public"}
        if not self.user.settings.get("internal_ssl"):
            return {}
        if not self.internal_ssl:
            # JupyterHub tells it to the outer one alone.
            raise UsageError("this hub's internal_ssl is on, which servers of a spawner within another do not support")
        if not api.startswith("https://"):
            raise UsageError(
                "this hub's internal_ssl is on, and servers are told to speak HTTP with it (hub_connect_url)"
            )
        for name in self.known_machines():
            try:
                general_name(name)
            except UsageError as error:
                raise UsageError(
                    f"this hub's internal_ssl is on, and where servers run is to be one machine: {error.message}"
                ) from None
        for name in self.public_names():
            try:
                general_name(name)
            except UsageError as error:
                raise UsageError(
                    f"what browsers call this hub (trusted_alt_names, public_url, bind_url): {error.message}"
                ) from None
        made = (await self._authority()).credentials(self.user.name)
        trusted = Path(self.internal_trust_bundles[NAME])
        try:
            authorities = trusted.read_text(encoding="ascii")
        except (OSError, ValueError) as error:
            raise UsageError(f"whom servers of this hub trust cannot be read ({trusted}): {error}") from None
        self.job_facts = {**self.job_facts, "public": made.public}
        certify = url_path_join(api, CERTIFICATE_PATH.removeprefix("/api"))
        return {"key": made.key, "certificate": made.certificate, "authorities": authorities, "certify": certify}

    async def _authority(self) -> Authority:
        return await asyncio.to_thread(Authority, Path(self.internal_certs_location))

    def known_machines(self) -> Sequence[str]:
        """Those that are known before a server runs."""
        return ()

    def public_names(self) -> list[str]:
        """What browsers call the hub, and so its proxy this server; not yet checked.

        Addresses are not among them: for those the proxy goes by the machine that it connects to. Nor are names of many
        hosts, which are for the hub's own certificate.
        """
        settings = self.user.settings
        # With the person's own subdomain, where there are some (jupyterhub/user.py, `_new_spawner`).
        names = [name for kind, _, name in (each.partition(":") for each in self.trusted_alt_names) if kind == "DNS"]
        # Servers are not at the hub's own name then.
        if not settings.get("subdomain_host"):
            hub = settings.get("app")
            parts = [urlsplit(getattr(hub, trait, "")) for trait in ("public_url", "bind_url")]
            names += [each.hostname for each in parts if each.scheme in ("http", "https") and each.hostname]
        return [name for name in dict.fromkeys(names) if "*" not in name and not _is_address(name)]

    async def machine(self) -> str:
        """Name or address of the machine that the server runs on, as the proxy is told it; "" while it is not known."""
        raise NotImplementedError

    async def certificate(self) -> str:
        """The certificate for where the server runs; "" while that is not known, or where it speaks HTTP.

        Raises:
            UsageError: It cannot be made.
        """
        public = self.job_facts.get("public")
        if not public:
            return ""
        # A job of ours runs once, so where it runs does not change.
        known: tuple[str, str] = self.__dict__.get("_certified", ("", ""))
        if known[0] == public:
            return known[1]
        lock: asyncio.Lock = self.__dict__.setdefault("_one_question", asyncio.Lock())
        if lock.locked():
            return ""
        async with lock:
            machine = await self._found()
            # Meanwhile the server may have been stopped, and another one started.
            if not machine or not self.awaits_port or self.job_facts.get("public") != public:
                return ""
            authority = await self._authority()
            made = authority.certificate(public, self.user.name, machine, self.public_names())
            self.__dict__["_certified"] = (public, made)
            self.log.info("%s has a certificate for %s", self._log_name, machine)
            return made

    async def _found(self) -> str:
        for look in range(_LOOKS):
            if look:
                await asyncio.sleep(_PAUSE)
            if machine := await self.machine():
                return machine
        return ""


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
