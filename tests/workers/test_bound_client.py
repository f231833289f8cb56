"""The host's own Slurm client inside a container that has neither Slurm nor the host's libraries, on a real Slurm; and
what is said where that cannot be."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from on_the_login_node import Inside
from waiting import eventually

from hpcbinder.runtime.launch.values import LaunchError
from hpcbinder.runtime.launch.workers.bound import _WRAPPER, _Configuration, _said, client
from hpcbinder.runtime.launch.workers.libraries import libraries, loader
from rig import Slurm, User

USES = """
command -v squeue
squeue --me --noheader; echo "squeue $?"
squeue --no-such-option 2>/dev/null; echo "wrong $?"
sbatch --parsable --partition=long --output=told \
    --wrap='echo $SLURM_JOB_PARTITION "[$APPTAINER_NAME$HPCBINDER_HELPER$JUPYTERHUB_API_TOKEN]" $(command -v scontrol)'
srun --partition=long --quiet uname -n
sbatch --parsable --wait --output=image \
    --wrap="$DASK_JOBQUEUE__SLURM__PYTHON -c 'import os; print(os.environ[\\"IMAGE_ID\\"])'"
python -c 'from hpcbinder_workers import jobs; print(jobs())'
"""
LOOKS = """
squeue --me 2>&1; echo "squeue $?"
python -c 'from hpcbinder_workers import jobs; print(jobs())'
"""


def test_the_real_client_reaches_slurm(inside: Inside, slurm: Slurm, user: User) -> None:
    # SlurmUser is rarely root elsewhere; here it is, and has another name that only this machine knows.
    folder = user.home / "slurm"
    folder.mkdir()
    settings = slurm.configuration.read_text().replace("SlurmUser=root", "SlurmUser=controller")
    (folder / "slurm.conf").write_text("Include more.conf\n")
    (folder / "more.conf").write_text(settings)
    user.own(folder)
    with (user.home.parent / "passwd").open("a") as accounts:
        accounts.write("controller:x:0:0::/:/bin/sh\n")

    seen = inside.run(USES, HPCBINDER_SLURM_INSIDE="bound", SLURM_CONF=str(folder / "slurm.conf"))
    where, *looked, number, node, other, jobs = seen
    assert where.endswith("/bin/squeue")
    assert not Path(where).exists()
    assert looked == ["squeue 0", "wrong 1"]
    assert number.isdigit() and other.isdigit()
    assert node in ("n1", "n2")
    assert jobs == "[]"
    told, image = user.home / "told", user.home / "image"
    assert eventually(lambda: told.exists() and bool(told.read_text()))
    # In the environment that it would have without a container.
    assert told.read_text().split() == ["long", "[]", shutil.which("scontrol", path="/usr/bin:/bin")]
    assert image.read_text() == "small\n"


def test_another_runtime_says_that_it_cannot(inside: Inside, request: pytest.FixtureRequest) -> None:
    request.getfixturevalue("charliecloud")
    told, code, jobs = inside.run(LOOKS, "charliecloud", HPCBINDER_SLURM_INSIDE="bound")
    assert told == "no Slurm client inside: charliecloud cannot show this machine's where Slurm looks for it"
    assert (code, jobs) == ("squeue 127", "[]")


def programs(folder: Path, **sources: Path | str) -> dict[str, str]:
    """An environment whose PATH has these programs: copies, or scripts."""
    for name, source in sources.items():
        if isinstance(source, Path):
            shutil.copy(source, folder / name)
        else:
            (folder / name).write_text(source)
        (folder / name).chmod(0o755)
    return {"PATH": str(folder), "HOME": str(folder)}


def refusal(environ: dict[str, str]) -> str:
    with pytest.raises(LaunchError) as refused:
        client("/tmp/none", environ, {}, (), None)
    return str(refused.value)


def test_what_is_no_client_of_this_machine_is_refused(tmp_path: Path) -> None:
    assert "not on this machine's PATH" in refusal({"PATH": str(tmp_path)})
    script = "#!/bin/sh\nexec apptainer run slurm.sif sbatch\n"
    shell = Path("/bin/sh").resolve()
    assert "sbatch is a script" in refusal(programs(tmp_path, sbatch=script, squeue=script))
    assert "squeue is a script" in refusal(programs(tmp_path, sbatch=shell))
    assert "does not load libslurm" in refusal(programs(tmp_path, squeue=shell))
    assert "is not a program" in refusal(programs(tmp_path, squeue="\x7fELF"))
    # The loader's own program needs none.
    assert "linked statically" in refusal(programs(tmp_path, squeue=Path(loader(str(shell)))))


def test_folders_that_the_loader_reads_otherwise_are_refused(tmp_path: Path) -> None:
    for odd in ("a;b", "a:b", "a$LIB", "a\\", "a b"):
        with pytest.raises(LaunchError, match="TMPDIR"):
            client(f"/tmp/{odd}", {"PATH": os.defpath}, {}, (), None)


@pytest.mark.parametrize(
    ("folder", "whole"),
    [
        ("etc/slurm", True),
        ("opt/slurm/22.05.8/etc", True),
        ("run/munge", True),
        ("home/slurmadm/mine", False),
        ("slurm", False),
        ("etc", False),
    ],
)
def test_folders_of_settings_are_shown_whole_and_no_others(tmp_path: Path, folder: str, whole: bool) -> None:
    home = tmp_path / "slurm" / "alice"
    home.mkdir(parents=True)
    conf = tmp_path / folder / "slurm.conf"
    conf.parent.mkdir(parents=True, exist_ok=True)
    conf.touch()
    shown = _said(_Configuration((str(conf),), {"authinfo": "socket=/nonexistent"}), (), {"HOME": str(home)})
    assert (str(conf.parent) in shown, str(conf) in shown) == (whole, not whole)


@pytest.mark.parametrize("missing", ["env", "grep"])
def test_the_servers_token_is_not_kept_by_an_image_that_lacks_a_program(tmp_path: Path, missing: str) -> None:
    for name in {"env", "grep"} - {missing}:
        (tmp_path / name).symlink_to(shutil.which(name) or "")
    wrapper = _WRAPPER.format(name="sbatch", unset="NOTHING", exports="", start="/usr/bin/env")
    environ = {"PATH": str(tmp_path), "JUPYTERHUB_API_TOKEN": "secret"}
    done = subprocess.run(["/bin/sh", "-c", wrapper], env=environ, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (127, "")
    assert f"no {missing}" in done.stderr


def test_all_that_is_loaded_is_found(tmp_path: Path) -> None:
    shell = str(Path("/bin/sh").resolve())
    found = libraries([shell], {"PATH": os.defpath})
    assert loader(shell) in found
    assert any(Path(path).name.startswith("libc.so") for path in found)
    assert all(Path(path).is_absolute() and Path(path).resolve() == Path(path) for path in found)


def test_a_library_that_is_missing_is_named(tmp_path: Path) -> None:
    program = tmp_path / "sbatch"
    content = Path("/bin/sh").resolve().read_bytes()
    program.write_bytes(content.replace(b"\0libc.so.6\0", b"\0libc.so.0\0"))
    program.chmod(0o755)
    with pytest.raises(LaunchError, match=r"libc\.so\.0 is missing"):
        libraries([str(program)], {"PATH": os.defpath})
