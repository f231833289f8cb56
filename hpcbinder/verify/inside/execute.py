"""Run a notebook's cells: `python execute.py TASK RESULTS`. Runs in the image, with a Python that has nbclient.

TASK is a JSON object: `notebook` (path), `kernel` (a kernelspec), `may_fail` (indices of cells), `allow_errors`,
`cell_timeout` and `start_timeout` (s). RESULTS gets a JSON line for each thing that happens: a cell begins, fails, is
done, and whether it said what was saved; how it ended, and if the kernel did, with which status and last words. Of
outputs only the beginning of their text is kept until it has been compared: a notebook may print without end.
"""

# ruff: noqa: PTH102, PTH118, PTH120, PTH123, UP031
# mypy: ignore-errors

import json
import os
import re
import sys
import tempfile
import threading

LONGEST = 4000
COMPARED = 50000
"""Characters of a cell's text that are compared."""
NAME = "hpcbinder-verify"
CHANGES = re.compile(
    r"\x1b\[[0-9;:?]*[ -/]*[@-~]"  # colours
    r"|\b0x[0-9a-fA-F]+"  # addresses
    r"|^.*(?:\bWall time:|\bCPU times:|\bper loop\b|\d(?:it|s)/(?:s|it)\b).*$",  # measured times, progress bars
    re.M,
)
"""What is another one at each run."""


class Results:
    def __init__(self, path):
        self.handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def say(self, **event):
        os.write(self.handle, (json.dumps(event) + "\n").encode("ascii"))


def error_of(content):
    """What of an error is told: not the middle, of a long one."""
    traceback = "\n".join(str(line) for line in content.get("traceback") or [])
    if len(traceback) > LONGEST * 5:
        # The cell's own line is at its beginning, where it was raised at its end.
        traceback = traceback[:LONGEST] + "\n...\n" + traceback[-LONGEST * 4 :]
    return {
        "name": str(content.get("ename", ""))[:LONGEST],
        "message": str(content.get("evalue", ""))[:LONGEST],
        "traceback": traceback,
    }


class Text:
    """The beginning of what a cell says: what it prints, and its result as text. Warnings are left out."""

    def __init__(self):
        self.parts, self.room = [], COMPARED

    def add(self, output):
        kind = output.get("output_type")
        if kind == "stream" and output.get("name", "stdout") == "stdout":
            said = output.get("text", "")
        elif kind == "execute_result":
            said = (output.get("data") or {}).get("text/plain", "")
        else:
            return
        said = ("".join(map(str, said)) if isinstance(said, list) else str(said))[: self.room]
        self.room -= len(said)
        self.parts.append(said)

    def plain(self):
        """What two runs have in common: no colours, addresses, measured times, and no difference but in words."""
        text = "".join(self.parts)
        # What a carriage return goes back over is not seen.
        text = "\n".join(line.rstrip("\r").rpartition("\r")[2] for line in text.split("\n"))
        return "".join(CHANGES.sub("", text).split())


class Words:
    """The end of what the kernel writes into a pipe that is its standard error, and of what it says of it itself:
    ipykernel hands on what code writes there."""

    def __init__(self):
        self.reading, self.writing = os.pipe()
        self.kept = b""
        self.thread = threading.Thread(target=self.read, daemon=True)
        self.thread.start()

    def read(self):
        while True:
            chunk = os.read(self.reading, 1 << 16)
            if not chunk:
                return
            self.add(chunk)

    def add(self, chunk):
        self.kept = (self.kept + chunk)[-LONGEST:]

    def last(self):
        """All there is when nobody writes any more, or what there is after a moment."""
        os.close(self.writing)
        self.thread.join(1)
        return self.kept.decode("utf-8", "replace")


def kernel_manager(kernel, words):
    from jupyter_client.kernelspec import KernelSpecManager
    from jupyter_client.manager import AsyncKernelManager

    class Manager(AsyncKernelManager):
        """Remembers how the kernel's process ended, which is forgotten when it is cleaned up."""

        status = None

        def start_kernel(self, **options):
            return super().start_kernel(**dict(options, stderr=words.writing))

        async def is_alive(self):
            alive = await super().is_alive()
            if not alive:
                process = getattr(getattr(self, "provisioner", None), "process", None) or getattr(self, "kernel", None)
                status = process.poll() if process is not None else None
                self.status = self.status if status is None else status
            return alive

        _async_is_alive = is_alive

    folder = tempfile.mkdtemp()
    os.mkdir(os.path.join(folder, NAME))
    with open(os.path.join(folder, NAME, "kernel.json"), "w", encoding="utf-8") as file:
        json.dump(kernel, file)
    specs = KernelSpecManager(kernel_dirs=[folder], ensure_native_kernel=False)
    return Manager(kernel_name=NAME, kernel_spec_manager=specs)


def main(task_path, results_path):
    results = Results(results_path)
    with open(task_path, encoding="utf-8") as file:
        task = json.load(file)
    import nbformat
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

    said = {}

    class Client(NotebookClient):
        def output(self, outs, msg, display_id, cell_index):
            output = dict(msg.get("content") or {}, output_type=msg.get("msg_type"))
            said.setdefault(cell_index, Text()).add(output)
            if output.get("name") == "stderr":
                words.add(str(output.get("text", "")).encode("utf-8", "replace"))

        def clear_output(self, outs, msg, cell_index):
            said.pop(cell_index, None)

        def set_widgets_metadata(self):
            return None

    try:
        notebook = nbformat.read(task["notebook"], as_version=4)
    except Exception as error:
        results.say(event="end", how="unreadable", message=str(error)[:LONGEST])
        return
    for index in task["may_fail"]:
        if index < len(notebook.cells):
            metadata = notebook.cells[index].metadata
            metadata["tags"] = [*(metadata.get("tags") or []), "raises-exception"]
    saved = {}
    for index, cell in enumerate(notebook.cells):
        if cell.cell_type == "code":
            text = Text()
            for output in cell.outputs:
                text.add(output)
            saved[index] = text.plain()
            cell.outputs = []

    def started(**_):
        results.say(event="kernel")

    def begins(cell, cell_index):
        results.say(event="cell", index=cell_index)

    def done(cell, cell_index, **_):
        text = said.pop(cell_index, Text()).plain()
        if saved.get(cell_index):
            results.say(event="said", index=cell_index, same=text == saved[cell_index])

    def fails(cell, cell_index, execute_reply):
        results.say(event="error", index=cell_index, **error_of(execute_reply["content"]))

    words = Words()
    manager = kernel_manager(task["kernel"], words)
    client = Client(
        notebook,
        km=manager,
        timeout=task["cell_timeout"],
        startup_timeout=task["start_timeout"],
        allow_errors=task["allow_errors"],
        store_widget_state=False,
        resources={"metadata": {"path": os.path.dirname(task["notebook"])}},
        on_notebook_start=started,
        on_cell_execute=begins,
        on_cell_executed=done,
        on_cell_error=fails,
    )
    client.owns_km = True
    how, message = "done", ""
    try:
        client.execute()
    except CellExecutionError:
        how = "error"
    except CellTimeoutError:
        how = "timeout"
    except DeadKernelError:
        how = "dead"
    except Exception as error:
        how, message = "lost", "%s: %s" % (type(error).__name__, error)
    ended = {} if how in ("done", "error") else {"status": manager.status, "words": words.last()}
    results.say(event="end", how=how, message=message[:LONGEST], **ended)
    # Whatever the notebook left running is ended with the container.
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
