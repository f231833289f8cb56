"""What commands print on stdout: tables and pages for people, one object for machines."""

from __future__ import annotations

import re
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hpcbinder.contract import LABEL_PREFIX, LEVEL_LABEL, OWN_LEVEL
from hpcbinder.model import Entry, Lock, Python, to_json
from hpcbinder.text import day_of, printable

if TYPE_CHECKING:
    from rich.console import Console

    from hpcbinder.config import Setting
    from hpcbinder.converting import Conversion
    from hpcbinder.doctor import Diagnosis
    from hpcbinder.gc import Report
    from hpcbinder.statistics import Statistics
    from hpcbinder.warming import Warmed


def build_result(entry: Entry) -> dict[str, Any]:
    """The object that `build --json` prints (docs/cli.md)."""
    kernels = entry.registered
    return {
        "id": entry.id,
        "source": entry.source,
        "ref": entry.ref,
        "commit": entry.commit,
        "subdir": entry.subdir,
        "buildpacks": [pack.name for pack in entry.buildpacks],
        "image": to_json(entry.image),
        "formats": to_json(entry.formats),
        "kernels": [
            {"name": k.name, "path": k.path, "language": k.language, "display_name": k.display_name} for k in kernels
        ],
        "timings": to_json(entry.timings),
        "size": entry.size,
    }


def built(entry: Entry) -> None:
    """The page at the end of a build: what there is now and what can be done with it."""
    console = _console()
    total = sum(entry.timings.values())
    console.print(f"{entry.id}  {human_size(entry.size)}, {total:.1f} s", markup=False)
    for phase, seconds in entry.timings.items():
        console.print(f"  {phase:<9}{seconds:8.2f} s", markup=False)
    for name, path in entry.formats.items():
        console.print(f"  {name:<9}{path}", markup=False, soft_wrap=True)
    for kernel in entry.registered:
        console.print(f"  kernel   {kernel.name}  ({printable(kernel.display_name)})", markup=False, soft_wrap=True)
    for reference, digest in entry.pushed.items():
        console.print(f"  pushed   {reference}@{digest}", markup=False, soft_wrap=True)
    console.print(f"\nJupyterLab on it:  hpcbinder run {entry.id}", markup=False)


def convert_result(done: Conversion) -> dict[str, Any]:
    """The object that `convert --json` prints (docs/convert.md)."""
    return {
        "source": str(done.source),
        "name": done.name,
        "formats": {form: {"path": str(made.path), "size": made.size} for form, made in done.products.items()},
        "size": done.size,
        "layers": {"total": done.layers, "new": done.new_layers, "known": done.layers - done.new_layers},
        "compression": done.compression,
        "timings": done.timings,
    }


def converted(done: Conversion) -> None:
    """What `convert` made, a line each."""
    # Without what draws tables, which takes a while to import.
    layers = f"{done.layers} layer{'s' * (done.layers != 1)}, {done.new_layers} of them new"
    if not done.layers:
        layers = "layers as they are" if set(done.products) == {"oci"} else "blocks copied as they are"
    total = sum(done.timings.values())
    click.echo(f"{done.name}  {done.compression['name']}, {layers}, {total:.1f} s")
    for form, made in done.products.items():
        click.echo(f"  {form:<12} {human_size(made.size):>8}  {printable(str(made.path))}")


def image_table(entries: Sequence[Entry], store: Path) -> None:
    """One line per image."""
    console = _console()
    if not entries:
        console.print(f"no images in {printable(str(store))} yet: hpcbinder build SRC makes one", markup=False)
        return
    table = _table("ID", "SOURCE", "REF", "COMMIT", "SIZE", "CREATED", "KERNELS")
    for entry in entries:
        table.add_row(
            entry.id,
            _cell(entry.source + (f" ({entry.subdir})" if entry.subdir else "")),
            _cell(entry.ref if entry.ref != entry.commit else entry.ref[:10]),
            (entry.commit or "")[:10] + ("+" if entry.uncommitted else ""),
            human_size(entry.size),
            time.strftime("%Y-%m-%d %H:%M", time.localtime(entry.created)),
            str(len(entry.registered)),
        )
    _print(table)


