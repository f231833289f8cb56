"""What a Debian base holds. A change here is a new base: everything below is part of its key."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from hpcbinder.contract import LABEL_PREFIX, STEP_DIR
from hpcbinder.debian import sources_deb822
from hpcbinder.errors import BuildError
from hpcbinder.model import BaseRef, ImageConfig, fingerprint
from hpcbinder.plan import SUITES

_PACKAGES = (
    "bzip2",
    "ca-certificates",
    "curl",
    "git",
    "less",
    "media-types",
    "netbase",
    "procps",
    "python3",
    "python3-venv",
    "tzdata",
    "unzip",
    "wget",
    "xz-utils",
)
"""On top of Debian's essential packages and apt: what a notebook and a terminal beside it expect. No compiler."""


def packages(suite: str) -> tuple[str, ...]:
    """Names of a suite's packages on top of the essential ones and apt."""
    return tuple("mime-support" if suite == "buster" and name == "media-types" else name for name in _PACKAGES)


ARCHITECTURES: Mapping[str, str] = {"amd64": "amd64", "arm64": "arm64", "ppc64le": "ppc64el"}
"""OCI name -> Debian name."""

EPOCH = 1577836800
"""Unix time (s) no file of a base is newer than: 1 January 2020, the steps' SOURCE_DATE_EPOCH."""

# As Debian's own slim images: translations and manuals stay out, licences stay in. Holds for packages added later too.
SLIM = """\
path-exclude=/usr/share/doc/*
path-include=/usr/share/doc/*/copyright
path-exclude=/usr/share/groff/*
path-exclude=/usr/share/info/*
path-exclude=/usr/share/linda/*
path-exclude=/usr/share/lintian/*
path-exclude=/usr/share/locale/*
path-include=/usr/share/locale/locale.alias
path-exclude=/usr/share/man/*
"""

_PLACES = ("apps", "cvmfs", "data", "global", "gpfs", "home", "lustre", "media", "mnt", "opt", "project", "projects")
_MORE_PLACES = ("scratch", "shared", "srv", "sw", "users")

FOLDERS: Mapping[str, int] = {
    # Places sites bind over: not every runtime can make a mount point in a read-only image.
    **{f"/{name}": 0o755 for name in (*_PLACES, *_MORE_PLACES)},
    "/tmp": 0o1777,
    "/var/tmp": 0o1777,
    "/dev/pts": 0o755,
    "/dev/shm": 0o1777,
    # Mount points of build steps: what is there already leaves no trace in a step's layer.
    STEP_DIR: 0o755,
    **{
        f"{STEP_DIR}/{name}": 0o755
        for name in ("cache", "cache/apt", "cache/uv", "image", "site", "step", "tools", "work")
    },
}
"""Empty folders and their modes."""


def files(suite: str) -> dict[str, tuple[int, str]]:
    """Path -> (mode, text) of the files we write ourselves."""
    return {
        "/etc/apt/apt.conf.d/90hpcbinder": (0o644, 'Acquire::Languages "none";\n'),
        "/etc/apt/sources.list.d/debian.sources": (0o644, sources_deb822(suite)),
        "/etc/dpkg/dpkg.cfg.d/hpcbinder": (0o644, SLIM),
        "/etc/hostname": (0o644, ""),
        "/etc/hosts": (0o644, "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n"),
        "/etc/resolv.conf": (0o644, ""),
        # Nothing that is installed during a build starts a daemon (invoke-rc.d(8)).
        "/usr/sbin/policy-rc.d": (0o755, "#!/bin/sh\nexit 101\n"),
    }


def config(ref: BaseRef) -> dict[str, object]:
    """A base's image configuration (OCI image spec, config.md)."""
    return {
        "architecture": ref.architecture,
        "os": "linux",
        "created": "2020-01-01T00:00:00Z",
        "config": {
            "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
            "Cmd": ["/bin/bash"],
            "Labels": {f"{LABEL_PREFIX}base": ref.name, f"{LABEL_PREFIX}base.variant": ref.variant},
        },
        "history": [{"created": "2020-01-01T00:00:00Z", "created_by": f"hpcbinder base {ref.name}"}],
    }


def base_key(ref: BaseRef) -> str:
    """Identity of a base's recipe, 16 hex digits. Which versions of the packages it got is not in it.

    Raises:
        BuildError: There is no recipe for it.
    """
    if ref.suite not in SUITES or SUITES[ref.suite].python != ref.python or ref.architecture not in ARCHITECTURES:
        raise BuildError(
            f"no base for Debian {ref.suite} with Python {ref.python} on {ref.architecture}",
            hint="there is one for " + ", ".join(f"{suite.name} with {suite.python}" for suite in SUITES.values()),
        )
    return fingerprint([ref, packages(ref.suite), FOLDERS, files(ref.suite), EPOCH])[:16]


RECIPE = f"{LABEL_PREFIX}base.recipe"
"""Label of a base in a registry that lacks nothing: the key of its recipe."""


def is_whole(recipe: str, ref: BaseRef) -> bool:
    """Whether an image of a registry is what would be bootstrapped here.

    Args:
        recipe: What `recipe_of` says of it.

    Raises:
        BuildError: There is no recipe for such a base.
    """
    return recipe == base_key(replace(ref, image=""))


def recipe_of(image: ImageConfig) -> str:
    """By which recipe an image says to be a base, "" if it does not. An image that stands on one has its labels too,
    but more layers."""
    return image.labels.get(RECIPE, "") if len(image.diff_ids) == 1 else ""


def base_tag(ref: BaseRef) -> str:
    """The name a base has in an engine. `localhost` is no registry: an engine that lacks it never asks the network.

    Raises:
        BuildError: There is no recipe for it.
    """
    return f"localhost/hpcbinder/base:{ref.suite}-{base_key(ref)}"
