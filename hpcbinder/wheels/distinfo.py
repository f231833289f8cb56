"""What a wheel says of itself in its `.dist-info` (packaging.python.org: "Binary distribution format", "Recording
installed projects", "Entry points specification")."""

from __future__ import annotations

import base64
import binascii
import configparser
import csv
import io
import re
from dataclasses import dataclass
from email.parser import HeaderParser
from keyword import iskeyword

from hpcbinder.text import one_line
from hpcbinder.wheels.archive import Archive, Refused

_LIMIT = 64 << 20
"""Bytes of a file that is read as a whole."""
_SIGNATURES = ("RECORD.jws", "RECORD.p7s")
REWRITTEN = ("RECORD", "INSTALLER", "REQUESTED", "direct_url.json", *_SIGNATURES)
"""Files of `.dist-info` that are the installer's, not the wheel's."""
_SCRIPT = re.compile(r"[\w.+][\w.+-]*")
_OBJECT = re.compile(r"(?P<module>[\w.]+)\s*:\s*(?P<attribute>[\w.]+)\s*(?:\[[\w\s,.-]*\])?")
_SIZES = {"sha256": 32, "sha384": 48, "sha512": 64}


@dataclass(frozen=True)
class Script:
    """A command that an entry point makes: `name` calls `attribute` of `module`."""

    name: str
    module: str
    attribute: str


@dataclass(frozen=True)
class DistInfo:
    """What was read.

    Attributes:
        folder: `NAME-VERSION.dist-info`, as it stands in the wheel.
        data: `NAME-VERSION.data`, which need not be there.
        name: Normalised.
        record: Path -> (algorithm, digest) of every file but RECORD and its signatures.
        scripts: Commands to make.
    """

    folder: str
    data: str
    name: str
    record: dict[str, tuple[str, bytes]]
    scripts: tuple[Script, ...]


def read_dist_info(archive: Archive, filename: str) -> DistInfo:
    """Read and check it.

    Args:
        filename: The wheel's name.

    Raises:
        Refused: The wheel is not what its name says, or not well made.
    """
    from packaging.utils import canonicalize_name, parse_wheel_filename
    from packaging.version import Version

    name, version, _, tags = parse_wheel_filename(filename)
    tops = {path.partition("/")[0] for path in archive.members}
    folders = [top for top in tops if top.lower().endswith(".dist-info")]
    if len(folders) != 1:
        raise Refused(f"it has {len(folders)} .dist-info folders")
    folder = folders[0]
    stem, _, suffix = folder.removesuffix(".dist-info").rpartition("-")
    try:
        fits = canonicalize_name(stem) == name and Version(suffix) == version
    except ValueError:  # InvalidVersion is one; thousands of digits are another
        fits = False
    if not fits or not folder.endswith(".dist-info"):
        raise Refused(f"its {one_line(folder, 200)} is of another package than {one_line(filename, 200)}")
    _check_wheel(archive.read(f"{folder}/WHEEL", _LIMIT), {(t.interpreter, t.abi, _family(t.platform)) for t in tags})
    metadata = HeaderParser().parsestr(_text(archive.read(f"{folder}/METADATA", _LIMIT), "METADATA"))
    said, of = str(metadata.get("Name", "")), str(metadata.get("Version", ""))
    try:
        fits = canonicalize_name(said) == name and Version(of) == version
    except ValueError:
        fits = False
    if not fits:
        raise Refused(f"its METADATA is of {one_line(said, 100)} {one_line(of, 100)}")
    path = f"{folder}/entry_points.txt"
    scripts = _scripts(_text(archive.read(path, _LIMIT), "entry_points.txt")) if path in archive.members else ()
    data = f"{stem}-{suffix}.data"
    return DistInfo(folder, data, name, _record(archive, folder), scripts)


def _text(content: bytes, what: str) -> str:
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        raise Refused(f"its {what} is not UTF-8") from None


