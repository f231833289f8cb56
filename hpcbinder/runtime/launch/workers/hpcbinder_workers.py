"""Dask and ipyparallel workers on other nodes, in the image that this runs in.

    from hpcbinder_workers import dask_cluster
    client = dask_cluster(workers=4).get_client()

    from hpcbinder_workers import ipyparallel_cluster
    clients = ipyparallel_cluster(4).start_and_connect_sync()

This file is put into the container from outside, where a helper submits the jobs; it needs Python 3.7 and what it is
asked for: distributed, or ipyparallel. Run as a program it stands in for Slurm's commands.
"""

# Also for Pythons that know less than ours.
# ruff: noqa: PTH109

from __future__ import annotations

import array
import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from typing import Any

__all__ = ["WorkersError", "cancel", "dask_cluster", "ipyparallel_cluster", "jobs"]

_SUFFIXES = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


class WorkersError(Exception):
    """It was not done; the text says why."""


def jobs() -> list[dict[str, str]]:
    """The jobs of this notebook's workers: job, state, nodes, reason (of waiting), and said (its last words once it is
    over).

    Raises:
        WorkersError: Slurm does not answer.
    """
    found: list[dict[str, str]] = _ask({"do": "jobs"})["jobs"]
    return found


def cancel(numbers: Sequence[str]) -> None:
    """End jobs of this notebook's workers.

    Raises:
        WorkersError: One is no such job, or Slurm does not answer.
    """
    _ask({"do": "cancel", "jobs": list(numbers)})


def dask_cluster(
    workers: int = 0,
    *,
    cores: int = 1,
    memory: str = "",
    host: str = "",
    dashboard: str | None = None,
    name: str = "",
    asked: dict[str, Any] | None = None,
    **more: Any,
) -> Any:
    """A Dask cluster whose workers are jobs of their own, in this image; its scheduler is in this process.

    What goes over the network is encrypted, and only who has the cluster's own key, made for it and kept in memory here
    and in a file that only you can read, may take part.

    Args:
        workers: How many there are at first; `.scale()` and `.adapt()` change it.
        cores: For each worker: so many threads.
        memory: For each worker: a number of MiB, or with K, M, G or T; "" for the site's default.
        host: Address of this machine that other nodes reach; found if it is not given.
        dashboard: Address and port of the dashboard, which asks nobody who he is: `127.0.0.1:8787`. None for none.
        name: Of the cluster.
        asked: What else a job is asked for: partition, time, gpus, account, qos, reservation, constraint.
        more: For `distributed.SpecCluster`.

    Returns:
        A `distributed.SpecCluster`.

    Raises:
        WorkersError: There is no helper, or it refuses; or no certificate can be made here.
    """
    import dask
    from distributed import Scheduler, SpecCluster

    security = _security()
    keys = security.get_tls_config_for_role("worker")
    values = {
        "python": sys.executable,
        "threads": str(cores),
        "memory": str(_bytes(memory)) if memory else "auto",
        "authority": keys["ca_file"],
        "certificate": keys["cert"],
        "key": keys["key"],
    }
    worker = {
        "cls": _dask_job(),
        "options": {"values": values, "asked": {"cpus": cores, "memory": memory, **(asked or {})}},
    }
    scheduler = {
        "cls": Scheduler,
        "options": {
            "host": host or _ask({"do": "hello"})["address"],
            "port": 0,
            "protocol": "tls://",
            "security": security,
            "dashboard": dashboard is not None,
            "dashboard_address": dashboard or "127.0.0.1:0",
        },
    }
    routes: dict[str, Any] = {} if dashboard else {"distributed.scheduler.http.routes": []}
    with dask.config.set(routes):
        cluster = SpecCluster(
            workers={}, scheduler=scheduler, worker=worker, security=security, name=name or None, **more
        )
    if workers:
        cluster.scale(workers)
    return cluster


def ipyparallel_cluster(
    n: int,
    *,
    cores: int = 1,
    memory: str = "",
    host: str = "",
    asked: dict[str, Any] | None = None,
    **more: Any,
) -> Any:
    """An ipyparallel cluster whose engines are the tasks of a job, in this image; its controller is here.

    What goes over the network is encrypted (CurveZMQ), and signed.

    Args:
        n: How many engines.
        cores: For each engine.
        memory: For each node: a number of MiB, or with K, M, G or T; "" for the site's default.
        host: Address of this machine that other nodes reach; found if it is not given.
        asked: What else the job is asked for: nodes, partition, time, gpus, account, qos, reservation, constraint.
        more: For `ipyparallel.Cluster`.

    Returns:
        An `ipyparallel.Cluster`, not started yet: `.start_and_connect_sync()` does that, and waits for the engines up
        to its `engine_timeout`, an hour here.

    Raises:
        WorkersError: There is no helper, or it refuses.
    """
    import ipyparallel
    from traitlets.config import Config

    address = host or _ask({"do": "hello"})["address"]
    engines = _engines({"tasks": n, "cpus": cores, "memory": memory, **(asked or {})})
    config = Config(more.pop("config", {}))
    # Both together: a key of its own for each end, and one that all of this cluster have.
    config.LocalControllerLauncher.environment = {"IPP_ENABLE_CURVE": "1", "IPP_SESSION_KEY": os.urandom(32).hex()}
    values = {"n": n, "engine_timeout": 3600, "cluster_file": "", "controller_ip": address}
    return ipyparallel.Cluster(engines=engines, controller_location=address, config=config, **{**values, **more})


