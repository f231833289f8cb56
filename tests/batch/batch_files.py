"""The repository of the image of these tests."""

from __future__ import annotations

import json
from typing import Any


def cell(source: str, *tags: str) -> dict[str, Any]:
    return {
        "cell_type": "code",
        "execution_count": None,
        "metadata": {"tags": list(tags)},
        "outputs": [],
        "source": source,
    }


def notebook(*cells: dict[str, Any]) -> bytes:
    spec = {"name": "python3", "language": "python", "display_name": "Python"}
    return json.dumps(
        {"nbformat": 4, "nbformat_minor": 2, "metadata": {"kernelspec": spec}, "cells": list(cells)}
    ).encode()


FIT = notebook(
    cell("alpha = 0.5\ntitle = 'none'", "parameters"),
    cell("import os, socket\nfrom near import NEAR\nprint([alpha, title, NEAR, socket.gethostname(), os.getcwd()])"),
    cell("print(open('../data/numbers.csv').read())\nopen('made.txt', 'w').write(title)"),
    cell("if alpha == 3:\n    raise ValueError('<b>alpha</b> of 3')"),
)
"""Fails for an alpha of 3; writes into its folder."""

SLOW = notebook(
    cell("seconds = 0", "parameters"),
    cell("first = 'kept'\nprint(first)"),
    cell("import time\ntime.sleep(seconds)"),
)

TAGGED = notebook(cell("1/0", "raises-exception"), cell("print('went on')"))

DIES = notebook(cell("print('kept')"), cell("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)"))

REPOSITORY = {
    "fits/fit.ipynb": FIT,
    "fits/near.py": b"NEAR = 'near'\n",
    "data/numbers.csv": b"one,two\n",
    "dies.ipynb": DIES,
    "slow.ipynb": SLOW,
    "tagged.ipynb": TAGGED,
}
