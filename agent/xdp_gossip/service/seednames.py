# SPDX-License-Identifier: MIT
"""Resolves the host names of seeds.

Lookups are repeated, because addresses may change, and run outside the event loop. A failed lookup is retried forever,
and meanwhile the name's former addresses remain seeds.
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

#: Seconds between two lookups of all names: ``ALONE_EVERY`` while no other member is alive or suspect, otherwise
#: ``EVERY``.
ALONE_EVERY, EVERY = 5.0, 60.0
#: Maximum number of addresses of one host name that are used as seeds.
MOST_ADDRESSES = 32
#: Seconds to wait for one lookup. A lookup that takes longer continues in its thread, and the next lookup starts only
#: when that thread has ended.
LOOKUP_SECONDS = 10.0

Name = tuple[str, int]
#: A blocking function (host, port) -> addresses of the host. Raises ``OSError``.
Lookup = Callable[[str, int], Iterable[str]]


def look_up(host: str, port: int) -> list[str]:
    """Ask the system's resolver for the addresses of ``host``. Raises ``OSError``."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


class SeedNames:
    """Updates the seeds of ``node_list`` to the addresses of the configured names, until :meth:`run` is cancelled.

    ``counters`` receives the counts ``seed_lookups`` and ``seed_lookups_failed``.
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
        """Replace the names to resolve, and the ``fixed`` seeds, which need no lookup.

        New names are looked up at once.
        """
        self._names = tuple(names)
        self._fixed = frozenset(fixed)
        for name in set(self._meaning) - set(names):
            self._mean(name, ())
            del self._meaning[name]
        self._again.set()

    async def run(self) -> None:
        """Look up all names repeatedly, until cancelled."""
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
        """Look up ``name`` in a separate thread; only one lookup runs at a time.

        The thread does not delay the process exit.
        """
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
            raise OSError(f"no answer from the resolver within {LOOKUP_SECONDS:g} s") from None

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
