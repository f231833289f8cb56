"""What a job may be asked for: the one table that commands here, and requests from inside an image, are held to."""

from __future__ import annotations

import re
from collections.abc import Mapping

_WORD = r"[A-Za-z0-9_][A-Za-z0-9_.@%+-]*"
_RULES = {
    # Names of partitions, accounts and the like are the site's; none that is in use needs more than these characters.
    "partition": (rf"{_WORD}(,{_WORD})*", "the name of a partition"),
    "account": (_WORD, "the name of an account"),
    "qos": (_WORD, "the name of a quality of service"),
    "reservation": (rf"{_WORD}(,{_WORD})*", "the name of a reservation"),
    # sbatch(1), --constraint: names with &, |, brackets, counts.
    "constraint": (r"[A-Za-z0-9_][A-Za-z0-9_.&|,*()\[\]-]*", "features of nodes, such as `haswell|skylake`"),
    # sbatch(1), --time.
    "time": (r"[0-9]+(:[0-9]{1,2}){0,2}|[0-9]+-[0-9]{1,2}(:[0-9]{1,2}){0,2}", "a time: MINUTES, H:MM:SS or D-HH:MM"),
    "memory": (r"[0-9]+[KMGTkmgt]?", "an amount of memory, such as 4G"),
    # sbatch(1), --gpus: [type:]number.
    "gpus": (rf"({_WORD}:)?[0-9]+", "a number of GPUs, perhaps behind their type: 2, a100:2"),
}
_OPTIONS = {
    "tasks": "ntasks",
    "nodes": "nodes",
    "cpus": "cpus-per-task",
    "memory": "mem",
    **{name: name for name in ("time", "gpus", "partition", "account", "qos", "reservation", "constraint")},
}
_LARGEST = 10_000_000

OF_THE_JOB = ("SLURM_*", "SLURMD_*", "PMI_*", "PMIX_*", "PALS_*", "CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES")
"""What the batch system tells a task, its MPI library among others."""


def fault(name: str, value: object) -> str:
    """Why a job cannot be asked for this, in words that go behind the value ("is not …"), "" if it can.

    Args:
        name: tasks, nodes, cpus, memory, time, gpus, partition, account, qos, reservation or constraint.
        value: A number for the first three, text for the others; 0 and "" leave it to the scheduler.
    """
    if name not in _OPTIONS:
        return "is nothing a job is asked for"
    if name not in _RULES:
        if isinstance(value, int) and not isinstance(value, bool) and (name == "tasks") <= value <= _LARGEST:
            return ""
        return f"is not a number of {name}"
    pattern, what = _RULES[name]
    if value == "" or (isinstance(value, str) and len(value) <= 200 and re.fullmatch(pattern, value, re.ASCII)):
        return ""
    return f"is not {what}"


def job_options(values: Mapping[str, object]) -> list[str]:
    """Checked values as options of Slurm's commands: one word each, whatever is in it."""
    return [f"--{option}={values[name]}" for name, option in _OPTIONS.items() if values.get(name)]
