"""What an image stands on: its base, the interpreters on it, and the steps that make both ready."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from hpcbinder.errors import DetectError
from hpcbinder.model import BaseRef, Python, Step
from hpcbinder.plan.suites import BASE_VARIANT, SUITES, debian_python


@dataclass(frozen=True)
class Foundation:
    """A base, and what comes before everything that buildpacks add.

    Attributes:
        base: The base.
        python: The environment's interpreter, with its digest.
        server: The interpreter that the notebook server runs on.
        steps: Those that come before the server in `Stage.SERVER`, and those before the buildpacks' own in
            `Stage.INTERPRETER`.
    """

    base: BaseRef
    python: Python
    server: Python
    steps: tuple[Step, ...] = ()


Stand = Callable[[Python, str], Foundation]
"""(interpreter, OCI architecture) -> what an image with it stands on. May take a while, and ask a registry."""


def bootstrapped(python: Python, architecture: str) -> Foundation:
    """A base of Debian's own packages with Debian's own interpreter.

    Raises:
        DetectError: The interpreter is not Debian's, nor one that the environment brings.
    """
    suite = SUITES[python.suite]
    if python.origin not in ("debian", "conda"):
        raise DetectError(f"Python {python.version} of {python.source} is not one of Debian {python.suite}")
    base = BaseRef(
        name=f"debian:{suite.name}",
        suite=suite.name,
        python=suite.python,
        architecture=architecture,
        variant=BASE_VARIANT,
    )
    return Foundation(base, python, debian_python(suite.name))
