"""The configuration: one documented TOML file format, read from several places, each value's origin remembered.

From weakest to strongest: built-in default, the usual variables of other tools (`SSL_CERT_FILE`, `https_proxy`, …),
the site's file, the user's file, `HPCBINDER_SECTION_KEY` in the environment, flags. A stronger value replaces a weaker
one whole; lists are not joined. The dataclasses below are the only table of keys: `load`, `describe`
(`hpcbinder config`) and docs/config.md (`python -m hpcbinder.config`) all read it.
"""

from __future__ import annotations

import dataclasses
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hpcbinder.errors import UsageError

SITE_FILE = Path("/etc/hpcbinder/config.toml")
_FILE_LIMIT = 1 << 20


@dataclass(frozen=True)
class _Source:
    """Where a raw value came from, and what that means for reading it."""

    origin: str
    environ: Mapping[str, str]
    folder: Path
    splits: bool
    """True where the world only has strings (the environment): a list is then split from one."""

    def refuse(self, key: str, problem: str) -> UsageError:
        return UsageError(f"{key} {problem}", where=self.origin)


_Reader = Callable[[str, str, _Source], Any]
"""(key, text, source) -> value."""


@dataclass(frozen=True)
class _Spec:
    """One key: how its value is read, and what the documentation says about it."""

    kind: str
    doc: str
    read: _Reader
    optional: bool = False
    separator: str | None = None
    """Set for a list: what separates its elements in an environment variable."""
    usual: tuple[str, ...] = ()
    """Variables of other tools that are taken when nothing else sets the key, first one set wins."""
    default_doc: str | None = None


def _quoted(text: str) -> str:
    """A value as a message may show it: no credentials, no control characters, not endless."""
    shown = redact(text)
    return ascii(shown if len(shown) <= 80 else shown[:77] + "...")


def _text(pattern: str, what: str) -> _Reader:
    compiled = re.compile(pattern)

    def read(key: str, text: str, source: _Source) -> str:
        if not compiled.fullmatch(text):
            raise source.refuse(key, f"must be {what}, not {_quoted(text)}")
        return text

    return read


def _choice(*choices: str) -> _Reader:
    def read(key: str, text: str, source: _Source) -> str:
        if text not in choices:
            raise source.refuse(key, f"must be one of {', '.join(choices)}, not {_quoted(text)}")
        return text

    return read


_VARIABLE = re.compile(r"\$(?:\{(\w+)\}|(\w+))", re.ASCII)


def _expand(key: str, text: str, source: _Source) -> str:
    """Replace `$NAME`, `${NAME}` and a leading `~`: sites say "$SCRATCH/hpcbinder" once for all their users."""

    def value(match: re.Match[str]) -> str:
        name = match[1] or match[2]
        if not source.environ.get(name):
            raise source.refuse(key, f"needs the environment variable {name}, which is not set")
        return source.environ[name]

    expanded = _VARIABLE.sub(value, text)
    if expanded == "~" or expanded.startswith("~/"):
        home = source.environ.get("HOME") or os.path.expanduser("~")  # noqa: PTH111 (no exception without a home)
        expanded = home + expanded[1:]
    return expanded


def _path(key: str, text: str, source: _Source) -> Path:
    if not text:
        raise source.refuse(key, "must be a path, not empty")
    path = Path(os.path.normpath(source.folder / _expand(key, text, source)))
    if not path.is_absolute():
        raise source.refuse(key, f"must be an absolute path, not {_quoted(text)}")
    return path


_URL = r"https?://[^\s'\"\\<>`$]+"


def _proxy(key: str, text: str, source: _Source) -> str:
    # "proxy.site:3128" is common in the environment; apt and uv want the scheme.
    url = text if "://" in text else f"http://{text}"
    return str(_text(r"(https?|socks5h?)://[^\s'\"\\<>`$]+", "a proxy's URL")(key, url, source))


def _no_proxy(key: str, text: str, source: _Source) -> str:
    return str(_text(r"[^'\"\\<>`$;&|]*", "a list of hosts")(key, "".join(text.split()), source))


