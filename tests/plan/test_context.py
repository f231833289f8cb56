"""The build context: what is in it, byte for byte, and what happens when the files do not hold still."""

from __future__ import annotations

import io
import json
import os
import shlex
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from checkouts import COMMIT, checkout_of, fill, plan_of

from hpcbinder.errors import BuildError, HpcbinderError
from hpcbinder.model import Plan
from hpcbinder.plan import context_listing, write_context

DOCKERFILE = "FROM x\n"


def context(plan: Plan, folder: Path, **changes: object) -> bytes:
    out = io.BytesIO()
    write_context(plan, checkout_of(folder, **changes), DOCKERFILE, out)
    return out.getvalue()


def entries(raw: bytes) -> dict[str, tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(raw), errors="surrogateescape") as tar:
        return {member.name: member for member in tar}


def text(raw: bytes, name: str) -> str:
    with tarfile.open(fileobj=io.BytesIO(raw)) as tar:
        file = tar.extractfile(name)
        assert file is not None
        return file.read().decode()


def test_links_to_folders_among_what_a_step_reads_stay_links(tmp_path: Path) -> None:
    (tmp_path / "data/v1").mkdir(parents=True)
    (tmp_path / "data/current").symlink_to("v1")
    (tmp_path / "data/nowhere").symlink_to("gone")
    (tmp_path / "data/outside").symlink_to("/etc")
    (tmp_path / "data/top").symlink_to("..")
    (tmp_path / "shared.txt").write_text("content")
    (tmp_path / "data/file").symlink_to("../shared.txt")
    files = {"data/v1/x": "1", "postBuild": "#!/bin/sh\n# hpcbinder: reads = data/\n"}
    plan = plan_of(tmp_path, files)
    step = next(f"steps/{number:02d}" for number, step in enumerate(plan.steps) if step.name == "postbuild/run")
    raw = context(plan, tmp_path)
    found = entries(raw)
    links = {name: found[f"{step}/repo/data/{name}"].linkname for name in ("current", "nowhere", "outside", "top")}
    assert links == {"current": "v1", "nowhere": "gone", "outside": "/etc", "top": ".."}
    assert text(raw, f"{step}/repo/data/file") == "content"


def test_what_is_in_a_context(tmp_path: Path) -> None:
    files = {
        "requirements.txt": "numpy",
        "sub/a.ipynb": "{}",
        "data/x": "12",
        "postBuild": "#!/bin/sh\n# hpcbinder: reads = data/\n",
        ".git/config": "secret",
    }
    plan = plan_of(tmp_path, files)
    (tmp_path / "link").symlink_to("/etc/passwd")
    (tmp_path / "empty").mkdir()
    plan = plan_of(tmp_path)
    raw = context(plan, tmp_path)
    names = list(entries(raw))
    assert names[:3] == ["Dockerfile", "steps", "steps/00"]
    assert [name for name in names if name.startswith("steps/04/")] == [
        "steps/04/run.sh",
        "steps/04/files",
        "steps/04/files/conda",
        "steps/04/files/interpreter",
        "steps/04/files/jupyter",
        "steps/04/files/path",
        "steps/04/files/pip",
        "steps/04/repo",
        "steps/04/repo/data",
        "steps/04/repo/data/x",
        "steps/04/repo/postBuild",
    ]
    assert names[names.index("content") :] == [
        "content",
        "content/opt",
        "content/opt/hpcbinder",
        "content/opt/hpcbinder/manifest.json",
        "content/srv",
        "content/srv/repo",
        "content/srv/repo/data",
        "content/srv/repo/empty",
        "content/srv/repo/link",
        "content/srv/repo/requirements.txt",
        "content/srv/repo/sub",
        "content/srv/repo/sub/a.ipynb",
    ]
    for member in entries(raw).values():
        assert (member.uid, member.gid, member.uname, member.gname) == (0, 0, "", "")
        assert member.mtime == plan.timestamp
        assert member.mode in ({0o755} if member.isdir() else {0o777} if member.issym() else {0o644, 0o755})
    assert entries(raw)["content/srv/repo/link"].linkname == "/etc/passwd"
    assert text(raw, "Dockerfile") == DOCKERFILE


