"""Servers as jobs of PBS, LSF and HTCondor.

HTCondor's are run by the tests, for real. PBS and LSF cannot be had for that: what is submitted to them is as their
manuals have it, and compared with job scripts that were written down.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import shlex
import socket
from typing import Any

import batchspawner
from traitlets import List, TraitError, Unicode, validate

from hpcbinder.errors import RunError, UsageError
from hpcbinder.jupyterhub.account import Account
from hpcbinder.jupyterhub.batch import JobMixin
from hpcbinder.jupyterhub.mixin import failure
from hpcbinder.jupyterhub.offer import Offer
from hpcbinder.jupyterhub.options import Options
from hpcbinder.scheduler import Resources, htcondor_directives, lsf_directives, pbs_directives
from hpcbinder.text import one_line

_PLAIN = re.compile(r"/[A-Za-z0-9/._+@~=-]*", re.ASCII)
_UNANSWERED = "no answer: "
_HOST = re.compile(r"[A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,63}){0,15}", re.ASCII)
_NUMBER = re.compile(r"[0-9]+|0[xX][0-9a-fA-F]*", re.ASCII)
"""A host whose last part is one is an address (URL Standard, 3.5): `127.1`, `0x7f000001`."""
_KNOWN = ["PATH", "LANG", "LC_ALL", "TZ"]


class ScriptMixin(JobMixin):
    """A job whose script says what it asks for."""

    script_lines = List(
        Unicode(), help="Lines of the site's for every job's script, as its scheduler reads them (`#PBS -P physics`)."
    ).tag(config=True)

    nodes = Unicode(
        "",
        help="Regular expression for the names of machines that jobs run on (`node[0-9]+`): the proxy connects to no "
        "other. Empty: to any that is named, but for the hub's own; where the scheduler lets a person say where their "
        "job runs, that may be any host of the site.",
    ).tag(config=True)

    @validate("nodes")
    def _validate_nodes(self, proposal: Any) -> str:
        try:
            re.compile(proposal["value"])
        except re.error as error:
            raise TraitError(f"nodes: {proposal['value']!r} is no regular expression: {error}") from None
        return str(proposal["value"])

    async def leads_to(self, node: str) -> bool:
        if not await super().leads_to(node):
            return False
        if self.nodes:
            return bool(re.fullmatch(self.nodes, node))
        own = socket.gethostname().lower()
        name = node.lower()
        last = name.rpartition(".")[2]
        if not _HOST.fullmatch(name) or _NUMBER.fullmatch(last) or name in (own, own.partition(".")[0]):
            return False
        return last not in ("localhost", "localdomain") and not await _is_here(name)

    def owner(self, account: Account) -> str:
        # Of an account of a domain they have the name alone.
        return account.name.partition("@")[0]

    def directives(self, resources: Resources) -> list[str]:
        """What a job asks for, in the scheduler's words.

        Raises:
            UsageError: It has none for that.
        """
        raise NotImplementedError

    async def choose(self, raw: object) -> tuple[Options, Offer]:
        options, offer = await super().choose(raw)
        try:
            self.directives(offer.resources(options))
        except UsageError as error:
            self.log.warning("Refused what %s asks for: %s", self._log_name, error.message)
            raise failure(error.message, reason="options", status=400) from None
        return options, offer

    @property
    def job_name(self) -> str:
        """As short as the oldest of them wants it, 15 characters."""
        return f"jupyter-{hashlib.sha256(self.server_name.encode()).hexdigest()[:6]}"

    async def run_command(self, cmd: str, input: str | None = None, env: Any = None) -> str:
        try:
            return await super().run_command(cmd, input, env)
        except RunError as error:
            # batchspawner takes whatever else is raised for the end of the job.
            raise RuntimeError(_UNANSWERED + error.message) from None

    def state_isunknown(self) -> bool:
        if self.job_status.startswith(_UNANSWERED):
            return True
        pattern = self.state_unknown_re
        return bool(pattern and re.search(pattern, self.job_status))

    def shell_script(self, mark: str, directives: list[str], command: list[str]) -> str:
        """A script that begins with the scheduler's lines."""
        lines = ["#!/bin/sh", *(f"{mark} {words}" for words in directives), *self.script_lines]
        return "\n".join([*lines, f"exec {shlex.join(command)}", ""])


async def _is_here(name: str) -> bool:
    """Whether a name leads to this very machine: addresses of others cannot be bound."""
    try:
        found = await asyncio.get_running_loop().getaddrinfo(name, 0, type=socket.SOCK_DGRAM)
    except (OSError, UnicodeError):
        return False  # then it leads nowhere
    for family, kind, protocol, _, address in found:
        with socket.socket(family, kind, protocol) as attempt:
            try:
                attempt.bind(address)
            except OSError:
                continue
            return True
    return False


