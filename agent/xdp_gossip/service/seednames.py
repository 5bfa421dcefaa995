# SPDX-License-Identifier: MIT
"""Resolves seeds that are given by name, repeatedly, so that they may move, and outside the event loop.

A name that does not resolve is tried again, forever; its former addresses stay seeds meanwhile.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future

from ..core.types import Address, Node
from ..nodelist import AsyncNodeList

_log = logging.getLogger("xdp_gossip.seeds")

#: Seconds between two lookups of every name: while no other member is present, and otherwise.
ALONE_EVERY, EVERY = 5.0, 60.0
#: Most addresses that are taken from one name.
MOST_ADDRESSES = 32
#: Seconds to wait for one lookup. After that it goes on in its thread, and no other lookup begins until it ends.
LOOKUP_SECONDS = 10.0

Name = tuple[str, int]
#: Blocks; returns the addresses of a name. Raises ``OSError``.
Lookup = Callable[[str, int], Iterable[str]]


def look_up(host: str, port: int) -> list[str]:
    """The addresses that the system's resolver knows for ``host``. Raises ``OSError``."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


class SeedNames:
    """Updates the seeds of ``node_list`` to what ``names`` resolve to, until :meth:`run` is cancelled.

    ``fixed``: seeds that are given by address, and stay. ``counters``: gets ``seed_lookups`` and
    ``seed_lookups_failed``.
    """

    def __init__(
        self, node_list: AsyncNodeList, own: Address, counters: dict[str, int], lookup: Lookup = look_up
    ) -> None:
        self._node_list = node_list
        self._own = own
        self._counters = counters
        self._lookup = lookup
        self._names: tuple[Name, ...] = ()
        self._fixed: frozenset[Address] = frozenset()
        self._meaning: dict[Name, tuple[Address, ...]] = {}
        self._failed: set[Name] = set()
        self._again = asyncio.Event()
        self._busy: Future[list[str]] | None = None
        for counter in ("seed_lookups", "seed_lookups_failed"):
            counters.setdefault(counter, 0)

    def configure(self, names: Sequence[Name], fixed: Iterable[Address]) -> None:
        """Apply another configuration; new names are looked up at once."""
        self._names = tuple(names)
        self._fixed = frozenset(fixed)
        for name in set(self._meaning) - set(names):
            self._mean(name, ())
            del self._meaning[name]
        self._again.set()

    async def run(self) -> None:
        """Look up all names repeatedly."""
        while True:
            self._again.clear()
            for name in self._names:
                await self._resolve(name)
            alone = len(self._node_list.members()) < 2
            pause = ALONE_EVERY if alone and self._names else EVERY
            try:
                await asyncio.wait_for(self._again.wait(), pause)
            except asyncio.TimeoutError:
                continue

    async def _resolve(self, name: Name) -> None:
        self._counters["seed_lookups"] += 1
        try:
            found = await self._look_up(name)
            addresses = tuple(Address.of(ip, name[1]) for ip in found if "%" not in ip)[:MOST_ADDRESSES]
            if not addresses:
                raise OSError("it has no address")
        except (OSError, ValueError, UnicodeError) as error:
            self._counters["seed_lookups_failed"] += 1
            if name not in self._failed:
                self._failed.add(name)
                _log.warning("seed %s:%d: expected a name with an address, got: %s; tried again", *name, error)
            return
        if name in self._failed:
            self._failed.discard(name)
            _log.info("seed %s:%d resolves again", *name)
        if name in self._names:
            self._mean(name, addresses)

    async def _look_up(self, name: Name) -> list[str]:
        """Look up in a thread of its own, one at a time; the thread does not delay the end of the process."""
        if self._busy is not None and not self._busy.done():
            raise OSError(f"the resolver is still busy with an earlier name after {LOOKUP_SECONDS:g} s")
        found: Future[list[str]] = Future()
        self._busy = found

        def work() -> None:
            try:
                found.set_result(list(self._lookup(*name)))
            except (OSError, UnicodeError) as error:
                found.set_exception(error)

        threading.Thread(target=work, name="xdp-gossip-resolver", daemon=True).start()
        future = asyncio.wrap_future(found)
        try:
            return await asyncio.wait_for(asyncio.shield(future), LOOKUP_SECONDS)
        except asyncio.TimeoutError:
            future.add_done_callback(lambda done: done.cancelled() or done.exception())
            raise OSError(f"no answer of the resolver within {LOOKUP_SECONDS:g} s") from None

    def _mean(self, name: Name, addresses: tuple[Address, ...]) -> None:
        for address in addresses:
            if not address.is_one_host:
                _log.warning("seed %s:%d: expected the address of one host, got %s", *name, address)
        addresses = tuple(address for address in addresses if address.is_one_host)
        before = self._meaning.get(name, ())
        self._meaning[name] = addresses
        for address in set(addresses) - set(before) - {self._own}:
            self._node_list.set(Node(address.ip, address.port))
        kept = self._fixed.union(*self._meaning.values())
        for address in set(before) - kept:
            self._node_list.unset(Node(address.ip, address.port))
        if before and set(before) != set(addresses):
            _log.info("seed %s:%d is %s now", *name, ", ".join(map(str, addresses)) or "gone")
