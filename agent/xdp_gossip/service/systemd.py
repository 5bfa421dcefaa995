# SPDX-License-Identifier: MIT
"""Notifies systemd of the service's state, and feeds its watchdog."""

from __future__ import annotations

import contextlib
import os
import socket


class Systemd:
    """The notification protocol of sd_notify(3): a datagram to the socket that systemd names.

    It does not use libsystemd, which would load a compressor and a cipher library into every agent's memory.
    """

    def __init__(self) -> None:
        name = os.environ.get("NOTIFY_SOCKET", "")
        # "@" stands for the abstract namespace (unix(7)).
        self._address = "\0" + name[1:] if name.startswith("@") else name

    @property
    def listens(self) -> bool:
        """Whether a service manager listens."""
        return bool(self._address)

    def tell(self, *lines: str) -> None:
        """Send assignments such as READY=1. It never fails, even if no manager listens."""
        if self._address:
            with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
                manager.setblocking(False)
                manager.sendto("\n".join(lines).encode(), self._address)

    @staticmethod
    def watchdog_seconds() -> float | None:
        """Seconds between watchdog messages: half of what systemd allows; None if it does not watch this process."""
        try:
            microseconds = int(os.environ["WATCHDOG_USEC"])
            watched = int(os.environ.get("WATCHDOG_PID", os.getpid()))
        except (KeyError, ValueError):
            return None
        return microseconds / 2e6 if watched == os.getpid() and microseconds > 0 else None
