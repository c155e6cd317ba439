"""Which URLs may be called: http(s) only, and never the machines behind our own firewall unless that is allowed."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Awaitable, Callable

import httpx

from shared.errors import InvalidRequest

_PRIVATE = "Webhooks are not sent to private addresses; set FINETUNED_WEBHOOK_ALLOW_PRIVATE=true to allow it."
_TRANSLATED = ipaddress.ip_network("64:ff9b::/96")  # NAT64: the last 32 bits are an IPv4 address
_TUNNELS = (ipaddress.ip_network("2002::/16"), ipaddress.ip_network("::/96"))  # these carry one too; nobody needs them
_SCHEMES = ("http", "https")
_LAST_PORT = 65535
LONGEST_URL = 2000


Resolve = Callable[[str], Awaitable[list[str]]]


class AddressRefused(Exception):
    """The name does not exist, or leads to an address that may not be called."""


def checked_url(text: str, *, allow_private: bool) -> str:
    """The URL as it will be called; raises `InvalidRequest`. A name is looked up only when something is sent."""
    try:
        url = httpx.URL(text)
    except (httpx.InvalidURL, ValueError) as error:
        raise InvalidRequest("The webhook's url is not a URL.", param="url") from error
    if url.scheme not in _SCHEMES or not url.host or (url.port or 0) > _LAST_PORT:
        raise InvalidRequest("The webhook's url must be http(s)://host/… or http(s)://host:port/….", param="url")
    if url.userinfo:
        raise InvalidRequest("The webhook's url must not hold a user or a password.", param="url")
    if not allow_private and _is_private_name(host_of(url)):
        raise InvalidRequest(_PRIVATE, param="url")
    if len(str(url)) > LONGEST_URL:
        raise InvalidRequest(f"The webhook's url is longer than {LONGEST_URL} characters.", param="url")
    return str(url)


async def resolve(host: str) -> list[str]:
    """The host's addresses, the one to try first in front; raises `OSError` or `UnicodeError`."""
    found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


async def addresses_of(url: httpx.URL, resolve: Resolve, *, allow_private: bool) -> list[str]:
    """The addresses behind the URL's host, all checked; raises `AddressRefused`. Who connects must use one of these
    and not the name, which might lead elsewhere a moment later."""
    try:
        addresses = await resolve(host_of(url))
    except (OSError, UnicodeError) as error:
        raise AddressRefused("The host's name cannot be resolved.") from error
    if not allow_private and not all(map(is_public, addresses)):
        raise AddressRefused(_PRIVATE)
    return addresses


def host_of(url: httpx.URL) -> str:
    """The host as it is looked up: in ASCII."""
    return url.raw_host.decode()


def is_public(address: str) -> bool:
    """Whether an IP address belongs to the internet at large."""
    ip = ipaddress.ip_address(address)
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.ipv4_mapped is not None:
            return is_public(str(ip.ipv4_mapped))
        if ip in _TRANSLATED:
            return is_public(str(ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)))
        if ip.is_site_local or any(ip in tunnel for tunnel in _TUNNELS):
            return False
    return ip.is_global and not (ip.is_multicast or ip.is_reserved)


def _is_private_name(host: str) -> bool:
    """Whether that is plain without asking anybody. `127.1` and `0x7f000001` are addresses too."""
    if host.rstrip(".") == "localhost" or host.rstrip(".").endswith(".localhost"):
        return True
    try:
        found = socket.getaddrinfo(host, None, flags=socket.AI_NUMERICHOST)
    except (OSError, UnicodeError):
        return False
    return not all(is_public(str(entry[4][0])) for entry in found)
