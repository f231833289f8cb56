"""The image contract (docs/image-contract.md), on an image built from a repository that uses everything.

Built by Docker, and by podman and buildah as an ordinary user; what is assembled is in test_contract_assembled.py.
Under Docker and podman: read-only, a random UID, no network. Under Apptainer and Charliecloud: an ordinary user,
`$HOME` bound.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hpcbinder import contract
from hpcbinder.look import inspect, stored_sbom
from hpcbinder.squashfs import Image
from rig import Apptainer, Builder, Charliecloud, Dockerd, User

Inside = Callable[..., str]

FORBIDDEN = ("home", "root", "tmp", "var/tmp", "run", "scratch", "dev/shm")


heavy = [pytest.mark.heavy, pytest.mark.xdist_group("engines")]
docker = [pytest.mark.rig, pytest.mark.xdist_group("docker")]
ENGINES = [
    pytest.param("docker", marks=docker),
    pytest.param("podman", marks=heavy),
    pytest.param("buildah", marks=heavy),
]
WAYS = [
    *(pytest.param(way, marks=docker) for way in ("docker-docker", "docker-apptainer", "docker-charliecloud")),
    pytest.param("podman-podman", marks=heavy),
]
"""Engine and runtime. Files are run as Docker made them: test_engines_agree.py shows that podman and buildah make the
same bytes of this very repository."""


def built_by(request: pytest.FixtureRequest, engine: str) -> dict[str, Any]:
    """tests/repos/contract, built by an engine."""
    if engine == "docker":
        image: dict[str, Any] = request.getfixturevalue("contract_image")
    else:
        image = request.getfixturevalue("engine_lines")[engine].build("contract")
    return image


@pytest.fixture(params=WAYS)
def inside(request: pytest.FixtureRequest, user: User) -> Inside:
    """Run a command in the image as the runtime itself does it, with nothing of ours around it."""
    engine, _, runtime_name = request.param.partition("-")
    image = built_by(request, engine)
    formats = image["formats"]
    # An OCI runtime, with all that it can take away.
    bare = ["run", "--rm", "--read-only", "--network", "none", "--user", "12345:54321"]

    def docker(*argv: str, env: dict[str, str] | None = None) -> str:
        dockerd: Dockerd = request.getfixturevalue("dockerd")
        command = ["/usr/bin/docker", *bare, *_oci_arguments(image, argv, env)]
        done = subprocess.run(
            command, env={**dockerd.environment, "PATH": "/usr/bin:/bin"}, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def podman(*argv: str, env: dict[str, str] | None = None) -> str:
        builder: Builder = request.getfixturevalue("builder")
        command = ["podman", *bare, "--pull=never", "--read-only-tmpfs=false", *_oci_arguments(image, argv, env)]
        return builder.run(command).stdout

    def apptainer(*argv: str, env: dict[str, str] | None = None) -> str:
        runtime: Apptainer = request.getfixturevalue("apptainer")
        return user.run([runtime.path, "-s", "exec", formats["sif"], *argv], env=env, network=False).stdout

    def charliecloud(*argv: str, env: dict[str, str] | None = None) -> str:
        runtime: Charliecloud = request.getfixturevalue("charliecloud")
        command = [runtime.path, "--set-env", "--home", formats["squashfs"], "--", *argv]
        return user.run(command, env=env, network=False).stdout

    runtimes: dict[str, Inside] = {
        "docker": docker,
        "podman": podman,
        "apptainer": apptainer,
        "charliecloud": charliecloud,
    }
    return runtimes[runtime_name]


def _oci_arguments(image: dict[str, Any], argv: tuple[str, ...], env: dict[str, str] | None) -> list[str]:
    variables = [word for name, value in (env or {}).items() for word in ("--env", f"{name}={value}")]
    return [*variables, "--entrypoint", argv[0], image["image"]["name"], *argv[1:]]


@pytest.fixture(params=ENGINES)
def record(request: pytest.FixtureRequest) -> dict[str, Any]:
    """The catalog's record of the image."""
    image = built_by(request, request.param)
    if request.param == "docker":
        shown = json.loads(request.getfixturevalue("line").hpcbinder("show", image["id"], "--json").stdout)
    else:
        shown = request.getfixturevalue("engine_lines")[request.param].hpcbinder("show", image["id"], "--json")
    assert isinstance(shown, dict)
    return shown


