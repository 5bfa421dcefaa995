# SPDX-License-Identifier: MIT
"""Joins the cluster once the kernel data plane that ``protocol: XDP`` or ``TC`` requires is loaded.

The process keeps running while it waits for the data plane. If the process exited instead, systemd would restart it
every two seconds, and each start would make the loader compile the programs. At growing intervals, the waiting process
asks the loader to load the data plane (see ``dataplane/asking.py``).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..core.types import Now
from ..dataplane.asking import TOWARD, Asking, Request
from ..dataplane.maps import Loaded
from ..dataplane.monitor import Monitor
from ..transport import NoPlane

if TYPE_CHECKING:
    from ..nodelist import AsyncNodeList

_log = logging.getLogger("xdp_gossip.dataplane")

#: Seconds between two checks whether the data plane is loaded: ``PEEK_EVERY`` while a loader may be running, otherwise
#: ``LOOK_EVERY``.
PEEK_EVERY, LOOK_EVERY = 0.5, 5.0


class PlaneWait:
    """Joins ``node_list`` to its cluster once the data plane in ``directory`` is loaded.

    ``ip`` is the local node's address. ``toward`` contains the known addresses of seeds. :class:`PlaneWait` calls
    ``told`` whenever :attr:`waiting` changes.
    """

    def __init__(
        self, node_list: AsyncNodeList, directory: Path, ip: str, told: Callable[[], None], toward: Sequence[str] = ()
    ) -> None:
        self._node_list = node_list
        self._directory = directory
        self._monitor = Monitor(ip)
        self._monitor.toward = tuple(toward)[:TOWARD]
        self._told = told
        self._asking = Asking(Request(directory), lambda name: None)
        self._wake = asyncio.Event()
        self._stopped = False
        self._said: deque[str] = deque(maxlen=8)
        #: The data plane that the agent waits for, with the reason why it is missing; "" if the agent does not wait.
        self.waiting = ""

    async def join(self) -> bool:
        """Join the cluster, however long it takes. Returns False if :meth:`stop` was called before the node joined.

        Raises the errors of the node list, except ``NoPlane``.
        """
        following = False
        try:
            while not self._stopped:
                stamp = Loaded.stamp(self._directory)
                try:
                    await self._node_list.join()
                except NoPlane as error:
                    self._say(str(error))
                else:
                    self.waiting = ""
                    return True
                if not following:
                    following = True
                    self._follow()
                self._monitor.watch(0, Loaded.asked(self._directory))
                await self._pause(stamp)
            return False
        finally:
            self._monitor.close()

    def look(self) -> None:
        """Try to join again now."""
        self._wake.set()

    def stop(self) -> None:
        """Stop waiting. :meth:`join` then returns False."""
        self._stopped = True
        self._wake.set()

    def _say(self, why: str) -> None:
        waiting = f"a kernel data plane ({why})"
        if waiting == self.waiting:
            return
        self.waiting = waiting
        # While a loader runs, the reason changes to "a loader is at work" and back. To avoid repetitions, each reason
        # is logged only once.
        if why not in self._said:
            self._said.append(why)
            _log.warning("%s; no member until there is one; %s", why, self._asking.words())
        self._told()

    def _follow(self) -> None:
        """Subscribe to changes of interfaces and addresses, so that each change immediately causes a new request to the
        loader.
        """
        self._monitor.on_change = self._wake.set
        self._monitor.open()
        now = _now()
        self._asking.follow(self._monitor.facts, 0, now.mono)
        self._asking.want(now.mono)
        self._asking.hurry(now.mono)

    async def _pause(self, stamp: tuple[int, int] | None) -> None:
        """Wait until the loader has written a new state, or :meth:`look` or :meth:`stop` is called."""
        while not self._stopped and Loaded.stamp(self._directory) == stamp:
            now = _now()
            self._monitor.refresh()
            self._asking.follow(self._monitor.facts, 0, now.mono)
            self._asking.attend(self.waiting, now)
            often = PEEK_EVERY if now.mono < self._asking.answer_by else LOOK_EVERY
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._wake.wait(), max(0.0, min(often, self._asking.due - now.mono)))
                self._wake.clear()
                return


def _now() -> Now:
    return Now(time.monotonic(), time.time_ns())
