"""From an image's layers to the files that runtimes take: squash what is new, merge, put a header in front."""

from __future__ import annotations

import io
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from hpcbinder.contract import EPOCH
from hpcbinder.convert.files import make_folder
from hpcbinder.convert.formats import WRITERS, Job
from hpcbinder.convert.layers import LayerCache
from hpcbinder.convert.merged import Merged
from hpcbinder.convert.metadata import Metadata, describe, metadata_tar
from hpcbinder.convert.stack import Stack
from hpcbinder.errors import ConvertError, UsageError
from hpcbinder.image import OciImage
from hpcbinder.progress import Reporter
from hpcbinder.squashfs import Image, Options, write_layer
from hpcbinder.text import one_line

FORMATS = tuple(WRITERS)
"""The formats there are."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")


@dataclass(frozen=True)
class Converted:
    """What came out. The paths hold until the caller moves the folder.

    Attributes:
        formats: Format -> absolute path of the file a runtime is given (Shifter's: the squashfs; `.meta` is beside it).
        size: Bytes of the squashfs, whichever files it is in.
        squashfs: A file that holds the squashfs.
        offset: Where in that file it begins, bytes.
    """

    formats: dict[str, Path]
    size: int
    squashfs: Path
    offset: int

    def open(self) -> Image:
        """The image's files, to look into; a context manager."""
        return Image.open(self.squashfs, offset=self.offset)


def convert(
    image: OciImage,
    *,
    layers_dir: Path,
    folder: Path,
    name: str,
    labels: Mapping[str, str],
    timestamp: int,
    formats: Sequence[str],
    options: Options,
    reporter: Reporter,
    origin: str | None = None,
) -> Converted:
    """Turn an image into the formats that runtimes take. The same image and arguments give the same bytes.

    And so do images of one plan, whichever engine built them and when: what engines do each in their own way (empty
    folders they mounted things at, the times of folders they made) is not taken over.

    Args:
        image: Its layers are asked for only where `layers_dir` lacks them.
        layers_dir: Squashed layers, shared by all images and processes.
        folder: Existing folder for the results, on the same file system.
        name: The files' name, `[A-Za-z0-9._-]+`.
        labels: Added to the image's own, and winning over them.
        timestamp: Unix time (s) of all that is added to the image, and of the SIF.
        formats: Of `FORMATS`.
        options: How layers are compressed.
        reporter: Hears of phase `convert`.
        origin: What the definition file says the image was made from; the image's digest if None.

    Raises:
        UsageError: A format or name that cannot be meant.
        ConvertError: The image is not what it claims to be, or a file cannot be written. `folder` is as it was before.
    """
    _check(name, formats)
    with _writing(folder), tempfile.TemporaryDirectory(prefix=".convert-", dir=folder) as temporary:
        scratch = Path(temporary)
        layers = LayerCache(layers_dir, options).ensure(image, scratch, reporter)
        metadata = describe(image.config, labels, origin or image.config.digest)
        if metadata.lost:
            lost = ", ".join(metadata.lost)
            reporter.log("convert", f"left out of /ch/environment, which cannot hold line ends: {lost}")
        top = _metadata_layer(metadata, layers, timestamp, scratch, options)
        job = Job(
            config=image.config,
            metadata=metadata,
            merged=Merged([*layers, top], max(timestamp, EPOCH)),
            name=name,
            timestamp=timestamp,
            reporter=reporter,
        )
        made = {}
        for form in FORMATS:
            if form in formats:
                reporter.phase("convert", f"writing {form}")
                made[form] = WRITERS[form](job, scratch)
        finished = {form: [_move(path, scratch, folder) for path in paths][0] for form, paths in made.items()}
        file, offset, size = job.merged.where
        return Converted(finished, size, folder.absolute() / file.relative_to(scratch), offset)


def _check(name: str, formats: Sequence[str]) -> None:
    if not _NAME.fullmatch(name):
        raise UsageError(f"{name[:100]!r} cannot be the name of an image's files")
    for form in formats:
        if form not in FORMATS:
            raise UsageError(f"no format {form[:100]!r}", hint=f"known: {', '.join(sorted(FORMATS))}")
    if not formats:
        raise UsageError("no format to convert to", hint=f"known: {', '.join(sorted(FORMATS))}")


def _metadata_layer(
    metadata: Metadata, layers: Sequence[Path], timestamp: int, scratch: Path, options: Options
) -> Path:
    with ExitStack() as files:
        stack = Stack([files.enter_context(Image.open(path)) for path in layers])
        tar = metadata_tar(metadata, timestamp, stack.kind)
    path = scratch / "metadata.layer"
    write_layer(io.BytesIO(tar), path, options)
    return path


def _move(path: Path, scratch: Path, folder: Path) -> Path:
    target = folder.absolute() / path.relative_to(scratch)
    make_folder(target.parent)
    path.replace(target)
    return target


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    """Turn a full disk or a closed folder into one clear line."""
    try:
        yield
    except OSError as error:
        where = one_line(str(error.filename)) if error.filename is not None else str(folder)
        raise ConvertError(f"the image cannot be written: {error.strerror or error}", where=where) from error
