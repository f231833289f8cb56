"""From a plan to a Dockerfile and the scripts of its steps.

Nothing of a repository stands in a RUN or COPY line: those are constant text, and what varies is data in the context.
What does vary (environment, labels) is quoted by `quote`, whose inverse is the Dockerfile parser.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence

from hpcbinder.contract import ENTRYPOINT, REPO_DIR, SERVER_PREFIX, START_VARIABLE, STEP_DIR
from hpcbinder.errors import DetectError
from hpcbinder.model import Plan, Stage, Step
from hpcbinder.plan.apart import BEFORE, JOIN, MADE, check_apart
from hpcbinder.plan.points import apart_point, cuts, server_point
from hpcbinder.text import one_line

CMD = (f"{SERVER_PREFIX}/bin/jupyter-lab", "--ip=0.0.0.0", "--no-browser")

SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

PRELUDE = f"""\
umask 022
mkdir -p {STEP_DIR}/work/.home {STEP_DIR}/work/.tmp
export HOME={STEP_DIR}/work/.home TMPDIR={STEP_DIR}/work/.tmp
export PATH="$PATH:{STEP_DIR}/tools" DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8
export PYTHONDONTWRITEBYTECODE=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1 PIP_NO_CACHE_DIR=1
export UV_NO_CONFIG=1 UV_NO_PROGRESS=1 UV_LINK_MODE=copy UV_PYTHON_DOWNLOADS=never
# Tools that write times into what they make write this one: 1 January 2020, the same for every build.
export SOURCE_DATE_EPOCH=1577836800
if [ -r {STEP_DIR}/site/env ]; then . {STEP_DIR}/site/env; fi
cd {STEP_DIR}/work
touch --date="@$(($(date +%s) - 1))" .begin

# readable FOLDER...: everybody may read what is there, nobody else write. Touches only what needs it: setting what is
# set already would copy a file of an earlier layer into this one.
readable() {{
    find "$@" -xdev ! -type l \\( -perm /022 -o ! -perm -444 -o -perm /111 ! -perm -111 -o -type d ! -perm -111 \\) \\
        -exec chmod a+rX,go-w {{}} +
}}

# timeless FOLDER...: what this step made or changed gets a fixed time: the layer does not tell when it was made.
timeless() {{
    find "$@" -xdev \\( -path /proc -o -path /sys -o -path /dev -o -path {STEP_DIR} -o -path /etc/hosts \\
        -o -path /etc/resolv.conf \\) -prune -o -newer {STEP_DIR}/work/.begin \\
        -exec touch --no-dereference --date="@$SOURCE_DATE_EPOCH" {{}} +
}}

settle() {{
    readable "$@"
    timeless "$@"
}}

"""
"""What every step's script begins with. `site/env` is a file of the site's (mirrors, proxies), mounted for the step."""

INTO_REPO = f"""\
mkdir -p {REPO_DIR}
cp -a {STEP_DIR}/step/repo/. {REPO_DIR}/
cd {REPO_DIR}
"""

_SECRETS = (
    ("hpcbinder-env", "env"),
    ("hpcbinder-apt", "apt.conf"),
    ("hpcbinder-sources", "sources.list"),
)


def dockerfile(
    plan: Plan,
    *,
    base_image: str,
    tools_image: str,
    server_image: str | None,
    ready: Mapping[int, str] | None = None,
) -> str:
    """Write the Dockerfile of a plan, for BuildKit; a repository's own one is as the plan says.

    Args:
        base_image: Reference of the base.
        tools_image: Reference of the image that holds uv, mounted into the steps.
        server_image: Reference of an image made by this Dockerfile's `server` stage, to stand on it; None to build
            that stage.
        ready: Point of `environment_points` -> reference of an image made by the stage of that point (`stage_name`),
            to stand on it.

    Raises:
        DetectError: A value that no Dockerfile can hold.
    """
    if plan.own is not None:
        return plan.own.text
    made = dict(ready or {})
    if server_image is not None:
        made[server_point(plan)] = server_image
    stages = _Stages(plan, base_image, made)
    last = stages.whole()
    return "\n".join(
        [
            "# Written by hpcbinder; needs BuildKit and the context that comes with it.",
            f"FROM {_reference(tools_image)} AS tools",
            *stages.lines,
            *last,
            "",
            *_pairs("LABEL", _labels(plan)),
            f"WORKDIR {REPO_DIR}",
            f"ENTRYPOINT {json.dumps([ENTRYPOINT])}",
            f"CMD {json.dumps(list(CMD))}",
            "",
        ]
    )


def one_step(plan: Plan, number: int, *, below: str, tools_image: str) -> str:
    """The Dockerfile of one step, on an image that has all that comes before it; its context is `write_step`'s.

    Args:
        number: Of the step in the plan.
        below: Reference of that image.
        tools_image: See `dockerfile`.
    """
    step = plan.steps[number]
    lines = ["# Written by hpcbinder; needs BuildKit.", f"FROM {_reference(tools_image)} AS tools"]
    if step.image:
        lines.append(f"FROM {_reference(step.image)} AS image-{number}")
    return "\n".join([*lines, f"FROM {_reference(below)}", _run(number, step), ""])


def aside(below: str, mounts: Mapping[str, str], tools_image: str = "") -> str:
    """The Dockerfile that runs `step/run.sh` of its context on an image, and nothing else of a plan.

    Args:
        below: Reference of that image.
        mounts: Folder of the context -> where else it is, below `/run/hpcbinder`; what is written there is lost.
        tools_image: See `dockerfile`; "" for no tools.
    """
    mounted = [f"type=bind,source=step,target={STEP_DIR}/step"]
    mounted += [f"type=bind,from=tools,source=/,target={STEP_DIR}/tools"] if tools_image else []
    mounted.append(f"type=tmpfs,target={STEP_DIR}/work")
    mounted += [f"type=bind,source={source},target={target},rw" for source, target in mounts.items()]
    tools = [f"FROM {_reference(tools_image)} AS tools"] if tools_image else []
    lines = ["# Written by hpcbinder; needs BuildKit.", *tools, f"FROM {_reference(below)}"]
    return "\n".join([*lines, _instruction(mounted, "run.sh"), ""])


def on_own(plan: Plan, image: str) -> str:
    """The Dockerfile that puts our files and labels onto what a repository's own one made."""
    lines = [f"FROM {_reference(image)}", 'COPY ["content/", "/"]', *_pairs("LABEL", _labels(plan)), ""]
    return "\n".join(lines)


