"""What a hub has to offer: from the stores as they are, a person's own read as that person, Slurm's partitions."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import grp
import json
import os
import pwd
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from stored_image import put

from hpcbinder.catalog import Catalog
from hpcbinder.config import Config, JupyterhubConfig, StoreConfig
from hpcbinder.errors import CatalogError, UsageError
from hpcbinder.jupyterhub.environment import Environment, Site
from hpcbinder.jupyterhub.offer import Offer, Offers, site_of
from hpcbinder.jupyterhub.person import Person
from hpcbinder.register import Published, publish, unpublish
from hpcbinder.scheduler import Associations, Partition, associations, partitions
from rig import Slurm, User

ID, OTHER = "ligo-0123456789ab", "wave-0123456789ab"
ME = pwd.getpwuid(os.geteuid()).pw_name
MY_GROUP = grp.getgrgid(pwd.getpwnam(ME).pw_gid).gr_name


@pytest.fixture
def site(tmp_path: Path) -> Catalog:
    return Catalog(tmp_path / "site")


def config(tmp_path: Path, site: Catalog, **hub: object) -> Config:
    return Config(
        store=StoreConfig(path=tmp_path / "hub", site=(site.path,)),
        jupyterhub=JupyterhubConfig(**hub),  # type: ignore[arg-type]
    )


def offered(offers: Offers, user: str = ME) -> Offer:
    return asyncio.run(offers.of(user))


def test_what_is_published_is_there_at_once_and_gone_at_once(tmp_path: Path, site: Catalog) -> None:
    offers = Offers(config(tmp_path, site), scheduler=False)
    assert offered(offers).environments == {}
    publish(site, put(site), Published("LIGO", resources={"cpus": "4", "time": "30"}))
    put(site, OTHER)
    (found,) = offered(offers).environments.values()
    assert (found.id, found.title, found.resources) == (ID, "LIGO", {"cpus": 4, "time": "30"})
    assert asyncio.run(offers.entry(ME, found)).id == ID
    unpublish(site, ID)
    assert offered(offers).environments == {}


def test_a_group_sees_what_is_for_it(tmp_path: Path, site: Catalog) -> None:
    offers = Offers(config(tmp_path, site), scheduler=False)
    publish(site, put(site), Published("mine", groups=("no-such-group", MY_GROUP)))
    publish(site, put(site, OTHER), Published("everybody's"))
    assert set(offered(offers).environments) == {ID, OTHER}
    assert set(offered(offers, "no-such-account").environments) == {OTHER}
    with pytest.raises(UsageError, match="there is no such environment, or it is not for you"):
        offered(offers, "no-such-account").parse({"environment": ID})


def test_what_is_damaged_or_gone_is_left_out(tmp_path: Path, site: Catalog, caplog: pytest.LogCaptureFixture) -> None:
    offers = Offers(config(tmp_path, site), scheduler=False)
    for id_ in (ID, OTHER):
        publish(site, put(site, id_), Published(id_))
    (site.path / "published" / f"{ID}.json").write_text("{")
    assert set(offered(offers).environments) == {OTHER}
    assert "damaged record" in caplog.text
    site.remove(OTHER)
    assert offered(offers).environments == {}


@pytest.mark.parametrize("whose", ["the site's", "the hub's own"])
def test_a_store_that_everybody_may_write_to_offers_nothing(tmp_path: Path, site: Catalog, whose: str) -> None:
    offers = Offers(config(tmp_path, site), scheduler=False)
    store = site if whose == "the site's" else Catalog(tmp_path / "hub")
    publish(store, put(store), Published("LIGO"))
    for folder in ("published", "images"):
        assert set(offered(offers).environments) == {ID}
        (found,) = offered(offers).environments.values()
        (store.path / folder).chmod(0o777)
        assert offered(offers).environments == {}
        if folder == "images":
            with pytest.raises(CatalogError, match="no image"):
                asyncio.run(offers.entry(ME, found))
        (store.path / folder).chmod(0o755)


# A person's own


def program(folder: Path, text: str) -> tuple[str, ...]:
    path = folder / "program"
    path.write_text(text)
    return (sys.executable, str(path))


SAYS: Callable[[object], str] = lambda value: f"print({json.dumps(json.dumps(value))})"  # noqa: E731


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("print('x')", "cannot be read"),
        ("print('[' * 200000)", "cannot be read"),
        ("print('{}')", "cannot be read"),
        ("print('[]'); raise SystemExit(3)", "could not be listed: see what"),
        ("while True: print('x' * 100000)", "is longer than 4194304 bytes"),
        ("import time; time.sleep(3600)", "could not be listed within"),
        ("import sys; sys.stdout.close(); import time; time.sleep(3600)", "could not be listed within"),
        # It goes away, and what it leaves behind holds on to the pipe.
        ("import os, time\nif os.fork() == 0:\n    os.setsid()\n    time.sleep(20)", "could not be listed within"),
    ],
)
def test_a_program_of_a_persons_is_heard_for_a_while(tmp_path: Path, text: str, why: str) -> None:
    person = Person(ME, program=program(tmp_path, text), seconds=1 if "within" in why else 120)
    with pytest.raises(CatalogError, match=why):
        asyncio.run(person.environments())


def test_what_it_says_is_a_strangers(tmp_path: Path) -> None:
    items: list[object] = [
        None,
        {"id": "../../etc"},
        {"id": f"{ID}\n"},
        {"id": ID, "source": "a\nb" * 5000, "ref": 3, "published": {"title": "\u202e", "icon": "javascript:x"}},
        {"id": OTHER, "source": "/home/ada/x", "published": {"title": "Mine", "resources": {"cpus": "2"}}},
        *({"id": f"many-{number:012}"} for number in range(1000)),
    ]
    found = asyncio.run(Person(ME, program=program(tmp_path, SAYS(items)), seconds=120).environments())
    assert 200 < len(found) < 400 and all(each.own for each in found.values())
    assert (found[ID].title, found[ID].icon, found[ID].ref) == ("ligo", "", "")
    assert found[ID].repository.isprintable()
    assert (found[OTHER].title, found[OTHER].resources) == ("Mine", {"cpus": 2})


def test_a_record_is_the_one_that_was_asked_for(tmp_path: Path, site: Catalog) -> None:
    from hpcbinder.model import to_json

    entry = put(site)
    good = Person(ME, program=program(tmp_path, SAYS(to_json(entry))), seconds=120)
    assert asyncio.run(good.entry(ID)) == entry
    for wrong in (dataclasses.replace(entry, id=OTHER), dataclasses.replace(entry, formats={"sif": "relative"})):
        person = Person(ME, program=program(tmp_path, SAYS(to_json(wrong))), seconds=120)
        with pytest.raises(CatalogError):
            asyncio.run(person.entry(ID))
    with pytest.raises(CatalogError):
        asyncio.run(good.entry("--help"))
    for text in (SAYS({**to_json(entry), "timings": {"build": 10**400}}), SAYS([]), "print('{')"):
        with pytest.raises(CatalogError):
            asyncio.run(Person(ME, program=program(tmp_path, text), seconds=120).entry(ID))


def test_a_record_is_no_longer_than_a_record(tmp_path: Path) -> None:
    # As it would be, of nothing but packages.
    text = "print('[' + '{},' * 1_500_000 + '{}]')"
    with pytest.raises(CatalogError, match="is longer than 2097152 bytes"):
        asyncio.run(Person(ME, program=program(tmp_path, text), seconds=120).entry(ID))


def test_what_a_person_says_is_not_read_where_everybody_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from hpcbinder.jupyterhub import person

    where = []
    monkeypatch.setattr(person, "build", lambda *_: where.append(threading.current_thread()))
    asking = Person(ME, program=program(tmp_path, SAYS([{"id": ID, "published": {}}])), seconds=120)
    with contextlib.suppress(AttributeError):
        asyncio.run(asking.environments())
    with contextlib.suppress(AttributeError):
        asyncio.run(asking.entry(ID))
    assert len(where) == 2 and threading.main_thread() not in where


def test_a_persons_programs_are_asked_one_at_a_time(tmp_path: Path, site: Catalog) -> None:
    text = f"""import os, sys, time
