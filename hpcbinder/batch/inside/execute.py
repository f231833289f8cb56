"""Execute one of a run's notebooks: `python execute.py RUN.JSON TOOLS.ZIP`. Runs in the image, with a Python that has
nbclient; papermill and what it needs besides come with it in TOOLS.ZIP, behind whatever the image has.

Which one: HPCBINDER_TASK, or in a job array SLURM_ARRAY_TASK_ID. What came of it is a JSON object in
`.hpcbinder/results/N.json` beside RUN.JSON, written anew whenever a cell begins, atomically like the notebook itself.
"""

# ruff: noqa: PTH100, PTH102, PTH103, PTH105, PTH106, PTH108, PTH109, PTH110, PTH114
# ruff: noqa: PTH118, PTH119, PTH120, PTH123, PTH208, PTH211, UP031
# mypy: ignore-errors

import asyncio
import json
import logging
import os
import shutil
import signal
import socket
import sys
import tempfile
import time

LONGEST = 4000
MOST_NOTES = 20
START_SECONDS = 300
CANCEL_SECONDS = 5
KERNEL = "hpcbinder-run"
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
INPUT, OUTPUT = "task://input.ipynb", "task://output.ipynb"
"""papermill fills braces of paths in, so that it hears of none."""


class Stopped(BaseException):
    """Whoever runs this wants it to end."""


class TimeOver(Stopped):
    """The batch system says that the job will be ended."""


class Ending:
    """Hears the first signal to end. A cell is told through its event loop: what a handler raises in there while the
    kernel prints is kept by one of the loop's tasks, or dropped, and a cell without an end would never hear of it."""

    def __init__(self):
        self.error = self.tell = None

    def __call__(self, signum, frame):
        for each in SIGNALS:
            signal.signal(each, signal.SIG_IGN)
        if signum == signal.SIGUSR1:
            self.error = TimeOver("the job's time is nearly over (--time)")
        else:
            self.error = Stopped("ended from outside (%s)" % signal.Signals(signum).name)
        if self.tell is None:
            raise self.error
        self.tell()

    async def or_result_of(self, work):
        """Wait for a coroutine; gives it up when the end is near, or has been before it began."""
        loop = asyncio.get_running_loop()
        told = asyncio.Event()
        task = asyncio.ensure_future(work)
        waiting = asyncio.ensure_future(told.wait())
        self.tell = lambda: loop.call_soon_threadsafe(told.set)
        try:
            if self.error is None:
                await asyncio.wait([task, waiting], return_when=asyncio.FIRST_COMPLETED)
        finally:
            self.tell = None
            waiting.cancel()
        if task.done():
            return task.result()
        task.cancel()
        await asyncio.wait([task], timeout=CANCEL_SECONDS)
        if task.done() and not task.cancelled():
            task.exception()  # else asyncio says that nobody asked
        raise self.error


def write_whole(path, text):
    """Write a file so that a reader sees the old or the new one whole."""
    descriptor, name = tempfile.mkstemp(prefix=".", dir=os.path.dirname(path))
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8", errors="replace") as file:
            file.write(text)
            file.flush()
            mask = os.umask(0)
            os.umask(mask)
            os.fchmod(file.fileno(), 0o666 & ~mask)
            os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise


class Result:
    """What is known of the task, as a file."""

    def __init__(self, path):
        self.path, self.values = path, {"host": socket.gethostname(), "began": time.time(), "notes": []}
        self.values["job"] = os.environ.get("SLURM_ARRAY_JOB_ID", "")

    def say(self, **values):
        self.values.update(values)
        self.values["seconds"] = round(time.time() - self.values["began"], 3)
        write_whole(self.path, json.dumps(self.values))

    def note(self, text):
        if len(self.values["notes"]) < MOST_NOTES:
            self.values["notes"].append(text[:LONGEST])


class Notes(logging.Handler):
    """Takes papermill's warnings: a parameter that the notebook does not know, a notebook without a cell for them."""

    def __init__(self, result):
        super().__init__(logging.WARNING)
        self.result = result

    def emit(self, record):
        self.result.note(record.getMessage())


