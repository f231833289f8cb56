"""What names an environment: two repositories, or two commits, whose steps are alike up to a point share its image."""

from __future__ import annotations

from hpcbinder.model import Plan, Stage, Step, fingerprint
from hpcbinder.plan.render import environment, join_script, run_script


def server_fingerprint(plan: Plan, base: str) -> str:
    """Names the server image (hex).

    Args:
        base: Names the base it stands on.
    """
    return fingerprint([base, [_essence(step) for step in plan.steps if step.stage is Stage.SERVER]])


def environment_fingerprint(plan: Plan, point: int, server: str) -> str:
    """Names what stands at a point (hex): equal for all plans that have the same there.

    Args:
        point: One of `environment_points`.
        server: Names the server image.
    """
    steps = [_essence(step) for step in plan.steps[:point] if step.stage is not Stage.SERVER]
    return fingerprint([server, environment(plan), steps])


def _essence(step: Step) -> object:
    """All of a step that its layer depends on; its name and its reason are words."""
    script = [run_script(step), join_script()] if step.apart else [run_script(step)]
    return [script, step.stage, step.data, step.caches, step.runs_repository_code, step.image, step.apart]
