"""Images that a repository's own Dockerfile stands on: what they may not bring along."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hpcbinder.bases.outside import ensure_outside
from hpcbinder.errors import BuildError
from hpcbinder.model import OutsideImage
from hpcbinder.progress import Silent


@pytest.mark.parametrize(
    "trigger",
    ["COPY --from=other / /", "RUN --mount=from=other ls", "COPY --fr\\\nom=other / /", 'COPY --f"rom"=other / /'],
)
def test_those_above_an_image_take_nothing_from_others(tmp_path: Path, trigger: str) -> None:
    """An engine runs triggers (ONBUILD) as if they stood in the Dockerfile, which was checked before. The registry is
    a stand-in: our own push keeps no triggers."""
    config = json.dumps({"config": {"OnBuild": ["RUN true", trigger]}})
    registry: Any = SimpleNamespace(pull=lambda *_: SimpleNamespace(raw_config=config))
    image = OutsideImage("evil", f"registry.example.org/evil@sha256:{'0' * 64}", "localhost/hpcbinder/from:0")
    with pytest.raises(BuildError, match="ONBUILD"):
        ensure_outside(image, "amd64", folder=tmp_path, shared=(), registry=registry, reporter=Silent())
