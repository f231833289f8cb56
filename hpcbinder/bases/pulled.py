"""Bases made of an image from a registry: one of ours as it is; of any other Debian its layers, our folders and files
on top, and a step that installs the rest."""

from __future__ import annotations

import functools
import io
import re
import shutil
import tarfile
from pathlib import Path

from hpcbinder.bases import recipe
from hpcbinder.bases.kept import Parts
from hpcbinder.bases.rootfs import tidy
from hpcbinder.errors import BuildError, ConvertError, RegistryError
from hpcbinder.model import BaseRef, Stage, Step
from hpcbinder.registry import Platform, Registry, parse_reference

_OS_RELEASE = ("usr/lib/os-release", "etc/os-release")
_OS_RELEASE_LIMIT = 1 << 16


def pull_base(ref: BaseRef, scratch: Path, registry: Registry) -> Parts:
    """The parts of a base that is made of an image in a registry.

    Raises:
        BuildError: It cannot be had, or is no Debian of the suite that the plan says.
    """
    try:
        image = registry.pull(parse_reference(ref.image), Platform(ref.architecture), scratch)
        paths: dict[str, Path] = {}
        for diff_id, stream in image.layers(set(image.config.diff_ids)):
            paths[diff_id] = scratch / f"{diff_id.removeprefix('sha256:')}.tar"
            with paths[diff_id].open("wb") as out:
                shutil.copyfileobj(stream, out, 1 << 20)
        codename = ""
        for diff_id in image.config.diff_ids:
            codename = _codename(paths[diff_id]) or codename
    except (RegistryError, ConvertError) as error:
        raise BuildError(
            f"the base {ref.name} cannot be had from a registry: {error.message}", where=error.where, hint=error.hint
        ) from error
    except (tarfile.TarError, ValueError, ArithmeticError, EOFError, MemoryError, RecursionError) as error:
        raise BuildError(f"a layer of the base {ref.name} is no tar archive", where=ref.image) from error
    if codename != ref.suite:
        raise BuildError(
            f"is {f'Debian {codename}' if codename else 'no Debian'}, where Debian {ref.suite} is wanted",
            where=ref.image,
            hint="name the suite in bases.images, as in python:3.12-slim-bookworm",
        )
    layers = [(diff_id, paths[diff_id]) for diff_id in image.config.diff_ids]
    if not recipe.is_whole(recipe.recipe_of(image.config), ref):
        layers.append(_places(ref, scratch))
    return recipe.config(ref), layers


def prepare_step(ref: BaseRef) -> Step:
    """The step that makes such an image what a bootstrapped base is: the packages that it lacks."""
    return Step(
        stage=Stage.SERVER,
        name="base/prepare",
        reason=f"what {ref.name} of a registry lacks: git, curl, Debian's own Python",
        script=_script(),
        data={
            "packages": "".join(f"{name}\n" for name in recipe.packages(ref.suite)),
            "suite": ref.suite,
            "python": ref.python,
        },
    )


def _places(ref: BaseRef, scratch: Path) -> tuple[str, Path]:
    """Our own layer: mount points and files, there before the first build step."""
    nothing = io.BytesIO()
    with tarfile.open(fileobj=nothing, mode="w"):
        pass
    nothing.seek(0)
    path = scratch / "places.tar"
    with path.open("wb") as out:
        layer = tidy(nothing, out, folders=recipe.FOLDERS, files=recipe.files(ref.suite), newest=recipe.EPOCH)
    return layer.diff_id, path


def _codename(layer: Path) -> str:
    """The Debian suite that a layer says to be of (os-release(5)), "" if it says nothing."""
    with tarfile.open(layer, mode="r:") as tar:
        for member in tar:
            if member.name.removeprefix("./") in _OS_RELEASE and member.isreg():
                file = tar.extractfile(member)
                text = file.read(_OS_RELEASE_LIMIT).decode(errors="replace") if file is not None else ""
                if re.search(r'^ID="?debian"?$', text, re.MULTILINE):
                    found = re.search(r'^VERSION_CODENAME="?([a-z]+)"?$', text, re.MULTILINE)
                    return found[1] if found else ""
    return ""


@functools.cache
def _script() -> str:
    return Path(__file__).with_name("prepare.sh").read_text(encoding="utf-8")