def show(entry: Entry, *, packages: bool = False, verified: Mapping[str, str] | None = None) -> None:
    """Everything about one image.

    Args:
        packages: List all packages; else how many there are, and those that the repository asks for.
        verified: What the catalog keeps of `hpcbinder verify`.
    """
    kept = "committed" if entry.commit else "as the archive has them"
    files = "as they were in the folder, uncommitted" if entry.uncommitted else kept
    rows = [
        ("id", entry.id),
        ("source", entry.source + (f", folder {entry.subdir}" if entry.subdir else "")),
        ("ref", f"{entry.ref} ({files})"),
        ("commit", entry.commit or "none"),
        ("base", f"{entry.base.name}{_base_python(entry)}, {entry.base.architecture}"),
        *([("level", _LEVELS[level])] if (level := _level(entry)) in _LEVELS else []),
        *([("base image", entry.base.image)] if entry.base.image else []),
        *([("python", _python(entry.python))] if entry.python else []),
        *([("as of", day_of(entry.as_of) or "the newest versions")] if entry.as_of is not None else []),
        ("buildpacks", ", ".join(f"{p.name} {p.version} ({p.origin})" for p in entry.buildpacks)),
        ("image", f"{entry.image['name']}  {entry.image['digest']}"),
        ("built by", _builder(entry)),
        *([("parent", entry.parent)] if entry.parent else []),
        *([("added", ", ".join(entry.added))] if entry.added else []),
        ("layers", str(len(entry.config.diff_ids))),
        ("size", human_size(entry.size)),
        *([("compression", _compression(entry))] if entry.compression.get("name") else []),
        ("created", time.strftime("%Y-%m-%d %H:%M:%S %z", time.localtime(entry.created))),
        *([("verified", _verified(verified))] if verified else []),
    ]
    rows += [(name, path) for name, path in entry.formats.items()]
    rows += [("kernel", f"{k.display_name} ({k.name}, {k.language})") for k in entry.kernels]
    rows += [("registered", f"{k.name}  {k.path}") for k in entry.registered]
    rows += [("pushed", f"{reference}@{digest}") for reference, digest in entry.pushed.items()]
    rows += [("used" if d.used else "not used", f"{d.file}: {d.reason}") for d in entry.decisions]
    rows += [(f"{lock.ecosystem} lock", _lock(lock)) for lock in entry.locks]
    for ecosystem, found in entry.packages.items():
        asked = entry.asked.get(ecosystem, ())
        shown = [p for p in found if packages or _normal(p["name"]) in map(_normal, asked)]
        names = ", ".join(f"{p['name']} {p['version']}" for p in shown)
        rows.append((f"{ecosystem} packages", f"{len(found)}: {names}" if names else str(len(found))))
        if names and len(shown) < len(found):
            rows.append(("", f"and {len(found) - len(shown)} that came with them: show --packages"))
    table = _table("", "")
    table.show_header = False
    for key, value in rows:
        table.add_row(key, _cell(value))
    _print(table)


def _verified(found: Mapping[str, str]) -> str:
    created = found.get("created", "")
    when = time.strftime("%Y-%m-%d %H:%M", time.localtime(int(created))) if created.isdecimal() else "at some time"
    return f"{when}, network {found.get('network', '')}: {found.get('summary', '')}"


def _builder(entry: Entry) -> str:
    engine = entry.image.get("engine", "")
    if entry.parent:
        return "no engine: squashed packages merged on top of its parent"
    if engine != "none":
        return engine
    ran, by = entry.image.get("ran", ""), entry.image.get("ran_by", "")
    rest = f"; {ran} was run {f'by {by}' if by else 'for an image before'}" if ran else ""
    return f"no engine: assembled of squashed packages{rest}"


_LEVELS = {
    OWN_LEVEL: "dockerfile: made by the repository's own Dockerfile, which keeps a part of the image contract",
}
"""What an image keeps of the contract, if that is not all of it (docs/image-contract.md)."""


def _level(entry: Entry) -> str:
    return entry.config.labels.get(f"{LABEL_PREFIX}{LEVEL_LABEL}", "")


def _compression(entry: Entry) -> str:
    why = entry.compression.get("why")
    return f"{entry.compression['name']} ({why})" if why else entry.compression["name"]


def _base_python(entry: Entry) -> str:
    return f", Python {entry.base.python}" if entry.base.python else ""


def _python(python: Python) -> str:
    where = f"Debian {python.suite}" if python.origin == "debian" else python.source
    return f"{python.full} of {where}{f'  {python.digest}' if python.origin == 'folder' else ''}"


def _lock(lock: Lock) -> str:
    how = "resolved from the package index" if lock.origin == "resolved" else f"from {lock.origin}"
    built = f"; built: {', '.join(lock.unresolved)}" if lock.unresolved else ""
    return f"{len(lock.packages)} wheels, {how}, for {lock.platform}, Python {lock.python}{built}"


def swept(report: Report) -> None:
    """What `gc` removed, or would remove."""
    console = _console()
    verb = "would go" if report.dry_run else "removed"
    # Locks and choices are tiny files, of no interest one by one.
    if shown := [removed for removed in report.removed if removed.kind not in ("lock", "choice")]:
        table = _table(verb.upper(), "NAME", "SIZE", "WHY")
        for removed in shown:
            table.add_row(removed.kind, _cell(removed.name), human_size(removed.size), _cell(removed.reason))
        _print(table)
    for id_, reason in report.kept.items():
        console.print(f"kept {id_}: {printable(reason)}", markup=False, soft_wrap=True)
    tags = sum(1 for removed in report.removed if removed.kind == "tag")
    text = f"{verb}: {human_size(report.size)} of the store" if len(report.removed) > tags else "nothing of the store"
    console.print(f"{text}, {tags or 'no'} image{'s' if tags != 1 else ''} of the engine", markup=False)


