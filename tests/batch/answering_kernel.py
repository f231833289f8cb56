"""A kernel that executes nothing: it answers a cell at once, never (`forever`), or prints without an end (`prints`).
`python answering_kernel.py CONNECTION-FILE`; messages are those of Jupyter's protocol 5.3."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import zmq
from jupyter_client.session import Session

LANGUAGE = {"name": "python", "version": "3", "mimetype": "text/x-python", "file_extension": ".py"}


class Answering:
    def __init__(self, info: dict[str, Any]) -> None:
        self.session = Session(key=info["key"].encode(), signature_scheme=info["signature_scheme"])
        self.context = zmq.Context()
        ports = ("shell", "control", "hb", "stdin")
        self.shell, self.control, self.beat, self.stdin = (self.bound(info, port, zmq.ROUTER) for port in ports)
        self.iopub = self.bound(info, "iopub", zmq.PUB)
        self.printing: dict[str, Any] | None = None

    def bound(self, info: dict[str, Any], port: str, kind: int) -> Any:
        socket = self.context.socket(kind)
        socket.bind(f"{info['transport']}://{info['ip']}:{info[f'{port}_port']}")
        return socket

    def serve(self) -> None:
        poller = zmq.Poller()
        for socket in (self.shell, self.control, self.beat):
            poller.register(socket, zmq.POLLIN)
        parent = os.getppid()
        while os.getppid() == parent:
            ready = dict(poller.poll(1000 if self.printing is None else 0))
            if self.printing is not None:
                self.session.send(self.iopub, "stream", {"name": "stdout", "text": "."}, parent=self.printing)
                time.sleep(0.0005)
            if self.beat in ready:
                self.beat.send_multipart(self.beat.recv_multipart())
            if self.control in ready:
                return
            if self.shell in ready:
                self.answer()

    def answer(self) -> None:
        sender, raw = self.session.feed_identities(self.shell.recv_multipart())
        request = self.session.deserialize(raw)
        self.session.send(self.iopub, "status", {"execution_state": "busy"}, parent=request)
        reply: dict[str, Any] = {"status": "ok"}
        if request["header"]["msg_type"] == "kernel_info_request":
            reply.update(protocol_version="5.3", implementation="", implementation_version="", banner="")
            reply["language_info"] = LANGUAGE
        else:
            code = request["content"]["code"]
            if "prints" in code:
                self.printing = request
            if "prints" in code or "forever" in code:
                return
            self.session.send(self.iopub, "stream", {"name": "stdout", "text": "kept\n"}, parent=request)
            reply.update(execution_count=1, user_expressions={})
        kind = request["header"]["msg_type"].replace("_request", "_reply")
        self.session.send(self.shell, kind, reply, parent=request, ident=sender)
        self.session.send(self.iopub, "status", {"execution_state": "idle"}, parent=request)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # it is interrupted before it is ended
    Answering(json.loads(Path(sys.argv[1]).read_bytes())).serve()
