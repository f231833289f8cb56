"""Images in a registry as `OciImage`s: nothing but the configuration comes before a layer is asked for."""

from __future__ import annotations

import hashlib
import io
import tempfile
import threading
from collections.abc import Collection, Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any, BinaryIO

from hpcbinder.errors import ConvertError, RegistryError
from hpcbinder.image import parse_config, uncompressed
from hpcbinder.model import ImageConfig
from hpcbinder.progress import Reporter
from hpcbinder.registry.blobs import fetch
from hpcbinder.registry.client import MANIFEST_LIMIT, Client, as_object
from hpcbinder.registry.manifest import ACCEPTED, Descriptor, Manifest, Platform, choose, is_index, parse_manifest
from hpcbinder.registry.reference import Reference

_PARALLEL = 4
"""Layers that come at the same time; Docker's own is 3."""
_NESTED = 3


def top_digest(client: Client, reference: Reference) -> str:
    """The digest of what a reference names now, an index where there is one.

    Raises:
        RegistryError: There is no such image.
    """
    if reference.digest:
        return reference.digest
    response = client.request(
        "HEAD", _path(reference), repository=reference.repository, headers={"Accept": ACCEPTED}, follow=True
    )
    response.close()
    digest = response.headers.get("Docker-Content-Digest", "")
    if digest.startswith("sha256:") and len(digest) == 71 and set(digest[7:]) <= set("0123456789abcdef"):
        return digest
    return _get(client, reference)[0]


def find_manifest(client: Client, reference: Reference, platform: Platform) -> tuple[str, Manifest]:
    """What a reference names for a platform.

    Returns:
        The digest of what the reference itself names, and the manifest.

    Raises:
        RegistryError: There is no such image, or not for this platform.
    """
    top, data = _get(client, reference)
    digest = top
    for _ in range(_NESTED):
        if not is_index(data):
            return top, parse_manifest(data, digest, str(reference))
        digest, data = _get(client, reference.pinned(choose(data, platform, str(reference))))
    raise RegistryError("the image's indexes are nested too deep", where=str(reference))


class RegistryImage:
    """An image in a registry; implements `OciImage`.

    Args:
        client: Its registry.
        reference: Where it is there.
        top: Digest of what the reference names, maybe an index.
        manifest: The image's.
        platform: What it is for.
        scratch: Folder its layers come into, and out of which they go once they were handed out.
        reporter: Hears how far they are.

    Attributes:
        reference: Where it is, with the digest of what was asked for: it names the same image for ever.
        manifest: Its manifest.
        raw_config: The configuration, byte for byte.

    Raises:
        RegistryError: The configuration cannot be had, or is for another platform or number of layers.
    """

    def __init__(
        self,
        client: Client,
        reference: Reference,
        top: str,
        manifest: Manifest,
        platform: Platform,
        *,
        scratch: Path,
        reporter: Reporter,
    ) -> None:
        self._client = client
        self._scratch = scratch
        self._reporter = reporter
        self.reference = reference.pinned(top)
        self.manifest = manifest
        where = str(reference)
        with tempfile.TemporaryDirectory(prefix="config-", dir=scratch) as folder:
            path = Path(folder) / "config"
            fetch(client, reference.repository, manifest.config, path, lambda size: None)
            self.raw_config = path.read_bytes()
        data = as_object(self.raw_config, where)
        try:
            self._config = parse_config(self.raw_config)
        except ConvertError as error:
            raise RegistryError(error.message, where=where) from error
        found = Platform(self._config.architecture, str(data.get("os", "")))
        if found != platform:
            raise RegistryError(f"the image is for {found!s:.40}, not for {platform}", where=where)
        if len(self._config.diff_ids) != len(manifest.layers):
            raise RegistryError(
                f"the manifest names {len(manifest.layers)} layers, the configuration {len(self._config.diff_ids)}",
                where=where,
            )

    @property
    def config(self) -> ImageConfig:
        return self._config

    @property
    def digest(self) -> str:
        """`sha256:…` of its configuration, as engines call the same image."""
        return self._config.digest

    def layers(self, wanted: Collection[str]) -> Iterator[tuple[str, BinaryIO]]:
        """See `OciImage.layers`: they come in parallel, and each is what its DiffID says when it has been read.

        Raises:
            RegistryError: One cannot be had.
        """
        blobs = dict(zip(self._config.diff_ids, self.manifest.layers, strict=True))
        if missing := sorted(set(wanted) - blobs.keys()):
            raise RegistryError(f"the image has no layer {missing[0]}", where=str(self.reference))
        chosen = {diff_id: blob for diff_id, blob in blobs.items() if diff_id in wanted}
        if not chosen:
            return
        with tempfile.TemporaryDirectory(prefix="layers-", dir=self._scratch) as folder:
            yield from self._download(chosen, Path(folder))

    def _download(self, chosen: dict[str, Descriptor], folder: Path) -> Iterator[tuple[str, BinaryIO]]:
        count = _Counter(self._reporter, str(self.reference), sum(blob.size for blob in chosen.values()))
        with ThreadPoolExecutor(_PARALLEL, thread_name_prefix="pull") as pool:
            coming: dict[Future[Path], str] = {
                pool.submit(self._one, blob, folder / diff_id.removeprefix("sha256:"), count): diff_id
                for diff_id, blob in chosen.items()
            }
            try:
                for future in as_completed(coming):
                    path, diff_id = future.result(), coming[future]
                    with path.open("rb", buffering=0) as file:
                        stream = uncompressed(file, str(self.reference))
                        yield diff_id, io.BufferedReader(_Checked(stream, diff_id, str(self.reference)), 1 << 20)
                    path.unlink()
            finally:
                count.stop()
                for future in coming:
                    future.cancel()

    def _one(self, blob: Descriptor, path: Path, count: _Counter) -> Path:
        fetch(self._client, self.reference.repository, blob, path, count)
        return path


