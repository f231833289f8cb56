"""What a registered kernel's folder holds."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from hpcbinder.model import Entry, Kernel
from hpcbinder.register import logo
from hpcbinder.text import one_line

_PACKAGE = "hpcbinder_launch"
"""The launcher's name beside a kernelspec: never `hpcbinder`, which may be importable too, in another version."""

_START = f'''"""Starts the kernel described in launch.json. Made by hpcbinder; `hpcbinder unregister` removes it."""

import sys
from pathlib import Path

here = Path(__file__).resolve().parent
sys.path.insert(0, str(here))

from {_PACKAGE}.main import main

sys.exit(main(here, sys.argv[1:]))
'''


def display_name(entry: Entry, kernel: Kernel) -> str:
    """`ligo-binder (8c1f0a2): Python 3`: repository, commit, what the image calls the kernel."""
    name = entry.id.rpartition("-")[0] or entry.id
    version = entry.commit[:7] if entry.commit else "folder" if entry.uncommitted else entry.ref[:24]
    if entry.commit and entry.uncommitted:
        version += " with changes"
    # ipykernel's own addition tells kernels of one environment apart; here the repository does.
    return one_line(f"{name} ({version}): {kernel.display_name.removesuffix(' (ipykernel)')}", 200)


def kernel_files(entry: Entry, kernel: Kernel, description: Mapping[str, Any], folder: Path) -> dict[str, bytes]:
    """Every file of a kernelspec: path below its folder -> content.

    Args:
        entry: The image.
        kernel: The kernel in it.
        description: How the image is run here (`hpcbinder.runtime.describe`).
        folder: Where the kernelspec will lie.
    """
    package = resources.files("hpcbinder.runtime.launch")
    files = {f"{_PACKAGE}/{item.name}": item.read_bytes() for item in package.iterdir() if item.name.endswith(".py")}
    files["launch.py"] = _START.encode()
    files["launch.json"] = _json({**description, "argv": list(kernel.argv), "env": dict(kernel.env)})
    files["logo-svg.svg"] = logo.svg()
    for size in (32, 64):
        files[f"logo-{size}x{size}.png"] = logo.png(size)
    files["kernel.json"] = _json(_spec(entry, kernel, folder))
    return files


def _spec(entry: Entry, kernel: Kernel, folder: Path) -> dict[str, Any]:
    return {
        # The absolute path, not {resource_dir}: not every front end knows that word. -I: nothing of the person's
        # environment or folder is imported; -S: nor anything installed.
        "argv": [_python(), "-I", "-S", str(folder / "launch.py"), "{connection_file}"],
        "display_name": display_name(entry, kernel),
        "language": kernel.language,
        "interrupt_mode": kernel.interrupt_mode,
        "metadata": {
            **kernel.metadata,
            "hpcbinder": {
                "id": entry.id,
                "kernel": kernel.name,
                "source": entry.source,
                "ref": entry.ref,
                "commit": entry.commit,
                "subdir": entry.subdir,
            },
        },
    }


def _python() -> str:
    """The interpreter below a virtual environment, so that a kernel outlives hpcbinder's own environment."""
    base: str = getattr(sys, "_base_executable", "") or sys.executable
    return base if Path(base).is_file() else sys.executable


def _json(value: Mapping[str, Any]) -> bytes:
    return (json.dumps(value, indent=1, ensure_ascii=True) + "\n").encode()
