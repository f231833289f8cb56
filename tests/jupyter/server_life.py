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
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from notebook_page import Browser

WAIT = 120
TOKEN = secrets.token_hex(16)


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
            browser = Browser(f"http://127.0.0.1:{json.loads(found[0].read_text())['port']}", TOKEN)
            seen = asyncio.run(life(browser, name))
        except Exception:
            sys.stderr.write(log.read_text()[-4000:])
            raise
        finally:
            server.kill()
    print(json.dumps({**seen, "log": log.read_text()}))


if __name__ == "__main__":
    main(*sys.argv[1:])
