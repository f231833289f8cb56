"""Programs that stand alone (`filing`, `remote`), sent to a Python that runs as somebody else, or somewhere else.

They are sent, with what they import of hpcbinder, so that neither their files nor what the hub has installed need be
readable there.
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

_ALONG = "hpcbinder.runtime", ("hpcbinder.runtime.launch", "private.py")
"""The module that they import, and the file that is one there: hpcbinder itself is not."""

_IMPORTABLE = """
import types
module, name = types.ModuleType({module!r}), ""
for part in {module!r}.split("."):
    name += part
    sys.modules[name] = module
    name += "."
exec(along, module.__dict__)
exec(sent)
"""


def message(program: str, request: Mapping[str, Any]) -> tuple[str, bytes]:
    """What is sent.

    Args:
        program: Name of its file in this folder.
        request: What it is to do, without its mark.

    Returns:
        The request's mark, and all that the Python is told by its input.
    """
    module, file = _ALONG
    own = _source("hpcbinder.jupyterhub", f"{program}.py") + b"\nmain()\n"
    sent = f"sent, along = {own!r}, {_source(*file)!r}\n{_IMPORTABLE.format(module=module)}".encode()
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


def _source(package: str, file: str) -> bytes:
    return resources.files(package).joinpath(file).read_bytes()
