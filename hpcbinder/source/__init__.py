"""From a link, or a folder, to files on disk and where they came from."""

from hpcbinder.source.asking import go_offline, web_error, web_session
from hpcbinder.source.fetch import fetch
from hpcbinder.source.reach import Reach

__all__ = ["Reach", "fetch", "go_offline", "web_error", "web_session"]
