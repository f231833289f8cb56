"""What is known of jobs, and how often the scheduler is asked."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from hpcbinder.errors import RunError
from hpcbinder.jupyterhub.jobs import ENDED, GONE, PENDING, RUNNING, JobState, Queue

SQUEUE = """\
7|1001|PENDING|N/A|14:05|Resources
8|1001|PENDING|(null)|N/A|(launch failed requeued held)
9|1002|RUNNING|n1|13:00|None
10|1002|OUT_OF_MEMORY|n2|13:00|OutOfMemory
11|1002|COMPLETING|n2|13:00|a | b \x1b[31m
not a line
"""


def test_what_squeue_says() -> None:
    from hpcbinder.jupyterhub.slurm import read_squeue

    found = read_squeue(SQUEUE)
    assert found == {
        "7": JobState(PENDING, "PENDING", "Resources", "14:05", owner="1001"),
        "8": JobState(PENDING, "PENDING", "(launch failed requeued held)", owner="1001"),
        "9": JobState(RUNNING, "RUNNING", node="n1", owner="1002"),
        "10": JobState(ENDED, "OUT_OF_MEMORY", "OutOfMemory", node="n2", owner="1002"),
        "11": JobState(ENDED, "COMPLETING", "a | b \\x1b[31m", node="n2", owner="1002"),
    }
    assert found["7"].sentence("7") == "Job 7 waits in the queue: Resources; expected to start 14:05"
    assert found["10"].sentence("10") == "Job 10 has ended (out_of_memory): OutOfMemory"


class Scheduler:
    """Answers what it is told to, and keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[Sequence[str]] = []
        self.answer: Mapping[str, JobState] | RunError = {}

    async def look(self, jobs: Sequence[str]) -> Mapping[str, JobState]:
        self.asked.append(sorted(jobs))
        await asyncio.sleep(0)
        if isinstance(self.answer, RunError):
            raise self.answer
        return self.answer


def test_one_question_is_for_all() -> None:
    scheduler = Scheduler()
    scheduler.answer = {str(n): JobState(RUNNING, node="n1") for n in range(100)}

    async def main() -> None:
        queue = Queue(scheduler.look, 1000.0)
        await asyncio.gather(*(queue.state(str(n)) for n in range(100)))
        states = await asyncio.gather(*(queue.state(str(n)) for n in range(100)))
        assert {state.node for state in states if state} == {"n1"}

    asyncio.run(main())
    assert len(scheduler.asked) <= 2
    assert len(scheduler.asked[-1]) == 100


def test_a_scheduler_that_does_not_answer_ends_nothing() -> None:
    scheduler = Scheduler()

    async def main() -> None:
        queue = Queue(scheduler.look, 0.0)
        scheduler.answer = RunError("Unable to contact slurm controller")
        assert await queue.state("7") is None
        scheduler.answer = {"7": JobState(RUNNING, node="n1")}
        assert await queue.state("7") == JobState(RUNNING, node="n1")
        scheduler.answer = RunError("Unable to contact slurm controller")
        assert await queue.state("7", newest=True) == JobState(RUNNING, node="n1")
        scheduler.answer = {}
        assert await queue.state("7") == GONE

    asyncio.run(main())


def test_of_batchspawners_own_handlers_none_is_left() -> None:
    import batchspawner  # noqa: F401
    from jupyterhub.apihandlers import default_handlers

    from hpcbinder.jupyterhub.handler import PATH, PortHandler, install

    install()
    install()
    assert [handler for path, handler in default_handlers if path == PATH] == [PortHandler]
    assert not [handler for _, handler in default_handlers if handler.__module__.startswith("batchspawner")]
