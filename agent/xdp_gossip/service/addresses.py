# SPDX-License-Identifier: MIT
"""Watches which of the addresses that the agent listens on this host has now.

Sockets are bound even to an address that no interface has yet (IP_FREEBIND, ip(7)), and receive as soon as one has it.
The agent therefore needs no restart when DHCP, keepalived or a slow switch is late; this module reports what is
missing.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from collections.abc import Mapping

from ..common.internal_errors import guarded

_log = logging.getLogger("xdp_gossip.addresses")

#: Notifications read per wake-up.
_BURST = 64


class Addresses:
    """The addresses of ``settings``, which maps the name of a setting to an IP address or "" for none.

    Each change is logged once. :attr:`changed` is set with it, for the task that reports it.
    """

    def __init__(self, settings: Mapping[str, str]) -> None:
        self._names: dict[str, list[str]] = {}
        for name, ip in settings.items():
            if ip:
                self._names.setdefault(ip, []).append(name)
        self._missing: list[str] = []
        self._events: socket.socket | None = None
        self.changed = asyncio.Event()

    @property
    def waiting(self) -> str:
        """The missing addresses, such as ``address 198.18.0.5 (listen_addr)``; "" when all are present."""
        return "; ".join(f"address {ip} ({', '.join(self._names[ip])})" for ip in self._missing)

    def open(self) -> None:
        """Check the addresses and follow them from now on. Must be called in a running loop.

        Where the kernel does not report changes, only :meth:`look` finds them.
        """
        self.look()
        if not self._names:
            return
        from ..dataplane import rtnetlink

        try:
            self._events = rtnetlink.events()
        except OSError as error:
            _log.warning("addresses not followed over rtnetlink, so changes show late: %s", error.strerror)
        else:
            asyncio.get_running_loop().add_reader(self._events, guarded("addresses", self._read))

    def look(self) -> None:
        """Check which addresses are present now."""
        missing = [ip for ip in self._names if not present(ip)]
        if missing == self._missing:
            return
        for ip in missing:
            if ip not in self._missing:
                names = ", ".join(self._names[ip])
                _log.warning("%s: no interface has %s: waiting for this address; not serving there yet", names, ip)
        for ip in self._missing:
            if ip not in missing:
                _log.info("%s: %s is there now", ", ".join(self._names[ip]), ip)
        self._missing = missing
        self.changed.set()

    def _read(self) -> None:
        """Read notifications. The check that follows makes up for lost ones."""
        channel = self._events
        if channel is None:
            return
        for _ in range(_BURST):
            try:
                channel.recv(1 << 16)
            except BlockingIOError:
                break
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    _log.warning("addresses not followed over rtnetlink any more: %s", error.strerror)
                    self.close()
                    break
        self.look()

    def close(self) -> None:
        """Stop following. Idempotent."""
        channel, self._events = self._events, None
        if channel is not None:
            asyncio.get_running_loop().remove_reader(channel)
            channel.close()


def present(ip: str) -> bool:
    """Whether sockets of this host can be bound to ``ip``: an IPv6 address only once it is known to be unique."""
    family = socket.AF_INET6 if ":" in ip else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as probe:
        try:
            probe.bind((ip, 0))
        except OSError as error:
            return error.errno != errno.EADDRNOTAVAIL
    return True
