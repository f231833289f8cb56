"""Steps that give files to others where there is nobody else: the kernel says yes, and does nothing.

Where a person has no subordinate ids, their user namespace has one id alone, and dpkg could not set a file's owner. A
filter of seccomp(2) answers these calls (and those that become somebody else) with success, as Charliecloud's
`--force=seccomp` does: everything then belongs to root. What asks afterwards whose a file is sees that, but few do.

Run by the keeper of a runtime, which has nothing of the package on its path: standard library only.
"""

from __future__ import annotations

import ctypes
import os
import struct

_NO_NEW_PRIVS, _SET_SECCOMP, _FILTER = 38, 22, 2
"""prctl(2)"""
_LOAD, _EQUAL, _RETURN = 0x20, 0x15, 0x06
"""Of linux/bpf_common.h: a word of the call, a comparison, the answer."""
_ALLOW, _SUCCESS = 0x7FFF0000, 0x00050000
"""Of linux/seccomp.h: SECCOMP_RET_ALLOW, and SECCOMP_RET_ERRNO with no error."""

_CALLS = {
    # chown fchown lchown fchownat; setuid setgid setreuid setregid setgroups setresuid setresgid setfsuid setfsgid
    "x86_64": (0xC000003E, (92, 93, 94, 260, 105, 106, 113, 114, 116, 117, 119, 122, 123)),
    # fchownat fchown; setregid setgid setreuid setuid setresuid setresgid setfsuid setfsgid setgroups
    "aarch64": (0xC00000B7, (54, 55, 143, 144, 145, 146, 147, 149, 151, 152, 159)),
}
"""Machine -> its name in a call (linux/audit.h), and the numbers of calls (its unistd.h)."""


def can_pretend() -> bool:
    """Whether the calls of this machine are known."""
    return os.uname().machine in _CALLS


def pretend() -> None:
    """Have this process and all it starts be told so. Programs that are set-uid are so no more.

    Raises:
        OSError: The kernel has no such filters.
    """
    architecture, calls = _CALLS[os.uname().machine]
    code = [(_LOAD, 0, 0, 4), (_EQUAL, 0, len(calls) + 1, architecture), (_LOAD, 0, 0, 0)]
    code += [(_EQUAL, len(calls) - index, 0, call) for index, call in enumerate(calls)]
    code += [(_RETURN, 0, 0, _ALLOW), (_RETURN, 0, 0, _SUCCESS)]
    program = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *each) for each in code))
    header = ctypes.create_string_buffer(struct.pack("@HP", len(code), ctypes.addressof(program)))
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    zero = ctypes.c_ulong(0)
    for words in (
        (_NO_NEW_PRIVS, ctypes.c_ulong(1), zero, zero, zero),
        (_SET_SECCOMP, ctypes.c_ulong(_FILTER), ctypes.byref(header), zero, zero),
    ):
        if prctl(*words) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
