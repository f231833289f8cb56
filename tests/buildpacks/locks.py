"""Lock files for tests, and what a plan makes of them."""

from __future__ import annotations

from collections.abc import Mapping

from checkouts import step

from hpcbinder.model import Plan


def sha(letter: str) -> str:
    """A hash that is easy to tell from others."""
    return f"sha256:{letter * 64}"


def wheels(plan: Plan) -> dict[str, str]:
    """Name -> version of what the plan's lock unpacks."""
    return {package.name: package.version for lock in plan.locks for package in lock.packages}


def built(plan: Plan) -> list[str]:
    """The lines of what the build installs one by one. (Nothing is resolved in these tests, so that the kernel always
    is left to the build, too.)"""
    return step(plan, "python/packages").data["requirements.txt"].splitlines()


def uv_lock(*packages: str, requires: str = ">=3.9", root: str = "", head: str = "") -> str:
    """A uv.lock.

    Args:
        packages: Bodies of `[[package]]`.
        root: More lines of the project's own package; "-" for none.
    """
    own = f'name = "hum"\nversion = "1"\nsource = {{ editable = "." }}\n{root}'
    bodies = (*([] if root == "-" else [own]), *packages)
    return f'version = 1\nrequires-python = "{requires}"\n{head}\n' + "".join(f"\n[[package]]\n{b}\n" for b in bodies)


def uv_package(name: str, version: str = "1.0", *, files: Mapping[str, str] | None = None, more: str = "") -> str:
    """A package of PyPI in a uv.lock.

    Args:
        files: File name -> hash; one wheel for everybody if not given.
    """
    stem = name.replace("-", "_")
    names = {f"{stem}-{version}-py3-none-any.whl": sha("a")} if files is None else files
    listed = [f'{{ url = "https://files.pythonhosted.org/{file}", hash = "{hash_}" }}' for file, hash_ in names.items()]
    ready = [entry for entry in listed if ".whl" in entry]
    sources = [f"sdist = {entry}\n" for entry in listed if ".whl" not in entry]
    return (
        f'name = "{name}"\nversion = "{version}"\nsource = {{ registry = "https://pypi.org/simple" }}\n'
        f"{''.join(sources)}wheels = [{', '.join(ready)}]\n{more}"
    )


PROJECT = "[project]\nname = 'hum'\nversion = '1'\n[build-system]\nrequires = ['hatchling']\n"
"""A pyproject.toml of a project that is a package."""