def _bind(key: str, text: str, source: _Source) -> str:
    expanded = _expand(key, text, source)
    # Apptainer splits its argument at commas, so a path with one cannot be bound.
    part = r"/[^:,\s\x00-\x1f\x7f]*"
    return str(_text(rf"{part}(:{part})?(:(ro|rw))?", "/SOURCE[:/TARGET[:ro|rw]]")(key, expanded, source))


def _compression(key: str, text: str, source: _Source) -> str:
    what = "gzip, gzip:1 to gzip:9, zstd, or zstd:1 to zstd:22"
    _text(r"gzip(:[1-9])?|zstd(:([1-9]|1[0-9]|2[0-2]))?", what)(key, text, source)
    return text


def _setting(spec: _Spec, default: Any = None, *, factory: Callable[[], Any] | None = None) -> Any:
    metadata = {"spec": spec}
    if factory is not None:
        return field(default_factory=factory, metadata=metadata)
    return field(default=default, metadata=metadata)


def _user_data() -> Path:
    import platformdirs

    path = platformdirs.user_data_path("hpcbinder")
    if not path.is_absolute():
        raise UsageError("no home folder to keep images in", hint="set HPCBINDER_STORE_PATH")
    return path


def _user_config() -> Path:
    import platformdirs

    return platformdirs.user_config_path("hpcbinder")


@dataclass(frozen=True)
class StoreConfig:
    """Where images are kept."""

    path: Path = _setting(
        _Spec(
            "path",
            "Folder of your images. Any shared file system with working fcntl locks (NFSv4, Lustre with flock, GPFS).",
            _path,
            default_doc="`~/.local/share/hpcbinder`",
        ),
        factory=_user_data,
    )
    site: tuple[Path, ...] = _setting(
        _Spec("list of paths", "Read-only stores below yours, whose images everybody can use.", _path, separator=":"),
        (),
    )


@dataclass(frozen=True)
class BuildConfig:
    """How images are made."""

    engine: str = _setting(
        _Spec('"auto" or "docker"', "What builds images; auto takes the one that is there.", _choice("auto", "docker")),
        "auto",
    )
    formats: tuple[str, ...] = _setting(
        _Spec(
            "list",
            "What an image is converted to: sif (Apptainer, Singularity), squashfs (Charliecloud, enroot), shifter.",
            _choice("sif", "squashfs", "shifter"),
            separator=",",
        ),
        ("sif", "squashfs"),
    )
    suite: str = _setting(
        _Spec(
            "text",
            "Debian suite of the base when the repository does not ask for a Python: bookworm (3.11), trixie (3.13).",
            _text(r"[a-z][a-z0-9-]*", "a Debian suite's name"),
        ),
        "bookworm",
    )
    compression: str = _setting(
        _Spec("text", "Compression of squashfs: gzip or zstd, with a level as in gzip:6.", _compression), "gzip"
    )
    dockerd: str | None = _setting(
        _Spec(
            "text",
            "Address of the Docker daemon, as in DOCKER_HOST; without it Docker's own default.",
            _text(r"unix:///[^\s\x00]+|(tcp|ssh|https?)://[^\s\x00-][^\s\x00]*", "unix:///…, tcp://… or ssh://…"),
            optional=True,
            usual=("DOCKER_HOST",),
        )
    )
    network: str = _setting(
        _Spec(
            '"host" or "default"',
            "Network of build steps; host reaches proxies and mirrors that listen on this machine's loopback.",
            _choice("host", "default"),
        ),
        "host",
    )


@dataclass(frozen=True)
class SiteConfig:
    """Mirrors, proxies and certificates, for the build only: none of it stays in an image."""

    apt_mirror: str | None = _setting(
        _Spec("URL", "Debian mirror instead of https://deb.debian.org/debian.", _text(_URL, "a URL"), optional=True)
    )
    apt_security_mirror: str | None = _setting(
        _Spec(
            "URL",
            "Mirror instead of https://deb.debian.org/debian-security.",
            _text(_URL, "a URL"),
            optional=True,
        )
    )
    pip_index_url: str | None = _setting(
        _Spec(
            "URL",
            "Python package index instead of https://pypi.org/simple.",
            _text(_URL, "a URL"),
            optional=True,
            usual=("UV_INDEX_URL", "PIP_INDEX_URL"),
        )
    )
    ca_certificates: Path | None = _setting(
        _Spec(
            "path",
            "PEM bundle of the certificate authorities to trust instead of the usual ones.",
            _path,
            optional=True,
            usual=("SSL_CERT_FILE",),
        )
    )
    http_proxy: str | None = _setting(
        _Spec("URL", "Proxy for http.", _proxy, optional=True, usual=("http_proxy", "HTTP_PROXY"))
    )
    https_proxy: str | None = _setting(
        _Spec("URL", "Proxy for https.", _proxy, optional=True, usual=("https_proxy", "HTTPS_PROXY"))
    )
    no_proxy: str | None = _setting(
        _Spec(
            "text",
            "Hosts reached without the proxy, separated by commas.",
            _no_proxy,
            optional=True,
            usual=("no_proxy", "NO_PROXY"),
        )
    )


