"""`hpcbinder inspect`, `ls`, `cat`, `extract`, `diff` and `check`: looking into image files."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import click

from hpcbinder.cli.completion import complete_file_or_id
from hpcbinder.cli.session import Session
from hpcbinder.errors import CatalogError, ConvertError, UsageError

if TYPE_CHECKING:
    from hpcbinder.squashfs import Image, Node

DIFFER = 11
"""Exit code of `diff` that says the images differ; diff(1) has 1, which is a bug here."""

_FILE = click.argument("file", metavar="FILE", shell_complete=complete_file_or_id)


@click.command("inspect")
@_FILE
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--sbom", is_flag=True, help="Print the bill of materials in it, as it is, and nothing else.")
@click.pass_obj
def inspect_command(session: Session, file: str, as_json: bool, sbom: bool) -> None:
    """Explain FILE, a SIF or a squashfs image (or an ID): header, objects, compression, what is in it, its labels,
    environment and run script."""
    from hpcbinder.cli.filepages import inspected
    from hpcbinder.look import inspect, stored_sbom

    if sbom:
        _write(io.BytesIO(stored_sbom(_path(session, file))))
        return
    facts = inspect(_path(session, file))
    if as_json:
        click.echo(json.dumps(facts))
    else:
        inspected(facts)


@click.command("ls")
@_FILE
@click.argument("path", metavar="[PATH]", default="/")
@click.option("-l", "long", is_flag=True, help="Show mode, owner, size and time.")
@click.option("-R", "recursive", is_flag=True, help="Go into folders.")
@click.pass_obj
def ls_command(session: Session, file: str, path: str, long: bool, recursive: bool) -> None:
    """List what is at PATH inside FILE (an image, or an ID)."""
    from hpcbinder.cli.filepages import listed

    with _image(session, file) as image:
        listed(_names(image, _located(image, path, last=not long), recursive), long=long)


@click.command("cat")
@_FILE
@click.argument("path", metavar="PATH")
@click.pass_obj
def cat_command(session: Session, file: str, path: str) -> None:
    """Write the content of the file at PATH inside FILE (an image, or an ID) to standard output.

    A terminal gets it with control characters made visible, anything else byte for byte.
    """
    with _image(session, file) as image:
        place = _located(image, path)
        node = image.lookup(place)
        if node is None or node.kind != "file":
            raise UsageError(f"{path!r} in the image is no file", where=file)
        with image.open_file(place) as content:
            _write(content)


@click.command("extract")
@_FILE
@click.argument("path", metavar="PATH")
@click.argument("destination", metavar="DEST", type=click.Path(path_type=Path))
@click.option("--setuid", is_flag=True, help="Keep set-user-id and set-group-id bits.")
@click.pass_obj
def extract_command(session: Session, file: str, path: str, destination: Path, setuid: bool) -> None:
    """Copy the file or folder at PATH inside FILE (an image, or an ID) to DEST.

    DEST must not be there yet; if it is a folder, the copy is put inside. Owners and devices are only kept for root.
    """
    from hpcbinder.look import extract

    with _image(session, file) as image, _progress(session, "extract", f"{file}: {path}") as heard:
        done = extract(image, path, destination, heard, set_id=setuid)
    for line in done.skipped[:20]:
        session.warn(line)
    if len(done.skipped) > 20:
        session.warn(f"and {len(done.skipped) - 20} more left out")


@click.command("diff")
@click.argument("one", metavar="A", shell_complete=complete_file_or_id)
@click.argument("other", metavar="B", shell_complete=complete_file_or_id)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per difference, a line each.")
@click.pass_obj
def diff_command(session: Session, one: str, other: str, as_json: bool) -> int:
    """Show what differs between the files of two images (or IDs); exit with 0 if nothing does, with 11 if something
    does."""
    from hpcbinder.cli.filepages import changed
    from hpcbinder.look import differences

    count = 0
    with _image(session, one) as before, _image(session, other) as after, _progress(session, "diff", one) as heard:
        for change in differences(before, after, heard):
            count += 1
            changed(change, as_json=as_json)
    return DIFFER if count else 0


@click.command("check")
@_FILE
@click.option("--key", metavar="PUB.pem", type=click.Path(path_type=Path), help="Check its signatures with this key.")
@click.pass_obj
def check_command(session: Session, file: str, key: Path | None) -> None:
    """Read everything in FILE (an image, or an ID) and say what is damaged; exit with 0 if nothing is, with 6 if
    something is, or if it is not signed with the key that is given."""
    from hpcbinder.look import check, signatures
    from hpcbinder.text import printable

    path = _path(session, file)
    with _progress(session, "check", file) as heard:
        problems = check(path, heard)
    for problem in problems:
        click.echo(printable(problem))
    if problems:
        count = f"{len(problems)} problems" if len(problems) > 1 else "1 problem"
        raise ConvertError(f"the image is damaged: {count}", where=file)
    signed = signatures(path)
    if key is not None:
        if not signed:
            raise ConvertError("the image is not signed", where=file)
        _verify(session, path, key, file)
    with session.reporter as reporter:
        for signature in signed if key is None else ():
            by = f"{signature.form} key {printable(signature.key) or 'unknown'}"
            how = "apptainer verify tells" if signature.form == "PGP" else "--key PUB.pem tells"
            reporter.phase("check", f"signed with {by}: whether that is so, {how}")
        if key is not None:
            reporter.phase("check", f"signed with {key}, and unchanged since")


def _verify(session: Session, path: Path, key: Path, file: str) -> None:
    from hpcbinder.runtime import Signer, read_public_key

    public = read_public_key(key)
    if problem := Signer.find(session.config.runtime).verify(path, public):
        raise ConvertError(f"the image is not as it was signed with {key}: {problem}", where=file)


def _write(content: BinaryIO) -> None:
    """A stranger's bytes to standard output, visible where that is a terminal."""
    from hpcbinder.text import printable

    if not sys.stdout.isatty():
        while block := content.read(1 << 20):
            sys.stdout.buffer.write(block)
        return
    for line in content:
        text = line.rstrip(b"\n").decode("utf-8", "surrogateescape")
        click.echo("\t".join(map(printable, text.split("\t"))), nl=line.endswith(b"\n"))


