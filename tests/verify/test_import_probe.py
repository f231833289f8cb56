"""The program that tries imports inside of an image, run as it is by this machine's Python."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from hpcbinder.verify import inside

PROBE = str(Path(inside.__file__).with_name("probe.py"))
MODULES = {
    "works": "value = 1\n",
    "killed": "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)\n",
    "leaves": "import os\nos._exit(0)\n",
    "exits": "raise SystemExit(3)\n",
    "fails": "raise RuntimeError('one\\ntwo')\n",
    "needs": "import nothing_of_that_name\n",
    "whole/__init__": "",
    "whole/part": "import nothing_of_that_name\n",
    "draws": "import os\nassert os.environ['MPLBACKEND'] == 'Agg'\n",
    "chatty": "import sys\nsys.stdout.write('x' * 1000000)\nsys.stdout.flush()\n",
}
WANTED = [
    *(["works", ""], ["works", "value"], ["works", "gone"], ["killed", ""], ["leaves", ""], ["killed", "again"]),
    *(
        ["exits", ""],
        ["fails", ""],
        ["needs", ""],
        ["chatty", ""],
        ["os", "path"],
        ["email", "mime"],
        ["nowhere.x", ""],
        ["whole", "part"],
        ["draws", ""],
    ),
]


def test_each_import_is_tried_whatever_the_others_do(tmp_path: Path) -> None:
    for name, text in MODULES.items():
        (tmp_path / f"{name}.py").parent.mkdir(exist_ok=True)
        (tmp_path / f"{name}.py").write_text(text)
    (tmp_path / "wanted.json").write_text(json.dumps(WANTED))
    command = [sys.executable, PROBE, "wanted.json", "results", "300"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=280)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    lines = [json.loads(line) for line in (tmp_path / "results").read_text().splitlines()]
    assert [number for number, _, _ in lines] == list(range(len(WANTED)))
    assert [(name, message) for _, name, message in lines] == [
        ("", ""),
        ("", ""),
        ("ImportError", "cannot import name 'gone' from 'works'"),
        ("Crash", "the process dies of signal 9"),
        ("Crash", "the process ends with status 0"),
        ("Crash", "the process dies of signal 9"),
        ("SystemExit", "it ends the process"),
        ("RuntimeError", "one two"),
        ("ModuleNotFoundError", "No module named 'nothing_of_that_name'"),
        ("", ""),
        ("", ""),
        ("", ""),
        ("ModuleNotFoundError", "No module named 'nowhere'"),
        ("ModuleNotFoundError", "No module named 'nothing_of_that_name'"),
        ("", ""),
    ]