@pytest.fixture(params=ENGINES[:1])
def tree(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Every path of the image; the other engines' has the same bytes."""
    with Image.open(Path(built_by(request, request.param)["formats"]["squashfs"])) as image:
        return dict(image.walk())


# 1. Works read-only, with any UID, with $HOME bound over, with no network, with and without the entrypoint.


def test_python_and_the_repositorys_packages(inside: Inside) -> None:
    assert inside("python", "-c", "import six; print(six.__version__)") == "1.17.0\n"


def test_system_packages(inside: Inside) -> None:
    assert "tree" in inside("tree", "--version")


def test_a_notebook_runs(inside: Inside) -> None:
    notebook = inside(
        contract.ENTRYPOINT,
        f"{contract.SERVER_PREFIX}/bin/jupyter-nbconvert",
        *("--to", "notebook", "--execute", "--stdout", f"{contract.REPO_DIR}/notebook.ipynb"),
    )
    (cell,) = json.loads(notebook)["cells"]
    assert "".join(cell["outputs"][0]["text"]) == "1.17.0 by start /srv/repo\n"


# 2. Nothing it needs lies where sites bind over; the environment under /opt, the repository world-readable.


def test_nothing_lies_where_sites_bind_over(tree: dict[str, Any]) -> None:
    below = tuple(f"{folder}/" for folder in FORBIDDEN)
    files = {path for path, node in tree.items() if path.startswith(below) and node.kind != "directory"}
    # root's shell files come with Debian's base-files; nothing reads them.
    assert files <= {"root/.bashrc", "root/.profile"}


def test_everything_is_readable_for_everybody(tree: dict[str, Any]) -> None:
    for path, node in tree.items():
        if path.startswith(("opt/", "srv/")) and node.kind in ("file", "directory"):
            wanted = 0o555 if node.kind == "directory" else 0o444
            assert node.mode & wanted == wanted, path


def test_the_repository_is_there_as_it_was(inside: Inside) -> None:
    listing = inside("find", contract.REPO_DIR, "-mindepth", "1", "-maxdepth", "1", "-printf", "%P %M %l\n")
    assert set(listing.splitlines()) >= {
        "tool.sh -rwxr-xr-x ",
        "requirements.txt -rw-r--r-- ",
        "link lrwxrwxrwx data/values.txt",
        "far lrwxrwxrwx /scratch/somewhere",
        "built.txt -rw-r--r-- ",
    }
    assert ".git" not in listing


# 3. Activation is the image's environment; nothing of the host's user leaks in.


def test_the_environment_activates_and_names_nobody(inside: Inside, contract_image: dict[str, Any]) -> None:
    assert inside("which", "python") == "/opt/env/bin/python\n"
    image = json.loads(inside("cat", contract.MANIFEST))
    assert image["source"] == contract_image["source"]


def test_no_user_in_the_configuration(record: dict[str, Any]) -> None:
    assert not {"USER", "HOME", "LOGNAME"} & set(record["config"]["env"])


def test_the_persons_own_packages_and_profile_stay_out(inside: Inside, user: User) -> None:
    site = user.home / ".local/lib/python3.11/site-packages"
    user.run(["mkdir", "-p", site])
    user.run(["sh", "-c", f"echo 'raise SystemExit(7)' > {site}/six.py; echo 'exit 3' > {user.home}/.bash_profile"])
    assert inside("python", "-c", "import six; print(six.__file__)").startswith("/opt/env/")


# 4. Caches, runtime and configuration folders are writable.


def test_jupyters_and_friends_folders_are_writable(inside: Inside) -> None:
    program = (
        "import os, pathlib\n"
        "for name in ('JUPYTER_RUNTIME_DIR', 'IPYTHONDIR', 'MPLCONFIGDIR', 'NUMBA_CACHE_DIR', 'XDG_CACHE_HOME'):\n"
        "    folder = pathlib.Path(os.environ[name]); folder.mkdir(parents=True, exist_ok=True)\n"
        "    (folder / 'probe').write_text('x'); (folder / 'probe').unlink()\n"
        "pathlib.Path.home().joinpath('probe').write_text('x')\n"
        "print('ok')"
    )
    assert inside(contract.ENTRYPOINT, "python", "-c", program) == "ok\n"


# 5. `start` is honoured, for servers and kernels (the notebook above), once, and without an eval.


def test_start_and_arguments_as_they_are(inside: Inside) -> None:
    words = ["a b", "$HOME", "'", '"', "`id`", "*", "", "\\"]
    program = "import os, sys; print(os.environ['STARTED'], sys.argv[1:])"
    assert inside(contract.ENTRYPOINT, "python", "-c", program, *words) == f"by start {words}\n"


# 6. The server stands by itself and sees what the repository brings.


def test_the_server_has_its_own_environment(inside: Inside) -> None:
    assert inside(f"{contract.SERVER_PREFIX}/bin/jupyter-lab", "--version").strip()[0] == "4"
    assert inside(f"{contract.SERVER_PREFIX}/bin/jupyterhub-singleuser", "--version").strip()
    missing = inside("python", "-c", "import importlib.util as u; print(u.find_spec('jupyterlab'))")
    assert missing == "None\n"


def test_the_server_sees_the_repositorys_kernels_and_extensions(inside: Inside) -> None:
    bin_ = f"{contract.SERVER_PREFIX}/bin"
    kernels = json.loads(inside(contract.ENTRYPOINT, f"{bin_}/jupyter-kernelspec", "list", "--json"))["kernelspecs"]
    assert kernels["python3"]["resource_dir"].startswith(contract.ENV_PREFIX)
    assert kernels["second"]["spec"]["display_name"] == 'Second "kernel"'
    seen = inside("sh", "-c", f"{contract.ENTRYPOINT} {bin_}/jupyter-labextension list 2>&1")
    assert "hpcbinder-test v1.0.0" in seen


def test_jupyterlab_serves_the_repositorys_extension(inside: Inside) -> None:
    program = """
set -eu
cd /tmp 2>/dev/null || cd /
port=$(python -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
/opt/hpcbinder/bin/entrypoint /opt/jupyter/bin/jupyter-lab --no-browser --ip 127.0.0.1 --port $port --port-retries 0 \
    --IdentityProvider.token=secret --ServerApp.root_dir=/srv/repo --allow-root >&2 &
server=$!
trap 'kill $server' EXIT
python - $port <<'PY'
import asyncio, json, sys, time, urllib.request
from tornado.websocket import websocket_connect
base = f"http://127.0.0.1:{sys.argv[1]}"
def get(path):
    return urllib.request.urlopen(f"{base}{path}?token=secret", timeout=30).read().decode()
for _ in range(900):
    try:
        get("/api/status")
        break
    except OSError:
        time.sleep(0.2)
print(get("/hpcbinder-test"))
print("hpcbinder-test" in get("/lab/api/extensions"), '"second"' in get("/api/kernelspecs"))

async def terminal():
    # The server's standard output is no terminal, as in a job: its shells would be login shells, which set PATH anew.
    new = json.load(urllib.request.urlopen(f"{base}/api/terminals?token=secret", data=b"", timeout=30))
    address = f"ws{base.removeprefix('http')}/terminals/websocket/{new['name']}?token=secret"
    socket = await websocket_connect(address)
    await socket.write_message(json.dumps(["stdin", "command -v python | tr a-z A-Z\\r"]))
    said = ""
    while "/BIN/PYTHON" not in said:
        said += str(json.loads(await asyncio.wait_for(socket.read_message(), 60))[1:])
    return "/OPT/ENV/BIN/PYTHON" in said
print(asyncio.run(terminal()))
PY
"""
    assert inside("sh", "-c", program).splitlines() == ["the repository's extension", "True True", "True"]


def test_a_login_shell_finds_the_environment(inside: Inside) -> None:
    """Debian's /etc/profile sets PATH anew, whoever had set it."""
    program = 'command -v python; export PATH="/srv/repo/first of all:$PATH"; exec bash -lc \'echo "$PATH"\''
    python, path = inside("bash", "-lc", program).splitlines()
    assert python == f"{contract.ENV_PREFIX}/bin/python"
    places = path.split(":")
    assert places[:2] == ["/srv/repo/first of all", f"{contract.ENV_PREFIX}/bin"]
    # What the profile has and nobody else; and nothing twice.
    assert "/usr/games" in places[2:]
    assert len({*places}) == len(places)


@pytest.mark.heavy
def test_the_server_environment_is_the_same_layer_in_every_image(line: Any, contract_image: dict[str, Any]) -> None:
    other = line.build(line.repository("plain"))
    records = [json.loads(line.hpcbinder("show", i["id"], "--json").stdout) for i in (contract_image, other)]
    first, second = (record["config"]["diff_ids"] for record in records)
    shared = [a for a, b in zip(first, second, strict=False) if a == b]
    assert len(shared) >= 2
    assert first != second


# 7. A manifest and labels say what it is and how to make it again.


def test_the_manifest(inside: Inside, contract_image: dict[str, Any]) -> None:
    manifest = json.loads(inside("cat", contract.MANIFEST))
    assert manifest["commit"] == contract_image["commit"]
    assert {pack["name"] for pack in manifest["buildpacks"]} >= {"python", "apt", "postbuild", "start"}
    assert manifest["rebuild"].startswith("hpcbinder build ")
    packages = json.loads(inside("cat", f"{contract.PACKAGES_DIR}/python.json"))
    assert {"name": "six", "version": "1.17.0"} in packages


def test_labels(record: dict[str, Any], contract_image: dict[str, Any]) -> None:
    labels = record["config"]["labels"]
    assert labels["org.opencontainers.image.revision"] == contract_image["commit"]
    assert {"python", "debian", "server"} <= set(record["packages"])


def test_the_bill_of_materials_has_what_the_catalog_has(line: Any, contract_image: dict[str, Any]) -> None:
    record = json.loads(line.hpcbinder("show", contract_image["id"], "--json").stdout)
    sif = Path(contract_image["formats"]["sif"])
    components = json.loads(stored_sbom(sif))["components"]
    found = {(c["purl"].partition("/")[0], c["name"], c["version"]) for c in components if "purl" in c}
    for ecosystem, kind in (("python", "pkg:pypi"), ("server", "pkg:pypi"), ("debian", "pkg:deb")):
        same = r"[-_.]+" if kind == "pkg:pypi" else "$^"  # PEP 503
        listed = {(kind, re.sub(same, "-", p["name"]).lower(), p["version"]) for p in record["packages"][ecosystem]}
        assert listed and listed <= found
    assert inspect(sif)["squashfs"]["compressor"] == record["compression"]["name"].partition(":")[0]
