"""A hub's servers in images of the catalog: what a person may choose, and how it is started for that person.

One line of jupyterhub_config.py: `hpcbinder.jupyterhub.configure(c)`; docs/jupyterhub.md. Nothing of JupyterHub is
imported before a hub asks for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hpcbinder.jupyterhub.configuring import configure

if TYPE_CHECKING:
    from hpcbinder.jupyterhub.exports import export_text, kubespawner_profiles, wrapspawner_profiles
    from hpcbinder.jupyterhub.local import LocalSpawner
    from hpcbinder.jupyterhub.others import CondorSpawner, LsfSpawner, PBSSpawner
    from hpcbinder.jupyterhub.slurm import SlurmSpawner
    from hpcbinder.jupyterhub.ssh import SshSpawner

_LAZY = {
    "CondorSpawner": "others",
    "LocalSpawner": "local",
    "LsfSpawner": "others",
    "PBSSpawner": "others",
    "SlurmSpawner": "slurm",
    "SshSpawner": "ssh",
    "export_text": "exports",
    "kubespawner_profiles": "exports",
    "wrapspawner_profiles": "exports",
}

__all__ = [
    "CondorSpawner",
    "LocalSpawner",
    "LsfSpawner",
    "PBSSpawner",
    "SlurmSpawner",
    "SshSpawner",
    "configure",
    "export_text",
    "kubespawner_profiles",
    "wrapspawner_profiles",
]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_LAZY[name]}"), name)
