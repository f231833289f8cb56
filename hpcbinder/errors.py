"""What can go wrong, as one class per documented exit code.

An error's text is the whole message a person sees: what is wrong, where (file and line), what to do. Raise these for
bad input and for a world that does not cooperate; leave programming mistakes to ordinary exceptions.
"""

from __future__ import annotations


class HpcbinderError(Exception):
    """Base of every error that is shown without a traceback.

    Args:
        message: What is wrong, in one line.
        where: ``file`` or ``file:line`` the message is about, if there is one.
        hint: What to do about it.
    """

    exit_code = 1

    def __init__(self, message: str, *, where: str | None = None, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.where = where
        self.hint = hint

    def __str__(self) -> str:
        text = f"{self.where}: {self.message}" if self.where else self.message
        return f"{text} ({self.hint})" if self.hint else text


class UsageError(HpcbinderError):
    """An argument or a config value that cannot be meant."""

    exit_code = 2


class FetchError(HpcbinderError):
    """The source, its ref or its subdirectory, or the package index could not be had."""

    exit_code = 3


class DetectError(HpcbinderError):
    """The repository asks for what cannot be done, or asks in a way that cannot be read."""

    exit_code = 4


class OldMetadataError(DetectError):
    """What is asked for has metadata that only an old pip reads."""


class BuildError(HpcbinderError):
    """No engine, no base, or a step of the build failed."""

    exit_code = 5


class ConvertError(HpcbinderError):
    """An image could not be turned into a runtime's format, or is not what it claims to be."""

    exit_code = 6


class RegisterError(HpcbinderError):
    """A kernel could not be registered or unregistered."""

    exit_code = 7


class CatalogError(HpcbinderError):
    """No such image, or the store cannot be read or written."""

    exit_code = 8


class RunError(HpcbinderError):
    """No runtime here can run the image."""

    exit_code = 9


class RegistryError(HpcbinderError):
    """A registry does not let us in, does not have or take what it should, or is not what it claims to be."""

    exit_code = 10
