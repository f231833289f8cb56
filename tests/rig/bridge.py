"""Network bridges of the rig's own: made with an address that nothing on the machine uses, and removed again."""

from __future__ import annotations

import contextlib
import ipaddress
import json
import subprocess
from pathlib import Path

from .process import RigError


def add_bridge(name: str) -> ipaddress.IPv4Network:
    """Make a bridge whose first address is this machine's, or find it.

    Args:
        name: Of the device, at most 15 characters.

    Returns:
        Its private /24.

    Raises:
        RigError: No bridge can be made here, or no subnet is free.
    """
    if Path("/sys/class/net", name).exists():
        shown = subprocess.run(["ip", "-json", "-4", "address", "show", name], capture_output=True, text=True).stdout
        for device in json.loads(shown or "[]"):
            for address in device.get("addr_info", ()):
                return ipaddress.IPv4Network(f"{address['local']}/{address['prefixlen']}", strict=False)
        remove_bridge(name)  # of a rig that was killed before it had an address
    subnet = _free_subnet()
    for arguments in (
        ["link", "add", name, "type", "bridge"],
        ["address", "add", f"{subnet[1]}/{subnet.prefixlen}", "dev", name],
        ["link", "set", name, "up"],
    ):
        done = subprocess.run(["ip", *arguments], capture_output=True, text=True)
        if done.returncode != 0:
            raise RigError(f"cannot make a network bridge here: {done.stderr.strip()}")
    return subnet


def remove_bridge(name: str) -> None:
    """Remove a bridge, if there is one of that name."""
    if Path("/sys/class/net", name).exists():
        subprocess.run(["ip", "link", "delete", name], capture_output=True)


def _free_subnet() -> ipaddress.IPv4Network:
    """A private /24 that no route and no address of this machine touches."""
    text = subprocess.run(["ip", "-json", "-4", "route", "show", "table", "all"], capture_output=True, text=True).stdout
    taken = []
    for route in json.loads(text or "[]"):
        with contextlib.suppress(ValueError):
            network = ipaddress.IPv4Network(route.get("dst", ""), strict=False)
            if network.prefixlen:
                taken.append(network)
    for subnet in ipaddress.IPv4Network("10.213.0.0/16").subnets(new_prefix=24):
        if not any(subnet.overlaps(network) for network in taken):
            return subnet
    raise RigError("no private subnet is free for the rig's bridge (10.213.0.0/16 is in use)")
