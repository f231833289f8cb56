"""Plan: what would be built for a checkout, and why, as data; and that data as a Dockerfile with its context.

This is also the API that buildpacks are written against (docs/buildpacks.md): they import from here and nowhere else.
"""

from hpcbinder.errors import DetectError
from hpcbinder.model import Lock, LockedPackage, Python, Stage
from hpcbinder.plan.context import context_listing, write_context
from hpcbinder.plan.draft import Draft, Resolver, SystemPackage
from hpcbinder.plan.explain import explain
from hpcbinder.plan.make import make_plan
from hpcbinder.plan.packs import Pack, load_packs
from hpcbinder.plan.render import dockerfile, step_titles
from hpcbinder.plan.repo import Repo
from hpcbinder.plan.server import server_step
from hpcbinder.plan.suites import BASE_VARIANT, SUITES, Suite, served
from hpcbinder.plan.tree import Item, show

__all__ = [
    "BASE_VARIANT",
    "SUITES",
    "DetectError",
    "Draft",
    "Item",
    "Lock",
    "LockedPackage",
    "Pack",
    "Python",
    "Repo",
    "Resolver",
    "Stage",
    "Suite",
    "SystemPackage",
    "context_listing",
    "dockerfile",
    "explain",
    "load_packs",
    "make_plan",
    "served",
    "server_step",
    "show",
    "step_titles",
    "write_context",
]
