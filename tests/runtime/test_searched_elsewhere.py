"""What is looked for in the working directory before anything has looked which one that is."""

from __future__ import annotations

import pytest

from hpcbinder.runtime.launch.pinned import searched_elsewhere


@pytest.mark.parametrize(
    ("name", "value", "kept"),
    [
        ("PATH", "/opt/env/bin::/usr/bin:.:bin:", "/opt/env/bin:/usr/bin"),
        ("PATH", "", "/usr/bin:/bin"),
        ("LD_LIBRARY_PATH", ":/opt/lib;lib;/usr/lib:", "/opt/lib:/usr/lib"),
        ("LD_LIBRARY_PATH", ":", ""),
        ("LD_PRELOAD", "libxalt.so ./evil.so:/opt/lib/a.so", "libxalt.so:/opt/lib/a.so"),
        ("LD_AUDIT", "evil/audit.so", ""),
    ],
)
def test_an_element_that_is_the_working_directory_or_below_it_is_left_out(name: str, value: str, kept: str) -> None:
    assert searched_elsewhere({name: value, "HOME": "here"}) == {name: kept}


def test_what_says_nothing_of_it_stays() -> None:
    fine = {"PATH": "/usr/bin:/bin", "LD_LIBRARY_PATH": "/opt/a:/opt/b", "LD_PRELOAD": "libc.so.6", "CDPATH": "."}
    assert searched_elsewhere(fine) == {}
    assert searched_elsewhere({}) == {}
