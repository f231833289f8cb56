"""requirements.txt, line by line: what pip allows there, split into what uv may get and what is refused.

The format is pip's ("Requirements File Format" in its documentation; `pip/_internal/req/req_file.py`), except that
nothing is taken from outside the repository but https URLs: no `${VARIABLE}` (pip and uv would put the builder's
environment into URLs), no path out of the tree, no credentials.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

from packaging.requirements import InvalidRequirement, Requirement

from hpcbinder.plan import DetectError, Repo, show

MAX_DEPTH = 20
"""Files that may include one another."""

_OPTION = re.compile(r"(?P<name>--[a-z][a-z0-9-]*|-[a-zA-Z])(?:\s*=\s*|\s+)?(?P<value>.*)\Z", re.DOTALL)
_HASH = re.compile(r"--hash=(?P<value>(sha256|sha384|sha512):[0-9a-fA-F]+)\Z")
_PATH = re.compile(r"[\w.+@][\w./+@-]*\Z")
_EXTRAS = re.compile(r"\[[^\[\]]*\]\Z")
_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?\Z")
_ARCHIVES = (".whl", ".tar.gz", ".zip", ".tar.bz2", ".tgz", ".tar.xz")
_BINARY_VALUE = re.compile(r"(:all:|:none:|[A-Za-z0-9._-]+)(,(:all:|:none:|[A-Za-z0-9._-]+))*\Z")

_INDEXES = ("--index-url", "--extra-index-url", "--find-links")
_LONG = {"-r": "--requirement", "-c": "--constraint", "-e": "--editable", "-i": "--index-url", "-f": "--find-links"}
_IGNORED = {
    "--prefer-binary": "wheels are preferred anyway",
    "--require-hashes": "hashes are checked on the lines that have them",
    "--trusted-host": "certificates are always checked",
    "--use-pep517": "it is always so",
    "--use-feature": "it is pip's own",
}


@dataclass(frozen=True)
class Local:
    """A project inside the repository.

    Attributes:
        path: Its folder or archive below the root, "" for the root.
        extras: Extras asked for.
        editable: Asked for with `-e`.
        where: `file:line` that asks.
    """

    path: str
    extras: tuple[str, ...]
    editable: bool
    where: str

    @property
    def extras_text(self) -> str:
        """`[a,b]`, or ""."""
        return f"[{','.join(self.extras)}]" if self.extras else ""

    @property
    def is_archive(self) -> bool:
        """It is a file to install, not a folder."""
        return self.path.endswith(_ARCHIVES)


@dataclass
class Requirements:
    """What one or more requirements files ask for.

    Attributes:
        lines: Requirements for the index and for https URLs, with their hashes.
        constraints: Lines of constraints files.
        options: Index options.
        locals: Projects inside the repository.
        files: File read -> what was made of it.
        prereleases: `--pre` was said.
        no_binary: Names (`:all:` for every one) that must not be taken as wheels.
        base: Folder below the root that paths of projects start at.
    """

    lines: list[str] = field(default_factory=list)
    constraints: list[str] = field(default_factory=list)
    options: list[str] = field(default_factory=list)
    locals: list[Local] = field(default_factory=list)
    files: dict[str, str] = field(default_factory=dict)
    prereleases: bool = False
    no_binary: set[str] = field(default_factory=set)
    base: str = ""

    def text(self, *, sources: bool) -> str:
        """A requirements file for uv.

        Args:
            sources: Also the lines that need something to be built (git, source archives).
        """
        lines = self.lines if sources else self.wheels
        return "".join(f"{line}\n" for line in (*self.options, *lines))

    @property
    def wheels(self) -> list[str]:
        """The lines that can be had without building anything, if the index has a wheel."""
        return [line for line in self.lines if not _needs_build(line)]

    @property
    def from_index(self) -> list[str]:
        """The lines that name something on the index, with their hashes."""
        return [line for line in self.lines if not _url(line)]

    @property
    def plain_constraints(self) -> list[str]:
        """The constraints that name something on the index."""
        return [line for line in self.constraints if not _url(line)]

    @property
    def elsewhere(self) -> set[str]:
        """Normalised names of what is not to be taken as a wheel from the index, as far as they are known."""
        urls = [line for line in (*self.lines, *self.constraints) if _url(line)]
        return {*filter(None, map(_url_name, urls)), *self.no_binary}

    @property
    def has_sources(self) -> bool:
        """Something comes from a URL."""
        return any(map(_url, (*self.lines, *self.constraints)))

    @property
    def builds_all(self) -> bool:
        """Nothing at all may be taken as a wheel."""
        return ":all:" in self.no_binary

    @property
    def has_indexes(self) -> bool:
        """The repository names an index of its own."""
        return any(line.startswith(_INDEXES) for line in self.options)

    @property
    def has_extra_index(self) -> bool:
        """It names one besides the site's."""
        return any(line.startswith("--extra-index-url") for line in self.options)

    def add(self, lines: Iterable[str], indexes: Iterable[str]) -> None:
        """Add what something else depends on: requirement lines, and URLs of indexes besides the site's."""
        self.lines.extend(line for line in lines if line not in self.lines)
        options = (f"--extra-index-url {url}" for url in indexes)
        self.options.extend(option for option in options if option not in self.options)


