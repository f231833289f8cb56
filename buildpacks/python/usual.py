"""What repo2docker has in every environment, beside what a repository asks for: notebooks that were tried there import
it, and no file of theirs names it.

The list is what its base environment asks for (`buildpacks/conda/environment.yml`: ipywidgets, nbconvert by way of
JupyterLab) and, of what comes with these, what notebooks import.
"""

from __future__ import annotations

from collections.abc import Collection

from hpcbinder.plan import Draft, Repo, code_imports, local_modules, plain_python

from .requirements import Requirements, requirement_name

USUAL = {
    "bs4": "beautifulsoup4",
    "ipywidgets": "ipywidgets",
    "jinja2": "jinja2",
    "nbconvert": "nbconvert",
    "nbformat": "nbformat",
    "psutil": "psutil",
    "requests": "requests",
    "yaml": "pyyaml",
}
"""Module -> package of PyPI."""


def add_usual(repo: Repo, draft: Draft, wanted: Requirements, there: Collection[str]) -> None:
    """Add what of it notebooks import and no file names.

    Args:
        wanted: What files ask for.
        there: Normalised names of what is there besides.
    """
    if any(" --hash=" in line for line in wanted.lines):
        return  # Where one line has a hash, each needs one.
    named = {*there, *filter(None, map(requirement_name, wanted.lines))}
    own = {name for names in local_modules(item.path for item in repo.files()).values() for name in names}
    left = {module: name for module, name in USUAL.items() if name not in named and module not in own}
    found: dict[str, tuple[str, str]] = {}
    for notebook in repo.code.notebooks:
        if notebook.language not in ("", "python"):
            continue
        for cell in notebook.cells:
            if not any(module in cell.source for module in left):
                continue
            for one in code_imports(plain_python(cell.source), notebook.path, cell.number):
                if one.top in left and not one.optional:
                    found[left.pop(one.top)] = (one.top, notebook.path)
    # Nothing that the repository did not ask for may keep it from being built.
    known = draft.on_index(list(found))
    for name, (module, path) in found.items():
        if known is None or name in known:
            wanted.add([name], ())
            reason = f"imports {module}, which no file names and repo2docker has in every environment"
            draft.used(path, f"{reason}: {name} is installed")
