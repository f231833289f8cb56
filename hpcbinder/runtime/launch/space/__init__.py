"""A person's space: a copy of an image's repository that is theirs, made at the first launch and kept.

For whoever starts a server or a command where it is to run::

    space = read_space(description["space"])
    prepared = prepare(space, description, environ=os.environ)
    for notice in prepared.notices: ...                    # one line each, for the person
    description = prepared.described(description)          # its folder, and where caches go
    command = starting.prepare(description, environ=os.environ, cwd=prepared.folder, argv=…)

`prepare` raises LaunchError with one line for a person. `lab_path` says where JupyterLab opens.

The folders lie in the space's root, beside each other; what is known of them is in `ROOT/.hpcbinder`: NAME.json for
each, a lock, and what is being made. A copy is made there and then renamed, so a folder is there whole or not at all,
and nothing that has a name is ever written to, but for files that a site's purge took away.
"""

from __future__ import annotations

from ..private import OpenToOthersError, held
from .place import in_folder
from .preparing import prepare
from .wanted import Prepared, Space, lab_path, read_space

__all__ = ["OpenToOthersError", "Prepared", "Space", "held", "in_folder", "lab_path", "prepare", "read_space"]
