"""Asking Apptainer itself about a SIF, through Singularity Python's client."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from hpcbinder.errors import RunError
from hpcbinder.runtime.launch.runtimes import find


def inspect(path: Path, program: str | None = None) -> dict[str, str]:
    """The labels of a SIF, as `apptainer inspect` tells them: proof that the runtime can read it.

    Args:
        path: A SIF (or a squashfs).
        program: Absolute path of Apptainer or Singularity; the one on PATH if None.

    Raises:
        RunError: No Apptainer or Singularity is on PATH, or it refuses the image.
    """
    program = program or find("apptainer", os.environ) or find("singularity", os.environ)
    if program is None:
        raise RunError("neither Apptainer nor Singularity is installed", where=str(path))
    from spython.main import get_client

    client: Any = get_client(quiet=True)
    # spython 0.3 knows one name only, `singularity`, which an Apptainer need not have.
    client._init_command = lambda action, flags=None: [program, "--silent", action, *(flags or [])]
    try:
        # Where Apptainer fails, spython returns its exit status and output, or ends the whole process.
        labels = client.inspect(str(path), json=True, quiet=True)["attributes"]["labels"]
        return {str(name): str(value) for name, value in labels.items()}
    except (SystemExit, OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise RunError("Apptainer cannot inspect the image", where=str(path)) from error
