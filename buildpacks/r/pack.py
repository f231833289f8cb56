"""R: Debian's, with its kernel, and the packages that a repository names: Debian's first, then CRAN's.

What a file asks for by name is known before the build. What Debian's release has, in a version that will do, comes from
there; all else is fetched from CRAN as of a date and built. What install.R does besides is run.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date

from hpcbinder.plan import Assembly, DetectError, Draft, Repo, Stage, TextFile, show

from .debian import BASE, RELEASES, at_least, debian_name, packages, same
from .description import Description, is_description, read_description
from .renv import Renv, read_renv
from .script import Script, read_script

_RUNTIME = re.compile(r"r(?:-(?P<version>[0-9]+\.[0-9]+(?:\.[0-9]+)?))?(?:-(?P<date>[0-9]{4}-[0-9]{2}-[0-9]{2}))?\Z")

_BUILDS = re.compile(r"install|compile|cpp|make|restore|system")
"""Words of a script that may build something."""

ALWAYS = ("r-base-core", "r-recommended", "r-cran-irkernel")
COMPILERS = "r-base-dev"

NOWHERE = "/nonexistent"
"""Debian's name of a folder that is never there."""

OLDEST_SNAPSHOT = date(2017, 10, 10)
"""The first day of which the default mirror has CRAN."""

KERNEL_FILE = "/usr/local/share/jupyter/kernels/ir/kernel.json"
KERNEL = {
    "argv": ["/usr/bin/R", "--slave", "-e", "IRkernel::main()", "--args", "{connection_file}"],
    "display_name": "R",
    "language": "R",
}
"""As IRkernel has it (`inst/kernelspec/kernel.json`), with R's whole path."""

SOURCES = ("R/", "src/", "data/", "inst/", "man/", "exec/", "demo/", "tools/", "po/")
"""Folders of a package ("Writing R Extensions", section 1.1.5) that its installation reads."""


@dataclass(frozen=True)
class Asked:
    """What a repository says of R.

    Attributes:
        runtime: Path of a runtime.txt that is about R, its version ("" for none) and its date.
    """

    runtime: tuple[str, str, date | None] | None
    description: tuple[str, Description] | None
    renv: tuple[str, Renv] | None
    script: str | None

    @property
    def anything(self) -> bool:
        """Whether it says anything."""
        return any(x is not None for x in (self.runtime, self.description, self.renv, self.script))

    @property
    def version(self) -> tuple[str, str, bool]:
        """Version of R, the file that names it, and whether a newer one will do; "" for none."""
        if self.runtime is not None and self.runtime[1]:
            return self.runtime[1], self.runtime[0], False
        if self.renv is not None and self.renv[1].r:
            return self.renv[1].r, self.renv[0], False
        if self.description is not None and self.description[1].r:
            return self.description[1].r, self.description[0], True
        return "", "", True


@dataclass
class Needs:
    """The packages that are to be installed.

    Attributes:
        debian: Names in Debian.
        cran: Name -> exact version, "" for the newest there is.
    """

    suite: str
    debian: dict[str, None] = field(default_factory=dict)
    cran: dict[str, str] = field(default_factory=dict)

    def add(self, name: str, *, least: str = "", exact: str = "") -> str:
        """Have a package; returns where it comes from, for a person: "" for R itself."""
        if name in BASE:
            return ""
        known = debian_name(name, self.suite)
        there = packages(self.suite)[known] if known else ""
        if known and (not least or at_least(there, least)) and (not exact or same(there, exact)):
            self.debian[known] = None
            return "Debian"
        self.cran[name] = exact or self.cran.get(name, "")
        return "CRAN"


def prefer(repo: Repo, draft: Draft) -> None:
    """The Debian release whose R comes nearest to what the repository asks for."""
    asked = _asked(repo)
    if not asked.anything:
        return
    suites = list(dict.fromkeys(python.suite for python in draft.pythons if python.suite in RELEASES))
    if suites:
        wanted = _nearest(asked, suites)
        draft.prefer(lambda python: python.suite == wanted)


