"""What an ELF file (elf(5)) needs of the system it runs on, and where it looks for its libraries."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO

if TYPE_CHECKING:
    from elftools.elf.elffile import ELFFile

MACHINES = {"EM_X86_64": "amd64", "EM_AARCH64": "arm64", "EM_PPC64": "ppc64le"}
"""ELF's name -> OCI name."""

_GLIBC = re.compile(r"GLIBC_(\d+)\.(\d+)(?:\.\d+)?\Z")


class NotReadable(Exception):
    """A file that begins like an ELF file and is none that can be read."""


@dataclass(frozen=True)
class Binary:
    """A program or shared library.

    Attributes:
        architecture: OCI name; "" for one that no base is made for.
        loader: What a program names to load it (`/lib64/ld-linux-x86-64.so.2`), "" for a library.
        needed: Names of the libraries it is linked with.
        glibc: Newest version of the GNU C library that it takes a symbol from; (0, 0) for none.
    """

    architecture: str
    loader: str
    needed: tuple[str, ...]
    glibc: tuple[int, int]


def is_elf(head: bytes) -> bool:
    """Whether a file that begins so is an ELF file."""
    return head[:4] == b"\x7fELF"


def read_binary(file: BinaryIO) -> Binary:
    """Read what a program or library needs.

    Raises:
        NotReadable: It is damaged.
    """
    with _explained():
        elf = _open(file)
        segments: Iterator[Any] = elf.iter_segments("PT_INTERP")
        loaders = [segment.get_interp_name() for segment in segments]
        versions = [(0, 0)]
        section: Any = elf.get_section_by_name(".gnu.version_r")
        for _, names in section.iter_versions() if section else ():
            versions += [(int(m[1]), int(m[2])) for name in names if (m := _GLIBC.match(name.name))]
        return Binary(
            architecture=MACHINES.get(elf["e_machine"], ""),
            loader=loaders[0] if loaders else "",
            needed=tuple(tag.needed for tag in _tags(elf) if tag.entry.d_tag == "DT_NEEDED"),
            glibc=max(versions),
        )


def relocated(content: bytes, *, folder: str, prefixes: Sequence[str]) -> bytes:
    """The file looking for its libraries beside itself, and nowhere outside its own tree.

    A path that was fixed when it was built would be looked at first in an image too, and what a runtime binds there
    could be anything. What has no room for the new path in place of the old one looks where the system does.

    Args:
        content: An ELF file.
        folder: Where it lies below the tree's root, `lib/python3.12/lib-dynload`.
        prefixes: Absolute paths by which the tree's root is known to it.

    Raises:
        NotReadable: It is damaged.
    """
    with _explained():
        elf = _open(io.BytesIO(content))
        changed = bytearray(content)
        for tag in _tags(elf):
            if tag.entry.d_tag not in ("DT_RPATH", "DT_RUNPATH"):
                continue
            old: str = getattr(tag, tag.entry.d_tag[3:].lower())
            new = ":".join(_beside(old.split(":"), folder, prefixes))
            if new == old or _shared(elf, tag.entry.d_val, len(old)):
                continue
            if len(new) > len(old):
                new = ""
            start = _strings(elf)["sh_offset"] + tag.entry.d_val
            changed[start : start + len(old)] = new.encode().ljust(len(old), b"\0")
        return bytes(changed)


def _beside(paths: Sequence[str], folder: str, prefixes: Sequence[str]) -> Iterator[str]:
    for path in paths:
        if path.startswith(("$ORIGIN", "${ORIGIN}")):
            yield path
            continue
        for prefix in prefixes:
            if path == prefix or path.startswith(f"{prefix}/"):
                below = os.path.relpath(path.removeprefix(prefix).lstrip("/") or ".", folder or ".")
                yield f"$ORIGIN/{below}"
                break


def _shared(elf: ELFFile, start: int, length: int) -> bool:
    """Whether another name lies in that of a path: linkers keep a name that ends another one only once."""
    names = [tag.entry.d_val for tag in _tags(elf) if tag.entry.d_tag in ("DT_NEEDED", "DT_SONAME")]
    symbols: Any = elf.get_section_by_name(".dynsym")
    names += [symbol.entry.st_name for symbol in symbols.iter_symbols()] if symbols else []
    for kind, name in ((".gnu.version_r", "vna_name"), (".gnu.version_d", "vda_name")):
        section: Any = elf.get_section_by_name(kind)
        names += [item.entry[name] for _, items in (section.iter_versions() if section else ()) for item in items]
    return any(start <= name < start + length for name in names)


def _open(file: BinaryIO) -> ELFFile:
    from elftools.elf.elffile import ELFFile

    return ELFFile(file)


def _tags(elf: ELFFile) -> Iterator[Any]:
    section: Any = elf.get_section_by_name(".dynamic")
    return iter(section.iter_tags() if section else ())


def _strings(elf: ELFFile) -> Any:
    section: Any = elf.get_section_by_name(".dynamic")
    return elf.get_section(section["sh_link"])


class _explained:
    """Whatever a damaged file makes the library raise becomes one error."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        if error is not None and isinstance(error, Exception):
            raise NotReadable(str(error) or type(error).__name__) from error
