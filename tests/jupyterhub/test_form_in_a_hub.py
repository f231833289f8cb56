"""The form as a real hub serves it: to a phone, without scripts, by keyboard, and from a link."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hubservers import SECONDS, logged_in

from rig import Hub
from rig.hub import PASSWORD


@pytest.fixture
def bob(hub: Hub, hub_image: str) -> Iterator[Any]:
    """Bob's browser; no server of his is left."""
    yield logged_in(hub, "bob")
    hub.clear("bob")


def test_a_phone_without_scripts_and_with_a_keyboard(hub: Hub, hub_image: str, chromium: Any) -> None:
    context = chromium.new_context(viewport={"width": 360, "height": 740}, java_script_enabled=False)
    context.set_default_timeout(SECONDS * 1000)
    page = context.new_page()
    try:
        page.goto(f"{hub.url}/hub/login?next=/hub/spawn")
        page.fill("#username_input", "bob")
        page.fill("#password_input", PASSWORD)
        page.press("#password_input", "Enter")
        page.wait_for_selector("#option-time")
        sizes = page.evaluate("[document.documentElement.scrollWidth, document.documentElement.clientWidth]")
        assert sizes[0] <= sizes[1]
        seen = []
        for _ in range(60):
            page.keyboard.press("Tab")
            seen.append(page.evaluate("document.activeElement.id || document.activeElement.type"))
            if seen[-1] == "submit":
                break
        wanted = [f"environment-{hub_image}", "option-path", "option-reset", "option-partition", "option-time"]
        assert [name for name in seen if name in wanted] == wanted and seen[-1] == "submit"
        # What is refused is said, and what was said still stands there.
        page.fill("#option-time", "soon")
        page.fill("#option-path", "a b.ipynb")
        page.press("#option-time", "Enter")
        assert "'soon' is not a time" in page.wait_for_selector(".spawn-error-msg").inner_text()
        assert page.input_value("#option-time") == "soon" and page.input_value("#option-path") == "a b.ipynb"
        assert page.is_checked(f"#environment-{hub_image}")
    finally:
        context.close()
        hub.clear("bob")


def test_a_link_starts_what_it_names(hub: Hub, hub_image: str, bob: Any) -> None:
    said = {"opt-environment": hub_image, "opt-path": "index.ipynb", "opt-time": "5"}
    answer = bob.get(f"{hub.url}/hub/spawn", params=said, allow_redirects=False, timeout=SECONDS)
    assert answer.status_code == 302 and "/hub/spawn-pending/bob" in answer.headers["Location"]
    (server,) = hub.servers("bob").values()
    assert server["user_options"] == {"environment": hub_image, "path": "index.ipynb", "time": "5"}


def test_a_link_that_is_refused_shows_the_form(hub: Hub, hub_image: str, bob: Any) -> None:
    said = {"opt-environment": hub_image, "opt-time": '"><script>alert(1)</script>', "opt-path": "x.ipynb"}
    answer = bob.get(f"{hub.url}/hub/spawn", params=said, timeout=SECONDS)
    assert answer.status_code == 400
    assert "is not a time" in answer.text and "<script>alert(1)" not in answer.text
    assert f'value="{hub_image}"' in answer.text and 'value="x.ipynb"' in answer.text
    assert not [model for model in hub.servers("bob").values() if model["pending"] or model["ready"]]