@dataclass(frozen=True)
class RuntimeConfig:
    """How images are run."""

    name: str = _setting(
        _Spec(
            "text",
            "What runs images: auto (the first one there), apptainer (or Singularity), charliecloud, shifter, "
            "podman-hpc, docker.",
            _choice("auto", "apptainer", "charliecloud", "shifter", "podman-hpc", "docker"),
        ),
        "auto",
    )
    binds: tuple[str, ...] = _setting(
        _Spec(
            "list",
            "Host folders seen inside, `/SOURCE[:/TARGET[:ro|rw]]`; `$NAME` is replaced from the environment.",
            _bind,
            separator=",",
        ),
        (),
    )
    environment: tuple[str, ...] = _setting(
        _Spec(
            "list",
            "Host variables let through to the image (globs); everything else stays outside.",
            _text(r"[A-Za-z_*?][A-Za-z0-9_*?]*", "a variable's name or a glob of names"),
            separator=",",
        ),
        (
            "SLURM_*",
            "PMI_*",
            "PMIX_*",
            "PALS_*",
            "OMP_*",
            "CUDA_VISIBLE_DEVICES",
            "NVIDIA_VISIBLE_DEVICES",
            "ROCR_VISIBLE_DEVICES",
            "HIP_VISIBLE_DEVICES",
            "JPY_PARENT_PID",
            "JPY_SESSION_NAME",
            "LANG",
            "LC_*",
            "TERM",
            "TZ",
        ),
    )
    gpu: str = _setting(
        _Spec(
            '"auto", "nvidia", "rocm" or "none"',
            "GPU support; auto looks at the devices of the machine the image runs on.",
            _choice("auto", "nvidia", "rocm", "none"),
        ),
        "auto",
    )
    prologue: tuple[str, ...] = _setting(
        _Spec(
            "list",
            'Shell lines run on the host before the runtime, e.g. "module load apptainer".',
            _text(r"[^\x00-\x08\x0a-\x1f\x7f]*", "one line of shell"),
            separator="\n",
        ),
        (),
    )


@dataclass(frozen=True)
class BuildpacksConfig:
    """Where buildpacks come from, besides the built-in ones."""

    path: tuple[Path, ...] = _setting(
        _Spec(
            "list of paths",
            "Folders of buildpacks; a pack in a later folder replaces one of the same name.",
            _path,
            separator=":",
            default_doc='`["/etc/hpcbinder/buildpacks", "~/.config/hpcbinder/buildpacks"]`',
        ),
        factory=lambda: (SITE_FILE.parent / "buildpacks", _user_config() / "buildpacks"),
    )


@dataclass(frozen=True)
class KernelsConfig:
    """Where Jupyter kernels are registered."""

    prefix: Path | None = _setting(
        _Spec(
            "path",
            "Register kernels below PREFIX/share/jupyter/kernels instead of the user's own folder.",
            _path,
            optional=True,
        )
    )


@dataclass(frozen=True)
class Config:
    """The whole configuration; `Config()` is the built-in defaults alone.

    Attributes:
        origins: `section.key` -> "default", "FILE:LINE", "environment NAME" or "flag".
    """

    store: StoreConfig = field(default_factory=StoreConfig)
    build: BuildConfig = field(default_factory=BuildConfig)
    site: SiteConfig = field(default_factory=SiteConfig)
    runtime: RuntimeConfig = field(default_factory=RuntimeConfig)
    buildpacks: BuildpacksConfig = field(default_factory=BuildpacksConfig)
    kernels: KernelsConfig = field(default_factory=KernelsConfig)
    origins: Mapping[str, str] = field(default_factory=dict)


