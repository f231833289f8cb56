"""``python -m tests.rig up|down|status [--purge] [PART...]``"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import time

from . import Rig, RigError


def main() -> int:
    """Do what the command line says; the exit status."""
    rig = Rig()
    parser = argparse.ArgumentParser(prog="python -m tests.rig", description="engines and runtimes for tests and demo")
    parser.add_argument("verb", choices=("up", "down", "status"))
    parser.add_argument(
        "parts", nargs="*", metavar="part", help=f"of {', '.join(rig.parts)}; all of them if none is named"
    )
    parser.add_argument("--purge", action="store_true", help="down: remove caches too")
    arguments = parser.parse_args()
    unknown = set(arguments.parts) - set(rig.parts)
    if unknown:
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    if arguments.verb == "status":
        for name in arguments.parts or rig.parts:
            part = rig.parts[name]
            print(f"{name:<14}{'up' if part.up else 'down':<6}{part.where}")
        return 0
    if os.geteuid() != 0 and shutil.which("sudo"):
        keep = [f"{name}={value}" for name, value in os.environ.items() if name.startswith("HPCBINDER_RIG")]
        command = ["sudo", *keep, sys.executable, "-B", "-m", "tests.rig", *sys.argv[1:]]
        os.execvp(command[0], command)
    begin = time.monotonic()
    try:
        if arguments.verb == "up":
            rig.up(arguments.parts)
        else:
            rig.down(arguments.parts, purge=arguments.purge)
    except RigError as error:
        print(f"rig: {error}", file=sys.stderr)
        return 1
    print(f"rig {arguments.verb}: {' '.join(arguments.parts or rig.parts)} ({time.monotonic() - begin:.1f} s)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
