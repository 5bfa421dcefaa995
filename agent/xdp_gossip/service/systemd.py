# SPDX-License-Identifier: MIT
"""Reports the agent's state to systemd and sends messages to systemd's watchdog."""

from __future__ import annotations

import contextlib
import os
import socket


class Systemd:
    """A client of the sd_notify(3) protocol: it sends datagrams to the socket that NOTIFY_SOCKET names.

    The class does not use libsystemd, which would load a compression and a cipher library into every agent's memory.
    """

    def __init__(self) -> None:
        name = os.environ.get("NOTIFY_SOCKET", "")
        # A leading "@" means the abstract namespace (unix(7)).
        self._address = "\0" + name[1:] if name.startswith("@") else name

    @property
    def listens(self) -> bool:
        """Whether a service manager listens for notifications."""
        return bool(self._address)

    def tell(self, *lines: str) -> None:
        """Send assignments such as READY=1 to systemd. Raises no error, even if no service manager listens."""
        if self._address:
            with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
                manager.setblocking(False)
                manager.sendto("\n".join(lines).encode(), self._address)

    @staticmethod
    def watchdog_seconds() -> float | None:
        """Return the seconds between watchdog messages (half of systemd's time limit), or None if systemd does not
        watch this process.
        """
        try:
            microseconds = int(os.environ["WATCHDOG_USEC"])
            watched = int(os.environ.get("WATCHDOG_PID", os.getpid()))
        except (KeyError, ValueError):
            return None
        return microseconds / 2e6 if watched == os.getpid() and microseconds > 0 else None