def read_requirements(repo: Repo, path: str) -> Requirements:
    """Read a requirements file and those it includes.

    Raises:
        DetectError: A line that is not understood or not allowed, with file and line.
    """
    found = Requirements()
    _read(repo, path, found, constraint=False, above=())
    return found


def read_lines(repo: Repo, path: str, text: str) -> Requirements:
    """Read the requirements that stand in a file of another kind, and the files that they include.

    Paths in them start at that file's folder, where conda runs pip (conda, `conda/env/installers/pip.py`); those in a
    requirements.txt start at the repository's root, where repo2docker does.

    Args:
        path: That file.
        text: The lines, at their numbers.

    Raises:
        DetectError: A line that is not understood or not allowed, with file and line.
    """
    found = Requirements(base=posixpath.dirname(path))
    _take(repo, path, text, found, constraint=False, above=())
    return found


def clean_requirement(text: str, where: str, *, base: str = "") -> str | Local:
    """Check one requirement without options.

    Args:
        base: Folder that its paths start at, below the root.

    Returns:
        The line for uv, or the project inside the repository it means (path not looked up yet).

    Raises:
        DetectError: Not a requirement, or one that is not allowed.
    """
    _check_characters(text, where)
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", text) or re.match(r"[a-z]+\+[a-z]+:", text):
        return _url_line(text, where)
    if text.startswith("file:"):
        return _local(text[len("file:") :], where, editable=False, base=base)
    if _looks_local(text):
        return _local(text, where, editable=False, base=base)
    try:
        requirement = Requirement(text)
    except InvalidRequirement as error:
        raise _bad(f"is not a requirement: {show(str(error).splitlines()[0])}", where, _spelling(text)) from None
    except RecursionError:
        raise _bad("is nested too deep", where) from None
    if requirement.url is None:
        return _canonical(requirement)
    if requirement.url.startswith("file:"):
        if requirement.marker is not None:
            raise _bad("has a marker on a path, which is not supported", where)
        local = _local(requirement.url[len("file:") :], where, editable=False, base=base)
        return Local(local.path, tuple(sorted(requirement.extras)), False, where)
    _check_url(requirement.url, where)
    return _canonical(requirement)


def local_project(repo: Repo, path: str, where: str, *, editable: bool) -> Local:
    """A folder or an archive of the repository that something names.

    Raises:
        DetectError: It is outside, or not there.
    """
    _check_characters(path, where)
    return _look_up(repo, _local(path, where, editable=editable))


def check_index(url: str, where: str) -> None:
    """Check the URL of an index.

    Raises:
        DetectError: Not https, with credentials, or malformed.
    """
    if "${" in url:
        _check_characters(url, where)
    _check_url(url, where, schemes=("https",))


def requirement_name(line: str) -> str:
    """Name of the package a cleaned line asks for, "" for a bare URL."""
    match = re.match(r"([A-Za-z0-9][A-Za-z0-9._-]*)(?!\S*://)", line)
    return _normal(match[1]) if match and not re.match(r"\S+://", line) else ""


