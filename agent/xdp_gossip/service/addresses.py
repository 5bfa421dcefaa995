# SPDX-License-Identifier: MIT
"""Monitors which of the agent's listening addresses are present on this host.

The agent's sockets can be bound to an address that no interface has yet (IP_FREEBIND, ip(7)). The sockets receive
packets as soon as an interface has the address. The agent therefore needs no restart if DHCP, keepalived or a slow
switch provides the address late. This module reports the addresses that are missing.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from collections.abc import Mapping

from ..common.internal_errors import guarded

_log = logging.getLogger("xdp_gossip.addresses")

#: Maximum number of notifications of address changes that are read per wake-up.
_BURST = 64


class Addresses:
    """The listening addresses in ``settings``, a mapping from setting name to IP address ("" for none).

    When an address appears or disappears, this class logs the change once and sets the event :attr:`changed`, which
    wakes the task that reports to systemd.
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
        """The missing addresses, such as ``address 198.18.0.5 (listen_addr)``; "" when all addresses are present."""
        return "; ".join(f"address {ip} ({', '.join(self._names[ip])})" for ip in self._missing)

    def open(self) -> None:
        """Check the addresses and subscribe to the kernel's notifications of changes.

        Must be called in a running event loop.

        If the subscription fails, changes are detected only when :meth:`look` is called.
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
        """Check which addresses are present now, and log changes."""
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
        """Read the pending notifications, then check all addresses, because notifications may have been lost."""
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
        """Unsubscribe from changes. Idempotent."""
        channel, self._events = self._events, None
        if channel is not None:
            asyncio.get_running_loop().remove_reader(channel)
            channel.close()


def present(ip: str) -> bool:
    """Try to bind a socket to ``ip``, and return whether this host has this address.

    An IPv6 address counts as present only after duplicate address detection.
    """
    family = socket.AF_INET6 if ":" in ip else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as probe:
        try:
            probe.bind((ip, 0))
        except OSError as error:
            return error.errno != errno.EADDRNOTAVAIL
    return True
