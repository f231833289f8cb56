"""A repository's own Dockerfile: built as it is, from images that the site knows where to get. Where a repository has
nothing else, the same of its devcontainer.json."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from hpcbinder.plan import DetectError, Draft, OutsideImage, RegistryError, Repo, show

from .devcontainer import ELSEWHERE, find_devcontainer, read_devcontainer
from .parse import rewrite

ARGUMENTS = {"NB_USER": "jovyan", "NB_UID": "1000"}
"""What repo2docker and mybinder.org give a Dockerfile (repo2docker `app.py`, `build_args`)."""

WRITTEN = "# Written by hpcbinder from {}.\n"


def plan(repo: Repo, draft: Draft) -> None:
    found = repo.config("Dockerfile")
    described = find_devcontainer(repo)
    if found is None:
        if described is not None:
            _devcontainer(repo, draft, described)
        return
    if described is not None:
        draft.unused(described, f"{show(found)} says all that is built")
    path = repo.resolve(found)
    _build(draft, path, repo.read_text(path), show(found), ARGUMENTS, found, "is built as it is")


def _devcontainer(repo: Repo, draft: Draft, path: str) -> None:
    others = [there for name in ELSEWHERE if (there := repo.config(name)) is not None]
    if repo.binder_name or others:
        reason = f"{show(others[0])} says what is needed" if others else f"there is a {repo.binder_name} folder"
        draft.unused(path, f"{reason}; this is for editors")
        return
    wanted = read_devcontainer(repo, path)
    written = WRITTEN.format(path)
    if wanted.dockerfile:
        text = f"{repo.read_text(wanted.dockerfile).rstrip()}\n{wanted.tail}"
        what = f"its Dockerfile ({show(wanted.dockerfile)}) is built, with the repository in it"
        place, where = wanted.dockerfile, show(wanted.dockerfile)
    else:
        text = f"FROM {wanted.image}\n{wanted.tail}"
        what = "its image gets the repository"
        place, where = f"{path}.Dockerfile", show(path)
    arguments = {**ARGUMENTS, **wanted.arguments}
    _build(draft, place, written + text, where, arguments, path, what, notes=wanted.notes, offset=1)


def _build(
    draft: Draft,
    path: str,
    text: str,
    where: str,
    arguments: Mapping[str, str],
    file: str,
    what: str,
    notes: Sequence[str] = (),
    offset: int = 0,
) -> None:
    """Build a Dockerfile.

    Args:
        path: Where it lies, or is put.
        where: Its name, for messages.
        file: What a person wrote, and `what` is made of it.
        offset: Lines at its beginning that are ours.
    """
    images: dict[str, OutsideImage] = {}

    def rename(name: str, place: str) -> str:
        try:
            image = images.setdefault(name, images.get(name) or draft.outside(name))
        except (DetectError, RegistryError) as error:
            hint = error.hint or f'bases.images."{show(name)}" may name another image to take in its place'
            raise type(error)(f"{show(name)}: {error.message}", where=_moved(place, offset), hint=hint) from None
        return image.tag

    try:
        done = rewrite(text, where, rename, arguments=arguments, architecture=draft.architecture)
    except DetectError as error:
        raise DetectError(error.message, where=_moved(error.where or where, offset), hint=error.hint) from None
    stands = f"on {show(done.last)}"
    others = [show(name) for name in done.outside if name != done.last]
    from_elsewhere = [f"with files or stages of {', '.join(others)}"] if others else []
    draft.used(file, "; ".join((f"{what}, {stands}", *from_elsewhere, *done.notes, *notes)))
    draft.build_own(path, done.text, base=done.last, images=list(images.values()), arguments=arguments)


def _moved(where: str, offset: int) -> str:
    """`file:line` in a file without the lines at its beginning that are ours."""
    name, _, line = where.rpartition(":")
    return f"{name}:{max(int(line) - offset, 1)}" if offset and line.isdecimal() else where
