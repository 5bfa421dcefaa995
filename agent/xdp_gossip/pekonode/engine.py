# SPDX-License-Identifier: MIT
"""The part of a PekoNode engine that the API and the library use: nodes and queries."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ..core.events import MemberChanged, MemberForgotten, Paused, Resumed
from ..core.interface import ProtocolError, check_dead
from ..core.packets import PacketKeys
from ..core.signers import Signer
from ..core.types import Address, Member, Node, Now, State
from .document import check_key
from .drive import PekoNodeDrive
from .packet import PekoNodeId, Swap
from .peers import Peer


class PekoNodeEngine(PekoNodeDrive):
    """One member of a PekoNode cluster. Implements ``core.interface.Asked``.

    See :class:`PekoNodeDrive` for the parameters.
    """

    # -- members ------------------------------------------------------------------------------------------------

    def tally(self) -> dict[State, int]:
        """The number of nodes in each state, including the local node."""
        counts = dict.fromkeys(State, 0)
        for peer in self._peers:
            counts[peer.state] += peer.listed
        counts[self.local.state] += 1
        return counts

    @property
    def revision(self) -> int:
        """A number that grows with every change of the remote nodes, except signs of life."""
        return self._peers.revision.number

    def members(self, now: Now) -> list[Member]:
        """Return the local node, then the other nodes, ordered by address.

        The other nodes are all nodes that were ever heard, and each new seed until its timeout.
        """
        return [self.local, *self.members_after(None, now)]

    def members_after(self, address: Address | None, now: Now) -> Iterator[Member]:
        """Iterate over the remote nodes of :meth:`members` whose addresses come after ``address`` (None: all)."""
        behind = [peer for peer in self._peers if peer.listed and (address is None or address < peer.address)]
        return (peer.member(now.mono) for peer in sorted(behind, key=lambda peer: peer.address.order()))

    @property
    def catching_up(self) -> str:
        """Describe what this node still waits for before it has caught up; "" once it has caught up.

        This node counts as caught up two cycles after it first heard another node, even if no node has answered its
        swap requests. On this wire, a node answers a swap request only if its document is newer than the document in
        the request.
        """
        if self._caught_up:
            return ""
        return "no node has answered yet" if self._heard_at is None else "another node is asked for its document"

    @property
    def clock_offset(self) -> float:
        """Return 0, because the packets of this wire do not contain their sender's time."""
        return 0.0

    @property
    def tells_ancestry(self) -> bool:
        """Return False, because a document on this wire has no base and no ancestors."""
        return False

    def seed(self, node: Node, now: Now) -> None:
        """Add ``node`` as a seed: contact it now, and repeatedly while it is silent."""
        address = node.address
        if address == self._address:
            return
        peer = self._peers.get(address)
        if peer is None:
            identity = PekoNodeId(node.addr, node.port, node.name, node.private_data)
            peer = Peer(address, identity, now.mono)
            if not self._peers.add(peer):
                self._out.count("members_full")
                return
        peer.pinned = True
        if not peer.heard and peer.state is State.DEAD:
            # Like PekoNode's Set, list a new seed until its timeout. The state is SUSPECT, because the seed was never
            # heard.
            self._peers.move(peer, State.SUSPECT)
            peer.last_heard = now.mono
        if self.status == "running" and peer.state is not State.ALIVE:
            self._out.spread(self._out.heartbeat(), [peer])

    def unseed(self, address: Address) -> None:
        """Remove ``address`` from the seeds. The node stays in the node list until it has been silent for a day."""
        peer = self._peers.get(address)
        if peer is not None:
            peer.pinned = False

    def update_node(self, now: Now, name: str | None = None, private_data: str | None = None) -> bool:
        """Change name or private data of the local node, and send a heartbeat with the new values at once.

        Returns False if nothing changed. Until their timeout, Go nodes list both the old and the new node, because
        their key of a node includes its name and private data. Raises ``ValueError`` for a wrong value,
        ``ProtocolError`` (node_too_large) if the values do not fit a packet.
        """
        node = Node(
            self.node.addr,
            self.node.port,
            self.node.name if name is None else name,
            self.node.private_data if private_data is None else private_data,
        )
        if node == self.node:
            return False
        self._out.rename(node)
        self.node = node
        self._out.emit(MemberChanged(self.local, State.ALIVE))
        if self.status == "running":
            self._heartbeat()
        return True

    def pause(self, now: Now) -> bool:
        """Stop sending heartbeats and swap requests. The node still relays rumors, and answers swap requests of other
        nodes.

        Returns False if the node was not running.
        """
        if self.status != "running":
            return False
        self.status = "paused"
        self._out.emit(Paused(self.node))
        return True

    def resume(self, now: Now) -> bool:
        """Send heartbeats again after a pause or a leave, beginning at once. Returns False otherwise."""
        if self.status not in ("paused", "left"):
            return False
        self.status = "running"
        self._out.emit(Resumed(self.node))
        self._beat(now)
        return True

    def leave(self, now: Now) -> bool:
        """Stop sending packets.

        Other nodes remove this node only after their timeout, because this wire has no leave message.

        Returns False if the node had not joined or had left already.
        """
        if self.status in ("new", "left"):
            return False
        self.status = "left"
        self._relay.clear()
        self._out.emit(Paused(self.node))
        return True

    @property
    def isolated(self) -> bool:
        """Return False, because this wire has no observers."""
        return False

    @property
    def unknown_key_nodes(self) -> int:
        """Return 0, because packets of this wire name no key."""
        return 0

    @property
    def missed_rotation(self) -> bool:
        """Return False, because packets of this wire name no key."""
        return False

    @property
    def displaced(self) -> int:
        """Number of dead nodes that are no longer in the full node list, but still count for a majority."""
        return len(self._peers.displaced)

    def forget(self, address: Address, now: Now) -> Member:
        """Remove a dead node from the node list. See ``Asked.forget`` for the errors."""
        peer = self._peers.get(address)
        state = self.local.state if address == self._address else peer.state if peer and peer.listed else None
        if address in self._peers.displaced:
            self._peers.displaced.discard(address)
            member = Member(address, State.DEAD, 0, 0, None, 0.0, 0)
        else:
            check_dead(address, state)
            assert peer is not None
            member = peer.member(now.mono)
            self._peers.remove(peer)
        self._out.emit(MemberForgotten(member))
        return member

    def trust(self, signers: Iterable[Signer], now: Now) -> int:
        """Raise ``ProtocolError`` (unsupported_operation) if there are ``signers``. Otherwise return 0."""
        if tuple(signers):
            raise ProtocolError("unsupported_operation", "PekoNode's wire has no signed documents")
        return 0

    def replace_keys(self, keyring: PacketKeys, now: Now) -> None:
        """Raise ``ProtocolError`` (unsupported_operation), because packets of this wire name no key."""
        raise ProtocolError("unsupported_operation", "PekoNode's wire has one secret, which needs a restart to change")

    def repair(self, now: Now) -> int:
        """Raise ``ProtocolError`` (unsupported_operation), because this wire has no documents digest."""
        raise ProtocolError("unsupported_operation", "PekoNode's wire does not tell which members hold other documents")

    # -- questions to members -----------------------------------------------------------------------------------

    def query(self, key: str, to: Iterable[Address], now: Now) -> int:
        """Ask the nodes in ``to`` which version of the document they hold. The nodes in ``to`` may be Go nodes.

        Returns the number of the query.

        The query is a swap request with version 0. A node that has a document answers a query with that document; other
        nodes do not answer. Raises ``ProtocolError`` (unsupported_key).
        """
        check_key(key)
        self._query += 1
        for address in to:
            self._queries[address, self._query] = now.mono
            self._out.swap(Swap.REQUEST, None, 0, address)
        return self._query

    def query_applied(self, key: str, to: Iterable[Address], now: Now) -> int:
        """Raise ``ProtocolError`` (unsupported_operation), because this wire has no query about rendered documents."""
        raise ProtocolError("unsupported_operation", "applied: members cannot be asked over wire pekonode")

    def query_files(self, to: Iterable[Address], now: Now) -> int:
        """Raise ``ProtocolError`` (unsupported_operation), because this wire has no query about rendered files."""
        raise ProtocolError("unsupported_operation", "rendered files: members cannot be asked over wire pekonode")
