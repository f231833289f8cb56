"""The prefix that a package was built with, replaced by where it is installed (docs.conda.io, "Making packages
relocatable"; what conda's own `conda/core/portability.py` does)."""

from __future__ import annotations

import re

from hpcbinder.wheels import Refused

OLD_PLACEHOLDER = "/opt/anaconda1anaconda2anaconda3"
"""Of packages that do not say which theirs is."""

_LONGEST_SHEBANG = 127
"""Bytes of a first line that every Linux starts (BINPRM_BUF_SIZE before 5.1)."""
_SHEBANG = re.compile(rb"#![ ]*(?P<program>/(?:\\ |[^ \n\r\t])*)(?P<rest>[^\n\r]*)")


def replaced(content: bytes, placeholder: str, prefix: str, *, binary: bool, path: str) -> bytes:
    """A file with its prefix replaced.

    Args:
        binary: It keeps its length: each string that ends with NUL is filled up with NULs.
        path: For the message.

    Raises:
        Refused: The new prefix is longer than the one in a binary file.
    """
    old, new = placeholder.encode(), prefix.encode()
    if not old:
        raise Refused(f"it says that {path!r} has an empty prefix in it")
    if binary:
        return _binary(content, old, new, path)
    return _started(content.replace(old, new))


def _binary(content: bytes, old: bytes, new: bytes, path: str) -> bytes:
    """By hand: a regular expression would try every beginning of a long string without an end."""
    parts = []
    at = 0
    while (begin := content.find(old, at)) >= 0:
        end = content.find(b"\0", begin)
        if end < 0:
            break  # no string of C's
        text = content[begin:end]
        fresh = text.replace(old, new)
        if len(fresh) > len(text):
            raise Refused(f"{path!r} has room for a prefix of {len(old)} bytes, {new.decode()} has {len(new)}")
        parts += [content[at:begin], fresh, bytes(len(text) - len(fresh))]
        at = end
    return b"".join((*parts, content[at:]))


def _started(content: bytes) -> bytes:
    """A script whose first line is too long for the kernel is started by env(1)."""
    match = _SHEBANG.match(content) if content.startswith(b"#!") else None
    if match is None or len(match[0]) <= _LONGEST_SHEBANG:
        return content
    program = match["program"].replace(b"\\ ", b" ").rpartition(b"/")[2]
    return b"#!/usr/bin/env " + program + match["rest"] + content[match.end() :]
