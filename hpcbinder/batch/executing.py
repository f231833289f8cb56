"""Executing what was staged: here, or as one job array; and following it to its end."""

from __future__ import annotations

import secrets
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Protocol

from hpcbinder.batch.outcome import ENDED, Outcome, Run, State, lost, outcomes
from hpcbinder.batch.page import summary
from hpcbinder.batch.staging import NUMBER, OWN
from hpcbinder.catalog import write_atomic
from hpcbinder.errors import RunError, UsageError
from hpcbinder.progress import Reporter
from hpcbinder.scheduler import Arrays, Resources
from hpcbinder.text import one_line

_JOB = "job"
"""File in the run's own folder: the id of its job array."""
_LOOK = 1.0
"""Seconds between two looks at the tasks' files."""
_ASK = 5.0
"""Seconds between two questions to the batch system."""
_GRACE = 20.0
"""Seconds that a file which a node wrote may take to be seen here (NFS keeps attributes of folders for some)."""
_END = 15.0
"""Seconds that a task gets to write down how far it has come."""


class Left(BaseException):
    """The terminal is gone: nobody reads any more what is said."""


class Tasks(Protocol):
    """Whoever executes the tasks of a run."""

    def look(self, run: Run, known: Sequence[Outcome]) -> list[Outcome]:
        """What is known now of all tasks."""

    def cancel(self) -> None:
        """End them."""


