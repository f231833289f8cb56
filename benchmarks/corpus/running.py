"""One repository: built and verified by `hpcbinder`, in processes of its own that cannot run away."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.convert.meter import descendants, resident
from benchmarks.corpus.listing import Repository

_PDEATHSIG = 1  # linux/prctl.h
_EVERY = 0.5  # s between looks at time and memory
_TAIL = 20_000  # bytes of a log's end that are looked at


@dataclass(frozen=True)
class Limits:
    """What one repository may take.

    Attributes:
        build: Seconds for its build.
        notebook: Seconds for one of its notebooks.
        memory: Bytes for all processes of a build together, and for a notebook.
    """

    build: float
    notebook: float
    memory: int


def run(
    repository: Repository,
    source: str,
    *,
    store: Path,
    logs: Path,
    limits: Limits,
    more: Sequence[str],
    commands: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
) -> Any:
    """Build, verify, and remove the image.

    Args:
        repository: Which of its notebooks are run; all where it names none.
        more: Options for `hpcbinder build`.
        commands: Lines for sh that are run in the image, each from the repository's folder there.
        environment: What hpcbinder finds in its environment (default: what this process has).

    Returns:
        What came of it, as JSON has it: `built` or `error`, and the `exit` status of the build; `verdicts`, one for
        each notebook; `missing`, the imports that fail; `commands`, each with its `line`, `exit` and what it `said`.
    """
    begin = time.monotonic()
    environment = {**(os.environ if environment is None else environment), "CI": "1"}
    found: dict[str, Any] = {**asdict(repository), "source": source, "options": list(more), "verdicts": []}
    hpcbinder = [sys.executable, "-m", "hpcbinder", "--store", str(store)]
    build = [*hpcbinder, "build", source, "--ref", repository.commit, "--no-register", "--json", *more]
    log = logs / f"{repository.slug}.build.log"
    code, said = _limited(build, log, limits.build, limits.memory, environment)
    found |= {"build_seconds": round(time.monotonic() - begin, 1), "exit": code}
    if code:
        found["error"] = said
        return found
    image = json.loads(said)["id"]
    show = [*hpcbinder, "show", image, "--json"]
    shown = subprocess.run(show, env=environment, check=True, capture_output=True, text=True)
    found["built"] = _told(json.loads(shown.stdout))
    each = [f"--timeout={limits.notebook}", f"--cell-timeout={limits.notebook}", f"--memory={limits.memory // 2**20}M"]
    verify = [*hpcbinder, "verify", image, "--json", *each, "--", *repository.notebooks]
    most = limits.notebook * len(repository.notebooks) + limits.build
    code, said = _limited(verify, logs / f"{repository.slug}.verify.log", most, 2 * limits.memory, environment)
    try:
        told = json.loads(said)
        found |= {"verdicts": told["notebooks"], "missing": told["missing"]}
    except (json.JSONDecodeError, KeyError):
        found["error"] = said
    found["commands"] = []
    for number, line in enumerate(commands):
        inside = [*hpcbinder, "run", image, "--", "sh", "-c", f"cd /srv/repo && {line}"]
        log = logs / f"{repository.slug}.command{number}.log"
        code, said = _limited(inside, log, limits.notebook, limits.memory, environment)
        found["commands"].append({"line": line, "exit": code, "said": said})
    found["seconds"] = round(time.monotonic() - begin, 1)
    # What other builds share stays in the store: only the image goes, or a list would fill a disk.
    subprocess.run([*hpcbinder, "rm", image], env=environment, capture_output=True)
    return found


def _told(entry: dict[str, Any]) -> dict[str, Any]:
    """What of a catalog entry the table has."""
    return {
        "id": entry["id"],
        "python": entry["python"]["full"] if entry.get("python") else "",
        "base": entry["base"]["name"],
        "buildpacks": [pack["name"] for pack in entry["buildpacks"]],
        "as_of": (entry.get("as_of") or "")[:10],
        "builder": entry["image"]["engine"],
        "ran": entry["image"].get("ran", ""),
        "size": entry["size"],
        "timings": entry["timings"],
        "decisions": entry["decisions"],
        "packages": {package["name"]: package["version"] for package in entry["packages"].get("python", ())},
    }


def _limited(
    command: Sequence[str], log: Path, seconds: float, memory: int, environment: Mapping[str, str]
) -> tuple[int, str]:
    """Run a command, its progress in a log.

    Returns:
        Its exit status, and what it printed; where it failed and printed nothing, its log's last line that says why.
    """
    with log.open("wb") as progress:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=progress,
            env=environment,
            start_new_session=True,
            preexec_fn=_die_with_parent,
        )
        end, why = time.monotonic() + seconds, ""
        while not why:
            try:
                output, _ = process.communicate(timeout=_EVERY)
                break
            except subprocess.TimeoutExpired:
                if time.monotonic() > end:
                    why = f"took longer than {seconds:.0f} s"
                elif resident([process.pid, *descendants(process.pid)]) > memory:
                    why = f"took more than {memory / 1e9:.1f} GB of memory"
        if why:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            progress.write(f"stopped: {why}\n".encode())
            return -signal.SIGKILL, why
    said = output.decode(errors="replace").strip()
    return process.returncode, said or _last_words(log, process.returncode)


def _die_with_parent() -> None:
    """prctl(2): a runner that is killed leaves nothing behind."""
    ctypes.CDLL(None).prctl(_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def _last_words(log: Path, code: int) -> str:
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - _TAIL))
        lines = file.read().decode(errors="replace").splitlines()
    errors = [line for line in lines if line.startswith("hpcbinder: ") and ": warning: " not in line]
    last = errors[-1].removeprefix("hpcbinder: ") if errors else next((line for line in reversed(lines) if line), "")
    return last or f"exit {code}"