def _canonical(requirement: Requirement) -> str:
    """A requirement as text, the same for every version of packaging: it is part of a plan's identity."""
    extras = f"[{','.join(sorted(requirement.extras))}]" if requirement.extras else ""
    what = f" @ {requirement.url}" if requirement.url else ",".join(sorted(str(spec) for spec in requirement.specifier))
    marker = f" ; {requirement.marker}" if requirement.marker else ""
    return f"{requirement.name}{extras}{what}{marker}"


def _read(repo: Repo, path: str, found: Requirements, *, constraint: bool, above: tuple[str, ...]) -> None:
    name = show(path)
    if len(above) >= MAX_DEPTH:
        raise DetectError(f"more than {MAX_DEPTH} files include one another", where=name)
    key = f"{path} as constraints" if constraint else path
    if key in found.files or path in found.files:
        return
    _take(repo, path, repo.read_text(path, utf16=True), found, constraint=constraint, above=above)


def _take(repo: Repo, path: str, text: str, found: Requirements, *, constraint: bool, above: tuple[str, ...]) -> None:
    name = show(path)
    found.files[path] = ""
    before = len(found.lines) + len(found.constraints) + len(found.locals)
    notes: list[str] = []
    for number, line in _logical_lines(text):
        where = f"{name}:{number}"
        _check_characters(line, where)
        if line.startswith("-"):
            _option(repo, path, line, where, found, notes, constraint=constraint, above=above)
            continue
        requirement, hashes = _split_hashes(line, where)
        cleaned = clean_requirement(requirement, where, base=found.base)
        if isinstance(cleaned, Local):
            if constraint:
                raise _bad("a path cannot be a constraint", where)
            found.locals.append(_look_up(repo, cleaned))
        else:
            target = found.constraints if constraint else found.lines
            target.append(" ".join((cleaned, *hashes)))
    count = len(found.lines) + len(found.constraints) + len(found.locals) - before
    what = "constraints" if constraint else "requirements"
    found.files[path] = "; ".join((f"{count} {what[:-1] if count == 1 else what}", *notes))


def _logical_lines(text: str) -> Iterator[tuple[int, str]]:
    """Lines with continuations joined and comments removed, as pip's `join_lines` and `ignore_comments`."""
    begun, parts = 0, []
    for number, line in enumerate(text.split("\n"), start=1):
        comment = line.lstrip().startswith("#")
        if line.endswith("\\") and not comment:
            begun = begun or number
            parts.append(line.rstrip("\\"))
            continue
        parts.append(f" {line}" if comment else line)
        joined = _without_comment("".join(parts))
        if joined:
            yield begun or number, joined
        begun, parts = 0, []
    joined = _without_comment("".join(parts))
    if joined:
        yield begun, joined


def _without_comment(line: str) -> str:
    """The line up to a `#` that begins a word. (No regular expression: one would take ages for a line of blanks.)"""
    at = line.find("#")
    while at > 0 and not line[at - 1].isspace():
        at = line.find("#", at + 1)
    return line.strip() if at < 0 else line[:at].strip()


def _check_characters(line: str, where: str) -> None:
    if re.search(r"[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]", line):
        raise _bad("has control characters", where)
    if "${" in line:
        raise _bad("has ${…}, which would take something from the environment of whoever builds", where, "write it out")


def _split_hashes(line: str, where: str) -> tuple[str, list[str]]:
    match = re.search(r"\s-{1,2}[A-Za-z]", line)
    if match is None:
        return line, []
    words = line[match.start() :].replace("--hash ", "--hash=").split()
    hashes = []
    for word in words:
        found = _HASH.match(word)
        if found is None:
            raise _bad(f"has the option {show(word.partition('=')[0])}, which is not supported", where)
        hashes.append(f"--hash={found['value'].lower()}")
    return line[: match.start()].strip(), hashes


