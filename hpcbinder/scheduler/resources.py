"""What a job asks for."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields

from hpcbinder.errors import UsageError
from hpcbinder.runtime import asked_fault, job_options
from hpcbinder.text import printable


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
            if wrong := asked_fault(field.name, value):
                if isinstance(value, int):
                    raise UsageError(f"a job cannot have {value} {field.name}")
                raise UsageError(f"'{printable(value[:80])}' {wrong}")

    def options(self) -> list[str]:
        """As options of Slurm's commands: one word each, whatever is in it."""
        return job_options(asdict(self))