_SECTIONS: dict[str, type[Any]] = {
    "store": StoreConfig,
    "build": BuildConfig,
    "site": SiteConfig,
    "runtime": RuntimeConfig,
    "buildpacks": BuildpacksConfig,
    "kernels": KernelsConfig,
}


def _specs() -> dict[str, _Spec]:
    return {f"{name}.{f.name}": f.metadata["spec"] for name, cls in _SECTIONS.items() for f in dataclasses.fields(cls)}


@dataclass(frozen=True)
class Setting:
    """One line of `hpcbinder config`; credentials in URLs are not shown.

    Attributes:
        key: `section.key`.
        value: Text, a list of texts, or None for what is not set.
        origin: "default", "FILE:LINE", "environment NAME" or "flag".
        doc: One line.
    """

    key: str
    value: str | list[str] | None
    origin: str
    doc: str


# A login without a password is no secret to ssh; to http it may be a token.
_CREDENTIALS = re.compile(r"\b(?:(https?://)[^/?#\s]*|([a-z][a-z0-9+.-]*://)[^/?#\s:]*:\S*)@", re.IGNORECASE)


def redact(text: str) -> str:
    """`https://user:secret@host/` -> `https://***@host/`, wherever in the text it stands."""
    return _CREDENTIALS.sub(lambda match: f"{match[1] or match[2]}***@", text)


def load(
    flags: Mapping[str, object] | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    site_file: Path = SITE_FILE,
    user_file: Path | None = None,
) -> Config:
    """Read the configuration from all its places.

    Args:
        flags: `section.key` -> value from the command line; None as a value means "not given". A path is relative to
            the working directory.
        environ: The environment, `os.environ` when None.
        site_file: The site's TOML; need not exist.
        user_file: The user's TOML; need not exist. None: `config.toml` in the platform's config folder.

    Raises:
        UsageError: A file cannot be read or is not TOML, a key is unknown, a value cannot be meant.
    """
    environ = os.environ if environ is None else environ
    user_file = _user_config() / "config.toml" if user_file is None else user_file
    here = Path.cwd()
    strongest = {
        key: (raw, source)
        for key, raw, source in (
            *_from_usual(environ, here),
            *_from_file(site_file, environ),
            *_from_file(user_file, environ),
            *_from_environment(environ, here),
            *_from_flags(flags or {}, environ, here),
        )
    }
    # Only what counts is read: a person must be able to replace a site's "$SCRATCH/…" where SCRATCH is not set.
    values = {key: _read(key, raw, source) for key, (raw, source) in strongest.items()}
    parts = {}
    for name, cls in _SECTIONS.items():
        names = [f.name for f in dataclasses.fields(cls)]
        parts[name] = cls(**{n: values[f"{name}.{n}"] for n in names if f"{name}.{n}" in values})
    return Config(
        **parts, origins={key: strongest[key][1].origin if key in strongest else "default" for key in _specs()}
    )


def describe(config: Config) -> list[Setting]:
    """Every key with its value and origin, for `hpcbinder config`. Credentials in URLs are redacted."""
    settings = []
    for key, spec in _specs().items():
        section, name = key.split(".")
        value = getattr(getattr(config, section), name)
        shown = [redact(str(v)) for v in value] if isinstance(value, tuple) else None if value is None else str(value)
        settings.append(
            Setting(
                key, redact(shown) if isinstance(shown, str) else shown, config.origins.get(key, "default"), spec.doc
            )
        )
    return settings


_Raw = tuple[str, object, _Source]


def _from_usual(environ: Mapping[str, str], here: Path) -> Iterator[_Raw]:
    for key, spec in _specs().items():
        name = next((n for n in spec.usual if environ.get(n)), None)
        if name is not None:
            yield key, environ[name], _Source(f"environment {name}", environ, here, True)