class Files:
    """papermill's way to the notebook that is read and the one that is written."""

    def __init__(self, source, target):
        self.source, self.target = source, target

    def read(self, path):
        with open(self.source if path == INPUT else self.target, encoding="utf-8-sig") as file:
            return file.read()

    def listdir(self, path):
        return []

    def write(self, text, path):
        write_whole(self.target, text)

    def pretty_path(self, path):
        return path


def kernel_manager(kernel):
    from jupyter_client.kernelspec import KernelSpecManager
    from jupyter_client.manager import AsyncKernelManager

    folder = tempfile.mkdtemp()
    os.mkdir(os.path.join(folder, KERNEL))
    with open(os.path.join(folder, KERNEL, "kernel.json"), "w", encoding="utf-8") as file:
        json.dump(kernel, file)
    specs = KernelSpecManager(kernel_dirs=[folder], ensure_native_kernel=False)
    return AsyncKernelManager(kernel_name=KERNEL, kernel_spec_manager=specs)


def shadow(repository, target, path):
    """Make `target` a folder that looks like the repository and may be written to: links into the image, but for the
    folders on the way to the notebook's. Returns the links."""
    links = []
    parts = [part for part in path.split("/") if part]
    os.makedirs(target, exist_ok=True)
    for part in [*parts, None]:
        for name in os.listdir(repository):
            link = os.path.join(target, name)
            if name != part and not os.path.lexists(link):
                os.symlink(os.path.join(repository, name), link)
                links.append(link)
        if part is not None:
            repository, target = os.path.join(repository, part), os.path.join(target, part)
            os.makedirs(target, exist_ok=True)
    return links


def clear(target, links):
    """Leave of such a folder what the notebook wrote."""
    for link in links:
        if os.path.islink(link):
            os.unlink(link)
    for folder, _, _ in os.walk(target, topdown=False):
        if os.path.basename(folder) == "__pycache__":
            shutil.rmtree(folder, ignore_errors=True)
            continue
        try:
            os.rmdir(folder)
        except OSError:
            pass


def run_notebook(run, task, source, target, cwd, result, ending):
    """Execute it; returns whether it ran to its end, and the error if it did not."""
    import nbclient.exceptions
    from nbclient.util import run_sync
    from papermill.clientwrap import PapermillNotebookClient
    from papermill.engines import NBClientEngine, papermill_engines
    from papermill.exceptions import PapermillExecutionError
    from papermill.execute import execute_notebook, remove_error_markers
    from papermill.iorw import load_notebook_node, papermill_io, write_ipynb

    failed = []

    class Client(PapermillNotebookClient):
        given_up = False

        def wait_for_reply(self, *args, **kwargs):
            if not self.given_up:
                return super().wait_for_reply(*args, **kwargs)
            # papermill asks in the end what language it was: of a kernel that is busy, or dead.
            known = self.nb.metadata.get("language_info")
            return {"content": {"language_info": known or {"name": task["kernel"]["language"]}}}

        def execute_cell(self, cell, cell_index, *args, **kwargs):
            result.say(cell=cell_index + 1)
            try:
                return run_sync(ending.or_result_of)(self.async_execute_cell(cell, cell_index, *args, **kwargs))
            except nbclient.exceptions.CellExecutionError as error:
                failed.append((str(error.ename), str(error.evalue), cell.get("execution_count")))
                raise
            except (Exception, Stopped) as error:
                self.given_up = True
                # What papermill would not put into the notebook: an end from outside, of the kernel, of patience.
                names = {"CellTimeoutError": "Timeout", "DeadKernelError": "DeadKernel"}
                name = names.get(type(error).__name__, type(error).__name__)
                text = str(error).splitlines()[0][:LONGEST] if str(error) else ""
                if name == "Timeout":
                    text = "the cell took longer than %g s" % run["cell_timeout"]
                failed.append((name, text, cell.get("execution_count")))
                lines = ["%s: %s" % (name, text)]
                cell.outputs.append({"output_type": "error", "ename": name, "evalue": text, "traceback": lines})
                cell.outputs[-1] = type(cell)(cell.outputs[-1])
                raise nbclient.exceptions.CellExecutionError(lines[0], ename=name, evalue=text) from None

    class Engine(NBClientEngine):
        @classmethod
        def execute_managed_notebook(cls, nb_man, kernel_name, start_timeout=START_SECONDS, **kwargs):
            nb_man.nb.metadata.papermill["input_path"] = task["notebook"]
            nb_man.nb.metadata.papermill["output_path"] = os.path.basename(target)
            result.say(cells=len(nb_man.nb.cells))
            client = Client(
                nb_man,
                km=kernel_manager(task["kernel"]),
                timeout=run["cell_timeout"] or None,
                startup_timeout=start_timeout,
                kernel_name=kernel_name,
                shutdown_kernel="immediate",
            )
            client.owns_km = True
            client.execute()

    papermill_engines.register("hpcbinder", Engine)
    papermill_io.register("task://", Files(source, target))
    logging.getLogger("papermill").addHandler(Notes(result))
    try:
        execute_notebook(
            INPUT,
            OUTPUT,
            task["parameters"],
            engine_name="hpcbinder",
            kernel_name=task["kernel_name"],
            language=task["kernel"]["language"],
            progress_bar=False,
            start_timeout=START_SECONDS,
            cwd=cwd,
        )
    except PapermillExecutionError as error:
        if failed:
            name, message, count = failed[0]
            return {"name": name[:LONGEST], "message": message[:LONGEST], "cell": count or error.exec_count or 0}
        # A cell is tagged for its error (raises-exception), and the notebook went on.
        write_ipynb(remove_error_markers(load_notebook_node(OUTPUT)), OUTPUT)
    return None


