# SPDX-License-Identifier: MIT
"""Finds the longest datagram that the path to each peer supports. Some paths lose long datagrams (RFC 2923, 2.1).

If a peer repeats a request over TCP, a datagram was lost: either the first request or the answer to it. A member that
receives a repeated request sends the peer short and long pings, and compares which of the pings the peer answers
(probes as in RFC 8899). If the peer answers only short pings in two tests in a row, this member sends packets longer
than ``SHORT`` to the peer over TCP. If two hosts share an address, each of them misses some of the answers, so this
member ignores the result of the test.
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
from .packets import LONG
from .types import Address, Now

#: On a path that loses long datagrams, the local node sends packets of up to this many bytes as datagrams. Such a
#: packet passes every path. A packet of this size and tunnel headers fit into IPv4's minimum datagram of 576 bytes.
SHORT = 508
#: ``_HINTS`` repeated requests over TCP within ``_HINTS_IN`` seconds start a test of the path.
_HINTS, _HINTS_IN = 2, 60.0
#: A path is limited after this number of tests in a row have lost all long datagrams. A single test may lose all long
#: datagrams by chance.
_TESTS = 2
#: Number of pings of each length in a test, and seconds after which an unanswered ping counts as lost.
_PINGS, _ANSWERS_IN = 3, 3.0
#: Seconds after which this member tries long datagrams again on a limited path. If the path still loses long datagrams,
#: new tests limit the path again.
_AGAIN = 600.0
#: Maximum bytes of a ping without its padding. The padding fills a long ping up to about ``LONG`` bytes.
_OVERHEAD = 88 + 16 + 64


@dataclass
class _Test:
    until: float
    short: set[int]
    long: set[int]
    number: int  # 1 for the first of several consecutive tests, 2 for the second, ...
    short_answered: bool = False
    long_answered: bool = False


class Paths:
    """Tests paths that seem to lose long datagrams, and sets the longest datagram of each path in the outbox.

    ``shared``: function that returns whether two hosts may share the given address, or whether another host may share
    this node's address.
    """

    def __init__(self, membership: Membership, out: Outbox, shared: Callable[[Address], bool]) -> None:
        self._membership = membership
        self._shared = shared
        self._out = out
        self._hints: dict[Address, deque[float]] = {}
        self._tests: dict[Address, _Test] = {}
        self._limited: dict[Address, float] = {}  # address -> time at which the limit on the path ends

    @property
    def testing(self) -> bool:
        """Whether a test is in progress."""
        return bool(self._tests)

    def asked_again(self, peer: Peer, now: Now) -> None:
        """Count a request from ``peer`` that came over TCP although it fits a datagram.

        After ``_HINTS`` of these requests within ``_HINTS_IN`` seconds, test the path.
        """
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
        """Record that ``peer`` answered the ping ``nonce`` of a test."""
        test = self._tests.get(peer.address)
        if test is not None:
            test.short_answered = test.short_answered or nonce in test.short
            test.long_answered = test.long_answered or nonce in test.long

    def tick(self, now: Now) -> None:
        """Evaluate the tests that have ended, and remove the limits whose time has ended."""
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
        """Remove the limit of the path to ``address``, and the problem that marks the peer at ``address``."""
        self._limited.pop(address, None)
        self._out.datagram_limits.pop(address, None)
        self._mark(address, False)

    def _mark(self, address: Address, on: bool) -> None:
        peer = self._membership.get(address)
        if peer is not None:
            peer.mark("short_datagrams", on)
