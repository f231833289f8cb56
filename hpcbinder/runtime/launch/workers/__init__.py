"""The way to the batch system from inside an image: workers of a notebook, and Slurm's commands.

`helper` answers outside what is asked for inside; `kinds` are the workers that may be asked for, `jobs` are theirs, and
`node` starts one; `hpcbinder_workers` is what Python finds inside. `bound` shows the host's own client inside instead,
and `libraries` what that needs.
"""

from .helper import Running, offered, shown

__all__ = ["Running", "offered", "shown"]
