"""What exactly each runtime is told: golden command lines.

Those of Apptainer, Charliecloud and Docker are also run for real (test_run.py); Shifter's and podman-hpc's follow their
documentation.
"""

from pathlib import Path

import pytest

from hpcbinder.errors import RunError
from hpcbinder.runtime import Command, Runtime, RuntimeImage, command
from hpcbinder.runtime.launch.runtimes import runtime
from hpcbinder.runtime.launch.starting import prepare
from hpcbinder.runtime.launch.values import LaunchError, Request, parse_bind

ENTRYPOINT = "/opt/hpcbinder/bin/entrypoint"
IMAGE = RuntimeImage("x-1", "/store/x-1/x.img", ENTRYPOINT, {"PATH": "/opt/env/bin"}, ("/mnt/0", "/mnt/1"))
HOST = {
    "HOME": "/home/alice",
    "USER": "alice",
    "LOGNAME": "alice",
    "PATH": "/usr/bin",
    "SLURM_JOB_ID": "7",
    "TOKEN": "secret-value",
    "PYTHONPATH": "/host",
}
PROGRAMS = {
    "apptainer": "/usr/bin/apptainer",
    "singularity": "/usr/bin/singularity",
    "charliecloud": "/usr/bin/ch-run",
    "shifter": "/usr/bin/shifter",
    "podman-hpc": "/usr/bin/podman-hpc",
    "docker": "/usr/bin/docker",
}


def told(name: str, request: Request, image: RuntimeImage = IMAGE) -> Command:
    return made(name).command(image, request)


def made(name: str) -> Runtime:
    return runtime(name, PROGRAMS[name])


def kernel(tmp_path: Path, **changes: object) -> Request:
    """A kernel's request, its connection file in a folder that exists."""
    values: dict[str, object] = {
        "argv": ("python", "-f", "{connection_file}"),
        "cwd": "/home/alice/nb",
        "environ": HOST,
        "environment": ("SLURM_*", "TOKEN"),
        "files": {"connection_file": f"{tmp_path}/kernel.json"},
    }
    return Request(**{**values, **changes})  # type: ignore[arg-type]


def test_apptainer(tmp_path: Path) -> None:
    got = told("apptainer", kernel(tmp_path, gpu="nvidia", env={"EXTRA": "1"}))
    assert got.argv == (
        *("/usr/bin/apptainer", "-s", "exec", "--cleanenv", "--nv", "--pwd", "/home/alice/nb"),
        *("-B", f"{tmp_path}:{tmp_path}", "/store/x-1/x.img"),
        *(ENTRYPOINT, "python", "-f", f"{tmp_path}/kernel.json"),
    )
    entering = {name: value for name, value in got.env.items() if name.startswith("APPTAINERENV_")}
    assert entering == {
        "APPTAINERENV_EXTRA": "1",
        "APPTAINERENV_LOGNAME": "alice",
        "APPTAINERENV_SLURM_JOB_ID": "7",
        "APPTAINERENV_TOKEN": "secret-value",
        "APPTAINERENV_USER": "alice",
    }
    assert got.env["APPTAINER_NO_EVAL"] == "1"


def test_singularity_has_its_own_prefix(tmp_path: Path) -> None:
    got = told("singularity", kernel(tmp_path, gpu="rocm"))
    assert got.argv[:5] == ("/usr/bin/singularity", "-s", "exec", "--cleanenv", "--rocm")
    assert got.env["SINGULARITYENV_SLURM_JOB_ID"] == "7"
    assert got.env["SINGULARITY_NO_EVAL"] == "1"


@pytest.mark.parametrize(
    ("cwd", "inside", "bound"),
    [
        ("/home/alice/nb", "/home/alice/nb", False),
        ("/tmp/x", "/tmp/x", False),
        ("/scratch/alice", "/scratch/alice", True),
        ("/opt/data", "/opt/data", True),
        ("/", "/", False),
        # Over the image's own folders nothing is put; nor can a comma be told.
        ("/opt", "/home/alice", False),
        ("/opt/env/lib", "/home/alice", False),
        ("/usr/local", "/home/alice", False),
        ("/scratch/a,b", "/home/alice", False),
    ],
)
def test_apptainer_shows_the_working_directory(cwd: str, inside: str, bound: bool) -> None:
    got = told("apptainer", Request(argv=("true",), cwd=cwd, environ=HOST))
    assert got.argv[got.argv.index("--pwd") + 1] == inside
    assert (f"{cwd}:{cwd}" in got.argv) is bound
    assert bool(got.notes) is (inside != cwd)


