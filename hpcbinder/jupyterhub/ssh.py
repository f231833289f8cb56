"""Servers on another machine by SSH: a login node without a scheduler, or one beside the cluster's."""

from __future__ import annotations

import os
import pwd
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from traitlets import Float, Integer, List, Unicode

from hpcbinder.errors import RunError, UsageError
from hpcbinder.jupyterhub.account import Account, refuse_service
from hpcbinder.jupyterhub.local import LocalSpawner, kept
from hpcbinder.jupyterhub.openssh import Login, OpenSSH, UnreachableError


class SshSpawner(LocalSpawner):
    """`c.JupyterHub.spawner_class = "hpcbinder-ssh"`.

    The image's file must be seen by the other machine at the same path. The hub holds a key for each person, or one
    with a certificate; a person needs no account on the hub's machine.
    """

    runs_here = False
    hosts = List(
        Unicode(),
        help="Machines that servers run on, each by a name of its own: one name that leads now to this one and now to "
        "that one would lose them. The first that answers is taken, in random order.",
    ).tag(config=True)
    ssh_port = Integer(22, min=1, max=65535, help="Where their sshd listens.").tag(config=True)
    ssh_user = Unicode("{username}", help="The account there; {username} is the person's name.").tag(config=True)
    ssh_key = Unicode(
        help="Private key that lets a person in: /etc/jupyterhub/keys/{username}. Open to the hub alone."
    ).tag(config=True)
    ssh_certificate = Unicode("", help="Certificate for that key (ssh-keygen -s), where the machines want one.").tag(
        config=True
    )
    ssh_known_hosts = Unicode(
        help="Host keys of the machines, which nothing ever adds to: `ssh-keyscan` once, compared with the machines' "
        "own."
    ).tag(config=True)
    ssh_program = Unicode("/usr/bin/ssh", help="OpenSSH's client.").tag(config=True)
    node_python = Unicode("/usr/bin/python3", help="Python 3.9 or later on the machines.").tag(config=True)
    ip = Unicode("0.0.0.0", help="Where servers listen, on their machine.").tag(config=True)
    start_timeout = Integer(600, help="Seconds a server may take to answer before it is given up.").tag(config=True)
    look_interval = Float(5.0, min=0.1, help="Seconds between two looks at a server that is starting.").tag(config=True)

    def account(self) -> Account:
        """The person: what is done as them is done on the other machine."""
        name = self.user.name
        # The same rules as for the account there: it becomes a word of ssh's.
        self._login("localhost")
        try:
            refuse_service(pwd.getpwnam(name), self.minimum_uid)
        except (KeyError, ValueError):
            pass
        # Nothing is ever run here in their name.
        environ = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
        return Account(name, "/", "/bin/sh", ("/bin/false",), environ, self.node_python)

    def _login(self, host: str) -> Login:
        user = self.ssh_user.replace("{username}", self.user.name)
        if not self.ssh_key or not self.ssh_known_hosts:
            raise UsageError("this hub has no key, or knows no host keys, for its machines (ssh_key, ssh_known_hosts)")
        certificate = self.ssh_certificate.replace("{username}", user)
        return Login(
            host=host,
            user=user,
            key=Path(self.ssh_key.replace("{username}", user)),
            known_hosts=Path(self.ssh_known_hosts),
            certificate=Path(certificate) if certificate else None,
            port=self.ssh_port,
        )

    def _ssh(self) -> OpenSSH:
        return OpenSSH(self.ssh_program, self.node_python)

    async def launch(self, request: dict[str, Any]) -> dict[str, Any]:
        if not self.hosts:
            raise UsageError("this hub has no machines for servers (hosts)")
        why = []
        for host in random.sample(list(self.hosts), len(self.hosts)):
            self.say(f"Logging in to {host}", 20)
            try:
                answer = await self._ssh().ask(self._login(host), request)
            except UnreachableError as error:
                self.log.warning("%s: %s", self._log_name, error)
                why.append(error.message)
                continue
            self.log.info("%s runs on %s", self._log_name, host)
            return {"server": kept(host, answer.get("server")), "host": host}
        raise RunError("; ".join(why))

    async def ask(self, request: dict[str, Any], *, seconds: float = 60.0) -> dict[str, Any]:
        return await self._ssh().ask(self._login(str(self.job_facts["host"])), request, seconds=seconds)

    async def runs(self) -> bool:
        """Whether the server still runs; a machine that does not answer may be back."""
        try:
            answer = await self.ask({"do": "look", "server": self.job_facts["server"]})
        except RunError as error:
            self.log.warning("%s: it is not known whether the server runs: %s", self._log_name, error)
            return True
        return answer.get("running") is not False

    @property
    def address(self) -> str:
        # Never what is said there: a person would have the proxy connect to wherever they like.
        return str(self.job_facts["host"])

    async def machine(self) -> str:
        return str(self.job_facts.get("host", ""))

    def known_machines(self) -> Sequence[str]:
        return list(self.hosts)
