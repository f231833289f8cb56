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
    if config.bases.source == "registry":
        found = "the first step on a base from a registry has to be run (bases.source)"
        return [Finding("engine", ASSEMBLED, Status.MISSING, found, 'bases.source = "auto" takes a kept base first')]
    kept = Bases(config, architecture, Silent()).kept(suite)
    maker = mmdebstrap(machine)
    if kept is None and maker.status is not Status.OK:
        advice = f"a base of a site's store (store.site), or mmdebstrap: {maker.advice}"
        return [Finding("engine", ASSEMBLED, Status.MISSING, f"no base {clean(suite)}, and none can be made", advice)]
    found = "assembles what is only data, on the base "
    found += f"{clean(suite)} in {clean(str(kept))}" if kept is not None else f"{clean(suite)} that mmdebstrap makes"
    if config.build.engine == "auto" and not mounting(config.runtime, machine.environ):
        advice = "auto does not assemble then; --engine none does all the same"
        return [Finding("engine", ASSEMBLED, Status.PROBLEM, "no runtime here runs images from their files", advice)]
    return [Finding("engine", ASSEMBLED, Status.OK, found)]
