"""Addresses: is the port ours to take, and under which URL will the API be found?"""

from __future__ import annotations

import errno
import socket

from cli.errors import PortUnusable


def check_free(host: str, port: int) -> int:
    """The port, or a free one for port 0; raises `PortUnusable` with what to do."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the API itself does
        try:
            probe.bind((host, port))
        except OSError as error:
            raise PortUnusable(_sentence(host, port, error)) from error
        return int(probe.getsockname()[1])


def url_of(host: str, port: int) -> str:
    """The address to reach a service that listens on `host`, from this machine."""
    reachable = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - compared, not bound
    return f"http://[{reachable}]:{port}" if ":" in reachable else f"http://{reachable}:{port}"


def _sentence(host: str, port: int, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"Port {port} is taken; choose another with --port."
    if error.errno == errno.EACCES:
        return f"Port {port} needs more rights; choose one above 1023 with --port."
    return f"{host} is not an address of this machine; choose another with --host."