def _option(
    repo: Repo,
    path: str,
    line: str,
    where: str,
    found: Requirements,
    notes: list[str],
    *,
    constraint: bool,
    above: tuple[str, ...],
) -> None:
    match = _OPTION.match(line)
    if match is None:
        raise _bad(f"has the option {show(line.split()[0])}, which is not supported", where)
    name, value = _LONG.get(match["name"], match["name"]), match["value"].strip()
    if len(value) > 1 and value[0] == value[-1] and value[0] in "\"'":
        value = value[1:-1]
    if name in ("--requirement", "--constraint"):
        included = _included(repo, path, value, where)
        _read(repo, included, found, constraint=constraint or name == "--constraint", above=(*above, path))
    elif name == "--editable":
        found.locals.extend(_editable(repo, value, where, found))
    elif name in _INDEXES:
        _check_url(value, where, schemes=("https",))
        option = f"{name} {value}"
        if option not in found.options:
            found.options.append(option)
        notes.append(f"packages also from {show(value)}, so that the build finds the versions")
    elif name in ("--no-binary", "--only-binary"):
        if not _BINARY_VALUE.match(value):
            raise _bad(f"{name} needs names of packages", where)
        found.options.append(f"{name} {value}")
        if name == "--no-binary":
            names = value.split(",")
            # As pip has it: `:none:` takes back what was said before.
            kept = set() if ":none:" in names else found.no_binary
            found.no_binary = kept | {_normal(name) for name in names if name != ":none:"}
    elif name == "--pre" and not value:
        found.prereleases = True
    elif name in _IGNORED:
        notes.append(f"{name} is ignored: {_IGNORED[name]}")
    else:
        raise _bad(f"has the option {show(match['name'])}, which is not supported", where)


def _included(repo: Repo, path: str, value: str, where: str) -> str:
    if re.match(r"[a-z]+:", value):
        raise _bad("includes a file from elsewhere", where, "put the file into the repository")
    included = posixpath.normpath(posixpath.join(posixpath.dirname(path), value))
    if not value or included.startswith(("/", "../")) or included == "..":
        raise _bad(f"includes {show(value)}, which is outside the repository", where)
    if repo.tree.kind(included) not in ("file", "symlink"):
        # A folder on the way may be a symlink.
        if repo.tree.kind(included) is not None or not _exists(repo, included):
            raise _bad(f"includes {show(value)}, which is no file of the repository", where)
        included = repo.resolve(included)
    return included


def _exists(repo: Repo, path: str) -> bool:
    try:
        return repo.is_file(repo.resolve(path))
    except DetectError:
        return False


def _editable(repo: Repo, value: str, where: str, found: Requirements) -> list[Local]:
    if re.match(r"[a-z]+\+[a-z]+:", value) or "://" in value:
        # A clone left in the image serves nobody: it is installed like any other package.
        found.lines.append(_url_line(value, where))
        return []
    path = value[len("file:") :] if value.startswith("file:") else value
    return [_look_up(repo, _local(path, where, editable=True, base=found.base))]


def _looks_local(text: str) -> bool:
    bare = text.partition("[")[0].partition(";")[0].strip()
    if bare.startswith((".", "/", "~", "\\")):
        return True
    if "@" in bare or re.search(r"[<>=!~\s]", bare):
        return False
    return "/" in bare or "\\" in bare or bare.lower().endswith(_ARCHIVES)


def _local(text: str, where: str, *, editable: bool, base: str = "") -> Local:
    path, bracket, rest = text.strip().partition("[")
    path, extras = path.rstrip(), bracket + rest
    if ";" in path or (extras and not _EXTRAS.match(extras)):
        raise _bad("has a marker or something else behind a path, which is not supported", where)
    normal = posixpath.normpath(posixpath.join(base, path or "."))
    if path.startswith(("/", "~", "\\")) or normal == ".." or normal.startswith("../"):
        raise _bad(f"names {show(path)}, which is outside the repository", where)
    if normal != "." and not _PATH.match(normal):
        raise _bad(f"names a path with characters that are not supported: {show(path)}", where)
    names = tuple(sorted({name.strip() for name in extras.strip("[]").split(",") if name.strip()}))
    if bad := [name for name in names if not _NAME.match(name)]:
        raise _bad(f"'{show(bad[0])}' is not the name of an extra", where)
    return Local("" if normal == "." else normal, names, editable, where)


