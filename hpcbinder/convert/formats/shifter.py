"""Shifter's image store: `<id>.squashfs` and beside it `<id>.meta`, which says how to run it.

The meta file is read by NERSC/shifter `src/ImageData.c` and `src/utility.c` (shifter_parseConfig, split_json_array):
lines `KEY: value`; blanks around a value are dropped; a `\\` at its end joins the next line; lists are in Python's
notation with single quotes, which have no escape.
"""

from __future__ import annotations

import re
from pathlib import Path

from hpcbinder.convert.environment import image_environment
from hpcbinder.convert.files import make_folder, new_file
from hpcbinder.convert.formats.job import Job
from hpcbinder.convert.metadata import RUNSCRIPT
from hpcbinder.image import check_digest
from hpcbinder.model import ImageConfig

_VOLUME = re.compile(r"/[A-Za-z0-9_:.+/-]*")
"""Characters that Shifter itself leaves in a volume's path (_ImageData_filterString)."""


def write_shifter(job: Job, folder: Path) -> list[Path]:
    """`shifter/ID.squashfs` and `.meta`.

    Readable by all, other than in Shifter's own store (0600): there root mounts it, here also the person may.
    """
    store = folder / "shifter"
    make_folder(store)
    image = store / f"{image_id(job.config)}.squashfs"
    job.merged.whole_file(image)
    text, lost = meta_file(job.config)
    if lost:
        job.reporter.log("convert", f"left out of Shifter's .meta, which cannot hold their values: {', '.join(lost)}")
    meta = image.with_suffix(".meta")
    with new_file(meta, 0o644) as out:
        out.write(text.encode())
    return [image, meta]


def image_id(config: ImageConfig) -> str:
    """The name of the image's two files, for `shifter --image=id:…`: the hex digits of the configuration's digest."""
    return check_digest(config.digest).removeprefix("sha256:")


def meta_file(config: ImageConfig) -> tuple[str, tuple[str, ...]]:
    """The text of the `.meta` file, and the names of variables it cannot carry.

    A command whose words cannot be written is replaced by the image's runscript, which runs the same.
    """
    lines, lost = ["FORMAT: squashfs"], []
    if all(_is_word(word) for word in (*config.entrypoint, *config.cmd)):
        if config.entrypoint:
            lines.append(f"ENTRY: {_list(config.entrypoint)}")
        if config.cmd:
            lines.append(f"CMD: {_list(config.cmd)}")
    else:
        lines.append(f"ENTRY: {_list((RUNSCRIPT,))}")
    if config.workdir.startswith("/") and _is_value(config.workdir):
        lines.append(f"WORKDIR: {config.workdir}")
    for name, value in image_environment(config.env).items():
        if _is_value(value):
            lines.append(f"ENV: {name}={value}")
        else:
            lost.append(name)
    lines += [f"VOLUME: {volume}" for volume in config.volumes if _VOLUME.fullmatch(volume)]
    return "\n".join([*lines, ""]), tuple(lost)


def _is_value(text: str) -> bool:
    return "\n" not in text and not text.rstrip(_BLANKS).endswith("\\") and text == text.rstrip(_BLANKS)


_BLANKS = " \t\n\v\f\r"
"""What C's isspace() takes for one."""


def _is_word(word: str) -> bool:
    return "'" not in word and "\n" not in word


def _list(words: tuple[str, ...]) -> str:
    return "[" + ", ".join(f"'{word}'" for word in words) + "]"
