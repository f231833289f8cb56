"""What the commands that look into files print. All text is a stranger's: nothing reaches a terminal as it is."""

from __future__ import annotations

import json
import stat
import time
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import click

from hpcbinder.cli.output import human_size
from hpcbinder.text import one_line, printable

if TYPE_CHECKING:
    from hpcbinder.look import Change
    from hpcbinder.squashfs import Node

_TYPES = {
    "file": stat.S_IFREG,
    "directory": stat.S_IFDIR,
    "symlink": stat.S_IFLNK,
    "block": stat.S_IFBLK,
    "character": stat.S_IFCHR,
    "fifo": stat.S_IFIFO,
    "socket": stat.S_IFSOCK,
}


def listed(names: Iterable[tuple[str, Node]], *, long: bool) -> None:
    """A line for each name."""
    for name, node in names:
        click.echo(f"{_facts(node)} {_named(name, node)}" if long else printable(name))


def _facts(node: Node) -> str:
    size = f"{node.device[0]}, {node.device[1]}" if node.device else str(node.size)
    return (
        f"{stat.filemode(_TYPES[node.kind] | node.mode)} {node.nlink:3} {node.uid:5} {node.gid:5} {size:>11} "
        f"{_time(node.mtime)}"
    )


def _named(name: str, node: Node) -> str:
    return printable(name if node.target is None else f"{name} -> {node.target}")


def _time(seconds: int) -> str:
    try:
        return time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(seconds))
    except (OverflowError, ValueError, OSError):
        return str(seconds)


def changed(change: Change, *, as_json: bool) -> None:
    """One difference, on a line."""
    if as_json:
        whole = {"path": f"/{change.path}", "change": change.change, "what": change.what}
        click.echo(json.dumps(whole | {"before": _plain(change.before), "after": _plain(change.after)}))
        return
    path = printable(f"/{change.path}")
    if change.before is None or change.after is None:
        click.echo(f"{change.change:8} {path}")
        return
    details = [_detail(what, change.before, change.after) for what in change.what]
    click.echo(f"{change.change:8} {path}: {', '.join(details)}")


def _detail(what: str, before: Node, after: Node) -> str:
    if what in ("content", "xattrs"):
        sizes = f" ({before.size} -> {after.size} bytes)" if what == "content" and before.size != after.size else ""
        return f"{what}{sizes}"
    one, other = (_value(what, node) for node in (before, after))
    return f"{what} {printable(one)} -> {printable(other)}"


def _value(what: str, node: Node) -> str:
    values: Mapping[str, object] = {
        "kind": node.kind,
        "mode": f"{node.mode:04o}",
        "owner": f"{node.uid}:{node.gid}",
        "time": _time(node.mtime),
        "target": node.target,
        "device": node.device,
        "links": node.nlink,
    }
    return str(values[what])


def _plain(node: Node | None) -> dict[str, Any] | None:
    if node is None:
        return None
    return {
        "kind": node.kind,
        "mode": f"{node.mode:04o}",
        "uid": node.uid,
        "gid": node.gid,
        "mtime": node.mtime,
        "size": node.size,
        "links": node.nlink,
        "target": node.target,
        "device": list(node.device) if node.device else None,
        "xattrs": {key.decode("utf-8", "surrogateescape"): value.hex() for key, value in node.xattrs},
    }


def inspected(facts: Mapping[str, Any]) -> None:
    """The page of `inspect`."""
    _row("file", f"{facts['file']}  {human_size(facts['size'])}, {facts['format']}")
    if header := facts["sif"]:
        _row("architecture", header["architecture"])
        _row("uuid", header["uuid"])
        _row("created", _time(header["created"]))
        for item in header["objects"]:
            _row("object", _object(item))
    for signature in facts["signatures"]:
        _row(
            "signature", f"{signature['object']}, {signature['form']} key {signature['key'] or 'unknown'}, not verified"
        )
    if bill := facts["sbom"]:
        count = "" if bill["components"] is None else f", {bill['components']} components"
        _row("sbom", f"object {bill['object']}, {bill['format']}{count}")
    if facts["squashfs_problem"]:
        _row("squashfs", facts["squashfs_problem"])
    if image := facts["squashfs"]:
        options = ", ".join(f"{name} {value}" for name, value in image["options"].items())
        _row("compressor", image["compressor"] + (f" ({options})" if options else ""))
        _row("block size", human_size(image["block_size"]))
        _row("squashfs", f"{human_size(image['bytes'])} at offset {image['offset']}, of {_time(image['created'])}")
        _row("content", f"{human_size(image['content_bytes'])} in {human_size(image['data_bytes'])} of blocks")
        kinds = ", ".join(f"{count} {name}" for name, count in image["inodes"].items() if name != "total")
        _row("inodes", f"{image['inodes']['total']} ({kinds}), {image['names']} names")
        _row("tables", f"{image['fragments']} fragments, {image['owners']} owners, {image['xattrs']} sets of xattrs")
    if isinstance(manifest := facts["manifest"], dict):
        for key in ("source", "commit", "rebuild"):
            if isinstance(manifest.get(key), str):
                _row(key, manifest[key])
    for name, value in facts["labels"].items():
        _row("label", f"{name}: {value}")
    for title in ("definition", "runscript"):
        if facts[title]:
            _text(title, facts[title])
    for name, script in facts["environment"].items():
        _text(name, script)
    if facts["oci_config"]:
        _text("OCI configuration", json.dumps(facts["oci_config"], indent=1))


def _object(item: Mapping[str, Any]) -> str:
    text = f"{item['id']:3} {item['kind']}, {human_size(item['size'])} at offset {item['offset']}"
    if "partition" in item:
        text += f", {item['partition']}, {item['file_system']}"
    for key in ("digest", "format"):
        if item.get(key):
            text += f", {item[key]}"
    if item["link"] is not None:
        text += f", about {'group ' + str(item['link'][1]) if isinstance(item['link'], list) else item['link']}"
    return f"{text}  {item['name']}" if item["name"] else text


def _row(key: str, value: str) -> None:
    click.echo(f"{key:13} {one_line(value)}")


def _text(title: str, text: str) -> None:
    click.echo(f"{printable(title)}:")
    for line in text.splitlines():
        click.echo(f"  {printable(line)}")