def _path(session: Session, file: str) -> Path:
    """The file of that name, or that of the image with this id."""
    path = Path(file)
    if path.exists():
        return path
    if "/" in file:
        raise UsageError("there is no such file", where=file)
    try:
        formats = session.catalog.get(file).formats
    except CatalogError as error:
        raise CatalogError(f"there is no file {file!r}, and {error.message}", hint=error.hint) from None
    from hpcbinder.runtime import PLAIN

    found = next((formats[form] for form in ("sif", *PLAIN) if form in formats), None)
    if found is None:
        raise CatalogError(f"image {file} has no file to look into")
    return Path(found)


@contextmanager
def _image(session: Session, file: str) -> Iterator[Image]:
    from hpcbinder.look import open_image

    with open_image(_path(session, file)) as image:
        yield image


def _located(image: Image, path: str, *, last: bool = True) -> str:
    place = image.locate(path, last=last)
    if place is None:
        raise UsageError(f"nothing at {path!r} in the image")
    return place


def _names(image: Image, place: str, recursive: bool) -> Iterator[tuple[str, Node]]:
    node = image.lookup(place)
    assert node is not None
    if node.kind != "directory":
        yield place.rpartition("/")[2], node
    elif recursive:
        yield from ((path, below) for path, below in image.walk(place) if path)
    else:
        for name in image.listdir(place):
            below = image.lookup(f"{place}/{name}")
            assert below is not None
            yield name, below


@contextmanager
def _progress(session: Session, phase: str, message: str) -> Iterator[Callable[[float], None]]:
    """Tell the person how far it is, each percent once."""
    last = -1

    with session.reporter as reporter:

        def heard(done: float) -> None:
            nonlocal last
            if int(100 * done) > last:
                last = int(100 * done)
                reporter.phase(phase, message, done)

        yield heard