class Here:
    """Executes tasks on this machine, a few at the same time.

    Args:
        start: The command line that executes one (`stage`).
        at_once: How many.
        environ: Of whom they are for.
    """

    def __init__(self, run: Run, start: Sequence[str], *, at_once: int, environ: Mapping[str, str]) -> None:
        self._run, self._start, self._at_once = run, list(start), at_once
        self._environ = dict(environ)
        self._waiting = list(range(len(run.tasks)))
        self._running: dict[int, subprocess.Popen[bytes]] = {}
        self._cancelled = False

    def look(self, run: Run, known: Sequence[Outcome]) -> list[Outcome]:
        """See `Tasks.look`; begins what there is room for."""
        ended = set()
        for number, process in list(self._running.items()):
            if process.poll() is not None:
                del self._running[number]
                ended.add(number)
        while self._waiting and len(self._running) < self._at_once:
            self._begin(self._waiting.pop(0))
        gone = set(range(len(run.tasks))) - self._running.keys() - set(self._waiting)
        return [
            lost(task, run, "", cancelled=self._cancelled) if task.number in gone and task.state not in ENDED else task
            for task in outcomes(run)
        ]

    def _begin(self, number: int) -> None:
        log = self._run.folder / OWN / "log" / f"{number}.log"
        with log.open("ab") as out:
            # In a session of its own: Ctrl-C is ours to tell them. The launcher ends when we do, however we do.
            self._running[number] = subprocess.Popen(
                self._start,
                env={**self._environ, NUMBER: str(number)},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def cancel(self) -> None:
        """See `Tasks.cancel`."""
        self._cancelled = True
        self._waiting.clear()
        for process in self._running.values():
            process.terminate()
        end = time.monotonic() + _END
        for process in self._running.values():
            try:
                process.wait(max(end - time.monotonic(), 0.1))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


class InJobs:
    """Tasks that are a job array.

    Args:
        job: Its id.
        environ: Leads to the cluster.

    Raises:
        RunError: There is no Slurm here.
    """

    def __init__(self, job: str, environ: Mapping[str, str]) -> None:
        self._job, self._arrays = job, Arrays(environ)
        self._asked = -_ASK
        self._states = self._arrays.states(job)
        self._unseen: dict[int, float] = {}
        self._silent = 0

    def look(self, run: Run, known: Sequence[Outcome]) -> list[Outcome]:
        """See `Tasks.look`."""
        now = time.monotonic()
        if now - self._asked >= _ASK:
            self._asked = now
            self._ask()
        return [self._judged(task, run, now) for task in outcomes(run)]

    def _ask(self) -> None:
        try:
            self._states = self._arrays.states(self._job)
            self._silent = 0
        except RunError:
            # A controller that restarts is no reason to give up jobs that go on.
            self._silent += 1
            if self._silent > 60:
                raise

    def _judged(self, task: Outcome, run: Run, now: float) -> Outcome:
        said = self._states.get(task.number)
        if task.state in ENDED:
            if task.state is not State.CANCELLED or said is None:
                return task
            # It was told to end: Slurm knows why.
            state = task.state if said.state == "CANCELLED" else State.FAILED
            return replace(task, state=state, reason=_words(said.state))
        if said is not None and said.waits and task.state is State.WAITING:
            return replace(task, reason=said.reason)
        if self._silent or (said is not None and (said.waits or said.runs)):
            self._unseen.pop(task.number, None)
            return task
        # Its job has ended, or is forgotten: what it wrote may just not be seen here yet.
        cancelled = said is not None and said.state == "CANCELLED"
        begun = task.state is State.RUNNING or not cancelled
        if begun and now - self._unseen.setdefault(task.number, now) < _GRACE:
            return task
        return lost(task, run, _words(said.state) if said else "", cancelled=cancelled)

    def cancel(self) -> None:
        """See `Tasks.cancel`; waits until they are gone."""
        self._arrays.cancel(self._job)
        end = time.monotonic() + _END + _GRACE
        while time.monotonic() < end:
            self._states = self._arrays.states(self._job)
            if not any(state.waits or state.runs for state in self._states.values()):
                break
            time.sleep(_LOOK)
        self._asked = time.monotonic()


def submit(
    run: Run,
    start: Sequence[str],
    resources: Resources,
    *,
    at_once: int,
    cwd: Path,
    environ: Mapping[str, str],
) -> str:
    """Make a run one job array, and keep its id in the run's folder.

    Args:
        start: The command line that executes a task (`stage`).
        at_once: How many tasks may run at the same time, 0 for any.
        cwd: Where notebooks of the person's own run.

    Returns:
        The job's id.

    Raises:
        RunError: There is no Slurm here, or it does not take the job.
    """
    name = f"hpcbinder-{run.image}-{secrets.token_hex(4)}"
    own = run.folder / OWN
    arrays = Arrays(environ)
    job = arrays.submit(resources, start, count=len(run.tasks), at_once=at_once, name=name, cwd=cwd, folder=own)
    try:
        write_atomic(own / _JOB, f"{job}\n".encode("ascii"))
    except BaseException:
        arrays.cancel(job)
        raise
    return job


def job_of(run: Run) -> str | None:
    """The id of a run's job array; None of one that was executed where it was asked for.

    Raises:
        UsageError: What is there is none.
    """
    path = run.folder / OWN / _JOB
    try:
        text = path.read_text("ascii", "replace").strip()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UsageError(f"cannot be read: {error.strerror}", where=one_line(str(path))) from None
    if not text.isdecimal():
        raise UsageError("not the id of a job", where=one_line(str(path)))
    return text


def follow(run: Run, tasks: Tasks, reporter: Reporter) -> tuple[list[Outcome], bool]:
    """Wait until all tasks have ended, and say how far they are.

    Ctrl-C and SIGTERM end the tasks; should the terminal go away, jobs go on.

    Returns:
        What became of them, and whether they were ended early.

    Raises:
        Left: The terminal went away.
        RunError: The batch system does not answer any more.
    """
    known = outcomes(run)
    told = ""
    with _signals():
        try:
            while True:
                before = {task.number: task.state for task in known}
                known = tasks.look(run, known)
                for task in known:
                    if task.state in ENDED and before[task.number] not in ENDED:
                        took = f" ({task.seconds:.1f} s)" if task.seconds else ""
                        said = f": {task.said}" if task.said else ""
                        reporter.phase("run", one_line(f"{task.name}: {task.state.value}{took}{said}", 500))
                if all(task.state in ENDED for task in known):
                    return known, False
                if (line := _progress(known)) != told:
                    told = line
                    done = sum(task.state in ENDED for task in known)
                    reporter.phase("run", line, done / len(known))
                time.sleep(_LOOK)
        except KeyboardInterrupt:
            # A second Ctrl-C is not to leave jobs behind.
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, signal.SIG_IGN)
            reporter.phase("run", "ending what runs")
            tasks.cancel()
            cut = [
                task if task.state in ENDED else lost(task, run, "interrupted", cancelled=True)
                for task in tasks.look(run, known)
            ]
            return cut, True


def _progress(known: Sequence[Outcome]) -> str:
    """`3 of 10 notebooks executed, 2 running (cell 3 of 7), 5 waiting (Priority)`."""
    line = summary(known)
    for state in (State.RUNNING, State.WAITING):
        which = [task.said for task in known if task.state is state and task.said]
        if which:
            line = line.replace(f" {state.value}", f" {state.value} ({which[0]})")
    return one_line(line, 300)


def _words(state: str) -> str:
    known = {
        "TIMEOUT": "the job's time was over (--time)",
        "OUT_OF_MEMORY": "the job's memory was used up (--mem)",
        "NODE_FAIL": "its node failed",
        "PREEMPTED": "its node was given to another job",
        "CANCELLED": "its job was cancelled",
    }
    return known.get(state, "")


@contextmanager
def _signals() -> Iterator[None]:
    """SIGTERM is as Ctrl-C; a terminal that goes away (SIGHUP) is told apart."""

    def hangup(signum: int, frame: FrameType | None) -> None:
        raise Left

    def end(signum: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    kept = [(number, signal.getsignal(number)) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, end)
    # Of whoever was started with nohup the terminal's end is none.
    if kept[-1][1] is not signal.SIG_IGN:
        signal.signal(signal.SIGHUP, hangup)
    try:
        yield
    finally:
        for number, handler in kept:
            signal.signal(number, handler)