def test_the_listing_names_the_same_files(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, {"requirements.txt": "numpy", "a\nb": "123", "setup.py": "", "sub/x": ""})
    listed = [line.split("  ")[0] for line in context_listing(plan, checkout_of(tmp_path))]
    written = [name for name, member in entries(context(plan, tmp_path)).items() if not member.isdir()]
    assert sorted(listed) == sorted(name.replace("\n", "\\n") for name in written)
    assert "content/srv/repo/a\\nb  3" in list(context_listing(plan, checkout_of(tmp_path)))


def test_the_same_plan_gives_the_same_bytes(tmp_path: Path) -> None:
    files = {"b": "", "a/c": "x", "setup.py": "", "a.ipynb": ""}
    one, two = fill(tmp_path / "one", files), fill(tmp_path / "two", dict(reversed(files.items())))
    os.utime(two / "b", (1, 1))
    (two / "b").chmod(0o600)
    assert context(plan_of(one), one) == context(plan_of(two), two)


def test_a_changed_notebook_leaves_every_step_as_it_is(tmp_path: Path) -> None:
    files = {"requirements.txt": "numpy", "setup.py": "", "a.ipynb": "{}"}
    before = context(plan_of(tmp_path, files), tmp_path)
    after = context(plan_of(tmp_path, {"a.ipynb": "{} "}), tmp_path)

    def steps(raw: bytes) -> dict[str, bytes]:
        with tarfile.open(fileobj=io.BytesIO(raw)) as tar:
            return {
                member.name: file.read()
                for member in tar
                if member.name.startswith("steps/") and (file := tar.extractfile(member))
            }

    assert steps(before) == steps(after)
    assert len(steps(before)) > 10


def test_odd_names_come_out_as_they_are(tmp_path: Path) -> None:
    repo = tmp_path / "repo"
    names = [b"\xff\xfe", b"a\nb", b" ", b"-rf", "ünï".encode(), b"x" * 255, b'"$\\', b"a:b"]
    for name in names:
        path = Path(os.fsdecode(os.fsencode(repo) + b"/" + b"d" * 120 + b"/" + name))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name)
    (repo / "link").symlink_to(os.fsdecode(b"\xff" * 150))
    raw = context(plan_of(repo), repo)
    (tmp_path / "out").mkdir()
    subprocess.run(["tar", "-x"], input=raw, cwd=tmp_path / "out", check=True)
    out = tmp_path / "out/content/srv/repo"
    assert sorted(os.fsencode(path.name) for path in (out / ("d" * 120)).iterdir()) == sorted(names)
    assert os.fsencode((out / "link").readlink()) == b"\xff" * 150
    assert entries(raw)


def test_a_link_among_what_a_step_reads_brings_its_target_or_becomes_it(tmp_path: Path) -> None:
    fill(tmp_path, {"shared/values": "1", "postBuild": "#!/bin/sh\n# hpcbinder: reads = one data\n", "data/real": "2"})
    (tmp_path / "one").symlink_to("shared/values")
    (tmp_path / "data/link").symlink_to("real")
    found = entries(context(plan_of(tmp_path), tmp_path))
    assert found["steps/04/repo/one"].isreg()
    assert found["steps/04/repo/data/link"].linkname == "real"


def test_what_a_step_has_put_in_place_is_not_put_there_again(tmp_path: Path) -> None:
    files = {"requirements.txt": "-e .", "setup.py": "", "pkg.py": "", "a.ipynb": "{}"}
    found = entries(context(plan_of(tmp_path, files), tmp_path))
    assert [name for name in found if name.startswith("content/srv/repo/")] == ["content/srv/repo/a.ipynb"]
    assert {"steps/04/repo/pkg.py", "steps/04/repo/setup.py"} <= set(found)


