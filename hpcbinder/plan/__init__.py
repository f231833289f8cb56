"""Plan: what would be built for a checkout, and why, as data; and that data as a Dockerfile with its context.

This is also the API that buildpacks are written against (docs/buildpacks.md): they import from here and nowhere else.
"""

from hpcbinder.errors import DetectError, OldMetadataError, RegistryError
from hpcbinder.model import (
    Assembly,
    Edit,
    Inferred,
    Lock,
    LockedPackage,
    OutsideImage,
    Python,
    Sources,
    Stage,
    TextFile,
)
from hpcbinder.notebooks import (
    Import,
    Notebook,
    anywhere,
    code_imports,
    extensions,
    is_local,
    local_modules,
    notebook_imports,
    pip_installs,
    plain_python,
)
from hpcbinder.plan.code import Code, Script
from hpcbinder.plan.conda import ENGINE_SCRIPT, conda_list, conda_packages
from hpcbinder.plan.context import (
    context_listing,
    write_content,
    write_context,
    write_files,
    write_own_context,
    write_step,
)
from hpcbinder.plan.dating import RELEASED, UNDATED, WHEELS_AFTER, date_of
from hpcbinder.plan.draft import Draft
from hpcbinder.plan.environments import environment_fingerprint, server_fingerprint
from hpcbinder.plan.explain import explain
from hpcbinder.plan.foundation import Foundation, Stand, bootstrapped
from hpcbinder.plan.make import make_plan
from hpcbinder.plan.manifest import commit_text, manifest
from hpcbinder.plan.packs import Pack, load_packs
from hpcbinder.plan.points import apart_point, environment_points, server_point
from hpcbinder.plan.render import (
    CMD,
    aside,
    dockerfile,
    environment,
    late_environment,
    on_own,
    one_step,
    run_script,
    site_files,
    stage_name,
    step_titles,
)
from hpcbinder.plan.repo import Repo, parse_toml
from hpcbinder.plan.server import PYTHONS as SERVER_PYTHONS
from hpcbinder.plan.server import entrypoint_files, server_step
from hpcbinder.plan.shared import CondaResolver, Described, Provided, Resolver, SystemPackage, Translated
from hpcbinder.plan.suites import (
    BASE_VARIANT,
    OLDER,
    PYTHON_2,
    SUITES,
    SUPPORTED,
    Suite,
    debian_python,
    has_old_metadata,
    older_pythons,
    served,
    served_by_uv,
    too_old,
)
from hpcbinder.plan.tree import Item, show
from hpcbinder.plan.wheels import MACHINES, locked_wheels, marker_environment

__all__ = [
    "BASE_VARIANT",
    "CMD",
    "ENGINE_SCRIPT",
    "MACHINES",
    "OLDER",
    "PYTHON_2",
    "RELEASED",
    "SERVER_PYTHONS",
    "SUITES",
    "SUPPORTED",
    "UNDATED",
    "WHEELS_AFTER",
    "Assembly",
    "Code",
    "CondaResolver",
    "Described",
    "DetectError",
    "Draft",
    "Edit",
    "Foundation",
    "Import",
    "Inferred",
    "Item",
    "Lock",
    "LockedPackage",
    "Notebook",
    "OldMetadataError",
    "OutsideImage",
    "Pack",
    "Provided",
    "Python",
    "RegistryError",
    "Repo",
    "Resolver",
    "Script",
    "Sources",
    "Stage",
    "Stand",
    "Suite",
    "SystemPackage",
    "TextFile",
    "Translated",
    "anywhere",
    "apart_point",
    "aside",
    "bootstrapped",
    "code_imports",
    "commit_text",
    "conda_list",
    "conda_packages",
    "context_listing",
    "date_of",
    "debian_python",
    "dockerfile",
    "entrypoint_files",
    "environment",
    "environment_fingerprint",
    "environment_points",
    "explain",
    "extensions",
    "has_old_metadata",
    "is_local",
    "late_environment",
    "load_packs",
    "local_modules",
    "locked_wheels",
    "make_plan",
    "manifest",
    "marker_environment",
    "notebook_imports",
    "older_pythons",
    "on_own",
    "one_step",
    "parse_toml",
    "pip_installs",
    "plain_python",
    "run_script",
    "served",
    "served_by_uv",
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
