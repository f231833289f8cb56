"""What a hub has to offer one person at one moment: environments, and what their servers may ask for.

One `Offers` serves the whole hub. Stores are read each time; what Slurm says is kept for a while, for a form is not
worth a question to its controller.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar, cast
from weakref import WeakValueDictionary

from hpcbinder.catalog import Catalog
from hpcbinder.config import Config
from hpcbinder.errors import HpcbinderError, RunError
from hpcbinder.jupyterhub.environment import Environment, Site
from hpcbinder.jupyterhub.listing import Listing
from hpcbinder.jupyterhub.options import Options, parse
from hpcbinder.jupyterhub.options import resources as resources_of
from hpcbinder.jupyterhub.person import Person
from hpcbinder.model import Entry
from hpcbinder.scheduler import Associations, Partition, Resources, associations, partitions

log = logging.getLogger("hpcbinder.jupyterhub")

_FRESH = 60.0
"""Seconds that an answer of Slurm's is good for."""
_PEOPLE = 2000
"""People whose accounts are remembered."""
_Value = TypeVar("_Value")


@dataclass(frozen=True)
class Offer:
    """What one person may choose from.

    Attributes:
        environments: By id.
        site: What a server may ask for, with this person's own accounts.
        partitions: What Slurm says of those that may be chosen; none where it says nothing.
        note: What the person should know of it, "" for nothing.
    """

    environments: Mapping[str, Environment]
    site: Site
    partitions: tuple[Partition, ...] = ()
    note: str = ""

    def parse(self, raw: object) -> Options:
        """See `hpcbinder.jupyterhub.options.parse`."""
        return parse(raw, self.environments, self.site)

    def resources(self, options: Options) -> Resources:
        """What the job of a person asks for who chose these."""
        return resources_of(options, self.environments[options.environment], self.site)


class Offers:
    """Answers what a hub has to offer.

    Args:
        config: Stores, and the site's limits (`jupyterhub`).
        scheduler: Ask Slurm for partitions and accounts; False for servers that are no jobs.
        own: List a person's own images too; None for what the configuration says.
        site: Limits instead of the configuration's.
        program: How hpcbinder is called as a person (see `Person`).
        environ: The hub's environment; PATH and SLURM_CONF lead to Slurm.
    """

    def __init__(
        self,
        config: Config,
        *,
        scheduler: bool = True,
        own: bool | None = None,
        site: Site | None = None,
        program: Sequence[str] = ("hpcbinder",),
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self._listing = Listing(Catalog(config.store.path, config.store.site))
        self._site = site_of(config) if site is None else site
        self._own = config.jupyterhub.own if own is None else own
        self._program = tuple(program)
        self._scheduler = scheduler
        self._environ = dict(os.environ if environ is None else environ)
        self._partitions: tuple[float, tuple[Partition, ...]] = (-_FRESH, ())
        self._accounts: dict[str, tuple[float, Associations | None]] = {}
        self._asking: dict[tuple[str, str], asyncio.Task[object]] = {}
        self._people: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def of(self, user: str, prefix: Sequence[str] = ()) -> Offer:
        """What a person is offered now.

        Args:
            user: Name of the person's account.
            prefix: What runs a command as that person (see `Person`).
        """
        environments = await asyncio.to_thread(self._listing.environments, user)
        note = ""
        if self._own:
            try:
                person = self._person(user, prefix)
                own = await self._once(("own", user), lambda: self._alone(user, person.environments))
                # What the site vouches for wins over what a person calls by the same name.
                environments = {**own, **environments}
            except HpcbinderError as error:
                note = error.message
                log.warning("%s: %s", user, error)
        if not self._scheduler:
            return Offer(environments, self._site, (), note)
        known = await self._once(("", "partitions"), self._known_partitions)
        charged = await self._once(("accounts", user), lambda: self._associations(user))
        site = self._site
        if charged is not None:
            site = replace(
                site,
                accounts=_both(site.accounts, charged.accounts),
                qos=_both(site.qos, charged.qos) if charged.qos else site.qos,
            )
        if site.partitions is not None:
            known = tuple(each for each in known if each.name in site.partitions)
        return Offer(environments, site, known, note)

    async def entry(self, user: str, environment: Environment, prefix: Sequence[str] = ()) -> Entry:
        """The record of an image that `of` offered.

        Raises:
            HpcbinderError: It is gone, or cannot be read.
        """
        if environment.own:
            person = self._person(user, prefix)
            what = (f"entry {environment.id}", user)
            return await self._once(what, lambda: self._alone(user, lambda: person.entry(environment.id)))
        return await asyncio.to_thread(self._listing.entry, environment)

    def _person(self, user: str, prefix: Sequence[str]) -> Person:
        return Person(user, prefix, program=self._program, path=self._environ.get("PATH", os.defpath))

    async def _known_partitions(self) -> tuple[Partition, ...]:
        if time.monotonic() - self._partitions[0] > _FRESH:
            try:
                found = await asyncio.to_thread(partitions, self._environ)
            except RunError as error:
                log.warning("%s", error)
                found = self._partitions[1]
            self._partitions = (time.monotonic(), found)
        return self._partitions[1]

    async def _associations(self, user: str) -> Associations | None:
        when, found = self._accounts.get(user, (-_FRESH, None))
        if time.monotonic() - when > _FRESH:
            try:
                found = await asyncio.to_thread(associations, self._environ, user)
            except RunError as error:
                log.warning("%s", error)
            while len(self._accounts) >= _PEOPLE:
                del self._accounts[next(iter(self._accounts))]
            self._accounts[user] = (time.monotonic(), found)
        return found

    async def _alone(self, user: str, ask: Callable[[], Awaitable[_Value]]) -> _Value:
        """One question to a person's programs at a time: each takes a thread, and memory."""
        lock = self._people.setdefault(user, asyncio.Lock())
        async with lock:
            return await ask()

    async def _once(self, what: tuple[str, str], ask: Callable[[], Awaitable[_Value]]) -> _Value:
        """One question at a time: whoever asks the same meanwhile gets the same answer."""
        task = self._asking.get(what)
        if task is None:
            task = self._asking[what] = asyncio.ensure_future(_awaited(ask))
            task.add_done_callback(lambda _: self._asking.pop(what, None))
        # A page that is closed does not end it for the others.
        return cast("_Value", await asyncio.shield(task))


async def _awaited(ask: Callable[[], Awaitable[object]]) -> object:
    return await ask()


def _both(site: tuple[str, ...] | None, theirs: tuple[str, ...]) -> tuple[str, ...]:
    return theirs if site is None else tuple(name for name in site if name in theirs)


def site_of(config: Config) -> Site:
    """What the configuration lets people ask for."""
    said = config.jupyterhub
    slurm = {
        name: value for name in ("partition", "account", "qos", "constraint") if (value := getattr(config.slurm, name))
    }
    return Site(
        partitions=said.partitions or None,
        accounts=said.accounts or None,
        qos=said.qos or None,
        reservations=said.reservations or None,
        constraints=said.constraints or None,
        nodes=int(said.max_nodes),
        cpus=None if said.max_cpus is None else int(said.max_cpus),
        memory=said.max_memory,
        time=said.max_time,
        gpus=None if said.max_gpus is None else int(said.max_gpus),
        defaults={**slurm, **said.defaults},
    )
