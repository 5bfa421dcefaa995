# SPDX-License-Identifier: MIT
"""The operations of an engine for its users: member list and queries to other members, but not documents."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from ..detector import snapshot
from ..events import MemberForgotten, Paused, Resumed
from ..interface import InvalidError, Known, check_dead
from ..members.membership import FORGET_AFTER
from ..packets import PacketKeys, PacketType
from ..signers import Signer
from ..sync.handover import hand_over
from ..types import Address, Member, Node, Now, State
from .drive import Drive


class Engine(Drive):
    """A cluster member that uses the native wire format. Implements ``interface.Asked``.

    See :class:`Parts` for parameters.
    """

    # -- members -----------------------------------------------------------------------------------------------

    def tally(self) -> dict[State, int]:
        """Return the number of known nodes in each state, the local node included."""
        return self._membership.tally(State.LEFT if self.status == "left" else State.ALIVE)

    @property
    def revision(self) -> int:
        """A number that increases whenever the data of another node change, except for signs of life."""
        return self._membership.revision.number

    def members(self, now: Now) -> list[Member]:
        """Return every known node: first the local node, then the other nodes by address."""
        return [self.local, *self.members_after(None, now)]

    def members_after(self, address: Address | None, now: Now) -> Iterator[Member]:
        """Yield the remote nodes whose addresses sort after ``address`` (None: all remote nodes), by address."""
        return (snapshot(peer, now) for peer in self._membership.after(address))

    @property
    def catching_up(self) -> str:
        """Why this node has not caught up with the cluster yet; "" after the node has caught up."""
        return self._catch_up.why

    @property
    def counters(self) -> Mapping[str, int]:
        """Counters by name."""
        return self._out.counters

    @property
    def tells_ancestry(self) -> bool:
        """True, because each document of the native wire lists the versions that its author had read."""
        return True

    def trust(self, signers: Iterable[Signer], now: Now) -> int:
        """Replace the signers. Return the number of documents that this node does not hold any more."""
        withheld = self.documents.trust(signers, now)
        digest = self.documents.signers.digest
        if digest != self._local.record.signers:
            self._spread_record(replace(self._local.record, signers=digest), now)
        return withheld

    def replace_keys(self, keyring: PacketKeys, now: Now) -> None:
        """Replace the keys. See ``Asked.replace_keys``."""
        self._codec.use(keyring)
        self._unknown_keys.clear()
        keys = tuple(sorted(self._codec.keys))
        if keys != self._local.record.keys:
            self._spread_record(replace(self._local.record, keys=keys), now)

    def seed(self, node: Node, now: Now) -> None:
        """Contact ``node`` now, and again whenever the node is not a present member.

        As in PekoNode, the NodeList contains a new seed until the timeout, even if the seed has not answered.
        """
        self._selection.seed(node, now)

    def unseed(self, address: Address) -> None:
        """Stop treating ``address`` as a seed."""
        self._selection.unseed(address)

    def former(self, now: Now) -> list[Known]:
        """Return the former members, which this node removed from the NodeList but still contacts.

        The runtime stores the returned members for the next run.
        """
        long_ago = now.wall_ns - int(FORGET_AFTER * 1e9)
        return [Known(address, 0, 0, long_ago) for address in self._selection.seeds.former]

    def update_node(self, now: Now, name: str | None = None, private_data: str | None = None) -> bool:
        """Change the name or private data of the local node, and spread the changed record.

        Return False if nothing changed. Raises ``ProtocolError`` (invalid_node) for text that is too long.
        """
        try:
            node = replace(
                self.node,
                name=self.node.name if name is None else name,
                private_data=self.node.private_data if private_data is None else private_data,
            )
        except ValueError as error:
            raise InvalidError("invalid_node", str(error)) from None
        if node == self.node:
            return False
        before, self._local.node = self.node.name, node
        if node.name != before:
            self._identity.named_here(before)
        self._spread_record(replace(self._local.record, name=node.name, private_data=node.private_data), now)
        return True

    def pause(self, now: Now) -> bool:
        """Stop publishing heartbeats (PekoNode's ``Stop``). Other members drop this node after their timeout."""
        if self.status != "running":
            return False
        self._local.status = "paused"
        self._out.emit(Paused(self.node))
        return True

    def resume(self, now: Now) -> bool:
        """Publish heartbeats again (PekoNode's ``Start``), after a pause or a leave."""
        if self.status not in ("paused", "left"):
            return False
        self._local.status = "running"
        self._raise_incarnation(self.incarnation)
        self._out.emit(Resumed(self.node))
        self._announce(now)
        return True

    def leave(self, now: Now) -> bool:
        """Announce to all members that this node leaves.

        Return False if this node has left the cluster or has not joined it.
        """
        if self.status not in ("running", "paused"):
            return False
        hand_over(self.documents.table, self._membership, self._supply, self._out, now)
        self._local.status = "left"
        self._out.rumor(PacketType.LEAVE, None, now)
        return True

    @property
    def displaced(self) -> int:
        """Number of dead nodes that are no longer in the full NodeList, but still count for a majority."""
        return len(self._membership.displaced)

    def forget(self, address: Address, now: Now) -> Member:
        """Remove a dead node from the NodeList. See ``Asked.forget`` for the errors."""
        peer = self._membership.get(address)
        state = self.local.state if address == self._local.address else peer.liveness.state if peer else None
        if address in self._membership.displaced:
            del self._membership.displaced[address]
            member = Member(address, State.DEAD, 0, 0, None, 0.0, 0)
        else:
            check_dead(address, state)
            assert peer is not None
            member = snapshot(peer, now)
            self._membership.forget(peer)
        self._out.emit(MemberForgotten(member))
        return member

    def repair(self, now: Now) -> int:
        """Sync at once with every member whose documents digest differs from this node's digest.

        Return their number.
        """
        differing = [
            peer for peer in self._membership if peer.present and peer.sync.documents_digest != self.documents.digest
        ]
        for peer in differing:
            self._anti_entropy.request(peer.address, now)
        return len(differing)

    # -- questions to members ----------------------------------------------------------------------------------

    def query(self, key: str, to: Iterable[Address], now: Now) -> int:
        """Ask members which version of document ``key`` they have.

        Return the number of the query (see ``Asked.query``).
        """
        return self._queries.ask(key, to, now)

    def query_applied(self, key: str, to: Iterable[Address], now: Now) -> int:
        """Ask members for the state of document ``key`` in their rendered files. Return the number of the query."""
        return self._queries.ask_applied(key, to, now)

    def query_files(self, to: Iterable[Address], now: Now) -> int:
        """Ask members for their failed, drifted and pending rendered files. Return the number of the query."""
        return self._queries.ask_files(to, now)
