"""Environments for hubs that run another spawner: as profiles of wrapspawner, and of kubespawner.

wrapspawner 1.0, `ProfilesSpawner.profiles`: a profile is a text, a key, a class and its settings. kubespawner 7,
`KubeSpawner.profile_list`: one is a dictionary. Neither escapes the texts in its form, so they come escaped.
"""

from __future__ import annotations

import html
import pprint
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import quote

from hpcbinder import contract
from hpcbinder.catalog import Catalog
from hpcbinder.config import load
from hpcbinder.errors import CatalogError, RegisterError
from hpcbinder.jupyterhub.environment import Environment
from hpcbinder.jupyterhub.listing import environment
from hpcbinder.model import Entry
from hpcbinder.register import Published, published_ids, published_of
from hpcbinder.scheduler import gpu_count, mebibytes


def wrapspawner_profiles(
    *, spawner: type[Any] | None = None, catalog: Catalog | None = None, traits: Mapping[str, Any] | None = None
) -> list[tuple[str, str, type[Any], dict[str, Any]]]:
    """What the stores offer to everybody, for `c.ProfilesSpawner.profiles`.

    Args:
        spawner: Class that starts servers, one of hpcbinder's; `SlurmSpawner` if None.
        catalog: Whose stores; those of the configuration if None.
        traits: More settings of the class, or others than `ip` 0.0.0.0 and `default_url` /lab.
    """
    if spawner is None:
        # The class itself: with it comes the handler that its servers call, before the hub lists its handlers.
        from hpcbinder.jupyterhub.slurm import SlurmSpawner

        spawner = SlurmSpawner
    found = (environment(entry.id, record) for entry, record in _offered(catalog) if not record.groups)
    return [(_title(each), each.id, spawner, {**_traits(each), **(traits or {})}) for each in found]


def _title(each: Environment) -> str:
    return html.escape(f"{each.title} ({each.ref})" if each.ref else each.title)


def _traits(each: Environment) -> dict[str, Any]:
    options = {"environment": each.id, **({"path": each.path} if each.path else {}), **each.resources}
    # What both have in common the outer spawner sets in the chosen one, unless it is named here.
    return {"fixed_options": options, "ip": "0.0.0.0", "default_url": "/lab", "env_keep": []}


def kubespawner_profiles(*, catalog: Catalog | None = None) -> list[dict[str, Any]]:
    """What the stores offer and a registry has, for `c.KubeSpawner.profile_list`.

    Args:
        catalog: Whose stores; those of the configuration if None.
    """
    found = [(entry, record) for entry, record in _offered(catalog) if entry.pushed and not record.groups]
    return [kubespawner_profile(entry, record) for entry, record in found]


def kubespawner_profile(entry: Entry, record: Published) -> dict[str, Any]:
    """One environment for kubespawner.

    Raises:
        RegisterError: The image was never pushed to a registry.
    """
    if not entry.pushed:
        raise RegisterError(f"{entry.id} is in no registry that Kubernetes could have it from", hint="hpcbinder push")
    reference, digest = list(entry.pushed.items())[-1]
    name, _, tag = reference.rpartition(":")
    repository = name if name and "/" not in tag else reference
    override: dict[str, Any] = {"image": f"{repository}@{digest}", "cmd": [_server(entry)]}
    override["default_url"] = f"/lab/tree/{quote(record.path)}" if record.path else "/lab"
    wanted = environment(entry.id, record).resources
    if cpus := wanted.get("cpus"):
        override["cpu_limit"] = override["cpu_guarantee"] = float(cpus)
    if memory := wanted.get("memory"):
        mebi = mebibytes(str(memory))
        if mebi != float("inf"):
            override["mem_limit"] = override["mem_guarantee"] = int(mebi * 1024**2)
    if count := gpu_count(str(wanted.get("gpus", ""))):
        vendor = {"rocm": "amd.com/gpu"}.get(
            entry.config.labels.get(f"{contract.LABEL_PREFIX}gpu", ""), "nvidia.com/gpu"
        )
        override["extra_resource_limits"] = {vendor: str(count)}
    return {
        "display_name": html.escape(record.title),
        "slug": entry.id,
        "description": html.escape(record.description or f"{record.repository} at {record.ref}"),
        "kubespawner_override": override,
    }


def export_text(kind: str, entry: Entry, record: Published) -> str:
    """Lines for jupyterhub_config.py that add one environment.

    Args:
        kind: wrapspawner or kubespawner.

    Raises:
        RegisterError: The image is not where that spawner could have it from.
    """
    # Literals: whatever the texts hold, Python reads values.
    if kind == "wrapspawner":
        each = environment(entry.id, record)
        return (
            "from hpcbinder.jupyterhub import SlurmSpawner\n"
            "# in the list c.ProfilesSpawner.profiles:\n"
            f"({_title(each)!r}, {each.id!r}, SlurmSpawner, {_traits(each)!r}),"
        )
    profile = pprint.pformat(kubespawner_profile(entry, record), width=110, sort_dicts=False)
    return f"# in the list c.KubeSpawner.profile_list:\n{profile},"


def _offered(catalog: Catalog | None) -> Iterable[tuple[Entry, Published]]:
    if catalog is None:
        config = load()
        catalog = Catalog(config.store.path, config.store.site)
    seen = set()
    for store in (catalog.path, *catalog.site):
        for id_ in published_ids(store):
            try:
                record = published_of(store, id_)
                entry = catalog.find(id_)
            except CatalogError:
                continue  # the hub's own list says what is wrong with it
            if entry is not None and record is not None and id_ not in seen:
                seen.add(id_)
                yield entry, record


def _server(entry: Entry) -> str:
    level = entry.config.labels.get(f"{contract.LABEL_PREFIX}{contract.LEVEL_LABEL}")
    return (
        "jupyterhub-singleuser"
        if level == contract.OWN_LEVEL
        else f"{contract.SERVER_PREFIX}/bin/jupyterhub-singleuser"
    )
