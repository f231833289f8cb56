"""How many random examples tests look at: as many as they say by default, five times as many each night.

`pytest --hypothesis-profile=nightly`, or `HYPOTHESIS_PROFILE=nightly` in the environment (`make nightly`).
"""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

_USUAL = 100

# In CI a test looks at the same examples each time (hypothesis' own profile for it): what passed on one machine
# passes on another. Elsewhere, and each night, they are others; what fails is printed so that it can be had again.
_ALL = {"deadline": None, "print_blob": True, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("default", max_examples=_USUAL, **_ALL)
settings.register_profile("nightly", max_examples=5 * _USUAL, derandomize=False, **_ALL)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


def examples(usual: int) -> int:
    """How many to look at where `usual` are by default; for `settings(max_examples=…)`."""
    return usual * settings.default.max_examples // _USUAL
