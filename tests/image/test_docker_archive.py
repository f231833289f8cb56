"""Archives as Docker, podman and skopeo write them, and our own."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import subprocess
import tarfile
from pathlib import Path

import pytest
import zstandard

from hpcbinder.errors import ConvertError
from hpcbinder.image import DockerArchive, write_docker_archive
from rig import Dockerd, RigError, packages


def sha256(raw: bytes) -> str:
    return hashlib.sha256(raw).hexdigest()


def layer(name: str, content: bytes) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        member = tarfile.TarInfo(name)
        member.size = len(content)
        tar.addfile(member, io.BytesIO(content))
    return out.getvalue()


ONE, TWO = layer("one", b"1" * 100_000), layer("two", b"2")
ONE_ID, TWO_ID = f"sha256:{sha256(ONE)}", f"sha256:{sha256(TWO)}"


def config_json(*layers: bytes) -> bytes:
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Cmd": ["sh"]},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{sha256(tar)}" for tar in layers]},
    }
    return json.dumps(config).encode()


def archive(path: Path, files: dict[str, bytes | str]) -> Path:
    """A tar; a text is the target of a symlink."""
    with tarfile.open(path, "w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            if isinstance(content, str):
                member.type, member.linkname = tarfile.SYMTYPE, content
                tar.addfile(member)
            else:
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    return path


def old_form(*layers: bytes, config: bytes | None = None, **changes: object) -> dict[str, bytes | str]:
    config = config_json(*layers) if config is None else config
    names = [f"id{number}/layer.tar" for number in range(len(layers))]
    manifest = [{"Config": f"{sha256(config)}.json", "RepoTags": ["x:1"], "Layers": names, **changes}]
    return {
        **dict(zip(names, layers, strict=True)),
        f"{sha256(config)}.json": config,
        "manifest.json": json.dumps(manifest).encode(),
    }


def layout(*layers: tuple[bytes, bytes], nested: bool = False) -> dict[str, bytes | str]:
    """An OCI layout of (uncompressed, stored) layers, with BuildKit's attestation beside the image."""
    files: dict[str, bytes | str] = {}

    def blob(raw: bytes) -> dict[str, object]:
        files[f"blobs/sha256/{sha256(raw)}"] = raw
        return {"digest": f"sha256:{sha256(raw)}", "size": len(raw)}

    config = blob(config_json(*(plain for plain, _ in layers)))
    media = {"mediaType": "application/vnd.oci.image.layer.v1.tar"}
    manifest = {"schemaVersion": 2, "config": config, "layers": [{**media, **blob(stored)} for _, stored in layers]}
    image = blob(json.dumps(manifest).encode())
    if nested:
        attestation = {**blob(b"{}"), "annotations": {"vnd.docker.reference.type": "attestation-manifest"}}
        image = blob(json.dumps({"manifests": [image, attestation]}).encode())
    files["index.json"] = json.dumps({"manifests": [image]}).encode()
    return files


def contents(image: DockerArchive, *wanted: str) -> dict[str, bytes]:
    return {diff_id: stream.read() for diff_id, stream in image.layers(wanted)}


def test_the_old_form_of_docker_save(tmp_path: Path) -> None:
    image = DockerArchive(archive(tmp_path / "a.tar", old_form(ONE, TWO)))
    assert image.config.cmd == ("sh",)
    assert image.config.diff_ids == (ONE_ID, TWO_ID)
    assert contents(image, ONE_ID, TWO_ID) == {ONE_ID: ONE, TWO_ID: TWO}


def test_only_what_is_wanted_is_handed_out(tmp_path: Path) -> None:
    image = DockerArchive(archive(tmp_path / "a.tar", old_form(ONE, TWO)))
    assert contents(image, TWO_ID) == {TWO_ID: TWO}
    assert contents(image) == {}
    with pytest.raises(ConvertError, match="no layer"):
        contents(image, "sha256:" + "0" * 64)


def test_a_repeated_layer_is_a_link(tmp_path: Path) -> None:
    files = old_form(ONE, TWO, ONE)
    files["id2/layer.tar"] = "../id0/layer.tar"
    image = DockerArchive(archive(tmp_path / "a.tar", files))
    assert image.config.diff_ids == (ONE_ID, TWO_ID, ONE_ID)
    assert contents(image, ONE_ID) == {ONE_ID: ONE}


@pytest.mark.parametrize("compress", [bytes, gzip.compress, zstandard.compress])
@pytest.mark.parametrize("nested", [False, True])
def test_an_oci_layout_with_layers_compressed_or_not(tmp_path: Path, compress, nested: bool) -> None:
    files = layout((ONE, compress(ONE)), (TWO, compress(TWO)), nested=nested)
    image = DockerArchive(archive(tmp_path / "a.tar", files))
    assert contents(image, ONE_ID, TWO_ID) == {ONE_ID: ONE, TWO_ID: TWO}


