"""The text of modulefiles: Lua for Lmod, Tcl for Environment Modules (and for an Lmod that prefers it).

modulefile(5); lmod.readthedocs.io, "Lua Modulefile Functions". Every text of a repository stands in a quoted string, in
which nothing is evaluated.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

_MARK = "made by hpcbinder for the image "


@dataclass(frozen=True)
class Module:
    """What a modulefile says and does.

    Attributes:
        id: Of the image.
        name: `ligo-tutorials`.
        version: `2018.03.05-0123456`.
        about: Lines `Name: value` that `module whatis` shows.
        commands: What it brings.
        bin: Folder that goes in front of PATH.
    """

    id: str
    name: str
    version: str
    about: Sequence[tuple[str, str]]
    commands: Sequence[str]
    bin: str


def lua(module: Module) -> bytes:
    """A modulefile in Lua."""
    lines = [
        f"-- {_MARK}{module.id}",
        f"help({_lua(_help(module))})",
        *(f"whatis({_lua(f'{name}: {value}')})" for name, value in module.about),
        f"prepend_path({_lua('PATH')}, {_lua(module.bin)})",
    ]
    return ("\n".join(lines) + "\n").encode()


def tcl(module: Module) -> bytes:
    """A modulefile in Tcl; its first word is the one that says what it is."""
    lines = [
        "#%Module1.0",
        f"# {_MARK}{module.id}",
        "proc ModulesHelp { } {",
        f"    puts stderr {_tcl(_help(module))}",
        "}",
        *(f"module-whatis {_tcl(f'{name}: {value}')}" for name, value in module.about),
        # Of one image at a time; Lmod sees to that itself.
        f"conflict {_tcl(module.name)}",
        f"prepend-path PATH {_tcl(module.bin)}",
    ]
    return ("\n".join(lines) + "\n").encode()


def owner(text: bytes) -> str | None:
    """The id of the image that a modulefile is for, None if it is not ours."""
    for line in text[:2000].split(b"\n")[:2]:
        _, mark, id_ = line.partition(_MARK.encode())
        if mark and line.startswith((b"-- ", b"# ")):
            return id_.decode("ascii", "replace")
    return None


def _help(module: Module) -> str:
    about = [f"{name}: {value}" for name, value in module.about]
    return "\n".join(
        [
            f"{module.name}/{module.version}: commands that run in the image {module.id}.",
            "",
            *about,
            "",
            f"Commands: {' '.join(module.commands)}",
            f"Anything else in it: hpcbinder run {module.id} -- COMMAND",
        ]
    )


def _lua(text: str) -> str:
    """A string of Lua (reference manual 5.1, section 2.1), in which bytes that are not plain are numbers."""
    return '"' + "".join(_lua_byte(byte) for byte in text.encode("utf-8", "replace")) + '"'


def _lua_byte(byte: int) -> str:
    return chr(byte) if 32 <= byte < 127 and byte not in b'"\\' else f"\\{byte:03d}"


def _tcl(text: str) -> str:
    """A word of Tcl (Tcl(n), rules 4 and 9), in which what could be evaluated is a number."""
    return '"' + "".join(_tcl_character(char) for char in text.encode("utf-8", "replace").decode()) + '"'


def _tcl_character(char: str) -> str:
    if char.isascii() and char.isprintable() and char not in '"\\$[]{};':
        return char
    # Tcl 8 has 16 bits; what is beyond is rare enough to be shown as unknown.
    code = ord(char)
    return f"\\u{code if code < 0x10000 else 0xFFFD:04x}"