os.mkdir({str(tmp_path / "asked")!r})
time.sleep(0.2)
os.rmdir({str(tmp_path / "asked")!r})
print("[]")"""
    offers = Offers(config(tmp_path, site, own=True), scheduler=False, program=program(tmp_path, text))

    async def many() -> list[object]:
        own = [Environment(id_, "t", "r", own=True) for id_ in (ID, OTHER, "more-0123456789ab")]
        return await asyncio.gather(offers.of(ME), *(offers.entry(ME, each) for each in own), return_exceptions=True)

    offer, *entries = asyncio.run(many())
    assert isinstance(offer, Offer) and offer.note == ""
    # It said something, each time; only no record.
    assert ["damaged" in str(each) for each in entries] == [True] * 3


def test_the_sites_word_wins_over_a_persons(tmp_path: Path, site: Catalog) -> None:
    publish(site, put(site), Published("the site's"))
    said = SAYS([{"id": ID, "source": "x"}, {"id": OTHER, "source": "x"}])
    offers = Offers(config(tmp_path, site, own=True), scheduler=False, program=program(tmp_path, said))
    found = offered(offers).environments
    assert (found[ID].title, found[ID].own, found[OTHER].own) == ("the site's", False, True)


def test_a_list_that_cannot_be_had_takes_nothing_from_the_sites(tmp_path: Path, site: Catalog) -> None:
    publish(site, put(site), Published("the site's"))
    offers = Offers(config(tmp_path, site, own=True), scheduler=False, program=program(tmp_path, "print('x')"))
    found = offered(offers)
    assert set(found.environments) == {ID} and "cannot be read" in found.note


def test_a_persons_own_images_are_read_as_that_person(tmp_path: Path, site: Catalog, user: User) -> None:
    """The hub is root, as it is where it starts servers for others."""
    own = Catalog(user.home / "store")
    entry = put(own)
    publish(own, entry, Published("Mine", repository="https://example.org/mine"))
    # What only root may read is no image of anybody's.
    secret = Catalog(tmp_path / "secret")
    put(secret, OTHER)
    secret.path.chmod(0o700)
    user.own(user.home)
    (own.path / "images" / OTHER).symlink_to(secret.path / "images" / OTHER)
    command = [sys.executable, "-B", "-m", "hpcbinder", "--store", str(own.path)]
    person = Person(ME, user.command([]), program=["/usr/bin/env", f"HOME={user.home}", *command], seconds=60)
    found = asyncio.run(person.environments())
    assert {(each.title, each.repository) for each in found.values()} == {("Mine", "https://example.org/mine")}
    assert asyncio.run(person.entry(ID)) == entry
    with pytest.raises(CatalogError):
        asyncio.run(person.entry(OTHER))


# Slurm


def test_partitions_of_a_real_slurm(slurm: Slurm) -> None:
    debug, long = partitions({**os.environ, **slurm.environment})
    assert debug == Partition("debug", True, "8:00:00", 4, 8000, {})
    assert (long.name, long.default, long.time) == ("long", False, "")


def test_a_slurm_without_accounting_lets_everybody_name_any_account(slurm: Slurm) -> None:
    assert associations({**os.environ, **slurm.environment}, ME) is None


def said(folder: Path, name: str, text: str) -> dict[str, str]:
    """An environment in which a program says something: a cluster with GPUs, or with accounting, is not to be had."""
    (folder / name).write_text(f"#!/bin/sh\ncat <<'END'\n{text}\nEND\n")
    (folder / name).chmod(0o755)
    return {"PATH": f"{folder}:/usr/bin:/bin"}


def test_what_sinfo_says_of_a_mixed_cluster(tmp_path: Path) -> None:
    lines = """cpu|up|2-00:00:00|64|256000+|(null)
