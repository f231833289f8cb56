"""`python secluded_entry.py ENTRY.json ROOM`: what a command that is run apart sees, as JSON, for test_secluded.py."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from hpcbinder.catalog import parse
from hpcbinder.config import Config
from hpcbinder.model import Entry
from hpcbinder.runtime import Secluded

LOOK = """
import json, os, socket
with socket.create_server(("127.0.0.1", 0)) as server:
    socket.create_connection(server.getsockname()).close()
try:
    socket.create_connection(("192.0.2.1", 9), timeout=1)
    error = "connected"
except OSError as caught:
    error = type(caught).__name__
devices = [line.split(":")[0].strip() for line in open("/proc/net/dev") if ":" in line]
open("/tmp/made", "w").close()
home = os.environ["HOME"]
personal = os.environ.get("TOKEN"), os.listdir("/mnt")
print(json.dumps([os.getuid(), home, os.listdir(home), error, devices, os.listdir("/data"), personal]))
"""


def main(entry_path: str, room_path: str) -> None:
    entry: Entry = parse(Path(entry_path).read_bytes(), Entry, Path(entry_path))
    room = Path(room_path)
    apart = room / "apart"
    apart.mkdir()
    image = Secluded(entry, Config().runtime, apart, network=False)
    (room / "data").mkdir()
    (room / "data/file").touch()
    looked = image.run(["python", "-c", LOOK], seconds=300, binds=[(room / "data", "/data", False)])
    large = "x = bytearray(300 << 20)\nimport time\ntime.sleep(600)"
    memory = image.run(["python", "-c", large], seconds=500, memory=150 << 20)
    left = image.run(["/bin/sh", "-c", "setsid sleep 87654.5 & exit 3"], seconds=300)
    slow = image.run(["/bin/sh", "-c", "while :; do echo flood; done"], seconds=0.5)
    said = looked.said.strip().splitlines()
    print(
        json.dumps(
            {
                "offline": image.offline,
                "note": image.note,
                "saw": json.loads(said[-1]) if said else None,
                "memory": [memory.code, memory.why],
                "left": [left.code, left.why],
                "slow": [slow.code, slow.why, len(slow.said) < 4 << 20],
            }
        )
    )


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
