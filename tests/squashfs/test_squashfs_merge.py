"""Layers merged: what a stack shows, and that a merge moves blocks and nothing else."""

from __future__ import annotations

import io
import random
import struct
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from profiles import examples
from squashfs_strategies import STACKS
from squashfs_support import MEMORY, Item, directory, in_image, make_tar, merged, squash, union

from hpcbinder.errors import ConvertError
from hpcbinder.squashfs import Image, Options, merge, notes, tables_digest


def names(path: Path) -> list[str]:
    with Image.open(path) as image:
        return [name for name, _ in image.walk()]


@settings(max_examples=examples(300))
@given(STACKS)
def test_a_random_stack_shows_what_the_layer_specification_says(stack: Sequence[Mapping[str, Item]]) -> None:
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        image = merged([make_tar(layer) for layer in stack], Path(folder), Options(block_size=4096))
        assert in_image(image) == union(stack)


def test_a_whiteout_removes_and_the_same_layer_may_make_anew(tmp_path: Path) -> None:
    lower = make_tar({"d/old": Item(content=b"old"), "d/kept": Item(content=b"kept"), "gone": Item()})
    upper = make_tar({"d/old": Item(content=b"new"), "d/.wh.old": Item(), ".wh.gone": Item()})
    image = merged([lower, upper], tmp_path)
    assert names(image) == ["", "d", "d/kept", "d/old"]
    assert in_image(image)["d/old"].content == b"new"


def test_an_opaque_directory_shows_only_its_own_layer_wherever_the_mark_stands(tmp_path: Path) -> None:
    lower = make_tar({"d/one": Item(), "d/sub/two": Item()})
    upper = make_tar({"d": directory(), "d/three": Item(), "d/.wh..wh..opq": Item()})
    assert names(merged([lower, upper], tmp_path)) == ["", "d", "d/three"]


def test_whiteouts_of_the_lowest_layer_hide_nothing_and_do_not_show(tmp_path: Path) -> None:
    image = merged([make_tar({"d/.wh.x": Item(), "d/x": Item(), ".wh..wh..opq": Item()})], tmp_path)
    assert names(image) == ["", "d", "d/x"]


def test_a_file_takes_a_directorys_place_and_the_other_way_round(tmp_path: Path) -> None:
    lower = make_tar({"was-dir/x": Item(), "was-file": Item(content=b"1")})
    upper = make_tar({"was-dir": Item(content=b"2"), "was-file": directory(), "was-file/.wh.y": Item()})
    seen = in_image(merged([lower, upper], tmp_path))
    assert {name: its.kind for name, its in seen.items() if name} == {"was-dir": "file", "was-file": "directory"}


def test_a_directory_a_layer_only_implies_keeps_its_mode_and_owner(tmp_path: Path) -> None:
    lower = make_tar({"tmp": directory(0o1777, uid=7, mtime=5)})
    image = merged([lower, make_tar({"tmp/x": Item()})], tmp_path)
    with Image.open(image) as opened:
        node = opened.lookup("tmp")
        assert node is not None and (node.mode, node.uid, node.mtime) == (0o1777, 7, 5)


def test_a_root_without_a_member_keeps_what_a_lower_layer_said(tmp_path: Path) -> None:
    image = merged([make_tar({"./": directory(0o711, mtime=9)}), make_tar({"x": Item()})], tmp_path)
    with Image.open(image) as opened:
        root = opened.lookup("/")
        assert root is not None and (root.mode, root.mtime) == (0o711, 9)


def test_directories_of_the_build_get_one_time_and_nothing_else_does(tmp_path: Path) -> None:
    layers = [
        squash(
            make_tar(
                {
                    "new": directory(mtime=9),
                    "new/file": Item(mtime=9),
                    "fixed": directory(mtime=4),
                    "old": directory(mtime=3),
                }
            ),
            tmp_path / "l",
        )
    ]
    out = tmp_path / "out"
    with out.open("w+b") as file:
        merge(layers, file, dated=(4, 5))
    with Image.open(out) as opened:
        assert {path: node.mtime for path, node in opened.walk() if path} == {
            "new": 5,
            "new/file": 9,
            "fixed": 5,
            "old": 3,
        }
    assert tables_digest(out) != tables_digest(layers[0])


