"""What every command shares: the configuration, the catalog and the reporter, made when first asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hpcbinder.catalog import Catalog
    from hpcbinder.cli.report import ConsoleReporter
    from hpcbinder.config import Config
    from hpcbinder.errors import HpcbinderError

OPTIONS = {
    "store.path": "--store",
    "build.engine": "--engine",
    "build.formats": "--format",
    "conda.mode": "--conda",
    "build.as_of": "--as-of",
    "build.compression": "--compression",
    "runtime.name": "--runtime",
}
"""Settings that commands have an option for, whose name is not the key's."""


@dataclass
class Session:
    """One run of the command line.

    Attributes:
        flags: Settings given as options of a command, `section.key` -> value; they win over every other origin.
    """

    debug: bool = False
    json_logs: bool = False
    store: str | None = None
    flags: dict[str, object] = field(default_factory=dict)

    def setting(self, values: Mapping[str, object]) -> None:
        """Take options that stand for settings; None and empty ones were not given."""
        self.flags.update({key: value for key, value in values.items() if value not in (None, ())})

    @cached_property
    def config(self) -> Config:
        from hpcbinder.config import load

        flags = {"store.path": self.store, **self.flags} if self.store else self.flags
        return load(flags, options=OPTIONS)

    @cached_property
    def catalog(self) -> Catalog:
        from hpcbinder.catalog import Catalog

        return Catalog(self.config.store.path, self.config.store.site)

    def warn(self, what: HpcbinderError | str) -> None:
        """Say what is wrong, and go on."""
        from hpcbinder.cli.report import warning

        warning(str(what), json_logs=self.json_logs)

    @cached_property
    def reporter(self) -> ConsoleReporter:
        from hpcbinder.cli.report import reporter

        return reporter(json_logs=self.json_logs, verbose=self.debug)