def plan(repo: Repo, draft: Draft) -> None:
    asked = _asked(repo)
    if not asked.anything:
        return
    if draft.provided is not None and asked.runtime is None and asked.description is None:
        for path in filter(None, (asked.script, asked.renv and asked.renv[0])):
            draft.unused(path, f"{show(draft.provided.path)} says what the environment is, and R is to be in it")
        return
    suite = draft.python.suite
    if suite not in RELEASES:
        raise DetectError(
            f"asks for R, but the image stands on Debian {suite}, of whose R nothing is known",
            where=show(_first(asked)),
            hint=f"a Python of Debian {', '.join(RELEASES)} brings another base",
        )
    needs = Needs(suite)
    day, origin = _date(asked, draft)
    notes = dict([_which(asked, draft, suite, day)])
    _renv(asked, draft, needs, notes)
    project = _description(asked, repo, draft, needs, notes)
    script = _script(asked, repo, draft, needs)
    reason = f"R {RELEASES[suite].version}"
    draft.want_system([*ALWAYS, *needs.debian], reason)
    if needs.cran or project or (script is not None and script.runs and _BUILDS.search(script.rest)):
        draft.want_system([COMPILERS], reason)
    draft.asks("r", sorted(needs.cran))
    if day and (needs.cran or (script is not None and script.runs)):
        draft.dated()
    _profile(repo, draft)
    _kernel(draft)
    common = draft.script("common.sh")
    settings = {"suite": f"{suite}\n", "date": f"{day or 'latest'}\n", "common.R": draft.script("common.R")}
    if needs.cran:
        draft.add_step(
            Stage.DEPENDENCIES,
            "packages",
            f"R packages that Debian {suite} does not have, from CRAN {origin}: {_listed(needs.cran)}",
            common + draft.script("packages.sh"),
            data={
                **settings,
                "packages": "".join(f"{name} {version or '*'}\n" for name, version in sorted(needs.cran.items())),
                "packages.R": draft.script("packages.R"),
            },
            runs_repository_code=True,
        )
    if asked.script is not None and script is not None and script.runs:
        draft.add_step(
            Stage.DEPENDENCIES,
            "install",
            f"runs {show(asked.script)}, with CRAN {origin}",
            common + draft.script("install.sh"),
            reads={asked.script, repo.resolve(asked.script), *_named(repo, script.rest)},
            data={
                **settings,
                "path": asked.script,
                "install.R": script.rest,
                "run.R": draft.script("run.R"),
            },
            runs_repository_code=True,
        )
    if project:
        draft.add_step(
            Stage.PROJECT,
            "project",
            "installs the repository's own R package",
            common + draft.script("project.sh"),
            reads=project,
            data=settings,
            runs_repository_code=True,
        )


def _asked(repo: Repo) -> Asked:
    runtime = repo.config("runtime.txt")
    described = repo.root_config("DESCRIPTION")
    if described is not None and not is_description(repo.read_text(described)):
        described = None
    lock = repo.config("renv.lock")
    return Asked(
        _runtime(repo, runtime) if runtime is not None else None,
        (described, read_description(repo, described)) if described is not None else None,
        (lock, read_renv(repo, lock)) if lock is not None else None,
        repo.config("install.R"),
    )


def _runtime(repo: Repo, path: str) -> tuple[str, str, date | None] | None:
    text = repo.read_text(path, utf16=True).strip()
    if not re.match(r"r(-|\Z)", text):
        return None
    match = _RUNTIME.match(text)
    try:
        day = date.fromisoformat(match["date"]) if match and match["date"] else None
    except ValueError:
        match = None
    if match is None:
        raise DetectError(
            f"'{show(text.partition(chr(10))[0][:80])}' is no version of R",
            where=f"{show(path)}:1",
            hint="write r-YYYY-MM-DD or r-X.Y-YYYY-MM-DD, the day whose CRAN counts",
        )
    return path, match["version"] or "", day