def test_the_newer_form_has_both(tmp_path: Path) -> None:
    config = config_json(ONE)
    manifest = [{"Config": f"blobs/sha256/{sha256(config)}", "Layers": [f"blobs/sha256/{sha256(ONE)}"]}]
    files = {**layout((ONE, ONE)), "manifest.json": json.dumps(manifest).encode()}
    assert contents(DockerArchive(archive(tmp_path / "a.tar", files)), ONE_ID) == {ONE_ID: ONE}


@pytest.mark.parametrize(
    ("wanted", "found"), [("x:1", ONE_ID), ("y", TWO_ID), ("localhost/y:latest", TWO_ID), ("@0", ONE_ID)]
)
def test_one_of_several_images(tmp_path: Path, wanted: str, found: str) -> None:
    one, two = old_form(ONE), old_form(TWO, RepoTags=["localhost/y:latest"], Layers=["two/layer.tar"])
    listed = [*json.loads(one["manifest.json"]), *json.loads(two["manifest.json"])]
    files = {**one, **two, "two/layer.tar": TWO, "id0/layer.tar": ONE, "manifest.json": json.dumps(listed).encode()}
    path = archive(tmp_path / "a.tar", files)
    assert DockerArchive(path, wanted).config.diff_ids == (found,)
    with pytest.raises(ConvertError, match=r"holds 2 images .*: x:1 \(@0\), localhost/y:latest \(@1\)"):
        DockerArchive(path)
    with pytest.raises(ConvertError, match="holds no image 'z'"):
        DockerArchive(path, "z")


def test_a_stream_is_read_in_small_steps(tmp_path: Path) -> None:
    image = DockerArchive(archive(tmp_path / "a.tar", old_form(ONE)))
    for _, stream in image.layers([ONE_ID]):
        blocks = []
        while block := stream.read(777):
            blocks.append(block)
        assert b"".join(blocks) == ONE


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({}, "holds no image"),
        ({"manifest.json": b"[]"}, "holds 0 images"),
        ({"manifest.json": b"{"}, "no JSON"),
        ({"manifest.json": b"[[]]"}, "lists what is no image"),
        ({"manifest.json": b'[{"Config":["a"]}]'}, "no text"),
        ({"manifest.json": b'[{"Config":"a"},{"Config":"b"}]'}, "holds 2 images"),
        (old_form(ONE, Config="../../etc/passwd"), "does not hold '../../etc/passwd'"),
        (old_form(ONE, Layers=[]), "names 0 layers, its configuration 1"),
        (old_form(ONE, Layers=["gone"]), "does not hold 'gone'"),
        ({**old_form(ONE), "id0/layer.tar": "/etc/passwd"}, "does not hold"),
        ({**old_form(ONE), "id0/layer.tar": "layer.tar"}, "does not hold"),
        (
            {**old_form(ONE), f"{sha256(config_json(ONE))}.json": config_json(TWO)},
            "not the one its digest promises",
        ),
        ({"index.json": b'{"manifests":[{"digest":"sha256:../x","size":1}]}'}, "no SHA-256"),
        ({"index.json": b'{"manifests":[{"digest":"sha256:0"}]}'}, "without a size"),
        ({"index.json": b'{"manifests":[3]}'}, "manifest is damaged"),
        (
            {
                "index.json": json.dumps({"manifests": [{"digest": f"sha256:{sha256(b'a')}", "size": 1}]}).encode(),
                f"blobs/sha256/{sha256(b'a')}": b"b",
            },
            "not what its digest promises",
        ),
    ],
)
def test_a_damaged_archive_is_one_clear_error(tmp_path: Path, files: dict[str, bytes | str], words: str) -> None:
    path = archive(tmp_path / "a.tar", files)
    with pytest.raises(ConvertError, match=words) as caught:
        contents(DockerArchive(path), ONE_ID)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", [tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE])
def test_headers_that_python_gives_up_on_are_one_clear_error(tmp_path: Path, kind: bytes) -> None:
    """A thousand names in a row, for each of which tarfile calls itself; and sizes that no memory has."""
    member = tarfile.TarInfo("././@LongLink")
    member.type = kind
    for size, count in ((0, 1100), (1 << 50, 1), ((1 << 64) - 1, 1)):
        member.size = size
        (tmp_path / "x.tar").write_bytes(member.tobuf(tarfile.GNU_FORMAT) * count)
        with pytest.raises(ConvertError, match="no tar archive, or a damaged one|holds no image"):
            DockerArchive(tmp_path / "x.tar")


def test_an_archive_of_countless_files_is_no_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = old_form(ONE)
    monkeypatch.setattr("hpcbinder.image.archive._MOST_MEMBERS", len(files))
    assert DockerArchive(archive(tmp_path / "a.tar", files)).config
    with pytest.raises(ConvertError, match="has more than .* members"):
        DockerArchive(archive(tmp_path / "b.tar", {"more": b"", **files}))


