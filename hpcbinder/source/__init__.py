"""From a link, or a folder, to files on disk and where they came from."""

from hpcbinder.source.asking import web_error, web_session
from hpcbinder.source.fetch import fetch
from hpcbinder.source.reach import Reach

__all__ = ["Reach", "fetch", "web_error", "web_session"]
