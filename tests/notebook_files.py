"""Notebooks made for tests."""

from __future__ import annotations

import json
from typing import Any


def cell(source: str, *, saved: str = "", said: str = "", tags: tuple[str, ...] = ()) -> dict[str, Any]:
    """A code cell; `saved` is the name of the error in its outputs, `said` what it printed."""
    error = {"output_type": "error", "ename": saved, "evalue": "as it was", "traceback": []}
    return {
        "cell_type": "code",
        "execution_count": None,
        "metadata": {"tags": list(tags)} if tags else {},
        "outputs": [
            *([{"output_type": "stream", "name": "stdout", "text": said}] if said else []),
            *([error] if saved else []),
        ],
        "source": source,
    }


def notebook(*cells: str | dict[str, Any], kernel: str = "python3", language: str = "python", **metadata: Any) -> bytes:
    """The file of a notebook of version 4."""
    spec = {"name": kernel, "language": language, "display_name": kernel}
    made = [one if isinstance(one, dict) else cell(one) for one in cells]
    data = {"nbformat": 4, "nbformat_minor": 2, "metadata": {"kernelspec": spec, **metadata}, "cells": made}
    return json.dumps(data).encode()
