# SPDX-License-Identifier: MIT
"""Receives the helper's reports of rendered files that were changed by hand, and limits how often such a file is
repaired.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from .helper_client import HelperUnreachable, watch

_log = logging.getLogger("xdp_gossip.templates")

#: First and longest delay, in seconds, before the agent repairs a file that was changed again after a repair. Without
#: this delay, two programs that write the same file differently would reload a service all the time.
_REPAIR, _REPAIR_MOST = 2.0, 600.0
#: First and longest delay, in seconds, before the agent connects again to a helper that does not answer.
_RETRY, _RETRY_MOST = 2.0, 60.0


class Pace:
    """Decides when a file is repaired: at once, then at growing intervals until the file stays unchanged."""

    def __init__(self) -> None:
        self._next = 0.0
        self._last: float | None = None

    def delay(self, now: float) -> float:
        """Return the seconds to wait before the next repair. ``now``: current time in seconds of a monotonic clock."""
        if self._last is None or now - self._last > 2 * _REPAIR_MOST:
            self._next = 0.0
        found = self._next
        self._last = now + found
        self._next = min(max(2 * found, _REPAIR), _REPAIR_MOST)
        return found


async def follow(socket: str, tell: Callable[[dict[str, str]], None]) -> None:
    """Call ``tell`` with each drift report that the helper at ``socket`` sends. Never returns."""
    retry, said = _RETRY, ""
    while True:
        try:
            async for drifted in watch(socket):
                retry, said = _RETRY, ""
                tell(drifted)
        except HelperUnreachable as error:
            if str(error) != said:
                said = str(error)
                _log.info("%s: rendered files are not watched until it is back", error)
        await asyncio.sleep(retry)
        retry = min(2 * retry, _RETRY_MOST)
