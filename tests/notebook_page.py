"""What JupyterLab's page asks its server for, without a browser."""

from __future__ import annotations

import asyncio
import json
import uuid
from typing import Any

from tornado.httpclient import AsyncHTTPClient, HTTPRequest
from tornado.websocket import WebSocketClientConnection, websocket_connect

WAIT = 120


class Browser:
    """What JupyterLab's page says to its server.

    Args:
        url: The server's, without a slash at the end.
        token: Whose it is.
    """

    def __init__(self, url: str, token: str) -> None:
        self.url = url
        self.headers = {"Authorization": f"token {token}"}

    async def ask(self, method: str, path: str, body: Any = None) -> Any:
        text = json.dumps(body) if method == "POST" else None
        request = HTTPRequest(
            f"{self.url}/api/{path}", method, self.headers, text, request_timeout=WAIT, connect_timeout=WAIT
        )
        answer = (await AsyncHTTPClient().fetch(request)).body
        return json.loads(answer) if answer else None

    async def channels(self, kernel: str) -> WebSocketClientConnection:
        request = HTTPRequest(f"ws{self.url.removeprefix('http')}/api/kernels/{kernel}/channels", headers=self.headers)
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
