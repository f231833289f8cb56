"""What a cluster has to offer, as Slurm tells it: partitions, and who may charge what."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass

from hpcbinder.errors import RunError
from hpcbinder.text import one_line

_SECONDS = 20
_MOST = 1 << 20
"""Characters of an answer that are read."""
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@%+-]{0,99}", re.ASCII)
_GPU = re.compile(r"gpu(?::([A-Za-z0-9_.-]{1,60}))?:([0-9]{1,4})", re.ASCII)


@dataclass(frozen=True)
class Partition:
    """A partition in which jobs can be started.

    Attributes:
        default: Jobs that name none go there.
        time: Its limit, as sbatch(1) has it; "" for none.
        cpus: Of its largest nodes.
        memory: Of its largest nodes (MiB).
        gpus: On a node, by type ("" for one without a name), at most.
    """

    name: str
    default: bool = False
    time: str = ""
    cpus: int = 0
    memory: int = 0
    gpus: Mapping[str, int] | None = None


@dataclass(frozen=True)
class Associations:
    """What a person may have jobs charged to, and with which quality of service."""

    accounts: tuple[str, ...]
    qos: tuple[str, ...]


def partitions(environ: Mapping[str, str]) -> tuple[Partition, ...]:
    """The partitions that take jobs, as sinfo(1) lists them.

    Args:
        environ: PATH says where sinfo is, SLURM_CONF perhaps which cluster is meant.

    Raises:
        RunError: There is no Slurm, or it does not answer.
    """
    lines = _ask(environ, "sinfo", "--noheader", "--format=%P|%a|%l|%c|%m|%G")
    found: dict[str, Partition] = {}
    for line in lines:
        fields = line.strip().split("|")
        if len(fields) != 6 or fields[1].lower() != "up" or not _NAME.fullmatch(name := fields[0].removesuffix("*")):
            continue
        # One line for each kind of nodes; a + says that others in the line have more.
        cpus, memory = (int(digits[0]) if (digits := re.match(r"[0-9]{1,9}", text)) else 0 for text in fields[3:5])
        gpus = {kind: int(number) for kind, number in _GPU.findall(fields[5])}
        known = found.get(name, Partition(name))
        found[name] = Partition(
            name,
            fields[0].endswith("*"),
            fields[2] if re.fullmatch(r"[0-9:-]{1,20}", fields[2], re.ASCII) else "",
            max(cpus, known.cpus),
            max(memory, known.memory),
            {
                kind: max(number, (known.gpus or {}).get(kind, 0))
                for kind, number in {**(known.gpus or {}), **gpus}.items()
            },
        )
    return tuple(sorted(found.values(), key=lambda each: (not each.default, each.name)))


def associations(environ: Mapping[str, str], user: str) -> Associations | None:
    """What Slurm's accounting lets a person use, by sacctmgr(1); None where there is no accounting.

    Raises:
        RunError: There is no Slurm.
    """
    if not _NAME.fullmatch(user):
        return Associations((), ())
    try:
        lines = _ask(
            environ,
            "sacctmgr",
            "--noheader",
            "--parsable2",
            "show",
            "associations",
            f"user={user}",
            "format=account,qos",
        )
    except RunError:
        return None
    accounts: dict[str, None] = {}
    qos: dict[str, None] = {}
    for line in lines:
        account, _, names = line.strip().partition("|")
        if _NAME.fullmatch(account):
            accounts[account] = None
            qos.update(dict.fromkeys(name for name in names.split(",") if _NAME.fullmatch(name)))
    return Associations(tuple(accounts), tuple(qos))


def _ask(environ: Mapping[str, str], name: str, *arguments: str) -> list[str]:
    program = shutil.which(name, path=environ.get("PATH", os.defpath))
    if program is None:
        raise RunError(f"there is no Slurm here: {name} is not on PATH")
    try:
        done = subprocess.run(
            [program, *arguments],
            env=dict(environ),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise RunError(f"Slurm does not answer: {one_line(str(error), 200)}") from None
    if done.returncode:
        raise RunError(f"{name}: {one_line(' '.join(done.stderr.splitlines()[-1:]), 300)}")
    return done.stdout[:_MOST].splitlines()
