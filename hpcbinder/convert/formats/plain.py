"""The formats that are the squashfs and nothing else; what their runtimes want to know is inside it."""

from __future__ import annotations

from pathlib import Path

from hpcbinder.convert.formats.job import Job, Writer


def plain(suffix: str) -> Writer:
    """A writer of `NAME` + `suffix`."""

    def write(job: Job, folder: Path) -> list[Path]:
        path = folder / f"{job.name}{suffix}"
        job.merged.whole_file(path)
        return [path]

    return write
