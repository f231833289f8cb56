"""Run in a build in which apt failed: says which packages the release does not have, and what is near to their names.

What it says is read again by hpcbinder (hpcbinder/builders/asked.py), which knows the line of apt.txt.
"""

from __future__ import annotations

import difflib
import sys
from pathlib import Path

_TOLD = 20

folder = Path(sys.argv[1])
names = sorted(set((folder / "names").read_text().split()))
versions: dict[str, list[str]] = {}
for line in (folder / "versions").read_text().splitlines():
    parts = [part.strip() for part in line.split("|")]
    if len(parts) == 3 and parts[1] not in versions.setdefault(parts[0], []):
        versions[parts[0]].append(parts[1])
said: list[str] = []
for word in Path(sys.argv[2]).read_text().split():
    if len(said) == _TOLD:
        break  # to look for names takes time
    name, _, version = word.partition("=")
    there = versions.get(name, [])
    if not there:
        close = difflib.get_close_matches(name, [other for other in names if other != name], n=3, cutoff=0.75)
        said.append(f"no package '{name}' (near to it: {', '.join(close) or 'nothing'})")
    elif version and not any(
        other.startswith(version[:-1]) if version.endswith("*") else other == version for other in there
    ):
        said.append(f"no version {version} of '{name}' (it has {', '.join(there[:3])})")
if said:
    print(f"hpcbinder: Debian has {'; '.join(said)}")
