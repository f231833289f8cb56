"""The configuration: one documented TOML file format, read from several places, each value's origin remembered.

From weakest to strongest: built-in default, the usual variables of other tools (`SSL_CERT_FILE`, `https_proxy`, …),
the site's file, the user's file, `HPCBINDER_SECTION_KEY` in the environment, flags. A stronger value replaces a weaker
one whole; lists are not joined. `keys.py` is the only table of keys: `load`, `describe` (`hpcbinder config`) and
docs/config.md (`python -m hpcbinder.config`) all read it.
"""

from hpcbinder.config.describe import Setting, describe, markdown
from hpcbinder.config.hub import JupyterhubConfig, ModulesConfig
from hpcbinder.config.keys import (
    SITE_FILE,
    BasesConfig,
    BuildConfig,
    BuildpacksConfig,
    CondaConfig,
    Config,
    KernelsConfig,
    RegistryConfig,
    RuntimeConfig,
    ShifterConfig,
    SiteConfig,
    SlurmConfig,
    SourceConfig,
    SpaceConfig,
    StoreConfig,
    mirrors,
    user_config,
)
from hpcbinder.config.load import load
from hpcbinder.config.values import redact

__all__ = [
    "SITE_FILE",
    "BasesConfig",
    "BuildConfig",
    "BuildpacksConfig",
    "CondaConfig",
    "Config",
    "JupyterhubConfig",
    "KernelsConfig",
    "ModulesConfig",
    "RegistryConfig",
    "RuntimeConfig",
    "Setting",
    "ShifterConfig",
    "SiteConfig",
    "SlurmConfig",
    "SourceConfig",
    "SpaceConfig",
    "StoreConfig",
    "describe",
    "load",
    "markdown",
    "mirrors",
    "redact",
    "user_config",
]
