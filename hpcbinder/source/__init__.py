"""From a link, or a folder, to files on disk and where they came from."""

from hpcbinder.source.fetch import fetch

__all__ = ["fetch"]