def _from_environment(environ: Mapping[str, str], here: Path) -> Iterator[_Raw]:
    known = {f"HPCBINDER_{key.replace('.', '_').upper()}": key for key in _specs()}
    prefixes = tuple(f"HPCBINDER_{section.upper()}_" for section in _SECTIONS)
    for name in sorted(environ):
        if name in known:
            yield known[name], environ[name], _Source(f"environment {name}", environ, here, True)
        elif name.startswith(prefixes):
            raise UsageError("no such setting", where=f"environment {ascii(name)[1:-1]}", hint=_closest(name, known))


def _from_flags(flags: Mapping[str, object], environ: Mapping[str, str], here: Path) -> Iterator[_Raw]:
    for key, value in flags.items():
        if key not in _specs():
            raise KeyError(key)
        if value is not None:
            yield key, value, _Source("flag", environ, here, False)


def _from_file(path: Path, environ: Mapping[str, str]) -> Iterator[_Raw]:
    text = _file_text(path)
    if text is None:
        return
    table = _parse(text, path)
    specs = _specs()
    for section, content in table.items():
        if section not in _SECTIONS:
            where = _where(path, text, (section,))
            raise UsageError(f"no such section: {_quoted(section)}", where=where, hint=_closest(section, _SECTIONS))
        if not isinstance(content, dict):
            raise UsageError(f"{section} is a section: write [{section}]", where=_where(path, text, (section,)))
        for name, value in content.items():
            where = _where(path, text, (section, name))
            key = f"{section}.{name}"
            if key not in specs:
                names = [k.partition(".")[2] for k in specs if k.startswith(f"{section}.")]
                raise UsageError(f"no such key: {_quoted(key)}", where=where, hint=_closest(name, names))
            yield key, value, _Source(where, environ, Path(os.path.abspath(path)).parent, False)  # noqa: PTH100


def _file_text(path: Path) -> str | None:
    try:
        with path.open("rb") as file:
            raw = file.read(_FILE_LIMIT + 1)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise UsageError(f"cannot be read: {reason}", where=ascii(str(path))[1:-1]) from error
    if len(raw) > _FILE_LIMIT:
        raise UsageError("is larger than 1 MiB: not a configuration", where=str(path))
    for number, line in enumerate(raw.split(b"\n"), 1):
        if b"\0" in line:
            raise UsageError("holds a NUL byte", where=f"{path}:{number}")
    try:
        return raw.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        line_number = raw.count(b"\n", 0, error.start) + 1
        raise UsageError("is not UTF-8", where=f"{path}:{line_number}") from error


def _loads(text: str) -> dict[str, Any]:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib  # type: ignore[import-not-found, unused-ignore]
    table: dict[str, Any] = tomllib.loads(text)
    return table


def _parse(text: str, path: Path) -> dict[str, Any]:
    try:
        return _loads(text)
    except RecursionError as error:
        raise UsageError("is nested too deeply", where=str(path)) from error
    except ValueError as error:
        # tomllib says "… (at line 2, column 5)" or "… (at end of document)".
        message, line = str(error), text.count("\n") + (not text.endswith("\n"))
        if match := re.search(r" \(at line (\d+), column \d+\)$", message):
            message, line = message[: match.start()], int(match[1])
        message = message.removesuffix(" (at end of document)")
        raise UsageError(f"is not TOML: {message}", where=f"{path}:{max(line, 1)}") from error


def _where(path: Path, text: str, keys: tuple[str, ...]) -> str:
    """`path:line` of a key that the parsed file has, or `path` where no line can be told.

    tomllib keeps no positions. A line that looks right is the one if the text before it parses without the key
    (so it is not inside a multi-line string) and the file up to the line's value has it.
    """
    last = re.compile(rf"""(.*[.{{,\s\["'])?{re.escape(keys[-1])}["']?\s*[=.\]]""")
    lines = text.split("\n")
    for number, line in enumerate(lines, 1):
        if last.match(line) and _lacks("\n".join(lines[: number - 1]), keys):
            return f"{path}:{number}"
    return str(path)


def _lacks(text: str, keys: tuple[str, ...]) -> bool:
    try:
        table: Any = _loads(text)
    except (ValueError, RecursionError):
        return False
    for key in keys:
        if not isinstance(table, dict) or key not in table:
            return True
        table = table[key]
    return False


