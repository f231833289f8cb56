"""The kernel that every environment gets: in which versions."""

from __future__ import annotations

from collections.abc import Collection

from .requirements import Requirements, requirement_name

OLDEST = "ipykernel>=4.8"


def oldest_kernel(wanted: Requirements, always: Collection[str]) -> tuple[str, ...]:
    """A constraint, where the repository does not name ipykernel.

    What ipykernel needs had no wheels once (tornado). For versions of that time, and without the constraint, the newest
    ipykernel that needs none of it would be taken, which brings no kernel; with it, what has no wheels is built.
    """
    named = {requirement_name(line) for line in wanted.from_index}
    return (OLDEST,) if "ipykernel" in always and "ipykernel" not in named else ()
