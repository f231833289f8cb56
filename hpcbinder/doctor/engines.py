"""What could build images, and what they would stand on."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from hpcbinder.debian import KEYRING
from hpcbinder.doctor.finding import Finding, Machine, Status, clean
from hpcbinder.doctor.namespaces import can_map, id_maps, id_ranges, user_namespaces
from hpcbinder.engine import pick_engine
from hpcbinder.errors import BuildError
from hpcbinder.interpreters import Interpreter, find_interpreters, obstacle
from hpcbinder.plan import SUITES, too_old
from hpcbinder.progress import Silent

_USABLE = "needs user namespaces and ranges of ids for you: see system below"


class _Ear(Silent):
    """Hears which engine was picked."""

    heard = ""

    def phase(self, phase: str, message: str, progress: float | None = None) -> None:
        self.heard = self.heard or message.removeprefix("engine: ")


def docker(machine: Machine) -> Sequence[Finding]:
    """A daemon that answers, and a client that can drive BuildKit."""
    ear = _Ear()
    try:
        pick_engine("docker", machine.config, ear, environ=machine.environ)
    except BuildError as error:
        there = machine.config.build.dockerd or machine.environ.get("DOCKER_HOST") or machine.program("docker")
        status = Status.PROBLEM if there else Status.MISSING
        return [Finding("engine", "docker", status, clean(error.message), clean(error.hint or ""))]
    return [Finding("engine", "docker", Status.OK, clean(ear.heard))]


def podman(machine: Machine) -> Sequence[Finding]:
    """Only its version: all else podman says makes its storage first."""
    return _rootless(machine, "podman")


def buildah(machine: Machine) -> Sequence[Finding]:
    """As podman."""
    return _rootless(machine, "buildah")


def _rootless(machine: Machine, name: str) -> Sequence[Finding]:
    program = machine.program(name)
    if program is None:
        return [Finding("engine", name, Status.MISSING, "not on PATH", f"Debian: apt install {name}")]
    version = machine.version(program, "--version")
    if version is None:
        return [Finding("engine", name, Status.PROBLEM, f"{program} does not say its version", "try it by hand")]
    kind = "as root" if os.geteuid() == 0 else "rootless"
    found = f"{version}; {program}; {kind}"
    if os.geteuid() != 0 and not _can_map(machine):
        return [Finding("engine", name, Status.PROBLEM, found, _USABLE)]
    if os.geteuid() == 0 and machine.config.build.shared:
        return [
            Finding(
                "engine", name, Status.PROBLEM, found, "not for others' repositories (build.shared): use it as a user"
            )
        ]
    return [Finding("engine", name, Status.OK, found)]


def bases(machine: Machine) -> Sequence[Finding]:
    """What makes the base of images: mmdebstrap, a registry, or a base that is there already."""
    store, source = machine.config.store, machine.config.bases.source
    findings = [mmdebstrap(machine)]
    if source == "registry" or (source == "auto" and machine.program("mmdebstrap") is None):
        name = f"debian:{machine.config.build.suite}-slim"
        image = machine.config.bases.images.get(name, f"docker.io/library/{name}")
        findings.append(Finding("base", "registry", Status.OK, f"{clean(image)}, if it can be reached (bases.source)"))
    for place in (store.path, *store.site):
        try:
            kept = sorted(path.name for path in (place / "bases").iterdir() if not path.name.startswith("."))
        except OSError:
            continue
        if kept:
            findings.append(Finding("base", "kept bases", Status.OK, f"{len(kept)} in {clean(str(place))}"))
    if not Path(KEYRING).is_file():
        advice = "Debian's and Ubuntu's package debian-archive-keyring"
        findings.append(Finding("base", "Debian's keys", Status.MISSING, KEYRING, advice))
    return findings


def interpreters(machine: Machine) -> Sequence[Finding]:
    """What there is in bases.pythons, and what cannot be used of it."""
    found = find_interpreters(machine.config.bases.pythons)
    return [
        *(
            Finding("python", f"Python {i.version}", Status.OK, clean(f"{i.full}; {i.program}; {_suites(i)}"))
            for i in found.interpreters
        ),
        *(
            Finding("python", clean(path), Status.PROBLEM, clean(problem), "see bases.pythons in docs/bases.md")
            for path, problem in found.problems.items()
        ),
    ]


def _suites(interpreter: Interpreter) -> str:
    if too_old(interpreter.version):
        return "too old for a notebook's kernel"
    runs = [suite for suite in SUITES if obstacle(interpreter, suite) is None]
    return f"runs on {', '.join(runs) or 'no suite'}"


def mmdebstrap(machine: Machine) -> Finding:
    """What makes bases of Debian's packages."""
    program = machine.program("mmdebstrap")
    if program is None:
        advice = "to make a base: apt install mmdebstrap uidmap; or use a site's store (store.site) or a registry"
        return Finding("base", "mmdebstrap", Status.MISSING, "not on PATH", advice)
    found = f"{machine.version(program, '--version') or 'does not say its version'}; {program}"
    if os.geteuid() != 0 and not _can_map(machine):
        return Finding("base", "mmdebstrap", Status.PROBLEM, found, _USABLE)
    return Finding("base", "mmdebstrap", Status.OK, found)


def _can_map(machine: Machine) -> bool:
    return can_map([*user_namespaces(machine), *id_ranges(machine), *id_maps(machine)])
