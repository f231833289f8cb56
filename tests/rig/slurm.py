"""A Slurm cluster on one machine: a controller, and nodes that each have a network and processes of their own.

This machine is the login node: `sinfo`, `srun` and `sbatch` work here with `Slurm.environment`. Nodes reach it and each
other by one bridge, and nothing else. Each daemon sees accounts and host names of the rig's in mount namespaces of its
own, so that nothing in /etc changes. When a node's daemon ends, by request or by ``kill -9``, its jobs end with it.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import secrets
import shutil
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from . import packages
from .bridge import add_bridge, remove_bridge
from .process import Process, RigError, locked
from .user import IDS, account

PACKAGES = ("iproute2", "mount", "munge", "slurm-wlm", "util-linux")
# Its PMIx plugin loads a library by the name that only the development files have.
OPTIONAL = ("libpmix-dev",)
NODES = ("n1", "n2")
LOGIN = "login"
_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
_START_SECONDS = 60
_CONTROL_PORT = 16817
_NODE_PORT = 17001

# $1: host name, $2: folder of what is seen in /etc, $3: address of eth0 with its prefix, "" for the machine's network.
_INIT = """
set -eu
hostname "$1"
for name in passwd group hosts; do
    if [ -e "/etc/$name" ]; then mount --bind "$2/$name" "/etc/$name"; fi
done
if [ -n "$3" ]; then
    # A node's own, as it is elsewhere: Slurm's PMIx has a folder for each job there.
    mount -t tmpfs -o mode=1777 tmpfs /tmp
    mount -t tmpfs -o mode=1777 tmpfs /dev/shm
    until ip link show eth0 >/dev/null 2>&1; do sleep 0.02; done
    ip link set lo up
    ip address add "$3" dev eth0
    ip link set eth0 up
