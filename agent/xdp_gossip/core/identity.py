# SPDX-License-Identifier: MIT
"""Detects identity conflicts: two hosts with one address, two members with one name, two fleets that meet.

Invariants (docs/protocol.md, "Identity"): no member raises its incarnation more than ``RAISES`` times in ``RAISES_IN``
seconds because another host uses its address, and every member that sees such a conflict reports the conflict.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from .events import Warned
from .members.membership import Membership
from .members.peer import Peer
from .members.timing import Timing
from .messages import MemberInfo
from .outbox import Local, Outbox
from .packets import Header
from .types import PRESENT, Address, Now

#: If a node has had to raise its incarnation this many times, it reports that another host uses its address. A node
#: that merely lost its state raises its incarnation only once.
RAISES = 3
#: A node counts how often it has raised its incarnation in this number of seconds. The problem ``twin`` of the node is
#: removed this many seconds after the node last raised its incarnation.
RAISES_IN = 600.0
#: If this many packets of an earlier run of a node arrive within a minute or ten cycles, a second host uses the node's
#: address.
STALE = 5
#: Seconds of uptime before a member reports unknown nodes as another fleet. In its first minutes, the member's own
#: fleet may still be forming.
_FORMED_AFTER = 600.0
#: Minimum number of members for a group of nodes to count as a fleet.
_FLEET = 2
#: Maximum number of addresses for which packets of earlier runs are counted.
_WATCHED = 1024


class Identity:
    """Detects identity conflicts, and marks the nodes that are part of a conflict.

    The marks are entries of ``Peer.problems`` and ``Local.problems``, and appear in the NodeList.
    """

    def __init__(self, local: Local, membership: Membership, out: Outbox, timing: Timing) -> None:
        self._local = local
        self._membership = membership
        self._out = out
        self._timing = timing
        self._raises: deque[float] = deque(maxlen=RAISES)
        self._runs: dict[Address, deque[float]] = {}
        self._names: dict[str, dict[Address, None]] = {}
        self._named: dict[Address, str] = {}
        self._started: float | None = None

    # -- one address, two hosts --------------------------------------------------------------------------------

    def may_go_beyond(self, now: Now) -> bool:
        """Whether this node may raise its incarnation after a packet with this node's address had a later incarnation.

        If this node lost its state directory, it needs to raise its incarnation only once. If this node needs to raise
        its incarnation repeatedly, another host with the same address (a twin) raises its own each time, too. This node
        raises its incarnation at most ``RAISES`` times in ``RAISES_IN`` seconds. Other members then accept the packets
        of the host with the latest incarnation.
        """
        lately = [when for when in self._raises if now.mono - when <= RAISES_IN]
        if len(lately) < RAISES:
            self._raises.append(now.mono)
            if len(lately) + 1 == RAISES:
                self._have_twin()
            return True
        self._have_twin()
        return False

    def _have_twin(self) -> None:
        self._out.count("own_address_conflicts")
        self._local.mark("twin", True)
        self._warn(
            "twin",
            f"another host uses the address {self._local.address} of this node, with the same cluster and secret: "
            f"each of its runs and ours ends the other's. Expected one host for each node.addr and port; this one "
            f"raises its incarnation {RAISES} times in {RAISES_IN:g} s and no more",
        )

    def stale_run(self, peer: Peer, header: Header, now: Now) -> None:
        """Count an authentic packet of ``peer`` with an earlier incarnation than the latest known one.

        A node that lost its state sends a few packets with an earlier incarnation, until another member notifies the
        node of the later incarnation. If recent packets with the earlier incarnation continue to arrive, another host
        with the same address sends them.
        """
        age = (peer.clock_ahead or 0.0) - (header.wall_ns - now.wall_ns) / 1e9
        if abs(age) > self._timing.timeout:
            return  # the packet is not recent, so it may be a replayed recording
        runs = self._runs.get(peer.address)
        if runs is None:
            if len(self._runs) >= _WATCHED:
                del self._runs[next(iter(self._runs))]
            runs = self._runs[peer.address] = deque(maxlen=STALE)
        runs.append(now.mono)
        if len(runs) == STALE and now.mono - runs[0] <= self._stale_in and peer.mark("twin", True):
            self._out.count("twins_seen")
            self._warn(
                "twin_seen",
                f"two hosts use the address of node {peer.address}: packets of two of its runs arrive at the same "
                "time. Expected one host for each node.addr and port",
            )

    def shared(self, address: Address) -> bool:
        """Whether there are signs that two hosts use ``address`` or that two hosts use this node's address.

        An answer to one of two hosts with the same address may arrive at the other host.
        """
        return address in self._runs or bool(self._raises) or "twin" in self._local.problems

    @property
    def _stale_in(self) -> float:
        return max(60.0, 2 * STALE * self._timing.cycle)

    # -- one name, two members ---------------------------------------------------------------------------------

    def named(self, peer: Peer) -> None:
        """Check the name of a peer whose record is new or changed, and warn if another member has the same name."""
        name = peer.record.value.name if peer.record.value is not None else ""
        self.forget(peer)
        if not name:
            return
        self._named[peer.address] = name
        self._names.setdefault(name, {})[peer.address] = None
        sharing = self._review(name)
        if len(sharing) > 1 and peer.address in sharing:
            self._tell_sharing(name, sharing)

    def named_here(self, before: str) -> None:
        """Check the new name of the local node, and warn if another member has the same name.

        ``before``: the former name.
        """
        self._review(before)
        sharing = self._review(self._local.node.name)
        if len(sharing) > 1:
            self._tell_sharing(self._local.node.name, sharing)

    def forget(self, peer: Peer) -> None:
        """Forget the name of a peer that is removed from the membership or renamed."""
        name = self._named.pop(peer.address, None)
        if name is None:
            return
        del self._names[name][peer.address]
        if not self._names[name]:
            del self._names[name]
        peer.mark("same_name", False)
        self._review(name)

    def _review(self, name: str) -> list[Address]:
        """Mark the members with this ``name`` if at least two of them are present; otherwise remove their marks.

        Returns the addresses of all present members with the name ``name``.
        """
        peers = [self._membership.get(address) for address in self._names.get(name, ())]
        present = [peer for peer in peers if peer is not None and peer.present]
        here = self._local.node.name == name
        shared = len(present) + here > 1
        for peer in peers:
            if peer is not None:
                peer.mark("same_name", shared and peer.present)
        if here:
            self._local.mark("same_name", shared)
        return [*([self._local.address] if here else []), *(peer.address for peer in present)]

    def _tell_sharing(self, name: str, sharing: list[Address]) -> None:
        self._out.count("name_conflicts")
        self._warn(
            "name_conflict",
            f"nodes {', '.join(map(str, sharing[:5]))} all call themselves {name!r}: expected a name for each node; "
            "set node.name",
        )

    # -- one name and secret, two fleets -----------------------------------------------------------------------

    def met(self, sender: Peer, infos: Iterable[MemberInfo], now: Now) -> None:
        """Warn if a received member list contains at least two nodes and all of its nodes are unknown to this node."""
        if self._started is None or now.mono - self._started < _FORMED_AFTER:
            return
        others = [info.address for info in infos if info.state in PRESENT and info.address != self._local.address]
        if sender.address in others or len(others) < _FLEET:
            return
        if any(self._membership.get(address) is not None for address in others):
            return
        ours = sum(1 for address in self._membership.present if address != sender.address)
        if ours < _FLEET:
            return
        self._out.count("fleets_met")
        self._warn(
            "fleets_met",
            f"{sender.address} told of {len(others)} members of which none was known here: if they are another fleet, "
            "it has the same cluster name and secret, and both become one. Give each fleet a `cluster` name or a "
            "secret of its own",
        )

    def tick(self, now: Now) -> None:
        """Remove expired ``twin`` marks."""
        self._started = now.mono if self._started is None else self._started
        if self._raises and now.mono - self._raises[-1] > RAISES_IN:
            self._raises.clear()
            self._local.mark("twin", False)
        for address, runs in list(self._runs.items()):
            if now.mono - runs[-1] > self._stale_in:
                del self._runs[address]
                peer = self._membership.get(address)
                if peer is not None:
                    peer.mark("twin", False)

    def _warn(self, code: str, text: str) -> None:
        self._out.emit(Warned(code, text))