def stage_name(plan: Plan, point: int) -> str:
    """Name of the Dockerfile's stage that ends at a point of the plan."""
    return "server" if point == server_point(plan) else f"before-{point:02d}"


def run_script(step: Step) -> str:
    """The whole `run.sh` of a step: the prelude, its variables, then the pack's script.

    A step that runs nothing of the repository finds the system's programs only: the image's PATH begins with folders
    that packages of the repository's choosing fill, and a wheel may hold a program called `find`.
    """
    path = "" if step.runs_repository_code else f"export PATH={SYSTEM_PATH}\n"
    exports = "".join(f"export {name}={shlex.quote(value)}\n" for name, value in sorted(step.env.items()))
    place = INTO_REPO if step.into_repo else ""
    return f"{path}{PRELUDE}{exports}{place}{step.script.rstrip()}\n"


def site_files(step: Step, secrets: Mapping[str, bytes]) -> dict[str, bytes]:
    """Name -> content of the site's files that a step finds below `/run/hpcbinder/site`.

    Args:
        secrets: Id -> content, as engines get them (`engine.site_secrets`).
    """
    public = "-public" if step.runs_repository_code else ""
    names = {"hpcbinder-ca": "ca.pem", **{f"{name}{public}": file for name, file in _SECRETS}}
    return {names[name]: content for name, content in secrets.items() if name in names}


def join_script() -> str:
    """The whole `join.sh` of a step that fills folders apart."""
    return f"export PATH={SYSTEM_PATH}\n{PRELUDE}{JOIN}"


def step_folder(number: int) -> str:
    """Folder of a step in the context."""
    return f"steps/{number:02d}"


def step_titles(plan: Plan) -> dict[str, str]:
    """Folder of each step in the context -> the step's name, for logs and errors."""
    return {step_folder(number): step.name for number, step in enumerate(plan.steps)}


def quote(text: str) -> str:
    """Quote a value for ENV or LABEL, in double quotes with `\\`, `"` and `$` escaped.

    The inverse is BuildKit's `frontend/dockerfile/shell/lex.go` (`processDoubleQuote`), which takes exactly these three
    escapes. A line end has no escape there, so that none can be held.

    Raises:
        DetectError: Control characters, or text that is not Unicode.
    """
    if re.search(r"[\x00-\x1f\x7f\x85\u2028\u2029\ud800-\udfff]", text):
        raise DetectError(f"a label or variable cannot hold control characters: {one_line(text, 100)}")
    return '"' + re.sub(r'([\\"$])', r"\\\1", text) + '"'


def environment(plan: Plan) -> list[tuple[str, str]]:
    """The variables that steps see: all but `late_environment`."""
    late = late_environment(plan)
    values = {name: value for name, value in plan.env.items() if name not in late}
    return [("PATH", ":".join(plan.path)), *sorted(values.items())]


def late_environment(plan: Plan) -> dict[str, str]:
    """The variables that only the finished image has.

    Where the start script is would make an environment another. Where libraries are looked for would have a step that
    sees the site's credentials run what a package of the repository has put there.
    """
    return {name: plan.env[name] for name in sorted(plan.env) if name == START_VARIABLE or name.startswith("LD_")}


