"""`build --push`, and then what others do with what lies in the registry: pull it and run its notebook."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import pytest

from hpcbinder import contract
from images import Line
from rig import Apptainer, Builder, Dockerd, Registry, User

pytestmark = pytest.mark.heavy

NOTEBOOK = (
    contract.ENTRYPOINT,
    f"{contract.SERVER_PREFIX}/bin/jupyter-nbconvert",
    *("--to", "notebook", "--execute", "--stdout", f"{contract.REPO_DIR}/notebook.ipynb"),
)
PRINTED = "1.17.0 by start /srv/repo\n"
# An OCI runtime, with all that it can take away.
BARE = ("run", "--rm", "--read-only", "--network", "none", "--user", "12345:54321")


@pytest.fixture(scope="module")
def pushed(line: Line, contract_image: dict[str, Any], registry: Registry) -> dict[str, str]:
    """`reference` and `digest` of tests/repos/contract in the registry; the build itself is `contract_image`'s."""
    place = f"{registry.host}/line/contract"
    built = line.build(line.repository("contract"), "--push", place)
    assert built["id"] == contract_image["id"]
    result = built["pushed"]
    assert result["reference"] == f"{place}:{built['id'].rpartition('-')[2]}"
    assert built["timings"]["push"] > 0
    again = json.loads(line.hpcbinder("push", built["id"], place, "--json").stdout)
    assert again == {"id": built["id"], **result}
    record = json.loads(line.hpcbinder("show", built["id"], "--json").stdout)
    assert record["pushed"] == {result["reference"]: result["digest"]}
    return dict(result)


def executed(output: str) -> str:
    """What the notebook's cells printed."""
    cells = json.loads(output)["cells"]
    return "".join(text for cell in cells for out in cell.get("outputs", ()) for text in out.get("text", ()))


def test_docker_pulls_and_runs_it(line: Line, dockerd: Dockerd, pushed: dict[str, str]) -> None:
    def docker(*arguments: str) -> str:
        command = [dockerd.client, *arguments]
        done = subprocess.run(command, env=line.environment, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stderr
        return done.stdout

    reference = pushed["reference"]
    docker("pull", "--quiet", reference)
    try:
        about = json.loads(docker("inspect", reference))[0]
        assert f"{reference.rpartition(':')[0]}@{pushed['digest']}" in about["RepoDigests"]
        # The very layers of the engine that built it: whoever has them pulls only what is new.
        image = line.hpcbinder("list", "--json").stdout
        name = next(entry["image"]["name"] for entry in json.loads(image) if entry["id"].startswith("contract-"))
        assert about["RootFS"]["Layers"] == json.loads(docker("inspect", name))[0]["RootFS"]["Layers"]
        assert executed(docker(*BARE, "--entrypoint", NOTEBOOK[0], reference, *NOTEBOOK[1:])) == PRINTED
    finally:
        docker("rmi", reference)


def test_podman_pulls_and_runs_it_as_an_ordinary_user(builder: Builder, pushed: dict[str, str]) -> None:
    reference = pushed["reference"]
    builder.run(["podman", "pull", "--quiet", "--tls-verify=false", reference], timeout=600)
    try:
        command = ["podman", *BARE, "--pull=never", "--read-only-tmpfs=false", "--entrypoint", NOTEBOOK[0]]
        assert executed(builder.run([*command, reference, *NOTEBOOK[1:]]).stdout) == PRINTED
    finally:
        builder.run(["podman", "rmi", reference])


def test_apptainer_pulls_and_runs_it_as_an_ordinary_user(
    apptainer: Apptainer, user: User, pushed: dict[str, str]
) -> None:
    sif = user.home / "contract.sif"
    user.run([apptainer.path, "-q", "pull", "--no-https", sif, f"docker://{pushed['reference']}"], timeout=900)
    assert executed(user.run([apptainer.path, "-s", "exec", sif, *NOTEBOOK], network=False).stdout) == PRINTED