def test_kept_files_bring_their_folders(tmp_path: Path) -> None:
    fill(tmp_path, {"binder/.dockerignore": "*", "binder/start": '#!/bin/sh\nexec "$@"\n', "data/x": ""})
    found = entries(context(plan_of(tmp_path), tmp_path))
    assert [name for name in found if name.startswith("content/srv/repo/")] == [
        "content/srv/repo/binder",
        "content/srv/repo/binder/start",
    ]


def test_the_server_stage_needs_no_content(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, {"a": "x"})
    out = io.BytesIO()
    write_context(plan, checkout_of(tmp_path), DOCKERFILE, out, until=1)
    assert {name.split("/")[0] for name in entries(out.getvalue())} == {"Dockerfile", "steps", "content"}
    assert not [name for name in entries(out.getvalue()) if name.startswith(("content/", "steps/01"))]


def test_the_manifest_says_what_the_image_is_and_how_to_make_it_again(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, {"start": '#!/bin/sh\nexec "$@"\n'}, subdir="sub folder")
    manifest = json.loads(text(context(plan, tmp_path), "content/opt/hpcbinder/manifest.json"))
    assert manifest["id"] == plan.id
    assert manifest["commit"] == COMMIT
    assert manifest["kernels"] == ["python3"]
    assert (manifest["mpi"], manifest["gpu"]) == (None, None)
    assert manifest["packages"] == "/opt/hpcbinder/packages"
    assert {pack["name"]: pack["version"] for pack in manifest["buildpacks"]} == {"python": "1", "start": "1"}
    assert shlex.split(manifest["rebuild"]) == [
        "hpcbinder",
        "build",
        "--ref",
        COMMIT,
        "--subdir",
        "sub folder",
        "--",
        "https://git.example.org/group/example.git",
    ]


@pytest.mark.parametrize("change", ["longer", "shorter", "same size", "gone", "more", "pipe"])
def test_files_that_do_not_hold_still_fail_the_build(tmp_path: Path, change: str) -> None:
    plan = plan_of(tmp_path, {"a": "1234", "b": ""})
    if change == "gone":
        (tmp_path / "a").unlink()
    elif change == "pipe":
        (tmp_path / "a").unlink()
        os.mkfifo(tmp_path / "a")
    elif change == "more":
        fill(tmp_path, {"c": ""})
    else:
        fill(tmp_path, {"a": {"longer": "12345", "shorter": "123", "same size": "4321"}[change]})
    with pytest.raises(BuildError, match="changed since the plan was made"):
        context(plan, tmp_path)


def test_a_file_that_grows_while_it_is_read_is_noticed(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, {"a": "x" * (3 << 20)}, tree="a" * 40)

    class Meddler(io.BytesIO):
        def write(self, raw: object) -> int:
            if isinstance(raw, bytes) and raw[:1] == b"x":
                with (tmp_path / "a").open("a") as file:
                    file.write("more")
            return super().write(raw)  # type: ignore[arg-type]

    with pytest.raises(BuildError, match="^a: changed while it was read"):
        write_context(plan, checkout_of(tmp_path, tree="a" * 40), DOCKERFILE, Meddler())


def test_a_step_whose_file_vanished(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, {"postBuild": "#!/bin/sh\n# hpcbinder: reads = x\n", "x": ""}, tree="a" * 40)
    (tmp_path / "x").unlink()
    with pytest.raises(HpcbinderError, match="^x: vanished since the plan was made"):
        context(plan, tmp_path, tree="a" * 40)


def test_memory_does_not_grow_with_the_files(tmp_path: Path) -> None:
    (tmp_path / "large").touch()
    os.truncate(tmp_path / "large", 512 << 20)
    program = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
import memory
from checkouts import checkout_of, plan_of
from hpcbinder.plan import write_context
folder = Path(sys.argv[1])
plan = plan_of(folder)
with open("/dev/null", "wb") as out:
    write_context(plan, checkout_of(folder), "", out)
print(memory.peak())
"""
    tests = str(Path(__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path), tests], capture_output=True, text=True, check=True
    )
    assert int(done.stdout) < 100 << 10  # KiB
