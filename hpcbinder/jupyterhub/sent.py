"""Programs that stand alone (`filing`, `remote`), sent to a Python that runs as somebody else, or somewhere else.

They are sent so that neither their files nor what the hub has installed need be readable there.
"""

from __future__ import annotations

import contextlib
import json
import secrets
from collections.abc import Mapping
from importlib import resources
from typing import Any

from hpcbinder.errors import RunError
from hpcbinder.text import one_line

RECEIVE = "import sys; exec(sys.stdin.buffer.read(int(sys.stdin.buffer.readline())))"
"""What that Python is told in an argument. Of characters that no shell takes for its own within single quotes,
whichever a person has."""


def message(program: str, request: Mapping[str, Any]) -> tuple[str, bytes]:
    """What is sent.

    Args:
        program: Name of its file in this folder.
        request: What it is to do, without its mark.

    Returns:
        The request's mark, and all that the Python is told by its input.
    """
    sent = resources.files("hpcbinder.jupyterhub").joinpath(f"{program}.py").read_bytes() + b"\nmain()\n"
    mark = f"hpcbinder-{secrets.token_hex(8)} "
    told = json.dumps({**request, "mark": mark}).encode()
    return mark, b"%d\n%b%b" % (len(sent), sent, told)


def answer(mark: str, said: str) -> dict[str, Any] | None:
    """The answer in what was printed there, None if there is none.

    Raises:
        RunError: It says that it cannot be done; the message is one line.
    """
    for line in reversed(said.splitlines()):
        if line.startswith(mark):
            with contextlib.suppress(ValueError, RecursionError):
                found = json.loads(line[len(mark) :])
                if isinstance(found, dict):
                    if "error" in found:
                        raise RunError(one_line(str(found["error"]), 300))
                    return found
    return None
