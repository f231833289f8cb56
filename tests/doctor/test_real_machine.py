"""`doctor` in the real environment: an ordinary user, with the rig's engine and runtimes."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from rig import Apptainer, Charliecloud, Dockerd, User


def test_an_ordinary_user_learns_what_is_there(
    user: User, dockerd: Dockerd, apptainer: Apptainer, charliecloud: Charliecloud
) -> None:
    user.clean()  # of what fixtures of others have had run as the same user
    path = f"{Path(apptainer.path).parent}:{Path(charliecloud.path).parent}:/usr/sbin:/usr/bin:/sbin:/bin"
    environment = {"PATH": path, "HPCBINDER_BUILD_DOCKERD": dockerd.host, "PYTHONDONTWRITEBYTECODE": "1"}
    done = user.run([sys.executable, "-m", "hpcbinder", "doctor", "--json"], env=environment, check=False)
    assert done.stderr == ""
    diagnosis = json.loads(done.stdout)
    found = {(finding["topic"], finding["name"]): finding for finding in diagnosis["findings"]}
    assert found["runtime", "apptainer"]["status"] == "ok"
    assert found["runtime", "apptainer"]["found"].endswith("; unprivileged")
    assert found["runtime", "charliecloud"]["found"].endswith("; mounts squashfs")
    assert found["system", "user namespaces"]["status"] == "ok"
    assert found["system", "subuid"]["status"] == "ok"
    assert diagnosis["cannot_run"] == ""
    # The daemon of the rig is root's alone.
    assert found["engine", "docker"]["status"] == "problem"
    assert "may not use" in found["engine", "docker"]["found"]
    assert list(user.home.iterdir()) == []
