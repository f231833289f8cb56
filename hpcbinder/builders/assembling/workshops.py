"""What runs here the little that packages want to have run: Apptainer, or an engine where it cannot."""

from __future__ import annotations

from collections.abc import Callable

from hpcbinder.config import Config
from hpcbinder.errors import BuildError, RunError
from hpcbinder.model import BaseRef
from hpcbinder.progress import Reporter
from hpcbinder.runtime import Workshop, workshop

EngineShop = Callable[[BaseRef], Workshop]
"""Gives an engine that runs steps on a base; BuildError if there is none."""


class Workshops:
    """Looks for it once, and only when it is needed.

    Args:
        reporter: Hears what it is.
        engine: Gives an engine; None to ask none.
    """

    def __init__(self, config: Config, reporter: Reporter, engine: EngineShop | None = None) -> None:
        self._config = config
        self._reporter = reporter
        self._engine = engine
        self._apptainer: Workshop | RunError | None = None
        self._engines: dict[BaseRef, Workshop | RunError] = {}

    def any(self, base: BaseRef, what: str) -> Workshop:
        """One for steps on a base.

        Args:
            what: What has to be run, for a person.

        Raises:
            RunError: Nothing here runs them, with the reason.
        """
        found = self._found()
        return self._by_engine(base, what, found) if isinstance(found, RunError) else found

    def several_ids(self, base: BaseRef, what: str) -> Workshop:
        """One whose steps can give files to several users, as dpkg does. See `any`.

        Raises:
            RunError: None here can, with the reason.
        """
        found = self._found()
        if not isinstance(found, RunError) and not found.fakeroot:
            hint = "subordinate ids (/etc/subuid, /etc/subgid)"
            found = RunError(f"{found.description}: dpkg needs several ids", hint=hint)
        return self._by_engine(base, what, found) if isinstance(found, RunError) else found

    def _found(self) -> Workshop | RunError:
        if self._apptainer is None:
            try:
                self._apptainer = workshop(self._config, self._reporter)
            except RunError as error:
                self._apptainer = error
        return self._apptainer

    def _by_engine(self, base: BaseRef, what: str, lacking: RunError) -> Workshop:
        known = self._engines.get(base)
        if isinstance(known, RunError):
            raise known
        if known is not None:
            return known
        if self._engine is None:
            hint = "; ".join(filter(None, (lacking.hint, "--engine auto takes an engine for that (docs/engines.md)")))
            raise RunError(lacking.message, where=lacking.where, hint=hint)
        try:
            found = self._engine(base)
        except BuildError as error:
            hint = "; ".join(filter(None, (lacking.hint, error.hint)))
            refused = RunError(f"{lacking.message}; {error.message}", where=error.where, hint=hint)
            self._engines[base] = refused
            raise refused from None
        self._reporter.phase("build", f"an engine is needed: {what}; {lacking.message}")
        self._engines[base] = found
        return found
