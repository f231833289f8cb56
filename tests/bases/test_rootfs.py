"""From a root file system's tar to a layer that is the same each time."""

from __future__ import annotations

import io
import tarfile

import pytest

from hpcbinder.bases.rootfs import Layer, tidy


def rootfs(*members: tuple[str, bytes | str | None, dict[str, object]]) -> io.BytesIO:
    """A tar of (path, content | link target | None for a folder, other fields)."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for path, content, fields in members:
            member = tarfile.TarInfo(f".{path}")
            member.type = tarfile.DIRTYPE if content is None else tarfile.REGTYPE
            member.mode, member.mtime = 0o755, 2_000_000_000.5
            if isinstance(content, str):
                member.type, member.linkname = tarfile.SYMTYPE, content
            for name, value in fields.items():
                setattr(member, name, value)
            data = content if isinstance(content, bytes) else b""
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    out.seek(0)
    return out


def tidied(source: io.BytesIO, **arguments: object) -> tuple[Layer, dict[str, tarfile.TarInfo], tarfile.TarFile]:
    out = io.BytesIO()
    folders, files = arguments.get("folders", {}), arguments.get("files", {})
    layer = tidy(source, out, folders=folders, files=files, newest=1000)  # type: ignore[arg-type]
    out.seek(0)
    tar = tarfile.open(fileobj=out)  # noqa: SIM115
    return layer, {member.name: member for member in tar}, tar


@pytest.mark.parametrize(
    "path",
    [
        "/dev/null",
        "/run/lock",
        "/tmp/x",
        "/etc/machine-id",
        "/etc/passwd-",
        "/etc/apt/apt.conf.d/99mmdebstrap",
        "/var/lib/apt/lists/deb.debian.org_debian_dists_bookworm_InRelease",
        "/var/cache/apt/archives/x.deb",
        "/var/log/dpkg.log",
        "/var/log/apt/history.log",
    ],
)
def test_what_is_the_machines_own_is_left_out(path: str) -> None:
    _, members, _ = tidied(rootfs((path, b"x", {}), ("/usr/bin/true", b"x", {})))
    assert list(members) == ["usr/bin/true"]


def test_what_dpkg_and_apt_need_stays() -> None:
    paths = ["/var/lib/dpkg/status", "/var/lib/apt/lists/partial", "/var/log/apt", "/etc/passwd"]
    _, members, _ = tidied(rootfs(*((path, b"x", {}) for path in paths)))
    assert [f"/{name}" for name in members] == paths


def test_times_names_and_extended_attributes() -> None:
    fields: dict[str, object] = {"uname": "me", "gname": "us", "uid": 42, "pax_headers": {"SCHILY.xattr.user.x": "1"}}
    _, members, _ = tidied(rootfs(("/a", b"x", fields), ("/b", b"x", {"mtime": 5.75})))
    assert (members["a"].mtime, members["a"].uid, members["a"].uname, members["a"].pax_headers) == (1000, 42, "", {})
    assert members["b"].mtime == 5


def test_links() -> None:
    source = rootfs(
        ("/usr/bin/perl", b"x", {}),
        ("/usr/bin/perl5", "", {"type": tarfile.LNKTYPE, "linkname": "./usr/bin/perl"}),
        ("/usr/bin/python3", "python3.11", {}),
    )
    layer, members, _ = tidied(source)
    assert members["usr/bin/perl5"].linkname == "usr/bin/perl"
    assert members["usr/bin/python3"].linkname == "python3.11"
    assert layer.python == "3.11"


def test_our_own_folders_and_files() -> None:
    source = rootfs(("/scratch", None, {"mode": 0o700}), ("/etc/hosts", b"this machine's", {}))
    _, members, tar = tidied(source, folders={"/scratch": 0o755}, files={"/etc/hosts": (0o644, "ours")})
    assert (members["scratch"].mode, members["scratch"].isdir()) == (0o755, True)
    hosts = tar.extractfile("etc/hosts")
    assert hosts is not None and hosts.read() == b"ours"


@pytest.mark.parametrize(("flags", "wanted"), [(b"\3\0\0\0", b"\1\0\0\0"), (b"\0\0\0\0", b"\0\0\0\0")])
def test_bytecode_is_trusted(flags: bytes, wanted: bytes) -> None:
    """PEP 552: bit 0 says the file is hash-based, bit 1 that the source is to be hashed and compared."""
    pyc = b"\xa7\x0d\x0d\x0a" + flags + b"12345678rest"
    _, _, tar = tidied(rootfs(("/usr/lib/python3.11/__pycache__/os.cpython-311.pyc", pyc, {})))
    file = tar.extractfile("usr/lib/python3.11/__pycache__/os.cpython-311.pyc")
    assert file is not None
    content = file.read()
    assert content[4:8] == wanted
    assert content[:4] + content[8:] == pyc[:4] + pyc[8:]


def test_the_same_input_gives_the_same_layer() -> None:
    first, second = (tidied(rootfs(("/a", b"x", {"mtime": time})))[0] for time in (3_000, 4_000))
    assert first == second


def test_a_cut_off_tar_is_noticed() -> None:
    whole = rootfs(("/a", b"x" * 5000, {})).getvalue()
    with pytest.raises(tarfile.TarError):
        tidied(io.BytesIO(whole[:2000]))
    with pytest.raises(tarfile.TarError):
        tidied(io.BytesIO(b""))