def test_all_can_belong_to_root(tmp_path: Path) -> None:
    tar = make_tar({"d": directory(uid=5, gid=6), "d/file": Item(uid=7, gid=8, mode=0o2755)})
    layer = squash(tar, tmp_path / "layer")
    with (tmp_path / "image").open("w+b") as out:
        merge([layer], out, rooted=True)
    with Image.open(tmp_path / "image") as image:
        assert {(node.uid, node.gid) for _, node in image.walk()} == {(0, 0)}
        assert dict(image.walk())["d/file"].mode == 0o2755


def test_a_hard_link_is_broken_when_one_of_its_names_is_copied_up(tmp_path: Path) -> None:
    lower = make_tar({"a": Item(content=b"same"), "b": Item("link", target="a"), "c": Item("link", target="a")})
    seen = in_image(merged([lower, make_tar({"b": Item(content=b"own")})], tmp_path))
    assert seen["a"].names == {"a", "c"} and seen["b"].content == b"own"


def test_a_hard_link_may_lead_into_a_layer_below(tmp_path: Path) -> None:
    lower = make_tar({"d/a": Item(content=b"below", mode=0o4755)})
    chain = {"x/two": Item("link", target="x/one"), "x/one": Item("link", target="d/a")}
    seen = in_image(merged([lower, make_tar(chain)], tmp_path))
    assert seen["d/a"].names == {"d/a", "x/one", "x/two"} and seen["x/one"].content == b"below"


def test_a_hard_link_that_moves_a_file_finds_it_before_its_whiteout(tmp_path: Path) -> None:
    lower = make_tar({"old": Item(content=b"moved")})
    upper = make_tar({"new": Item("link", target="old"), ".wh.old": Item()})
    seen = in_image(merged([lower, upper], tmp_path))
    assert "old" not in seen and seen["new"].content == b"moved"


def test_a_whiteout_may_be_a_hard_link(tmp_path: Path) -> None:
    """As AUFS wrote them, to a file that is in no layer."""
    lower = make_tar({"a": Item(), "b": Item()})
    image = merged([lower, make_tar({".wh.a": Item("link", target=".wh..wh.aufs")})], tmp_path)
    assert names(image) == ["", "b"]


def test_a_hard_link_that_leads_nowhere_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConvertError, match="'x' leads to 'nowhere'"):
        merged([make_tar({"x": Item("link", target="nowhere")})], tmp_path)


@pytest.mark.parametrize("compressor", ["gzip", "zstd"])
def test_the_same_layers_give_the_same_bytes_at_any_offset(tmp_path: Path, compressor: str) -> None:
    tar = make_tar({f"f{n}": Item(content=bytes([n]) * n * 1000) for n in range(50)})
    layer = squash(tar, tmp_path / "layer", Options(compressor))
    results = []
    for offset in (0, 36864):
        buffer = (tmp_path / f"at{offset}").open("w+b")
        with buffer:
            buffer.write(b"h" * offset)
            size = merge([layer, layer], buffer, offset=offset)
            assert buffer.tell() == offset + size
        data = (tmp_path / f"at{offset}").read_bytes()
        assert data[:offset] == b"h" * offset and size == len(data) - offset and size % 4096 == 0
        results.append(data[offset:])
        assert in_image(tmp_path / f"at{offset}", offset)["f7"].content == bytes([7]) * 7000
    assert results[0] == results[1]


def test_data_of_hidden_files_are_left_behind(tmp_path: Path) -> None:
    noise = b"".join(n.to_bytes(4, "little") for n in range(300_000))
    lower = make_tar({"big": Item(content=noise), "small": Item(content=b"x")})
    image = merged([lower, make_tar({".wh.big": Item()})], tmp_path)
    assert image.stat().st_size == 4096


