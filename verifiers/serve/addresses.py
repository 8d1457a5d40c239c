"""Addresses of HTTP services: validation, formatting, free ports."""

from __future__ import annotations

import socket
from urllib.parse import urlsplit


def is_address(url: str | None) -> bool:
    """Return True if a text is the address of a service: http or https, a host, perhaps a port and a path.

    Example:
        >>> [is_address(url) for url in ("http://a:8000", "https://[::1]/v1", "a:8000", "http://a:x", None)]
        [True, True, False, False, False]
    """
    try:
        parts = urlsplit(url or "")
        return (
            parts.scheme in ("http", "https")
            and bool(parts.hostname)
            and parts.port != 0
            and not parts.query
            and not parts.fragment
        )
    except ValueError:
        return False


def http_address(host: str, port: int) -> str:
    """Return the address of a service, without a path.

    Example:
        >>> http_address("10.0.0.1", 80), http_address("::1", 80)
        ('http://10.0.0.1:80', 'http://[::1]:80')
    """
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def free_port(host: str = "127.0.0.1") -> int:
    """Return a free port of an address of this machine; "" stands for all of its addresses.

    Raises:
        OSError: it is not an address of this machine.
    """
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])
