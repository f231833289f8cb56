"""Whether a plan can become an image without anything being run."""

from __future__ import annotations

from hpcbinder.errors import DetectError
from hpcbinder.model import Plan
from hpcbinder.plan import locked_wheels

ASSEMBLED = "none"
"""The engine that made an assembled image, as the configuration and the catalog name it."""

ASSEMBLES = ("amd64", "arm64")
"""OCI names of architectures that there are wheels for, by what `hpcbinder.wheels` knows of them."""


def obstacle(plan: Plan) -> str | None:
    """Why a plan cannot be assembled, for a person; None if it can.

    A step that runs something, rather than leaving what is known beforehand, is in the way.
    """
    if plan.own is not None:
        return f"{plan.own.path} of the repository has to be run"
    if plan.base.architecture not in ASSEMBLES:
        return f"packages for {plan.base.architecture} are not unpacked here"
    for step in plan.steps:
        if step.assembly is None:
            return f"step {step.name} has to be run ({step.reason})"
        if step.assembly.wheels:
            try:
                locked_wheels(step.data[step.assembly.wheels], step.assembly.python, plan.base.architecture)
            except DetectError as error:
                return f"step {step.name} has {error.message}"
    return None


def hint(plan: Plan) -> str:
    """What to do about a step that has to be run."""
    engine = "--engine auto takes an engine for that (docs/engines.md)"
    packs = dict.fromkeys(step.name.split("/")[0] for step in plan.steps if step.assembly is None)
    if "base" in packs:
        return f"{engine}; a base of a site's store (store.site), or one that mmdebstrap makes, needs no such step"
    # Without its packages an environment is none.
    optional = [pack for pack in packs if pack != "python"]
    return f"{engine}; {' '.join(f'--without {pack}' for pack in optional)} does without it" if optional else engine
