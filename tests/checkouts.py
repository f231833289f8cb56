"""Small repositories on disk, and plans made of them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from hpcbinder.model import AsOf, Checkout, Plan, Step
from hpcbinder.plan import CondaResolver, Resolver, load_packs, make_plan

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def fill(folder: Path, files: Mapping[str, str | bytes]) -> Path:
    """Write files: path -> content."""
    for path, content in files.items():
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content.encode() if isinstance(content, str) else content)
    return folder


def checkout_of(folder: Path, **changes: Any) -> Checkout:
    """The folder as if it were a commit fetched from a URL."""
    values = {
        "root": folder,
        "name": "example",
        "source": "https://git.example.org/group/example.git",
        "ref": "main",
        "commit": COMMIT,
        "uncommitted": False,
        "tree": None,
        "subdir": "",
        "timestamp": 1_700_000_000,
    }
    return Checkout(**{**values, **changes})


def plan_of(
    folder: Path,
    files: Mapping[str, str | bytes] | None = None,
    *,
    suite: str = "bookworm",
    without: Collection[str] = (),
    packs: Collection[Path] = (),
    resolver: Resolver | None = None,
    conda: CondaResolver | None = None,
    as_of: AsOf | None = None,
    **changes: Any,
) -> Plan:
    """Write the files, and plan the folder; without a resolver, versions are left to the build."""
    fill(folder, files or {})
    return make_plan(
        checkout_of(folder, **changes),
        packs=load_packs(tuple(packs)),
        suite=suite,
        architecture="amd64",
        without=without,
        resolver=resolver,
        conda=conda,
        as_of=as_of,
    )


def step(plan: Plan, name: str) -> Step:
    """A plan's step by its name."""
    return next(step for step in plan.steps if step.name == name)


def reason(plan: Plan, file: str) -> str:
    """What was decided about a file: `used: …` or `not used: …`."""
    decision = next(decision for decision in plan.decisions if decision.file == file)
    return f"{'used' if decision.used else 'not used'}: {decision.reason}"
