"""Runs inside the interpreter whose bytecode is wanted, of any version: a program of its own, given with `-c`.

Its argument is how many seconds of processor time it spends on the files of one "B". It answers on standard output what
it is asked on standard input, all numbers big-endian and 32 bits:

    hello:   magic number
    asked:   "B", then for each file: length of path, length of source, path, source; at the end two zeros
    answers: for each file its length and the file of bytecode, or NONE; at the end, or after a crash, END, or LATE if
             the time was over before; then the processor time (ms) that it took

Each "B" is handled by a fork, so that neither the bytes of a file (which depend on what strings the process has seen)
nor the memory it takes depend on what came before.
"""

import marshal
import os
import signal
import sys
from importlib.util import MAGIC_NUMBER, source_hash

NONE, END, LATE = 0xFFFFFFFF, 0xFFFFFFFE, 0xFFFFFFFD
UNCHECKED_HASH = b"\1\0\0\0"
"""Flags of a pyc that is taken without looking at its source (PEP 552)."""
MEMORY = 1 << 30


def most(source: int) -> int:
    """Bytes of bytecode that a source of some bytes may become: a compiler works out `'x' * 4000` beforehand."""
    return max(1 << 20, 20 * source)


def take(length: int) -> bytes:
    parts = []
    while length:
        part = os.read(0, length)
        if not part:
            os._exit(0)
        parts.append(part)
        length -= len(part)
    return b"".join(parts)


def number() -> int:
    return int.from_bytes(take(4), "big")


def give(data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(1, view) :]


def bytecode(path: str, source: bytes) -> bytes:
    code = compile(source, path, "exec", dont_inherit=True, optimize=-1)
    return MAGIC_NUMBER + UNCHECKED_HASH + source_hash(source) + marshal.dumps(code)


def batch() -> None:
    while True:
        length, size = number(), number()
        if not length:
            return
        path, source = os.fsdecode(take(length)), take(size)
        try:
            made = bytecode(path, source)
        except Exception:
            made = b""
        if not made or len(made) > most(size):
            give(NONE.to_bytes(4, "big"))
        else:
            give(len(made).to_bytes(4, "big") + made)


def limit_time(seconds: int) -> None:
    try:
        import resource
    except ImportError:
        return
    signal.signal(signal.SIGXCPU, signal.SIG_DFL)
    hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
    resource.setrlimit(resource.RLIMIT_CPU, (seconds if hard == resource.RLIM_INFINITY else min(seconds, hard), hard))


def limit_memory() -> None:
    try:
        import resource
    except ImportError:
        return
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    wanted = MEMORY if hard == resource.RLIM_INFINITY else min(MEMORY, hard)
    resource.setrlimit(resource.RLIMIT_AS, (wanted, hard))
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))


def main() -> None:
    if sys.implementation.name != "cpython":
        raise SystemExit("is no CPython")
    limit_memory()
    give(int.from_bytes(MAGIC_NUMBER[:2], "little").to_bytes(4, "big"))
    while take(1) == b"B":
        child = os.fork()
        if not child:
            try:
                limit_time(int(sys.argv[1]))
                batch()
            finally:
                os._exit(0)
        _, status, usage = os.wait4(child, 0)
        if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
            # The machine is short of memory: that says nothing of the source.
            raise SystemExit("a process was killed")
        late = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGXCPU
        spent = int((usage.ru_utime + usage.ru_stime) * 1000)
        give((LATE if late else END).to_bytes(4, "big") + spent.to_bytes(4, "big"))


if __name__ == "__main__":
    main()
