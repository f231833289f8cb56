"""How the jobs of a hub stand: one question to the scheduler for all of them, and not often."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

from hpcbinder.errors import RunError

log = logging.getLogger("hpcbinder.jupyterhub")

PENDING, RUNNING, ENDED = "pending", "running", "ended"


@dataclass(frozen=True)
class JobState:
    """How a job stands.

    Attributes:
        phase: PENDING, RUNNING or ENDED.
        word: The scheduler's own word for it (`PENDING`, `OUT_OF_MEMORY`), "" where it knows the job no more.
        reason: Why it waits, or why it ended; "" where nobody says.
        start: When it is expected to start, as the scheduler writes it; "" where nobody says.
        node: Where it runs, "" before.
        owner: Whose it is, as the scheduler writes it; "" where nobody says.
    """

    phase: str
    word: str = ""
    reason: str = ""
    start: str = ""
    node: str = ""
    owner: str = ""

    def sentence(self, job: str) -> str:
        """For the person who waits."""
        why = f": {self.reason}" if self.reason else ""
        if self.phase == PENDING:
            when = f"; expected to start {self.start}" if self.start else ""
            return f"Job {job} waits in the queue{why}{when}"
        if self.phase == RUNNING:
            return f"Job {job} runs{f' on {self.node}' if self.node else ''}; waiting for the server to answer"
        return f"Job {job} has ended{f' ({self.word.lower()})' if self.word else ''}{why}"


GONE = JobState(ENDED)
"""The scheduler does not know the job (any more)."""

Look = Callable[[Sequence[str]], Awaitable[Mapping[str, JobState]]]
"""Asks the scheduler about jobs by their numbers; those that it does not know are not in the answer. Raises RunError
where it does not answer."""


class Queue:
    """What is known of all jobs of a hub.

    Args:
        look: Asks the scheduler.
        interval: Seconds that an answer is good for.
    """

    def __init__(self, look: Look, interval: float) -> None:
        self._look = look
        self.interval = interval
        self._jobs: dict[str, JobState | None] = {}
        self._when = float("-inf")
        self._asking: asyncio.Task[None] | None = None

    async def state(self, job: str, *, newest: bool = False) -> JobState | None:
        """How a job stands; None where the scheduler has not said so yet.

        Args:
            job: Its number. From now on it is asked about with the others, until it has ended.
            newest: As it is now, however fresh what is known is.
        """
        begin = time.monotonic()
        self._jobs.setdefault(job, None)
        # An answer to a question that was put before this one says nothing of what happened since.
        wanted = begin if newest or self._jobs[job] is None else begin - self.interval
        for _ in range(2):
            if self._when >= wanted:
                break
            await self._ask()
        known = self._jobs.get(job)
        if known is not None and known.phase == ENDED:
            self._jobs.pop(job, None)
        return known

    def forget(self, job: str) -> None:
        """Ask about a job no more."""
        self._jobs.pop(job, None)

    async def _ask(self) -> None:
        if self._asking is None:
            self._asking = asyncio.ensure_future(self._asked())
            self._asking.add_done_callback(self._answered)
        # Whoever asks meanwhile gets the same answer; one that gives up does not end it for the others.
        await asyncio.shield(self._asking)

    def _answered(self, task: asyncio.Task[None]) -> None:
        self._asking = None

    async def _asked(self) -> None:
        begin = time.monotonic()
        jobs = list(self._jobs)
        try:
            found = await self._look(jobs)
        except RunError as error:
            # A controller that is restarted, say: what was known counts until it is back.
            log.warning("the scheduler does not say how jobs stand: %s", error)
            self._when = begin
            return
        for job in jobs:
            if job in self._jobs:
                self._jobs[job] = found.get(job, GONE)
        self._when = begin
