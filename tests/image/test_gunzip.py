"""Layers in gzip, with the library that is fast and with the one that is always there."""

from __future__ import annotations

import gzip
import io
import random
import sys

import pytest

from hpcbinder.errors import ConvertError
from hpcbinder.image.compression import uncompressed

CONTENT = random.Random(1).randbytes(300_000) + bytes(3_000_000)


@pytest.fixture(params=["isal", "zlib"])
def library(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "zlib":
        monkeypatch.setitem(sys.modules, "isal", None)
    else:
        pytest.importorskip("isal")


def unpack(packed: bytes) -> bytes:
    with uncompressed(io.BytesIO(packed), "image") as stream:  # type: ignore[arg-type]
        return stream.read()


def test_one_member_or_several_are_one_stream(library: None) -> None:
    packed = gzip.compress(CONTENT)
    assert unpack(packed) == CONTENT
    # As pigz and estargz write them.
    assert unpack(packed + gzip.compress(b"more") + gzip.compress(b"")) == CONTENT + b"more"
    assert unpack(packed + bytes(512)) == CONTENT


def test_damage_is_one_clear_error(library: None) -> None:
    packed = gzip.compress(CONTENT)
    flipped = packed[:1000] + bytes([packed[1000] ^ 255]) + packed[1001:]
    wrong_sum = packed[:-8] + bytes(4) + packed[-4:]
    for damaged in (packed[:-9], packed[:200_000], flipped, wrong_sum, packed + b"noise"):
        with pytest.raises(ConvertError, match="a compressed layer is damaged"):
            unpack(damaged)
