"""The manifest inside the image: what it is and how to build it again (image contract, point 7)."""

from __future__ import annotations

import json
import shlex
from typing import Any

from hpcbinder.contract import KERNEL_DIRS, LABEL_PREFIX, PACKAGES_DIR, REPO_DIR
from hpcbinder.model import Plan, to_json

SCHEMA = 1


def manifest(plan: Plan) -> str:
    """The manifest's text. The exact packages are in files of their own, which the steps write."""
    return json.dumps(_values(plan), indent=2, sort_keys=True) + "\n"


def _values(plan: Plan) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "id": plan.id,
        "name": plan.name,
        "source": plan.source,
        "ref": plan.ref,
        "commit": plan.commit,
        "uncommitted": plan.uncommitted,
        "subdir": plan.subdir,
        "buildpacks": to_json(plan.packs),
        "base": to_json(plan.base),
        "steps": [{"name": step.name, "stage": step.stage.value, "reason": step.reason} for step in plan.steps],
        "content": to_json(plan.content),
        "repository": REPO_DIR,
        "start": plan.start,
        "kernels": plan.labels.get(f"{LABEL_PREFIX}kernels", "").split(),
        "kernel_dirs": list(KERNEL_DIRS),
        "packages": PACKAGES_DIR,
        "mpi": plan.mpi,
        "gpu": plan.gpu,
        "rebuild": rebuild_command(plan),
    }


def rebuild_command(plan: Plan) -> str:
    """The command that makes this image again, quoted for a POSIX shell."""
    argv = ["hpcbinder", "build"]
    if plan.commit is not None and not plan.uncommitted:
        argv += ["--ref", plan.commit]
    if plan.subdir:
        argv += ["--subdir", plan.subdir]
    return shlex.join([*argv, "--", plan.source])