def test_charliecloud(tmp_path: Path) -> None:
    request = kernel(tmp_path, cwd="/scratch/alice", files={"connection_file": f"{tmp_path}/k.json"}, env={"A": "1"})
    request = Request(**{**vars(request), "environ": {**HOST, "TMPDIR": "/usr"}, "cwd": "/etc/nb"})
    got = told("charliecloud", request)
    assert got.argv == (
        *("/usr/bin/ch-run", "--home", "--env-no-expand", "--unset-env=LD_LIBRARY_PATH", "--unset-env=PATH"),
        *("--set-env", "--set-env=A=1", f"--bind={tmp_path}:/mnt/0", "--bind=/etc:/mnt/1", "--cd=/mnt/1/nb"),
        *("/store/x-1/x.img", "--", ENTRYPOINT, "python", "-f", "/mnt/0/k.json"),
    )
    assert got.env == {
        "HOME": "/home/alice",
        "LOGNAME": "alice",
        "PATH": "/usr/bin",
        "SLURM_JOB_ID": "7",
        "TMPDIR": "/usr",
        "TOKEN": "secret-value",
        "USER": "alice",
    }


def test_charliecloud_shows_home_and_tmp_where_they_are_inside() -> None:
    files = {"connection_file": "/tmp/k.json"}
    got = told("charliecloud", Request(argv=("{connection_file}",), cwd="/home/alice/nb", environ=HOST, files=files))
    assert "--cd=/home/alice/nb" in got.argv
    assert got.argv[-1] == "/tmp/k.json"
    assert not [word for word in got.argv if word.startswith("--bind")]


def test_charliecloud_s_host_variables_win_over_the_image_s_as_in_apptainer() -> None:
    image = RuntimeImage("x-1", "/x", "", {"SLURM_JOB_ID": "of the image"})
    got = told("charliecloud", Request(("env",), "/tmp", HOST, ("SLURM_*",)), image)
    shell = got.argv[got.argv.index("--") + 1 :]
    assert shell == (
        *("/bin/sh", "-c"),
        'export SLURM_JOB_ID="$HPCBINDER_HOST_SLURM_JOB_ID"; unset HPCBINDER_HOST_SLURM_JOB_ID; exec "$@"',
        *("hpcbinder", "env"),
    )
    assert got.env["HPCBINDER_HOST_SLURM_JOB_ID"] == "7"


def test_charliecloud_shows_a_folder_at_its_own_path_where_the_image_has_a_place_for_it() -> None:
    image = RuntimeImage("x-1", "/x", "", {}, ("/mnt/0", "/usr"))
    got = told("charliecloud", Request(("true",), "/usr/lib", HOST, files={"file": "/usr/bin/env"}), image)
    assert "--bind=/usr:/usr" in got.argv
    assert "--cd=/usr/lib" in got.argv
    assert not got.notes


@pytest.mark.parametrize(
    ("bind", "note"),
    [
        ("/usr/lib", "/usr/lib is seen as /mnt/0 inside"),
        ("/usr/lib:/mnt/1:ro", "/usr/lib is not read-only inside: Charliecloud cannot bind so"),
    ],
)
def test_charliecloud_says_what_a_bind_becomes(bind: str, note: str) -> None:
    got = command(IMAGE, ["true"], runtime=made("charliecloud"), binds=[bind], cwd=Path("/tmp"), environ=HOST)
    assert got.notes == (note,)


def test_charliecloud_cannot_make_a_mount_point() -> None:
    with pytest.raises(RunError, match=r"only to empty folders of the image \(/mnt/0, /mnt/1\), not /data"):
        command(IMAGE, ["true"], runtime=made("charliecloud"), binds=["/usr:/data"], cwd=Path("/tmp"), environ=HOST)


def test_charliecloud_without_a_mount_point_left(tmp_path: Path) -> None:
    image = RuntimeImage("x-1", "/x")
    with pytest.raises(LaunchError, match="no empty folder left"):
        told("charliecloud", kernel(tmp_path, environ={**HOST, "TMPDIR": "/usr"}), image)


def test_shifter(tmp_path: Path) -> None:
    image = RuntimeImage("x-1", "0123abcd", ENTRYPOINT)
    got = told("shifter", kernel(tmp_path, gpu="nvidia", env={"EXTRA": "1"}), image)
    assert got.argv == (
        *("/usr/bin/shifter", "--image=id:0123abcd", "--workdir=/home/alice/nb", "--module=gpu", "--env=EXTRA=1", "--"),
        *(ENTRYPOINT, "python", "-f", f"{tmp_path}/kernel.json"),
    )
    assert "PYTHONPATH" not in got.env
    assert got.env["TOKEN"] == "secret-value"


