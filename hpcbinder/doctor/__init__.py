"""A look at the machine: what is there to build and to run with, what is missing, what to do. Nothing is changed."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hpcbinder.config import Config
from hpcbinder.doctor import assembling, engines, gpus, namespaces, network, places, runtimes, squashfs, tools
from hpcbinder.doctor.finding import Check, Finding, Machine, Status

__all__ = ["Diagnosis", "Finding", "Status", "examine"]

CHECKS: Sequence[tuple[str, Check]] = (
    ("engine", engines.docker),
    ("engine", engines.podman),
    ("engine", engines.buildah),
    ("engine", assembling.assembling),
    ("base", engines.bases),
    ("python", engines.interpreters),
    ("runtime", runtimes.runtimes),
    ("system", namespaces.user_namespaces),
    ("system", namespaces.id_ranges),
    ("system", namespaces.id_maps),
    ("system", namespaces.fuse),
    ("system", squashfs.kernel_squashfs),
    ("system", squashfs.compression),
    ("store", places.store),
    ("store", places.site_stores),
    ("kernels", places.kernels),
    ("gpu", gpus.gpus),
    ("scheduler", tools.schedulers),
    ("tools", tools.hpcbinder),
    ("tools", tools.git),
    ("tools", tools.uv),
    ("tools", squashfs.squashfs_tools),
    ("config", places.configuration),
    ("network", network.index),
    ("network", network.debian),
    ("network", network.registries),
)
"""Topic and check, in the order of the table."""

PATIENCE = 20.0
"""Seconds a check gets; the prologue's modules may be on a slow file system."""


@dataclass(frozen=True)
class Diagnosis:
    """What was found.

    Attributes:
        findings: Line by line.
        cannot_build, cannot_run: Why not, "" if it can be done.
    """

    findings: tuple[Finding, ...]
    cannot_build: str
    cannot_run: str


def examine(config: Config, environ: Mapping[str, str], *, ask_servers: bool = False) -> Diagnosis:
    """Look at everything, side by side; what does not end in time is a finding, too.

    Args:
        ask_servers: Also ask the package index, the Debian mirror and the registries that were configured.
    """
    machine = Machine(config, dict(environ), ask_servers)
    results: list[Sequence[Finding] | None] = [None] * len(CHECKS)

    def look(number: int) -> None:
        topic, check = CHECKS[number]
        try:
            results[number] = check(machine)
        except Exception as error:  # one check that fails must not hide what the others found
            found = f"the check failed: {type(error).__name__}: {error}"
            results[number] = [Finding(topic, check.__name__, Status.UNKNOWN, found, "report it as a bug")]

    threads = [threading.Thread(target=look, args=(n,), daemon=True) for n in range(len(CHECKS))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    findings = []
    for (topic, check), result in zip(CHECKS, results, strict=True):
        late = Finding(
            topic, check.__name__, Status.PROBLEM, f"no answer in {PATIENCE:.0f} s", "it may hang in use, too"
        )
        findings += [late] if result is None else list(result)
    return Diagnosis(tuple(findings), _cannot_build(findings, config), _cannot_run(findings, config))


def _cannot_build(findings: Sequence[Finding], config: Config) -> str:
    lacking = []
    if not _one(findings, "engine", config.build.engine):
        lacking.append("no engine" if config.build.engine == "auto" else f"no {config.build.engine} (build.engine)")
    if not _one(findings, "base", "auto"):
        lacking.append("nothing to make a base with")
    needed = ("writable", "file locks", "store")
    if any(f.topic == "store" and f.name in needed and f.status is Status.PROBLEM for f in findings):
        lacking.append("no place to keep images")
    if any(f.name == "git" and f.status is not Status.OK for f in findings):
        lacking.append("no git")
    return ", ".join(lacking)


def _cannot_run(findings: Sequence[Finding], config: Config) -> str:
    name = config.runtime.name
    if _one(findings, "runtime", name) or (name == "apptainer" and _one(findings, "runtime", "singularity")):
        return ""
    return "no runtime" if name == "auto" else f"no {name} (runtime.name)"


def _one(findings: Sequence[Finding], topic: str, name: str) -> bool:
    """Whether there is one of a kind that works: the one of this name, any for `auto`."""
    return any(f.status is Status.OK for f in findings if f.topic == topic and name in ("auto", f.name))