def _check_wheel(content: bytes, tags: set[tuple[str, str, str]]) -> None:
    from packaging.tags import parse_tag

    headers = HeaderParser().parsestr(_text(content, "WHEEL"))
    version = str(headers.get("Wheel-Version", "")).strip()
    if not re.fullmatch(r"1\.\d{1,3}", version):
        raise Refused(f"it is of wheel version {one_line(version, 20)!r}, known is 1")
    if str(headers.get("Root-Is-Purelib", "")).strip().lower() not in ("true", "false"):
        raise Refused("its WHEEL does not say whether it is pure")
    said = set()
    for line in headers.get_all("Tag", []):
        text = str(line).strip()
        if not re.fullmatch(r"[\w.]+-[\w.]+-[\w.]+", text, re.ASCII) or text.count(".") > 20:
            raise Refused(f"its WHEEL has a tag {one_line(text, 100)!r}")
        said |= {(tag.interpreter, tag.abi, _family(tag.platform)) for tag in parse_tag(text)}
    if not said & tags:
        raise Refused("the tags in its WHEEL are not those of its name")


def _family(platform: str) -> str:
    """A platform without the C library's version: auditwheel renames wheels, and not all who do so correct WHEEL."""
    return re.sub(r"^(manylinux(_\d+_\d+|\d+)|linux)_", "linux_", platform)


def _record(archive: Archive, folder: str) -> dict[str, tuple[str, bytes]]:
    found: dict[str, tuple[str, bytes]] = {}
    own = {f"{folder}/RECORD", *(f"{folder}/{name}" for name in _SIGNATURES)}
    text = _text(archive.read(f"{folder}/RECORD", _LIMIT), "RECORD")
    try:
        for row in csv.reader(io.StringIO(text, newline="")):
            if not row or row[0] in own:
                continue
            path, hashed, size = (*row, "", "")[:3]
            member = archive.members.get(path)
            if member is None:
                continue
            algorithm, _, value = hashed.partition("=")
            digest = base64.b64decode(value + "=" * (-len(value) % 4), altchars=b"-_", validate=True)
            if len(digest) != _SIZES.get(algorithm):
                raise Refused(f"its RECORD has no SHA-256 or better of {path!r}")
            if (size and size != str(member.size)) or path in found:
                raise Refused(f"its RECORD is wrong about {path!r}")
            found[path] = (algorithm, digest)
    except (csv.Error, binascii.Error, ValueError):
        raise Refused("its RECORD cannot be read") from None
    missing = archive.members.keys() - found.keys() - own
    if missing:
        raise Refused(f"its RECORD does not have {min(missing)!r}")
    return found


def _scripts(text: str) -> tuple[Script, ...]:
    parser = configparser.ConfigParser(delimiters=("=",), strict=True, interpolation=None, default_section="")
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    try:
        parser.read_string(text)
    except configparser.Error as error:
        raise Refused(f"its entry_points.txt cannot be read ({one_line(str(error), 100)})") from None
    found: dict[str, Script] = {}
    for group in ("console_scripts", "gui_scripts"):
        if not parser.has_section(group):
            continue
        for name, value in parser.items(group):
            found[name] = read_script(name, value)
    return tuple(found[name] for name in sorted(found))


def read_script(name: str, value: str) -> Script:
    """A command that an entry point makes.

    Args:
        value: `MODULE:ATTRIBUTE`.

    Raises:
        Refused: It is none.
    """
    match = _OBJECT.fullmatch(value.strip())
    parts = [*match["module"].split("."), *match["attribute"].split(".")] if match else []
    names = bool(parts) and all(part.isidentifier() and not iskeyword(part) for part in parts)
    if match is None or not names or not _SCRIPT.fullmatch(name) or name in (".", ".."):
        raise Refused(f"its entry point {one_line(f'{name} = {value}', 200)!r} is no command")
    return Script(name, match["module"], match["attribute"])
