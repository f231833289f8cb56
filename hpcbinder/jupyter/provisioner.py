"""A kernel in a job of its own, on whichever node the scheduler finds.

For Jupyter Server and all else that starts kernels by jupyter_client, whose kernelspec says
`"kernel_provisioner": {"provisioner_name": "hpcbinder-slurm"}` (jupyter_client, docs/provisioning.rst). What runs here
and on the node is the launcher in the kernelspec's folder (`hpcbinder.runtime.launch`, `job` and `node`).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import queue
import signal
import subprocess
import threading
import time
from collections import deque
from typing import IO, Any

from jupyter_client.connect import KernelConnectionInfo
from jupyter_client.provisioning.provisioner_base import KernelProvisionerBase
from traitlets import Float

_PLACE = ("ip", "shell_port", "iopub_port", "stdin_port", "control_port", "hb_port")
_LOOK = 5.0
"""Seconds between two looks at the queue."""
_END = 10.0
"""Seconds that a job has to end by itself."""


class SlurmProvisioner(KernelProvisionerBase):
    """Starts a kernel in a Slurm job, and ends the job with the kernel.

    A kernel that is started again stays in its job, on its node, with its ports. The job ends when the kernel is shut
    down, and with the program that asked for it, however that ends.
    """

    start_timeout = Float(3600.0, help="Seconds a kernel may wait in the queue before it is given up.").tag(config=True)

    _process: subprocess.Popen[bytes] | None = None
    _answers: queue.SimpleQueue[dict[str, Any]]
    _said: deque[str]
    _code: int | None = None
    _started = False
    _where: dict[str, Any] | None = None
    connection_info: KernelConnectionInfo

    @property
    def _manager(self) -> Any:
        return self.parent

    @property
    def has_process(self) -> bool:
        return self._started

    async def pre_launch(self, **kwargs: Any) -> dict[str, Any]:
        manager = self._manager
        kwargs.pop("extra_arguments", None)
        kwargs.pop("transport_encryption", None)
        supports = getattr(manager, "_kernel_supports_curve_encryption", lambda: False)()
        policy = str(getattr(manager, "transport_encryption", "disabled"))
        if supports:
            # What crosses a network that others use is encrypted wherever both ends can.
            import zmq

            if manager.curve_publickey is None:
                manager.curve_publickey, manager.curve_secretkey = zmq.curve_keypair()
        elif policy == "required":
            raise RuntimeError("encryption is required, and this kernel knows none")
        else:
            self.log.warning(
                "Kernel %s is on another node, and knows no encryption: what it is told and says is signed, and can be "
                "read by whoever reads the cluster's network.",
                self.kernel_id,
            )
        return dict(await super().pre_launch(cmd=list(self.kernel_spec.argv), **kwargs))

    async def launch_kernel(self, cmd: list[str], **kwargs: Any) -> KernelConnectionInfo:
        self._code = None
        if self._process is None or self._process.poll() is not None:
            self._open(kwargs)
        self._tell({"start": self._connection()})
        begin = looked = time.monotonic()
        state = ""
        while True:
            answer = self._take()
            if answer is None:
                if self._process is None or self._process.poll() is not None:
                    raise RuntimeError(f"the job ended before the kernel started: {self._last_words()}")
                now = time.monotonic()
                if now - begin > self.start_timeout:
                    await self._give_up()
                    raise RuntimeError(f"no node for the kernel within {self.start_timeout:.0f} s: {state or 'no job'}")
                if now - looked > _LOOK:
                    looked = now
                    state = await self._look(state)
                await asyncio.sleep(0.02)
            elif "failed" in answer:
                await self._give_up()
                raise RuntimeError(f"the kernel cannot be started there: {answer['failed']}")
            elif "started" in answer:
                break
        place = {name: answer["started"][name] for name in _PLACE}
        self._started = True
        self._where = place
        known: KernelConnectionInfo = self._manager.get_connection_info()
        known.update({**place, "transport": "tcp"})  # type: ignore[typeddict-item]
        self.connection_info = known
        return self.connection_info

    def _connection(self) -> dict[str, Any]:
        """The connection file but for the place, which the node knows."""
        known = self._manager.get_connection_info()
        wanted = {
            name: known[name] for name in ("signature_scheme", "curve_publickey", "curve_secretkey") if name in known
        }
        return {**wanted, "key": known["key"].decode(), "kernel_name": self._manager.kernel_name}

    def _open(self, kwargs: dict[str, Any]) -> None:
        """Ask for a job."""
        start = list(self.kernel_spec.argv)
        self._answers, self._said, self._where = queue.SimpleQueue(), deque(maxlen=20), None
        self._process = subprocess.Popen(
            [*start, "--job", self._name],
            env=kwargs.get("env"),
            cwd=kwargs.get("cwd"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        for pipe, take in ((self._process.stdout, self._answered), (self._process.stderr, self._heard)):
            threading.Thread(target=_read, args=(pipe, take), daemon=True).start()

    @property
    def _name(self) -> str:
        """The job's, by which it is found in the queue."""
        return f"hpcbinder-kernel-{self.kernel_id}"

    def _answered(self, line: str) -> None:
        with contextlib.suppress(ValueError):
            answer = json.loads(line)
            if isinstance(answer, dict):
                self._answers.put(answer)

    def _heard(self, line: str) -> None:
        self._said.append(line)
        os.write(2, line.encode() + b"\n")

    def _take(self) -> dict[str, Any] | None:
        try:
            answer = self._answers.get_nowait()
        except queue.Empty:
            return None
        if "ended" in answer:
            self._code = int(answer["ended"])
        return answer

    def _tell(self, command: dict[str, Any]) -> None:
        process = self._process
        if process is not None and process.stdin is not None and not process.stdin.closed:
            with contextlib.suppress(BrokenPipeError):
                process.stdin.write(json.dumps(command).encode() + b"\n")
                process.stdin.flush()

    def _last_words(self) -> str:
        return " | ".join(list(self._said)[-3:]) or "it said nothing"

    async def _look(self, before: str) -> str:
        """Say how the job stands in the queue, where that has changed."""
        queued = ["squeue", "--noheader", f"--name={self._name}", "--format=%i %T %r %S"]
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            done = await asyncio.to_thread(
                subprocess.run, queued, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30
            )
            job, _, rest = done.stdout.strip().partition(" ")
            state = f"job {job}: {rest}" if job else before
            if state != before:
                self.log.info(
                    "Kernel %s waits for a node (job, state, reason, expected start): %s", self.kernel_id, state
                )
            return state
        return before

    async def poll(self) -> int | None:
        if not self._started:
            return 0
        while self._take() is not None:
            pass
        if self._code is None and self._process is not None:
            self._code = self._process.poll()
        return self._code

    async def wait(self) -> int | None:
        while (code := await self.poll()) is None:
            await asyncio.sleep(0.05)
        self._started = False
        return code

    async def send_signal(self, signum: int) -> None:
        if signum == signal.SIGKILL:
            self._tell({"kill": True})
        elif signum:
            self._tell({"signal": int(signum)})

    async def kill(self, restart: bool = False) -> None:
        await self.send_signal(signal.SIGKILL)

    async def terminate(self, restart: bool = False) -> None:
        await self.send_signal(signal.SIGTERM)

    async def cleanup(self, restart: bool = False) -> None:
        if not restart:
            await self._give_up()

    async def _give_up(self) -> None:
        """End the job, in the queue or on its node."""
        process, self._process = self._process, None
        self._started = False
        if process is None:
            return
        if process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                process.stdin.close()
        if self._where is None:
            process.terminate()  # nobody reads the end of input in the queue
        end = time.monotonic() + _END
        while process.poll() is None:
            if time.monotonic() > end:
                process.terminate()
                end = time.monotonic() + _END
            await asyncio.sleep(0.02)

    def get_shutdown_wait_time(self, recommended: float = 5.0) -> float:
        return max(recommended, _END)

    async def get_provisioner_info(self) -> dict[str, Any]:
        return {**await super().get_provisioner_info(), "job_name": self._name}


def _read(pipe: IO[bytes] | None, take: Any) -> None:
    if pipe is not None:
        with pipe:
            for line in pipe:
                take(line.decode(errors="replace").rstrip("\n"))
