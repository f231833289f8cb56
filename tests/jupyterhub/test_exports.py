"""Environments as other spawners take them: by the real wrapspawner and kubespawner."""

from __future__ import annotations

import ast
import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from stored_image import DIGEST, put
from traitlets.config import Config as Traits

from hpcbinder.catalog import Catalog
from hpcbinder.errors import RegisterError
from hpcbinder.jupyterhub import SlurmSpawner, export_text, kubespawner_profiles, wrapspawner_profiles
from hpcbinder.register import Published, publish

ID, OTHER = "ligo-0123456789ab", "wave-0123456789ab"
REFERENCE = "registry.example.org:5000/ligo:0123456789ab"
RECORD = Published(
    'LIGO <"&{x}>',
    repository="https://example.org/ligo",
    ref="main",
    path="a b.ipynb",
    resources={"cpus": "4", "memory": "8G", "gpus": "a100:2", "time": "60"},
)


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    catalog = Catalog(tmp_path / "store")
    publish(catalog, put(catalog, pushed={REFERENCE: DIGEST}), RECORD)
    publish(catalog, put(catalog, OTHER), Published("Wave"))
    return catalog


def test_wrapspawner_starts_what_was_chosen_with_our_spawner(catalog: Catalog) -> None:
    from wrapspawner import ProfilesSpawner

    profiles = wrapspawner_profiles(catalog=catalog)
    user = SimpleNamespace(name="ada")
    spawner = ProfilesSpawner(user=user, config=Traits({"ProfilesSpawner": {"profiles": profiles}}))
    assert f'<option value="{ID}" selected>LIGO &lt;&quot;&amp;{{x}}&gt; (main)</option>' in spawner.options_form
    spawner.user_options = spawner.options_from_form({"profile": [ID]})
    spawner.construct_child()
    child = spawner.child_spawner
    assert type(child) is SlurmSpawner
    # wrapspawner's own, otherwise: a server that only its node could reach.
    assert (child.ip, child.default_url, child.env_keep) == ("0.0.0.0", "/lab", [])
    assert child.fixed_options == {
        **{"environment": ID, "path": "a b.ipynb", "cpus": 4, "memory": "8G", "gpus": "a100:2", "time": "60"}
    }


def test_what_is_for_a_group_is_left_to_our_own_form(catalog: Catalog) -> None:
    publish(catalog, catalog.get(ID), Published("LIGO", groups=("phys",)))
    assert [profile[1] for profile in wrapspawner_profiles(catalog=catalog)] == [OTHER]
    assert kubespawner_profiles(catalog=catalog) == []


CLUSTER = """{"apiVersion": "v1", "kind": "Config", "current-context": "none", "users": [{"name": "none", "user": {}}],
"contexts": [{"name": "none", "context": {"cluster": "none", "user": "none"}}],
"clusters": [{"name": "none", "cluster": {"server": "http://127.0.0.1:9"}}]}"""


def test_kubespawner_takes_what_a_registry_has(
    catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is started: the cluster is one that does not answer."""
    (tmp_path / "config").write_text(CLUSTER)
    monkeypatch.setattr("kubernetes_asyncio.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(tmp_path / "config"))
    profiles = kubespawner_profiles(catalog=catalog)
    assert [profile["slug"] for profile in profiles] == [ID]

    async def chosen() -> Any:
        from kubespawner import KubeSpawner

        spawner = KubeSpawner(_mock=True, profile_list=profiles)
        spawner.user_options = {"profile": ID}
        spawner._validate_user_options(spawner._get_initialized_profile_list(profiles))
        await spawner.load_user_options()
        await spawner.api.api_client.close()
        return spawner

    spawner = asyncio.run(chosen())
    assert spawner.image == f"registry.example.org:5000/ligo@{DIGEST}"
    assert (spawner.cpu_limit, spawner.mem_limit, spawner.extra_resource_limits) == (
        4,
        8 << 30,
        {"nvidia.com/gpu": "2"},
    )
    assert (spawner.default_url, spawner.cmd) == ("/lab/tree/a%20b.ipynb", ["/opt/jupyter/bin/jupyterhub-singleuser"])
    page = spawner._render_options_form(profiles)
    assert "LIGO &lt;&quot;&amp;{x}&gt;" in page and "LIGO <" not in page


def test_kubernetes_has_nothing_of_what_was_never_pushed(catalog: Catalog) -> None:
    with pytest.raises(RegisterError, match="is in no registry"):
        export_text("kubespawner", catalog.get(OTHER), Published("Wave"))


@pytest.mark.parametrize("kind", ["wrapspawner", "kubespawner"])
def test_what_is_printed_is_a_value_of_python(catalog: Catalog, kind: str) -> None:
    record = Published("x'\"); import os  # ${x}", repository="https://example.org/x", ref="\\main")
    printed = export_text(kind, catalog.get(ID), record)
    lines = printed.splitlines()
    literal = "\n".join(line for line in lines if not line.startswith(("#", "from ")))
    (value,) = ast.literal_eval(literal.replace("SlurmSpawner", "None") if kind == "wrapspawner" else literal)
    assert ID in (value[1] if kind == "wrapspawner" else value["slug"])
