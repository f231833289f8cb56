"""A repository's own Dockerfile: built as it is, from images that the site knows where to get."""

from __future__ import annotations

from hpcbinder.plan import DetectError, Draft, OutsideImage, RegistryError, Repo, show

from .parse import rewrite

ARGUMENTS = {"NB_USER": "jovyan", "NB_UID": "1000"}
"""What repo2docker and mybinder.org give a Dockerfile (repo2docker `app.py`, `build_args`)."""


def plan(repo: Repo, draft: Draft) -> None:
    found = repo.config("Dockerfile")
    if found is None:
        return
    path = repo.resolve(found)
    text = repo.read_text(path)
    images: dict[str, OutsideImage] = {}

    def rename(name: str, where: str) -> str:
        try:
            image = images.setdefault(name, images.get(name) or draft.outside(name))
        except (DetectError, RegistryError) as error:
            hint = error.hint or f'bases.images."{show(name)}" may name another image to take in its place'
            raise type(error)(f"{show(name)}: {error.message}", where=where, hint=hint) from None
        return image.tag

    done = rewrite(text, show(found), rename, arguments=ARGUMENTS, architecture=draft.architecture)
    stands = f"on {show(done.last)}"
    others = [show(name) for name in done.outside if name != done.last]
    from_elsewhere = [f"with files or stages of {', '.join(others)}"] if others else []
    draft.used(found, "; ".join((f"is built as it is, {stands}", *from_elsewhere, *done.notes)))
    draft.build_own(path, done.text, base=done.last, images=list(images.values()), arguments=ARGUMENTS)
