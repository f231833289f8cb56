"""Show the configuration: for `hpcbinder config`, and as docs/config.md."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from hpcbinder.config.keys import SECTIONS, SITE_FILE, Config, specs
from hpcbinder.config.values import Spec, redact


@dataclass(frozen=True)
class Setting:
    """One line of `hpcbinder config`; credentials in URLs are not shown.

    Attributes:
        key: `section.key`.
        value: Text, a list of texts, a table of texts, or None for what is not set.
        origin: "default", "FILE:LINE", "environment NAME" or "flag".
        doc: One line.
    """

    key: str
    value: str | list[str] | dict[str, str] | None
    origin: str
    doc: str


def describe(config: Config) -> list[Setting]:
    """Every key with its value and origin, for `hpcbinder config`. Credentials in URLs are redacted."""
    settings = []
    for key, spec in specs().items():
        section, name = key.split(".")
        value = getattr(getattr(config, section), name)
        settings.append(Setting(key, _shown(value), config.origins.get(key, "default"), spec.doc))
    return settings


def _shown(value: Any) -> str | list[str] | dict[str, str] | None:
    if isinstance(value, Mapping):
        return {name: redact(str(text)) for name, text in value.items()}
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple):
        return [redact(str(text)) for text in value]
    return None if value is None else redact(str(value))


def markdown() -> str:
    """The text of docs/config.md, from the table of keys."""
    lines = [
        "# Configuration",
        "",
        "<!-- Written by `python -m hpcbinder.config`; edit hpcbinder/config/keys.py instead. -->",
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
    for name, cls in SECTIONS.items():
        lines += ["", f"## [{name}]", "", str(cls.__doc__).strip(), ""]
        for f in fields(cls):
            spec: Spec = f.metadata["spec"]
            lines.append(f"### {f.name}")
            lines += ["", spec.doc, "", f"- Type: {spec.kind}", f"- Default: {spec.default_doc or _toml(f.default)}"]
            variable = f"HPCBINDER_{name}_{f.name}".upper()
            separators = {",": "commas", ":": "colons", "\n": "newlines"}
            form = "`NAME=VALUE`s, " if spec.names else ""
            parted = f", {form}parted by {separators[spec.separator]}" if spec.separator else ""
            lines.append(f"- Environment: `{variable}`{parted}")
            if spec.usual:
                lines.append(f"- Also taken, if nothing else sets it: {', '.join(f'`{v}`' for v in spec.usual)}")
            lines.append("")
        lines.pop()
    return "\n".join(lines) + "\n"


def _toml(value: Any) -> str:
    if value is None:
        return "not set"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, tuple):
        return "`[" + ", ".join(f'"{v}"' for v in value) + "]`"
    return f'`"{value}"`'
