"""The web, for rooms that ask it by themselves: its library is loaded when the first question is put."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hpcbinder.config import SiteConfig
from hpcbinder.errors import FetchError
from hpcbinder.source.reach import Reach

if TYPE_CHECKING:
    import requests


def web_session(site: SiteConfig | None, reach: Reach) -> requests.Session:
    """A session that goes only where `reach` lets it, with a site's proxies and certificates; see `web.session`."""
    from hpcbinder.source.web import session

    return session(site, reach)


def go_offline() -> None:
    """Let no session of this process ask anybody: where there is no network, waiting for it is in vain."""
    from hpcbinder.source import web

    web.offline = True


def web_error(problem: Exception | requests.Response) -> FetchError:
    """One line for what went wrong on the way, or for an answer that is an error."""
    from hpcbinder.source.web import explained, refused

    return explained(problem) if isinstance(problem, Exception) else refused(problem)