class _Counter:
    """Adds up what several threads get, and says how far it is."""

    def __init__(self, reporter: Reporter, name: str, total: int) -> None:
        self._reporter = reporter
        self._message = f"pulling {name.partition('@')[0]} ({total / 1e6:.1f} MB)"
        self._total = total
        self._done = 0
        self._told = -1
        self._stopped = False
        self._lock = threading.Lock()
        self(0)

    def stop(self) -> None:
        """Nobody wants the rest: make those who still get it give up."""
        self._stopped = True

    def __call__(self, size: int) -> None:
        if self._stopped:
            raise CancelledError
        with self._lock:
            self._done += size
            percent = 100 * self._done // self._total if self._total else 100
            tell, self._told = percent != self._told, percent
        if tell:
            self._reporter.phase("pull", self._message, percent / 100)


class _Checked(io.RawIOBase):
    """A stream that fails at its end if it was not what its digest says."""

    def __init__(self, stream: BinaryIO, digest: str, where: str) -> None:
        super().__init__()
        self._stream = stream
        self._wanted = digest
        self._where = where
        self._hash = hashlib.sha256()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        block = self._stream.read(len(view))
        self._hash.update(block)
        if not block and f"sha256:{self._hash.hexdigest()}" != self._wanted:
            raise RegistryError(f"a layer is not what the configuration says ({self._wanted})", where=self._where)
        view[: len(block)] = block
        return len(block)


def _path(reference: Reference) -> str:
    return f"/v2/{reference.repository}/manifests/{reference.identifier}"


def _get(client: Client, reference: Reference) -> tuple[str, dict[str, Any]]:
    """A manifest or index, and its digest, which is the one asked for if one was."""
    response = client.request(
        "GET", _path(reference), repository=reference.repository, headers={"Accept": ACCEPTED}, follow=True
    )
    raw = client.transport.read(response, MANIFEST_LIMIT)
    digest = f"sha256:{hashlib.sha256(raw).hexdigest()}"
    promised = reference.digest or response.headers.get("Docker-Content-Digest", digest)
    if digest != promised:
        raise RegistryError("the manifest is not what its digest says", where=str(reference))
    return digest, as_object(raw, str(reference))