fi
shift 3
exec "$@"
"""

# Nodes say they have more cores than this machine, so that four ranks fit on them. Without an accounting database,
# which would be another server: accounts and qos are taken and not checked.
_CONFIGURATION = """\
ClusterName=rig
SlurmctldHost={login}({address})
SlurmctldPort={control_port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/run/munge.socket
CryptoType=crypto/munge
StateSaveLocation={folder}/state
SlurmctldPidFile={folder}/run/slurmctld.pid
SlurmdPidFile={folder}/run/slurmd-%n.pid
SlurmdSpoolDir={folder}/spool-%n
SlurmctldLogFile={folder}/log/slurmctld.log
SlurmdLogFile={folder}/log/slurmd-%n.log
SlurmctldDebug=info
SlurmdDebug=info
{tracking}
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
DefMemPerCPU=256
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_interval=2,bf_interval=2
PropagateResourceLimits=NONE
ReturnToService=2
MailProg=/bin/true
SlurmctldTimeout=30
SlurmdTimeout=60
KillWait=3
InactiveLimit=0
MinJobAge=300
SlurmdParameters=config_overrides
GresTypes=gpu
NodeName={nodes} NodeAddr={addresses} Port={node_port} CPUs=4 Sockets=1 CoresPerSocket=4 ThreadsPerCore=1 \
RealMemory=8000 State=UNKNOWN
PartitionName=debug Nodes=ALL Default=YES MaxTime=8:00:00 DefaultTime=30 State=UP
PartitionName=long Nodes=ALL MaxTime=INFINITE DefaultTime=60 State=UP
"""
_BY_CGROUP = "ProctrackType=proctrack/cgroup\nTaskPlugin=task/none\nJobAcctGatherType=jobacct_gather/none"
_BY_PARENT = "ProctrackType=proctrack/linuxproc\nTaskPlugin=task/none\nJobAcctGatherType=jobacct_gather/none"


class Slurm:
    """Debian's Slurm with a controller and two nodes.

    Args:
        folder: The rig's state folder.
    """

    name = "slurm"

    def __init__(self, folder: Path) -> None:
        self._users = folder / "users"
        self.folder = folder / "slurm"
        self._run = self.folder / "run"
        self._etc = self.folder / "etc"

    @property
    def configuration(self) -> Path:
        """slurm.conf."""
        return self.folder / "slurm.conf"

    @property
    def environment(self) -> dict[str, str]:
        """What Slurm's programs need to find this cluster."""
        return {"SLURM_CONF": str(self.configuration)}

    @property
    def hosts(self) -> Path:
        """An /etc/hosts that names the nodes and the login node."""
        return self._etc / "hosts"

    @property
    def address(self) -> str:
        """The login node's, as the nodes know it."""
        lines = (line.split() for line in self.hosts.read_text().splitlines())
        return next(address for address, name in lines if name == LOGIN)

    @property
    def bridge(self) -> str:
        """The name of its bridge device."""
        return f"hpcslrm-{self._tag}"

    @property
    def where(self) -> str:
        """How to use it, for a person."""
        return f"SLURM_CONF={self.configuration}"

    @property
    def up(self) -> bool:
        """Whether the controller and all nodes answer."""
        names = ("munged", "slurmctld", *(f"slurmd-{node}" for node in NODES))
        return all(self._process(name) for name in names) and self._ready() == len(NODES)

    @property
    def _tag(self) -> str:
        file = self._run / "tag"
        if not file.exists():
            file.write_text(secrets.token_hex(3))
        return file.read_text()

    def start(self) -> None:
        """Bring the cluster up, or find it up.

        Raises:
            RigError: Not root, a package cannot be had, or a daemon does not come up (with the end of its log).
        """
        if self.configuration.exists() and self.up:
            return
        if os.geteuid() != 0:
            raise RigError("a Slurm cluster for the tests needs root (run the same command with sudo)")
        packages.ensure(PACKAGES, optional=OPTIONAL)
        for name in ("", "run", "etc", "log", "state"):
            (self.folder / name).mkdir(mode=0o755, parents=True, exist_ok=True)
        with locked(self._run / "lock"):
            if self.configuration.exists() and self.up:
                return
            self._stop()
            subnet = add_bridge(self.bridge)
            self._write(subnet)
            self._start_munge()
            self._spawn("slurmctld", LOGIN, ["slurmctld", "-D", "-f", str(self.configuration)])
            for number, node in enumerate(NODES, start=1):
                (self.folder / f"spool-{node}").mkdir(mode=0o755, exist_ok=True)
                command = ["slurmd", "-D", "-f", str(self.configuration), "-N", node]
                self._spawn(f"slurmd-{node}", node, command, (number, f"{subnet[100 + number]}/{subnet.prefixlen}"))
            self._wait()

    def cancel(self, uid: int) -> None:
        """End a user's jobs, if the cluster is up: processes that are just killed leave allocations behind."""
        if self._process("slurmctld") is None:
            return
        env = {"PATH": _PATH, **self.environment}
        # scancel takes no user whom this machine does not know.
        squeue = ["squeue", "--noheader", "--all", "--format=%A %U"]
        done = subprocess.run(squeue, capture_output=True, text=True, timeout=60, env=env, check=False)
        numbers = {line.split()[0] for line in done.stdout.splitlines() if line.split()[1:] == [str(uid)]}
        if numbers:
            subprocess.run(["scancel", "--quiet", *numbers], capture_output=True, timeout=60, env=env, check=False)

    def stop(self) -> None:
        """End all jobs and daemons, and remove the bridge."""
        if self._run.is_dir():
            with locked(self._run / "lock"):
                self._stop()

    def _write(self, subnet: ipaddress.IPv4Network) -> None:
        addresses = {LOGIN: str(subnet[1]), **{node: str(subnet[101 + i]) for i, node in enumerate(NODES)}}
        hosts = ["127.0.0.1 localhost", *(f"{address} {name}" for name, address in addresses.items())]
        self.hosts.write_text("".join(f"{line}\n" for line in hosts))
        for name in ("passwd", "group"):
            # All accounts that tests may have, for jobs are run by daemons that were there before.
            lines = [account(self._users, uid)[name] for uid in IDS]
            self._etc.joinpath(name).write_text(Path("/etc", name).read_text().rstrip("\n") + "\n" + "".join(lines))
        freezer = os.access("/sys/fs/cgroup/freezer/cgroup.procs", os.W_OK)
        self.configuration.write_text(
            _CONFIGURATION.format(
                login=LOGIN,
                address=addresses[LOGIN],
                control_port=_CONTROL_PORT,
                folder=self.folder,
                tracking=_BY_CGROUP if freezer else _BY_PARENT,
                nodes=f"n[1-{len(NODES)}]",
                addresses=",".join(addresses[node] for node in NODES),
                node_port=_NODE_PORT,
            )
        )
        # Read from the folder of the slurm.conf given with -f (cgroup.conf(5)).
        constrain = "".join(f"Constrain{what}=no\n" for what in ("RAMSpace", "SwapSpace", "Cores", "Devices"))
        (self.folder / "cgroup.conf").write_text(f"CgroupPlugin=cgroup/v1\nCgroupAutomount=no\n{constrain}")

    def _start_munge(self) -> None:
        folder = self._run
        key = self.folder / "munge.key"
        if not key.exists():
            partial = key.with_suffix(".partial")
            partial.touch(mode=0o600)
            partial.write_bytes(secrets.token_bytes(1024))
            partial.replace(key)
        # Its seed and its log lie in a folder that only its owner may write to.
        files = [
            f"--{what}={folder}/munge.{what.removesuffix('-file')}" for what in ("pid-file", "log-file", "seed-file")
        ]
        self._spawn(
            "munged",
            LOGIN,
            ["munged", "--force", "--foreground", f"--key-file={key}", f"--socket={folder}/munge.socket", *files],
        )
        end = time.monotonic() + _START_SECONDS
        while not (folder / "munge.socket").exists():
            if self._process("munged") is None or time.monotonic() > end:
                self._fail("munged", folder / "munged.out")
            time.sleep(0.02)

    def _spawn(self, name: str, host: str, command: Sequence[str], node: tuple[int, str] | None = None) -> None:
        """Start a daemon; with a node's number and address in a network and with processes of its own."""
        own = ["--net", "--ipc", "--pid", "--fork", "--kill-child=SIGKILL", "--mount-proc"] if node else []
        program = shutil.which(command[0], path=_PATH)
        if program is None:
            raise RigError(f"{command[0]} is not where Debian puts it")
        argv = [
            *("/usr/bin/unshare", "--mount", "--propagation", "slave", "--uts", *own, "--"),
            *("/bin/sh", "-c", _INIT, "rig-init", host, str(self._etc), node[1] if node else "", program, *command[1:]),
        ]
        out = os.open(self._run / f"{name}.out", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
        null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        try:
            pid = os.posix_spawn(
                argv[0],
                argv,
                {"PATH": _PATH, "LANG": "C.UTF-8"},
                setsid=True,
                file_actions=[
                    (os.POSIX_SPAWN_DUP2, null, 0),
                    (os.POSIX_SPAWN_DUP2, out, 1),
                    (os.POSIX_SPAWN_DUP2, out, 2),
                ],
            )
        finally:
            os.close(out)
            os.close(null)
        with contextlib.suppress(ProcessLookupError):
            Process.of(pid).save(self._run / f"{name}.json")
        if node:
            self._connect(pid, node[0])

    def _connect(self, pid: int, number: int) -> None:
        """Give a new network namespace one end of a cable, once there is one."""
        end = time.monotonic() + _START_SECONDS
        mine = Path("/proc/self/ns/net").readlink()
        with contextlib.suppress(OSError):
            while Path(f"/proc/{pid}/ns/net").readlink() == mine and time.monotonic() < end:
                time.sleep(0.01)
        cable = f"hpcs{number}-{self._tag}"
        for arguments in (
            ["link", "add", cable, "type", "veth", "peer", "name", "eth0", "netns", str(pid)],
            ["link", "set", cable, "master", self.bridge, "up"],
        ):
            done = subprocess.run(["ip", *arguments], capture_output=True, text=True)
            if done.returncode != 0:
                raise RigError(f"cannot connect a node to the bridge: {done.stderr.strip()}")

    def _wait(self) -> None:
        end = time.monotonic() + _START_SECONDS
        while self._ready() < len(NODES):
            for name in ("slurmctld", *(f"slurmd-{node}" for node in NODES)):
                if self._process(name) is None:
                    self._fail(name, self.folder / "log" / f"{name}.log")
            if time.monotonic() > end:
                self._fail("slurmctld", self.folder / "log" / "slurmctld.log")
            time.sleep(0.1)

    def _fail(self, name: str, log: Path) -> None:
        texts = [file.read_text(errors="replace") for file in (self._run / f"{name}.out", log) if file.exists()]
        self._stop()
        lines = "\n".join("\n".join(texts).splitlines()[-15:])
        raise RigError(f"{name} did not come up here; the end of its log:\n{lines}")

    def _ready(self) -> int:
        """How many nodes take jobs."""
        sinfo = ["sinfo", "--noheader", "--Node", "--partition=debug", "--states=idle,alloc,mix", "--format=%N"]
        try:
            done = subprocess.run(
                sinfo, capture_output=True, text=True, timeout=10, env={"PATH": _PATH, **self.environment}
            )
        except (OSError, subprocess.TimeoutExpired):
            return 0
        return len(done.stdout.split())

    def _process(self, name: str) -> Process | None:
        return Process.load(self._run / f"{name}.json")

    def _stop(self) -> None:
        for name in (*(f"slurmd-{node}" for node in NODES), "slurmctld", "munged"):
            process = self._process(name)
            if process is not None:
                if name.startswith("slurmd"):
                    for child in process.children():
                        child.stop(3)  # PID 1 of its namespace: the node's jobs end with it
                process.stop(5)
            (self._run / f"{name}.json").unlink(missing_ok=True)
        if (self._run / "tag").exists():
            remove_bridge(self.bridge)
        # Jobs that ended with their node would be waited for by the next controller.
        shutil.rmtree(self.folder / "state", ignore_errors=True)
        (self.folder / "state").mkdir(mode=0o755, exist_ok=True)
        (self._run / "munge.socket").unlink(missing_ok=True)
