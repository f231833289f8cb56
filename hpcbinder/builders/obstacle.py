"""Whether a plan can become an image without anything being run."""

from __future__ import annotations

import itertools

from hpcbinder.errors import DetectError
from hpcbinder.model import Plan, Stage, Step
from hpcbinder.plan import locked_wheels

ASSEMBLED = "none"
"""The engine that made an assembled image, as the configuration and the catalog name it."""

ASSEMBLES = ("amd64", "arm64")
"""OCI names of architectures that there are wheels for, by what `hpcbinder.wheels` knows of them."""


def obstacle(plan: Plan, *, running: bool = False) -> str | None:
    """Why a plan cannot be assembled, for a person; None if it can.

    Args:
        running: Steps that have to be run are none, where they can be run on what is assembled before them.
    """
    if plan.own is not None:
        return f"{plan.own.path} of the repository has to be run"
    if plan.base.architecture not in ASSEMBLES:
        return f"packages for {plan.base.architecture} are not unpacked here"
    late = plan.python.origin in ("packages", "image")
    if late and any(s.assembly and s.stage is not Stage.SERVER for s in plan.steps):
        return f"Python {plan.python.full}, which makes bytecode, is there only where steps are run"
    first = preparing(plan)
    for number, step in enumerate(plan.steps):
        # The server is one layer for all images, and an image that a step reads is only in an engine.
        runs = running and (number < first or step.stage is not Stage.SERVER) and not step.image
        if (reason := has_to_run(plan, step)) and not runs:
            return f"step {step.name} {reason}"
    return None


def preparing(plan: Plan) -> int:
    """How many steps at the beginning have to be run to make the base what everything else stands on."""
    return sum(1 for _ in itertools.takewhile(_prepares, plan.steps))


def _prepares(step: Step) -> bool:
    return step.stage is Stage.SERVER and step.name.startswith("base/") and step.assembly is None and not step.image


def has_to_run(plan: Plan, step: Step) -> str | None:
    """Why only running a step of a plan tells what it leaves, for a person; None if it is data."""
    if step.assembly is None:
        return f"has to be run ({step.reason})"
    if step.assembly.wheels:
        try:
            locked_wheels(step.data[step.assembly.wheels], step.assembly.python, plan.base.architecture)
        except DetectError as error:
            return f"has {error.message}"
    return None


def only_assembled(plan: Plan) -> str | None:
    """Why no engine builds a plan, for a person; None if one does."""
    for step in plan.steps:
        if step.assembly is not None and step.assembly.conda:
            return f"step {step.name} is assembled only"
    return None


def hint(plan: Plan) -> str:
    """What to do about a step that has to be run."""
    engine = "--engine auto takes an engine for that (docs/engines.md)"
    packs = dict.fromkeys(step.name.split("/")[0] for step in plan.steps if has_to_run(plan, step))
    if "base" in packs:
        other = (
            "a base of a site's store (store.site), one of ours in a registry (docs/bases.md), or one that mmdebstrap "
            "makes needs no such step"
        )
        return other if only_assembled(plan) else f"{engine}; {other}"
    # Without its packages an environment is none.
    optional = [pack for pack in packs if pack != "python"]
    return f"{engine}; {' '.join(f'--without {pack}' for pack in optional)} does without it" if optional else engine
