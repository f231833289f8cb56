"""Servers as jobs, over batchspawner: what all its schedulers have in common.

Of batchspawner stay its traits, its commands and how it reads their answers. The job is ours: no value of a person's
is pasted into a script, and no shell is between the hub and the scheduler's commands.
"""

from __future__ import annotations

import asyncio
import os
import re
import shlex
from collections.abc import Mapping
from typing import Any

from batchspawner import BatchSpawnerBase, JobStatus
from batchspawner.batchspawner import format_template
from traitlets import Float, Unicode

from hpcbinder.errors import HpcbinderError, RunError
from hpcbinder.jupyterhub import handler
from hpcbinder.jupyterhub.account import Account, run
from hpcbinder.jupyterhub.jobs import ENDED, GONE, PENDING, RUNNING, JobState, Queue
from hpcbinder.jupyterhub.mixin import ServerMixin, failure
from hpcbinder.scheduler import Resources
from hpcbinder.text import one_line

handler.install()

_JOB = re.compile(r"[1-9][0-9]{0,11}", re.ASCII)
"""Numbers alone: a submit command runs as the person, and may have been made to say whatever they like."""
_NODE = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.:_-]{0,252}[A-Za-z0-9])?", re.ASCII)


class JobMixin(ServerMixin):
    """In front of one of batchspawner's classes, whose `batch_submit_cmd`, `batch_query_cmd`, `batch_cancel_cmd` and
    `state_*` count.

    A class for a scheduler says what its job is (`job_script`), and may ask about all jobs at once (`look`).
    """

    queue_interval = Float(
        3.0, min=0.1, help="Seconds between two questions to the scheduler; one is for all servers of the hub."
    ).tag(config=True)
    stop_grace = Float(10.0, min=0.0, help="Seconds that a server may take to end by itself when it is stopped.").tag(
        config=True
    )
    batch_script = Unicode("", help="Not used: the job's script is hpcbinder's own.")
    _starting = False

    # For each scheduler

    def job_script(self, resources: Resources, command: list[str], log: str) -> str:
        """The job's script, as the submit command reads it from its input.

        Args:
            resources: What the job asks for; all of it checked.
            command: What it runs.
            log: Where its output goes, an absolute path of plain characters.
        """
        raise NotImplementedError

    def submit_words(self, resources: Resources, log: str) -> list[str]:
        """Words for the submit command's end."""
        return []

    def gentle_cancel(self) -> list[str]:
        """The command that asks a running job to end by itself, [] where there is none."""
        return []

    def owner(self, account: Account) -> str:
        """The person, as the scheduler writes whose a job is."""
        return account.name

    def state_getowner(self) -> str:
        """Whose `job_status` says that the job is, "" where it does not."""
        return ""

    async def leads_to(self, node: str) -> bool:
        """Whether the proxy may connect to what the scheduler says that the job runs on."""
        return bool(_NODE.fullmatch(node))

    def queue(self) -> Queue:
        """Where it is known how the job stands."""
        found = self.__dict__.get("_queue")
        if found is None:
            found = self.__dict__["_queue"] = Queue(self._look_alone, self.queue_interval)
        return found

    async def _look_alone(self, jobs: Any) -> dict[str, JobState]:
        status = await self.query_job_status()
        if status == JobStatus.UNKNOWN:
            raise RunError(one_line(self.job_status, 200))
        word, owner = one_line((self.job_status.split() or [""])[0], 200), self.state_getowner()
        if status == JobStatus.PENDING:
            return {self.job_id: JobState(PENDING, word, owner=owner)}
        if status == JobStatus.RUNNING:
            return {self.job_id: JobState(RUNNING, word, node=self.state_gethost() or "", owner=owner)}
        return {}

    async def job_state(self, job: str, *, newest: bool = False) -> JobState | None:
        """How a job stands (`Queue.state`). Somebody else's is none: the number may be what a person likes."""
        state = await self.queue().state(job, newest=newest)
        if state is None or not state.owner:
            return state
        try:
            owner = self.owner(self.account())
        except (HpcbinderError, KeyError):
            return state  # of an account that is there no more
        if state.owner != owner:
            self.log.warning("Job %s of %s is not of %s", job, self._log_name, self.user.name)
            self.queue().forget(job)
            return GONE
        return state

    # Instead of batchspawner's

    async def run_command(self, cmd: str, input: str | None = None, env: Any = None) -> str:
        """Ask the scheduler (`batch_query_cmd`) without a shell, and as the hub: a person has settings of their own for
        that command, and could have it say what they like."""
        command = shlex.split(cmd)
        # batchspawner puts the prefix in front.
        prefix = shlex.split(format_template(self.exec_prefix, **self.get_req_subvars()))
        if prefix and command[: len(prefix)] == prefix:
            command = command[len(prefix) :]
        own = {name: os.environ[name] for name in ("HOME", "USER", "LOGNAME") if name in os.environ}
        done = await run(command, (input or "").encode(), environ={**self._passed, **own})
        if done.code:
            raise RuntimeError(one_line(done.complaint.strip() or f"exit code {done.code}", 500))
        return done.out.strip()

    def get_req_subvars(self) -> dict[str, Any]:
        """What the site's commands may name: the person, and nothing that the person says."""
        return {"username": self.user.name, "homedir": self.account().home, "host": self.req_host}

    async def submit(self, account: Account, resources: Resources, folder: str, log: str) -> str:
        """Have a server be a job; its number."""
        command = self.command(folder)
        script = self.job_script(resources, command, log)
        submit = [*shlex.split(format_template(self.batch_submit_cmd, **self.get_req_subvars()))]
        done = await account.run([*submit, *self.submit_words(resources, log)], script.encode())
        if done.code:
            why = one_line(" ".join(done.complaint.split()) or f"exit code {done.code}", 500)
            self.log.warning("No job for %s: %s", self._log_name, why)
            raise failure(f"the scheduler takes no such job: {why}", reason="refused", status=400)
        try:
            job = str(self.parse_job_id(done.out.strip()))
        except Exception:  # whatever batchspawner's classes raise
            job = ""
        if not _JOB.fullmatch(job):
            raise failure("the scheduler's answer has no number of a job", reason="refused")
        return job

    async def submit_batch_script(self) -> str:
        raise NotImplementedError("JobMixin.start submits")

    async def start(self) -> tuple[str, int]:
        self._starting = True
        try:
            return await self._start()
        finally:
            self._starting = False

    async def _start(self) -> tuple[str, int]:
        self.begin_saying()
        account, resources, files = await self.prepare()
        self.expect_port()
        try:
            place = "/" + os.path.normpath(self.place(account)).lstrip("/")
            request = {"do": "put", "place": place, "server": self.server_name, "files": files}
            folder, log = put_there(request, await account.ask("filing", request))
            self.job_facts = {**self.job_facts, "folder": folder, "log": log}
            self.job_id = await self.submit(account, resources, folder, log)
        except HpcbinderError as error:
            self.log.warning("Cannot start %s: %s", self._log_name, error)
            raise failure(one_line(error.message, 500), reason="account") from None
        self.log.info("%s is job %s", self._log_name, self.job_id)
        self.say(f"Job {self.job_id} is submitted", 10)
        self.remember()
        return await self._up()

    async def _up(self) -> tuple[str, int]:
        """Wait until the server has said where it listens."""
        job = self.job_id
        while True:
            said = self._port_said.is_set()
            state = await self.job_state(job, newest=said)
            if state is not None:
                self.say(state.sentence(job), 50 if state.phase == RUNNING else 20)
                if state.phase == ENDED:
                    raise await self.died(state.sentence(job))
                if said and state.phase == RUNNING and state.node:
                    if not await self.leads_to(state.node):
                        why = f"'{one_line(state.node, 100)}' is no machine that servers of this hub run on"
                        self.log.warning("%s, job %s: %s", self._log_name, job, why)
                        raise failure(why, reason="node")
                    return state.node, int(self.job_facts["port"])
            if said:
                await asyncio.sleep(0.2)
            else:
                try:
                    await asyncio.wait_for(self._port_said.wait(), self.queue_interval)
                except asyncio.TimeoutError:
                    pass

    async def get_url(self) -> str:
        """Where the server is, also of one that was still in the queue when the hub was restarted."""
        if self.awaits_port:
            self.log.info("Waiting for %s, job %s", self._log_name, self.job_id)
            try:
                node, port = await self._up()
            except Exception as error:
                self.log.warning("%s: %s", self._log_name, error)
            else:
                return self.listening_at(node, port)
        return str(self.server.url)

    async def machine(self) -> str:
        if not self.job_id:
            return ""
        # Not the newest: this is the server's question, and the scheduler is asked no more often for it.
        state = await self.job_state(self.job_id)
        if state is None or state.phase != RUNNING or not await self.leads_to(state.node):
            return ""
        return state.node

    async def poll(self) -> int | None:
        if self._starting:
            return None  # `start` itself looks, and says more
        if not self.job_id:
            return 0
        state = await self.job_state(self.job_id)
        if state is None or state.phase != ENDED:
            return None
        await self._clean(self.account())
        self.clear_state()
        return 1

    async def _clean(self, account: Account) -> None:
        """Remove what the launcher removes itself, unless it was killed, or its job cancelled before it began."""
        if folder := self.job_facts.get("folder"):
            try:
                await account.ask("filing", {"do": "remove", "folder": folder})
            except HpcbinderError as error:
                self.log.warning("%s of %s is left: %s", folder, self._log_name, error)

    async def stop(self, now: bool = False) -> None:
        if not self.job_id:
            return
        job, account = self.job_id, self.account()
        self.awaits_port = False
        state = await self.job_state(job, newest=True)
        gentle = self.gentle_cancel()
        if gentle and not now and state is not None and state.phase == RUNNING:
            await self._told(account, gentle)
            if await self._ended(job, self.stop_grace):
                state = GONE
        if state != GONE:
            cancel = format_template(self.batch_cancel_cmd, **self.get_req_subvars(), job_id=job)
            await self._told(account, shlex.split(cancel))
            if not now and not await self._ended(job, 60.0):
                self.log.warning("Job %s of %s does not end", job, self._log_name)
        await self._clean(account)

    async def _told(self, account: Account, command: list[str]) -> None:
        try:
            done = await account.run(command)
        except RunError as error:
            self.log.warning("%s", error)
            return
        if done.code:
            self.log.warning("%s: %s", command[0], one_line(done.complaint.strip(), 300))

    async def _ended(self, job: str, seconds: float) -> bool:
        end = asyncio.get_running_loop().time() + seconds
        while True:
            state = await self.job_state(job, newest=True)
            if state is not None and state.phase == ENDED:
                return True
            if asyncio.get_running_loop().time() > end:
                return False
            await asyncio.sleep(0.5)

    async def progress(self) -> Any:
        async for event in ServerMixin.progress(self):
            yield event


def put_there(request: Mapping[str, Any], answer: Mapping[str, Any]) -> tuple[str, str]:
    """The folder and the log that `filing` has made. A person may have what they like be run in its place.

    Args:
        request: What it was asked.
        answer: What it said.

    Raises:
        RunError: It is no such folder, or no such log.
    """
    folder, log = answer.get("folder"), answer.get("log")
    names = re.escape(f"{str(request['place']).rstrip('/')}/{request['server']}")
    if (
        isinstance(folder, str)
        and isinstance(log, str)
        and re.fullmatch(names + r"~[a-z0-9_]{8}", folder, re.ASCII)
        and re.fullmatch(names + r"\.log", log)
    ):
        return folder, log
    raise RunError(f"what is said of the server's folder cannot be read: {one_line(str(answer), 100)}")


__all__ = ["BatchSpawnerBase", "JobMixin"]
