"""How a squashfs image is written."""

from __future__ import annotations

from dataclasses import dataclass

from hpcbinder.errors import UsageError

LEVELS = {"gzip": (1, 12, 6), "zstd": (1, 22, 3), "xz": (0, 9, 6), "lz4": (1, 12, 1)}
"""Compressor -> lowest, highest, default level. gzip is what every kernel reads (RHEL 8 has no zstd, RHEL 8 and 9 no
lz4); libdeflate's level 6 costs a twelfth of the CPU time of mksquashfs' default (zlib 9) for the same size."""

_LIGHTER = {("gzip", 6): 5}
"""Compressor and level -> the level for files of no common kind (`kinds`), where it is another one.

With everything at 5 libdeflate takes 23 % less time, and images are 0.6 % larger, which is more than `apptainer build`
makes of them. These files, programs and libraries most of them, give a third of that time for a quarter of that size.
"""


@dataclass(frozen=True)
class Options:
    """Parameters that decide an image's bytes; a cache of layers must have all of them in its key.

    Attributes:
        compressor: `gzip`, `zstd`, `xz` or `lz4`.
        level: Compression level, None for the compressor's default (gzip 6 of 1-12, zstd 3 of 1-22, xz 6 of 0-9, lz4 1
            of 1-12).
        block_size: Bytes per data block, a power of two from 4096 to 1048576.

    Raises:
        UsageError: A value is out of range.
    """

    compressor: str = "gzip"
    level: int | None = None
    block_size: int = 131072

    def __post_init__(self) -> None:
        if self.compressor not in LEVELS:
            raise UsageError(f"no squashfs compressor {self.compressor!r}", hint=f"known: {', '.join(sorted(LEVELS))}")
        low, high, _ = LEVELS[self.compressor]
        if self.level is not None and not low <= self.level <= high:
            raise UsageError(f"{self.compressor} has no level {self.level}", hint=f"{low} to {high}")
        if self.block_size & (self.block_size - 1) or not 4096 <= self.block_size <= 1048576:
            raise UsageError(f"block size {self.block_size} is no power of two from 4096 to 1048576")

    @classmethod
    def parse(cls, text: str) -> Options:
        """Read `gzip`, `gzip:9`, `zstd:19`.

        Raises:
            UsageError: It cannot be meant.
        """
        compressor, colon, level = text.partition(":")
        if colon and not (level.isascii() and level.isdigit()):
            raise UsageError(f"no compression {text!r}", hint="such as gzip:6 or zstd:3")
        return cls(compressor, int(level) if colon else None)

    @property
    def effective_level(self) -> int:
        """The level that is used."""
        return LEVELS[self.compressor][2] if self.level is None else self.level

    @property
    def levels(self) -> tuple[int, int]:
        """The level for files of the common kinds (see `kinds`) and for tables, and the one for all other files."""
        level = self.effective_level
        return level, _LIGHTER.get((self.compressor, level), level)

    @property
    def key(self) -> str:
        """All parameters in a word of letters, digits and dashes, for the name of what was written with them."""
        level, other = self.levels
        return f"{self.compressor}{level}{f'-{other}' if other != level else ''}-{self.block_size}"