def _ask(request: dict[str, Any], descriptors: Sequence[int] = ()) -> dict[str, Any]:
    path = os.environ.get("HPCBINDER_HELPER", "")
    if not path:
        raise WorkersError(
            "there is no way to the batch system from here: see slurm.inside in hpcbinder's configuration"
        )
    text = json.dumps(request).encode() + b"\n"
    with socket.socket(socket.AF_UNIX) as connection:
        try:
            connection.connect(path)
            carried = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
            sent = connection.sendmsg([text], carried)
            if sent < len(text):
                connection.sendall(text[sent:])
            with connection.makefile("rb") as answers:
                answer = json.loads(answers.readline())
        except (OSError, ValueError) as error:
            raise WorkersError(f"hpcbinder's helper does not answer: {error}") from error
    if "refused" in answer:
        raise WorkersError(answer["refused"])
    return dict(answer)


def _bytes(memory: str) -> int:
    suffix = memory[-1:].upper()
    number = memory[:-1] if suffix in _SUFFIXES else memory
    if not number.isdigit():
        raise WorkersError(f"not an amount of memory, such as 4G: {memory[:80]!r}")
    return int(number) * _SUFFIXES.get(suffix, 1 << 20)


def _security() -> Any:
    """Keys of one cluster: made by Dask, which takes a package for that, or by openssl."""
    from distributed.security import Security

    try:
        return Security.temporary()
    except ImportError:
        pass
    with tempfile.TemporaryDirectory() as folder:
        key, certificate, settings = (os.path.join(folder, name) for name in ("key", "certificate", "settings"))  # noqa: PTH118
        with open(settings, "w") as file:  # noqa: PTH123
            file.write("[req]\ndistinguished_name=name\nx509_extensions=own\n[name]\n[own]\n")
            file.write("basicConstraints=critical,CA:TRUE\nsubjectKeyIdentifier=hash\n")
        command = ["openssl", "req", "-x509", "-nodes", "-newkey", "rsa:2048", "-sha256", "-days", "365"]
        command += ["-subj", "/CN=dask-internal", "-config", settings, "-keyout", key, "-out", certificate]
        try:
            subprocess.run(command, check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError) as error:
            raise WorkersError("no keys for the cluster: the image has neither cryptography nor openssl") from error
        with open(key) as one, open(certificate) as other:  # noqa: PTH123
            secret, public = one.read(), other.read()
    roles = {f"tls_{role}_key": secret for role in ("client", "scheduler", "worker")}
    roles.update({f"tls_{role}_cert": public for role in ("client", "scheduler", "worker")})
    return Security(require_encryption=True, tls_ca_file=public, **roles)


def _dask_job() -> Any:
    import asyncio

    from distributed.deploy.spec import ProcessInterface

    class Job(ProcessInterface):  # type: ignore[misc]
        """A worker, which is a job."""

        def __init__(self, scheduler: str, name: Any, values: dict[str, str], asked: dict[str, Any]) -> None:
            super().__init__(scheduler=scheduler, name=name)
            self.name = name
            self.job = ""
            values = {**values, "scheduler": scheduler, "name": str(name)}
            self._request = {"do": "start", "kind": "dask", "values": values, "asked": asked}

        async def start(self) -> None:
            answer = await asyncio.get_event_loop().run_in_executor(None, _ask, self._request)
            self.job = answer["job"]
            await super().start()

        async def close(self) -> None:
            if self.job:
                with contextlib.suppress(WorkersError):  # it may have ended by itself
                    await asyncio.get_event_loop().run_in_executor(None, _ask, {"do": "cancel", "jobs": [self.job]})
            await super().close()

    return Job


def _engines(asked: dict[str, Any]) -> Any:
    from ipyparallel.cluster.launcher import EngineLauncher

    class HpcbinderEngineSetLauncher(EngineLauncher):  # type: ignore[misc]
        """Engines as the tasks of one job."""

        def find_args(self) -> list[str]:
            return list(self.engine_cmd)

        def start(self, n: int) -> str:
            self.n = n
            known = self.get_env()
            values = {
                "python": sys.executable,
                "cluster": known["IPP_CLUSTER_ID"],
                "connection": known["IPP_CONNECTION_INFO"],
            }
            request = {"do": "start", "kind": "ipyparallel", "values": values, "asked": {**asked, "tasks": n}}
            self.job = str(_ask(request)["job"])
            self.notify_start(self.job)
            return self.job

        def stop(self) -> None:
            _ask({"do": "cancel", "jobs": [self.job]})
            self.notify_stop({"job": self.job})

        def poll(self) -> None:
            return None

    return HpcbinderEngineSetLauncher


def _command(argv: Sequence[str]) -> int:
    """Stand in for a command of Slurm's."""
    try:
        return int(_ask({"do": "command", "argv": list(argv), "cwd": os.getcwd()}, (0, 1, 2))["code"])
    except WorkersError as error:
        print(f"{argv[0]}: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(_command(sys.argv[1:]))
