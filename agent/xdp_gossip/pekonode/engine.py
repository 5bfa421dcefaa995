# SPDX-License-Identifier: MIT
"""The part of a PekoNode engine that answers its users: nodes, the one document, publishing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from ..core.events import MemberChanged, Paused, Resumed
from ..core.interface import ProtocolError
from ..core.types import DEFAULT_KEY, Address, Document, Member, Node, Now, Prepared, State, Version, Write
from .drive import PekoNodeDrive
from .packet import PekoNodeId, Swap
from .peers import Peer

_NO_EXPIRY = "PekoNode's wire has no documents that expire"


class PekoNodeEngine(PekoNodeDrive):
    """One member of a PekoNode cluster (``core.interface.Asked``); :class:`PekoNodeDrive` has the parameters."""

    # -- members ------------------------------------------------------------------------------------------------

    def tally(self) -> dict[State, int]:
        """How many nodes are known in each state."""
        counts = dict.fromkeys(State, 0)
        for peer in self._peers:
            counts[peer.state] += peer.listed
        counts[self.local.state] += 1
        return counts

    @property
    def revision(self) -> int:
        """Grows with every change of the other nodes but signs of life."""
        return self._peers.revision.number

    def members(self, now: Now) -> list[Member]:
        """The local node, then every node that was ever heard or was named a timeout ago at most, by address."""
        return [self.local, *self.members_after(None, now)]

    def members_after(self, address: Address | None, now: Now) -> Iterator[Member]:
        """Those behind ``address`` (None: all), without the local one."""
        behind = [peer for peer in self._peers if peer.listed and (address is None or address < peer.address)]
        return (peer.member(now.mono) for peer in sorted(behind, key=lambda peer: peer.address.order()))

    @property
    def catching_up(self) -> str:
        """What this node waits for until it has asked a live one for its document; "" once it has.

        Who has nothing newer does not answer on this wire: so two exchanges without an answer count as one.
        """
        if self._caught_up:
            return ""
        return "no node has answered yet" if self._heard_at is None else "another node is asked for its document"

    @property
    def clock_offset(self) -> float:
        """Always 0: no packet of this wire tells its sender's time."""
        return 0.0

    @property
    def tells_ancestry(self) -> bool:
        """False: a document on this wire is a value and a time."""
        return False

    def seed(self, node: Node, now: Now) -> None:
        """Contact ``node`` now and each cycle until it is heard."""
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
            # As PekoNode's Set: listed until the timeout. Here it is a suspect, so that nobody takes it for heard.
            self._peers.move(peer, State.SUSPECT)
            peer.last_heard = now.mono
        if self.status == "running" and peer.state is not State.ALIVE:
            self._out.spread(self._out.heartbeat(), [peer])

    def unseed(self, address: Address) -> None:
        """A seed that is none any more is forgotten when it was silent for a day, as others are."""
        peer = self._peers.get(address)
        if peer is not None:
            peer.pinned = False

    def update_node(self, now: Now, name: str | None = None, private_data: str | None = None) -> bool:
        """Change the local record; a heartbeat says so at once.

        Go nodes hold the former record for a second node until their timeout: to them it is part of the identity.
        Raises ``ValueError`` for a bad record, ``ProtocolError`` (node_too_large) for one that fits no packet.
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
        """Stop heartbeats and exchanges; rumors of others are still passed on, exchanges still answered."""
        if self.status != "running":
            return False
        self.status = "paused"
        self._out.emit(Paused(self.node))
        return True

    def resume(self, now: Now) -> bool:
        """Beat again, at once. Also after ``leave``."""
        if self.status not in ("paused", "left"):
            return False
        self.status = "running"
        self._out.emit(Resumed(self.node))
        self._beat(now)
        return True

    def leave(self, now: Now) -> bool:
        """Fall silent. This wire has no leave message: others drop this node after their timeout."""
        if self.status in ("new", "left"):
            return False
        self.status = "left"
        self._relay.clear()
        self._out.emit(Paused(self.node))
        return True

    # -- the document -------------------------------------------------------------------------------------------

    def document(self, key: str) -> Document | None:
        """The document held here."""
        return self._document.held if key == DEFAULT_KEY else None

    def held(self, key: str) -> Document | None:
        """The same: this wire has no tombstones."""
        return self.document(key)

    def documents(self, prefix: str = "") -> list[Document]:
        """The document held here, in a list."""
        held = self._document.held
        return [held] if held and DEFAULT_KEY.startswith(prefix) else []

    def documents_after(self, key: str, prefix: str = "") -> Iterator[Document]:
        """The same, unless its key is not behind ``key``."""
        return iter(self.documents(prefix) if key < DEFAULT_KEY else ())

    @property
    def documents_held(self) -> tuple[int, int]:
        """Whether there is a document, and the bytes of its value."""
        held = self._document.held
        return (0, 0) if held is None else (1, held.size)

    @property
    def max_document(self) -> int:
        """Bytes of the largest document that can be published: what other nodes can receive, in base64, in ``size``."""
        return self._document.limit

    def publish(
        self,
        key: str,
        value: bytes,
        now: Now,
        *,
        expected: Version | None = None,
        absent: bool = False,
        content_type: str | None = None,
        author: str = "",
        comment: str = "",
        expires_in: float | None = None,
    ) -> tuple[Document, bool]:
        """Write the cluster's one document.

        Its version is later than any seen, however far in the future that is. ``content_type``, ``author`` and
        ``comment`` stay on this node; what comes from another is of type raw. Raises ``ProtocolError``:
        unsupported_key, version_mismatch, document_too_large, version_exhausted.
        """
        self._check_key(key)
        if expires_in is not None:
            raise ProtocolError("unsupported_operation", _NO_EXPIRY)
        kind = Write(key, content_type=content_type).type_over(self._document.held)
        changed = self._document.write(value, now, expected, absent, kind, author, comment)
        document = self._document.held
        assert document is not None
        if changed and self.status in ("running", "paused"):
            rumor = self._out.update(document, self._document.stamp)
            self._out.spread(rumor, self._peers.pick(self.settings.amount))
        return document, changed

    def publish_many(
        self, writes: Sequence[Write], now: Now, *, author: str = "", comment: str = ""
    ) -> list[tuple[Document | None, bool]]:
        """The same for one document. Raises ``ProtocolError`` (unsupported_operation) for more, and for a deletion."""
        if len(writes) == 1 and writes[0].deleted:
            return [self.delete(writes[0].key, now)]
        if len(writes) != 1:
            raise ProtocolError("unsupported_operation", "PekoNode's wire has one document: expected one to publish")
        write = writes[0].typed(self._document.held)
        if write.expires:
            raise ProtocolError("unsupported_operation", _NO_EXPIRY)
        written = self.publish(
            write.key,
            write.value,
            now,
            expected=write.expected,
            absent=write.absent,
            content_type=write.content_type,
            author=author,
            comment=comment,
            expires_in=write.expires_in,
        )
        return [written]

    def prepare(
        self,
        writes: Sequence[Write],
        now: Now,
        *,
        author: str = "",
        comment: str = "",
        pending: Sequence[Prepared] = (),
    ) -> list[Prepared] | None:
        """None: here a document is on its way before it is on the disk."""
        return None

    def commit(self, prepared: Sequence[Prepared], now: Now) -> bool:
        """Never called, as nothing is prepared: raises ``ProtocolError``."""
        raise ProtocolError("unsupported_operation", "PekoNode's wire publishes in one step")

    def delete(self, key: str, now: Now, *, expected: Version | None = None) -> tuple[Document | None, bool]:
        """Not possible: raises ``ProtocolError`` (unsupported_operation)."""
        raise ProtocolError(
            "unsupported_operation",
            "PekoNode's wire cannot delete the document; publish an empty one instead",
        )

    def repair(self, now: Now) -> int:
        """Not possible: raises ``ProtocolError`` (unsupported_operation)."""
        raise ProtocolError("unsupported_operation", "PekoNode's wire does not tell who holds other documents")

    def _check_key(self, key: str) -> None:
        if key != DEFAULT_KEY:
            raise ProtocolError(
                "unsupported_key", f"document {key!r}: PekoNode's wire has one document only, {DEFAULT_KEY!r}"
            )

    # -- questions to members -----------------------------------------------------------------------------------

    def query(self, key: str, to: Iterable[Address], now: Now) -> int:
        """Ask nodes directly what they hold, Go nodes included.

        An exchange request with version 0 makes whoever holds a document send it. Who holds none stays silent.
        Raises ``ProtocolError`` (unsupported_key).
        """
        self._check_key(key)
        self._query += 1
        for address in to:
            self._queries[address, self._query] = now.mono
            self._out.swap(Swap.REQUEST, None, 0, address)
        return self._query

    def query_applied(self, key: str, to: Iterable[Address], now: Now) -> int:
        """This wire has no such question. Raises ``ProtocolError`` (unsupported_operation)."""
        raise ProtocolError("unsupported_operation", "applied: members cannot be asked over wire pekonode")

    def query_files(self, to: Iterable[Address], now: Now) -> int:
        """This wire has no such question. Raises ``ProtocolError`` (unsupported_operation)."""
        raise ProtocolError("unsupported_operation", "rendered files: members cannot be asked over wire pekonode")
