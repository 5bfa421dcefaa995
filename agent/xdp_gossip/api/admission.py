# SPDX-License-Identifier: MIT
"""Decides which clients may keep a connection to the API open.

The number of connections from each source is limited. The number of unauthenticated connections is also limited, so
that unauthenticated clients cannot lock out clients with a token. A source is an IPv4 address, an IPv6 /64 (a host with
one address of a /64 can use all addresses of that /64), or a user on the Unix socket. If a new connection would exceed
a limit, the admission closes the oldest unauthenticated connection and admits the new connection. If no unauthenticated
connection exists, the admission refuses the new connection. If the limit of one source is reached, the admission closes
a connection of that source. If a limit for all sources is reached, the admission closes a connection of the source with
the most unauthenticated connections.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import gc
import ipaddress
import logging
from typing import Any, Callable

from ..common.quiet import Quiet

#: Limits for one listening socket: all connections, unauthenticated connections, and connections from one source.
MAX_CONNECTIONS = 512
MAX_STRANGERS = 256
MAX_PER_SOURCE = 64
#: Maximum number of connections on the Unix socket: from one user, and from all users together. Connections of root and
#: of the agent's own user are not counted. Everyone who can connect to the Unix socket is authorised.
MAX_PER_USER = 256
MAX_USERS = 384
#: Freed memory is returned to the system once ``_TRIM_AFTER`` connections have closed, after a delay of
#: ``_TRIM_SECONDS``.
_TRIM_AFTER, _TRIM_SECONDS = 64, 5.0

#: Names of the counters that the admission increases. Each counter is reported from the start, with the value 0.
NAMES = (
    *("api_refused_full", "api_refused_source", "api_evicted", "api_closed_idle", "api_closed_stalled"),
    *("api_closed_flood", "api_malformed", "api_tls_failed", "api_unauthorized"),
)


def source_of(peer: Any) -> str:
    """Return the source (IP address or network) of the socket address ``peer``; "" if ``peer`` contains no address."""
    if not isinstance(peer, tuple) or not peer:
        return ""
    try:
        address = ipaddress.ip_address(str(peer[0]).partition("%")[0])
    except ValueError:
        return str(peer[0])
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        return str(ipaddress.ip_network((address, 64), strict=False))
    return str(address)


def _nothing() -> None:
    """Do nothing.

    Placeholder for the callbacks of a connection, before the connection can be closed and after it has been closed.
    """


class Place:
    """The admission state of one connection. ``proven`` is True once the client has authenticated."""

    __slots__ = ("admission", "cut", "handled", "heads", "proven", "refused", "source", "unread")

    def __init__(self, admission: Admission, source: str, proven: bool) -> None:
        self.admission = admission
        self.source = source
        self.proven = proven
        #: Whether a request on this connection was refused. After a refusal, nothing more is read from the connection.
        self.refused = False
        #: Number of request heads received, and number of requests whose handling has begun.
        self.heads = 0
        self.handled = 0
        #: Closes the connection.
        self.cut: Callable[[], None] = _nothing
        #: Callback that marks the body of a refused request as completely read. Without this call, aiohttp would read
        #: and discard the body for a while, even after the client has disconnected.
        self.unread: Callable[[], None] = _nothing

    def prove(self) -> None:
        """Mark the client as authenticated."""
        if not self.proven:
            self.proven = True
            self.admission.proved(self)

    def leave(self) -> None:
        """Stop counting the connection and clear its callbacks.

        The callbacks belong to a reference cycle that would keep the connection in memory.
        """
        self.unread()
        self.cut = self.unread = _nothing
        self.admission.left(self)


class Admission:
    """Manages all connections of one listening socket.

    ``counters`` receives the counts of refused and closed connections; ``log`` receives messages about failed
    handshakes, wrong tokens and malformed requests, at a limited rate.
    """

    def __init__(self, counters: dict[str, int], log: logging.Logger, *, local: bool = False) -> None:
        self.counters = counters
        self.quiet = Quiet(log)
        self._local = local
        self._places: collections.OrderedDict[Place, None] = collections.OrderedDict()
        self._strangers: dict[
            str, collections.OrderedDict[Place, None]
        ] = {}  # source -> its unauthenticated connections, oldest first
        self._number = 0  # number of all unauthenticated connections
        self._per_source: collections.Counter[str] = collections.Counter()
        self._gone = 0
        self._trims = False
        for name in NAMES:
            counters.setdefault(name, 0)

    @property
    def open(self) -> int:
        """The number of open connections."""
        return len(self._places)

    def admit(self, source: str) -> Place | None:
        """Admit a new connection and return its state (``Place``); return None if the connection must be refused."""
        share = MAX_PER_USER if self._local else MAX_PER_SOURCE
        if source and self._per_source[source] >= share and not self._evict(source):
            self.counters["api_refused_source"] += 1
            return None
        if self._local and source and self.open - self._per_source[""] >= MAX_USERS:
            self.counters["api_refused_full"] += 1
            return None
        if (self._number >= MAX_STRANGERS or self.open >= MAX_CONNECTIONS) and not self._evict(""):
            self.counters["api_refused_full"] += 1
            return None
        place = Place(self, source, proven=self._local)
        self._places[place] = None
        self._per_source[source] += 1
        if not place.proven:
            self._strangers.setdefault(source, collections.OrderedDict())[place] = None
            self._number += 1
        return place

    def _evict(self, source: str) -> bool:
        """Close the oldest unauthenticated connection of ``source``; "" selects the source with the most
        unauthenticated connections.

        Returns False if ``source`` has no unauthenticated connection.
        """
        if not source:
            source = max(self._strangers, key=lambda name: len(self._strangers[name]), default="")
        waiting = self._strangers.get(source)
        if not waiting:
            return False
        place = next(iter(waiting))
        self.counters["api_evicted"] += 1
        self.left(place)
        place.cut()
        return True

    def proved(self, place: Place) -> None:
        """Stop counting ``place`` as unauthenticated (called by :meth:`Place.prove`)."""
        self._no_stranger(place)

    def _no_stranger(self, place: Place) -> None:
        waiting = self._strangers.get(place.source)
        if waiting is None or place not in waiting:
            return
        del waiting[place]
        self._number -= 1
        if not waiting:
            del self._strangers[place.source]

    def left(self, place: Place) -> None:
        """Stop counting the connection of ``place``. Idempotent."""
        if place not in self._places:
            return
        del self._places[place]
        self._no_stranger(place)
        self._per_source[place.source] -= 1
        if not self._per_source[place.source]:
            del self._per_source[place.source]
        self._gone += 1
        if self._gone >= _TRIM_AFTER and not self._trims:
            with contextlib.suppress(RuntimeError):  # no running loop: the process is exiting
                asyncio.get_running_loop().call_later(_TRIM_SECONDS, self._trim)
                self._trims = True

    def _trim(self) -> None:
        self._gone, self._trims = 0, False
        _give_back()


def _give_back() -> None:
    """Return the memory of closed connections to the operating system.

    The objects of a connection refer to each other, so only the garbage collector frees them, and the collector runs
    rarely. The C library keeps the freed memory until ``malloc_trim`` returns it to the operating system.
    """
    gc.collect()
    with contextlib.suppress(ImportError, AttributeError, OSError, MemoryError):  # no malloc_trim without glibc
        import ctypes

        ctypes.CDLL(None).malloc_trim(0)
