"""pyproject.toml and setup.py: what a project is, depends on and needs to be built, without running any of it."""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass, field
from typing import Any

from packaging.specifiers import InvalidSpecifier, SpecifierSet

from hpcbinder.plan import DetectError, Repo, show

from .locked import PYPI, host_of
from .poetry import Constraint, dependencies, parse_constraint, python_versions, sources
from .requirements import Local, check_index, clean_requirement, local_project, read_requirements

LARGE = 16 << 20
"""Bytes above which a file outside every package is taken to be data, which no installation copies."""

_C = (".c", ".cc", ".cpp", ".cxx", ".pyx", ".pxd")
_FORTRAN = (".f", ".for", ".f77", ".f90", ".f95", ".f03", ".f08")
_NATIVE_SETUP = re.compile(
    r"\bext_modules\b|\bExtension\s*\(|\bcythonize\b|\bcffi_modules\b|\bskbuild\b|\bf2py\b|numpy\.distutils|\bpybind11\b"
)
_NATIVE_BUILD = re.compile(r"(cython|pybind11|nanobind|scikit-build|scikit-build-core|meson-python|cffi|numpy)\b", re.I)
_SCM = re.compile(
    r"setuptools[-_]scm|hatch[-_]vcs|use_scm_version|\bpbr\b|poetry[-_]dynamic[-_]versioning|\[tool\.pdm\.version\]"
)
_PYTHON_REQUIRES = re.compile(r"^python_requires[ \t]*=[ \t]*(?P<versions>[^#;\n]{1,200}?)[ \t]{0,200}$", re.MULTILINE)
_PYTHON_REQUIRES_CALL = re.compile(r"\bpython_requires\s*=\s*(?P<quote>[\"'])(?P<versions>[^\"'\n]{1,200})(?P=quote)")
_SCM_ENV = {
    "SETUPTOOLS_SCM_PRETEND_VERSION": "0.0.0",
    "PBR_VERSION": "0.0.0",
    "PDM_BUILD_SCM_VERSION": "0.0.0",
    "POETRY_DYNAMIC_VERSIONING_BYPASS": "0.0.0",
}


@dataclass
class Project:
    """What is known of a project from its files.

    Attributes:
        local: Where it is and how it is asked for.
        title: Name for messages.
        name: Normalised name of the package it is, "" if its files do not tell.
        installed: It is something to install; else only its dependencies are.
        why_not: Why it would not be.
        dependencies: What it depends on; None if only its build can tell.
        indexes: URLs of indexes besides the site's that it names.
        locals: Other projects of the repository that it depends on.
        requires_python: Versions it says it runs on.
        requires_python_where: `file:line` of that.
        native: Debian packages that building it takes.
        native_reason: Why.
        env: Variables its build needs.
        files: File read -> what was made of it.
    """

    local: Local
    title: str
    name: str = ""
    installed: bool = True
    why_not: str = "has no [build-system] and no package of its name"
    dependencies: tuple[str, ...] | None = None
    indexes: tuple[str, ...] = ()
    locals: tuple[Local, ...] = ()
    requires_python: Constraint | None = None
    requires_python_where: str = ""
    native: tuple[str, ...] = ()
    native_reason: str = ""
    env: dict[str, str] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)


def is_project(repo: Repo) -> bool:
    """The root holds a Python project, and not just settings of some tool."""
    if repo.root_config("setup.py"):
        return True
    path = repo.root_config("pyproject.toml")
    if path is None:
        return False
    values = repo.read_toml(path)
    tools = values.get("tool")
    described = isinstance(tools, dict) and ("poetry" in tools or "flit" in tools)
    if "project" in values or is_poetry(values):
        return True
    return "build-system" in values and (described or bool(repo.root_config("setup.cfg")))


def is_poetry(values: dict[str, Any]) -> bool:
    """A pyproject.toml says in poetry's own tables what is to be installed."""
    tools = values.get("tool")
    poetry = tools.get("poetry") if isinstance(tools, dict) else None
    if not isinstance(poetry, dict):
        return False
    return isinstance(poetry.get("dependencies"), dict) or poetry.get("package-mode") is False


