"""Pushing an image: its layers gzipped, each sent once, then what names them (distribution spec, "Push")."""

from __future__ import annotations

import hashlib
import io
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, CancelledError, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urlencode

from hpcbinder.errors import RegistryError
from hpcbinder.image import OciImage, dump_config
from hpcbinder.progress import Reporter
from hpcbinder.registry.client import Client
from hpcbinder.registry.compress import Compressed, compress
from hpcbinder.registry.known import KnownLayers
from hpcbinder.registry.manifest import OCI_MANIFEST, Descriptor, dump_manifest
from hpcbinder.registry.reference import Reference
from hpcbinder.registry.transport import Unreachable, resolve

_PARALLEL = 3
"""Layers that are sent at the same time, and the most that wait for it on disk."""
_ACTIONS = "pull,push"
_CHUNK = 8 << 20
"""Bytes of a piece where a blob may not be sent at once."""


def push(
    client: Client, reference: Reference, image: OciImage, *, known: KnownLayers, scratch: Path, reporter: Reporter
) -> str:
    """Push an image.

    Args:
        reference: What it is called there; its tag is moved last, when everything it needs is there.
        known: What other pushes know of its layers.
        scratch: Folder for compressed layers, a few at a time.

    Returns:
        The digest of the manifest: the same for the same image, whenever and from wherever it is pushed.

    Raises:
        RegistryError: The registry does not take it.
        HpcbinderError: The image cannot be read.
        OSError: Nothing can be written to `scratch`.
    """
    raw_config = dump_config(image.config)
    uploads = _Uploads(client, reference.repository, _Progress(reporter, reference, len(set(image.config.diff_ids))))
    blobs = uploads.layers(image, known, scratch)
    config = Descriptor(f"sha256:{hashlib.sha256(raw_config).hexdigest()}", len(raw_config))
    uploads.bring(config, lambda: io.BytesIO(raw_config))
    raw = dump_manifest(config, [blobs[diff_id] for diff_id in image.config.diff_ids], image.config.labels)
    digest = f"sha256:{hashlib.sha256(raw).hexdigest()}"
    response = client.request(
        "PUT",
        f"/v2/{reference.repository}/manifests/{reference.tag or digest}",
        repository=reference.repository,
        actions=_ACTIONS,
        headers={"Content-Type": OCI_MANIFEST},
        body=lambda: raw,
        expect=(201,),
    )
    response.close()
    taken = response.headers.get("Docker-Content-Digest", digest)
    if taken != digest:
        raise RegistryError("the registry has made another image of what it was sent", where=str(reference))
    return digest


def may_push(client: Client, reference: Reference) -> None:
    """See whether a repository takes uploads from us.

    Raises:
        RegistryError: It does not.
    """
    location, _ = begin(client, reference.repository)
    cancel(client, reference.repository, location)


def begin(client: Client, repository: str, query: Mapping[str, str] | None = None) -> tuple[str, int]:
    """Begin an upload, or mount a blob.

    Args:
        query: `mount` and `from` (distribution spec, "Mounting a blob from another repository").

    Returns:
        Where it goes on, and the status (201: mounted).

    Raises:
        RegistryError: It is not let begin.
    """
    response = client.request(
        "POST",
        f"/v2/{repository}/blobs/uploads/" + (f"?{urlencode(query)}" if query else ""),
        repository=repository,
        actions=_ACTIONS,
        source=(query or {}).get("from", ""),
        expect=(201, 202),
    )
    response.close()
    location = response.headers.get("Location", "")
    if response.status_code == 202 and not location:
        raise RegistryError("the registry does not say where to send a layer", where=f"{client.host}/{repository}")
    return resolve(response.url, location), response.status_code


def cancel(client: Client, repository: str, location: str) -> None:
    """Give up an upload."""
    try:
        client.request(
            "DELETE", location, repository=repository, actions=_ACTIONS, expect=(204, 404), repeat=False
        ).close()
    except RegistryError:
        pass  # the registry forgets it by itself


