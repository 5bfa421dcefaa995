# SPDX-License-Identifier: MIT
"""Creates listening sockets with the options that the transports need."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator

from ..common.forks import own_socket
from ..core.types import Address
from . import TransportError

#: Linux socket options that make bind() accept an address which no interface has yet (ip(7), ipv6(7)).
_IP_FREEBIND, _IPV6_FREEBIND = 15, 78
#: Maximum number of connections that wait for accept(2).
BACKLOG = 512


def listening_socket(listen: Address | tuple[str, int], kind: socket.SocketKind) -> socket.socket:
    """Return a socket that :func:`bound_socket` bound to ``listen``.

    Raises a ``TransportError`` that names the address.
    """
    ip, port = listen if isinstance(listen, tuple) else (listen.ip, listen.port)
    try:
        return bound_socket(ip, port, kind)
    except OSError as error:
        name = "TCP" if kind == socket.SOCK_STREAM else "UDP"
        shown = f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}"
        raise TransportError(f"cannot listen on {name} {shown}: {error.strerror or error}") from error


def bound_socket(ip: str, port: int, kind: socket.SocketKind, *, only_six: bool = False) -> socket.socket:
    """A bound, non-blocking socket. A TCP socket also listens for connections.

    A socket on ``::`` also accepts IPv4, unless ``only_six`` is set. If no interface has the address yet, the socket
    receives packets as soon as an interface has it. Raises ``OSError``.
    """
    family = socket.AF_INET6 if ":" in ip else socket.AF_INET
    sock = socket.socket(family, kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    own_socket(sock)
    with closing_on_error(sock):
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, only_six)
            sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_FREEBIND, 1)
        else:
            sock.setsockopt(socket.IPPROTO_IP, _IP_FREEBIND, 1)
        if kind == socket.SOCK_STREAM:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((ip, port))
        if kind == socket.SOCK_STREAM:
            # Listen at once, because with SO_REUSEADDR only listen(2), not bind(2), reports that the port is in use.
            sock.listen(BACKLOG)
    return sock


@contextlib.contextmanager
def closing_on_error(*sockets: socket.socket) -> Iterator[None]:
    """Close ``sockets`` if the body of the ``with`` statement raises an exception."""
    try:
        yield
    except BaseException:
        for sock in sockets:
            sock.close()
        raise
