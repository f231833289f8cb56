"""The places inside an image that every part agrees on (the image contract, docs/image-contract.md).

None of them lies under /home, /root, /tmp, /var/tmp, /run, /scratch or /dev/shm, which sites bind over.
"""

from __future__ import annotations

REPO_DIR = "/srv/repo"
"""The repository's content, world-readable."""

ENV_PREFIX = "/opt/env"
"""The repository's own Python environment (a venv); its kernels are under share/jupyter/kernels."""

SERVER_PREFIX = "/opt/jupyter"
"""JupyterLab and jupyterhub-singleuser, straight on the base, the same bytes in every image on that base."""

MACHINE_DIR = "/opt/hpcbinder"
"""Our own files."""

ENTRYPOINT = f"{MACHINE_DIR}/bin/entrypoint"
"""Finds writable places for caches and runtime files, honours the repository's ``start``, then execs its arguments.
Every consumer (kernel, server, batch job) puts it in front of its command, because `apptainer exec` and friends skip an
image's ENTRYPOINT."""

START_VARIABLE = "HPCBINDER_START"
"""The image's variable that tells the entrypoint where the repository's ``start`` is."""

PROFILE = f"{MACHINE_DIR}/profile.sh"
"""The part of the entrypoint that only sets variables: sourced by it and by /.singularity.d/env."""

LOGIN = "/etc/profile.d/zz-hpcbinder.sh"
"""Gives a login shell back the PATH that its profile takes away."""

MANIFEST = f"{MACHINE_DIR}/manifest.json"
"""What the image is: source, commit, buildpacks, kernels, how to rebuild it."""

COMMIT = f"{MACHINE_DIR}/commit.json"
"""The commit that the content is of, as git has it, and a list of its files: what a copy needs to be a git repository
(`hpcbinder.runtime.launch.space.clone`). Only where the source is one."""

PACKAGES_DIR = f"{MACHINE_DIR}/packages"
"""Exact resolved packages, one file per ecosystem, written by the step that installed them: `python.json`,
`server.json` (`[{"name":…, "version":…}, …]`) and `debian.json`."""

KERNEL_DIRS = (
    f"{ENV_PREFIX}/share/jupyter/kernels",
    "/usr/local/share/jupyter/kernels",
    "/usr/share/jupyter/kernels",
)
"""Where an image's own kernelspecs are looked for, first one of a name wins (Jupyter's data path)."""

STEP_DIR = "/run/hpcbinder"
"""Build time only: `step/` (script and data of the running step), `tools/` (uv), `site/` (secrets), `cache/`.
The folders exist, empty, in the base, so that mounting over them leaves no trace in a layer."""

EPOCH = 1_577_836_800
"""1 January 2020, Unix time (s): of what build steps make, and their SOURCE_DATE_EPOCH."""

LABEL_PREFIX = "org.hpcbinder."

LEVEL_LABEL = "level"
"""Our label (behind the prefix) that says how much of the image contract an image keeps; without it all of it."""

OWN_LEVEL = "dockerfile"
"""What a repository's own Dockerfile makes keeps (docs/image-contract.md, "Levels")."""