def _look_up(repo: Repo, local: Local) -> Local:
    path = local.path
    if repo.tree.kind(path) == "symlink" or (path and repo.tree.kind(path) is None and _reachable(repo, path)):
        path = repo.resolve(path)
    if local.editable and local.is_archive:
        raise _bad("an archive cannot be editable", local.where)
    if not (repo.is_file(path) if local.is_archive else repo.is_dir(path)):
        raise _bad(f"names {show(local.path)}, which is not in the repository", local.where)
    return Local(path, local.extras, local.editable, local.where)


def _reachable(repo: Repo, path: str) -> bool:
    try:
        repo.resolve(path)
    except DetectError as error:
        if "leaves" in error.message:
            raise
        return False
    return True


def _url_line(text: str, where: str) -> str:
    """Check a bare URL; one with `#egg=name` gets its name in front, as PEP 508 has it."""
    url, semicolon, marker = text.replace("\t;", " ;").partition(" ;")
    url, marker = url.strip(), f"; {marker.strip()}" if semicolon else ""
    _check_url(url, where)
    base, _, fragment = url.partition("#")
    parts = [part for part in fragment.split("&") if part]
    egg = next((part[4:] for part in parts if part.startswith("egg=")), "")
    rest = [part for part in parts if not part.startswith("egg=")]
    url = base + (f"#{'&'.join(rest)}" if rest else "")
    line = f"{egg} @ {url}" if egg else url
    if egg:
        try:
            Requirement(f"{line} {marker}")
        except InvalidRequirement as error:
            raise _bad(f"is not a requirement: {show(str(error).splitlines()[0])}", where) from None
    return f"{line} {marker}" if marker else line


def _check_url(url: str, where: str, *, schemes: tuple[str, ...] = ("https", "git+https")) -> None:
    if re.search(r"[^\x21-\x7e]|[\"'<>\\^`{|}]", url) or re.search(r"[\x00-\x20\x7f]", unquote(url)):
        raise _bad("has a URL with characters that do not belong there", where)
    try:
        parts = urlsplit(url)
        host, user = parts.hostname, parts.username
    except ValueError:
        raise _bad("has a malformed URL", where) from None
    if parts.scheme not in schemes:
        way = {"git+ssh": "use git+https://", "http": "use https://", "git+http": "use git+https://"}
        hint = way.get(parts.scheme, f"what works is {' and '.join(f'{scheme}://' for scheme in schemes)}")
        raise _bad(f"has a URL of the kind '{show(parts.scheme or url)}', which is not supported", where, hint)
    if user is not None or parts.password is not None or "@" in parts.netloc:
        raise _bad("has credentials in a URL", where, "they would be public in the image; name a public source")
    if not host or host.startswith("-"):
        raise _bad("has a URL without a host", where)
    if "@-" in parts.path:
        raise _bad("has a URL whose revision could be an option", where)


def _url(line: str) -> str:
    """The URL that a cleaned line names, "" for one that names something on the index."""
    match = re.search(r"(?:^|@\s*)((?:git\+)?https://\S+)", line)
    return match[1] if match else ""


def _url_name(line: str) -> str:
    """Normalised name of what a line with a URL installs, "" if only building it would tell."""
    name = requirement_name(line)
    file = _url(line).partition("#")[0].rpartition("/")[2]
    return name or (_normal(unquote(file).partition("-")[0]) if file.endswith(".whl") else "")


def _needs_build(line: str) -> bool:
    """The line cannot be had as a wheel."""
    url = _url(line)
    return bool(url) and not url.partition("#")[0].endswith(".whl")


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _spelling(text: str) -> str | None:
    if re.match(r"[A-Za-z0-9._-]+=[^=]", text):
        return "that is conda's way; write name==version"
    if text.startswith(("pip ", "conda ", "apt")):
        return "one requirement on a line, no commands"
    return None


def _bad(message: str, where: str, hint: str | None = None) -> DetectError:
    return DetectError(message, where=where, hint=hint)