class TestWhatLayersHaveInCommon:
    """Stored once, and nothing is shared that is not the same."""

    NOISE = random.Random(1).randbytes(300_000)

    def test_blocks_and_tails_are_there_once(self, tmp_path: Path) -> None:
        files = {f"{n}": Item(content=self.NOISE[n : n + 90_000]) for n in range(8)}
        files["large"] = Item(content=self.NOISE)
        alone = merged([make_tar(files)], tmp_path).stat().st_size
        again = {f"other/{name}": Item(content=its.content, mode=0o600, mtime=3) for name, its in files.items()}
        lower, upper = make_tar(files), make_tar({**again, "new": Item(content=b"new")})
        both = merged([lower, upper], tmp_path)
        # The last tail's block has the new file's in it and is kept.
        assert both.stat().st_size < alone + 100_000
        assert in_image(both) == union([files, {**again, "new": Item(content=b"new")}])

    def test_what_the_upper_layer_takes_away_below_stays_above(self, tmp_path: Path) -> None:
        lower = {"a": Item(content=self.NOISE), "t": Item(content=b"tail")}
        upper = {"b": Item(content=self.NOISE), "u": Item(content=b"tail"), ".wh.a": Item(), ".wh.t": Item()}
        assert in_image(merged([make_tar(lower), make_tar(upper)], tmp_path)) == union([lower, upper])

    def test_files_whose_blocks_only_look_alike_stay_apart(self, tmp_path: Path) -> None:
        # Noise is stored as it is, so that the sizes of all blocks agree.
        other = self.NOISE[:-1] + bytes([self.NOISE[-1] ^ 1])
        lower = {"a": Item(content=self.NOISE), "t": Item(content=b"tail")}
        upper = {"b": Item(content=other), "u": Item(content=b"TAIL")}
        image = merged([make_tar(lower), make_tar(upper)], tmp_path)
        assert in_image(image) == union([lower, upper])
        assert image.stat().st_size > 600_000

    def test_layers_of_older_versions_have_no_note(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        lower = {"a": Item(content=self.NOISE), "t": Item(content=self.NOISE[:90_000])}
        upper = {"b": Item(content=self.NOISE), "u": Item(content=self.NOISE[:90_000])}
        with monkeypatch.context() as patch:
            patch.setattr(notes, "pack_tails", lambda tails: b"")
            old = squash(make_tar(lower), tmp_path / "old")
        layers = [old, squash(make_tar(upper), tmp_path / "new")]
        with (tmp_path / "merged").open("w+b") as out:
            merge(layers, out)
        assert in_image(tmp_path / "merged") == union([lower, upper])
        assert 480_000 < (tmp_path / "merged").stat().st_size < 500_000

    def test_a_note_that_says_nonsense_is_named(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(notes, "pack_tails", lambda tails: b"x" * 41)
        layer = squash(make_tar({"a": Item(content=b"1")}), tmp_path / "layer")
        with pytest.raises(ConvertError, match="list of tails"), (tmp_path / "merged").open("w+b") as out:
            merge([layer], out)

    def test_a_note_that_lies_breaks_no_image(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(
            notes, "pack_tails", lambda tails: struct.pack("<8I", 0, 0, 0, 1, 9, 9, 1 << 31, 5) + bytes(32) * 4
        )
        layers = [
            squash(make_tar({f"{n}": Item(content=b"1"), f"x{n}": Item(content=b"2" * (n + 1))}), tmp_path / f"{n}")
            for n in range(3)
        ]
        with (tmp_path / "merged").open("w+b") as out:
            merge(layers, out)
        assert {name: len(its.content) for name, its in in_image(tmp_path / "merged").items() if "x" in name} == {
            "x0": 1, "x1": 2, "x2": 3
        }  # fmt: skip

    def test_the_name_is_reserved(self, tmp_path: Path) -> None:
        with pytest.raises(ConvertError, match="reserved"):
            squash(make_tar({"d/.wh..wh.tails": Item()}), tmp_path / "layer")


def test_layers_that_do_not_fit_together_are_refused(tmp_path: Path) -> None:
    tar = make_tar({"x": Item()})
    first = squash(tar, tmp_path / "first")
    for n, options in enumerate([Options("zstd"), Options(block_size=4096)]):
        other = squash(tar, tmp_path / f"other{n}", options)
        with (
            pytest.raises(ConvertError, match="the first layer has 131072 in gzip"),
            io.FileIO(tmp_path / "o", "w+") as out,
        ):
            merge([first, other], io.BufferedRandom(out))
    with pytest.raises(ConvertError, match="no layers"), (tmp_path / "o").open("w+b") as out:
        merge([], out)
