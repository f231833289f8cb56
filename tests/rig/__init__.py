"""The real engines and runtimes for tests and demo, brought up on one Debian machine and taken down again.

``python -m tests.rig up|down|status [PART...]`` from the checkout, or the fixtures in
``fixtures.py``. README.md beside this file says what it does to a machine.
"""

from .apptainer import Apptainer
from .builder import Builder
from .charliecloud import Charliecloud
from .dockerd import Dockerd
from .htcondor import HTCondor
from .hub import Hub
from .process import RigError
from .registry import Registry
from .rig import Rig, default_folder
from .slurm import Slurm
from .sshd import Sshd
from .user import User

__all__ = [
    "Apptainer",
    "Builder",
    "Charliecloud",
    "Dockerd",
    "HTCondor",
    "Hub",
    "Registry",
    "Rig",
    "RigError",
    "Slurm",
    "Sshd",
    "User",
    "default_folder",
]
