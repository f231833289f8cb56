"""What an image is made of: a bill of materials in CycloneDX 1.6 JSON (ECMA-424), made from what is in it."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Mapping
from itertools import groupby
from pathlib import Path
from typing import Any
from urllib.parse import quote

from hpcbinder.contract import LABEL_PREFIX
from hpcbinder.convert.installed import Package, System, installed, system
from hpcbinder.errors import UsageError
from hpcbinder.sif import SbomFormat
from hpcbinder.squashfs import Image

LEFT_OUT = b""
"""Given instead of a bill of materials where there is to be none."""

_TITLE, _VERSION = "org.opencontainers.image.title", "org.opencontainers.image.version"
_LIMIT = 64 << 20
_MOST = 50_000
"""Components in a bill that is made here; what is more is left out, and the bill says that it is not whole."""
_YEAR_10000 = 253_402_300_800


def make_sbom(image: Image, *, labels: Mapping[str, str], digest: str, serial: str, timestamp: int) -> bytes:
    """A bill of materials; the same image and arguments give the same bytes.

    It names Debian's, Alpine's, conda's and Python's packages (as purls), and those of other ecosystems whose lists our
    build steps leave in an image.

    Args:
        image: The image's squashfs, opened.
        labels: The image's, which may say its name and version. (What a person calls it does not count: the same image
            is to give the same bytes wherever it came from.)
        digest: That tells it from others; its version if it does not say one.
        serial: A UUID for the bill.
        timestamp: Unix time (s) that the bill says it was made at.

    Raises:
        ConvertError: The image is damaged.
    """
    here = system(image)
    components, whole = _components(installed(image), here)
    if here.name:
        components.insert(0, {"bom-ref": "os", "type": "operating-system", "name": here.name, "version": here.version})
    metadata: dict[str, Any] = {
        "tools": {"components": [{"type": "application", "name": "hpcbinder"}]},
        "component": {
            "bom-ref": "image",
            "type": "container",
            "name": _label(labels, f"{LABEL_PREFIX}id", _TITLE) or "image",
            "version": _label(labels, _VERSION) or digest,
        },
    }
    if 0 <= timestamp < _YEAR_10000:
        metadata["timestamp"] = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(timestamp))
    bill = {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{serial}",
        "version": 1,
        "metadata": metadata,
        "components": components,
    }
    if not whole:
        bill["compositions"] = [{"aggregate": "incomplete", "assemblies": ["image"]}]
    return (json.dumps(bill, separators=(",", ":")) + "\n").encode("ascii")


def _label(labels: Mapping[str, str], *names: str) -> str:
    text = next(filter(None, map(labels.get, names)), None) or ""
    return text[:200].encode("utf-8", "replace").decode()


def sbom_format(raw: bytes) -> SbomFormat:
    """Which of the formats that SIF knows a bill of materials has.

    Raises:
        UsageError: It is neither CycloneDX nor SPDX in JSON.
    """
    try:
        bill = json.loads(raw)
    except (ValueError, RecursionError):
        bill = None
    if isinstance(bill, dict):
        if bill.get("bomFormat") == "CycloneDX" and isinstance(bill.get("specVersion"), str):
            return SbomFormat.CYCLONEDX_JSON
        context = bill.get("@context")
        if isinstance(bill.get("spdxVersion"), str) or (isinstance(context, str) and "spdx.org/rdf/3" in context):
            return SbomFormat.SPDX_JSON
    raise UsageError("is no bill of materials in CycloneDX or SPDX JSON")


def read_sbom(path: Path) -> bytes:
    """A bill of materials from a file, for `Job.sbom`.

    Raises:
        UsageError: It cannot be read, is longer than 64 MiB, or is none.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(_LIMIT + 1)
    except OSError as error:
        raise UsageError(f"cannot be read: {error.strerror}", where=str(path)) from error
    if len(raw) > _LIMIT:
        raise UsageError("is too long for a bill of materials (more than 64 MiB)", where=str(path))
    try:
        sbom_format(raw)
    except UsageError as error:
        raise UsageError(error.message, where=str(path)) from None
    return raw


def _components(packages: Iterable[Package], here: System) -> tuple[list[dict[str, Any]], bool]:
    """Sorted, a package once with all its folders; and whether all are in the list."""
    components: list[dict[str, Any]] = []
    for package, same in groupby(sorted(set(packages)), lambda p: (p.kind, p.name, p.version, p.detail)):
        if len(components) == _MOST:
            return components, False
        kind, name, version, detail = package
        purl = _purl(kind, name, version, detail, here)
        component: dict[str, Any] = {
            "bom-ref": purl or f"{kind}:{name}@{version}",
            "type": "library",
            "name": name,
            "version": version,
        }
        if purl:
            component["purl"] = purl
        else:
            component["properties"] = [{"name": "hpcbinder:ecosystem", "value": kind}]
        if folders := [one.folder for one in same if one.folder]:
            component["evidence"] = {"occurrences": [{"location": f"/{_text(folder)}"} for folder in folders]}
        components.append(component)
    return components, True


def _purl(kind: str, name: str, version: str, detail: str, here: System) -> str | None:
    """A package's URL (package-url/purl-spec, types/); None of a kind that is not known."""
    distro = {"distro": f"{here.name}-{here.version}"} if here.name and here.version else {}
    space, qualifiers = {
        "deb": (f"{here.name or 'debian'}/", {"arch": detail, **distro}),
        "apk": (f"{here.name or 'alpine'}/", {"arch": detail, **distro}),
        "conda": ("", {"build": detail}),
        "pypi": ("", {}),
    }.get(kind, (None, {}))
    if space is None:
        return None
    return f"pkg:{kind}/{space}{_quoted(name)}@{_quoted(version)}{_query(qualifiers)}"


def _query(qualifiers: Mapping[str, str]) -> str:
    pairs = [f"{key}={_quoted(value)}" for key, value in sorted(qualifiers.items()) if value]
    return f"?{'&'.join(pairs)}" if pairs else ""


def _quoted(text: str) -> str:
    return quote(text, safe=":~")


def _text(path: str) -> str:
    return os.fsencode(path).decode("utf-8", "replace")
