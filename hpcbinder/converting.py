"""From an image, wherever it is, to files for runtimes: `hpcbinder convert`. No catalog entry, no kernel."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from hpcbinder.catalog import Catalog
from hpcbinder.config import Config
from hpcbinder.convert import FORMATS, Converted, check_name, convert, rewrap
from hpcbinder.errors import ConvertError, UsageError
from hpcbinder.image import OciImage, Platform, dump_config
from hpcbinder.model import Entry, ImageConfig
from hpcbinder.placing import Target, unfinished
from hpcbinder.progress import Clock, Reporter
from hpcbinder.runtime import Compression, Key, Signer, choose_compression
from hpcbinder.text import one_line
from hpcbinder.transport import Address, Squashed, is_squashed, open_source, parse_source, squashed_entry

_TIME = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.\d+)?(Z|[+-]\d\d:\d\d)")
_LAYERS = {"name": "gzip", "why": "an OCI layout has the image's layers as tars, which registries have in gzip"}
_LATEST = (1 << 32) - 1
"""What squashfs and SIF of ours have room for, Unix time (s)."""


@dataclass(frozen=True)
class Wish:
    """What a person asked for.

    Attributes:
        source: An image, as `parse_source` reads it.
        formats: Of `convert.FORMATS`, each once.
        output: File or folder for the results, see `placing.Target.of`; None is the working directory.
        name: The files' name; None for one made of the source's.
        force: Replace what is there already.
        jobs: Threads that compress, None for one per usable core.
        platform: What the image must be for; None for this machine's, or the only one there is.
        sbom: Bill of materials for the SIF, as `convert` takes it; None to make it, or leave the one that is there.
        sign_key: Signs the SIF.
    """

    source: str
    formats: tuple[str, ...]
    output: str | None = None
    name: str | None = None
    force: bool = False
    jobs: int | None = None
    platform: Platform | None = None
    sbom: bytes | None = None
    sign_key: Key | None = None


@dataclass(frozen=True)
class Product:
    """One format.

    Attributes:
        path: The file or folder that a runtime is given, absolute.
        size: Its bytes; of a folder those of its files.
    """

    path: Path
    size: int


@dataclass(frozen=True)
class Conversion:
    """What was made.

    Attributes:
        source: Where the image came from.
        name: The files' name.
        products: Format -> what was made.
        size: Bytes of the squashfs.
        layers: How many different layers the image has; 0 if it was converted already.
        new_layers: How many of them were not squashed before.
        compression: With what, and why with that.
        timings: Seconds to `open` the image, and to `convert` it.
    """

    source: Address
    name: str
    products: dict[str, Product]
    size: int
    layers: int
    new_layers: int
    compression: dict[str, str]
    timings: dict[str, float]


def convert_source(wish: Wish, config: Config, catalog: Catalog, reporter: Reporter) -> Conversion:
    """Convert an image. The same image and formats give the same bytes, wherever it came from.

    Args:
        config: `build.compression` says how layers are compressed.
        catalog: Its store keeps squashed layers; its images can be converted by their ids.

    Raises:
        HpcbinderError: Of the part that failed. Nothing half-written is left.
    """
    address = parse_source(wish.source)
    _check_formats(wish.formats)
    signer = _signer(wish, config)
    if wish.name is not None:
        check_name(wish.name)
    clock = Clock()
    with catalog.temporary() as scratch:
        with clock("open"):
            opened = open_source(
                address, config=config, catalog=catalog, scratch=scratch, reporter=reporter, platform=wish.platform
            )
        name = wish.name or opened.name
        target = _target(wish, name)
        with clock("convert"), unfinished(target.folder) as work:
            if opened.image is not None:
                chosen = choose_compression(config.build.compression, config, formats=wish.formats)
                compression = _LAYERS if wish.formats == ("oci",) else chosen.record()
                converted = _from_layers(opened.image, chosen, wish, name, work, scratch, catalog, reporter)
            else:
                assert opened.squashed is not None
                compression = _as_it_is(opened.squashed, config)
                converted = _from_squashfs(opened.squashed, opened.tars, wish, name, work, reporter)
            if signer is not None and wish.sign_key is not None:
                reporter.phase("convert", f"{name}: signing with {wish.sign_key.path}")
                signer.sign(converted.formats["sif"], wish.sign_key)
            paths = target.put(work, converted.formats, force=wish.force)
    if "shifter" in paths and config.shifter.gateway is not None:
        from hpcbinder.register import import_into_gateway

        import_into_gateway(paths["shifter"], f"{name.lower()}:latest", config, reporter)
    return Conversion(
        source=address,
        name=name,
        products={form: Product(path, _size(path)) for form, path in paths.items()},
        size=converted.size,
        layers=converted.layers,
        new_layers=converted.new_layers,
        compression=compression,
        timings=clock.timings,
    )


def can_add(entry: Entry, formats: Sequence[str]) -> bool:
    """Whether `add_formats` can make these. An OCI layout has an image's layers, which only who built it has."""
    return is_squashed(entry) and "oci" not in formats


