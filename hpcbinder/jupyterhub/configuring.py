"""The one line of jupyterhub_config.py."""

from __future__ import annotations

from typing import Any

from hpcbinder.errors import UsageError

SPAWNERS = {
    "slurm": "hpcbinder.jupyterhub.SlurmSpawner",
    "local": "hpcbinder.jupyterhub.LocalSpawner",
    "ssh": "hpcbinder.jupyterhub.SshSpawner",
    "htcondor": "hpcbinder.jupyterhub.CondorSpawner",
    "pbs": "hpcbinder.jupyterhub.PBSSpawner",
    "lsf": "hpcbinder.jupyterhub.LsfSpawner",
}


def configure(c: Any, *, spawner: str = "slurm", **settings: object) -> None:
    """Have a hub offer the images of hpcbinder's catalog, and start servers in them.

    Args:
        c: The `c` of jupyterhub_config.py. What is set in it afterwards counts.
        spawner: `slurm`: servers are jobs; `local`: they run on the hub's machine; `ssh`: on others; `htcondor`,
            `pbs`, `lsf` (docs/jupyterhub-schedulers.md).
        settings: Traits of the spawner (`queue_interval=5`, `sbatch_options=[…]`; docs/jupyterhub.md).

    Raises:
        UsageError: There is no such spawner, or it has no such trait.
    """
    if spawner not in SPAWNERS:
        raise UsageError(f"there is no spawner {spawner!r}", hint=f"one of {', '.join(SPAWNERS)}")
    path = SPAWNERS[spawner]
    from hpcbinder import jupyterhub

    cls = getattr(jupyterhub, path.rpartition(".")[2])
    traits = cls.class_traits(config=True)
    for name, value in settings.items():
        if name not in traits:
            raise UsageError(f"{path} has no setting {name!r}")
        setattr(c[cls.__name__], name, value)
    c.JupyterHub.spawner_class = cls
    # A job outlives a hub that is restarted.
    c.JupyterHub.cleanup_servers = False
