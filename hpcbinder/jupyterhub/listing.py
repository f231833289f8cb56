"""The environments that stores tell a hub of, as they are now: nothing is kept from one look to the next."""

from __future__ import annotations

import grp
import logging
import os
import pwd
import re
from collections.abc import Mapping
from pathlib import Path

from hpcbinder.catalog import Catalog, vouched
from hpcbinder.errors import CatalogError
from hpcbinder.jupyterhub.environment import Environment
from hpcbinder.model import Entry
from hpcbinder.register import Published, published_ids, published_of

log = logging.getLogger("hpcbinder.jupyterhub")


class Listing:
    """What a hub may offer of its own store and of the site's.

    Args:
        catalog: Its own store and the site's; of all what `hpcbinder.catalog.vouched` believes, for many may share one.
    """

    def __init__(self, catalog: Catalog) -> None:
        self._stores = (catalog.path, *catalog.site)
        # One that has no store of its own to believe more than others.
        self._catalog = Catalog(Path(os.devnull, "none"), self._stores)

    def environments(self, user: str) -> dict[str, Environment]:
        """What a person may start, by id. A record that is damaged is logged and left out.

        Args:
            user: Name of an account; one that the machine does not know gets what everybody may have.
        """
        groups = _groups(user)
        found: dict[str, Environment] = {}
        for store in self._stores:
            try:
                ids = published_ids(store)
            except CatalogError as error:
                log.warning("%s", error)
                continue
            for id_ in ids:
                folder = store / "images" / id_
                if id_ in found or not vouched(folder, store) or not (folder / "record.json").is_file():
                    continue
                try:
                    record = published_of(store, id_)
                except CatalogError as error:
                    log.warning("%s", error)
                    continue
                if record is not None and (not record.groups or groups.intersection(record.groups)):
                    found[id_] = environment(id_, record)
        return found

    def entry(self, environment: Environment) -> Entry:
        """The catalog's record of what `environments` found.

        Raises:
            CatalogError: It is gone, or damaged.
        """
        found = self._catalog.find(environment.id)
        if found is None or environment.own:
            raise CatalogError(f"no image {environment.id} in the catalog (any more)")
        return found


def environment(id_: str, record: Published, *, own: bool = False) -> Environment:
    """What a hub shows of an image that it was told of."""
    return Environment(
        id=id_,
        title=record.title,
        repository=record.repository,
        ref=record.ref,
        description=record.description,
        icon=record.icon,
        path=record.path,
        resources=_numbers(record.resources),
        own=own,
    )


def _numbers(resources: Mapping[str, str]) -> dict[str, str | int]:
    counts = ("nodes", "cpus")
    return {
        name: int(text) if name in counts and re.fullmatch("[0-9]+", text) else text for name, text in resources.items()
    }


def _groups(user: str) -> frozenset[str]:
    try:
        account = pwd.getpwnam(user)
    except (KeyError, ValueError):
        return frozenset()
    names = set()
    for number in os.getgrouplist(account.pw_name, account.pw_gid):
        try:
            names.add(grp.getgrgid(number).gr_name)
        except KeyError:
            continue
    return frozenset(names)
