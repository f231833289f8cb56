"""What uv says when no versions fit, made use of and made short."""

from __future__ import annotations

import re

from hpcbinder.errors import DetectError, OldMetadataError
from hpcbinder.text import one_line

_WANTS_BUILD = re.compile(r"^\s*hint: Wheels are required for `(?P<name>[a-z0-9-]+)`", re.MULTILINE)
_UNDATED = re.compile(
    r"^warning: `(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*?)-\d[^`/-]*(?:-[^`/]*)?` is missing an upload date", re.MULTILINE
)
"""Of a wheel (`name-1.0-py3-none-any.whl`) or a source archive (`name-1.0.tar.gz`)."""
_LIMIT = 900


def without_wheels(message: str) -> list[str]:
    """Names of packages of which uv saw versions that have no wheel but could be built."""
    return list(dict.fromkeys(match["name"] for match in _WANTS_BUILD.finditer(message)))


def must_be_built(message: str, name: str) -> bool:
    """No version of a package that somebody depends on has a wheel, as far as uv's words tell.

    That some version has none is no reason to build: uv also says so of versions that would not fit anyway.
    """
    text = " ".join(message.split())
    this = rf"{re.escape(name)}(?:[<>=!~][^\s,]*(?:,[<>=!~][^\s,]*)*)?"
    return any(
        re.search(pattern, text)
        for pattern in (
            rf"\ball versions of {this} have no usable wheels",
            rf"\b{this} ha(?:s|ve) no usable wheels and (?:all versions of )?\S+ depends? on {this}(?=[\s,])",
            rf"\b{this} ha(?:s|ve) no usable wheels and only .{{0,400}}?we can conclude that {this} cannot be used",
        )
    )


def without_times(message: str) -> frozenset[str]:
    """Names of packages of which uv left files aside since the index does not say when they were uploaded."""
    return frozenset(re.sub(r"[-_.]+", "-", name).lower() for name in _UNDATED.findall(message))


def conflict(message: str) -> DetectError:
    """The error that says in one line why no versions fit."""
    text = " ".join(message.partition("hint:")[0].split())
    text = re.sub(r"^.*?No solution found when resolving dependencies:?\s*(cause:|╰─▶)?\s*", "", text)
    text = re.sub(r",? ?(and )?we can conclude that your requirements are unsatisfiable\.?\s*$", "", text)
    text = re.sub(r"^Because ", "", text)
    hints = [" ".join(part.split()) for part in message.split("hint:")[1:]]
    kind = OldMetadataError if "invalid metadata" in text else DetectError
    return kind(f"no versions fit together: {one_line(text, _LIMIT)}", hint=_hint(text, hints))


def _hint(text: str, hints: list[str]) -> str:
    if "was not found in the package registry" in text:
        return "check the spelling of the name"
    if "there is no version of" in text and "depends on" not in text:
        return "ask for a version that there is"
    tags = [hint for hint in hints if "we only found wheels" in hint]
    if tags:
        return one_line(tags[0], 300) + "; ask for another version, or for another Python in runtime.txt"
    if "Python>" in text or "Python<" in text or "Python version" in text:
        return "ask for other versions, or for another Python in runtime.txt"
    if any("pre-releases" in hint or "Pre-releases" in hint for hint in hints):
        return "only pre-releases would fit: ask for one by its version, or write --pre into requirements.txt"
    if "no usable wheels" in text:
        return "ask for other versions of these; --no-lock leaves it to the build, which can build from source"
    return "ask for other versions of these"