def analyse(repo: Repo, local: Local, *, locked: bool = False) -> Project:
    """Find out about a project.

    Args:
        local: Where it is.
        locked: A lock says what it depends on, so that this is not looked at.

    Raises:
        DetectError: There is none, or its pyproject.toml says what cannot be.
    """
    if local.is_archive:
        return Project(local, local.path, files={local.path: "is installed"})
    pyproject, setup = _inside(repo, local.path, "pyproject.toml"), _inside(repo, local.path, "setup.py")
    if pyproject is None and setup is None:
        raise DetectError(
            f"{show(local.path or '.')} holds neither pyproject.toml nor setup.py, so that it cannot be installed",
            where=local.where,
        )
    project = Project(local, local.path or "the repository's project")
    values = repo.read_toml(pyproject) if pyproject else {}
    text = "".join(repo.read_text(path) for path in (pyproject, setup) if path)
    how = ["in place (-e)" if local.editable else "is installed"]
    if pyproject:
        _read_pyproject(repo, project, pyproject, values, setup, locked=locked)
        if not project.installed:
            how = [f"{project.why_not}: its dependencies are installed, it is not"]
    if locked:
        project.dependencies = ()
    elif pyproject:
        count = project.dependencies
        how.append("dependencies are told by its build" if count is None else f"{len(count)} dependencies")
    if _SCM.search(text) and project.installed:
        project.env.update(_SCM_ENV)
        how.append("its version is 0.0.0, as git's tags are not there to tell")
    if project.installed:
        _find_native(repo, project, values, repo.read_text(setup) if setup else "")
    if project.native:
        how.append(f"has {project.native_reason}: {', '.join(project.native)} are installed to build it")
    if project.requires_python is None:
        _read_static_requires(repo, project, setup)
    if pyproject:
        project.files[pyproject] = "; ".join(how)
        if setup:
            project.files[setup] = "part of the same project"
    elif setup:
        told = () if locked else ("dependencies are told by running it in the build",)
        project.files[setup] = "; ".join((*how, *told))
    return project


def _inside(repo: Repo, folder: str, name: str) -> str | None:
    path = f"{folder}/{name}" if folder else name
    return path if repo.tree.kind(path) in ("file", "symlink") else None


def _read_pyproject(
    repo: Repo, project: Project, path: str, values: dict[str, Any], setup: str | None, *, locked: bool
) -> None:
    text = repo.read_text(path)
    table = values.get("project")
    tools = values.get("tool")
    tools = tools if isinstance(tools, dict) else {}
    if is_poetry(values):
        _read_poetry(repo, project, path, text, values, locked=locked)
    if "project" not in values:
        return
    if not isinstance(table, dict):
        raise DetectError("[project] is not a table", where=_at(path, text, "project"))
    name = table.get("name")
    if isinstance(name, str) and re.match(r"[A-Za-z0-9._-]{1,100}\Z", name):
        project.title, project.name = name, _normal(name)
    _read_requires_python(project, path, text, table)
    if not locked and project.dependencies is None:
        project.dependencies = _known_dependencies(repo, project, path, text, table, tools)
    if "build-system" not in values and setup is None and not _has_package(repo, project, tools):
        project.installed = False
        if project.dependencies is None and not locked:
            raise DetectError(
                "has no [build-system], so that the dependencies it calls dynamic cannot be found out", where=show(path)
            )


