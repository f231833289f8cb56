"""One layer's tar into one squashfs image, once: what `merge` makes whole images from."""

from __future__ import annotations

import os
from pathlib import Path
from typing import BinaryIO

from hpcbinder.errors import ConvertError
from hpcbinder.process import usable_cores
from hpcbinder.squashfs import compressors, emit, notes, tar
from hpcbinder.squashfs.blocks import DataWriter
from hpcbinder.squashfs.ingest import TreeBuilder
from hpcbinder.squashfs.kinds import kind
from hpcbinder.squashfs.memory import keep_freed, no_cycles
from hpcbinder.squashfs.options import Options
from hpcbinder.squashfs.output import WriteError, finish_image, replacing
from hpcbinder.squashfs.stream import HashedStream
from hpcbinder.squashfs.tree import File


def write_layer(stream: BinaryIO, out: Path, options: Options, *, jobs: int | None = None) -> str:
    """Squash a layer.

    `.wh.` names stay as ordinary entries. The bytes depend on the tar, the options and the compressor's version, not on
    `jobs`. `out` appears complete or not at all. Of extended attributes `user.*` stay (see `xattrs.kept`).

    Args:
        stream: The layer's uncompressed tar; read to its very end.
        out: File to make or replace.
        options: How to write it.
        jobs: Threads that compress, None for one per usable core.

    Returns:
        The layer's DiffID: `sha256:<hex>` of all bytes of `stream` (OCI image spec, config.md).

    Raises:
        ConvertError: The tar is damaged or has what no image can hold, or `out` cannot be written.
    """
    keep_freed()
    hashed = HashedStream(stream)
    try:
        with replacing(out) as file, no_cycles():
            _write(tar.TarReader(hashed), file, options, jobs or usable_cores())
            return hashed.digest()
    finally:
        hashed.close()


def _write(members: tar.TarReader, file: int, options: Options, jobs: int) -> None:
    level, other = options.levels
    compressor = compressors.by_name(options.compressor, level)
    lighter = compressors.by_name(options.compressor, other)
    builder = TreeBuilder()
    start = emit.begin(file, 0, compressor)
    with DataWriter(file, start, options.block_size, compressor, jobs, lighter) as writer:
        for member in members:
            try:
                builder.add(member, writer.add(member.size, members.view, members.pass_hole, kind(member.name)))
            except WriteError:
                raise
            except ConvertError as error:
                raise ConvertError(f"tar member {tar.quoted(member.name)}: {error.message}", hint=error.hint) from None
        links = builder.finish()
        _note(builder, writer, notes.LINKS, notes.pack_links(links))
        _note(builder, writer, notes.TAILS, notes.pack_tails(writer.tails))
        fragments, end = writer.finish()
    metadata, block = emit.assemble(builder.root, fragments, compressor, options.block_size, end)
    # A file that turned out to be another's twin may have been written and taken back behind this end.
    os.ftruncate(file, finish_image(file, 0, metadata, block))


def _note(builder: TreeBuilder, writer: DataWriter, name: bytes, content: bytes) -> None:
    if content:
        builder.root.entries[name] = File(0o644, 0, 0, 0, len(content), writer.add_note(content))
