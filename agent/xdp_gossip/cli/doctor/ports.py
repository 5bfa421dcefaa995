# SPDX-License-Identifier: MIT
"""Checks whether an agent that is not running could bind its ports."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from collections.abc import Iterator

from . import unseen
from .finding import Finding, Subject
from .look import Look

_SAYS = Subject("port", taken="error", address="warning", refused="error")


def examine(look: Look) -> Iterator[Finding]:
    """Yield findings about the agent's ports; no findings while the agent runs, because the agent itself has bound the
    ports.
    """
    config = look.config
    if config is None or look.problems or look.state != "down" or look.status is not None:
        return
    wanted = [
        (config.listen_addr, config.node.port, socket.SOCK_DGRAM),
        (config.listen_addr, config.node.port, socket.SOCK_STREAM),
    ]
    if config.api.listen is not None:
        wanted.append((config.api.listen.ip, config.api.listen.port, socket.SOCK_STREAM))
    for ip, port, kind in wanted:
        name = f"{ip} port {port}/{'udp' if kind == socket.SOCK_DGRAM else 'tcp'}"
        with contextlib.closing(socket.socket(socket.AF_INET6 if ":" in ip else socket.AF_INET, kind)) as probe:
            if kind == socket.SOCK_STREAM:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((ip, port))
            except OSError as error:
                yield _why(error, name, ip, port)
            else:
                yield _SAYS.ok(f"{name} is free")


def _why(error: OSError, name: str, ip: str, port: int) -> Finding:
    if error.errno == errno.EADDRNOTAVAIL:
        text = f"{name}: no interface has {ip}: the agent waits for this address and does not serve there yet"
        return _SAYS("address", text, "give the address to an interface, or name another one")
    if error.errno == errno.EADDRINUSE:
        return _SAYS("taken", f"{name}: {error.strerror}", f"ss -lntup | grep :{port}")
    if error.errno == errno.EACCES and os.geteuid():
        return unseen(name)
    return _SAYS("refused", f"{name}: {error.strerror}", "name another port, or see what forbids this one: dmesg")
