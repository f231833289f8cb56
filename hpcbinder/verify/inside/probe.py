"""Try imports: `python probe.py WANTED RESULTS SECONDS`. Runs in the image, with the kernel's Python, 2.7 or later.

WANTED is a JSON list of [module, name]; RESULTS gets a JSON line [number, error's name, its message] for each, both
empty where it works. All are tried in one process; what ends it (a crash, an exit, too long a time) is noted and the
others are tried in a new one.
"""

# Python 2.7 reads this too.
# ruff: noqa: B904, PTH100, PTH123, SIM115, UP020, UP024, UP031
# mypy: ignore-errors

import importlib
import io
import json
import os
import signal
import subprocess
import sys
import time

SHORT = 500


def note(results, number, name, message):
    line = json.dumps([number, name, message[:SHORT]]) + "\n"
    handle = os.open(results, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(handle, line.encode("ascii"))
    finally:
        os.close(handle)


def attempt(module, name):
    found = importlib.import_module(module)
    if name and not hasattr(found, name):
        try:
            importlib.import_module(module + "." + name)
        except ImportError as error:
            # Python 2's says what is missing in its text alone, and only the last part of it.
            missing = getattr(error, "name", None) or str(error).split(" ")[-1]
            if missing in (module + "." + name, name):
                raise ImportError("cannot import name '%s' from '%s'" % (name, module))
            raise


def child(wanted, results, first):
    sys.path.insert(0, "")
    # As in a kernel, which sets its own: matplotlib before 3.0 else wants a window, and tkinter for it.
    os.environ.setdefault("MPLBACKEND", "Agg")
    for number in range(first, len(wanted)):
        module, name = wanted[number]
        try:
            attempt(str(module), str(name))
        except Exception as error:
            note(results, number, type(error).__name__, " ".join(str(error).split()))
        except SystemExit:
            note(results, number, "SystemExit", "it ends the process")
        else:
            note(results, number, "", "")


def done(results):
    try:
        with io.open(results, encoding="ascii") as file:
            return len(file.readlines())
    except (IOError, OSError):
        return 0


def main(wanted_path, results, seconds):
    with io.open(wanted_path, encoding="utf-8") as file:
        wanted = json.load(file)
    while True:
        first = done(results)
        if first >= len(wanted):
            return
        code, reason = run(wanted_path, results, first, seconds)
        if done(results) < len(wanted) and (code != 0 or done(results) == first):
            note(results, done(results), "Crash", reason)


def run(wanted_path, results, first, seconds):
    """One process, from one number on; why it ended, if that was too early."""
    quiet = open(os.devnull, "r+b")
    process = subprocess.Popen(
        [sys.executable, os.path.abspath(__file__), wanted_path, results, "-", str(first)],
        stdin=quiet,
        stdout=quiet,
        stderr=quiet,
        preexec_fn=os.setsid,
    )
    last, since = first, time.time()
    while process.poll() is None:
        time.sleep(0.02)
        now = done(results)
        if now != last:
            last, since = now, time.time()
        if time.time() - since > seconds:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            return 1, "takes longer than %d s" % seconds
    code = process.returncode
    if code < 0:
        return code, "the process dies of signal %d" % -code
    return code, "the process ends with status %d" % code


if __name__ == "__main__":
    if sys.argv[3] == "-":
        with io.open(sys.argv[1], encoding="utf-8") as given:
            child(json.load(given), sys.argv[2], int(sys.argv[4]))
    else:
        main(sys.argv[1], sys.argv[2], float(sys.argv[3]))
