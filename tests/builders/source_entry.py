"""What installs from source in tests, run by an ordinary user: tells on standard output what came of it."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

from base_layer import OPTIONS, base_image
from checkouts import checkout_of, plan_of

from hpcbinder.builders.assembling import EngineShop, Layer, Workshops
from hpcbinder.builders.assembling.stores import source_packages
from hpcbinder.builders.in_engine import EngineWorkshop
from hpcbinder.catalog import Catalog
from hpcbinder.config import load
from hpcbinder.engine import DockerEngine
from hpcbinder.errors import HpcbinderError
from hpcbinder.model import Assembly, Sources, Stage, Step
from hpcbinder.progress import Silent
from hpcbinder.wheels import Target, host_interpreter


class Heard(Silent):
    """Keeps what is said."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def phase(self, phase: str, message: str, progress: float | None = None) -> None:
        self.lines.append(message)

    def log(self, phase: str, line: str) -> None:
        self.lines.append(line)


def main(told: dict[str, object]) -> dict[str, object]:
    store, heard, config = Path(str(told["store"])), Heard(), load()
    scratch = store / "tmp"
    for folder in (store, scratch):
        folder.mkdir(exist_ok=True)
    base = Layer(Path(str(told["base"])), "base")
    data = {str(name): str(text) for name, text in dict(told["data"]).items()}  # type: ignore[call-overload]
    sources = Sources(**{k: tuple(v) if isinstance(v, list) else v for k, v in dict(told["sources"]).items()})  # type: ignore[call-overload]
    folder = Path(str(told["folder"]))
    plan = plan_of(folder)
    step = Step(
        Stage.PROJECT,
        "python/packages",
        "builds: things",
        "",
        reads=tuple(sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())),
        data=data,
        runs_repository_code=True,
        env=told["env"],
        assembly=Assembly(prefix="/opt/env", python="3.11.2", sources=sources),
    )
    plan = replace(plan, steps=(step,))
    target = Target("/opt/env", "3.11.2", "/opt/env/bin/python", "amd64", "x86_64-manylinux_2_36")
    catalog = Catalog(store, [Path(str(path)) for path in told.get("site", ())])  # type: ignore[attr-defined]
    engine: EngineShop | None = None
    if told.get("docker"):
        image = base_image(Path(str(told["bases"])))
        docker = DockerEngine(str(told["docker"]))
        workshop = EngineWorkshop(docker, image, known=store / "blobs", scratch=scratch, reporter=heard)
        engine = lambda base: workshop  # noqa: E731
    packages = source_packages(catalog, scratch, config, OPTIONS, heard, Workshops(config, heard, engine))
    answer: dict[str, object] = {}
    system = [base, *(Layer(Path(str(path)), str(path)) for path in told.get("system", ()))]  # type: ignore[attr-defined]
    try:
        done = packages.install(
            0,
            plan,
            checkout_of(folder),
            target=target,
            system=system,
            below=system,
            interpreter=lambda: host_interpreter(target),  # type: ignore[arg-type, return-value]
        )
        answer = {"layers": [str(path) for path in done.layers], "listed": json.loads(done.listed)}
    except HpcbinderError as error:
        answer = {"error": error.message, "kind": type(error).__name__, "hint": error.hint}
    return {**answer, "said": heard.lines, "left": [path.name for path in scratch.iterdir()]}


if __name__ == "__main__":
    print(json.dumps(main(json.loads(sys.argv[1]))))
