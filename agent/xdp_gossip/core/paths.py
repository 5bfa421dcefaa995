# SPDX-License-Identifier: MIT
"""Finds how long a datagram to each peer may be: some paths lose long ones silently (RFC 2923, 2.1).

A peer that asks again over a connection what it had asked by datagram shows that something was lost. This member then
sends it short and long pings, and compares which are answered (RFC 8899's idea of a probe). If only short ones are
answered, twice in a row, whatever is longer than ``SHORT`` goes over TCP. Of twins neither gets all answers, which says
nothing about the path.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from .events import Warned
from .members.membership import Membership
from .members.peer import Peer
from .messages import Ping
from .outbox import Outbox
from .types import Address, Now

#: Longest packet sent as a datagram: what IPv6 carries everywhere (1,280 bytes) less its and UDP's headers.
LONG = 1232
#: Bytes that even a path with IPv4's least MTU (576) and tunnels carries.
SHORT = 508
#: This many requests over a connection, within this many seconds, start a test.
_HINTS, _HINTS_IN = 2, 60.0
#: Tests in a row that must agree that long datagrams are lost: a single test may lose all of them by chance.
_TESTS = 2
#: Pings of each length, and seconds after which an unanswered ping counts as lost.
_PINGS, _ANSWERS_IN = 3, 3.0
#: Seconds after which a path is trusted again. If it still loses long datagrams, a new test shows that soon.
_AGAIN = 600.0
#: Most bytes of a ping's header and body without padding. The padding makes it as long as a datagram may be.
_OVERHEAD = 88 + 16 + 64


@dataclass
class _Test:
    until: float
    short: set[int]
    long: set[int]
    number: int  # of those in a row, from 1
    short_answered: bool = False
    long_answered: bool = False


class Paths:
    """Tests suspicious paths, and tells the outbox what they carry.

    ``shared``: tells whether two hosts may use an address, or this node's address.
    """

    def __init__(self, membership: Membership, out: Outbox, shared: Callable[[Address], bool]) -> None:
        self._membership = membership
        self._shared = shared
        self._out = out
        self._hints: dict[Address, deque[float]] = {}
        self._tests: dict[Address, _Test] = {}
        self._limited: dict[Address, float] = {}  # address -> until when

    @property
    def testing(self) -> bool:
        """Whether a test is in progress."""
        return bool(self._tests)

    def asked_again(self, peer: Peer, now: Now) -> None:
        """Note that a peer asked over a connection what a datagram would have carried."""
        address = peer.address
        if address in self._tests or address in self._limited or not peer.present:
            return
        hints = self._hints.setdefault(address, deque(maxlen=_HINTS))
        hints.append(now.mono)
        if len(hints) < _HINTS or now.mono - hints[0] > _HINTS_IN:
            return
        self._test(peer, 1, now)

    def _test(self, peer: Peer, number: int, now: Now) -> None:
        address = peer.address
        test = self._tests[address] = _Test(now.mono + _ANSWERS_IN, set(), set(), number)
        for _ in range(_PINGS):
            for nonces, padding in ((test.short, b""), (test.long, bytes(LONG - _OVERHEAD))):
                nonce = self._out.rng.getrandbits(63)
                nonces.add(nonce)
                self._out.send(Ping(nonce, address, peer.incarnation, False, padding), address, now)

    def on_ack(self, nonce: int, peer: Peer) -> None:
        """Note the answer to a ping of a test."""
        test = self._tests.get(peer.address)
        if test is not None:
            test.short_answered = test.short_answered or nonce in test.short
            test.long_answered = test.long_answered or nonce in test.long

    def tick(self, now: Now) -> None:
        """Judge tests whose time is over, and trust paths again whose limit has expired."""
        for address, test in list(self._tests.items()):
            if now.mono >= test.until:
                del self._tests[address]
                self._hints.pop(address, None)
                peer = self._membership.get(address)
                if peer is None or test.long_answered or not test.short_answered or self._shared(address):
                    continue
                if test.number < _TESTS:
                    self._test(peer, test.number + 1, now)
                else:
                    self._limit(address, now)
        for address, until in list(self._limited.items()):
            if now.mono >= until or self._shared(address):
                self.forget(address)
        for address, hints in list(self._hints.items()):
            if now.mono - hints[-1] > _HINTS_IN:
                del self._hints[address]

    def _limit(self, address: Address, now: Now) -> None:
        self._limited[address] = now.mono + _AGAIN
        self._out.datagram_limits[address] = SHORT
        self._out.count("paths_limited")
        self._mark(address, True)
        text = (
            f"the path to {address} loses datagrams of {LONG} bytes and carries short ones, without an ICMP error (an "
            f"MTU that a tunnel or a firewall hides): what is longer than {SHORT} bytes goes there over TCP"
        )
        self._out.emit(Warned("path_mtu", text))

    def forget(self, address: Address) -> None:
        """Forget what is known of the path to ``address``."""
        self._limited.pop(address, None)
        self._out.datagram_limits.pop(address, None)
        self._mark(address, False)

    def _mark(self, address: Address, on: bool) -> None:
        peer = self._membership.get(address)
        if peer is not None:
            peer.mark("short_datagrams", on)