def warmed_page(warmed: Warmed) -> None:
    """What `warm` squashed."""
    console = _console()
    table = _table("WHAT", "NEW", "THERE", "REFUSED", "FILE")
    for part in warmed.parts:
        table.add_row(
            _cell(part.what),
            *(str(number) for number in (part.new, part.there, len(part.refused))),
            _cell(part.file),
        )
    _print(table)
    for part in warmed.parts:
        if part.left:
            console.print(f"left out: {printable(part.what)} {printable(part.left)}", markup=False, soft_wrap=True)
        for package, reason in part.refused.items():
            text = f"refused: {printable(package or part.file)}: {printable(reason)}"
            console.print(text, markup=False, soft_wrap=True)
    totals = f"{warmed.new} new, {warmed.there} there already, {warmed.refused} refused"
    text = f"{totals}; {warmed.compression}, in {printable(str(warmed.store))}"
    console.print(text, markup=False, soft_wrap=True)


def statistics_page(found: Statistics, top: int) -> None:
    """What `stats` found: images, kinds of layers, packages."""
    from hpcbinder.statistics import KINDS

    console = _console()
    images = f"{found.images} image{'s' * (found.images != 1)}"
    rows = [
        (f"{images}, were each one SIF", found.alone),
        ("their files on disk", found.files),
        *(((f"  {form}", size)) for form, size in sorted(found.formats.items())),
        ("the different layers that they were made of", found.layers),
        ("layers that were squashed once for several images", found.saved),
    ]
    table = _table("", "")
    table.show_header = False
    for what, size in rows:
        table.add_row(what, human_size(size))
    reflinked = "not to be seen" if found.reflinked is None else human_size(found.reflinked)
    table.add_row("of the files: blocks that others have too (reflinks)", reflinked)
    _print(table)
    console.print()
    kinds = _table("KEPT", "FILES", "SIZE", "IN IMAGES", "SAVED")
    for name, kind in found.kinds.items():
        used = f"{kind.used} in {kind.uses} places" if kind.used else ""
        kinds.add_row(KINDS[name], str(kind.files), human_size(kind.size), used, human_size(kind.saved))
    _print(kinds)
    if shown := found.packages[:top]:
        console.print()
        packages = _table("PACKAGE", "VERSION", "IMAGES", "SIZE", "SAVED")
        for package in shown:
            sizes = (human_size(package.size), human_size(package.saved))
            packages.add_row(_cell(package.name), _cell(package.version), str(package.images), *sizes)
        _print(packages)
        if len(found.packages) > len(shown):
            console.print(f"and {len(found.packages) - len(shown)} more: --top says how many", markup=False)


def diagnosis(found: Diagnosis) -> None:
    """What `doctor` found: a table, and at the end whether that is enough."""
    console = _console()
    table = _table("", "", "STATUS", "FOUND", "WHAT TO DO")
    topic = ""
    for finding in found.findings:
        table.add_row(
            finding.topic if finding.topic != topic else "",
            _cell(finding.name),
            _status(finding.status.value),
            _cell(finding.found),
            _cell(finding.advice),
        )
        topic = finding.topic
    _print(table)
    for what, why in (("build", found.cannot_build), ("run", found.cannot_run)):
        console.print(f"{what}: {'not here: ' + why if why else 'yes'}", markup=False, soft_wrap=True)


def _status(text: str) -> Any:
    from rich.text import Text

    return Text(text, style={"ok": "green", "problem": "bold red", "missing": "yellow"}.get(text, ""))


def settings_table(settings: Sequence[Setting]) -> None:
    """One line per setting, with its origin."""
    table = _table("SETTING", "VALUE", "ORIGIN")
    for setting in settings:
        table.add_row(setting.key, _cell(_value(setting.value)), _cell(setting.origin))
    _print(table)


def human_size(size: int) -> str:
    """Bytes in binary units, three digits: `404 MiB`."""
    number = float(size)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if number < 1000:
            return f"{number:.3g} {unit}"
        number /= 1024
    return f"{number:.3g} TiB"


def _normal(name: str) -> str:
    """A package's name, however it is written (PEP 503; Debian's names are so already)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _value(value: object) -> str:
    if value is None:
        return "not set"
    if isinstance(value, dict):
        value = [f"{name}={text}" for name, text in value.items()]
    if isinstance(value, (tuple, list)):
        return " ".join(str(v) for v in value) or "none"
    return str(value)


def _cell(text: str) -> Any:
    from rich.text import Text

    return Text(printable(text))


def _print(table: Any) -> None:
    """A table as it is on a terminal; elsewhere without the blanks that fill its last column."""
    console = _console()
    if sys.stdout.isatty():
        console.print(table)
        return
    with console.capture() as capture:
        console.print(table)
    for line in capture.get().splitlines():
        sys.stdout.write(f"{line.rstrip()}\n")


def _table(*columns: str) -> Any:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        # Paths and ids are for copying: never cut, folded only on a terminal.
        table.add_column(column, overflow="fold")
    return table


def _console() -> Console:
    from rich.console import Console

    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else 10_000
    return Console(width=width, highlight=False, soft_wrap=False)
