"""What a client trusts when it speaks TLS: all the authorities, read once."""

from __future__ import annotations

import ssl
from functools import cache

import httpx


@cache
def trusted_authorities() -> ssl.SSLContext:
    """For httpx's `verify`: every client that makes its own reads them anew, for 25 ms in which nothing else runs."""
    return httpx.create_ssl_context()
