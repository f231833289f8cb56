"""A build context as a folder, for engines that would read a tar whole into memory."""

from __future__ import annotations

import os
import shutil
import tarfile
import threading
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from hpcbinder.errors import BuildError
from hpcbinder.text import one_line


def unpack(write_context: Callable[[BinaryIO], None], folder: Path) -> None:
    """Lay a context out in an empty folder, with the modes and times its tar gives.

    Entries are made only in folders that an entry made, each once: no name and no symlink leads out of `folder`.

    Args:
        write_context: Writes the tar; called in another thread. What it raises is raised here.
        folder: Existing and empty.

    Raises:
        BuildError: The tar holds what no context has, or `folder` cannot be written.
    """
    reading, writing = os.pipe()
    failures: list[BaseException] = []

    def write() -> None:
        try:
            with os.fdopen(writing, "wb") as out:
                write_context(out)
        except BrokenPipeError:
            pass  # the reader went away, and says why
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=write, daemon=True)
    thread.start()
    try:
        with os.fdopen(reading, "rb") as stream:
            _extract(stream, folder)
    except (tarfile.TarError, EOFError) as error:
        if not failures:
            thread.join()
        if not failures:
            raise BuildError(f"the build context is damaged: {one_line(str(error), 200)}") from error
    except OSError as error:
        raise BuildError(f"the build context cannot be written: {error.strerror}", where=str(folder)) from error
    finally:
        thread.join()
    if failures:
        raise failures[0]


def _extract(stream: BinaryIO, folder: Path) -> None:
    made = {PurePosixPath("."): (folder, -1)}
    with tarfile.open(fileobj=stream, mode="r|") as tar:
        for member in tar:
            name = PurePosixPath(member.name)
            if name.parent not in made or ".." in name.parts or name in made:
                raise BuildError(f"the build context holds {one_line(member.name, 100)!r} out of place")
            path = made[name.parent][0] / name.name
            if member.isdir():
                path.mkdir(mode=0o700)
                made[name] = (path, int(member.mtime))
                path.chmod(member.mode & 0o7777)
            elif member.issym():
                path.symlink_to(member.linkname)
            elif member.isreg():
                source = tar.extractfile(member)
                assert source is not None
                # "x": nothing that is there already, a symlink least of all, is written through.
                with path.open("xb") as out:
                    shutil.copyfileobj(source, out, 1 << 20)
                path.chmod(member.mode & 0o7777)
            else:
                raise BuildError(f"the build context holds {one_line(member.name, 100)!r}, which is no file")
            if not member.isdir():
                os.utime(path, (int(member.mtime), int(member.mtime)), follow_symlinks=False)
        while stream.read(1 << 20):  # what follows the tar's end, so that the writer does not see a closed pipe
            pass
    for path, mtime in reversed(made.values()):
        if mtime >= 0:
            os.utime(path, (mtime, mtime))
