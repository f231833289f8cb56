"""What is installed in an image, read from the databases that its package managers keep.

An image may say anything: what has no plausible name and version is left out, a database that is too long or no
database is not read, and the time is that of listing the image's directories.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from hpcbinder.image import image_packages
from hpcbinder.squashfs import Image

_LIMIT = 32 << 20
"""Bytes of a database; Debian's own of 10,000 packages has 15 MB."""
_WORD = re.compile(r"[!-~]{1,200}")
_ID = re.compile(r"[a-z0-9][a-z0-9._-]{0,50}")

_DPKG, _DPKG_PARTS, _APK = "var/lib/dpkg/status", "var/lib/dpkg/status.d", ("lib/apk/db", "usr/lib/apk/db")
_SITES = ("site-packages", "dist-packages")
_NOT_PACKAGES = {"": ("dev", "proc", "run", "sys"), "usr/share": ("doc", "icons", "locale", "man", "zoneinfo")}
"""Folder -> those in it where nobody installs packages."""
_DPKG_FIELD = re.compile(rb"^(Package|Status|Version|Architecture):(.*)$", re.MULTILINE)
_APK_FIELD = re.compile(rb"^([PVA]):(.*)$", re.MULTILINE)
_EGG = re.compile(r"(?P<name>.+?)-(?P<version>[^-]+)(-py\d+(\.\d+)?)?(-[^-]+)?\.egg-info")
_OWN = ("debian", "python", "server")
"""Lists of our own whose packages are in databases that are read here."""


@dataclass(frozen=True, order=True)
class Package:
    """One installed package.

    Attributes:
        kind: `apk`, `conda`, `deb`, `pypi`, or another name without a database that is known here.
        detail: What tells apart packages of one name and version: architecture of `deb` and `apk`, build of `conda`.
        folder: Where it is, of those that may be in several folders; "" of the others.
    """

    kind: str
    name: str
    version: str
    detail: str = ""
    folder: str = ""


@dataclass(frozen=True)
class System:
    """The distribution (os-release(5)): its `ID` and `VERSION_ID`, "" where it does not say."""

    name: str
    version: str


def system(image: Image) -> System:
    """What the image says it is."""
    fields = {}
    for path in ("etc/os-release", "usr/lib/os-release"):
        raw = _file(image, path, 1 << 16)
        if raw is not None:
            for name, value in re.findall(r"^(ID|VERSION_ID)=(.*)$", raw.decode("utf-8", "replace"), re.MULTILINE):
                fields[name] = value.strip().strip("\"'")
            break
    name, version = (fields.get(key, "") for key in ("ID", "VERSION_ID"))
    return System(name if _ID.fullmatch(name) else "", version if _ID.fullmatch(version) else "")


def installed(image: Image) -> Iterator[Package]:
    """Everything that is found, in no order, one package as often as it is there.

    Raises:
        ConvertError: The image is damaged.
    """
    yield from _debian(image)
    for folder in _APK:
        yield from _alpine(image, folder)
    for path, folders, files in image.folders():
        name = path.rpartition("/")[2]
        if name in _SITES:
            yield from _python(path, [*folders, *files])
        elif name == "conda-meta":
            yield from _conda(path, files)
        for needless in _NOT_PACKAGES.get(path, ()):
            if needless in folders:
                folders.remove(needless)
    for ecosystem, packages in image_packages(image).items():
        if ecosystem not in _OWN:
            yield from _plausible(Package(ecosystem, package["name"], package["version"]) for package in packages)


def _debian(image: Image) -> Iterator[Package]:
    """dpkg's database, and its parts that images without a dpkg have (status(5); GoogleContainerTools/distroless)."""
    raw = [_file(image, _DPKG)]
    folder = image.lookup(_DPKG_PARTS)
    if folder is not None and folder.kind == "directory":
        raw += [_file(image, f"{_DPKG_PARTS}/{name}", 1 << 20) for name in image.listdir(_DPKG_PARTS)[:10_000]]
    for text in filter(None, raw):
        for fields in _records(text, _DPKG_FIELD):
            # Without a status in parts: those images have no state but this.
            if fields.get("Status", "install ok installed").endswith(" installed"):
                name, version = fields.get("Package", "").lower(), fields.get("Version", "")
                yield from _plausible([Package("deb", name, version, fields.get("Architecture", ""))])


def _alpine(image: Image, folder: str) -> Iterator[Package]:
    """apk's database (apk-installed(5))."""
    for fields in _records(_file(image, f"{folder}/installed") or b"", _APK_FIELD):
        if "P" in fields:
            yield from _plausible([Package("apk", fields["P"].lower(), fields.get("V", ""), fields.get("A", ""))])


def _records(text: bytes, pattern: re.Pattern[bytes]) -> Iterator[dict[str, str]]:
    """Paragraphs of `field: value` lines."""
    for paragraph in re.split(rb"\n[ \t]*\n", text):
        yield {m[1].decode("ascii"): m[2].decode("utf-8", "replace").strip() for m in pattern.finditer(paragraph)}


def _python(folder: str, names: list[str]) -> Iterator[Package]:
    """Python's, by the names of their metadata folders (PyPA, "Recording installed projects"; before, setuptools')."""
    for text in names:
        if text.endswith(".dist-info"):
            name, dash, version = text.removesuffix(".dist-info").rpartition("-")
            if not dash:
                continue
        elif match := _EGG.fullmatch(text) if text.endswith(".egg-info") else None:
            name, version = match["name"], match["version"]
        else:
            continue
        # As the index writes it (PEP 503): the names of folders are not one-to-one.
        yield from _plausible([Package("pypi", re.sub(r"[-_.]+", "-", name).lower(), version, "", folder)])


def _conda(folder: str, files: list[str]) -> Iterator[Package]:
    """conda's, by the names of their records, `NAME-VERSION-BUILD.json`."""
    for file in files:
        parts = file.removesuffix(".json").rsplit("-", 2)
        if file.endswith(".json") and len(parts) == 3:
            yield from _plausible([Package("conda", parts[0], parts[1], parts[2], folder.rpartition("/")[0])])


def _plausible(packages: Iterator[Package] | list[Package]) -> Iterator[Package]:
    for package in packages:
        if _WORD.fullmatch(package.name) and _WORD.fullmatch(package.version) and len(package.detail) <= 200:
            yield package


def _file(image: Image, path: str, limit: int = _LIMIT) -> bytes | None:
    node = image.lookup(path, follow=True)
    if node is None or node.kind != "file" or node.size > limit:
        return None
    return image.read(path, limit, follow=True)
