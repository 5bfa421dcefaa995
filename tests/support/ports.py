# SPDX-License-Identifier: MIT
"""Ports for tests that have to know one before anybody listens there."""

from __future__ import annotations

import contextlib
import random
import socket

#: Below the range from which the kernel takes ports of outgoing connections: none of these takes it meanwhile.
_PORTS = range(20_000, 30_000)


def free_port() -> int:
    """A port that nobody has on any address just now, neither of UDP nor of TCP."""
    for port in random.SystemRandom().sample(_PORTS, 50):
        with (
            socket.socket(socket.AF_INET, socket.SOCK_STREAM) as tcp,
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp,
            contextlib.suppress(OSError),
        ):
            tcp.bind(("0.0.0.0", port))
            udp.bind(("0.0.0.0", port))
            return port
    raise RuntimeError(f"expected a free port from {_PORTS.start} to {_PORTS.stop - 1}, fifty were taken")