class _Uploads:
    """Brings blobs into one repository."""

    def __init__(self, client: Client, repository: str, progress: _Progress) -> None:
        self._client = client
        self._repository = repository
        self._place = f"{client.host}/{repository}"
        self._progress = progress

    def layers(self, image: OciImage, known: KnownLayers, scratch: Path) -> dict[str, Descriptor]:
        """Bring all layers of an image.

        Returns:
            DiffID -> blob.
        """
        blobs: dict[str, Descriptor] = {}
        missing = []
        for diff_id in dict.fromkeys(image.config.diff_ids):
            found = known.find(diff_id)
            if found is not None and self._there(*found):
                blobs[diff_id] = found[0]
                known.keep(diff_id, found[0], self._place)
                self._progress.done()
            else:
                missing.append(diff_id)
        if not missing:
            return blobs
        # Nobody should wait for layers to be exported and compressed to hear that a login is wanted.
        may_push(self._client, Reference(self._client.host, self._repository))
        with tempfile.TemporaryDirectory(prefix="push-", dir=scratch) as folder:
            for layer in self._compressed(image, missing, Path(folder)):
                blobs[layer.diff_id] = layer.blob
                known.keep(layer.diff_id, layer.blob, self._place)
                self._progress.done()
        return blobs

    def bring(self, blob: Descriptor, content: Callable[[], BinaryIO]) -> None:
        """Send a blob, if it is not there.

        Args:
            content: Opens it; it is closed afterwards.
        """
        if self._there(blob, ()):
            return
        response = self._send(blob, content, whole=True)
        if response in (405, 413, 501):  # a proxy in front of the registry takes no large bodies
            response = self._send(blob, content, whole=False)
        if response != 201:
            raise RegistryError(f"the registry does not take a layer (status {response})", where=self._place)

    def _compressed(self, image: OciImage, missing: list[str], folder: Path) -> Iterator[Compressed]:
        """Compress layers one after the other, and send them behind that; each comes when it is there."""
        with ThreadPoolExecutor(_PARALLEL, thread_name_prefix="push") as pool:
            going: dict[Future[None], Compressed] = {}

            def sent(most: int) -> Iterator[Compressed]:
                while len(going) > most:
                    for future in wait(going, return_when=FIRST_COMPLETED).done:
                        future.result()
                        yield going.pop(future)

            try:
                for diff_id, stream in image.layers(missing):
                    path = folder / diff_id.removeprefix("sha256:")
                    with path.open("wb") as file:
                        layer = compress(stream, file)
                    if layer.diff_id != diff_id:
                        raise RegistryError(f"a layer is {layer.diff_id}, not {diff_id}", where=self._place)
                    going[pool.submit(self._bring_file, layer.blob, path)] = layer
                    yield from sent(_PARALLEL - 1)
                yield from sent(0)
            except BaseException:
                self._progress.stop()
                for future in going:
                    future.cancel()
                raise

    def _bring_file(self, blob: Descriptor, path: Path) -> None:
        self.bring(blob, lambda: path.open("rb"))
        path.unlink()

    def _there(self, blob: Descriptor, places: tuple[str, ...]) -> bool:
        """Whether the repository has a blob, or could be given it from another one of its registry."""
        response = self._client.request(
            "HEAD",
            f"/v2/{self._repository}/blobs/{blob.digest}",
            repository=self._repository,
            actions=_ACTIONS,
            expect=(200, 404),
            follow=True,
        )
        response.close()
        if response.status_code == 200:
            return True
        for place in places:
            host, _, other = place.partition("/")
            if host == self._client.host and other != self._repository:
                location, status = begin(self._client, self._repository, {"mount": blob.digest, "from": other})
                if status == 201:
                    return True
                cancel(self._client, self._repository, location)
        return False

    def _send(self, blob: Descriptor, content: Callable[[], BinaryIO], *, whole: bool) -> int:
        """The status an upload ends with. What breaks begins anew: a half upload is of no use to anybody."""
        patience = self._client.transport.patience
        for number in range(patience.attempts):
            try:
                with content() as file:
                    # Who takes no large bodies may say so by hanging up.
                    return self._send_once(blob, file, whole=whole and number < 2)
            except Unreachable as error:
                if number == patience.attempts - 1 or not error.may_pass:
                    raise
                patience.rest(number)
        raise AssertionError("the last attempt returns or raises")

    def _send_once(self, blob: Descriptor, file: BinaryIO, *, whole: bool) -> int:
        location, _ = begin(self._client, self._repository)
        if not whole:
            location = self._send_pieces(location, file, blob.size)

        def body() -> object:
            file.seek(0)
            return _Body(file, blob.size, self._progress) if whole else b""

        response = self._client.request(
            "PUT",
            f"{location}{'&' if '?' in location else '?'}{urlencode({'digest': blob.digest})}",
            repository=self._repository,
            actions=_ACTIONS,
            headers={"Content-Type": "application/octet-stream"},
            body=body,
            expect=(201, 405, 413, 501),
            repeat=False,
        )
        response.close()
        return response.status_code

    def _send_pieces(self, location: str, file: BinaryIO, size: int) -> str:
        start = 0
        while start < size:
            piece = file.read(_CHUNK)
            response = self._client.request(
                "PATCH",
                location,
                repository=self._repository,
                actions=_ACTIONS,
                headers={
                    "Content-Type": "application/octet-stream",
                    "Content-Range": f"{start}-{start + len(piece) - 1}",
                },
                body=lambda piece=piece: piece,  # type: ignore[misc]
                expect=(202,),
                repeat=False,
            )
            response.close()
            location = resolve(location, response.headers.get("Location", ""))
            start += len(piece)
            self._progress.sent(len(piece))
        return location


class _Body:
    """A file as requests sends one: of known length, piece by piece."""

    def __init__(self, file: BinaryIO, size: int, progress: _Progress) -> None:
        self._file = file
        self._size = size
        self._progress = progress

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[bytes]:
        while piece := self.read(1 << 16):
            yield piece

    def read(self, size: int = -1) -> bytes:
        piece = self._file.read(size)
        self._progress.sent(len(piece))
        return piece


class _Progress:
    """Says how many layers are there, and gives up for all who are stopped."""

    def __init__(self, reporter: Reporter, reference: Reference, total: int) -> None:
        self._reporter = reporter
        self._message = f"pushing {total} layer{'s' if total != 1 else ''} to {reference}"
        self._total = total
        self._done = 0
        self._bytes = 0
        self._stopped = False
        self._lock = threading.Lock()
        reporter.phase("push", self._message, 0.0)

    def done(self) -> None:
        """One more layer is there."""
        with self._lock:
            self._done += 1
            share = self._done / self._total
        self._reporter.phase("push", self._message, share)

    def sent(self, size: int) -> None:
        """Bytes went out."""
        if self._stopped:
            raise CancelledError
        with self._lock:
            before, self._bytes = self._bytes, self._bytes + size
        if before // 10_000_000 != self._bytes // 10_000_000:
            self._reporter.log("push", f"{self._bytes / 1e6:.0f} MB sent")

    def stop(self) -> None:
        """Make all who still send give up."""
        self._stopped = True
