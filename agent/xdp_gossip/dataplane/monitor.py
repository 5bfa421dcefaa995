# SPDX-License-Identifier: MIT
"""Runs in an event loop and keeps the facts about one interface and one address (``interfaces.Facts``) up to date.

The kernel answers rtnetlink requests under a lock that a driver may hold for a second while the driver resets. So a
separate thread sends the rtnetlink requests, and heartbeats do not have to wait.
"""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import logging
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from ..common.internal_errors import guarded
from . import interfaces, rtnetlink
from .interfaces import Facts

_log = logging.getLogger("xdp_gossip.dataplane")

#: Seconds from a notification until the facts are read, because several notifications usually arrive together.
GATHER = 0.1
#: Maximum notifications that are read per wake-up.
_BURST = 64


class Monitor:
    """Watches one address and the interface of a data plane.

    ``facts``: the last known facts; None if the last request to the kernel failed.
    """

    def __init__(self, ip: str) -> None:
        self._ip = ip
        self._packed = ipaddress.ip_address(ip).packed
        self._index, self._name = 0, ""
        self._events: socket.socket | None = None
        self._thread: ThreadPoolExecutor | None = None
        self._asking = self._again = False
        self._gathering: asyncio.TimerHandle | None = None
        self._complaint = ""
        #: Destination addresses of the agent's packets (:func:`interfaces.look`).
        self.toward: tuple[str, ...] = ()
        #: Called in the event loop when the facts have changed.
        self.on_change: Callable[[], None] = lambda: None
        self.facts: Facts | None = None

    def open(self) -> None:
        """Read the facts and subscribe to changes. Must be called in a running event loop."""
        self._loop = asyncio.get_running_loop()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="xdp-gossip-interfaces")
        try:
            self._events = rtnetlink.events()
            self._loop.add_reader(self._events, guarded("data plane", self._read))
        except OSError as error:
            self._complain(error)
        self._look()

    def watch(self, index: int, name: str) -> Facts | None:
        """Watch the interface ``index`` from now on, and return the current facts.

        If ``index`` is 0, watch the interface ``name``. If no interface has that name, watch the interface that has the
        address.
        """
        self._index, self._name = index, name
        if self._thread is not None:
            self._look()
        return self.facts

    def _look(self) -> None:
        try:
            self.facts = interfaces.look(*self._asked())
        except OSError as error:
            self._complain(error)
            self.facts = None

    def _asked(self) -> tuple[str, int, str, tuple[str, ...]]:
        return self._ip, self._index, self._name, self.toward

    def refresh(self) -> None:
        """Schedule another read of the facts."""
        if self._thread is None:
            return
        if self._asking:
            self._again = True
            return
        self._asking, self._again = True, False
        asked = self._asked()
        future = self._loop.run_in_executor(self._thread, interfaces.look, *asked)
        future.add_done_callback(guarded("data plane", lambda done: self._take(done, asked)))

    def _take(self, done: asyncio.Future[Facts], asked: tuple[str, int, str, tuple[str, ...]]) -> None:
        self._asking = False
        if done.cancelled() or self._thread is None:
            return
        before = self.facts
        error = done.exception()
        if isinstance(error, OSError):
            self._complain(error)
            self.facts = None
        elif error is not None:
            raise error
        elif asked == self._asked():
            self._complaint = ""
            self.facts = done.result()
        if self._again:
            self.refresh()
        if self.facts != before:
            self.on_change()

    def _complain(self, error: OSError) -> None:
        text = error.strerror or str(error)
        if text != self._complaint:
            self._complaint = text
            _log.warning("interfaces and addresses not read over rtnetlink, so changes show late: %s", text)

    def _read(self) -> None:
        """Read pending notifications.

        If the socket buffer overflowed and notifications were lost, read the facts again.
        """
        channel, due = self._events, False
        if channel is None:
            return
        for _ in range(_BURST):
            try:
                due = interfaces.concerns(channel.recv(1 << 16), self._packed, self._index, self._name) or due
            except BlockingIOError:
                break
            except OSError as error:
                due = True
                if error.errno != errno.ENOBUFS:
                    self._complain(error)
                    self._loop.remove_reader(channel)
                    break
        if due and self._gathering is None:
            self._gathering = self._loop.call_later(GATHER, guarded("data plane", self._gathered))

    def _gathered(self) -> None:
        self._gathering = None
        self.refresh()

    def close(self) -> None:
        """Release the socket, the timer and the thread. Idempotent."""
        channel, self._events = self._events, None
        if channel is not None:
            self._loop.remove_reader(channel)
            channel.close()
        if self._gathering is not None:
            self._gathering.cancel()
            self._gathering = None
        thread, self._thread = self._thread, None
        if thread is not None:
            thread.shutdown(wait=False)