class _Stages:
    """The stages of a Dockerfile, each written when another one first stands on it.

    Attributes:
        lines: The stages so far.
    """

    def __init__(self, plan: Plan, base_image: str, made: Mapping[int, str]) -> None:
        self.lines: list[str] = []
        self._plan = plan
        self._base = base_image
        self._made = made
        self._cuts = cuts(plan)
        self._written: set[int] = set()

    def whole(self) -> list[str]:
        """The image's own stage, which stands on the last cut."""
        plan = self._plan
        finish = sum(step.stage is not Stage.FINISH for step in plan.steps)
        below = self._stage(self._cuts[-1])
        steps = self._steps(self._cuts[-1], finish)
        last = self._steps(finish, len(plan.steps))
        return [
            "",
            f"FROM {below}",
            *self._variables(self._cuts[-1]),
            *steps,
            "",
            'COPY ["content/", "/"]',
            *last,
            *(line for name, value in late_environment(plan).items() for line in ("", f"ENV {name}={quote(value)}")),
        ]

    def _stage(self, point: int) -> str:
        """Write the stage that ends at a point, unless it is written; returns its name."""
        name = stage_name(self._plan, point)
        if point in self._written:
            return name
        self._written.add(point)
        if point in self._made:
            self.lines += ["", f"FROM {_reference(self._made[point])} AS {name}"]
            return name
        start = max((cut for cut in self._cuts if cut < point), default=0)
        below = self._stage(start) if point > self._cuts[0] else _reference(self._base)
        variables = self._variables(start) if point > self._cuts[0] else []
        steps = self._steps(start, point)
        self.lines += ["", f"FROM {below} AS {name}", *variables, *steps]
        return name

    def _variables(self, start: int) -> list[str]:
        """What the first stage above the server's says, for all that follow."""
        if start > self._cuts[0]:
            return []
        return _pairs("ENV", environment(self._plan))

    def _steps(self, start: int, stop: int) -> list[str]:
        """The instructions of some steps; the stages of those that are made apart are written."""
        lines: list[str] = []
        for number, step in list(enumerate(self._plan.steps))[start:stop]:
            if step.image:
                self.lines += ["", f"FROM {_reference(step.image)} AS image-{number}"]
            comment = f"# {step.name}: {one_line(step.reason, 500)}"
            if step.apart:
                below = self._stage(apart_point(self._plan, number))
                self.lines += ["", f"FROM {below} AS apart-{number:02d}", "", comment, _run(number, step)]
                lines += ["", f"# {step.name}, made apart, comes in", _join(number, step, below)]
            else:
                lines += ["", comment, _run(number, step)]
        return lines


def _labels(plan: Plan) -> list[tuple[str, str]]:
    return [(quote(name), value) for name, value in sorted(plan.labels.items())]


def _pairs(word: str, pairs: Iterable[tuple[str, str]]) -> list[str]:
    """One instruction for all of them: buildah makes an image of each."""
    text = " \\\n    ".join(f"{name}={quote(value)}" for name, value in pairs)
    return [f"{word} {text}"] if text else []


def _run(number: int, step: Step) -> str:
    public = "-public" if step.runs_repository_code else ""
    mounts = [
        f"type=bind,source={step_folder(number)},target={STEP_DIR}/step",
        f"type=bind,from=tools,source=/,target={STEP_DIR}/tools",
        *([f"type=bind,from=image-{number},source=/,target={STEP_DIR}/image"] if step.image else []),
        f"type=tmpfs,target={STEP_DIR}/work",
        # BuildKit makes a secret's folder in the layer, with the build's time; in a tmpfs nothing of it stays.
        f"type=tmpfs,target={STEP_DIR}/site",
        f"type=secret,id=hpcbinder-ca,target={STEP_DIR}/site/ca.pem",
        *(f"type=secret,id={name}{public},target={STEP_DIR}/site/{file}" for name, file in _SECRETS),
        *(f"type=cache,id=hpcbinder-{cache.name},target={STEP_DIR}/cache/{cache.target}" for cache in step.caches),
    ]
    return _instruction(mounts, "run.sh")


def _join(number: int, step: Step, before: str) -> str:
    """Only the folders themselves are mounted: BuildKit hashes all that it mounts from another stage."""
    mounts = [f"type=bind,source={step_folder(number)},target={STEP_DIR}/step", f"type=tmpfs,target={STEP_DIR}/work"]
    for index, folder in enumerate(step.apart):
        source = check_apart(folder)
        mounts.append(f"type=bind,from=apart-{number:02d},source={source},target={MADE}/{index}")
        mounts.append(f"type=bind,from={before},source={source},target={BEFORE}/{index}")
    return _instruction(mounts, "join.sh")


def _instruction(mounts: Sequence[str], script: str) -> str:
    argv = json.dumps(["/bin/sh", "-eu", f"{STEP_DIR}/step/{script}"])
    return " \\\n    ".join(["RUN", *(f"--mount={mount}" for mount in mounts), argv])


def _reference(image: str) -> str:
    """An image reference, checked: it becomes a word of a FROM line."""
    if not re.match(r"[A-Za-z0-9][A-Za-z0-9._:/@-]*\Z", image):
        raise DetectError(f"not an image reference: {one_line(image, 100)}")
    return image
