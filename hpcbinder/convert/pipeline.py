"""From an image's layers to the files that runtimes take: squash what is new, merge, put a header in front.

And from one of these files to others (`rewrap`): then nothing is squashed or merged any more.
"""

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
from hpcbinder.convert.inside import read_metadata
from hpcbinder.convert.layers import LayerCache
from hpcbinder.convert.merged import Merged
from hpcbinder.convert.metadata import Metadata, describe, metadata_tar
from hpcbinder.convert.stack import Stack
from hpcbinder.errors import ConvertError, UsageError
from hpcbinder.image import OciImage
from hpcbinder.model import ImageConfig
from hpcbinder.progress import Reporter
from hpcbinder.squashfs import Image, Options, WriteError, write_layer
from hpcbinder.text import one_line

FORMATS = tuple(WRITERS)
"""The formats there are."""

_PADDING = 4096
"""What images are padded to (mksquashfs' own default); kernels want whole pages of a loop device."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")


@dataclass(frozen=True)
class Converted:
    """What came out. The paths hold until the caller moves the folder.

    Attributes:
        formats: Format -> absolute path of the file a runtime is given (Shifter's: the squashfs; `.meta` is beside it).
        size: Bytes of the squashfs, whichever files it is in; 0 if `oci` alone was asked for, which has none.
        squashfs: A file that holds the squashfs, if there is one.
        offset: Where in that file it begins, bytes.
        layers: How many different layers the image has; 0 where none was looked at.
        new_layers: How many of them had to be squashed.
    """

    formats: dict[str, Path]
    size: int
    squashfs: Path
    offset: int
    layers: int = 0
    new_layers: int = 0

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
    jobs: int | None = None,
    layers: Sequence[Path] | None = None,
    sbom: bytes | None = None,
    scratch: Path | None = None,
    keep_times: bool = False,
    tars: OciImage | None = None,
) -> Converted:
    """Turn an image into the formats that runtimes take. The same image and arguments give the same bytes.

    And so do images of one plan, whichever engine built them and when: what engines do each in their own way (empty
    folders they mounted things at, the times of folders they made) is not taken over.

    Args:
        image: Its layers are asked for only where `layers_dir` lacks them.
        layers_dir: Squashed layers, shared by all images and processes.
        folder: Existing folder for the results.
        name: The files' name, `[A-Za-z0-9._-]+`.
        labels: Added to the image's own, and winning over them.
        timestamp: Unix time (s) of all that is added to the image, and of the SIF.
        formats: Of `FORMATS`.
        options: How layers are compressed.
        reporter: Hears of phase `convert`.
        origin: What the definition file says the image was made from; the image's digest if None.
        jobs: Threads that compress, None for one per usable core.
        layers: Squashed layers, the lowest first, instead of the image's own, which are then not asked for.
        tars: With `layers`, the same image for what takes tars only; None if it has none but the whole squashfs.
        sbom: What is in the image, as CycloneDX JSON; made from what is found in it if None.
        scratch: Folder on the file system of `layers_dir` for layers that are not finished; `folder` is one if None.
        keep_times: Folders keep the times their layers give them; else those of the build's get `timestamp`.

    Raises:
        UsageError: A format or name that cannot be meant.
        ConvertError: The image is not what it claims to be, or a file cannot be written. `folder` is as it was before.
    """
    _check(name, formats)
    with _writing(folder), tempfile.TemporaryDirectory(prefix=".convert-", dir=folder) as temporary:
        here = Path(temporary)
        new = 0
        whole = image if layers is None else tars
        if whole is not None and set(formats) == {"oci"}:
            return _copied(whole, name, labels, timestamp, origin, here, folder, reporter)
        if layers is None:
            cache = LayerCache(layers_dir, options, jobs)
            layers = cache.ensure(image, scratch or here, reporter)
            new = cache.squashed
        metadata = describe(image.config, labels, origin or image.config.digest)
        for path, names in metadata.lost.items():
            reporter.log("convert", f"left out of {path}, which cannot hold their values: {', '.join(names)}")
        top = _metadata_layer(metadata, layers, timestamp, here, options)
        job = Job(
            config=image.config,
            metadata=metadata,
            merged=Merged([*layers, top], None if keep_times else (EPOCH, max(timestamp, EPOCH))),
            name=name,
            timestamp=timestamp,
            reporter=reporter,
            image=whole,
            sbom=sbom,
        )
        finished = _write(job, formats, here, folder)
        file, offset, size = job.merged.where
        place = folder.absolute() / file.relative_to(here)
        return Converted(finished, size, place, offset, len(set(image.config.diff_ids)), new)


def _copied(
    image: OciImage,
    name: str,
    labels: Mapping[str, str],
    timestamp: int,
    origin: str | None,
    here: Path,
    folder: Path,
    reporter: Reporter,
) -> Converted:
    """An image that only gets another place: nothing of it is squashed."""
    metadata = describe(image.config, labels, origin or image.config.digest)
    job = Job(image.config, metadata, Merged((), None), name, timestamp, reporter, image)
    finished = _write(job, ("oci",), here, folder)
    return Converted(finished, 0, finished["oci"], 0)


def rewrap(
    squashfs: Path,
    *,
    offset: int,
    config: ImageConfig,
    folder: Path,
    name: str,
    labels: Mapping[str, str],
    timestamp: int,
    formats: Sequence[str],
    reporter: Reporter,
    sbom: bytes | None = None,
    may_link: bool = False,
    tars: OciImage | None = None,
) -> Converted:
    """Turn an image that is converted already into other formats: its squashfs is copied as it is.

    What the runtimes are told comes from the image itself, so that of an image of ours the same bytes come out as
    from `convert`.

    Args:
        squashfs: A file that holds it; of it and its tables only what is needed is read.
        offset: Where in that file it begins, bytes.
        config: What the image is.
        folder: Existing folder for the results.
        name: The files' name, `[A-Za-z0-9._-]+`.
        labels: Added to the image's own, and winning over them, where they stand outside the squashfs.
        timestamp: Unix time (s) of a SIF.
        formats: Of `FORMATS`.
        reporter: Hears of phase `convert`.
        sbom: What is in the image, as CycloneDX JSON.
        may_link: Results may be other names of the file `squashfs`; else they are copies.
        tars: The same image for what takes tars only; None if that is to be the whole squashfs.

    Raises:
        UsageError: A format or name that cannot be meant.
        ConvertError: It is no squashfs, damaged, or a file cannot be written. `folder` is as it was before.
    """
    _check(name, formats)
    with _writing(folder), tempfile.TemporaryDirectory(prefix=".convert-", dir=folder) as temporary:
        here = Path(temporary)
        with Image.open(squashfs, offset=offset) as image:
            size = min(-(-image.info().bytes_used // _PADDING) * _PADDING, squashfs.stat().st_size - offset)
            metadata = read_metadata(image, config, labels)
        job = Job(
            config=config,
            metadata=metadata,
            merged=Merged.existing(squashfs, offset, size, may_link=may_link),
            name=name,
            timestamp=timestamp,
            reporter=reporter,
            image=tars,
            sbom=sbom,
        )
        return Converted(_write(job, formats, here, folder), size, squashfs, offset)


def _write(job: Job, formats: Sequence[str], here: Path, folder: Path) -> dict[str, Path]:
    """Write the formats in `here` and move them to `folder`."""
    made = {}
    for form in FORMATS:
        if form in formats:
            job.reporter.phase("convert", f"writing {form}")
            made[form] = WRITERS[form](job, here)
    return {form: [_move(path, here, folder) for path in paths][0] for form, paths in made.items()}


def check_name(name: str) -> None:
    """Make sure that an image's files can be called so.

    Raises:
        UsageError: They cannot.
    """
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"{name[:100]!r} cannot be the name of an image's files", hint="letters, digits, dots, dashes, underscores"
        )


def _check(name: str, formats: Sequence[str]) -> None:
    check_name(name)
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
        tar = metadata_tar(metadata, timestamp, stack)
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
    except WriteError as error:
        raise ConvertError(error.message, where=str(folder)) from error
    except OSError as error:
        where = one_line(str(error.filename)) if error.filename is not None else str(folder)
        raise ConvertError(f"the image cannot be written: {error.strerror or error}", where=where) from error
