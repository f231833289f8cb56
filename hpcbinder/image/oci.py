"""What an image is to the rest of the program, and the reading of its configuration."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Iterator
from typing import Any, BinaryIO, Protocol

from hpcbinder.errors import ConvertError
from hpcbinder.model import ImageConfig

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


class OciImage(Protocol):
    """An image whose layers can be asked for, one by one and only as far as they are wanted."""

    @property
    def config(self) -> ImageConfig:
        """What the image is; `config.diff_ids` names its layers from the lowest to the topmost."""

    def layers(self, wanted: Collection[str]) -> Iterator[tuple[str, BinaryIO]]:
        """Hand out layers.

        Args:
            wanted: DiffIDs (`sha256:…` of the uncompressed tar) of the layers to hand out.

        Yields:
            (DiffID, uncompressed tar stream) once for each wanted one, in any order. A stream is read to its end before
            the next is asked for. Whether the bytes are what the DiffID says is for the reader to check.

        Raises:
            ConvertError: The image does not hold a wanted layer, or cannot be read.
        """


def check_digest(digest: object) -> str:
    """`digest` if it is of the form `sha256:<64 hex digits>`, so that it can safely become part of a file name.

    Raises:
        ConvertError: It is not.
    """
    if not isinstance(digest, str) or not _DIGEST.fullmatch(digest):
        raise ConvertError(f"the image names something by {str(digest)[:100]!r}, which is no SHA-256 digest")
    return digest


def load_json(raw: bytes, what: str) -> dict[str, Any]:
    """A JSON object out of an image.

    Raises:
        ConvertError: It is none.
    """
    try:
        value = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise ConvertError(f"the image's {what} is no JSON") from error
    if not isinstance(value, dict):
        raise ConvertError(f"the image's {what} is no JSON object")
    return value


def parse_config(raw: bytes) -> ImageConfig:
    """Read an image configuration (OCI image spec, config.md; Docker's image JSON is the same in what is read here).

    Args:
        raw: The JSON, byte for byte: its SHA-256 is the image's id.

    Raises:
        ConvertError: It is no image configuration.
    """
    data = load_json(raw, "configuration")
    run = _get(data, "config", dict)
    rootfs = _get(data, "rootfs", dict)
    env = {}
    for item in _texts(run, "Env"):
        name, _, value = item.partition("=")
        env[name] = value
    return ImageConfig(
        digest=f"sha256:{hashlib.sha256(raw).hexdigest()}",
        architecture=_text(_get(data, "architecture", str), "architecture"),
        created=_text(_get(data, "created", str), "created"),
        env=env,
        entrypoint=_texts(run, "Entrypoint"),
        cmd=_texts(run, "Cmd"),
        workdir=_text(_get(run, "WorkingDir", str), "WorkingDir"),
        labels={_text(k, "Labels"): _text(v, "Labels") for k, v in _get(run, "Labels", dict).items()},
        volumes=tuple(sorted(_text(volume, "Volumes") for volume in _get(run, "Volumes", dict))),
        user=_text(_get(run, "User", str), "User"),
        ports=tuple(sorted(_text(port, "ExposedPorts") for port in _get(run, "ExposedPorts", dict))),
        stop_signal=_text(_get(run, "StopSignal", str), "StopSignal"),
        diff_ids=tuple(check_digest(digest) for digest in _texts(rootfs, "diff_ids")),
    )


def raw_config(image: OciImage) -> bytes:
    """The bytes of an image's configuration: those whose digest is its id where the image has them as `raw_config`
    (registries' and archives' do), else the same said anew."""
    raw = getattr(image, "raw_config", None)
    if isinstance(raw, bytes) and f"sha256:{hashlib.sha256(raw).hexdigest()}" == image.config.digest:
        return raw
    return dump_config(image.config)


def dump_config(config: ImageConfig) -> bytes:
    """Write an image configuration (OCI image spec, config.md): one and the same for equal ones, whatever engine they
    are from. `parse_config` gives back all but the digest, which is this text's.
    """
    run = {
        "Env": [f"{name}={value}" for name, value in sorted(config.env.items())],
        "Entrypoint": list(config.entrypoint),
        "Cmd": list(config.cmd),
        "WorkingDir": config.workdir,
        "Labels": dict(config.labels),
        "Volumes": {volume: {} for volume in config.volumes},
        "User": config.user,
        "ExposedPorts": {port: {} for port in config.ports},
        "StopSignal": config.stop_signal,
    }
    data = {
        "architecture": config.architecture,
        "os": "linux",
        **({"created": config.created} if config.created else {}),
        "config": {key: value for key, value in run.items() if value},
        "rootfs": {"type": "layers", "diff_ids": list(config.diff_ids)},
    }
    return json.dumps(data, sort_keys=True, separators=(",", ":")).encode("ascii")


def _get(data: dict[str, Any], key: str, kind: type) -> Any:
    """The value, or an empty one where there is none or `null`, as Go writes empty maps and lists."""
    value = data.get(key)
    if value is None:
        return kind()
    if not isinstance(value, kind):
        raise ConvertError(f"{key} in the image's configuration is no {_WORDS[kind]}")
    return value


_WORDS: dict[type, str] = {dict: "object", list: "list", str: "text"}


def _texts(data: dict[str, Any], key: str) -> tuple[str, ...]:
    return tuple(_text(value, key) for value in _get(data, key, list))


def _text(value: object, key: str) -> str:
    """A text that can be an argument or a variable of a process: no NUL, and encodable."""
    if not isinstance(value, str) or "\0" in value:
        raise ConvertError(f"{key} in the image's configuration holds what is no text")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise ConvertError(f"{key} in the image's configuration holds what is no text") from error
    return value
