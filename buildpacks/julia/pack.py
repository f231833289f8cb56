"""Julia: a release that the project allows, its packages in a depot of the image, and IJulia's kernel."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping
from typing import Any

from hpcbinder.plan import DetectError, Draft, Repo, Stage, show

from .versions import Release, allows, numbers, releases

_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}\Z")

PREFIX = "/opt/julia"
DEPOT = f"{PREFIX}/depot"
KERNEL_PROJECT = f"{PREFIX}/ijulia"
OWN_DEPOT = "~/.cache/hpcbinder/julia"
"""Where Pkg writes at run time. Not `~/.julia`: what a person has there is nothing of the image's."""

CPUS = {
    "amd64": "generic;sandybridge,-xsaveopt,clone_all;haswell,-rdrnd,base(1)",
    "arm64": "generic;cortex-a57;thunderx2t99;carmel,clone_all;apple-m1,base(3);neoverse-512tvb,base(3)",
}
"""What Julia itself is compiled for (JuliaCI/julia-buildkite): the image runs on another processor than the one
it was built on, which would compile all packages again."""


def plan(repo: Repo, draft: Draft) -> None:
    path, project = _project(repo)
    manifest_path = _manifest(repo, path)
    if path is None or project is None:
        if manifest_path is not None and re.search(
            r"^(julia_version|git-tree-sha1)\b", repo.read_text(manifest_path), re.M
        ):
            raise DetectError(
                "is a lock of Julia's without its Project.toml",
                where=show(manifest_path),
                hint="commit both; --without julia builds without it",
            )
        return
    manifest = repo.read_toml(manifest_path) if manifest_path is not None else {}
    release, why = _release(draft, path, project, manifest_path, manifest)
    count = len(project.get("deps", {}))
    locked = (
        f", as {show(manifest_path)} has them" if manifest_path is not None else ", in versions that the build finds"
    )
    draft.used(path, f"Julia {release.version} ({why}); {count} package{'s' * (count != 1)}{locked}")
    if manifest_path is not None:
        draft.used(manifest_path, "the exact versions of Julia's packages")
    folder = posixpath.join("/srv/repo", posixpath.dirname(path)).rstrip("/")
    draft.set_env("JULIA_DEPOT_PATH", f"{OWN_DEPOT}:{DEPOT}")
    draft.set_env("JULIA_LOAD_PATH", f"@:@v#.#:@stdlib:{KERNEL_PROJECT}")
    draft.set_env("JULIA_PROJECT", folder)
    draft.add_path(f"{PREFIX}/bin")
    draft.want_system(["ca-certificates", "curl"], "Julia")
    draft.add_step(
        Stage.INTERPRETER,
        "program",
        f"Julia {release.version}",
        draft.script("program.sh"),
        data={"path": f"{release.path}\n", "sha256": f"{release.sha256}  julia.tar.gz\n"},
    )
    draft.add_step(
        Stage.DEPENDENCIES,
        "packages",
        "installs and compiles Julia's packages, and IJulia",
        draft.script("packages.sh"),
        reads=_reads(repo, path, project, manifest_path, manifest),
        data={"project": f"{folder}\n", "packages.jl": draft.script("packages.jl")},
        env={"JULIA_CPU_TARGET": CPUS[draft.architecture]},
        runs_repository_code=True,
        into_repo=True,
    )
    draft.add_kernel(f"julia-{'.'.join(release.version.split('.')[:2])}")


def _project(repo: Repo) -> tuple[str | None, dict[str, Any] | None]:
    """The project file, if it is Julia's: other tools have a Project.toml, too."""
    for name in ("JuliaProject.toml", "Project.toml"):
        path = repo.config(name)
        if path is None:
            continue
        if name == "Project.toml" and not re.search(r"^[ \t]*(\[deps\]|uuid[ \t]*=)", repo.read_text(path), re.M):
            continue
        project = repo.read_toml(path)
        deps = project.get("deps", {})
        if not isinstance(deps, dict):
            raise DetectError("[deps] is no table", where=show(path))
        named = isinstance(project.get("name"), str) and _UUID.match(str(project.get("uuid")))
        if name == "JuliaProject.toml" or named or (deps and all(_UUID.match(str(uuid)) for uuid in deps.values())):
            return path, project
    return None, None


def _manifest(repo: Repo, project: str | None) -> str | None:
    if project is None:
        return repo.config("Manifest.toml")
    folder = posixpath.dirname(project)
    return next(
        (p for name in ("JuliaManifest.toml", "Manifest.toml") if repo.is_file(p := posixpath.join(folder, name))), None
    )


def _release(
    draft: Draft, path: str, project: Mapping[str, Any], manifest_path: str | None, manifest: Mapping[str, Any]
) -> tuple[Release, str]:
    """The newest release that the project allows, or the one its lock was made with; and why that."""
    there = releases(draft.architecture)
    wanted = manifest.get("julia_version")
    if manifest_path is not None and isinstance(wanted, str):
        if wanted in there:
            return there[wanted], f"{show(manifest_path)} was made with it"
        minor = [version for version in there if version.startswith(".".join(wanted.split(".")[:2]) + ".")]
        if not minor:
            raise DetectError(
                f"was made with Julia {show(wanted[:40])}, which is not known here",
                where=show(manifest_path),
                hint=f"there are {next(iter(there))} to {list(there)[-1]}",
            )
        return there[minor[-1]], f"{show(manifest_path)} was made with {show(wanted)}, which is not known here"
    compat = project.get("compat", {})
    spec = compat.get("julia") if isinstance(compat, dict) else None
    if spec is None:
        return there[list(there)[-1]], "the newest that is known here: nothing says which"
    fits = [version for version in there if allows(str(spec), version)]
    if not fits:
        raise DetectError(
            f"asks for Julia {show(str(spec)[:80])}, which is not known here",
            where=show(path),
            hint=f"there are {next(iter(there))} to {list(there)[-1]}",
        )
    newest = max(fits, key=numbers)
    return there[newest], f"the newest that julia = {show(str(spec))} of [compat] allows"


def _reads(
    repo: Repo, path: str, project: Mapping[str, Any], manifest_path: str | None, manifest: Mapping[str, Any]
) -> set[str]:
    """The project files, the package itself if it is one, and the packages of the repository that the lock names."""
    folder = posixpath.dirname(path)
    found = {path, *([manifest_path] if manifest_path else [])}
    folders = [posixpath.join(folder, name) for name in ("src", "ext", "deps")] if project.get("name") else []
    entries = manifest.get("deps", manifest)
    for name, versions in entries.items() if isinstance(entries, dict) else ():
        for entry in versions if isinstance(versions, list) else ():
            inside = entry.get("path") if isinstance(entry, dict) else None
            if not isinstance(inside, str):
                continue
            place = posixpath.normpath(posixpath.join(folder, inside))
            if place.startswith(("/", "..")) or not repo.is_dir(place.removeprefix(".")):
                raise DetectError(
                    f"takes {show(str(name))} from {show(inside)}, which is no folder of the repository",
                    where=show(manifest_path or path),
                )
            folders.append(place.removeprefix("."))
    for place in set(folders):
        found |= {item.path for item in repo.files(place)}
    return found
