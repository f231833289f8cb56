"""A JupyterHub on the login node: the real hub, its real proxy, batchspawner, and the accounts alice and bob.

The hub runs as root, in a mount namespace where these accounts and the cluster's host names exist; nodes reach its API
by the cluster's bridge. It imports hpcbinder from this checkout. Packages of Python and of Node.js are below the rig's
folder, made once.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import secrets
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from . import packages
from .apptainer import Apptainer
from .hubware import CONFIGURATION, proxy_command, python
from .process import Process, RigError, locked
from .slurm import Slurm
from .user import IDS, User, abandoned, account, end

PACKAGES = ("python3", "mount", "util-linux")
ACCOUNTS = ("alice", "bob")
PASSWORD = "a password of the rig"
_ROOT = Path(__file__).parents[2]
_START_SECONDS = 120
_PATH = "/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

# $1: folder of what is seen in /etc.
_ENTER = """
set -eu
for name in passwd group hosts; do
    if [ -e "/etc/$name" ]; then mount --bind "$1/$name" "/etc/$name"; fi
done
shift
exec "$@"
"""


class Hub:
    """A JupyterHub with its proxy, on the rig's Slurm.

    Args:
        folder: The rig's state folder.
        slurm: The cluster.
        apptainer: What runs images on its nodes.
        tag: Name of this one: several run side by side, each with accounts, ports and a database of its own.
    """

    name = "hub"

    def __init__(self, folder: Path, slurm: Slurm, apptainer: Apptainer, tag: str = "main") -> None:
        self._rig = folder
        self._cache = folder / "hub"
        self.folder = self._cache / tag
        self._etc = self.folder / "etc"
        self._private = self.folder / "private"
        self.slurm = slurm
        self.apptainer = apptainer
        self.accounts: dict[str, User] = {}

    @property
    def store(self) -> Path:
        """The site's store of images, which the hub offers."""
        return self.folder / "store"

    @property
    def images(self) -> Path:
        """Another store that it offers, of all hubs of this rig: a cache."""
        return self._cache / "images"

    @property
    def log(self) -> Path:
        """What the hub says."""
        return self._private / "hub.log"

    @property
    def url(self) -> str:
        """Where a browser finds it, without a slash at the end."""
        return f"http://127.0.0.1:{self._state['port']}"

    @property
    def token(self) -> str:
        """Of a service that may do everything."""
        return str(self._state["token"])

    @property
    def api(self) -> str:
        """Its API, as nodes reach it; where that speaks TLS with its own servers alone, as browsers do."""
        if self._state.get("tls"):
            return f"{self.url}/hub/api"
        return f"http://{self._state['address']}:{self._state['api_port']}/hub/api"

    @property
    def where(self) -> str:
        """How to use it, for a person."""
        if not self._settings.exists():
            return str(self.folder)
        return f"{self.url} (alice or bob, '{PASSWORD}'; images: {self.store})"

    @property
    def up(self) -> bool:
        """Whether the hub answers."""
        return self._process is not None and self._answers()

    @property
    def _settings(self) -> Path:
        return self._private / "rig.json"

    @property
    def _state(self) -> dict[str, Any]:
        state: dict[str, Any] = json.loads(self._settings.read_text())
        return state

    @property
    def _process(self) -> Process | None:
        return Process.load(self.folder / "hub.json")

    def start(self, *, lines: Sequence[str] = (), settings: Mapping[str, object] | None = None) -> None:
        """Bring it up, or find it up.

        Args:
            lines: Python, for the end of its jupyterhub_config.py.
            settings: What `hpcbinder.jupyterhub.configure` is told.

        Raises:
            RigError: Not root, a package cannot be had, or it does not come up (with the end of its log).
        """
        if self.up:
            return
        if os.geteuid() != 0:
            raise RigError("a JupyterHub for the tests needs root (run the same command with sudo)")
        packages.ensure(PACKAGES)
        self.slurm.start()
        self.apptainer.start()
        self._cache.mkdir(mode=0o755, parents=True, exist_ok=True)
        with locked(self._cache / "lock"):
            venv = python(self._cache)
            proxy = proxy_command(self._cache, venv)
        self._sweep()
        for folder, mode in ((self.folder, 0o755), (self._etc, 0o755), (self._private, 0o700)):
            folder.mkdir(mode=mode, exist_ok=True)
        for store in (self.store, self.images):
            store.mkdir(mode=0o755, exist_ok=True)
        for name in ACCOUNTS:
            if name not in self.accounts:
                self.accounts[name] = User(self._rig, name=name)
        self._write_accounts()
        ports = _free_ports(3)
        self._write(
            {
                "port": ports[0],
                "proxy_port": ports[1],
                "api_port": ports[2],
                "address": self.slurm.address,
                "private": str(self._private),
                "token": secrets.token_hex(32),
                "proxy_token": secrets.token_hex(32),
                "password": PASSWORD,
                "accounts": {name: user.uid for name, user in self.accounts.items()},
                "proxy": proxy,
                "python": str(venv / "bin" / "python"),
                "settings": dict(settings or {}),
                "lines": list(lines),
                "release": "6",
                "tls": False,
            }
        )
        self._launch()

    def restart(
        self,
        *,
        lines: Sequence[str] | None = None,
        settings: Mapping[str, object] | None = None,
        release: str | None = None,
        tls: bool | None = None,
    ) -> None:
        """Stop the hub alone and start it again: servers of persons go on, as a site has it.

        Args:
            lines: As `start` has it; the same as before when None.
            settings: Likewise.
            release: Major version of JupyterHub (`hubware.RELEASES`), each with a database of its own; likewise.
            tls: Whether its internal TLS is on; likewise.
        """
        self._end()
        state = self._state
        changed = {"lines": lines, "settings": settings, "release": release, "tls": tls}
        state.update({name: value for name, value in changed.items() if value is not None})
        with locked(self._cache / "lock"):
            state["python"] = str(python(self._cache, state["release"]) / "bin" / "python")
        self._write(state)
        self._launch()

    def stop(self) -> None:
        """End the hub, its proxy, and the servers of its persons, and remove what was theirs."""
        self._end()
        for user in self.accounts.values():
            self.slurm.cancel(user.uid)
            user.close()
        self.accounts = {}
        # Of a hub whose process that brought it up is gone.
        for uid in self._state["accounts"].values() if self._settings.exists() else ():
            with abandoned(uid) as alone:
                if alone:
                    self.slurm.cancel(uid)
                    end(uid)
                    shutil.rmtree(self._rig / "users" / str(uid), ignore_errors=True)
        shutil.rmtree(self.folder, ignore_errors=True)

    def clear(self, name: str) -> None:
        """End a person's servers, whatever state they are in, and empty the home."""
        for server in self.servers(name):
            self.request("DELETE", f"/users/{name}/servers/{server}")
        for _ in range(600):
            if not any(model["pending"] or model["ready"] for model in self.servers(name).values()):
                break
            time.sleep(0.1)
        self.slurm.cancel(self.accounts[name].uid)
        self.accounts[name].clean()

    def servers(self, name: str) -> dict[str, Any]:
        """A person's servers, by name: models of the hub's API; those that are stopped too."""
        status, user = self.request("GET", f"/users/{name}?include_stopped_servers=1")
        found: dict[str, Any] = user["servers"] if status == 200 else {}
        return found

    def request(
        self, method: str, path: str, body: object = None, *, token: str | None = None, api: str | None = None
    ) -> tuple[int, Any]:
        """Ask the hub's API.

        Args:
            method: Of HTTP.
            path: Below `/hub/api`.
            body: JSON of the request; bytes as they are; None for none.
            token: Whose; the rig's own when None.
            api: Where, `api` when None.

        Returns:
            The status, and what was answered: JSON, or text where it is none.
        """
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        headers = {"Authorization": f"token {self.token if token is None else token}"}
        request = urllib.request.Request(f"{api or self.api}{path}", data, headers, method=method)
        try:
            with _direct().open(request, timeout=120) as answer:
                status, text = answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            status, text = error.code, error.read().decode(errors="replace")
        try:
            return status, json.loads(text or "null")
        except ValueError:
            return status, text

    def token_of(self, name: str, **body: object) -> str:
        """A new API token of a person, with all that the person may do unless `scopes` says less."""
        status, answer = self.request("POST", f"/users/{name}/tokens", {"note": "rig", **body})
        if status == 404:
            self.request("POST", f"/users/{name}")
            status, answer = self.request("POST", f"/users/{name}/tokens", {"note": "rig", **body})
        if status not in (200, 201):
            raise RigError(f"no token for {name}: {status} {answer}")
        return str(answer["token"])

    def _write_accounts(self) -> None:
        for name in ("passwd", "group"):
            # Those that jobs run as, too, for a job's environment may name them.
            others = [account(self._rig / "users", uid)[name] for uid in IDS]
            own = [user.lines[name] for user in self.accounts.values()]
            (self._etc / name).write_text(Path("/etc", name).read_text().rstrip("\n") + "\n" + "".join([*own, *others]))
        shutil.copy(self.slurm.hosts, self._etc / "hosts")

    def _write(self, state: Mapping[str, Any]) -> None:
        partial = self._settings.with_suffix(".partial")
        partial.touch(mode=0o600)
        partial.write_text(json.dumps(state))
        partial.replace(self._settings)
        (self._private / "jupyterhub_config.py").write_text(CONFIGURATION)

    def _launch(self) -> None:
        state = self._state
        venv = Path(state["python"]).parents[1]
        argv = [
            *("/usr/bin/unshare", "--mount", "--propagation", "slave", "--"),
            *("/bin/sh", "-c", _ENTER, "rig-hub", str(self._etc)),
            *(state["python"], "-m", "jupyterhub", "-f", str(self._private / "jupyterhub_config.py")),
        ]
        environ = {
            "PATH": f"{venv / 'bin'}:{self.apptainer.bin}:{_PATH}",
            "LANG": "C.UTF-8",
            "HOME": str(self._private),
            "PYTHONPATH": str(_ROOT),
            "PYTHONDONTWRITEBYTECODE": "1",
            "CONFIGPROXY_AUTH_TOKEN": state["proxy_token"],
            "HPCBINDER_RIG_HUB": str(self._settings),
            "HPCBINDER_STORE_SITE": f"{self.store}:{self.images}",
            **self.slurm.environment,
        }
        locks = [user.lock for user in self.accounts.values()]
        with self.log.open("ab") as log:
            # In a session of its own, and with the locks that keep the accounts' ids: it outlives who started it.
            process = subprocess.Popen(
                argv,
                env=environ,
                cwd=self._private,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                pass_fds=locks,
            )
        Process.of(process.pid).save(self.folder / "hub.json")
        Process.of(os.getpid()).save(self.folder / "owner.json")
        end = time.monotonic() + _START_SECONDS
        while not self._answers():
            if process.poll() is not None or time.monotonic() > end:
                lines = "\n".join(self.log.read_text(errors="replace").splitlines()[-25:])
                self._end()
                raise RigError(f"the hub did not come up here; the end of its log:\n{lines}")
            time.sleep(0.05)

    def _answers(self) -> bool:
        try:
            # Through the proxy: both are there.
            with _direct().open(f"{self.url}/hub/api", timeout=5) as answer:
                return bool(answer.status == 200)
        except (OSError, http.client.HTTPException, ValueError):
            return False

    def _end(self) -> None:
        process = self._process
        if process is not None:
            children = process.children()
            process.stop(30)
            for child in children:
                child.stop(5)
        (self.folder / "hub.json").unlink(missing_ok=True)

    def _sweep(self) -> None:
        """End hubs of tests that were killed."""
        for owner in self._cache.glob("tests-*/owner.json"):
            if Process.load(owner) is None:
                with contextlib.suppress(OSError, ValueError):
                    Hub(self._rig, self.slurm, self.apptainer, owner.parent.name).stop()


def _direct() -> urllib.request.OpenerDirector:
    return urllib.request.build_opener(urllib.request.ProxyHandler({}))


def _free_ports(count: int) -> list[int]:
    held = []
    for _ in range(count):
        listener = socket.socket()
        listener.bind(("", 0))
        held.append(listener)
    ports = [listener.getsockname()[1] for listener in held]
    for listener in held:
        listener.close()
    return ports