class PBSSpawner(ScriptMixin, batchspawner.PBSSpawner):  # type: ignore[misc, unused-ignore]
    """PBS Professional, OpenPBS. Unverified: no test runs a PBS."""

    batch_script = Unicode("", help="Not used: the job's script is hpcbinder's own.")
    passed_environment = List(Unicode(), [*_KNOWN, "PBS_CONF_FILE", "PBS_SERVER"]).tag(config=True)
    # qstat(1B), job_state: exiting and suspended ones are not over, waiting, held and moved ones will run.
    state_pending_re = Unicode(r"(?m)^\s*job_state = [HMQTW]").tag(config=True)
    state_running_re = Unicode(r"(?m)^\s*job_state = [BERSU]").tag(config=True)
    state_unknown_re = Unicode(r"(?i)cannot connect|connection (refused|timed out)|communication failure").tag(
        config=True
    )
    state_exechost_re = Unicode(r"(?m)^\s*exec_host = ([A-Za-z0-9.-]+)/").tag(config=True)

    def parse_job_id(self, output: str) -> str:
        # NUMBER.SERVER; a command goes to a server that is named in what it is told, so the number alone is kept.
        found = re.fullmatch(r"([0-9]+)(\.[A-Za-z0-9.-]+)?", (output.splitlines() or [""])[-1], re.ASCII)
        return found[1] if found else ""

    def state_getowner(self) -> str:
        found = re.search(r"^\s*Job_Owner = ([^@\s]+)", self.job_status, re.MULTILINE)
        return found[1] if found else ""

    def directives(self, resources: Resources) -> list[str]:
        return pbs_directives(resources)

    def job_script(self, resources: Resources, command: list[str], log: str) -> str:
        # Not to be mailed about, nor started again: what starts it is there once.
        own = [f"-N {self.job_name}", "-j oe", f"-o {plain(log)}", "-m n", "-r n"]
        return self.shell_script("#PBS", [*own, *self.directives(resources)], command)


class LsfSpawner(ScriptMixin, batchspawner.LsfSpawner):  # type: ignore[misc, unused-ignore]
    """IBM Spectrum LSF 10.1. Unverified: no test runs an LSF."""

    batch_script = Unicode("", help="Not used: the job's script is hpcbinder's own.")
    passed_environment = List(
        Unicode(), [*_KNOWN, "LSF_BINDIR", "LSF_ENVDIR", "LSF_FULL_VERSION", "LSF_LIBDIR", "LSF_SERVERDIR"]
    ).tag(config=True)
    batch_query_cmd = Unicode('bjobs -u all -a -noheader -o "STAT EXEC_HOST USER" {job_id}').tag(config=True)
    state_unknown_re = Unicode(r"^UNKWN|LSF is down|(?i:please wait|cannot connect|timed out)").tag(config=True)

    def directives(self, resources: Resources) -> list[str]:
        return lsf_directives(resources)

    def job_script(self, resources: Resources, command: list[str], log: str) -> str:
        own = [f"-J {self.job_name}", f"-o {plain(log)}", "-rn", "-cwd /"]
        return self.shell_script("#BSUB", [*own, *self.directives(resources)], command)

    def parse_job_id(self, output: str) -> str:
        # A site's esub may say things first.
        found = re.search(r"^Job <([0-9]+)> is submitted", output, re.MULTILINE)
        return found[1] if found else ""

    # bjobs(1): suspended ones are not over.

    def state_ispending(self) -> bool:
        return self._said()[0] in ("PEND", "PSUSP", "WAIT")

    def state_isrunning(self) -> bool:
        return self._said()[0] in ("RUN", "SSUSP", "USUSP")

    def state_gethost(self) -> str:
        # `4*node1:4*node2`: the script is run by the first.
        return re.sub(r"^[0-9]+\*", "", self._said()[1].partition(":")[0])

    def state_getowner(self) -> str:
        # A site's own `batch_query_cmd` may say two things alone.
        return self._said()[2].rpartition("\\")[2]

    def _said(self) -> list[str]:
        return [*self.job_status.split(), "", "", ""][:3]


class CondorSpawner(ScriptMixin, batchspawner.CondorSpawner):  # type: ignore[misc, unused-ignore]
    """HTCondor, in a pool whose machines see the persons' homes."""

    batch_script = Unicode("", help="Not used: the job's description is hpcbinder's own.")
    passed_environment = List(Unicode(), [*_KNOWN, "CONDOR_CONFIG"]).tag(config=True)
    batch_query_cmd = Unicode(
        'condor_q {job_id} -allusers -format "%s, " JobStatus -format "%s" RemoteHost -format " %s" Owner'
    ).tag(config=True)
    state_unknown_re = Unicode(r"(?i)failed to (fetch|connect)|can't (find|connect)|timed out").tag(config=True)

    def directives(self, resources: Resources) -> list[str]:
        return htcondor_directives(resources)

    def state_getowner(self) -> str:
        # A site's own `batch_query_cmd` may say two things alone.
        found = re.fullmatch(r"[0-9]+, \S* (\S+)", self.job_status)
        return found[1] if found else ""

    def job_script(self, resources: Resources, command: list[str], log: str) -> str:
        """A submit description. Everybody may read what a job of HTCondor has in its record (`condor_q -long`): of the
        hub's and the person's environment nothing is in it."""
        return "\n".join(
            [
                "universe = vanilla",
                f"batch_name = {self.job_name}",
                f"executable = {plain(command[0])}",
                f'arguments = "{" ".join(plain_word(word) for word in command[1:])}"',
                "transfer_executable = False",
                "should_transfer_files = NO",
                "initialdir = /",
                f"output = {plain(log)}",
                f"error = {plain(log)}",
                "getenv = False",
                "notification = Never",
                # What starts it is there once, and one that is held has used up what it asked for.
                "periodic_remove = JobStatus == 5 || NumJobStarts > 1",
                *self.directives(resources),
                *self.script_lines,
                "queue",
                "",
            ]
        )


def plain(path: str) -> str:
    """A path that needs no quotes in any of these languages.

    Raises:
        UsageError: It is another one.
    """
    if not _PLAIN.fullmatch(path):
        raise UsageError(f"'{one_line(path, 200)}' is no path that this scheduler can be told")
    return path


def plain_word(word: str) -> str:
    """An option or such a path."""
    return word if re.fullmatch(r"-{1,2}[A-Za-z-]+", word, re.ASCII) else plain(word)
