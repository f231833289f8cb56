"""A kernel's life below a real Jupyter Server, as a browser would lead it: `python server_life.py KERNEL FOLDER`.

Runs as an ordinary user. Prints one JSON object: what was seen. The server is killed in the end, by SIGKILL.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import Any

from tornado.httpclient import AsyncHTTPClient, HTTPRequest
from tornado.websocket import WebSocketClientConnection, websocket_connect

WAIT = 120
TOKEN = secrets.token_hex(16)


class Browser:
    """What JupyterLab's page says to its server."""

    def __init__(self, port: int) -> None:
        self.host = f"127.0.0.1:{port}"
        self.headers = {"Authorization": f"token {TOKEN}"}

    async def ask(self, method: str, path: str, body: Any = None) -> Any:
        text = json.dumps(body) if method == "POST" else None
        request = HTTPRequest(
            f"http://{self.host}/api/{path}", method, self.headers, text, request_timeout=WAIT, connect_timeout=WAIT
        )
        answer = (await AsyncHTTPClient().fetch(request)).body
        return json.loads(answer) if answer else None

    async def channels(self, kernel: str) -> WebSocketClientConnection:
        request = HTTPRequest(f"ws://{self.host}/api/kernels/{kernel}/channels", headers=self.headers)
        return await websocket_connect(request)

    async def execute(self, kernel: str, code: str, meanwhile: str = "") -> str:
        """What a cell prints, or the name of the error it ends with; `meanwhile` is asked for once it runs."""
        socket = await self.channels(kernel)
        message = uuid.uuid4().hex
        header = {"msg_id": message, "msg_type": "execute_request", "username": "", "session": "s", "version": "5.3"}
        content = {"code": code, "silent": False, "store_history": True, "user_expressions": {}, "allow_stdin": False}
        await socket.write_message(
            json.dumps({"header": header, "parent_header": {}, "metadata": {}, "content": content, "channel": "shell"})
        )
        printed, done = [], False
        while not done:
            text = await asyncio.wait_for(socket.read_message(), WAIT)
            assert isinstance(text, str)
            answer = json.loads(text)
            if answer.get("parent_header", {}).get("msg_id") != message:
                continue
            kind, content = answer["header"]["msg_type"], answer["content"]
            if kind == "stream":
                printed.append(content["text"])
                if meanwhile:
                    await self.ask("POST", f"kernels/{kernel}/{meanwhile}")
                    meanwhile = ""
            if kind == "error":
                printed.append(content["ename"])
            done = kind == "status" and content["execution_state"] == "idle"
        socket.close()
        return "".join(printed)


async def life(browser: Browser, name: str) -> dict[str, Any]:
    kernel = (await browser.ask("POST", "kernels", {"name": name}))["id"]
    where = "import os; print(os.environ['SLURMD_NODENAME'], os.environ['SLURM_JOB_ID'], end='')"
    first = await browser.execute(kernel, where)
    stopped = await browser.execute(
        kernel, "import time; print('running', end=' ', flush=True); time.sleep(600)", "interrupt"
    )
    await browser.execute(kernel, "kept = 1")
    await browser.ask("POST", f"kernels/{kernel}/restart")
    fresh = await browser.execute(kernel, "print('kept' in globals(), end='')")
    again = await browser.execute(kernel, where)
    other = (await browser.ask("POST", "kernels", {"name": name}))["id"]
    await browser.execute(other, "pass")
    await browser.ask("DELETE", f"kernels/{other}")
    return {"first": first, "stopped": stopped, "fresh": fresh, "again": again}


def main(name: str, folder: str) -> None:
    settings = {
        "token": TOKEN,
        "port": 0,
        "open_browser": False,
        "root_dir": folder,
        "allow_root": False,
        "info_file": f"{folder}/server.json",
    }
    options = [f"--ServerApp.{key}={value}" for key, value in settings.items() if key != "info_file"]
    command = [sys.executable, "-m", "jupyter_server", *options]
    log = Path(folder) / "server.log"
    with log.open("wb") as out, subprocess.Popen(command, stdout=out, stderr=out, cwd=folder) as server:
        try:
            runtime = Path(os.environ["HOME"]) / ".local/share/jupyter/runtime"
            end = time.monotonic() + WAIT
            while not (found := list(runtime.glob("jpserver-*.json"))):
                if time.monotonic() > end or server.poll() is not None:
                    sys.exit(log.read_text())
                time.sleep(0.05)
            time.sleep(0.2)
            seen = asyncio.run(life(Browser(json.loads(found[0].read_text())["port"]), name))
        except Exception:
            sys.stderr.write(log.read_text()[-4000:])
            raise
        finally:
            server.kill()
    print(json.dumps({**seen, "log": log.read_text()}))


if __name__ == "__main__":
    main(*sys.argv[1:])
