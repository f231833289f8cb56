"""Plans of repositories with a Dockerfile of their own, which is built as it is.

Docker's rules hold: the context is the repository without what `.dockerignore` in its root leaves out, or
`PATH.dockerignore` where the Dockerfile has one beside it (docs.docker.com, "Filename and location"). Only git's own
folder never comes along.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from hpcbinder.contract import LEVEL_LABEL, OWN_LEVEL
from hpcbinder.model import AsOf, BaseRef, Checkout, Content, Decision, OwnDockerfile, PackRef, Plan, Python
from hpcbinder.plan.content import content_items, content_of
from hpcbinder.plan.ignore import Ignore, parse_ignore
from hpcbinder.plan.labels import labels_of
from hpcbinder.plan.repo import Repo
from hpcbinder.plan.tree import Item, Tree, scan

NO_PYTHON = Python(version="", full="", suite="", origin="", executable="")
"""Of an image about which only its Dockerfile knows."""


def own_plan(
    checkout: Checkout,
    own: OwnDockerfile,
    architecture: str,
    refs: Sequence[PackRef],
    decisions: Sequence[Decision],
    *,
    as_of: AsOf | None = None,
) -> Plan:
    """The plan to build a repository's own Dockerfile.

    Raises:
        DetectError: A file cannot be read.
    """
    pinned = next((image.image for image in own.images if image.name == own.base), "")
    base = BaseRef(own.base, suite="", python="", architecture=architecture, variant="", image=pinned)
    return Plan(
        name=checkout.name,
        source=checkout.source,
        ref=checkout.ref,
        commit=checkout.commit,
        uncommitted=checkout.uncommitted,
        subdir=checkout.subdir,
        timestamp=checkout.timestamp,
        base=base,
        steps=(),
        content=own_content(checkout, own.path),
        env={},
        path=(),
        start=None,
        labels=labels_of(checkout, refs, base, {LEVEL_LABEL: OWN_LEVEL}),
        packs=tuple(refs),
        decisions=tuple(decisions),
        python=NO_PYTHON,
        own=own,
        as_of=as_of,
    )


def own_items(checkout: Checkout, own: OwnDockerfile) -> tuple[Repo, Iterator[Item]]:
    """The repository as its Dockerfile sees it, and what of it is sent to an engine; the Dockerfile itself is not
    among it.

    Raises:
        DetectError: A file cannot be read.
    """
    repo = own_repo(checkout, own.path)
    return repo, (item for item in content_items(repo, (), None) if item.path != own.path)


def own_repo(checkout: Checkout, path: str) -> Repo:
    """The repository with the ignore rules that hold for a Dockerfile in it.

    Raises:
        DetectError: An ignore file cannot be read.
    """
    bare = Tree(checkout.root, {})
    for name in (f"{path}.dockerignore", ".dockerignore"):
        if (checkout.root / name).is_symlink() or (checkout.root / name).is_file():
            rules = parse_ignore([(name, bare.read_text(name))])
            break
    else:
        rules = Ignore()
    return Repo(scan(checkout.root, rules), "", "", rules)


def own_content(checkout: Checkout, path: str) -> Content:
    """What of a repository its Dockerfile sees, and what it is together.

    Raises:
        DetectError: A file cannot be read.
    """
    return content_of(checkout, own_repo(checkout, path), (), None)
