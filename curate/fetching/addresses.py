"""Reach public addresses only.

A stranger's URL, or a redirect, may name a machine behind our own firewall. So every name is
resolved once, the addresses are judged, and the connection is made to the very address that was
judged: a name that resolves to something else a moment later gains nothing.
"""

from __future__ import annotations

import ipaddress
import socket
from collections import Counter
from ipaddress import IPv4Address, IPv6Address
from typing import Any

from .reasons import FetchFailed

MOST_ADDRESSES = 2
"""How many IPv4 and how many IPv6 addresses of a host are tried."""

_TRANSLATED = (ipaddress.IPv6Network("64:ff9b::/96"), ipaddress.IPv6Network("::ffff:0:0:0/96"))
"""Whose last 32 bits are an IPv4 address: NAT64 and SIIT."""
_LOCAL = (ipaddress.IPv6Network("fec0::/10"), ipaddress.IPv6Network("64:ff9b:1::/48"))
"""Site-local addresses, and NAT64 within one network: Python's ``is_global`` lets them pass."""


def is_public(address: str) -> bool:
    """Tell whether an IP address is one of the open internet.

    An IPv4 address inside an IPv6 one (mapped, compatible, 6to4, Teredo, NAT64, SIIT) counts as
    itself.
    """
    found = ipaddress.ip_address(address.partition("%")[0])
    if any(found in network for network in _LOCAL):
        return False
    return all(one.is_global and not one.is_multicast for one in (found, *_inside(found)))


def _inside(address: IPv4Address | IPv6Address) -> list[IPv4Address]:
    """Return the IPv4 addresses that an IPv6 address stands for."""
    if isinstance(address, IPv4Address):
        return []
    found = [address.ipv4_mapped, address.sixtofour, *(address.teredo or ())]
    if int(address) < 1 << 32 or any(address in network for network in _TRANSLATED):
        found.append(IPv4Address(int(address) & 0xFFFFFFFF))
    return [one for one in found if one is not None]


def resolve(host: str, port: int, allow_private: bool) -> list[tuple[int, Any]]:
    """Return family and socket address of what may be reached, MOST_ADDRESSES of a kind.

    Raises FetchFailed: ``dns``, ``bad_url``, or ``private_address`` if no address is public.
    """
    try:
        infos = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        raise FetchFailed("dns", f"{host}: {error.strerror}") from None
    except (UnicodeError, OverflowError, ValueError) as error:
        raise FetchFailed("bad_url", str(error)) from None
    found: list[tuple[int, Any]] = list(dict.fromkeys((info[0], info[4]) for info in infos))
    public = [one for one in found if allow_private or is_public(str(one[1][0]))]
    if not public:
        raise FetchFailed("private_address", f"{host} is {found[0][1][0] if found else 'nowhere'}")
    tried: Counter[int] = Counter()
    chosen: list[tuple[int, Any]] = []
    for family, place in public:
        tried[family] += 1
        if tried[family] <= MOST_ADDRESSES:
            chosen.append((family, place))
    return chosen


def dial(host: str, port: int, timeout: float, allow_private: bool) -> socket.socket:
    """Connect to a host at an address that was judged; each may take ``timeout`` seconds."""
    trouble: OSError | None = None
    for family, place in resolve(host, port, allow_private):
        connected = socket.socket(family, socket.SOCK_STREAM)
        try:
            connected.settimeout(timeout)
            connected.connect(place)
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError as error:
            connected.close()
            trouble = error
        else:
            return connected
    assert trouble is not None
    raise trouble
