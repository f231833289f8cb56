"""Read the configuration from all its places and remember where each value came from."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from hpcbinder.config.keys import SECTIONS, SITE_FILE, Config, specs, user_config
from hpcbinder.config.values import Source, quoted, read_flag
from hpcbinder.errors import UsageError

_FILE_LIMIT = 1 << 20


def load(
    flags: Mapping[str, object] | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    site_file: Path = SITE_FILE,
    user_file: Path | None = None,
    options: Mapping[str, str] | None = None,
) -> Config:
    """Read the configuration from all its places.

    Args:
        flags: `section.key` -> value from the command line; None as a value means "not given". A path is relative to
            the working directory.
        environ: The environment, `os.environ` when None.
        site_file: The site's TOML; need not exist.
        user_file: The user's TOML; need not exist. None: `config.toml` in the platform's config folder.
        options: `section.key` -> the option of the command line that a flag was given by, for errors.

    Raises:
        UsageError: A file cannot be read or is not TOML, a key is unknown, a value cannot be meant.
    """
    environ = os.environ if environ is None else environ
    user_file = user_config() / "config.toml" if user_file is None else user_file
    here = _here()
    strongest = {
        key: (raw, source)
        for key, raw, source in (
            *_from_usual(environ, here),
            *_from_file(site_file, environ),
            *_from_file(user_file, environ),
            *_from_environment(environ, here),
            *_from_flags(flags or {}, environ, here, options or {}),
        )
    }
    # Only what counts is read: a person must be able to replace a site's "$SCRATCH/…" where SCRATCH is not set.
    values = {key: _read(key, raw, source) for key, (raw, source) in strongest.items()}
    parts = {}
    for name, cls in SECTIONS.items():
        names = [f.name for f in fields(cls)]
        parts[name] = cls(**{n: values[f"{name}.{n}"] for n in names if f"{name}.{n}" in values})
    return Config(
        **parts, origins={key: strongest[key][1].origin if key in strongest else "default" for key in specs()}
    )


def _here() -> Path:
    try:
        return Path.cwd()
    except OSError:  # it was removed; only a relative path has use for it, and is refused then
        return Path()


_Raw = tuple[str, object, Source]


def _from_usual(environ: Mapping[str, str], here: Path) -> Iterator[_Raw]:
    for key, spec in specs().items():
        name = next((n for n in spec.usual if environ.get(n)), None)
        if name is not None:
            yield key, environ[name], Source(f"environment {name}", environ, here, True)


def _from_environment(environ: Mapping[str, str], here: Path) -> Iterator[_Raw]:
    known = {f"HPCBINDER_{key.replace('.', '_').upper()}": key for key in specs()}
    prefixes = tuple(f"HPCBINDER_{section.upper()}_" for section in SECTIONS)
    for name in sorted(environ):
        if name in known:
            yield known[name], environ[name], Source(f"environment {name}", environ, here, True)
        elif name.startswith(prefixes):
            raise UsageError("no such setting", where=f"environment {ascii(name)[1:-1]}", hint=_closest(name, known))


def _from_flags(
    flags: Mapping[str, object], environ: Mapping[str, str], here: Path, options: Mapping[str, str]
) -> Iterator[_Raw]:
    for key, value in flags.items():
        if key not in specs():
            raise KeyError(key)
        if value is not None:
            yield key, value, Source("flag", environ, here, False, options.get(key))


def _from_file(path: Path, environ: Mapping[str, str]) -> Iterator[_Raw]:
    text = _file_text(path)
    if text is None:
        return
    table = _parse(text, path)
    known = specs()
    for section, content in table.items():
        if section not in SECTIONS:
            where = _where(path, text, (section,))
            raise UsageError(f"no such section: {quoted(section)}", where=where, hint=_closest(section, SECTIONS))
        if not isinstance(content, dict):
            raise UsageError(f"{section} is a section: write [{section}]", where=_where(path, text, (section,)))
        for name, value in content.items():
            where = _where(path, text, (section, name))
            key = f"{section}.{name}"
            if key not in known:
                names = [k.partition(".")[2] for k in known if k.startswith(f"{section}.")]
                raise UsageError(f"no such key: {quoted(key)}", where=where, hint=_closest(name, names))
            yield key, value, Source(where, environ, Path(os.path.abspath(path)).parent, False)  # noqa: PTH100


def _file_text(path: Path) -> str | None:
    try:
        with path.open("rb") as file:
            raw = file.read(_FILE_LIMIT + 1)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise UsageError(f"cannot be read: {reason}", where=ascii(str(path))[1:-1]) from error
    if len(raw) > _FILE_LIMIT:
        raise UsageError("is larger than 1 MiB: not a configuration", where=str(path))
    for number, line in enumerate(raw.split(b"\n"), 1):
        if b"\0" in line:
            raise UsageError("holds a NUL byte", where=f"{path}:{number}")
    try:
        return raw.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        line_number = raw.count(b"\n", 0, error.start) + 1
        raise UsageError("is not UTF-8", where=f"{path}:{line_number}") from error


def _loads(text: str) -> dict[str, Any]:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib  # type: ignore[import-not-found, unused-ignore]
    table: dict[str, Any] = tomllib.loads(text)
    return table


def _parse(text: str, path: Path) -> dict[str, Any]:
    try:
        return _loads(text)
    except RecursionError as error:
        raise UsageError("is nested too deeply", where=str(path)) from error
    except ValueError as error:
        # tomllib says "… (at line 2, column 5)" or "… (at end of document)".
        message, line = str(error), text.count("\n") + (not text.endswith("\n"))
        if match := re.search(r" \(at line (\d+), column \d+\)$", message):
            message, line = message[: match.start()], int(match[1])
        message = message.removesuffix(" (at end of document)")
        raise UsageError(f"is not TOML: {message}", where=f"{path}:{max(line, 1)}") from error


def _where(path: Path, text: str, keys: tuple[str, ...]) -> str:
    """`path:line` of a key that the parsed file has, or `path` where no line can be told.

    tomllib keeps no positions. A line that looks right is the one if the text before it parses without the key
    (so it is not inside a multi-line string) and the file up to the line's value has it.
    """
    last = re.compile(rf"""(.*[.{{,\s\["'])?{re.escape(keys[-1])}["']?\s*[=.\]]""")
    lines = text.split("\n")
    for number, line in enumerate(lines, 1):
        if last.match(line) and _lacks("\n".join(lines[: number - 1]), keys):
            return f"{path}:{number}"
    return str(path)


def _lacks(text: str, keys: tuple[str, ...]) -> bool:
    try:
        table: Any = _loads(text)
    except (ValueError, RecursionError):
        return False
    for key in keys:
        if not isinstance(table, dict) or key not in table:
            return True
        table = table[key]
    return False


def _read(key: str, raw: object, source: Source) -> Any:
    spec = specs()[key]
    if spec.separator is None:
        text = _string(key, raw, source)
        if spec.optional and not text.strip():
            return None
        return spec.read(key, text, source)
    if spec.names is not None:
        return _read_table(key, raw, source)
    if isinstance(raw, str) and source.splits:
        raw = [part.strip() for part in raw.split(spec.separator) if part.strip()]
    if not isinstance(raw, (list, tuple)):
        raise source.refuse(key, f"must be a list, not {_type(raw)}")
    return tuple(dict.fromkeys(spec.read(key, _string(key, item, source), source) for item in raw))


def _read_table(key: str, raw: object, source: Source) -> Mapping[str, Any]:
    spec = specs()[key]
    assert spec.names is not None
    if isinstance(raw, str) and source.splits:
        pairs = [part.partition("=") for part in raw.split(spec.separator) if part.strip()]
        if lonely := next((name for name, equals, _ in pairs if not equals), None):
            raise source.refuse(key, f"must be NAME=VALUE, not {quoted(lonely)}")
        raw = {name.strip(): value.strip() for name, _, value in pairs}
    if not isinstance(raw, Mapping):
        raise source.refuse(key, f"must be a table, not {_type(raw)}")
    return {
        spec.names(f"a name in {key}", name, source): spec.read(
            f"{key} of {quoted(name)}", _string(f"{key} of {quoted(name)}", value, source), source
        )
        for name, value in raw.items()
    }


def _string(key: str, raw: object, source: Source) -> str:
    if isinstance(raw, bool) and specs()[key].read is read_flag:
        return "true" if raw else "false"
    if isinstance(raw, Path):
        raw = str(raw)
    if not isinstance(raw, str):
        raise source.refuse(key, f"must be text in quotes, not {_type(raw)}")
    if "\0" in raw:
        raise source.refuse(key, "holds a NUL byte")
    return raw


def _type(raw: object) -> str:
    names = {bool: "true or false", int: "a number", float: "a number", dict: "a table", list: "a list", str: "text"}
    return names.get(type(raw), "a date or time")


def _closest(name: str, known: Any) -> str:
    import difflib

    close = difflib.get_close_matches(name, list(known), n=1)
    return f"did you mean {close[0]}?" if close else f"known: {', '.join(known)}"
