"""This machine's place in the cluster's network."""

from __future__ import annotations

import socket

from .values import LaunchError


def address(towards: str) -> str:
    """Which of this machine's addresses packets to another one come from.

    Args:
        towards: Address or name of the other one, "" for this machine itself.

    Raises:
        LaunchError: There is no way.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((towards or socket.gethostname(), 9))
        except OSError as error:
            raise LaunchError(f"no way from this node to {towards or 'itself'}: {error}") from None
        return str(probe.getsockname()[0])
