# SPDX-License-Identifier: MIT
"""Sockets as the transports want them."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator

from ..core.types import Address
from . import TransportError

#: Connections that wait to be accepted.
BACKLOG = 512


def listening_socket(listen: Address | tuple[str, int], kind: socket.SocketKind) -> socket.socket:
    """A bound, non-blocking socket; ``::`` takes IPv4 too. Raises ``TransportError`` naming the address."""
    ip, port = listen if isinstance(listen, tuple) else (listen.ip, listen.port)
    family = socket.AF_INET6 if ":" in ip else socket.AF_INET
    sock = None
    try:
        sock = socket.socket(family, kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        if kind == socket.SOCK_STREAM:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((ip, port))
        if kind == socket.SOCK_STREAM:
            # At once: with SO_REUSEADDR a port in use shows only here.
            sock.listen(BACKLOG)
    except OSError as error:
        if sock is not None:
            sock.close()
        name = "TCP" if kind == socket.SOCK_STREAM else "UDP"
        shown = f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}"
        raise TransportError(f"cannot listen on {name} {shown}: {error.strerror or error}") from error
    return sock


@contextlib.contextmanager
def closing_on_error(*sockets: socket.socket) -> Iterator[None]:
    """Close ``sockets`` when what follows fails."""
    try:
        yield
    except BaseException:
        for sock in sockets:
            sock.close()
        raise
