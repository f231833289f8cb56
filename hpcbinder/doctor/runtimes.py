"""What could run images, and what of its own settings matters to us."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from hpcbinder.doctor.finding import Finding, Machine, Status, clean
from hpcbinder.errors import RunError
from hpcbinder.runtime import apptainer_settings, installed, is_setuid

_VERSION: dict[str, tuple[str, ...]] = {"enroot": ("version",)}
_EXTRA = ("enroot",)
"""Runtimes that take our files, and that hpcbinder does not start itself."""
_INSTALL = {
    "apptainer": "https://apptainer.org, or its module in runtime.prologue",
    "charliecloud": "Debian: apt install charliecloud",
}


def runtimes(machine: Machine) -> Sequence[Finding]:
    """Every runtime hpcbinder knows, after the site's prologue (`module load …`)."""
    try:
        found = installed(machine.config.runtime, machine.environ)
    except RunError as error:
        return [Finding("runtime", "runtime.prologue", Status.PROBLEM, clean(str(error)), "see runtime.prologue")]
    findings = []
    for name, program in found.items():
        if program is None:
            findings.append(Finding("runtime", name, Status.MISSING, "not on PATH", _INSTALL.get(name, "")))
            continue
        version = machine.version(program, "--version")
        if version is None:
            findings.append(
                Finding("runtime", name, Status.PROBLEM, f"{program} does not say its version", "try it by hand")
            )
            continue
        look = _DETAILS.get(name)
        status, detail, advice = look(machine, program) if look else (Status.OK, "", "")
        parts = [version, program, detail]
        findings.append(Finding("runtime", name, status, clean("; ".join(filter(None, parts))), advice))
    for name in _EXTRA:
        if program := machine.program(name):
            version = machine.version(program, *_VERSION[name]) or "does not say its version"
            findings.append(Finding("tools", name, Status.OK, clean(f"{version}; {program}; takes the squashfs")))
    return findings


_Details = tuple[Status, str, str]


def _apptainer(machine: Machine, program: str) -> _Details:
    """Set-user-id or not, and settings of its configuration file (apptainer.conf) that keep our images from running."""
    settings = apptainer_settings(program, machine.ask)
    if settings is None:
        return Status.OK, "", ""
    detail = "set-user-id" if settings.setuid else "unprivileged"
    for key, bad, why in (
        ("user bind control", "no", "kernels need a bind of their connection file"),
        ("allow container squashfs", "no", "squashfs images cannot be run"),
        ("allow container sif", "no", "SIF images cannot be run"),
        ("mount proc", "no", "kernels need /proc"),
    ):
        if settings.conf.get(key) == bad:
            return Status.PROBLEM, f"{detail}, {key} = {bad}", f"{why}: ask an administrator ({settings.file})"
    return Status.OK, detail, ""


def _charliecloud(machine: Machine, program: str) -> _Details:
    """Whether it was built with libsquashfuse: it says so itself (ch-run(1), --feature), or its libraries do."""
    if machine.ask(program, "--feature", "squash") is not None:
        return Status.OK, "mounts squashfs", ""
    linked = machine.ask("ldd", program)
    if linked is None:
        return Status.OK, "", ""
    if "squashfuse" in linked:
        return Status.OK, "mounts squashfs", ""
    return Status.PROBLEM, "without squashfs", "it was built without libsquashfuse, and cannot run our images"


def _docker(machine: Machine, program: str) -> _Details:
    """The client alone runs nothing."""
    if machine.ask(program, "version", "--format", "{{.Server.Version}}") is None:
        return Status.PROBLEM, "no daemon answers", "see the engine docker above, or set DOCKER_HOST"
    return Status.OK, "", ""


def _shifter(machine: Machine, program: str) -> _Details:
    if os.geteuid() == 0 or is_setuid(Path(program)):
        return Status.OK, "set-user-id", ""
    return Status.PROBLEM, "not set-user-id", "Shifter's program must be set-user-id root: ask a centre's staff"


_DETAILS: dict[str, Callable[[Machine, str], _Details]] = {
    "apptainer": _apptainer,
    "singularity": _apptainer,
    "charliecloud": _charliecloud,
    "docker": _docker,
    "shifter": _shifter,
}
