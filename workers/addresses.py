"""Where experts may be called, looked at when a connection is made: a name that suddenly means another address changes nothing."""

from __future__ import annotations

import errno
import ipaddress
import socket
from collections.abc import Iterable
from typing import Any

NETWORKS = ("loopback", "private", "public")
"""What may be allowed. Everything else never is: link-local addresses, where clouds tell secrets to whoever asks, multicast, and what
stands for no host."""
_METADATA = frozenset(map(ipaddress.ip_address, ("169.254.169.254", "100.100.100.200", "fd00:ec2::254", "168.63.129.16")))
"""Metadata services of clouds, wherever their addresses lie."""


class AddressRefused(OSError):
    """A connection that may not be made."""


class AddressPolicy:
    """Allows connections to *networks*, some of ``NETWORKS``."""

    def __init__(self, networks: Iterable[str] = NETWORKS) -> None:
        self._networks = frozenset(networks)

    def obstacle(self, address: str) -> str | None:
        """Why no connection may be made to the IP *address*; None when one may."""
        network = network_of(address)
        if network is None:
            return "link-local, metadata, multicast and reserved addresses are never called"
        if network not in self._networks:
            return f"{network} addresses may not be called (CONSILIUM_EXPERT_NETWORKS)"
        return None

    def socket(self, info: Any) -> socket.socket:
        """aiohttp's ``socket_factory``: asked for each address right before it is connected to. Raises ``AddressRefused``."""
        family, kind, protocol, _, address = info
        if why := self.obstacle(str(address[0])):
            raise AddressRefused(errno.EACCES, why)
        return socket.socket(family, kind, protocol)


def network_of(address: str) -> str | None:
    """One of ``NETWORKS``; None for an address of none of them."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        ip = ip.ipv4_mapped or ip.sixtofour or ip
    if ip in _METADATA or ip.is_link_local or ip.is_multicast or ip.is_unspecified:
        return None
    if ip.is_loopback:
        return "loopback"
    if ip.is_global:
        return "public"
    return None if ip.is_reserved else "private"
