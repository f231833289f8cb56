"""An image, opened where it is."""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hpcbinder.catalog import Catalog
from hpcbinder.config import Config
from hpcbinder.errors import BuildError, CatalogError, ConvertError, UsageError
from hpcbinder.image import DockerArchive, OciImage, OciLayout, Platform
from hpcbinder.progress import Reporter
from hpcbinder.text import one_line
from hpcbinder.transport.address import Address
from hpcbinder.transport.archives import unpacked
from hpcbinder.transport.squashed import Squashed, squashed_entry, squashed_file

if TYPE_CHECKING:
    from hpcbinder.engine import Engine

# Engines, registries and builders take longer to import than a small image does to convert: only who needs one does it.


@dataclass(frozen=True)
class Opened:
    """An image that can be converted: one of `image` and `squashed` is there.

    Attributes:
        name: What to call its files, `[A-Za-z0-9._-]+`.
        image: Its layers and what it is.
        squashed: It is converted already.
        tars: Of one that is converted already, its layers for what takes tars only, if they are there.
    """

    name: str
    image: OciImage | None = None
    squashed: Squashed | None = None
    tars: OciImage | None = None


def open_source(
    address: Address,
    *,
    config: Config,
    catalog: Catalog,
    scratch: Path,
    reporter: Reporter,
    platform: Platform | None = None,
) -> Opened:
    """Open an image. Its layers stay where they are until they are asked for.

    Args:
        scratch: Folder for what must be copied to be read; to be kept as long as the image is used.
        platform: What the image must be for; None for this machine's, or the only one there is.

    Raises:
        UsageError: The address cannot be meant.
        ConvertError: There is no such image, or it is damaged.
        BuildError: No engine holds it.
        RegistryError: The registry does not give it.
        CatalogError: No such image in the catalog.
    """
    opened = _open(address, config, catalog, scratch, reporter, platform)
    architecture = (opened.image or opened.squashed or _nothing()).config.architecture
    if platform is not None and architecture not in ("", platform.architecture):
        raise ConvertError(f"the image is for {one_line(architecture, 40)}, not for {platform}", where=str(address))
    return opened


def _open(
    address: Address,
    config: Config,
    catalog: Catalog,
    scratch: Path,
    reporter: Reporter,
    platform: Platform | None,
) -> Opened:
    transport, location, path = address.transport, address.location, Path(address.location)
    if transport == "docker-daemon":
        return Opened(_reference_name(location), image=_docker(location, config, scratch, reporter))
    if transport == "containers-storage":
        return Opened(_reference_name(location), image=_containers(location, config, scratch, reporter))
    if transport == "docker":
        from hpcbinder.registry import Registry, parse_reference

        registry = Registry(config.site, config.registry, reporter=reporter)
        image = registry.pull(parse_reference(location), platform or Platform.here(), scratch)
        return Opened(_reference_name(location), image=image)
    if transport == "oci":
        return Opened(_file_name(path.resolve(), address.name), image=OciLayout(path, address.name, platform))
    if transport:
        archive = unpacked(path, scratch, reporter)
        image_of = DockerArchive(archive, address.name, platform, oci=transport == "oci-archive", where=str(path))
        return Opened(_file_name(path, address.name), image=image_of)
    if _is_there(path):
        return Opened(_file_name(path, None), squashed=squashed_file(path))
    return _entry(location, catalog, config, reporter)


def _is_there(path: Path) -> bool:
    try:
        return path.exists()
    except OSError as error:
        raise ConvertError(f"cannot be read: {error.strerror}", where=one_line(str(path), 200)) from error


def _nothing() -> Squashed:
    raise AssertionError("an opened image is one of two")


def _entry(location: str, catalog: Catalog, config: Config, reporter: Reporter) -> Opened:
    if "/" in location:
        hint = (
            None if location.startswith(("/", ".")) else f"an image of a registry is docker://{one_line(location, 120)}"
        )
        raise UsageError("there is no such file", where=one_line(location, 200), hint=hint)
    try:
        entry = catalog.get(location)
    except CatalogError as error:
        raise CatalogError(
            f"there is no file {one_line(location, 120)!r}, and {error.message}",
            hint=error.hint or f"an image of a registry is docker://{one_line(location, 120)}",
        ) from None
    from hpcbinder.builders import assembled_image

    tars = assembled_image(entry, catalog, config, reporter)
    return Opened(entry.id, squashed=squashed_entry(entry), tars=tars)


def _docker(name: str, config: Config, scratch: Path, reporter: Reporter) -> OciImage:
    from hpcbinder.engine import engines_named

    return _held("docker", "Docker", list(engines_named("docker", config, reporter)), name, scratch)


def _containers(name: str, config: Config, scratch: Path, reporter: Reporter) -> OciImage:
    there = [program for program in ("podman", "buildah") if shutil.which(program)]
    if not there:
        raise BuildError("neither podman nor buildah is installed, which know where containers-storage is")
    from hpcbinder.engine import engines_named

    engines = [engine for program in there for engine in engines_named(program, config, reporter)]
    return _held("podman", " or ".join(there), engines, name, scratch)


def _held(program: str, what: str, engines: list[Engine], name: str, scratch: Path) -> OciImage:
    """The image that one of several engines has."""
    refused: list[BuildError] = []
    for engine in engines:
        try:
            image = engine.image(name, scratch=scratch)
        except BuildError as error:
            refused.append(error)
            continue
        if image is not None:
            return image
    if len(refused) == len(engines):
        raise refused[-1]
    raise ConvertError(
        f"{what} has no image {one_line(name, 120)!r}",
        hint=f"{program} images lists what there is; docker://{one_line(name, 120)} is the one of a registry",
    )


def _reference_name(reference: str) -> str:
    """`tool_1.2` for `ghcr.io/org/tool:1.2`, as `apptainer pull` calls it; `tool_0123456789ab` for a digest."""
    rest, _, digest = reference.partition("@")
    path, _, tag = rest.rpartition(":") if ":" in rest.rpartition("/")[2] else (rest, "", "")
    if digest:
        tag = digest.partition(":")[2][:12]
    elif path == "sha256":  # an engine's id of it
        path, tag = "image", tag[:12]
    return _name(f"{path.rpartition('/')[2]}_{tag or 'latest'}")


def _file_name(path: Path, name: str | None) -> str:
    """Of the image's name in a file, if one was given, or else of the file."""
    if name and not name.startswith(("@", "sha256:")):
        return _reference_name(name) if re.search(r"[:/]", name) else _name(f"{_stem(path)}_{name}")
    return _name(_stem(path))


def _stem(path: Path) -> str:
    name = path.name
    for suffix in (".gz", ".tgz", ".zst", ".tar", ".sif", ".squashfs", ".sqfs", ".sqsh"):
        name = name.removesuffix(suffix)
    return name


def _name(text: str) -> str:
    """`text` with what cannot be in the name of a file of ours left out."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).lstrip("._-")[:200] or "image"
