"""A requirements.txt beside a file that says more: what that one lacks is installed by pip on top of it.

repo2docker leaves it aside without a word; what people write into both is meant to be there together, first the
environment and then the rest.
"""

from __future__ import annotations

from hpcbinder.plan import DetectError, Draft, Repo, show

from .recipe import PROVIDED, TRANSLATED, Recipe
from .requirements import Requirements, read_requirements, requirement_name

NAME = "requirements.txt"


def join(repo: Repo, draft: Draft, recipe: Recipe, wanted: Requirements) -> Requirements:
    """What is wanted, with what requirements.txt asks for besides; as it was, and why is said, where they do not fit.

    Args:
        recipe: The file that counts more.
        wanted: What pip is to install for that.
    """
    path = repo.config(NAME)
    if path is None or recipe.kind not in (PROVIDED, TRANSLATED) or path in wanted.files or NAME in recipe.text:
        return wanted
    owner = show(recipe.path)
    try:
        more = read_requirements(repo, path)
        there = dict(draft.provided.packages) if draft.provided is not None else {}
        said = {requirement_name(line) for line in wanted.lines}
        left = [line for line in more.lines if (name := requirement_name(line)) and (name in there or name in said)]
        more.lines = [line for line in more.lines if line not in left]
        both = _together(wanted, more)
        _check(draft, both, there)
    except DetectError as error:
        at = f"{error.where}: " if error.where and error.where != path else ""
        way = "--buildpack python builds from it alone"
        draft.unused(path, f"does not fit what {owner} says, which counts more: {at}{error.message} ({way})")
        return wanted
    odds = [line for line in left if not _met(line, there.get(requirement_name(line), ""))]
    note = f"; {owner} counts more than {', '.join(map(show, odds[:5]))}" if odds else ""
    if not (more.lines or more.locals):
        draft.unused(path, f"{owner}, which counts more, has all of it{note}")
        return wanted
    names = sorted(filter(None, map(requirement_name, more.lines))) or ["a project"]
    few = ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
    draft.used(path, f"pip installs what {owner} does not have: {few}{note}")
    return both


def _check(draft: Draft, both: Requirements, there: dict[str, str]) -> None:
    """Raises DetectError where no versions fit together; only of an environment whose interpreter is known already."""
    if draft.provided is None or both.has_indexes or both.builds_all:
        return
    pins = [f"{name}=={version}" for name, version in sorted(there.items())]
    draft.resolve(
        both.from_index,
        constraints=[*both.plain_constraints, *pins],
        elsewhere=both.elsewhere,
        prereleases=both.prereleases,
        keep=False,
    )


def _together(first: Requirements, more: Requirements) -> Requirements:
    return Requirements(
        lines=[*first.lines, *more.lines],
        constraints=[*first.constraints, *more.constraints],
        options=[*first.options, *(option for option in more.options if option not in first.options)],
        locals=[*first.locals, *more.locals],
        files=dict(first.files),
        prereleases=first.prereleases or more.prereleases,
        no_binary=first.no_binary | more.no_binary,
    )


def _met(line: str, version: str) -> bool:
    from packaging.requirements import InvalidRequirement, Requirement

    try:
        requirement = Requirement(line.split(" --hash=")[0])
    except InvalidRequirement:
        return False
    return not version or requirement.url is None and requirement.specifier.contains(version, prereleases=True)
