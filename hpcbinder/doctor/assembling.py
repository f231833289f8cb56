"""Whether images can be assembled here without an engine: what that takes is a base and wheels."""

from __future__ import annotations

import platform
from collections.abc import Sequence

from hpcbinder.bases import Bases
from hpcbinder.builders import ASSEMBLED, ASSEMBLES
from hpcbinder.doctor.engines import mmdebstrap
from hpcbinder.doctor.finding import Finding, Machine, Status, clean
from hpcbinder.image import ARCHITECTURES
from hpcbinder.progress import Silent
from hpcbinder.runtime import mounting


def assembling(machine: Machine) -> Sequence[Finding]:
    """A base of `build.suite` that is there, or can be made, and for `auto` a runtime that runs images from files."""
    config = machine.config
    architecture = ARCHITECTURES.get(platform.machine(), "")
    if architecture not in ASSEMBLES:
        found = f"packages for {clean(platform.machine())} are not unpacked here"
        return [Finding("engine", ASSEMBLED, Status.MISSING, found, "take an engine")]
    suite = config.build.suite
    bases = Bases(config, architecture, Silent())
    source, maker = config.bases.source, mmdebstrap(machine)
    kept = bases.kept(suite) if source == "auto" else None
    found = f"assembles what is only data, on the base {clean(suite)} "
    asked = source == "registry" or (source == "auto" and kept is None and machine.program("mmdebstrap") is None)
    if asked and bases.lacks_nothing(suite):
        found += "of a registry"
    elif asked and machine.program("apptainer") is not None:
        found += "of a registry, once Apptainer has installed what it lacks"
    elif source == "registry":
        missing = "the first step on the Debian of a registry has to be run (bases.source), unless it is a base of ours"
        advice = f"Apptainer runs it, or take a base of ours: hpcbinder push debian:{clean(suite)}"
        return [Finding("engine", ASSEMBLED, Status.MISSING, missing, advice)]
    elif kept is not None:
        found += f"in {clean(str(kept))}"
    elif maker.status is Status.OK:
        found += "that mmdebstrap makes"
    else:
        advice = f"a base of a site's store (store.site) or of ours in a registry (bases.images), or {maker.advice}"
        return [Finding("engine", ASSEMBLED, Status.MISSING, f"no base {clean(suite)}, and none can be made", advice)]
    if config.build.engine == "auto" and not mounting(config.runtime, machine.environ):
        advice = "auto does not assemble then; --engine none does all the same"
        return [Finding("engine", ASSEMBLED, Status.PROBLEM, "no runtime here runs images from their files", advice)]
    return [Finding("engine", ASSEMBLED, Status.OK, found)]
