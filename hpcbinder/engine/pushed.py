"""New layers out of a Docker daemon: pushed to a registry of our own, instead of exported with all that is old."""

from __future__ import annotations

import re
import socket
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import docker.errors

from hpcbinder.engine.sink import Sink
from hpcbinder.errors import BuildError
from hpcbinder.text import one_line

_TAG = "layers"
_ROUNDS = 5
"""The daemon asks for up to three digests it remembers of a layer (moby, push_v2.go), one after the other."""


def pushed_layers(
    api: Any,
    image: str,
    diff_ids: Sequence[str],
    wanted: Collection[str],
    folder: Path,
    progress: Callable[[float], None] = lambda done: None,
) -> Mapping[str, Path]:
    """Have a daemon push an image, and keep of it the wanted layers.

    The daemon compresses what it has never pushed before, and remembers it: from then on, images that have the same
    layers cost nothing for them.

    Args:
        api: The SDK's `APIClient`.
        image: Id or tag of the image.
        diff_ids: Those of all its layers.
        wanted: DiffIDs of some.
        folder: An empty folder of the caller, for the layers.
        progress: Hears which part of what the daemon sends has come, 0 to 1.

    Returns:
        DiffID -> file, compressed in some way. That its content is what the DiffID says is for the reader to check.

    Raises:
        BuildError: The daemon does not push, or not here. It still has the image; nothing of ours is left in it.
    """
    _sweep(api)
    with Sink(folder) as sink:
        _meet(api, sink)
        api.tag(image, sink.repository, _TAG)
        try:
            for _ in range(_ROUNDS):
                _push(api, sink, progress)
                try:
                    digests = dict(zip(diff_ids, sink.layers(len(diff_ids)), strict=True))
                except ValueError as error:
                    raise BuildError(f"docker pushed something else: {error}") from error
                known = {digests[diff_id] for diff_id in wanted if sink.blob(digests[diff_id]) is None}
                if not known:
                    return {diff_id: _file(sink, digests[diff_id]) for diff_id in wanted}
                sink.lacking |= known
        finally:
            api.remove_image(f"{sink.repository}:{_TAG}", noprune=True)
    raise BuildError("docker does not push what it pushed once before")


def _sweep(api: Any) -> None:
    """Take away the tags of processes that were killed: those whose registry nobody answers for any more."""
    for image in api.images(filters={"reference": f"127.0.0.1:*/hpcbinder-*:{_TAG}"}):
        for tag in image.get("RepoTags") or ():
            port = re.match(rf"127\.0\.0\.1:(\d{{1,5}})/hpcbinder-[0-9a-f]{{32}}:{_TAG}\Z", tag)
            if port is None:
                continue
            try:
                socket.create_connection(("127.0.0.1", int(port[1])), timeout=5).close()
            except OSError:
                with suppress(docker.errors.APIError):  # another process was faster
                    api.remove_image(tag, noprune=True)


def _meet(api: Any, sink: Sink) -> None:
    """Make sure that the daemon's loopback is ours, before anything is sent to whoever listens on its own."""
    try:
        api.inspect_distribution(f"{sink.repository}:{_TAG}", auth_config={})
    except docker.errors.APIError:
        pass  # there is nothing yet
    if not sink.asked:
        raise BuildError("docker does not reach this process on 127.0.0.1")


def _push(api: Any, sink: Sink, progress: Callable[[float], None]) -> None:
    # Without credentials: the person's own are for other registries.
    events = api.push(sink.repository, _TAG, stream=True, decode=True, auth_config={})
    sizes: dict[str, tuple[int, int]] = {}
    try:
        for event in events:
            if sink.failure is not None:
                raise BuildError(f"what docker pushes cannot be kept: {sink.failure}")
            if "error" in event:
                raise BuildError(f"docker does not push: {one_line(str(event['error']), 300)}")
            detail = event.get("progressDetail") or {}
            if detail.get("total"):
                sizes[str(event.get("id"))] = int(detail.get("current") or 0), int(detail["total"])
                progress(min(1.0, sum(done for done, _ in sizes.values()) / sum(all_ for _, all_ in sizes.values())))
    finally:
        events.close()


def _file(sink: Sink, digest: str) -> Path:
    path = sink.blob(digest)
    assert path is not None
    return path
