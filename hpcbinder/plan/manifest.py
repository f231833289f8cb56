"""The manifest inside the image: what it is and how to build it again (image contract, point 7)."""

from __future__ import annotations

import json
import shlex
from typing import Any

from hpcbinder.contract import KERNEL_DIRS, LABEL_PREFIX, PACKAGES_DIR, REPO_DIR
from hpcbinder.model import Commit, Plan, to_json

SCHEMA = 1


def manifest(plan: Plan) -> str:
    """The manifest's text. What was locked before the build is in it; what was then installed, with what had to be
    built, is in files of their own, which the steps write."""
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
        # Not where it lay on the machine that built: the same interpreter is the same image from anywhere.
        "python": {"version": plan.python.full, "origin": plan.python.origin, "digest": plan.python.digest},
        "steps": [{"name": step.name, "stage": step.stage.value, "reason": step.reason} for step in plan.steps],
        "content": to_json(plan.content),
        "repository": REPO_DIR,
        "start": plan.start,
        "kernels": plan.labels.get(f"{LABEL_PREFIX}kernels", "").split(),
        "kernel_dirs": list(KERNEL_DIRS),
        "packages": PACKAGES_DIR,
        "locks": to_json(plan.locks),
        "as_of": plan.as_of.date if plan.as_of else None,
        "mpi": plan.mpi,
        "gpu": plan.gpu,
        "rebuild": rebuild_command(plan),
    }


def commit_text(commit: Commit) -> str:
    """The text of `contract.COMMIT`: JSON, with a line for each file."""
    listed = ",\n".join(json.dumps(entry) for entry in commit.files)
    values = {"format": 1, "id": commit.id, "commit": commit.text, "branch": commit.branch}
    return json.dumps(values)[:-1] + f', "files": [\n{listed}\n]}}\n'


def rebuild_command(plan: Plan) -> str:
    """The command that makes this image again, quoted for a POSIX shell; where packages were locked, this manifest
    is the file that says how."""
    argv = ["hpcbinder", "build"]
    if plan.locks:
        argv += ["--locks", "manifest.json"]
    if plan.as_of is not None and plan.own is None:
        # The date that was found, not the way to it: in a year what is young now is old.
        argv += ["--as-of", plan.as_of.date or "now"]
    if plan.commit is not None and not plan.uncommitted:
        argv += ["--ref", plan.commit]
    if plan.subdir:
        argv += ["--subdir", plan.subdir]
    argv += [word for name in plan.chosen for word in ("--buildpack", name)]
    argv += [word for name in plan.without for word in ("--without", name)]
    if any(decision.pack == "conda" and decision.used for decision in plan.decisions):
        # Without packages of its own what it asks for was translated.
        argv += ["--conda", "packages" if any(lock.ecosystem == "conda" for lock in plan.locks) else "pypi"]
    left = {decision.file for decision in plan.decisions if decision.pack == "source" and not decision.used}
    if ".gitmodules" in left:
        argv.append("--no-submodules")
    if left - {".gitmodules"}:
        argv.append("--no-lfs")
    return shlex.join([*argv, "--", plan.source])