def add_formats(entry: Entry, formats: Sequence[str], catalog: Catalog, scratch: Path, reporter: Reporter) -> Entry:
    """Make an image of the catalog also be there in other formats, out of the files it has.

    Args:
        formats: Of `convert.FORMATS` without those it has, if `can_add` them.
        scratch: Folder on the store's file system.

    Returns:
        The entry that has taken its place; a site's image then is also in the writable store.

    Raises:
        ConvertError: Its files are damaged, or others cannot be written.
        CatalogError: It has no file, or the store cannot be written.
    """
    old = catalog.folder(entry)
    folder = scratch / "image"
    try:
        squashed = squashed_entry(entry)
        shutil.copytree(old, folder, symlinks=True, copy_function=_link)
        made = rewrap(
            folder / squashed.path.relative_to(old),
            offset=squashed.offset,
            config=squashed.config,
            folder=folder,
            name=entry.id,
            labels=squashed.labels,
            timestamp=squashed.timestamp,
            formats=formats,
            reporter=reporter,
            sbom=squashed.sbom,
            may_link=True,
        )
    except (OSError, shutil.Error) as error:
        raise ConvertError("the image's files cannot be copied", where=str(old)) from error
    except ConvertError as error:
        error.hint = error.hint or "--rebuild makes the image anew"
        raise
    kept = {form: str(folder / Path(path).relative_to(old)) for form, path in entry.formats.items()}
    new = {form: str(path) for form, path in made.formats.items()}
    return catalog.add(replace(entry, formats={**kept, **new}), folder)


def _link(source: str, target: str) -> str:
    """Another name of a file, or a copy of it where there cannot be one (a site's store is elsewhere)."""
    try:
        os.link(source, target, follow_symlinks=False)
        return target
    except OSError:
        return shutil.copy2(source, target)


def _from_layers(
    image: OciImage,
    compression: Compression,
    wish: Wish,
    name: str,
    work: Path,
    scratch: Path,
    catalog: Catalog,
    reporter: Reporter,
) -> Converted:
    if wish.formats != ("oci",):
        reporter.phase("convert", f"{name}: compressing with {compression.name}: {compression.why}")
    return convert(
        image,
        layers_dir=catalog.layers_dir,
        folder=work,
        name=name,
        labels={},
        timestamp=_created(image.config),
        formats=wish.formats,
        options=compression.options,
        reporter=reporter,
        origin=_identity(image.config),
        jobs=wish.jobs,
        scratch=scratch,
        sbom=wish.sbom,
        keep_times=True,
    )


def _from_squashfs(
    squashed: Squashed, tars: OciImage | None, wish: Wish, name: str, work: Path, reporter: Reporter
) -> Converted:
    return rewrap(
        squashed.path,
        offset=squashed.offset,
        config=squashed.config,
        folder=work,
        name=name,
        labels=squashed.labels,
        timestamp=squashed.timestamp,
        formats=wish.formats,
        reporter=reporter,
        sbom=squashed.sbom if wish.sbom is None else wish.sbom,
        tars=tars,
    )


def _as_it_is(squashed: Squashed, config: Config) -> dict[str, str]:
    """With what an image is compressed that is converted already, and why.

    Raises:
        UsageError: Another compressor was asked for on the command line.
    """
    wanted, asked = config.build.compression.partition(":")[0], config.origins.get("build.compression") == "flag"
    if asked and wanted not in ("auto", squashed.compressor):
        raise UsageError(
            f"the image is converted already, with {squashed.compressor}; its blocks are only copied",
            hint="convert the image it was made from",
        )
    return {"name": squashed.compressor, "why": "as it was: the blocks of an image converted already are copied"}


def _target(wish: Wish, name: str) -> Target:
    try:
        target = Target.of(wish.output, name, wish.formats)
        target.check(force=wish.force)
    except OSError as error:  # a name too long, a folder that is closed to us
        raise ConvertError(f"cannot be written: {error.strerror}", where=one_line(wish.output or ".", 200)) from error
    return target


def _check_formats(formats: Sequence[str]) -> None:
    for form in formats:
        if form not in FORMATS:
            raise UsageError(f"no format {form[:100]!r}", hint=f"known: {', '.join(FORMATS)}")
    if not formats:
        raise UsageError("no format to convert to", hint=f"known: {', '.join(FORMATS)}")


def _signer(wish: Wish, config: Config) -> Signer | None:
    """What signs, found before there is anything to be signed.

    Raises:
        UsageError: A key or a bill of materials is given, and no SIF that takes it is made.
        RunError: Nothing is here that signs.
    """
    if "sif" not in wish.formats and (wish.sign_key is not None or wish.sbom):
        what = "signed" if wish.sign_key is not None else "given a bill of materials"
        raise UsageError(f"only a SIF can be {what}", hint="add sif to --to")
    return None if wish.sign_key is None else Signer.find(config.runtime)


def _created(config: ImageConfig) -> int:
    """When the image was made, Unix time (s); 0 if it does not say, or by a time that no file can have."""
    match = _TIME.fullmatch(config.created)
    if match is None:
        return 0
    try:
        seconds = int(datetime.fromisoformat(match[1] + match[2].replace("Z", "+00:00")).timestamp())
    except (ValueError, OverflowError):
        return 0
    return seconds if 0 <= seconds <= _LATEST else 0


def _identity(config: ImageConfig) -> str:
    """A digest that an image has wherever it is: engines, layouts and registries write its configuration each in their
    own way, and so call it differently."""
    return f"sha256:{hashlib.sha256(dump_config(replace(config, digest=''))).hexdigest()}"


def _size(path: Path) -> int:
    if path.is_dir():
        return sum(file.lstat().st_size for file in path.rglob("*") if file.is_file() and not file.is_symlink())
    return path.stat().st_size
