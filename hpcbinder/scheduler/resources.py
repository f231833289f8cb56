"""What a job asks for."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields

from hpcbinder.errors import UsageError
from hpcbinder.text import printable

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
_LARGEST = 10_000_000


@dataclass(frozen=True)
class Resources:
    """What one job asks for; "" and 0 leave it to the scheduler.

    Attributes:
        tasks: Processes that are started.
        nodes: Nodes they are spread over.
        cpus: Cores for each task.
        memory: For each node: a number of MiB, or with K, M, G or T.
        time: Limit, as sbatch(1) has it.
        gpus: For the job.
        partition: Partitions, the first one with room is taken.
        constraint: Features that nodes must have.

    Raises:
        UsageError: A value cannot be meant.
    """

    tasks: int = 1
    nodes: int = 0
    cpus: int = 0
    memory: str = ""
    time: str = ""
    gpus: str = ""
    partition: str = ""
    account: str = ""
    qos: str = ""
    reservation: str = ""
    constraint: str = ""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, int):
                if not (field.name == "tasks") <= value <= _LARGEST:
                    raise UsageError(f"a job cannot have {value} {field.name}")
            elif value:
                pattern, what = _RULES[field.name]
                if len(value) > 200 or not re.fullmatch(pattern, value, re.ASCII):
                    raise UsageError(f"'{printable(value[:80])}' is not {what}")

    def options(self) -> list[str]:
        """As options of Slurm's commands: one word each, whatever is in it."""
        values = {
            "ntasks": self.tasks,
            "nodes": self.nodes,
            "cpus-per-task": self.cpus,
            "mem": self.memory,
            "time": self.time,
            "gpus": self.gpus,
            "partition": self.partition,
            "account": self.account,
            "qos": self.qos,
            "reservation": self.reservation,
            "constraint": self.constraint,
        }
        return [f"--{name}={value}" for name, value in values.items() if value]
