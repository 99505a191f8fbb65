"""Which addresses only this machine reaches: what is closed by default may be open on them."""

from __future__ import annotations

import ipaddress


def is_loopback(host: str) -> bool:
    """Whether `host`, an address or a name, is this machine and nobody else can be it. Names are not looked up."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
