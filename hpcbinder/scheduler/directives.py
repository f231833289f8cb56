"""What a job asks for, in the words of batch systems that read it from a file.

`Resources` lets nothing through that could end a line or begin a second word. What a system has no words for is refused
rather than left out: a job that ends up elsewhere than asked is worse than none.

From the manuals: PBS Professional 2022.1 (qsub(1B), pbs_resources(7B)), IBM Spectrum LSF 10.1 (bsub(1)), HTCondor 23
(condor_submit(1)). Only HTCondor's are run by the tests.
"""

from __future__ import annotations

import math

from hpcbinder.errors import UsageError
from hpcbinder.scheduler.amounts import gpu_count, mebibytes, seconds
from hpcbinder.scheduler.resources import Resources


def pbs_directives(resources: Resources) -> list[str]:
    """Words for `#PBS`, those of a line in one text.

    Raises:
        UsageError: PBS cannot be asked for that.
    """
    _refuse("PBS", resources, "qos", "constraint")
    chunk = {"ncpus": str(resources.cpus or 1)}
    if resources.memory:
        chunk["mem"] = f"{_amount(resources.memory)}mb"
    if gpus := _gpus("PBS", resources):
        chunk["ngpus"] = str(gpus)
    lines = [f"-l select={resources.nodes or 1}:" + ":".join(f"{name}={value}" for name, value in chunk.items())]
    if resources.time:
        minutes, rest = divmod(_time(resources.time), 60)
        lines.append(f"-l walltime={minutes // 60}:{minutes % 60:02}:{rest:02}")
    # A reservation is a queue of its own.
    if queue := resources.reservation or resources.partition:
        if "," in queue:
            raise UsageError("PBS takes one queue, or one reservation")
        # QUEUE@SERVER (qsub(1B)): another server than the site's.
        if "@" in queue:
            raise UsageError("PBS takes a queue, or a reservation, of its own server")
        lines.append(f"-q {queue}")
    if resources.account:
        lines.append(f"-A {resources.account}")
    return lines


def lsf_directives(resources: Resources) -> list[str]:
    """Words for `#BSUB`, those of a line in one text.

    Raises:
        UsageError: LSF cannot be asked for that.
    """
    _refuse("LSF", resources, "qos", "constraint")
    cores, nodes = resources.cpus or 1, resources.nodes or 1
    lines = [f"-n {cores * nodes}", f'-R "span[{f"ptile={cores}" if nodes > 1 else "hosts=1"}]"']
    if resources.memory:
        lines.append(f'-R "rusage[mem={_amount(resources.memory)}MB/host]"')
    if resources.time:
        lines.append(f"-W {math.ceil(_time(resources.time) / 60)}")
    if resources.partition:
        lines.append(f'-q "{resources.partition.replace(",", " ")}"')
    if resources.account:
        lines.append(f"-P {resources.account}")
    if resources.reservation:
        if "," in resources.reservation:
            raise UsageError("LSF takes one reservation")
        lines.append(f"-U {resources.reservation}")
    if gpus := _gpus("LSF", resources):
        lines.append(f'-gpu "num={gpus}"')
    return lines


def htcondor_directives(resources: Resources) -> list[str]:
    """Lines of a submit description.

    Raises:
        UsageError: HTCondor cannot be asked for that.
    """
    _refuse("HTCondor", resources, "partition", "qos", "reservation", "constraint")
    if resources.nodes > 1:
        raise UsageError("HTCondor gives a server one node")
    lines = [f"request_cpus = {resources.cpus or 1}"]
    if resources.memory:
        lines.append(f"request_memory = {_amount(resources.memory)}MB")
    if gpus := _gpus("HTCondor", resources):
        lines.append(f"request_gpus = {gpus}")
    if resources.time:
        lines.append(f"allowed_job_duration = {_time(resources.time)}")
    if resources.account:
        lines.append(f"accounting_group = {resources.account}")
    return lines


def _refuse(system: str, resources: Resources, *names: str) -> None:
    for name in names:
        if getattr(resources, name):
            raise UsageError(f"{system} has no {name} to ask for")


def _amount(memory: str) -> int:
    size = mebibytes(memory)
    if math.isinf(size):
        raise UsageError("say how much memory: only Slurm gives all of a node's")
    return max(1, math.ceil(size))


def _time(time: str) -> int:
    length = seconds(time)
    if math.isinf(length):
        raise UsageError("say how long: only Slurm takes a job without a limit")
    return math.ceil(length)


def _gpus(system: str, resources: Resources) -> int:
    if ":" in resources.gpus:
        raise UsageError(f"{system} is asked for a number of GPUs, not for a kind")
    return gpu_count(resources.gpus)