def _first(asked: Asked) -> str:
    paths = [each[0] for each in (asked.runtime, asked.renv, asked.description) if each is not None]
    return (paths or [asked.script or ""])[0]


def _nearest(asked: Asked, suites: list[str]) -> str:
    """The release with just the R that is asked for, else the oldest with a newer one, else the newest."""
    by_age = sorted(suites, key=list(RELEASES).index)
    version, _, newer_will_do = asked.version
    if version:
        minor = _minor(version)
        same_minor = [suite for suite in by_age if _minor(RELEASES[suite].version) == minor]
        newer = [suite for suite in by_age if at_least(RELEASES[suite].version, version)]
        if newer_will_do:
            return suites[0] if suites[0] in newer else (newer or by_age[-1:])[0]
        return (same_minor or newer or by_age[-1:])[0]
    if asked.runtime is not None and asked.runtime[2] is not None:
        older = [suite for suite in by_age if RELEASES[suite].released <= asked.runtime[2]]
        return older[-1] if older else by_age[0]
    return suites[0]


def _minor(version: str) -> str:
    return ".".join(version.split(".")[:2])


def _date(asked: Asked, draft: Draft) -> tuple[str, str]:
    """The day whose CRAN counts ("" for today's), and how a person is told of it."""
    day = asked.runtime[2].isoformat() if asked.runtime is not None and asked.runtime[2] is not None else ""
    if not day and draft.as_of:
        day = draft.as_of[:10]
    if not day:
        return "", "as it is"
    if date.fromisoformat(day) < OLDEST_SNAPSHOT:
        return OLDEST_SNAPSHOT.isoformat(), f"as of {OLDEST_SNAPSHOT}, the first day there is (not {day})"
    return day, f"as of {day}"


def _which(asked: Asked, draft: Draft, suite: str, day: str) -> tuple[str, str]:
    """The file that says which R, and what is said of it: of a runtime.txt at once, of others with all they say."""
    version, path, newer_will_do = asked.version
    ours = RELEASES[suite].version
    note = f"R {ours} of Debian {suite}"
    if version and not (at_least(ours, version) if newer_will_do else _minor(version) == _minor(ours)):
        note += f", not {version}, which no Debian release to stand on has"
    if asked.runtime is not None:
        dated = f"; packages that are not Debian's as of {day}" if asked.runtime[2] is not None else ""
        draft.used(asked.runtime[0], f"{note}{dated}")
        return "", ""
    return path, f"{note}; "


def _renv(asked: Asked, draft: Draft, needs: Needs, notes: Mapping[str, str]) -> None:
    if asked.renv is None:
        return
    path, lock = asked.renv
    count = 0
    for name, version in sorted(lock.packages.items()):
        origin = needs.add(name, exact=version)
        count += origin == "Debian"
        if origin == "CRAN" and name in lock.bioconductor:
            raise DetectError(
                f"{name} {version} comes from Bioconductor, and Debian {needs.suite} does not have that version",
                where=lock.where(name),
                hint="install it in install.R with BiocManager::install, and take it out of the lock",
            )
    rest = len(lock.packages) - count
    said = f"{len(lock.packages)} R packages in just these versions: {count} Debian's, {rest} from CRAN"
    draft.used(path, notes.get(path, "") + said)