def _read_poetry(repo: Repo, project: Project, path: str, text: str, values: dict[str, Any], *, locked: bool) -> None:
    table: dict[str, Any] = values["tool"]["poetry"]
    name = table.get("name")
    if isinstance(name, str) and re.match(r"[A-Za-z0-9._-]{1,100}\Z", name):
        project.title, project.name = name, _normal(name)
    if python := python_versions(values):
        project.requires_python_where = _at(path, text, python)
        project.requires_python = parse_constraint(python, project.requires_python_where)
    if table.get("package-mode") is False:
        project.installed, project.why_not = False, "is no package (package-mode)"
    elif "packages" not in table and not _has_package(repo, project, {}):
        project.installed = False
    if locked:
        return

    lines: list[str] = []
    indexes, locals_ = dict(sources(values)), []
    asked = {_normal(extra) for extra in project.local.extras}
    extras = table.get("extras", {})
    extras = extras if isinstance(extras, dict) else {}
    of_extras = {_normal(str(other)) for extra, names in extras.items() if _normal(extra) in asked for other in names}
    for dependency in dependencies(values, lambda word: _at(path, text, word)):
        where = _at(path, text, dependency.name)
        if dependency.optional and _normal(dependency.name) not in of_extras:
            continue
        if dependency.source is not None and dependency.source[0] == "path":
            inside = posixpath.join(project.local.path, dependency.source[1])
            editable = dependency.spec.get("develop") is True
            locals_.append(local_project(repo, inside, where, editable=editable))
            continue
        line = clean_requirement(dependency.requirement(where), where)
        if isinstance(line, Local):
            raise DetectError("a dependency that is a path", where=where)
        lines.append(line)
    for url in indexes.values():
        check_index(url, _at(path, text, url))
    project.indexes = tuple(url for url in indexes.values() if host_of(url) not in PYPI)
    project.locals = tuple(locals_)
    project.dependencies = tuple(lines)


def _read_static_requires(repo: Repo, project: Project, setup: str | None) -> None:
    """`python_requires` of setup.cfg, or of setup.py where it is written out: it is not run."""
    for path in (_inside(repo, project.local.path, "setup.cfg"), setup):
        text = repo.read_text(path) if path else ""
        match = _PYTHON_REQUIRES.search(text) if path != setup else _PYTHON_REQUIRES_CALL.search(text)
        if path and match:
            where = f"{show(path)}:{text.count(chr(10), 0, match.start('versions')) + 1}"
            try:
                versions = SpecifierSet(match["versions"])
            except InvalidSpecifier:
                raise DetectError(f"'{show(match['versions'])}' is not a version specifier", where=where) from None
            project.requires_python, project.requires_python_where = Constraint(match["versions"], (versions,)), where
            return


def _known_dependencies(
    repo: Repo, project: Project, path: str, text: str, table: dict[str, Any], tools: dict[str, Any]
) -> tuple[str, ...] | None:
    """What the project depends on, None where only its build can tell."""
    uv = tools.get("uv")
    if isinstance(uv, dict) and "sources" in uv:
        # Some of the names mean something else than on the index, which uv knows when it installs the project.
        return None
    dynamic = table.get("dynamic", [])
    dynamic = dynamic if isinstance(dynamic, list) else []
    if "optional-dependencies" in dynamic and project.local.extras:
        return None
    if "dependencies" not in dynamic:
        return _dependencies(project, path, text, table)
    return None if project.local.extras else _from_files(repo, project, tools)


def _from_files(repo: Repo, project: Project, tools: dict[str, Any]) -> tuple[str, ...] | None:
    """`[tool.setuptools.dynamic] dependencies = {file = …}` (setuptools' documentation, "Dynamic Metadata")."""
    value: Any = tools
    for key in ("setuptools", "dynamic", "dependencies", "file"):
        value = value.get(key) if isinstance(value, dict) else None
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, list) or not names:
        return None
    lines: list[str] = []
    for name in names:
        path = posixpath.normpath(posixpath.join(project.local.path, str(name)))
        if repo.tree.kind(path) not in ("file", "symlink"):
            return None
        found = read_requirements(repo, path)
        if found.locals or found.options or found.constraints:
            return None
        lines += found.lines
        project.files[path] = f"{len(found.lines)} dependencies of {project.title}"
    return tuple(lines)


def _read_requires_python(project: Project, path: str, text: str, table: dict[str, Any]) -> None:
    wanted = table.get("requires-python")
    if wanted is None:
        return
    where = _at(path, text, "requires-python")
    if not isinstance(wanted, str):
        raise DetectError("requires-python is not a string", where=where)
    try:
        project.requires_python = Constraint(wanted, (SpecifierSet(wanted),))
    except InvalidSpecifier:
        raise DetectError(f"requires-python '{show(wanted)}' is not a version specifier", where=where) from None
    project.requires_python_where = where