def _read(key: str, raw: object, source: _Source) -> Any:
    spec = _specs()[key]
    if spec.separator is None:
        text = _string(key, raw, source)
        if spec.optional and not text.strip():
            return None
        return spec.read(key, text, source)
    if isinstance(raw, str) and source.splits:
        raw = [part.strip() for part in raw.split(spec.separator) if part.strip()]
    if not isinstance(raw, (list, tuple)):
        raise source.refuse(key, f"must be a list, not {_type(raw)}")
    return tuple(dict.fromkeys(spec.read(key, _string(key, item, source), source) for item in raw))


def _string(key: str, raw: object, source: _Source) -> str:
    if isinstance(raw, Path):
        raw = str(raw)
    if not isinstance(raw, str):
        raise source.refuse(key, f"must be text in quotes, not {_type(raw)}")
    if "\0" in raw:
        raise source.refuse(key, "holds a NUL byte")
    return raw


def _type(raw: object) -> str:
    names = {bool: "true or false", int: "a number", float: "a number", dict: "a table", list: "a list", str: "text"}
    return names.get(type(raw), "a date or time")


def _closest(name: str, known: Any) -> str:
    import difflib

    close = difflib.get_close_matches(name, list(known), n=1)
    return f"did you mean {close[0]}?" if close else f"known: {', '.join(known)}"


def markdown() -> str:
    """The text of docs/config.md, from the table of keys."""
    lines = [
        "# Configuration",
        "",
        "<!-- Written by `python -m hpcbinder.config`; edit hpcbinder/config.py instead. -->",
        "",
        "hpcbinder runs without any configuration. What a site or a person wants otherwise goes into a TOML file;",
        "`hpcbinder config` shows every value and where it came from. From weakest to strongest:",
        "",
        "1. the defaults below,",
        "2. variables of other tools, where a key names them,",
        f"3. the site's file, `{SITE_FILE}`,",
        "4. your file, `~/.config/hpcbinder/config.toml` (below `$XDG_CONFIG_HOME` if that is set),",
        "5. the environment: `HPCBINDER_BUILD_ENGINE=docker` for `engine` of `[build]`,",
        "6. flags of the command.",
        "",
        "A stronger value replaces a weaker one whole: lists are not joined. An empty text unsets what may be unset.",
        "In paths and binds, `~` and `$NAME` are replaced; a relative path is relative to the folder of its file",
        "(to the working directory in the environment and in flags). A key that does not exist is an error, and so is",
        "an `HPCBINDER_SECTION_…` variable that is none of them.",
        "",
        "```toml",
        "# /etc/hpcbinder/config.toml of a site with a proxy, a mirror and a shared store",
        "[store]",
        'path = "$SCRATCH/hpcbinder"',
        'site = ["/sw/hpcbinder/store"]',
        "",
        "[site]",
        'https_proxy = "http://proxy.example.org:3128"',
        'apt_mirror = "https://mirror.example.org/debian"',
        'ca_certificates = "/etc/ssl/certs/ca-certificates.crt"',
        "",
        "[runtime]",
        'prologue = ["module load apptainer"]',
        'binds = ["/scratch", "/projects:/projects:ro"]',
        "```",
    ]
    for name, cls in _SECTIONS.items():
        lines += ["", f"## [{name}]", "", str(cls.__doc__).strip(), ""]
        for f in dataclasses.fields(cls):
            spec: _Spec = f.metadata["spec"]
            lines.append(f"### {f.name}")
            lines += ["", spec.doc, "", f"- Type: {spec.kind}", f"- Default: {spec.default_doc or _toml(f.default)}"]
            variable = f"HPCBINDER_{name}_{f.name}".upper()
            separators = {",": "commas", ":": "colons", "\n": "newlines"}
            parted = f", parted by {separators[spec.separator]}" if spec.separator else ""
            lines.append(f"- Environment: `{variable}`{parted}")
            if spec.usual:
                lines.append(f"- Also taken, if nothing else sets it: {', '.join(f'`{v}`' for v in spec.usual)}")
            lines.append("")
        lines.pop()
    return "\n".join(lines) + "\n"


def _toml(value: Any) -> str:
    if value is None:
        return "not set"
    if isinstance(value, tuple):
        return "`[" + ", ".join(f'"{v}"' for v in value) + "]`"
    return f'`"{value}"`'


if __name__ == "__main__":
    print(markdown(), end="")
