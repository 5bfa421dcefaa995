# SPDX-License-Identifier: MIT
"""What must hold: always (watched at every event), eventually (waited for), and finally (compared at the end)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from xdp_gossip.core.events import DocumentChanged, Event, IncarnationChanged, MemberChanged, Transmit
from xdp_gossip.core.runs import later, latest
from xdp_gossip.core.types import PRESENT, Address, Document, Version
from xdp_gossip.core.types import State as MemberState
from xdp_gossip.wire.native import BLOCK_BYTES, HEADER_BYTES, SALT_BYTES

if TYPE_CHECKING:
    from .world import SimNode, World

#: What a node holds, each thing under a name: see :meth:`Checks.state`.
State = dict[str, object]

EPOCH_S = 1_700_000_000
#: Seconds that a clock may be off and still count as right.
RIGHT = 1.0
_HEARTBEAT = 1
_TYPE_AT = 3


class Violation(AssertionError):
    """An invariant does not hold."""


@dataclass(frozen=True)
class Move:
    """A member in the view of another one changed its state."""

    time: float
    observer: Address
    subject: Address
    previous: MemberState | None
    state: MemberState


class Checks:
    """Watches a world. ``forbid_removal`` and ``forbid_suspicion`` are switched on by scenarios that must be calm."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.forbid_suspicion = False
        self.forbid_removal = False
        #: Nodes that may remove nobody.
        self.forbid_removal_by: set[Address] = set()
        #: Heartbeat by its signed block -> datagrams that carried it.
        self.heartbeats: dict[bytes, int] = defaultdict(int)
        self._bodies: dict[bytes, int] = {}
        self._incarnations: dict[Address, int] = {}
        self._acknowledged: dict[str, list[Document]] = defaultdict(list)
        #: Node -> key -> rank of the newest deletion that it held while its clock was right.
        self._deleted: dict[int, dict[str, object]] = defaultdict(dict)
        #: What a node showed anew since its events were last looked at.
        self._batches: list[Document] = []
        #: Key -> versions that some node held, and told of as overtaken without having been read.
        self._reported: dict[str, set[Version]] = defaultdict(set)
        self.conflicts = 0
        #: Every change of a member's state, when a scenario asks for it.
        self.moves: list[Move] | None = None

    # -- always ------------------------------------------------------------------------------------------------

    def on_event(self, node: SimNode, event: Event) -> None:
        """Every event of every engine."""
        if isinstance(event, DocumentChanged):
            self._on_document(node, event)
        elif isinstance(event, MemberChanged):
            self._on_member(node, event)
        elif isinstance(event, IncarnationChanged):
            self._on_incarnation(node, event.incarnation)

    def _on_document(self, node: SimNode, event: DocumentChanged) -> None:
        self.conflicts += event.conflict
        replaced = event.replaced
        if len(event.document.batch) > 1:
            self._batches.append(event.document)
        if event.conflict and replaced is not None:
            self._reported[replaced.key].add(replaced.version)
        # A version only grows. But what ended by a clock that was wrong may be put back.
        if replaced is not None and event.document.rank <= replaced.rank and event.document.ended != replaced:
            raise Violation(f"{node.address} replaced {replaced} by the older {event.document}")

        self._by_right_clock(node, event)

    def on_boot(self, node: SimNode, documents: Iterable[Document]) -> None:
        """A run begins with what is on the disk; what was only in memory is forgotten."""
        right = abs(node.skew) <= RIGHT
        self._deleted[node.number] = {d.key: d.rank for d in documents if d.deleted and not d.expires and right}

    def _by_right_clock(self, node: SimNode, event: DocumentChanged) -> None:
        """On a member whose clock is right nothing that was acknowledged disappears, and nothing deleted returns."""
        document, replaced = event.document, event.replaced
        if abs(node.skew) > RIGHT:
            return
        deleted = self._deleted[node.number]
        if document.deleted:
            deleted[document.key] = document.rank
            return
        former = deleted.pop(document.key, None)
        # What ended a moment early, by a clock that is right within ``RIGHT``, is put back.
        if former is not None and document.rank <= former != document.ended.rank:  # type: ignore[operator]
            raise Violation(f"{node.address} shows {document} again, which was deleted there")
        if replaced is None or document.rank != replaced.ended.rank or not replaced.expires:
            return
        true_ms = (EPOCH_S + self._world.time + RIGHT) * 1000
        if replaced.expires > true_ms:
            raise Violation(f"{node.address} ended {replaced} {(replaced.expires - true_ms) / 1000:.1f} s early")

    def after_events(self, node: SimNode) -> None:
        """What others see of ``node`` now: of documents that were written together all, or none.

        Documents of a batch older than the grace may come singly: nobody tells of the deletions in it any more.
        """
        shown, self._batches = self._batches, []
        assert node.engine is not None
        table = node.engine.documents.table
        told_from = node.now.wall_ns / 1e6 + (node.engine.clock_offset - self._world.settings.tombstone_grace) * 1000
        for document in shown:
            if document.version.wall_ms < told_from:
                continue
            for key in document.batch:
                held = table.get(key)
                if held is None or held.version < document.version:
                    raise Violation(f"{node.address} shows {document}, and of {key!r} {held and held.version}")

    def _on_member(self, node: SimNode, event: MemberChanged) -> None:
        member = event.member
        if member.local:
            return
        if self.moves is not None and member.state is not event.previous:
            self.moves.append(Move(self._world.time, node.address, member.address, event.previous, member.state))
        if member.address == node.address:
            raise Violation(f"{node.address} holds itself for another member")
        if event.previous is None or not (self.forbid_suspicion or self.forbid_removal or self.forbid_removal_by):
            return
        other = self._world.by_address.get(member.address)
        if other is None or not other.up:
            return
        if self.forbid_suspicion and member.state is MemberState.SUSPECT:
            raise Violation(f"{node.address} suspects {member.address}, which is well")
        forbidden = self.forbid_removal or node.address in self.forbid_removal_by
        if forbidden and member.state is MemberState.DEAD:
            raise Violation(f"{node.address} removed {member.address}, which is well")

    def _on_incarnation(self, node: SimNode, incarnation: int) -> None:
        if not later(incarnation, self._incarnations.get(node.address, 0)):
            raise Violation(f"{node.address} raised its incarnation to {incarnation}, which it used before")

    def on_transmit(self, node: SimNode, transmit: Transmit) -> None:
        """Every packet of every engine, before the network has it."""
        data = transmit.data
        if len(data) > self._world.settings.size:
            raise Violation(f"{node.address} sent {len(data)} bytes: expected at most {self._world.settings.size}")
        if transmit.to == node.address:
            raise Violation(f"{node.address} sent a packet to itself")
        block = data[:BLOCK_BYTES]
        salted = block + data[HEADER_BYTES - SALT_BYTES : HEADER_BYTES]
        body = hash(data[HEADER_BYTES:])
        # The key of a body is derived from its block and salt: two bodies under the same ones break the cipher.
        if self._bodies.setdefault(salted, body) != body:
            raise Violation(f"{node.address} sealed two bodies under one block")
        if data[_TYPE_AT] == _HEARTBEAT:
            self.heartbeats[block] += 1
            # Each node relays once in each of its runs; those who start meanwhile may relay again.
            if self.heartbeats[block] > self._world.settings.amount * self._world.runs:
                raise Violation(f"one heartbeat took more than {self.heartbeats[block] - 1} datagrams")

    def before_crash(self, node: SimNode) -> None:
        """A run ends: its incarnation must not come back."""
        assert node.engine is not None
        self._incarnations[node.address] = latest(self._incarnations.get(node.address, 0), node.engine.incarnation)

    def acknowledged(self, node: SimNode, document: Document) -> None:
        """A publish returned."""
        assert node.engine is not None
        self._acknowledged[document.key].append(document)
        held = next(iter(node.disk.history(document.key)), None)  # the one that holds comes first
        if held is None or held.rank < document.rank:
            raise Violation(f"{node.address} acknowledged {document} before it was on its disk")

    # -- eventually --------------------------------------------------------------------------------------------

    def disagreement(self) -> str | None:
        """What the running nodes do not agree on yet; None when all hold the same and it is right."""
        running = [node for node in self._world.up if node.engine is not None and node.engine.status == "running"]
        expected = {node.address: node.node for node in running}
        for node in running:
            assert node.engine is not None
            present = {m.address: m for m in node.engine.members(node.now) if m.state in PRESENT}
            if missing := expected.keys() - present.keys():
                return f"{node.address} does not list {', '.join(sorted(map(str, missing)))}"
            if extra := present.keys() - expected.keys():
                return f"{node.address} still lists {', '.join(sorted(map(str, extra)))}"
            for address, member in present.items():
                if member.node != expected[address]:
                    return f"{node.address} lists {member.node}, which is {expected[address]}"
        return self._document_disagreement(running)

    def _document_disagreement(self, running: list[SimNode]) -> str | None:
        winners = self.winners()
        for node in running:
            assert node.engine is not None
            for key, winner in winners.items():
                held = node.engine.documents.get(key)
                if winner.deleted and held is None:
                    continue
                if held is None or held.rank != winner.rank:
                    return f"{node.address} holds {held and held.version} of {key!r}, the winner is {winner.version}"
            if surplus := {d.key for d in node.engine.documents.live()} - winners.keys():
                return f"{node.address} holds documents that nobody published: {surplus}"
        if len({node.engine.documents.digest for node in running if node.engine}) > 1:
            return "documents digests differ although the documents are equal"
        return None

    def winners(self) -> dict[str, Document]:
        """For each key the acknowledged document that has to be everywhere."""
        found = {}
        true_ms = int((EPOCH_S + self._world.time) * 1000)
        for key, documents in self._acknowledged.items():
            winner = max(documents, key=lambda document: document.rank)
            found[key] = winner.ended if winner.expired(true_ms) else winner
        return found

    # -- finally -----------------------------------------------------------------------------------------------

    def nothing_lost(self) -> None:
        """Each acknowledged publish holds, was written over by who had read it, or was reported as a conflict."""
        for key, winner in self.winners().items():
            versions = {document.version: document for document in self._acknowledged[key]}
            links = {**versions, **{d.ended.version: d.ended for d in versions.values() if d.expires}}
            accounted = _history_of(winner.version, links)
            for version in self._reported[key]:
                accounted |= _history_of(version, links)
            if lost := sorted(set(versions) - accounted):
                raise Violation(f"{key!r}: {', '.join(map(str, lost))} lost to {winner.version}, and nobody was told")

    def finally_sound(self) -> None:
        """Each engine is consistent in itself."""
        for node in self._world.up:
            assert node.engine is not None
            addresses = [member.address for member in node.engine.members(node.now)]
            if len(addresses) != len(set(addresses)):
                raise Violation(f"{node.address} lists a node twice: {addresses}")
            table = node.engine.documents.table
            total = sum(document.state_hash for document in table) % 2**64
            if total != table.digest:
                raise Violation(f"{node.address}: documents digest {table.digest:016x}, its documents say {total:016x}")

    def state(self, node: SimNode) -> State:
        """What replays and forgeries must not change, by name."""
        assert node.engine is not None
        state: State = {"digest": node.engine.documents.digest}
        for member in node.engine.members(node.now):
            state[str(member.address)] = (member.state in PRESENT, member.incarnation, member.record)
        for document in node.engine.documents.live():
            state[f"document {document.key}"] = document.rank
        return state


def _history_of(version: Version | None, versions: dict[Version, Document]) -> set[Version]:
    """``version`` and all that were read before it was written."""
    found: set[Version] = set()
    while version is not None and version not in found:
        found.add(version)
        document = versions.get(version)
        version = document.base if document is not None else None
    return found
