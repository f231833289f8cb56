"""An entry as the file `record.json`, and back."""

from __future__ import annotations

import dataclasses
import enum
import json
import types
import typing
from collections.abc import Mapping
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any

from hpcbinder.errors import CatalogError
from hpcbinder.model import Entry, to_json

NAME = "record.json"


def dump(value: Any) -> bytes:
    """The JSON text of a value of `hpcbinder.model`."""
    return (json.dumps(to_json(value), indent=1, sort_keys=True, allow_nan=False) + "\n").encode("ascii")


def parse(raw: bytes, kind: Any, where: Path) -> Any:
    """Read what `dump` wrote.

    Args:
        kind: The type the value has, e.g. `Entry` or `tuple[RegisteredKernel, ...]`.
        where: The file, for the message.

    Raises:
        CatalogError: It is not JSON or not of that type. Keys it does not know are ignored: a newer version's record
            of the same store version stays readable.
    """
    try:
        return build(json.loads(raw), kind)
    except (ValueError, RecursionError) as error:
        raise CatalogError(
            f"damaged record: {error}", where=str(where), hint="remove its folder and build the image again"
        ) from error


def load_entry(folder: Path) -> Entry | None:
    """The entry of an image's folder with absolute format paths; None if there is no record.

    Raises:
        CatalogError: The record is damaged, cannot be read or is another image's.
    """
    path = folder / NAME
    try:
        raw = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise CatalogError(f"cannot be read: {error.strerror}", where=str(path)) from error
    entry: Entry = parse(raw, Entry, path)
    for relative in entry.formats.values():
        if relative.startswith("/") or ".." in PurePosixPath(relative).parts:
            raise CatalogError("damaged record: a format outside its folder", where=str(path))
    return dataclasses.replace(entry, formats={name: str(folder / path) for name, path in entry.formats.items()})


def relative_formats(entry: Entry, folder: Path) -> Entry:
    """The entry as its record has it: format paths relative to `folder`.

    Raises:
        CatalogError: A format is not there, or not in `folder`.
    """
    formats = {}
    for name, text in entry.formats.items():
        path = folder / text
        if not path.is_relative_to(folder) or ".." in path.parts or not path.exists():
            raise CatalogError(f"no {name} in the finished image", where=str(path))
        formats[name] = path.relative_to(folder).as_posix()
    return dataclasses.replace(entry, formats=formats)


@cache
def _hints(cls: Any) -> dict[str, Any]:
    return typing.get_type_hints(cls)


def build(value: Any, kind: Any, at: str = "") -> Any:
    """`value` of JSON as a `kind`: the inverse of `model.to_json` for the types that the model uses.

    Args:
        at: Where in a record it stands, for the message.

    Raises:
        ValueError: It is not of that type.
    """
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return value
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        (inner,) = (a for a in arguments if a is not type(None))
        return build(value, inner, at)
    if origin is tuple:
        if not isinstance(value, list):
            raise ValueError(f"{at}: not a list")
        return tuple(build(item, arguments[0], f"{at}[{i}]") for i, item in enumerate(value))
    if origin is Mapping:
        if not isinstance(value, dict):
            raise ValueError(f"{at}: not an object")
        return {key: build(item, arguments[1], f"{at}.{key}") for key, item in value.items()}
    if dataclasses.is_dataclass(kind):
        if not isinstance(value, dict):
            raise ValueError(f"{at or 'record'}: not an object")
        hints = _hints(typing.cast("Any", kind))
        wanted = {}
        for field in dataclasses.fields(kind):
            if field.name in value:
                wanted[field.name] = build(value[field.name], hints[field.name], f"{at}.{field.name}".lstrip("."))
            elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
                raise ValueError(f"{at}.{field.name} is missing".lstrip("."))
        return typing.cast("Any", kind)(**wanted)
    if kind is float and type(value) is int:
        try:
            return float(value)
        except OverflowError:
            raise ValueError(f"{at}: too large a number") from None
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return kind(value)
    if kind is Path and type(value) is str:
        return Path(value)
    if type(value) is not kind:
        raise ValueError(f"{at}: not {kind.__name__}")
    return value
