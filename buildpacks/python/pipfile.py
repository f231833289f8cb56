"""Pipfile and Pipfile.lock: what repo2docker has pipenv install, `--dev` included, for the image's interpreter.

The formats are pipenv's own (https://pipenv.pypa.io/en/latest/pipfile.html; `pipenv/vendor/plette`). As in repo2docker
(`buildpacks/pipfile`), a lock counts alone where there is one, paths are relative to the file, and the root's own
project is installed only if the file names it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from hpcbinder.plan import DetectError, Repo, show

from .locked import PYPI, Document, File, Locked, Pin, Reader, checked_hash, host_of
from .requirements import Local, Requirements, check_index, clean_requirement, local_project
from .target import Target
from .uv_lock import stale

_SECTIONS = ("packages", "dev-packages")
_DEFAULT_SOURCE = {"name": "pypi", "url": "https://pypi.org/simple", "verify_ssl": True}
_MARKERS = (
    "os_name",
    "sys_platform",
    "platform_machine",
    "platform_python_implementation",
    "platform_release",
    "platform_system",
    "platform_version",
    "python_version",
    "python_full_version",
    "implementation_name",
    "implementation_version",
)
"""Marker variables that an entry may have as keys of their own."""


def read_pipfile_lock(repo: Repo, document: Document, target: Target, pipfile: str | None) -> Locked:
    """Read a Pipfile.lock.

    Args:
        document: The lock.
        target: What for.
        pipfile: The Pipfile it is the lock of, if there is one.

    Raises:
        DetectError: Not such a file, or something in it that is not allowed.
    """
    reader = Reader(repo, document, target)
    meta = document.table(document.values.get("_meta"))
    urls = {
        document.word(source.get("name")): document.word(source.get("url"))
        for source in document.tables(meta.get("sources"))
    }
    for section in ("default", "develop"):
        for key, entry in document.table(document.values.get(section)).items():
            name = reader.name(key)
            pin = _pin(reader, name, document.table(entry, name), urls)
            # What both sections have stands in both; the default one is what pipenv installs then.
            if pin is not None and name not in reader.pins:
                reader.add(pin)
    notes = ["with its develop packages, as repo2docker does"] if document.values.get("develop") else []
    wanted = document.word(document.table(meta.get("hash")).get("sha256"))
    if pipfile and wanted != pipfile_hash(repo.read_toml(pipfile)):
        notes.append(stale([], show(pipfile), "pipenv lock"))
    return reader.result(project=False, notes=notes)


def _pin(reader: Reader, name: str, entry: Mapping[str, Any], urls: Mapping[str, str]) -> Pin | None:
    document, word = reader.document, reader.document.word
    if not reader.target.holds(_marker(entry, document.at(name)), document.at(name)):
        return None
    if git := word(entry.get("git"), name):
        commit, subdirectory = word(entry.get("ref"), name), word(entry.get("subdirectory"), name)
        return reader.git(name, "", git.removeprefix("git+"), commit, subdirectory=subdirectory)
    hashes = [checked_hash(value) for value in document.words(entry.get("hashes"), name)]
    files = tuple(File("", value) for value in hashes if value)
    if path := word(entry.get("path"), name):
        return reader.local(name, path, editable=entry.get("editable") is True)
    if url := word(entry.get("file"), name):
        if "://" not in url:
            return reader.local(name, url)
        return reader.url(name, "", url, files)
    version = word(entry.get("version"), name)
    # pipenv leaves `*` where it resolved nothing.
    version = "" if version in ("", "*") else reader.version(version.removeprefix("=="), name)
    source = word(entry.get("index"), name) or next(iter(urls), "")
    url = urls.get(source, "")
    return Pin(name, version, files, reader.index(url, name) if url else "")


def read_pipfile(repo: Repo, path: str) -> Requirements:
    """Translate a Pipfile into what a requirements.txt would say.

    Raises:
        DetectError: Not such a file, or something in it that is not allowed.
    """
    values = repo.read_toml(path)
    words = repo.read_text(path).split("\n")

    def at(word: str) -> str:
        line = next((number for number, line in enumerate(words, start=1) if word in line), None)
        return f"{show(path)}:{line}" if line else show(path)

    found = Requirements()
    notes = _sources(values, found, at)
    for section in _SECTIONS:
        entries = values.get(section, {})
        if not isinstance(entries, dict):
            raise DetectError(f"[{section}] is not a table", where=at(section))
        for name, spec in entries.items():
            for line in _lines(repo, path, name, spec, at(name)):
                if isinstance(line, Local):
                    found.locals.append(line)
                elif line not in found.lines:
                    found.lines.append(line)
    count = len(found.lines) + len(found.locals)
    if values.get("dev-packages"):
        notes.append("with its dev-packages, as repo2docker does")
    found.files[path] = "; ".join((f"{count} requirement{'s' * (count != 1)}", *notes))
    return found


def _sources(values: Mapping[str, Any], found: Requirements, at: Callable[[str], str]) -> list[str]:
    entries = values.get("source", [_DEFAULT_SOURCE])
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise DetectError("[[source]] is not a list of tables", where=at("source"))
    notes = []
    for number, entry in enumerate(entries):
        url = entry.get("url")
        if not isinstance(url, str):
            raise DetectError("a [[source]] without a URL", where=at("source"))
        if host_of(url) in PYPI:
            continue
        check_index(url, at(url))
        found.options.append(f"{'--extra-index-url' if number else '--index-url'} {url}")
        notes.append(f"packages also from {show(url)}, so that the build finds the versions")
    return notes


def _lines(repo: Repo, file: str, name: str, spec: Any, where: str) -> Iterator[str | Local]:
    for entry in spec if isinstance(spec, list) else [spec]:
        table = {"version": entry} if isinstance(entry, str) else entry
        if not isinstance(table, dict):
            raise DetectError(f"{show(name)} is neither a text nor a table", where=where)
        yield _line(repo, file, name, table, where)


def _line(repo: Repo, file: str, name: str, table: Mapping[str, Any], where: str) -> str | Local:
    extras = table.get("extras", [])
    if not isinstance(extras, list) or not all(isinstance(extra, str) for extra in extras):
        raise DetectError(f"the extras of {show(name)} are not a list of texts", where=where)
    path = _text(table, "path", where) or _text(table, "file", where)
    what = f"[{','.join(extras)}]" if extras else ""
    if path and "://" not in path:
        folder = file.rpartition("/")[0]
        inside = f"{folder}/{path}" if folder and not path.startswith(("/", "~")) else path
        return local_project(repo, inside + what, where, editable=table.get("editable") is True)
    if git := _text(table, "git", where):
        reference, subdirectory = _text(table, "ref", where), _text(table, "subdirectory", where)
        what += f" @ git+{git.removeprefix('git+')}" + (f"@{reference}" if reference else "")
        what += f"#subdirectory={subdirectory}" if subdirectory else ""
    elif path:
        what += f" @ {path}"
    elif (version := _text(table, "version", where).strip()) not in ("", "*"):
        what += version if version[0] in "<>=!~" else f"=={version}"
    marker = _marker(table, where)
    line = clean_requirement(f"{name}{what}" + (f" ; {marker}" if marker else ""), where)
    if isinstance(line, Local):
        raise DetectError(f"{show(name)} is not the name of a package", where=where)
    return line


def _marker(table: Mapping[str, Any], where: str) -> str:
    """The marker of an entry: its `markers`, and those that are keys of their own (`sys_platform = "== 'win32'"`)."""
    parts = [_text(table, "markers", where)]
    for name in _MARKERS:
        if value := _text(table, name, where):
            parts.append(f"{name} {value}")
    return " and ".join(f"({part})" for part in parts if part)


def pipfile_requires(values: Mapping[str, Any]) -> tuple[str, str]:
    """`[requires]`: key and version of the Python that a Pipfile, or the `_meta` of a lock, asks for; "" for none."""
    requires = values.get("requires")
    for key in ("python_full_version", "python_version"):
        version = requires.get(key) if isinstance(requires, Mapping) else None
        if isinstance(version, str) and version.strip() not in ("", "*"):
            return key, version.strip()
    return "", ""


def pipfile_hash(values: Mapping[str, Any]) -> str:
    """The hash that pipenv writes into a lock made of a Pipfile (plette `Pipfile.get_hash`); "" if it has none."""
    known = ("source", "packages", "dev-packages", "requires", "scripts", "pipfile", "pipenv", "default", "develop")
    data: dict[str, Any] = {
        "_meta": {"sources": values.get("source", [_DEFAULT_SOURCE]), "requires": values.get("requires", {})},
        "default": values.get("packages", {}),
        "develop": values.get("dev-packages", {}),
        **{category: section for category, section in values.items() if category not in known},
    }
    try:
        text = json.dumps(data, sort_keys=True, separators=(",", ":"))
    except (TypeError, ValueError, RecursionError):
        return ""
    return hashlib.sha256(text.encode()).hexdigest()


def _text(table: Mapping[str, Any], key: str, where: str) -> str:
    value = table.get(key, "")
    if not isinstance(value, str):
        raise DetectError(f"{show(key)} is not a text", where=where)
    return value