gpu*|up|1-00:00:00|32|128000|gpu:a100:4(S:0-1)
gpu*|up|1-00:00:00|64|512000|gpu:h100:8,nvme:1
old|down|infinite|8|16000|gpu:2
plain|up|infinite|8|16000|gpu:2
--evil|up|1|1|1|(null)
short"""
    gpu, cpu, plain = partitions(said(tmp_path, "sinfo", lines))
    assert gpu == Partition("gpu", True, "1-00:00:00", 64, 512000, {"a100": 4, "h100": 8})
    assert cpu == Partition("cpu", False, "2-00:00:00", 64, 256000, {})
    assert plain == Partition("plain", False, "", 8, 16000, {"": 2})


def test_only_a_persons_own_accounts_may_be_charged(tmp_path: Path, site: Catalog) -> None:
    environ = said(tmp_path, "sacctmgr", "phys|normal,long\nchem|normal\n--evil|x")
    said(tmp_path, "sinfo", "debug*|up|8:00:00|4|8000|(null)")
    assert associations(environ, "ada") == Associations(("phys", "chem"), ("normal", "long"))
    assert associations(environ, "--all") == Associations((), ())
    publish(site, put(site), Published("LIGO"))
    offers = Offers(config(tmp_path, site, accounts=("bio", "chem")), environ=environ)
    offer = offered(offers)
    assert (offer.site.accounts, offer.site.qos) == (("chem",), ("normal", "long"))
    assert offer.parse({"environment": ID, "account": "chem"}).account == "chem"
    for account in ("phys", "bio"):
        with pytest.raises(UsageError, match="is no account that can be chosen here"):
            offer.parse({"environment": ID, "account": account})


def test_slurm_is_asked_once_for_many(tmp_path: Path, site: Catalog) -> None:
    (tmp_path / "sinfo").write_text(f"#!/bin/sh\necho x >>{tmp_path}/asked\necho 'debug*|up|1:00:00|4|8000|(null)'\n")
    (tmp_path / "sinfo").chmod(0o755)
    offers = Offers(config(tmp_path, site), environ={"PATH": f"{tmp_path}:/usr/bin:/bin"})

    async def many() -> list[Offer]:
        return await asyncio.gather(*(offers.of(f"user{number}") for number in range(20)))

    assert {offer.partitions[0].name for offer in asyncio.run(many())} == {"debug"}
    assert offered(offers).partitions[0].name == "debug"
    assert (tmp_path / "asked").read_text() == "x\n"


def test_without_slurm_environments_are_offered_all_the_same(tmp_path: Path, site: Catalog) -> None:
    publish(site, put(site), Published("LIGO"))
    offer = offered(Offers(config(tmp_path, site), environ={"PATH": str(tmp_path)}))
    assert set(offer.environments) == {ID} and offer.partitions == ()


def test_the_configuration_says_what_may_be_asked_for(tmp_path: Path) -> None:
    from hpcbinder.config import load

    file = tmp_path / "config.toml"
    file.write_text(
        """[slurm]
partition = "debug"
[jupyterhub]
partitions = ["debug", "gpu"]
max_cpus = "8"
max_time = "8:00:00"
max_memory = "16G"
max_gpus = "0"
constraints = ["haswell|skylake"]
[jupyterhub.defaults]
time = "1:00:00"
"""
    )
    assert site_of(load(environ={"HOME": "/"}, site_file=file, user_file=tmp_path / "none")) == Site(
        partitions=("debug", "gpu"),
        constraints=("haswell|skylake",),
        cpus=8,
        memory="16G",
        time="8:00:00",
        gpus=0,
        defaults={"partition": "debug", "time": "1:00:00"},
    )
