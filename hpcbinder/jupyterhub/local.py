"""Servers on the hub's own machine, where there is no scheduler."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jupyterhub.spawner import Spawner
from traitlets import Float, Unicode

from hpcbinder.errors import HpcbinderError, RunError
from hpcbinder.jupyterhub import handler
from hpcbinder.jupyterhub.mixin import ServerMixin, failure
from hpcbinder.text import one_line

handler.install()

_KEPT = {"pid": int, "started": int, "boot": str, "machine": str, "folder": str}
"""What is said of a server, and asked about again (`hpcbinder.jupyterhub.remote`)."""
_LONGEST = 1000


class LocalSpawner(ServerMixin, Spawner):
    """`c.JupyterHub.spawner_class = "hpcbinder-local"`.

    The same images, options and launcher as in a job; what a server may use of the machine is the machine's to limit.
    """

    has_scheduler = False
    ip = Unicode("127.0.0.1", help="Where servers listen.").tag(config=True)
    stop_grace = Float(10.0, min=0.0, help="Seconds that a server may take to end by itself when it is stopped.").tag(
        config=True
    )

    look_interval = 0.5
    """Seconds between two looks whether a server that is starting still runs."""

    # What another machine does in its own way

    async def launch(self, request: dict[str, Any]) -> dict[str, Any]:
        """Have a server started (`hpcbinder.jupyterhub.remote`); what is to be kept of it."""
        account = self.account()
        answer = await account.ask("remote", {**request, "environment": dict(account.environ)})
        return {"server": kept("this machine", answer.get("server"))}

    async def ask(self, request: dict[str, Any], *, seconds: float = 60.0) -> dict[str, Any]:
        """Ask where the server runs."""
        return await self.account().ask("remote", request, seconds=seconds)

    async def runs(self) -> bool:
        """Whether the server still runs."""
        return self._runs()

    @property
    def address(self) -> str:
        """Where the proxy reaches the server."""
        return str(self.ip)

    async def machine(self) -> str:
        return self.address

    def known_machines(self) -> Sequence[str]:
        return [self.address]

    async def start(self) -> tuple[str, int]:
        self.begin_saying()
        _, _, files = await self.prepare()
        self.expect_port()
        try:
            kept = await self.launch({"do": "start", "files": files, "command": self.command("{folder}")})
        except HpcbinderError as error:
            self.log.warning("Cannot start %s: %s", self._log_name, error)
            raise failure(one_line(error.message, 500), reason="account") from None
        self.job_facts = {**self.job_facts, **kept}
        self.say("The server is started; waiting for it to answer", 50)
        self.remember()
        return await self._up()

    async def _up(self) -> tuple[str, int]:
        while not self._port_said.is_set():
            try:
                await asyncio.wait_for(self._port_said.wait(), self.look_interval)
            except asyncio.TimeoutError:
                if not await self.runs():
                    answer = await self.ask({"do": "look", "server": self.job_facts["server"]})
                    lines = [line.strip() for line in str(answer.get("said", "")).splitlines() if line.strip()]
                    words = one_line(" | ".join(lines[-4:]), 600)
                    message = f"The server ended before it answered. The end of its log: {words or 'empty'}"
                    self.log.warning("%s: %s", self._log_name, message)
                    raise failure(message, reason="died") from None
        return self.address, int(self.job_facts["port"])

    def _runs(self) -> bool:
        """Whether it is still that very process (proc(5), /proc/PID/stat)."""
        server: dict[str, Any] = self.job_facts.get("server") or {}
        try:
            fields = Path(f"/proc/{int(server['pid'])}/stat").read_bytes().rpartition(b")")[2].split()
            boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        except (OSError, LookupError, ValueError):
            return False
        return bool(fields[0] not in (b"Z", b"X") and int(fields[19]) == server["started"] and boot == server["boot"])

    async def get_url(self) -> str:
        if self.awaits_port:
            try:
                address, port = await self._up()
            except Exception as error:
                self.log.warning("%s: %s", self._log_name, error)
            else:
                return self.listening_at(address, port)
        return str(self.server.url)

    async def poll(self) -> int | None:
        if not self.job_facts.get("server"):
            return 0
        if await self.runs():
            return None
        self.clear_state()
        return 1

    async def stop(self, now: bool = False) -> None:
        server = self.job_facts.get("server")
        if not server:
            return
        self.awaits_port = False
        patience = 0.0 if now else self.stop_grace
        try:
            await self.ask({"do": "stop", "server": server, "patience": patience}, seconds=patience + 30)
        except HpcbinderError as error:
            self.log.warning("%s is not stopped: %s", self._log_name, error)


def kept(host: str, said: object) -> dict[str, Any]:
    """What is kept of an answer about a server. A person may have what they like be run in place of a Python there.

    Raises:
        RunError: It is none.
    """
    if isinstance(said, dict) and said.keys() == _KEPT.keys():
        right = (type(said[name]) is kind for name, kind in _KEPT.items())
        if all(right) and all(len(str(value)) <= _LONGEST for value in said.values()):
            return said
    raise RunError(f"{host}: what it says of the server cannot be read: {one_line(str(said), 100)}")
