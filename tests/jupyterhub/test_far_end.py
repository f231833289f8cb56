"""The far end of a connection that breaks while a server is started. What is between two machines is left out here;
test_openssh.py has it."""

from __future__ import annotations

import secrets
import subprocess
import sys
from pathlib import Path

from waiting import eventually

WATCH = """
import os, sys
from pathlib import Path
from hpcbinder.jupyterhub import remote
folder, word = Path(sys.argv[1]), sys.argv[2]
read_end, write_end = os.pipe()
os.close(read_end)
remote._watch(["/bin/sh", "-c", "sleep 1000; exit", word], None, folder, folder, 0o022, write_end)
"""


def running(word: str) -> bool:
    lines = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            lines.append((process / "cmdline").read_bytes())
        except OSError:
            continue
    return any(word.encode() in line for line in lines)


def test_a_server_that_nobody_is_told_of_is_ended(tmp_path: Path) -> None:
    (tmp_path / "files").mkdir()
    word = secrets.token_hex(16)
    watcher = subprocess.Popen([sys.executable, "-c", WATCH, str(tmp_path), word], start_new_session=True)
    watcher.wait(60)
    assert eventually(lambda: not running(word))
    assert not (tmp_path / "files").exists()
    assert (tmp_path / "ended").read_text() == "-15"