def test_podman_hpc(tmp_path: Path) -> None:
    image = RuntimeImage("x-1", "hpcbinder/x:1", ENTRYPOINT)
    got = told("podman-hpc", kernel(tmp_path, gpu="nvidia"), image)
    name = got.argv[3]
    assert got.argv == (
        *("/usr/bin/podman-hpc", "run", "--rm", name, "--read-only", "--network=host", "--gpu"),
        *("--volume=/home/alice:/home/alice", f"--volume={tmp_path}:{tmp_path}", "--workdir=/home/alice/nb"),
        *("--env=HOME", "--env=LOGNAME", "--env=SLURM_JOB_ID", "--env=TOKEN", "--env=USER"),
        *(f"--entrypoint={ENTRYPOINT}", "hpcbinder/x:1", "python", "-f", f"{tmp_path}/kernel.json"),
    )
    assert got.cleanup == ("/usr/bin/podman-hpc", "rm", "--force", name.removeprefix("--name="))


def test_docker(tmp_path: Path) -> None:
    image = RuntimeImage("x-1", "hpcbinder/x:1")
    got = told("docker", kernel(tmp_path, gpu="nvidia"), image)
    assert {"--read-only", "--network=host", "--cap-drop=ALL", "--gpus=all", "--entrypoint="} < set(got.argv)
    assert "--env=TOKEN" in got.argv
    assert got.argv[-4:] == ("hpcbinder/x:1", "python", "-f", f"{tmp_path}/kernel.json")
    assert got.cleanup[:3] == ("/usr/bin/docker", "rm", "--force")


def test_docker_is_never_told_two_mounts_at_one_place(tmp_path: Path) -> None:
    def mounts(request: Request) -> list[str]:
        words = told("docker", request, RuntimeImage("x-1", "hpcbinder/x:1")).argv
        return [word for word in words if word.startswith(("--tmpfs", "--volume"))]

    home = "--volume=/home/alice:/home/alice"
    assert mounts(Request(("x",), "/home/alice", HOST)) == ["--tmpfs=/tmp:exec,mode=1777", home]
    assert mounts(Request(("x",), "/tmp", HOST)) == [home, "--volume=/tmp:/tmp"]
    assert mounts(Request(("x",), "/tmp", HOST, binds=(parse_bind(f"{tmp_path}:/tmp"),)))[:2] == [
        f"--volume={tmp_path}:/tmp",
        home,
    ]
    assert mounts(Request(("x",), "/home/alice", HOST, binds=(parse_bind(f"{tmp_path}:/home/alice"),))) == [
        "--tmpfs=/tmp:exec,mode=1777",
        f"--volume={tmp_path}:/home/alice",
    ]


@pytest.mark.parametrize("name", list(PROGRAMS))
def test_no_value_of_the_host_is_in_the_arguments(name: str, tmp_path: Path) -> None:
    assert "secret-value" not in " ".join(told(name, kernel(tmp_path)).argv)


@pytest.mark.parametrize("name", ["apptainer", "docker", "podman-hpc"])
def test_a_connection_file_where_no_bind_can_reach(name: str) -> None:
    with pytest.raises(LaunchError, match="cannot be bound"):
        told(name, Request(("x",), "/home/alice", HOST, files={"connection_file": "/run/a:b/k.json"}))


@pytest.mark.parametrize("name", ["apptainer", "docker", "charliecloud"])
def test_a_bind_that_is_not_on_this_machine_is_left_out_and_said(name: str) -> None:
    got = command(
        IMAGE, ["true"], runtime=made(name), binds=["/no/such/folder", "/usr:/mnt/1"], cwd=Path("/tmp"), environ=HOST
    )
    assert any("/no/such/folder" in note for note in got.notes)
    assert any("/usr:/mnt/1" in word for word in got.argv)


def test_what_a_runtime_cannot_do_is_an_error_of_ours() -> None:
    with pytest.raises(RunError, match="GPU"):
        command(IMAGE, ["true"], runtime=made("charliecloud"), gpu="nvidia", cwd=Path("/tmp"), environ=HOST)


def test_a_description_of_another_version_is_refused() -> None:
    with pytest.raises(LaunchError, match="register the kernel again"):
        prepare({"format": 99}, environ={}, cwd="/")
