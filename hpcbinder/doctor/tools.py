"""Programs beside engines and runtimes: what fetches, what resolves, what schedules."""

from __future__ import annotations

import platform
from collections.abc import Sequence

from hpcbinder import __version__
from hpcbinder.doctor.finding import Finding, Machine, Status, clean

_SCHEDULERS = (
    ("Slurm", "sbatch", ("sinfo", "--version")),
    ("PBS", "qsub", ("qsub", "--version")),
    ("LSF", "bsub", ("bsub", "-V")),
    ("HTCondor", "condor_submit", ("condor_version",)),
)
"""Name, what submits, what says its version."""


def hpcbinder(machine: Machine) -> Sequence[Finding]:
    """This program."""
    return [Finding("tools", "hpcbinder", Status.OK, f"{__version__}; Python {platform.python_version()}")]


def git(machine: Machine) -> Sequence[Finding]:
    """git. Its extension for large files is not needed: hpcbinder fetches those by itself."""
    program = machine.program("git")
    if program is None:
        return [Finding("tools", "git", Status.MISSING, "not on PATH", "to fetch repositories: apt install git")]
    version = machine.version(program, "--version") or "does not say its version"
    return [Finding("tools", "git", Status.OK, f"{version}; {program}")]


def uv(machine: Machine) -> Sequence[Finding]:
    """uv, which comes with hpcbinder and finds the versions of packages."""
    import uv as package

    try:
        program = str(package.find_uv_bin())
    except OSError:
        return [Finding("tools", "uv", Status.PROBLEM, "its program is not there", "pip install --force-reinstall uv")]
    version = machine.version(program, "--version")
    if version is None:
        return [Finding("tools", "uv", Status.PROBLEM, f"{program} does not run", "pip install --force-reinstall uv")]
    return [Finding("tools", "uv", Status.OK, f"{version}; {clean(program)}")]


def schedulers(machine: Machine) -> Sequence[Finding]:
    """Batch systems. Their servers are not asked."""
    findings = []
    for name, submits, (asks, *words) in _SCHEDULERS:
        program = machine.program(submits)
        if program is not None:
            said = machine.version(machine.program(asks) or asks, *words) or "does not say its version"
            findings.append(Finding("scheduler", name, Status.OK, f"{said}; {program}"))
    if not findings:
        names = ", ".join(f"{submits} ({name})" for name, submits, _ in _SCHEDULERS)
        return [Finding("scheduler", "batch system", Status.MISSING, f"none of {names} on PATH")]
    return findings
