"""What Jupyter's own programs load of us, by the entry points in pyproject.toml."""

from hpcbinder.jupyter.provisioner import SlurmProvisioner

__all__ = ["SlurmProvisioner"]
