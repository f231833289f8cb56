"""Servers as jobs of Slurm."""

from __future__ import annotations

import os
import pwd
import re
import shlex
import shutil
from collections.abc import Mapping, Sequence

import batchspawner
from traitlets import List, Unicode

from hpcbinder.errors import RunError
from hpcbinder.jupyterhub.account import Account, CutError, run
from hpcbinder.jupyterhub.batch import JobMixin
from hpcbinder.jupyterhub.jobs import ENDED, PENDING, RUNNING, JobState, Queue
from hpcbinder.scheduler import Resources
from hpcbinder.text import one_line

_RUNS = frozenset({"RUNNING", "SUSPENDED", "STOPPED", "SIGNALING", "STAGE_OUT"})
_WAITS = frozenset({"PENDING", "CONFIGURING", "RESIZING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "SPECIAL_EXIT"})
"""squeue(1), JOB STATE CODES; with COMPLETING all others are ends."""
_NOTHING = frozenset({"", "(null)", "N/A", "None", "Unknown"})
_FIELDS = "%i|%U|%T|%B|%S|%r"
_NUMBERS = range(1, 0xFFFFFFFE)
"""Of jobs, those of a federation among them: 32 bits without the highest two, which mean others (slurm.h, NO_VAL)."""
_QUEUES: dict[float, Queue] = {}


class SlurmSpawner(JobMixin, batchspawner.SlurmSpawner):
    """`c.JupyterHub.spawner_class = "hpcbinder-slurm"`."""

    asks_slurm = True
    reaches_slurm = True
    batch_script = Unicode("", help="Not used: the job's script is hpcbinder's own.")
    batch_cancel_cmd = Unicode("scancel {job_id}").tag(config=True)
    sbatch_options = List(
        Unicode(), help="Options of the site's for every server's sbatch: `[\"--licenses=home\"]`."
    ).tag(config=True)

    def submit_words(self, resources: Resources, log: str) -> list[str]:
        # On the command line: whatever a value holds is one word, and no line of a script.
        return [
            *resources.options(),
            f"--job-name={self.server_name}",
            f"--output={log}",
            "--open-mode=append",
            "--export=ALL",
            # What starts it is there once; and a minute before its time is over the server may end in peace.
            "--no-requeue",
            "--signal=B:TERM@60",
            "--chdir=/",
            *self.sbatch_options,
        ]

    def parse_job_id(self, output: str) -> str:
        # `sbatch --parsable`: the number, and perhaps a cluster; a site's plugins may say things first.
        found = re.fullmatch(r"([1-9][0-9]{0,9})(;[^;]*)?", (output.splitlines() or [""])[-1], re.ASCII)
        return found[1] if found and int(found[1]) in _NUMBERS else ""

    def owner(self, account: Account) -> str:
        return str(pwd.getpwnam(account.name).pw_uid)

    def job_script(self, resources: Resources, command: list[str], log: str) -> str:
        return f"#!/bin/sh\nexec {shlex.join(command)}\n"

    def gentle_cancel(self) -> list[str]:
        # To the launcher alone: it ends the server before what the server's files come from.
        return ["scancel", "--batch", "--signal=TERM", self.job_id]

    def queue(self) -> Queue:
        # One for the whole hub.
        return _QUEUES.setdefault(self.queue_interval, Queue(_look, self.queue_interval))


async def _look(jobs: Sequence[str]) -> Mapping[str, JobState]:
    squeue = shutil.which("squeue")
    if squeue is None:
        raise RunError("there is no Slurm here: squeue is not on PATH")
    environ = {name: os.environ[name] for name in ("PATH", "SLURM_CONF") if name in os.environ}
    wanted = ["--noheader", "--states=all", f"--format={_FIELDS}", f"--jobs={','.join(jobs)}"]
    try:
        done = await run([squeue, *wanted], environ={**environ, "LC_ALL": "C", "SLURM_TIME_FORMAT": "%H:%M"})
    except CutError:
        unanswered = True
    else:
        unanswered = "Invalid job id" in done.complaint
        if done.code and not unanswered:
            raise RunError(one_line(" ".join(done.complaint.split()), 300))
        if not unanswered:
            return read_squeue(done.out)
    if len(jobs) < 2:
        return {}
    # One of them is none, or says too much (an array of a person's): nothing is said of the others.
    half = len(jobs) // 2
    return {**await _look(jobs[:half]), **await _look(jobs[half:])}


def read_squeue(text: str) -> dict[str, JobState]:
    """What squeue says in lines of number, its user's, state, batch host, expected start and reason, by number."""
    found = {}
    for line in text.splitlines():
        fields = [field.strip() for field in line.split("|", 5)]
        if len(fields) == 6:
            job, owner, word, node, start, reason = (
                "" if field in _NOTHING else one_line(field, 200) for field in fields
            )
            phase = RUNNING if word in _RUNS else PENDING if word in _WAITS else ENDED
            found[job] = JobState(phase, word, reason, start if phase == PENDING else "", node, owner)
    return found
