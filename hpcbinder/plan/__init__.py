"""Plan: what would be built for a checkout, and why, as data; and that data as a Dockerfile with its context.

This is also the API that buildpacks are written against (docs/buildpacks.md): they import from here and nowhere else.
"""

from hpcbinder.errors import DetectError, RegistryError
from hpcbinder.model import Assembly, Edit, Lock, LockedPackage, OutsideImage, Python, Sources, Stage, TextFile
from hpcbinder.plan.conda import ENGINE_SCRIPT, conda_list, conda_packages
from hpcbinder.plan.context import (
    context_listing,
    write_content,
    write_context,
    write_files,
    write_own_context,
    write_step,
)
from hpcbinder.plan.draft import CondaResolver, Draft, Provided, Resolver, SystemPackage
from hpcbinder.plan.environments import environment_fingerprint, server_fingerprint
from hpcbinder.plan.explain import explain
from hpcbinder.plan.foundation import Foundation, Stand, bootstrapped
from hpcbinder.plan.make import make_plan
from hpcbinder.plan.manifest import manifest
from hpcbinder.plan.packs import Pack, load_packs
from hpcbinder.plan.points import apart_point, environment_points, server_point
from hpcbinder.plan.render import (
    CMD,
    dockerfile,
    environment,
    on_own,
    one_step,
    run_script,
    site_files,
    stage_name,
    step_titles,
)
from hpcbinder.plan.repo import Repo
from hpcbinder.plan.server import PYTHONS as SERVER_PYTHONS
from hpcbinder.plan.server import entrypoint_files, server_step
from hpcbinder.plan.suites import BASE_VARIANT, SUITES, SUPPORTED, Suite, debian_python, served, too_old
from hpcbinder.plan.tree import Item, show
from hpcbinder.plan.wheels import MACHINES, locked_wheels, marker_environment

__all__ = [
    "BASE_VARIANT",
    "CMD",
    "ENGINE_SCRIPT",
    "MACHINES",
    "SERVER_PYTHONS",
    "SUITES",
    "SUPPORTED",
    "Assembly",
    "CondaResolver",
    "DetectError",
    "Draft",
    "Edit",
    "Foundation",
    "Item",
    "Lock",
    "LockedPackage",
    "OutsideImage",
    "Pack",
    "Provided",
    "Python",
    "RegistryError",
    "Repo",
    "Resolver",
    "Sources",
    "Stage",
    "Stand",
    "Suite",
    "SystemPackage",
    "TextFile",
    "apart_point",
    "bootstrapped",
    "conda_list",
    "conda_packages",
    "context_listing",
    "debian_python",
    "dockerfile",
    "entrypoint_files",
    "environment",
    "environment_fingerprint",
    "environment_points",
    "explain",
    "load_packs",
    "locked_wheels",
    "make_plan",
    "marker_environment",
    "manifest",
    "on_own",
    "one_step",
    "run_script",
    "served",
    "server_fingerprint",
    "server_point",
    "server_step",
    "show",
    "site_files",
    "stage_name",
    "step_titles",
    "too_old",
    "write_content",
    "write_context",
    "write_files",
    "write_own_context",
    "write_step",
]
