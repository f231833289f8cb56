"""A launch of a space, for the tests of it: `python space_entry.py WHAT.json`, with `{"space": …, "description": …,
"fresh": …}` in it. Prints as JSON what came of it, and how a command is described that starts there. With `{"argv": …,
"description": …}` runs such a command."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from pathlib import Path

from hpcbinder.runtime.launch import main as launcher
from hpcbinder.runtime.launch.space import prepare, read_space
from hpcbinder.runtime.launch.supervise import supervise
from hpcbinder.runtime.launch.values import LaunchError


def main(path: str) -> int:
    what = json.loads(Path(path).read_text())
    try:
        if "argv" in what:
            command = launcher.prepare(what["description"], environ=os.environ, cwd="/", argv=what["argv"])
            return supervise(command)
        space = read_space(what["space"])
        prepared = prepare(space, what["description"], environ=os.environ, fresh=what.get("fresh", False))
    except LaunchError as error:
        print(error, file=sys.stderr)
        return 9
    described = prepared.described(what["description"])
    print(json.dumps({**dataclasses.asdict(prepared), "description": described}))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
