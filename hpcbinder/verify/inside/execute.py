"""Run a notebook's cells: `python execute.py TASK RESULTS`. Runs in the image, with a Python that has nbclient.

TASK is a JSON object: `notebook` (path), `kernel` (a kernelspec), `may_fail` (indices of cells), `allow_errors`,
`cell_timeout` and `start_timeout` (s). RESULTS gets a JSON line for each thing that happens: a cell begins, fails, is
done; how it ended. Outputs are let go as they come: a notebook may print without end.
"""

# ruff: noqa: PTH102, PTH118, PTH120, PTH123, UP031
# mypy: ignore-errors

import json
import os
import sys
import tempfile

LONGEST = 4000
NAME = "hpcbinder-verify"


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


def kernel_manager(kernel):
    from jupyter_client.kernelspec import KernelSpecManager
    from jupyter_client.manager import AsyncKernelManager

    folder = tempfile.mkdtemp()
    os.mkdir(os.path.join(folder, NAME))
    with open(os.path.join(folder, NAME, "kernel.json"), "w", encoding="utf-8") as file:
        json.dump(kernel, file)
    specs = KernelSpecManager(kernel_dirs=[folder], ensure_native_kernel=False)
    return AsyncKernelManager(kernel_name=NAME, kernel_spec_manager=specs)


def main(task_path, results_path):
    results = Results(results_path)
    with open(task_path, encoding="utf-8") as file:
        task = json.load(file)
    import nbformat
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

    class Client(NotebookClient):
        def output(self, outs, msg, display_id, cell_index):
            return None

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
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = []

    def started(**_):
        results.say(event="kernel")

    def begins(cell, cell_index):
        results.say(event="cell", index=cell_index)

    def fails(cell, cell_index, execute_reply):
        results.say(event="error", index=cell_index, **error_of(execute_reply["content"]))

    manager = kernel_manager(task["kernel"])
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
    results.say(event="end", how=how, message=message[:LONGEST])
    # Whatever the notebook left running is ended with the container.
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
