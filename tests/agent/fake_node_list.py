# SPDX-License-Identifier: MIT
"""A stand-in for ``AsyncNodeList``, for what a real one cannot be made to do on demand: faults, waits, odd members."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from xdp_gossip.core.interface import ProtocolError, check_dead
from xdp_gossip.core.types import PRESENT, Address, Document, Member, Node, Record, State, Version, Write, check_key
from xdp_gossip.node.convergence import refuse_isolated

LOCAL = Address("198.18.0.11", 8000)


@dataclass
class Published:
    """Result of a write."""

    document: Document | None
    changed: bool
    previous: Version | None = None


@dataclass
class Changes:
    """Result of waiting for changes."""

    revision: int
    gap: bool
    changes: list[Any] = field(default_factory=list)


@dataclass
class Convergence:
    """Result of a verification."""

    converged: bool = True
    members: int = 1
    confirmed: int = 1
    elapsed: float = 0.0
    digest: str = "00000000000000ff"
    results: list[Any] = field(default_factory=list)
    known: int = 1
    dead: int = 0
    agent_down: int = 0


@dataclass
class Change:
    """One entry of the change feed."""

    revision: int
    kind: str
    event: str
    document: Document | None = None
    member: Member | None = None
    conflict: Version | None = None
    zone: Any = None
    refusal: Any = None


class FakeNodeList:
    """Keeps documents in memory; ``fail`` is raised by the next operation that writes."""

    def __init__(self) -> None:
        self.doing = "running"  # or paused, or left
        self.cluster = "default"
        self.record = Record(name="host1", private_data="rack 1", agent_version="0.1.0", plane="UDP")
        self.others: list[Member] = []
        self.seeds: list[Node] = []
        self.held: dict[str, list[Document]] = {}
        self.revision = 1
        self.log: list[Change] = []
        self.fail: BaseException | None = None
        self.unready: BaseException | None = None
        self.keys = [(0x1396A4C4CE1C8B1F, "active")]
        self.sealing_key: bytes | None = bytes(32)
        self.isolated = False
        self.missed_rotation = False
        self.dataplane: dict[str, Any] | None = None
        self.answer = Convergence()
        # Made in the loop that waits: before Python 3.10 an event belongs to the loop it was made in.
        self._news: asyncio.Event | None = None

    def _check(self) -> None:
        if self.unready is not None:
            raise self.unready
        if self.fail is not None:
            error, self.fail = self.fail, None
            raise error

    def members(self, states: frozenset[State] | None = PRESENT) -> list[Member]:
        """The local node and what a test put into ``others``."""
        if self.unready is not None:
            raise self.unready
        local = Member(LOCAL, State.ALIVE, 5, 7, self.record, 0.0, self.digest, True)
        return [member for member in (local, *self.others) if states is None or member.state in states or member.local]

    def local(self) -> Member:
        """The local node."""
        return self.members()[0]

    def page(
        self,
        states: frozenset[State] | None = PRESENT,
        after: Address | None = None,
        limit: int | None = None,
        zones: frozenset[str] | None = None,
    ) -> list[Member]:
        """The same by address."""
        members = sorted(self.members(states), key=lambda member: member.address.order())
        found = [member for member in members if states is None or member.state in states]
        found = [member for member in found if zones is None or member.zone in zones]
        return [member for member in found if after is None or after < member.address][:limit]

    def tag(self) -> str:
        """What changes with them."""
        return repr([replace(member, sequence=0, last_heard=0.0) for member in self.members(None)])

    def health(self) -> str:
        """GET /v1/health."""
        self.members()
        word = {"running": "ok", "new": "starting"}.get(self.doing, "stopped")
        if word == "ok" and self.missed_rotation:
            return "missed_rotation"
        return "isolated" if word == "ok" and self.isolated else word

    def forget(self, address: Address) -> Member:
        """Forget a dead node."""
        found = next((member for member in self.members(None) if member.address == address), None)
        check_dead(address, found.state if found else None)
        assert found is not None
        self.others.remove(found)
        return found

    def documents_digest(self) -> str:
        """Documents digest as text."""
        return f"{self.digest:016x}"

    @property
    def digest(self) -> int:
        """Documents digest."""
        return sum(versions[0].state_hash for versions in self.held.values()) % 2**64

    def get(self) -> list[Node]:
        """Present nodes."""
        return [member.node for member in self.members()]

    def set(self, node: Node) -> None:
        """Remember a seed."""
        self._check()
        self.seeds.append(node)

    def start(self) -> bool:
        """Resume."""
        changed, self.doing = self.doing != "running", "running"
        return changed

    def stop(self) -> bool:
        """Pause."""
        changed, self.doing = self.doing != "paused", "paused"
        return changed

    async def leave(self) -> bool:
        """Leave."""
        changed, self.doing = self.doing != "left", "left"
        return changed

    def update_node(self, name: str | None = None, private_data: str | None = None) -> bool:
        """Change the record."""
        self._check()
        before = self.record
        self.record = Record(
            before.name if name is None else name,
            before.private_data if private_data is None else private_data,
            before.agent_version,
            before.plane,
        )
        return self.record != before

    def _note(self, change: Change) -> None:
        self.log.append(change)
        if self._news is not None:
            self._news.set()
        self._news = None

    async def publish(
        self,
        data: bytes,
        key: str = "default",
        *,
        expected: Version | None = None,
        absent: bool = False,
        content_type: str | None = None,
        author: str = "",
        comment: str = "",
        expires_in: float | None = None,
    ) -> Published:
        """Write a document."""
        self._check()
        write = Write(key, data, content_type, expected, absent, expires_in)
        return (await self.publish_many([write], author=author, comment=comment))[0]

    async def publish_many(self, writes: Sequence[Write], *, author: str = "", comment: str = "") -> list[Published]:
        """Write documents, all or none."""
        self._check()
        for write in writes:
            check_key(write.key)
            held = self.document(write.key)
            actual = held.version if held else None
            if (write.absent and actual is not None) or (write.expected is not None and write.expected != actual):
                raise ProtocolError(
                    "version_mismatch",
                    "another version is held",
                    expected=str(write.expected),
                    actual=actual and str(actual),
                )
        return [self._written(write, author, comment) for write in writes]

    def _written(self, write: Write, author: str, comment: str) -> Published:
        held = self.document(write.key)
        before = held.version if held else None
        if write.deleted and held is None:
            return Published(self.held[write.key][0] if write.key in self.held else None, False)
        if held is not None and not write.deleted:
            if (held.value, held.content_type) == (write.value, write.type_over(held)) and write.expires_in is None:
                return Published(held, False, held.version)
        document = self._write(write.key, write.value, write.type_over(held), author, comment, write.deleted)
        return Published(document, True, before)

    async def rollback(
        self,
        key: str,
        version: Version,
        *,
        expected: Version | None = None,
        author: str = "",
        comment: str = "",
        expires_in: float | str | None = None,
    ) -> Published:
        """Write a former version again."""
        self._check()
        former = next((document for document in self.held.get(key, []) if document.version == version), None)
        if former is None:
            raise ProtocolError("version_not_found", "there is no such version", key=key)
        write = Write(key, former.value, former.content_type, expected, deleted=former.deleted)
        return (await self.publish_many([write], author=author, comment=comment))[0]

    def repair(self) -> int:
        """Ask everybody."""
        self._check()
        return len(self.others)

    def _write(self, key: str, data: bytes, content_type: str, author: str, comment: str, deleted: bool) -> Document:
        self.revision += 1
        document = Document(
            key, Version((1_700_000_000_000 + self.revision) << 16, LOCAL), data, content_type, author, comment, deleted
        )
        self.held.setdefault(key, []).insert(0, document)
        self._note(Change(self.revision, "document", "deleted" if deleted else "published", document))
        return document

    async def delete(
        self, key: str, *, expected: Version | None = None, author: str = "", comment: str = ""
    ) -> Published:
        """Write a tombstone."""
        self._check()
        held = self.document(key)
        if expected is not None and (held is None or held.version != expected):
            raise ProtocolError("version_mismatch", "another version is held", expected=str(expected), actual=None)
        if held is None:
            return Published(self.held[key][0] if key in self.held else None, False)
        return Published(self._write(key, b"", "raw", author, comment, True), True, held.version)

    def read(self, key: str = "default") -> bytes:
        """The value."""
        held = self.document(key)
        return held.value if held else b""

    def document(self, key: str) -> Document | None:
        """The document."""
        versions = self.held.get(key)
        return versions[0] if versions and not versions[0].deleted else None

    def signed_by(self, document: Document) -> None:
        """Nobody signs here."""

    def signature(self, document: Document) -> None:
        """Nobody signs here."""

    def lineage(self, key: str) -> tuple[Version, ...]:
        """The newest version, deletions included."""
        versions = self.held.get(key)
        return (versions[0].version, *versions[0].lineage) if versions else ()

    def documents(self, prefix: str = "", after: str = "", limit: int | None = None) -> list[Document]:
        """All documents."""
        found = (self.document(key) for key in sorted(self.held) if key.startswith(prefix) and key > after)
        return [document for document in found if document is not None][:limit]

    async def history(self, key: str) -> list[Document]:
        """All versions."""
        return list(self.held.get(key, ()))

    async def version(self, key: str, version: Version) -> Document:
        """One of the versions."""
        found = next((document for document in self.held.get(key, ()) if document.version == version), None)
        if found is None:
            raise ProtocolError("version_not_found", "there is no such version", key=key)
        return found

    def unread(self, key: str, versions: Sequence[Document]) -> set[Version]:
        """Conflicts: none here."""
        return set()

    async def changes(self, since: int, timeout: float, prefix: str = "", kind: str = "") -> Changes:
        """Wait for changes."""
        deadline = asyncio.get_running_loop().time() + timeout
        while True:
            news = self._news = self._news or asyncio.Event()
            found = [
                change
                for change in self.log
                if change.revision > since
                and kind in ("", change.kind)
                and (change.document is None or change.document.key.startswith(prefix))
            ]
            left = deadline - asyncio.get_running_loop().time()
            if found or left <= 0:
                return Changes(self.revision, False, found)
            try:
                await asyncio.wait_for(news.wait(), left)
            except asyncio.TimeoutError:
                continue

    async def convergence(
        self,
        key: str | None = None,
        version: Version | None = None,
        digest: str | None = None,
        wait: str | int = "all",
        timeout: float = 0.0,
        deleted: bool = False,
    ) -> Convergence:
        """What the test wants to be answered."""
        self.asked = (key, version, digest, wait, timeout, deleted)
        self._check()
        refuse_isolated(self.isolated)
        return self.answer

    def state(self) -> str:
        """As of stop, start and leave."""
        return self.doing

    def status(self) -> dict[str, Any]:
        """GET /v1/status."""
        from xdp_gossip.node import shapes

        members = self.members(None)
        return {
            "version": "0.1.0",
            "cluster": "default",
            "storage_error": None,
            "state_problems": [],
            "wire": "native",
            "protocol": "auto",
            "mode": "UDP",
            "mode_reason": "",
            "waiting": "",
            "state": self.doing,
            "isolated": self.isolated,
            "missed_rotation": self.missed_rotation,
            "unknown_key_nodes": 0,
            "uptime": 12.5,
            "node": shapes.node(members[0]),
            "cycle": 1.0,
            "timeout": 7.0,
            "amount": 4,
            "members": {state.value: sum(m.state is state for m in members) for state in State},
            "documents": len(self.documents()),
            "document_bytes": sum(document.size for document in self.documents()),
            "document_bytes_limit": 1 << 30,
            "digest": f"{self.digest:016x}",
            "clock_offset": 0.001,
            "caught_up": True,
            "catching_up": "",
            "counters": {"internal_errors": 0, "rx_packets": 3, "tx_packets": 4},
            "internal_errors": [],
            **({"dataplane": self.dataplane} if self.dataplane else {}),
            "api_version": 1,
        }
