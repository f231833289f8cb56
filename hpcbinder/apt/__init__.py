"""Debian packages without an engine: what apt would install on a base, found without running anything of this machine's
apt, fetched, and installed once for all images with the same packages on the same base."""

from hpcbinder.apt.archive import Archive
from hpcbinder.apt.fetching import Lists, fetch_debs, narrow
from hpcbinder.apt.programs import Programs
from hpcbinder.apt.resolving import Deb, NoSuchPackage, Resolver, Target
from hpcbinder.apt.sets import Set, Sets

__all__ = [
    "Archive",
    "Deb",
    "Lists",
    "NoSuchPackage",
    "Programs",
    "Resolver",
    "Set",
    "Sets",
    "Target",
    "fetch_debs",
    "narrow",
]
