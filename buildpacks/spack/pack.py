"""Spack environments: their portable part, built for any node of the last ten years. They count where nothing else says
what a repository needs: most lie beside what a notebook needs, for one machine."""

from __future__ import annotations

import json

from hpcbinder.plan import Draft, Repo, Stage, show

from .portable import read_environment

ELSEWHERE = (
    *("requirements.txt", "pyproject.toml", "setup.py", "pylock.toml", "uv.lock", "poetry.lock", "Pipfile"),
    *(
        "Pipfile.lock",
        "apt.txt",
        "environment.yml",
        "environment.yaml",
        "conda-linux-64.lock",
        "pixi.toml",
        "pixi.lock",
    ),
    *("conda-lock.yml", "install.R", "renv.lock", "Project.toml", "postBuild"),
)

VERSION = "0.23.1"
COMMIT = "2bfcc69fa870d3c6919be87593f22647981b648a"
"""Of that release, the last that holds its recipes, too."""

TARGETS = {"amd64": "x86_64_v3", "arm64": "aarch64"}
"""What all is built for; Spack's own binaries are for it, too."""

NEEDS = (
    *("build-essential", "bzip2", "ca-certificates", "curl", "file", "gfortran", "git", "gnupg", "patch", "python3"),
    *("unzip", "xz-utils", "zstd"),
)

VIEW = "/opt/spack/view"
VARIABLES = {
    "ACLOCAL_PATH": "share/aclocal",
    "CMAKE_PREFIX_PATH": "",
    "MANPATH": "share/man",
    "PKG_CONFIG_PATH": "lib/pkgconfig",
}
"""What activating an environment sets, but for PATH."""

KERNEL = {
    "argv": [f"{VIEW}/bin/python3", "-m", "ipykernel_launcher", "-f", "{connection_file}"],
    "display_name": "Python 3 (Spack)",
    "language": "python",
}


def plan(repo: Repo, draft: Draft) -> None:
    path = repo.config("spack.yaml")
    if path is None:
        return
    for name in ELSEWHERE:
        if (other := repo.config(name)) is not None:
            draft.unused(path, f"{show(other)} says what is needed; a Spack environment beside it is for one machine")
            return
    environment = read_environment(repo, path)
    content = dict(environment.content)
    everything = {"require": [f"target={TARGETS[draft.architecture]}"]}
    content["packages"] = {
        **content.get("packages", {}),
        "all": {**content.get("packages", {}).get("all", {}), **everything},
    }
    content["view"] = VIEW
    python = [name for name in environment.names if name.startswith("py-")]
    kernel = "py-ipykernel" in python
    notes = list(environment.notes)
    if python and not kernel:
        notes.append(f"{', '.join(python[:5])} come for Spack's own Python, which no kernel runs without py-ipykernel")
    if (lock := repo.config("spack.lock")) is not None:
        draft.unused(lock, "was made for another machine: versions are found in the build")
    draft.used(path, "; ".join((f"{len(content['specs'])} specs, by Spack {VERSION}", *notes)))
    draft.want_system(NEEDS, "Spack")
    draft.add_path(f"{VIEW}/bin")
    for name, folder in VARIABLES.items():
        draft.set_env(name, f"{VIEW}/{folder}".rstrip("/"))
    draft.asks("spack", sorted(set(environment.names)))
    draft.add_step(
        Stage.DEPENDENCIES,
        "install",
        f"installs a Spack environment for {TARGETS[draft.architecture]}",
        draft.script("install.sh"),
        data={
            "spack.yaml": json.dumps({"spack": content}, indent=2) + "\n",
            "release": f"{VERSION} {COMMIT}\n",
            "kernel.json": json.dumps(KERNEL, indent=2) + "\n" if kernel else "",
        },
        runs_repository_code=True,
    )
    if kernel:
        draft.add_kernel("spack")
