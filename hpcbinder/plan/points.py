"""Where the line of a plan's steps can be cut: what stands there is an image that others build on."""

from __future__ import annotations

from hpcbinder.model import Plan, Stage, Step

_SHARED = (Stage.SERVER, Stage.SYSTEM, Stage.INTERPRETER, Stage.DEPENDENCIES)


def environment_points(plan: Plan) -> tuple[int, ...]:
    """The points at which the image is an environment that other repositories can have too, ascending.

    They are: before the first step that adds dependencies, and after each of those. They end where a step reads the
    repository's own files. A point is a number of steps, from the first of `plan.steps` on.
    """
    end = next((n for n, step in enumerate(plan.steps) if not _is_shared(step)), len(plan.steps))
    first = sum(step.stage in _SHARED[:-1] for step in plan.steps)
    return tuple(point for point in range(min(first, end), end + 1) if point > server_point(plan))


def server_point(plan: Plan) -> int:
    """Number of the steps that make the server image."""
    return sum(step.stage is Stage.SERVER for step in plan.steps)


def apart_point(plan: Plan, number: int) -> int:
    """The point at which a step that fills folders `apart` finds the image: before the first step of its stage."""
    return next(n for n, step in enumerate(plan.steps) if step.stage is plan.steps[number].stage)


def cuts(plan: Plan) -> tuple[int, ...]:
    """All points at which a stage of the Dockerfile ends before the content comes, ascending; the server's is first."""
    apart = {apart_point(plan, number) for number, step in enumerate(plan.steps) if step.apart}
    return tuple(sorted({server_point(plan), *environment_points(plan), *apart}))


def _is_shared(step: Step) -> bool:
    return step.stage in _SHARED and not step.reads
