"""Jobs of a batch system: what they ask for, and how an image's command becomes one.

Only Slurm so far. Everything that a person or a site says is checked here, before it is a word of a command line; no
job script is written, so there is none to write into.
"""

from hpcbinder.scheduler.amounts import gpu_count, mebibytes, seconds
from hpcbinder.scheduler.arrays import Arrays, TaskState
from hpcbinder.scheduler.directives import htcondor_directives, lsf_directives, pbs_directives
from hpcbinder.scheduler.partitions import Associations, Partition, associations, partitions
from hpcbinder.scheduler.resources import Resources
from hpcbinder.scheduler.slurm import Slurm, mpi_kind
from hpcbinder.scheduler.tasks import OF_THE_JOB, Task, task

__all__ = [
    "OF_THE_JOB",
    "Arrays",
    "Associations",
    "Partition",
    "Resources",
    "Slurm",
    "Task",
    "TaskState",
    "associations",
    "gpu_count",
    "htcondor_directives",
    "lsf_directives",
    "mebibytes",
    "mpi_kind",
    "partitions",
    "pbs_directives",
    "seconds",
    "task",
]
