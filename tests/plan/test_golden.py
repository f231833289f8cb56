"""Whole plans of small repositories, kept beside them: what changes in a plan shows in a diff.

To accept a change: HPCBINDER_ACCEPT=1 pytest tests/plan/test_golden.py, and read the diff.
"""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path

import pytest
from checkouts import plan_of
from recorded_index import RecordedResolver

from hpcbinder.model import Plan, Stage, to_json
from hpcbinder.plan import dockerfile, explain

REPOS = Path(__file__).parent / "repos"
NAMES = sorted(path.name for path in REPOS.iterdir() if path.is_dir())


def without_server(plan: Plan) -> Plan:
    """The plan without the server step's long data, which has tests of its own."""
    steps = [
        dataclasses.replace(step, script="…", data={}, env={}, caches=(), assembly=None)
        if step.stage is Stage.SERVER
        else step
        for step in plan.steps
    ]
    return dataclasses.replace(plan, steps=tuple(steps))


@pytest.mark.parametrize("name", NAMES)
def test_golden(name: str) -> None:
    plan = without_server(plan_of(REPOS / name / "repo", name=name, resolver=RecordedResolver()))
    shown = {
        "plan.json": json.dumps(to_json(plan), indent=1, ensure_ascii=False) + "\n",
        "Dockerfile": dockerfile(plan, base_image="base", tools_image="tools", server_image="server"),
        "plan.txt": "\n".join(line for line in explain(plan).split("\n")[1:]),
    }
    for file, text in shown.items():
        path = REPOS / name / file
        if os.environ.get("HPCBINDER_ACCEPT"):
            path.write_text(text)
        assert path.read_text() == text
