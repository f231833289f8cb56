"""The kernel says yes to those who have nobody else."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from hpcbinder.runtime import pretending

PROGRAM = """
import os, subprocess, sys
sys.path.insert(0, sys.argv[1])
from pretending import pretend
pretend()
path = sys.argv[2]
os.chown(path, 12345, 12345)
os.lchown(path, 12345, 12345)
with open(path) as file:
    os.fchown(file.fileno(), 12345, 12345)
subprocess.run(["chown", "12345:12345", path], check=True)
before = os.getresuid(), os.getgroups()
os.setuid(12345)
os.setgroups([12345])
assert (os.getresuid(), os.getgroups()) == before
os.chmod(path, 0o4711)
try:
    os.chmod(path + "-other", 0o600)
except FileNotFoundError:
    print("well")
"""


def test_owners_are_given_away_and_nothing_happens(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    folder = Path(pretending.__file__).parent
    done = subprocess.run([sys.executable, "-I", "-c", PROGRAM, folder, file], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "well\n"), done.stderr
    assert (file.stat().st_uid, file.stat().st_gid) == (tmp_path.stat().st_uid, tmp_path.stat().st_gid)
    assert file.stat().st_mode & 0o7777 == 0o4711