def _description(asked: Asked, repo: Repo, draft: Draft, needs: Needs, notes: Mapping[str, str]) -> set[str]:
    """What a DESCRIPTION needs; returns the files of the package to install."""
    if asked.description is None:
        return set()
    path, description = asked.description
    far = {re.split(r"[@#]", remote)[0].rpartition("/")[2].lower(): remote for remote in description.remotes}
    origins: dict[str, list[str]] = {}
    for dependency in description.dependencies:
        if asked.renv is not None and dependency.name in asked.renv[1].packages:
            continue
        if dependency.name.lower() in far and debian_name(dependency.name, needs.suite) is None:
            raise DetectError(
                f"takes {dependency.name} from {show(far[dependency.name.lower()])} (Remotes), which is not supported",
                where=f"{show(path)}:{dependency.line}",
                hint="install it in install.R, with remotes::install_github or the like",
            )
        origins.setdefault(needs.add(dependency.name, least=dependency.least), []).append(dependency.name)
    said = [f"{_listed(names)} from {origin}" for origin, names in sorted(origins.items(), reverse=True) if origin]
    if far:
        said.append("Remotes left aside: the released versions are taken")
    files: set[str] = set()
    if not description.package or not repo.is_file("NAMESPACE"):
        said.append("nothing is installed of the repository itself, which is no package (it has no NAMESPACE)")
    else:
        said.append(f"the package {description.package} is installed")
        plain = re.compile(r"(DESCRIPTION|NAMESPACE|configure(\.ac|\.in)?|cleanup|LICEN[CS]E.*|\.Rinstignore)\Z")
        files = {item.path for item in repo.files() if item.path.startswith(SOURCES) or plain.match(item.path)}
    draft.used(path, notes.get(path, "") + "; ".join(said))
    return files


def _script(asked: Asked, repo: Repo, draft: Draft, needs: Needs) -> Script | None:
    if asked.script is None:
        return None
    script = read_script(repo.read_text(asked.script), lambda name: debian_name(name, needs.suite) is not None)
    origins: dict[str, list[str]] = {}
    for install in script.installs:
        origins.setdefault(needs.add(install.name), []).append(install.name)
    said = [f"{_listed(names)} from {origin}" for origin, names in sorted(origins.items(), reverse=True) if origin]
    if script.runs:
        # These it finds there already, and does not fetch and build them itself.
        there = [name for name in script.mentions if debian_name(name, needs.suite)]
        for name in there:
            needs.add(name)
        also = f", with {_listed(there)} from Debian" if there else ""
        said.append(f"{'its other lines run' if origins else 'is run'} in the build{also}")
    elif said:
        said.append("it is not run itself")
    draft.used(asked.script, "; ".join(said) or "does nothing")
    return script


def _named(repo: Repo, text: str) -> set[str]:
    """Files and folders of the repository that a script names."""
    found: set[str] = set()
    for word in set(re.findall(r"[\"']([^\"'\n]{1,300})[\"']", text)):
        path = word.removeprefix("./").rstrip("/")
        if path and repo.is_file(path):
            found.add(path)
        elif path in ("", ".") or repo.is_dir(path):
            found |= {item.path for item in repo.files("" if path == "." else path)}
    return found


def _profile(repo: Repo, draft: Draft) -> None:
    """R reads nothing of the home folder, which is a cluster's own; of the repository what R would read there."""
    draft.set_env("R_LIBS_USER", NOWHERE)
    for name, variable in ((".Rprofile", "R_PROFILE_USER"), (".Renviron", "R_ENVIRON_USER")):
        there = repo.is_file(name)
        if there and "renv/activate.R" in repo.read_text(name):
            draft.unused(name, "starts renv, which would install again what is in the image")
            there = False
        elif there:
            draft.used(name, "R reads it, wherever it is started")
        draft.set_env(variable, f"/srv/repo/{name}" if there else NOWHERE)


def _kernel(draft: Draft) -> None:
    text = json.dumps(KERNEL, indent=2) + "\n"
    draft.add_step(
        Stage.INTERPRETER,
        "kernel",
        "a kernel for R",
        draft.script("kernel.sh"),
        data={"kernel.json": text},
        assembly=Assembly(files={KERNEL_FILE: TextFile(text)}),
    )
    draft.add_kernel("ir")


def _listed(names: Iterable[str]) -> str:
    found = list(dict.fromkeys(names))
    return ", ".join(found[:8]) + (f" and {len(found) - 8} more" if len(found) > 8 else "")
