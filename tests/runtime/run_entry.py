"""`hpcbinder run` without a catalog, for test_run.py: `python run_entry.py ENTRY.json SETTINGS ARGV`."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

from hpcbinder import runtime
from hpcbinder.config import RuntimeConfig
from hpcbinder.errors import HpcbinderError
from hpcbinder.model import BaseRef, Entry, ImageConfig


def entry(data: dict[str, Any]) -> Entry:
    config = {**data["config"], "entrypoint": tuple(data["config"]["entrypoint"])}
    return Entry(**{**data, "base": BaseRef(**data["base"]), "config": ImageConfig(**config)})


def main(path: str, settings: str, argv: str) -> int:
    given = {key: tuple(value) if isinstance(value, list) else value for key, value in json.loads(settings).items()}
    try:
        command = runtime.run_argv(
            entry(json.loads(Path(path).read_text())),
            json.loads(argv),
            dataclasses.replace(RuntimeConfig(), **given),
            cwd=Path.cwd(),
        )
    except HpcbinderError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return runtime.execute(command)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
