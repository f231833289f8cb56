"""Our own file of logins: written by `hpcbinder login`, readable for its owner alone."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hpcbinder.errors import RegistryError, UsageError
from hpcbinder.registry.credentials import Login, own_file
from hpcbinder.registry.files import replace_file


def keep_login(host: str, login: Login, path: Path | None = None) -> Path:
    """Keep a login, instead of one that may be there.

    Args:
        host: As in `Reference`.
        path: The file; None for the person's.

    Returns:
        The file.

    Raises:
        UsageError: The name cannot be told from the password.
        RegistryError: The file cannot be read or written.
    """
    if ":" in login.username:
        raise UsageError("a user's name has no colon")
    pair = base64.b64encode(f"{login.username}:{login.password}".encode()).decode("ascii")

    def change(auths: dict[str, Any]) -> None:
        auths[host] = {"auth": pair}

    return _change(path or own_file(), change)


def forget_login(host: str, path: Path | None = None) -> bool:
    """Remove a login.

    Returns:
        Whether there was one.

    Raises:
        RegistryError: The file cannot be read or written.
    """
    file = path or own_file()
    if not file.exists():
        return False
    found = []

    def change(auths: dict[str, Any]) -> None:
        found.append(auths.pop(host, None))

    _change(file, change)
    return found != [None]


def kept_logins(path: Path | None = None) -> tuple[str, ...]:
    """The registries (or parts of them) our file has logins for.

    Raises:
        RegistryError: The file cannot be read.
    """
    auths = _read(path or own_file()).get("auths")
    return tuple(sorted(auths)) if isinstance(auths, dict) else ()


def _change(path: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    from filelock import FileLock

    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with FileLock(path.with_name(f".{path.name}.lock"), mode=0o600):
            data = _read(path)
            change(data.setdefault("auths", {}))
            replace_file(path, f"{json.dumps(data, indent=1, sort_keys=True)}\n".encode(), mode=0o600)
    except OSError as error:
        raise RegistryError(f"cannot be written: {error.strerror or error}", where=str(path)) from error
    return path


def _read(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except (ValueError, RecursionError):
        data = None
    if not isinstance(data, dict) or not isinstance(data.get("auths", {}), dict):
        raise RegistryError("is no file of logins", where=str(path), hint="remove it, and log in again")
    return data
