"""Signatures of SIFs with keys in PEM files, made and checked by Apptainer or SingularityCE (`--key`)."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from hpcbinder import process
from hpcbinder.config import RuntimeConfig
from hpcbinder.errors import ConvertError, RunError, UsageError
from hpcbinder.runtime.launch.environment import host_environment
from hpcbinder.runtime.launch.prologue import environment_after
from hpcbinder.runtime.launch.runtimes import find
from hpcbinder.runtime.launch.values import LaunchError
from hpcbinder.text import one_line

_LIMIT = 64 << 10
_BLOCK = re.compile(rb"^-----BEGIN ([A-Z0-9 ]{1,60})-----[ \t\r]*$", re.MULTILINE)
_PRIVATE = frozenset({"PRIVATE KEY", "RSA PRIVATE KEY", "EC PRIVATE KEY"})
_PUBLIC = frozenset({"PUBLIC KEY", "RSA PUBLIC KEY"})
_FAILED = re.compile(r"^(?:FATAL|ERROR):\s*(.+)$", re.MULTILINE)


@dataclass(frozen=True, repr=False)
class Key:
    """A key in PEM.

    Attributes:
        path: Where it was read from, for messages.
        content: The file's bytes.
    """

    path: Path
    content: bytes


def read_private_key(path: Path) -> Key:
    """A key to sign with. It is read once, so that it may come through a pipe (`/dev/stdin`).

    Raises:
        UsageError: It cannot be read, is no private key, or is encrypted, which Apptainer does not take.
    """
    content, found = _read(path)
    if b"ENCRYPTED" in content:
        raise UsageError(
            "the key is encrypted, and Apptainer signs with unencrypted ones only",
            where=str(path),
            hint="openssl pkey -in KEY.pem | hpcbinder … --sign-key /dev/stdin never writes the open one to a disk",
        )
    if not found & _PRIVATE:
        raise UsageError(
            "is no private key in PEM", where=str(path), hint="openssl genpkey -algorithm ed25519 makes one"
        )
    return Key(path, content)


def read_public_key(path: Path) -> Key:
    """A key to check signatures with.

    Raises:
        UsageError: It cannot be read, or is no public key.
    """
    content, found = _read(path)
    if found & _PUBLIC:
        return Key(path, content)
    hint = None
    if found & _PRIVATE:
        hint = "it is a private key: openssl pkey -in KEY.pem -pubout writes the public one"
    elif "CERTIFICATE" in found:
        hint = "it is a certificate: openssl x509 -in CERT.pem -pubkey -noout writes its key"
    raise UsageError("is no public key in PEM", where=str(path), hint=hint)


def _read(path: Path) -> tuple[bytes, set[str]]:
    """A file's bytes and the kinds of PEM blocks in it."""
    try:
        with path.open("rb") as file:
            content = file.read(_LIMIT + 1)
    except OSError as error:
        raise UsageError(f"the key cannot be read: {error.strerror}", where=str(path)) from error
    if len(content) > _LIMIT:
        raise UsageError("is too long for a key", where=str(path))
    return content, {kind.decode("ascii") for kind in _BLOCK.findall(content)}


class Signer:
    """`apptainer sign` and `apptainer verify`.

    Args:
        program: Where Apptainer or SingularityCE is.
        environ: The environment it gets.
    """

    def __init__(self, program: str, environ: Mapping[str, str]) -> None:
        self._program = program
        self._environ = environ

    @classmethod
    def find(cls, settings: RuntimeConfig, environ: Mapping[str, str] | None = None) -> Signer:
        """The one that is here, after the site's prologue (`module load …`).

        Args:
            settings: With the prologue.
            environ: The host's environment, `os.environ` when None.

        Raises:
            RunError: There is none, or the prologue fails.
        """
        try:
            environ = environment_after(settings.prologue, host_environment(os.environ if environ is None else environ))
        except LaunchError as error:
            raise RunError(str(error)) from error
        program = find("apptainer", environ) or find("singularity", environ)
        if program is None:
            raise RunError(
                "signatures are made and checked by Apptainer, which is not installed",
                hint="install Apptainer (https://apptainer.org) or load its module (runtime.prologue)",
            )
        return cls(program, environ)

    def sign(self, path: Path, key: Key) -> None:
        """Add a signature to a SIF, in place: of all objects in its group. It is on disk then.

        Raises:
            ConvertError: It was not signed.
        """
        problem = self._run("sign", path, key)
        if problem:
            raise ConvertError(f"the image cannot be signed: {problem}", where=str(key.path))
        with path.open("rb") as file:
            os.fsync(file.fileno())

    def verify(self, path: Path, key: Key) -> str:
        """Check that every object of a SIF is as it was when it was signed with that key.

        Returns:
            Why not; "" if it is.
        """
        return self._run("verify", path, key)

    def _run(self, action: str, path: Path, key: Key) -> str:
        """Run it and return what went wrong, "" if nothing."""
        # The key goes through memory: no second copy on a disk, nothing in the arguments that anybody may read.
        descriptor = os.memfd_create("key", os.MFD_CLOEXEC)
        try:
            with open(descriptor, "wb", closefd=False) as file:
                file.write(key.content)
            with tempfile.TemporaryDirectory(prefix="hpcbinder-") as folder:
                own = dict.fromkeys(("APPTAINER_CONFIGDIR", "SINGULARITY_CONFIGDIR"), folder)
                child = process.start(
                    [self._program, action, "--key", f"/proc/self/fd/{descriptor}", str(path.absolute())],
                    env={**self._environ, **own, "LC_ALL": "C.UTF-8"},
                    pass_fds=(descriptor,),
                )
                try:
                    said, _ = child.communicate()
                finally:
                    process.stop(child)
        except OSError as error:
            raise RunError(f"Apptainer cannot be started: {error.strerror}", where=self._program) from error
        finally:
            os.close(descriptor)
        if child.returncode == 0:
            return ""
        text = said.decode("utf-8", "replace")
        reasons = _FAILED.findall(text) or text.strip().splitlines()[-1:]
        return one_line(reasons[-1] if reasons else f"exit code {child.returncode}", 500)
