"""Whether an interpreter from elsewhere runs on a Debian suite's libraries."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping

from hpcbinder.interpreters.look import Interpreter
from hpcbinder.plan import SUITES

_ALWAYS = frozenset(
    ("ld-linux-x86-64.so.2", "ld-linux-aarch64.so.1", "ld64.so.2", "libanl.so.1", "libc.so.6", "libdl.so.2")
    + ("libm.so.6", "libpthread.so.0", "libresolv.so.2", "librt.so.1", "libutil.so.1", "libgcc_s.so.1")
    + ("libstdc++.so.6", "libcrypt.so.1", "libbz2.so.1.0", "liblzma.so.5", "libz.so.1", "libexpat.so.1")
    + ("libncursesw.so.6", "libpanelw.so.6", "libtinfo.so.6", "libuuid.so.1", "libsqlite3.so.0", "libzstd.so.1")
    + ("libdb-5.3.so",)
)
_NEWER = frozenset(("libssl.so.3", "libcrypto.so.3", "libffi.so.8", "libreadline.so.8"))

LIBRARIES: Mapping[str, frozenset[str]] = {
    "buster": _ALWAYS | {"libssl.so.1.1", "libcrypto.so.1.1", "libffi.so.6", "libreadline.so.7"},
    "bullseye": _ALWAYS | {"libssl.so.1.1", "libcrypto.so.1.1", "libffi.so.7", "libreadline.so.8"},
    "bookworm": _ALWAYS | _NEWER | {"libnsl.so.2", "libtirpc.so.3"},
    "trixie": _ALWAYS | _NEWER,
}
"""Suite -> libraries that CPython can be linked with and that every base of the suite has."""

NEEDED = ("_bz2", "_ctypes", "_hashlib", "_lzma", "_sqlite3", "_ssl", "bz2", "zlib")
"""Extension modules that a kernel or ordinary packages do not go without (`bz2` is Python 2's). The others (`_tkinter`,
`nis`, …) are left out where a base has no library for them, as Debian leaves them to packages of their own."""


def obstacle(interpreter: Interpreter, suite: str) -> str | None:
    """Why an interpreter cannot run on a base of a suite, None if it can."""
    has = SUITES[suite].glibc
    if interpreter.glibc > tuple(map(int, has.split("."))):
        needs = ".".join(map(str, interpreter.glibc))
        return f"it needs version {needs} of the GNU C library, Debian {suite} has {has}"
    for library, users in interpreter.system.items():
        if library not in LIBRARIES[suite] and (user := next((user for user in users if not _spare(user)), None)):
            return f"its {posixpath.basename(user)} needs {library}, which a base of Debian {suite} does not have"
    return None


def left_out(interpreter: Interpreter, suite: str) -> tuple[str, ...]:
    """Paths below the prefix of extension modules that a suite has no libraries for."""
    lacking = [users for name, users in interpreter.system.items() if name not in LIBRARIES[suite]]
    return tuple(sorted({user for users in lacking for user in users if _spare(user)}))


def _spare(path: str) -> bool:
    return "/lib-dynload/" in path and posixpath.basename(path).partition(".")[0] not in NEEDED
