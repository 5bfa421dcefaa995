# SPDX-License-Identifier: MIT
"""Decides when a node that has just started has caught up with the cluster.

A node has caught up when it has all documents and nodes that the cluster had when the node started.

The documents of a node that has not caught up may be old or missing. The rules are in docs/protocol.md, "Catching up".
A node that has caught up stays in that state until its process ends, even if it loses contact with the cluster.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from ..documents.metadata import Metadata
from ..events import CaughtUp
from ..members.membership import Membership
from ..members.peer import Peer
from ..members.timing import Timing
from ..messages import Entry
from ..outbox import Local, Outbox
from ..types import Address, Now


@dataclass
class _Comparison:
    """The progress of a comparison with one member: entries still to be fetched, buckets still to be listed."""

    with_caught_up: bool
    owed: dict[str, Entry] = field(default_factory=dict)
    unlisted: set[int] = field(default_factory=set)


class CatchUp:
    """Observes the syncs of a node that has just started, and emits ``CaughtUp`` when the node has caught up.

    ``wait``: seconds after which the node counts as caught up even if it heard from no member that has caught up itself
    (infinity: never). ``expects_seeds``: whether the user adds seeds after the start of the node. If so, a node without
    seeds does not count as a cluster of one.
    """

    def __init__(
        self,
        local: Local,
        membership: Membership,
        metadata: Metadata,
        out: Outbox,
        timing: Timing,
        wait: float,
        expects_seeds: bool,
    ) -> None:
        self._local = local
        self._membership = membership
        self._metadata = metadata
        self._out = out
        self._timing = timing
        self._wait = wait
        self._expects_seeds = expects_seeds
        self._began = 0.0
        self._comparisons: dict[Address, _Comparison] = {}
        self._documents = False  # Whether this node has all documents of a member that has caught up.
        self._members = False  # Whether this node has received the NodeList of a member that has caught up.
        self._records: dict[Address, None] = {}  # Nodes in the received NodeList whose records are missing.
        self._records_until = 0.0
        self._why = "not started yet"

    @property
    def done(self) -> bool:
        """Whether this node has caught up."""
        return not self._local.catching_up

    @property
    def fetching(self) -> bool:
        """Whether this node has not caught up yet and still fetches documents that a member listed."""
        return not self.done and bool(self._comparisons)

    @property
    def why(self) -> str:
        """A sentence that says for which event the node still waits; "" after the node has caught up."""
        return "" if self.done else self._why

    def begin(self, now: Now) -> None:
        """Set the start time of this node to ``now``."""
        self._began = now.mono
        self._why = "no member has answered yet"

    # -- what syncs tell ---------------------------------------------------------------------------------------

    def equals(self, peer: Peer) -> None:
        """Record that ``peer`` advertises the same documents digest as this node."""
        if not self.done and peer.sync.caught_up:
            self._documents = True

    def compared(self, peer: Peer, owed: Iterable[Entry], unlisted: Iterable[int] = ()) -> None:
        """Record a comparison with ``peer``.

        This node must still fetch the entries ``owed``, and ``peer`` must still list the buckets ``unlisted``.
        """
        if not self.done:
            entries = {entry.key: entry for entry in owed}
            self._comparisons[peer.address] = _Comparison(peer.sync.caught_up, entries, set(unlisted))

    def listed(self, peer: Peer, owed: Iterable[Entry], finished: Iterable[int]) -> None:
        """Record a further list of entries that ``peer`` sent.

        ``owed``: the listed entries that this node must still fetch. ``finished``: the buckets that the peer has now
        listed completely.
        """
        comparison = self._comparisons.get(peer.address)
        if comparison is not None:
            comparison.owed.update((entry.key, entry) for entry in owed)
            comparison.unlisted.difference_update(finished)

    def members_told(self, peer: Peer, now: Now) -> None:
        """Record that this node has received the NodeList of ``peer``, or already has an equal NodeList."""
        if not self.done and peer.sync.caught_up:
            self._members = True
            self._records = dict.fromkeys(self._membership.incomplete)
            self._records_until = now.mono + self._timing.timeout

    # -- time --------------------------------------------------------------------------------------------------

    def tick(self, absent_seeds: Sequence[Address], any_seed: bool, now: Now) -> None:
        """Check whether the node has caught up. ``absent_seeds``: seeds that are not present members.

        ``any_seed``: whether the node has any seed.
        """
        if self.done:
            return
        for address, comparison in list(self._comparisons.items()):
            peer = self._membership.get(address)
            if peer is None or not peer.present:
                del self._comparisons[address]
            elif self._settled(comparison):
                del self._comparisons[address]
                self._documents = self._documents or comparison.with_caught_up
        incomplete = self._membership.incomplete
        self._records = {address: None for address in self._records if address in incomplete}
        if self._documents and self._members and (not self._records or now.mono >= self._records_until):
            self._finish("a member's documents and its NodeList are here")
            return
        self._why = self._reason(absent_seeds)
        waited = now.mono - self._began
        if self._comparisons or any("unreached" not in peer.problems for peer in self._knowing()):
            return
        expected = bool(absent_seeds) or (self._expects_seeds and not any_seed)
        if waited >= self._timing.timeout and not expected and not self._knowing() and self._all_equal():
            self._finish("nobody is there who knows more")
        elif waited >= self._wait:
            self._finish(f"{self._why}, {self._wait:g} s after the start: what is here has to do")

    def _settled(self, comparison: _Comparison) -> bool:
        """Whether this node has every listed document.

        The method removes documents from ``comparison`` when they have arrived.
        """
        while comparison.owed:
            entry = next(iter(comparison.owed.values()))
            held = self._metadata.table.get(entry.key)
            if held is None or held.rank < entry.rank:
                return False
            del comparison.owed[entry.key]
        return not comparison.unlisted

    def _knowing(self) -> list[Peer]:
        """The present members that have caught up."""
        return [peer for peer in self._membership if peer.present and peer.sync.caught_up]

    def _all_equal(self) -> bool:
        ours = self._metadata.table.digest
        return all(peer.sync.documents_digest == ours for peer in self._membership if peer.present and peer.heard)

    def _reason(self, absent_seeds: Sequence[Address]) -> str:
        if self._comparisons:
            address, comparison = next(iter(self._comparisons.items()))
            return f"{len(comparison.owed)} documents of {address} are on their way" + (
                ", and it lists more" if comparison.unlisted else ""
            )
        if self._documents:
            return "the NodeList is on its way" if not self._members else "records of nodes are on their way"
        if self._knowing():
            return "its documents are being compared with a member's"
        answered = any(peer.present and peer.heard for peer in self._membership)
        if answered and absent_seeds:
            return f"all members that answer have just started, and seed {absent_seeds[0]} does not answer"
        return "all members that answer have just started" if answered else "no member has answered yet"

    def _finish(self, how: str) -> None:
        self._local.catching_up = False
        self._comparisons.clear()
        self._records.clear()
        self._out.emit(CaughtUp(how))