def write_page(path, target, name):
    import nbformat
    from nbconvert import HTMLExporter

    with open(path, encoding="utf-8") as file:
        notebook = nbformat.read(file, as_version=4)
    text, _ = HTMLExporter().from_notebook_node(notebook, resources={"metadata": {"name": name}})
    write_whole(target, text)


def main(run_path, tools):
    sys.path.append(tools)
    folder = os.path.dirname(os.path.abspath(run_path))
    with open(run_path, encoding="utf-8") as file:
        run = json.load(file)
    number = int(os.environ.get("HPCBINDER_TASK") or os.environ["SLURM_ARRAY_TASK_ID"])
    task = run["tasks"][number]
    own = os.path.join(folder, ".hpcbinder")
    result = Result(os.path.join(own, "results", "%d.json" % number))

    ending = Ending()
    for each in SIGNALS:
        signal.signal(each, ending)
    error, links, work = None, [], os.getcwd()
    target = os.path.join(folder, task["name"] + ".ipynb")
    shadowed = os.path.join(folder, task["name"])
    try:
        result.say(state="running")
        if task["place"] is not None:
            links = shadow(run["repository"], shadowed, task["place"])
            work = os.path.join(shadowed, task["place"])
        source = os.path.join(own, "inputs", task["input"])
        error = run_notebook(run, task, source, target, work, result, ending)
    except (Exception, Stopped) as caught:
        message = (str(caught).strip().splitlines() or [""])[-1]
        error = {"name": type(caught).__name__, "message": message[:LONGEST], "cell": 0}
        if isinstance(caught, ImportError):
            error["message"] += " (papermill %s with the image's Python %s)" % (
                run["papermill"],
                sys.version.split()[0],
            )
    if error is not None and error["name"] in (Stopped.__name__, TimeOver.__name__):
        # There may be no time left for more.
        result.say(state="failed", error=error)
    clear(shadowed, links)
    if run["report"] and os.path.exists(target):
        try:
            write_page(target, os.path.join(folder, task["name"] + ".html"), task["name"])
        except (Exception, Stopped) as caught:
            result.note("no HTML of it: %s" % (type(caught).__name__,))
    if error is None:
        result.say(state="done")
    else:
        result.say(state="failed", error=error)
    sys.stdout.flush()
    # Whatever the notebook left running is ended with the container.
    os._exit(1 if error else 0)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
