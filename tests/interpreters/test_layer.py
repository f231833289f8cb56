"""An interpreter becomes the same bytes wherever it lay, without what is its owner's, and leads nowhere else."""

from __future__ import annotations

import io
import os
import posixpath
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from prefixes import VERSION

from hpcbinder.errors import BuildError
from hpcbinder.interpreters import Interpreter, files_stamp, find_interpreters, write_layer

TARGET = f"/opt/python/{VERSION}"


def look(prefix: Path) -> Interpreter:
    (found,) = find_interpreters([prefix]).interpreters
    return found


def members(interpreter: Interpreter) -> dict[str, tarfile.TarInfo]:
    out = io.BytesIO()
    write_layer(interpreter, out, target=TARGET, without=())
    with tarfile.open(fileobj=io.BytesIO(out.getvalue())) as tar:
        return {member.name: member for member in tar}


def test_the_same_files_give_the_same_bytes(prefix: Path, tmp_path: Path) -> None:
    one, two = io.BytesIO(), io.BytesIO()
    first = write_layer(look(prefix), one, target=TARGET, without=())
    copy = tmp_path / "elsewhere" / "python"
    shutil.copytree(prefix, copy, symlinks=True, copy_function=shutil.copyfile)  # other times
    for folder, _, files in os.walk(copy):
        for name in files:
            (Path(folder) / name).chmod(0o755 if "/bin" in folder else 0o664)
    second = write_layer(look(copy), two, target=TARGET, without=())
    assert first.files == second.files > 300
    # Extension modules are no programs, whatever their mode was.
    a, b = (
        {m.name: (m.type, m.linkname, m.size, m.mtime, m.uid, m.gid) for m in members(look(p)).values()}
        for p in (prefix, copy)
    )
    assert a == b
    assert write_layer(look(prefix), None, target=TARGET, without=()).diff_id == first.diff_id


def test_what_it_holds(prefix: Path, tmp_path: Path) -> None:
    mine = Path(shutil.copytree(prefix, tmp_path / "python", symlinks=True))
    library = mine / f"lib/python{VERSION}"
    for name in ("site-packages/secret.py", "test/test_os.py", "__pycache__/os.pyc", "EXTERNALLY-MANAGED", "x.a"):
        (library / name).parent.mkdir(exist_ok=True)
        (library / name).write_text("")
    (mine / "bin/pip").write_text("#!/home/me/bin/python\n")
    (mine / "secret").write_text("")
    (tmp_path / "outside.py").write_text("")
    (library / "out.py").symlink_to("../../../outside.py")
    (library / "absolute.py").symlink_to(library / "os.py")
    (library / "relative").symlink_to("json")
    (library / "nowhere").symlink_to("not-there")
    (library / "skipped").symlink_to("site-packages")
    os.mkfifo(library / "pipe")
    found = members(look(mine))

    assert {f"python/bin/python{VERSION}", f"python/lib/python{VERSION}/os.py"} <= found.keys()
    assert sorted(name for name in found if name.startswith("python/bin/")) == [f"python/bin/python{VERSION}"]
    stdlib = f"python/lib/python{VERSION}"
    for name in ("site-packages", "test", "__pycache__", "EXTERNALLY-MANAGED", "x.a", "out.py", "nowhere", "skipped"):
        assert f"{stdlib}/{name}" not in found
    assert "python/secret" not in found and f"{stdlib}/pipe" not in found
    assert found[f"{stdlib}/absolute.py"].linkname == "os.py"
    assert found[f"{stdlib}/relative"].linkname == "json"
    for member in found.values():
        assert (member.uid, member.gid, member.uname, member.mtime) == (0, 0, "", 1577836800)
        assert member.isdir() or member.isreg() or member.issym()
        if member.issym():
            assert posixpath.normpath(posixpath.join(posixpath.dirname(member.name), member.linkname)) in found


def test_modules_can_be_left_out(prefix: Path) -> None:
    interpreter = look(prefix)
    (left,) = (p for p in interpreter.system["libreadline.so.8"])
    out = io.BytesIO()
    write_layer(interpreter, out, target=TARGET, without=[left])
    with tarfile.open(fileobj=io.BytesIO(out.getvalue())) as tar:
        assert f"python/{left}" not in tar.getnames()


def test_build_settings_name_the_new_place(prefix: Path, tmp_path: Path) -> None:
    # What python-build-standalone (uv) was configured for is `/install`; Debian's is /usr, which is left alone.
    mine = Path(shutil.copytree(prefix, tmp_path / "python", symlinks=True))
    settings = next(p for p in (mine / f"lib/python{VERSION}").glob("_sysconfigdata*.py") if not p.is_symlink())
    settings.write_text(
        settings.read_text()
        + "build_time_vars['prefix'] = '/install'\nbuild_time_vars['FLAGS'] = '-I/install/include -L/installed'\n"
    )
    interpreter = look(mine)
    assert interpreter.built_for == "/install"
    out = io.BytesIO()
    write_layer(interpreter, out, target=TARGET, without=())
    with tarfile.open(fileobj=io.BytesIO(out.getvalue())) as tar:
        file = tar.extractfile(f"python/lib/python{VERSION}/{settings.name}")
        assert file is not None
        text = file.read().decode()
    assert text.endswith(
        f"build_time_vars['prefix'] = '{TARGET}'\nbuild_time_vars['FLAGS'] = '-I{TARGET}/include -L/installed'\n"
    )


def test_a_file_that_changed_is_noticed_without_reading_it(prefix: Path, tmp_path: Path) -> None:
    mine = Path(shutil.copytree(prefix, tmp_path / "python", symlinks=True))
    before = files_stamp(look(mine))
    assert files_stamp(look(mine)) == before
    with (mine / f"lib/python{VERSION}/os.py").open("a") as file:
        file.write("# one more line\n")
    assert files_stamp(look(mine)) != before


def test_what_cannot_be_read_is_named(prefix: Path, tmp_path: Path) -> None:
    mine = Path(shutil.copytree(prefix, tmp_path / "python", symlinks=True))
    interpreter = look(mine)
    shutil.rmtree(mine / f"lib/python{VERSION}/lib-dynload")
    (mine / f"bin/python{VERSION}").unlink()
    with pytest.raises(BuildError, match="No such file or directory") as caught:
        write_layer(interpreter, None, target=TARGET, without=())
    assert caught.value.where == str(mine / f"bin/python{VERSION}")


def test_the_layer_runs_where_it_is_unpacked(prefix: Path, tmp_path: Path) -> None:
    out = io.BytesIO()
    write_layer(look(prefix), out, target=TARGET, without=())
    with tarfile.open(fileobj=io.BytesIO(out.getvalue())) as tar:
        if sys.version_info >= (3, 12):
            tar.extractall(tmp_path, filter="data")
        else:
            tar.extractall(tmp_path)
    program = tmp_path / f"python/bin/python{VERSION}"
    code = "import os, ssl, sqlite3, ctypes, sys; print(sys.prefix, os.__file__)"
    done = subprocess.run([program, "-I", "-S", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [f"{tmp_path}/python", f"{tmp_path}/python/lib/python{VERSION}/os.py"]
