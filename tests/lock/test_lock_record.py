"""Reading the locks that an image's manifest or record holds."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from hpcbinder.errors import UsageError
from hpcbinder.lock import read_locks
from hpcbinder.model import Lock, LockedPackage, to_json

PACKAGES = (
    LockedPackage("numpy", "2.1.1", ("sha256:" + "0" * 64,)),
    LockedPackage("six", "1.0+local.1", ("sha512:" + "1" * 128,), "https://example.org/six-1.0%2Blocal.1-py3.whl"),
)
LOCK = Lock("pypi", "resolved", "3.11", "x86_64-manylinux_2_36", PACKAGES, (("six",), ("numpy",)), ("docopt",), "a")


def test_what_was_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "manifest.json"
    path.write_text(json.dumps({"schema": 1, "locks": to_json([LOCK, LOCK])}))
    assert read_locks(path) == (LOCK, LOCK)


def package(**changes: str | tuple[str, ...]) -> Lock:
    return replace(LOCK, packages=(replace(PACKAGES[0], **changes), PACKAGES[1]))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "value",
    [
        [],
        {},
        {"locks": None},
        {"locks": []},
        {"locks": [3]},
        {"locks": [{**to_json(LOCK), "packages": 3}]},
        {"locks": to_json([replace(LOCK, layers=(("six",),))])},
        {"locks": to_json([replace(LOCK, unresolved=("-r /etc/passwd",))])},
        {"locks": to_json([package(version="1\n--index-url http://127.0.0.1/")])},
        {"locks": to_json([package(version="1 --hash=x")])},
        {"locks": to_json([package(hashes=())])},
        {"locks": to_json([package(hashes=("sha256:0 \n-r x",))])},
        {"locks": to_json([package(hashes=("md5:" + "0" * 32,))])},
        {"locks": to_json([package(url="http://example.org/a.whl")])},
        {"locks": to_json([package(url="https://example.org/${HOME}.whl")])},
        {"locks": to_json([package(url="https://example.org/a b.whl")])},
        {"locks": to_json([replace(LOCK, packages=(replace(PACKAGES[0], name="../x"),), layers=(("../x",),))])},
    ],
)
def test_what_is_no_lock_is_refused(tmp_path: Path, value: object) -> None:
    path = tmp_path / "manifest.json"
    path.write_text(json.dumps(value))
    with pytest.raises(UsageError, match=r"manifest\.json: holds no locks .give an image's manifest"):
        read_locks(path)


def test_files_that_are_not_there_or_not_json(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read: No such file"):
        read_locks(tmp_path / "nothing")
    with pytest.raises(UsageError, match="cannot be read: Is a directory"):
        read_locks(tmp_path)
    for text in ("", "{", "[" * 100_000, "\ud800".encode("utf-8", "surrogatepass").decode("latin-1")):
        (tmp_path / "x").write_text(text)
        with pytest.raises(UsageError, match="holds no locks"):
            read_locks(tmp_path / "x")
