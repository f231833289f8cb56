"""Handing an image to Shifter's gateway, which copies it into the site's store and gives it a name.

The API is that of NERSC/shifter `imagegw/shifter_imagegw/{api,imagemngr,imageworker}.py` (doc/import.md: "beta", off
unless the site sets `ImportUsers`). Every request carries a credential of munge that says who asks; one can be used
once. The gateway keeps an image under a hash of parts of its file (`fasthash.py`), writes a `.meta` of its own, with
neither environment nor entry point, and answers with the image's record:
INIT, PENDING, HASHING and TRANSFER are on the way, READY and FAILURE are ends.
"""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import time
from pathlib import Path
from typing import Any
from urllib.parse import quote

from hpcbinder.config import Config
from hpcbinder.errors import RegisterError, RegistryError, UsageError
from hpcbinder.progress import Reporter
from hpcbinder.registry import Patience, Transport
from hpcbinder.text import one_line

_TAG = re.compile(r"[a-z0-9][a-z0-9._/-]{0,199}:[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_CREDENTIAL = re.compile(r"MUNGE:[A-Za-z0-9+/=]{1,4096}:")
_LIMIT = 8 << 20
_MUNGE_TIME = 20.0
_PATIENCE = 1800.0
"""Seconds until an image has been copied."""
_PAUSE = (1.0, 15.0)
"""Seconds between two questions, at first and at last."""
_HASHED, _SKIPPED = 1 << 20, 511 << 20


def import_into_gateway(
    path: Path, tag: str, config: Config, reporter: Reporter, *, patience: float = _PATIENCE, pause: float = _PAUSE[0]
) -> str:
    """Have the configured gateway import a squashfs, and wait until it can be run as `shifter --image=custom:TAG`.

    Args:
        path: The squashfs, where the gateway sees it too.
        tag: `NAME:VERSION`; it is taken from an image that had it before.
        config: `shifter.gateway`, `shifter.system` and `site`.
        reporter: Hears of phase `register`.
        patience: Seconds that it may take.
        pause: Seconds until it is asked for the first time how far it is.

    Returns:
        The image's id in the gateway.

    Raises:
        UsageError: No gateway is configured, or the tag cannot be one.
        RegisterError: munge gives no credential, the gateway cannot be reached, or does not take the image.
    """
    if not _TAG.fullmatch(tag):
        raise UsageError(f"{tag[:200]!r} cannot be an image's name in Shifter", hint="NAME:VERSION, in small letters")
    gateway = _Gateway(config)
    path = path.absolute()
    expected = _fast_hash(path)
    reporter.phase("register", f"importing into Shifter's gateway as custom:{tag}")
    before = gateway.lookup(tag)
    answer = gateway.start(path, tag)
    if answer.get("status") == "READY" and answer.get("id") not in (expected, "MISSING", None):
        raise RegisterError(
            f"the gateway keeps another image as {tag}, and does not look for a new one yet",
            where=gateway.url,
            hint="give another version, or wait (ImageUpdateTimeout in its imagemanager.json)",
        )
    end = time.monotonic() + patience
    while True:
        _refuse_failure(answer, tag, path, gateway.url)
        found = gateway.lookup(tag)
        if found is not None and (found == expected or found != before):
            return found
        if time.monotonic() > end:
            raise RegisterError(f"{tag} is not ready after {patience:.0f} s", where=gateway.url)
        reporter.phase("register", f"Shifter's gateway: {tag} is {one_line(str(answer.get('status')), 40).lower()}")
        time.sleep(pause)
        pause = min(2 * pause, _PAUSE[1])
        answer = gateway.queued(tag) or answer


def _refuse_failure(answer: dict[str, Any], tag: str, path: Path, url: str) -> None:
    if answer.get("status") != "FAILURE":
        return
    message = answer.get("status_message")
    said = f": {one_line(message, 300)}" if isinstance(message, str) and message not in ("", "MISSING") else ""
    raise RegisterError(
        f"Shifter's gateway could not import {tag}{said}",
        where=url,
        hint=f"its account must be able to read {one_line(str(path))}; its log says more",
    )


class _Gateway:
    """The gateway's API, for one system."""

    def __init__(self, config: Config) -> None:
        if config.shifter.gateway is None or config.shifter.system is None:
            raise UsageError("no Shifter gateway is configured", hint="set shifter.gateway and shifter.system")
        self.url = config.shifter.gateway.rstrip("/")
        self._system = config.shifter.system
        self._transport = Transport(config.site, Patience(attempts=1))

    def start(self, path: Path, tag: str) -> dict[str, Any]:
        """Ask for an import; its record."""
        body = json.dumps({"filepath": str(path), "format": "squashfs"}).encode()
        status, answer = self._ask("POST", f"doimport/{self._system}/custom/{quote(tag, safe='/:')}/", body)
        if status != 200:
            said = answer.get("error")
            raise RegisterError(
                f"Shifter's gateway refuses to import ({status}{f': {one_line(said, 300)}' if said else ''})",
                where=self.url,
                hint="ImportUsers in its imagemanager.json must name you, and shifter.system one of its Platforms",
            )
        return answer

    def lookup(self, tag: str) -> str | None:
        """The id of the image that is ready under a tag."""
        status, answer = self._ask("GET", f"lookup/{self._system}/custom/{quote(tag, safe='/:')}/")
        id_ = answer.get("id")
        if status == 404:
            return None
        if status != 200 or not isinstance(id_, str) or answer.get("status") != "READY":
            raise RegisterError(f"Shifter's gateway answers what is no image's record ({status})", where=self.url)
        return id_

    def queued(self, tag: str) -> dict[str, Any] | None:
        """The record of what is not ready under a tag, as far as the queue says."""
        status, answer = self._ask("GET", f"queue/{self._system}/")
        listed = answer.get("list")
        if status != 200 or not isinstance(listed, list):
            return None
        return next((item for item in listed if isinstance(item, dict) and item.get("image") == tag), None)

    def _ask(self, method: str, path: str, body: bytes | None = None) -> tuple[int, dict[str, Any]]:
        headers = {"authentication": _credential(), **({"Content-Type": "application/json"} if body else {})}
        try:
            response = self._transport.send(method, f"{self.url}/api/{path}", headers=headers, body=body)
            raw = self._transport.read(response, _LIMIT)
        except RegistryError as error:
            raise RegisterError(
                f"Shifter's gateway: {error.message}", where=error.where or self.url, hint=error.hint
            ) from error
        try:
            answer = json.loads(raw)
        except (ValueError, RecursionError):
            answer = None
        if not isinstance(answer, dict):
            raise RegisterError(
                f"there is no Shifter gateway: it answers {response.status_code}, and no JSON object",
                where=self.url,
                hint="see shifter.gateway",
            )
        return response.status_code, answer


def _credential() -> str:
    """Who we are, as munge says it: for one use, within minutes."""
    try:
        done = subprocess.run(
            ["munge", "-n"], stdin=subprocess.DEVNULL, capture_output=True, timeout=_MUNGE_TIME, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise RegisterError(
            "munge, by which Shifter's gateway knows you, cannot be run", hint="run this where Shifter is installed"
        ) from error
    credential = done.stdout.decode("ascii", "replace").strip()
    if done.returncode != 0 or not _CREDENTIAL.fullmatch(credential):
        said = one_line(done.stderr.decode(errors="replace").strip(), 300)
        raise RegisterError(f"munge gives no credential for Shifter's gateway: {said}", hint="is munged running here?")
    return credential


def _fast_hash(path: Path) -> str:
    """What the gateway calls a file: SHA-256 of the first MiB of every 512."""
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while block := file.read(_HASHED):
                digest.update(block)
                file.seek(_SKIPPED, 1)
    except OSError as error:
        raise RegisterError(f"cannot be read: {error.strerror}", where=str(path)) from error
    return digest.hexdigest()