def test_a_cut_or_foreign_file_is_one_clear_error(tmp_path: Path) -> None:
    path = archive(tmp_path / "a.tar", {"big": b"x" * 50_000, **old_form(ONE)})
    path.write_bytes(path.read_bytes()[:30_000])
    with pytest.raises(ConvertError):
        DockerArchive(path)
    path.write_bytes(b"not a tar at all" * 100)
    with pytest.raises(ConvertError, match="no tar archive"):
        DockerArchive(path)
    with pytest.raises(ConvertError, match="No such file"):
        DockerArchive(tmp_path / "none.tar")


@pytest.mark.parametrize("compress", [gzip.compress, zstandard.compress])
def test_a_damaged_compressed_layer_is_one_clear_error(tmp_path: Path, compress) -> None:
    stored = compress(ONE)
    image = DockerArchive(archive(tmp_path / "a.tar", layout((ONE, stored[:20] + b"\xff" * (len(stored) - 20)))))
    with pytest.raises(ConvertError, match="layer is damaged"):
        contents(image, ONE_ID)


@pytest.fixture(scope="module")
def skopeo() -> None:
    try:
        packages.ensure(["skopeo"])
    except RigError as error:
        pytest.skip(str(error))


class TestWriting:
    def write(self, folder: Path, name: str = "a.tar") -> tuple[Path, str]:
        for file, content in (("one.tar", ONE), ("two.tar", TWO)):
            (folder / file).write_bytes(content)
        layers = [(ONE_ID, folder / "one.tar"), (TWO_ID, folder / "two.tar"), (ONE_ID, folder / "one.tar")]
        config = {"os": "linux", "architecture": "amd64", "config": {"Cmd": ["sh"]}}
        with (folder / name).open("wb") as out:
            return folder / name, write_docker_archive(out, config, layers, "hpcbinder/base:x")

    def test_it_reads_back(self, tmp_path: Path) -> None:
        path, image_id = self.write(tmp_path)
        image = DockerArchive(path)
        assert image.config.digest == image_id
        assert image.config.diff_ids == (ONE_ID, TWO_ID, ONE_ID)
        assert contents(image, ONE_ID, TWO_ID) == {ONE_ID: ONE, TWO_ID: TWO}

    def test_the_same_image_is_the_same_bytes(self, tmp_path: Path) -> None:
        first, _ = self.write(tmp_path)
        second, _ = self.write(tmp_path, "b.tar")
        assert first.read_bytes() == second.read_bytes()

    def test_a_layer_that_is_not_its_diff_id_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "one.tar").write_bytes(ONE)
        with (tmp_path / "a.tar").open("wb") as out, pytest.raises(ConvertError, match="content is"):
            write_docker_archive(out, {}, [(TWO_ID, tmp_path / "one.tar")], None)

    @pytest.mark.rig
    def test_skopeo_takes_it(self, tmp_path: Path, skopeo: None) -> None:
        path, image_id = self.write(tmp_path)
        source = f"docker-archive:{path}"
        raw = subprocess.run(["skopeo", "inspect", "--config", "--raw", source], check=True, capture_output=True).stdout
        assert f"sha256:{sha256(raw)}" == image_id

    @pytest.mark.rig
    def test_it_reads_what_skopeo_writes(self, tmp_path: Path, skopeo: None) -> None:
        path, image_id = self.write(tmp_path)
        target = f"oci-archive:{tmp_path / 'oci.tar'}:x"
        subprocess.run(["skopeo", "copy", "-q", f"docker-archive:{path}", target], check=True)
        image = DockerArchive(tmp_path / "oci.tar")
        assert image.config.diff_ids == (ONE_ID, TWO_ID, ONE_ID)
        assert contents(image, ONE_ID, TWO_ID) == {ONE_ID: ONE, TWO_ID: TWO}

    def test_docker_loads_and_saves_it(self, tmp_path: Path, dockerd: Dockerd) -> None:
        path, image_id = self.write(tmp_path)
        tag = "hpcbinder/base:x"
        docker = ["docker", "--host", dockerd.host]
        subprocess.run([*docker, "load", "-q", "-i", path], check=True, capture_output=True)
        try:
            inspected = subprocess.run([*docker, "image", "inspect", tag], check=True, capture_output=True).stdout
            assert json.loads(inspected)[0]["Id"] == image_id
            saved = tmp_path / "saved.tar"
            subprocess.run([*docker, "save", "-o", saved, tag], check=True, capture_output=True)
        finally:
            subprocess.run([*docker, "rmi", tag], check=True, capture_output=True)
        image = DockerArchive(saved)
        assert image.config.digest == image_id
        assert contents(image, ONE_ID, TWO_ID) == {ONE_ID: ONE, TWO_ID: TWO}