def _dependencies(project: Project, path: str, text: str, table: dict[str, Any]) -> tuple[str, ...] | None:
    extras = table.get("optional-dependencies", {})
    if not isinstance(extras, dict):
        raise DetectError("optional-dependencies is not a table", where=_at(path, text, "optional-dependencies"))
    lists = [("dependencies", table.get("dependencies", []))]
    named = {_normal(extra): value for extra, value in extras.items()}
    for extra in project.local.extras:
        if _normal(extra) not in named:
            raise DetectError(
                f"asks for the extra {extra!r}, which {show(path)} does not have", where=project.local.where
            )
        lists.append((extra, named[_normal(extra)]))
    lines: list[str] = []
    for key, value in lists:
        if not isinstance(value, list) or not all(isinstance(entry, str) for entry in value):
            raise DetectError(f"{show(key)} is not a list of strings", where=_at(path, text, key))
        for entry in value:
            where = _at(path, text, entry)
            if "${" in entry or re.search(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]", entry):
                raise DetectError("a dependency with control characters or ${…}", where=where)
            line = clean_requirement(entry.strip(), where)
            if isinstance(line, Local):
                raise DetectError("a dependency that is a path, which no package may have", where=where)
            if _normal(re.split(r"[\[\s;@<>=!~]", line)[0]) == _normal(project.title):
                # `pkg[all]` inside pkg: only its build knows what that comes to.
                return None
            lines.append(line)
    return tuple(lines)


def _has_package(repo: Repo, project: Project, tools: dict[str, Any]) -> bool:
    """setuptools, which builds where nothing else is named, would find something to install."""
    if "setuptools" in tools:
        return True
    base = f"{project.local.path}/" if project.local.path else ""
    name = re.sub(r"[-.]", "_", project.title)
    names = {f"{base}{name}/__init__.py", f"{base}{name}.py", f"{base}{name.lower()}/__init__.py"}
    if any(repo.is_file(path) for path in names):
        return True
    inside = re.compile(rf"{re.escape(base)}src/[^/]+/__init__\.py\Z")
    return any(inside.match(item.path) for item in repo.files(f"{base}src"))


def _find_native(repo: Repo, project: Project, values: dict[str, Any], setup: str) -> None:
    build = values.get("build-system")
    build = build if isinstance(build, dict) else {}
    requires = build.get("requires", [])
    words = [word for word in requires if isinstance(word, str)] if isinstance(requires, list) else []
    tools = values.get("tool")
    modules = isinstance(tools, dict) and isinstance(s := tools.get("setuptools"), dict) and "ext-modules" in s
    if not (modules or _NATIVE_SETUP.search(setup) or any(_NATIVE_BUILD.match(word) for word in words)):
        return
    names = [item.path.lower() for item in repo.files(project.local.path)]
    fortran = any(name.endswith(_FORTRAN) for name in names)
    if fortran or any(name.endswith(_C) for name in names):
        project.native = ("build-essential", "python3-dev", *(("gfortran",) if fortran else ()))
        project.native_reason = "Fortran sources" if fortran else "C, C++ or Cython sources"


def _at(path: str, text: str, word: str) -> str:
    """`file:line` of the first line that holds a text, as well as can be told."""
    for number, line in enumerate(text.split("\n"), start=1):
        if word in line:
            return f"{show(path)}:{number}"
    return show(path)


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def sources_of(repo: Repo, project: Project) -> set[str]:
    """Files an installation may need: all but notebooks, and but large files that lie in no package."""
    if project.local.is_archive:
        return {project.local.path}
    items = [item for item in repo.files(project.local.path) if not item.path.endswith(".ipynb")]
    if not items:
        raise DetectError("has no files to install", where=show(project.local.path or "."))
    packages = {item.path.rpartition("/")[0] for item in items if item.path.endswith("/__init__.py")}
    return {item.path for item in items if item.size <= LARGE or _among(item.path, packages)}


def _among(path: str, folders: set[str]) -> bool:
    parts = path.split("/")
    return any("/".join(parts[:end]) in folders for end in range(1, len(parts)))
