"""Squashed layers as tars again: what they show on top of others, and that the bytes depend on nothing else."""

from __future__ import annotations

import io
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from profiles import examples
from squashfs_strategies import STACKS
from squashfs_support import MEMORY, Item, directory, in_image, make_tar, squash, union

from hpcbinder.errors import ConvertError
from hpcbinder.squashfs import Options, merge, open_tar


def tar_of(layers: Sequence[Path]) -> bytes:
    with open_tar(layers) as stream:
        return stream.read()


def members(tar: bytes) -> list[tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(tar)) as opened:
        return opened.getmembers()


def names(tar: bytes) -> list[str]:
    return [member.name for member in members(tar)]


def shown(layers: Sequence[Path], out: Path) -> Mapping[str, object]:
    with out.open("w+b") as file:
        merge(layers, file)
    return in_image(out)


@settings(max_examples=examples(80))
@given(STACKS)
def test_a_random_stack_shows_the_same_by_its_tars_one_by_one_and_together(stack: Sequence[Mapping[str, Item]]) -> None:
    with tempfile.TemporaryDirectory(dir=MEMORY) as name:
        folder, options = Path(name), Options(block_size=4096)
        layers = [squash(make_tar(layer), folder / f"{n}.sqfs", options) for n, layer in enumerate(stack)]
        again = [squash(tar_of([layer]), folder / f"{n}-again.sqfs", options) for n, layer in enumerate(layers)]
        assert shown(again, folder / "one-by-one") == union(stack)
        together = squash(tar_of(layers[1:]), folder / "together.sqfs", options) if layers[1:] else None
        assert shown([layers[0], *([together] if together else [])], folder / "together") == union(stack)
        if together is not None:
            assert tar_of([together]) == tar_of(layers[1:])


def test_names_are_sorted_and_what_hides_comes_first(tmp_path: Path) -> None:
    tar = make_tar({"b": Item(), "a/x": Item(), "a/.wh.y": Item(), "a/-": Item(), "a": directory(), "a/.wh.b": Item()})
    layer = squash(tar, tmp_path / "layer")
    assert names(tar_of([layer])) == ["a", "a/.wh.b", "a/.wh.y", "a/-", "a/x", "b"]
    # A directory that the layer has no member for is the one below's.
    assert names(tar_of([squash(make_tar({"d/e": Item()}), tmp_path / "other")])) == ["d/e"]


def test_plain_members_have_no_pax_headers_and_others_do(tmp_path: Path) -> None:
    items = {
        "plain": Item(content=b"1", mode=0o4711, uid=1, gid=2, mtime=3),
        "with": Item(xattrs=(("user.a", b"\0\xff=\n"),)),
        "caf\xe9": Item(),
        "\udcff\udcfe": Item(),
        "n" * 150: Item(),
    }
    found = {member.name: member for member in members(tar_of([squash(make_tar(items), tmp_path / "layer")]))}
    assert found.keys() == items.keys()
    assert {name for name, member in found.items() if member.pax_headers} == items.keys() - {"plain"}
    plain = found["plain"]
    assert (plain.mode, plain.uid, plain.gid, plain.mtime, plain.uname) == (0o4711, 1, 2, 3, "")


def test_hard_links_stay_in_a_layer_and_across_layers_that_become_one(tmp_path: Path) -> None:
    lower = squash(make_tar({"d/a": Item(content=b"same"), "d/b": Item("link", target="d/a")}), tmp_path / "lower")
    upper = squash(make_tar({"d/c": Item("link", target="d/a")}), tmp_path / "upper")

    def kinds(layers: Sequence[Path]) -> dict[str, tuple[bytes, str]]:
        return {member.name: (member.type, member.linkname) for member in members(tar_of(layers))}

    assert kinds([lower]) == {"d/a": (tarfile.REGTYPE, ""), "d/b": (tarfile.LNKTYPE, "d/a")}
    assert kinds([upper]) == {"d/c": (tarfile.LNKTYPE, "d/a")}
    assert kinds([lower, upper]) == {**kinds([lower]), **kinds([upper])}


def test_what_comes_back_in_the_place_of_something_hidden_hides_it_still(tmp_path: Path) -> None:
    """In one tar a whiteout and the folder it stands for would be at odds; an opaque folder says the same."""
    below = squash(make_tar({"d": directory(), "d/old": Item(), "f": Item()}), tmp_path / "below")
    gone = squash(make_tar({".wh.d": Item(), ".wh.f": Item()}), tmp_path / "gone")
    back = squash(make_tar({"d/new": Item(), "f": Item(content=b"new")}), tmp_path / "back")
    tar = tar_of([gone, back])
    assert names(tar) == ["d", "d/.wh..wh..opq", "d/new", "f"]
    both = shown([below, squash(tar, tmp_path / "both")], tmp_path / "out")
    assert both.keys() == {"", "d", "d/new", "f"}


def test_a_damaged_layer_is_an_error_with_its_name(tmp_path: Path) -> None:
    layer = squash(make_tar({"file": Item(content=bytes(range(256)) * 2000)}), tmp_path / "layer")
    with layer.open("r+b") as file:
        file.seek(100)
        file.write(b"\xff" * 64)
    with pytest.raises(ConvertError) as caught:
        tar_of([layer])
    assert caught.value.where == str(layer)
