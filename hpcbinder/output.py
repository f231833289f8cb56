"""What build steps print, made fit for a person: safe to show, and the part of it that tells."""

from __future__ import annotations

import re
from collections.abc import Collection

from hpcbinder.config import redact
from hpcbinder.text import one_line

_TELLING = re.compile(
    r"error|fatal|fail|not found|no such|denied|refused|cannot|could not|conflict|because|×|╰|^E:", re.I
)

_UNREACHED = re.compile(
    r"could ?n.t resolve|could not resolve|unable to resolve|(temporary failure|failure) in name resolution|"
    r"name or service not known|network is unreachable|no route to host|could not connect to|failed to connect to|"
    r"failed to establish a new connection|getaddrinfo (EAI_AGAIN|ENOTFOUND)|dns error",
    re.I,
)


def clean(raw: bytes, hidden: Collection[str], prefix: str = "") -> str:
    """A line of output, safe to print: no control characters, no passwords, of a progress bar its last state.

    Args:
        hidden: Texts that must never be shown, the longest first.
        prefix: Regular expression of what stays in front of a progress bar.
    """
    text = raw.decode("utf-8", "replace").rstrip("\r\n")
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)
    before = re.match(prefix, text)
    if "\r" in text:  # a progress bar: what stood last is what a terminal shows
        text = (before[0] if before else "") + text.rsplit("\r", 1)[1]
    for secret in hidden:
        text = text.replace(secret, "***")
    return one_line(redact(text))


def telling(lines: Collection[str]) -> list[str]:
    """Up to three lines from the end of a step's output that say what went wrong, and what we said of it ourselves (the
    line of a script, say)."""
    end = [line.strip() for line in lines][-15:]
    own = [line for line in end if line.startswith("hpcbinder: ")][-1:]
    said = [line for line in end if line not in own]
    marked = [line for line in said if _TELLING.search(line)]
    return [*(marked or said)[-3:], *own]


def advice(status: int, lines: Collection[str]) -> str | None:
    """What to do about a step that ended with this exit status after these words; None if nothing is known."""
    if status == 137:
        return "it was killed, perhaps for want of memory"
    if any(_UNREACHED.search(line) for line in list(lines)[-30:]):
        return (
            "a server could not be reached from the build: give it a network or a proxy (build.network, "
            "site.http_proxy), or put what is fetched into the repository"
        )
    return None
