# SPDX-License-Identifier: MIT
"""Rules of the documents: batches, expiry, collected tombstones. Two engines and a wire that the test holds in hand."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace

import pytest

from tests.support.keys import KEY
from xdp_gossip.core.documents import staging
from xdp_gossip.core.documents.clock import LEAP_HOLDS, MAX_READING
from xdp_gossip.core.documents.metadata import Metadata
from xdp_gossip.core.documents.table import DocumentTable, entry_of, unread
from xdp_gossip.core.engine import Engine
from xdp_gossip.core.events import DocumentChanged, Rumor, TombstonesCollected, Transmit, Warned
from xdp_gossip.core.interface import Known, ProtocolError
from xdp_gossip.core.members.membership import Membership
from xdp_gossip.core.members.timing import Timing
from xdp_gossip.core.messages import Documents
from xdp_gossip.core.outbox import Local, Outbox
from xdp_gossip.core.settings import Limits, Settings
from xdp_gossip.core.signers import Signers
from xdp_gossip.core.sync import anti_entropy
from xdp_gossip.core.types import Address, Document, Node, Now, Record, Version, Write
from xdp_gossip.store.sqlite import MemoryStore, persist
from xdp_gossip.wire.keys import Keyring
from xdp_gossip.wire.native import NativeCodec

EPOCH = 1_700_000_000
GRACE = 600.0
CODEC = NativeCodec(Keyring.single("default", KEY))


class Wire:
    """Engines by address, one clock for all, and packets that travel at once."""

    signers: Signers | None = None
    grace = GRACE

    def __init__(self, count: int) -> None:
        self.time = 0.0
        self.engines: dict[Address, Engine] = {}
        self.disks: dict[Address, MemoryStore] = {}
        self.seen: list[object] = []
        self.cut: set[Address] = set()
        self.settings = Settings(cycle=1.0, tombstone_grace=self.grace)
        nodes = [Node(f"198.18.0.{number + 1}", 8000) for number in range(count)]
        for node in nodes:
            self.disks[node.address] = MemoryStore()
            self.boot(node, nodes[0])

    def boot(self, node: Node, seed: Node) -> Engine:
        disk = self.disks[node.address]
        incarnation, rng = disk.next_incarnation(EPOCH), random.Random(node.addr)
        engine = Engine(node, self.settings, CODEC, rng, incarnation, signers=self.signers)
        snapshot = disk.load()
        self.engines[node.address] = engine
        engine.start(self.now, (), snapshot.documents)
        if seed != node:
            engine.seed(seed, self.now)
        return engine

    @property
    def now(self) -> Now:
        return Now(1000 + self.time, int((EPOCH + self.time) * 1e9))

    def __getitem__(self, number: int) -> Engine:
        return self.engines[Address(f"198.18.0.{number + 1}", 8000)]

    def run(self, seconds: float, step: float = 0.25) -> None:
        end = self.time + seconds
        while self.time < end:
            self.time += step
            for engine in self.engines.values():
                engine.handle_timer(self.now)
            self.settle()

    def settle(self) -> None:
        for _ in range(200):
            moved = False
            for address, engine in self.engines.items():
                for event in engine.take_events():
                    self.seen.append(event)
                    if isinstance(event, (DocumentChanged, TombstonesCollected)):
                        persist(self.disks[address], [event])
                for transmit in engine.take_transmits():
                    targets = transmit.targets if isinstance(transmit, Rumor) else (transmit.to,)
                    for target in targets:
                        if target in self.engines and not {address, target} & self.cut:
                            self.engines[target].receive(transmit.data, address, self.now)
                            moved = True
            if not moved:
                return
        raise AssertionError("packets without end")

    def agree(self) -> bool:
        return len({engine.documents.digest for engine in self.engines.values()}) == 1


@pytest.fixture
def wire() -> Wire:
    made = Wire(3)
    made.run(5)
    return made


def held(engine: Engine, key: str) -> bytes | None:
    found = engine.documents.get(key)
    return found.value if found else None


def test_a_batch_is_visible_everywhere_and_has_one_version(wire: Wire) -> None:
    written = wire[0].documents.publish_many([Write("a", b"1"), Write("b", b"2")], wire.now, author="me")
    wire.run(3)
    assert {document.version for document, changed in written if document and changed} == {written[0][0].version}
    for engine in wire.engines.values():
        assert (held(engine, "a"), held(engine, "b")) == (b"1", b"2")
        assert engine.documents.get("a").batch == ("a", "b")
    assert wire.agree()


def test_batches_of_empty_documents_have_a_bound(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys and documents without a value take memory, too, and a batch may name 64 keys."""
    monkeypatch.setattr(staging, "MAX_OVERHEAD", 200_000)
    member = wire[0].documents

    def batch(number: int) -> list[Document]:
        keys = tuple(f"{number}/{each:02}" for each in range(64))
        version = Version((EPOCH * 1000 << 16) + number, Address("198.18.0.9", 8000))
        return [Document(key, version, b"", batch=keys) for key in keys]

    for number in range(100):
        assert member.apply(batch(number)[0], wire.now)
    assert len(member.staging) == 8 and wire[0].counters["batches_dropped"] == 92
    for document in batch(99)[1:]:
        assert member.apply(document, wire.now)
    assert member.get("99/63") is not None, "the newest batch is never dropped, however large it is"
    for number in range(92, 99):
        for document in batch(number):  # also the first one, as its batch may have been dropped
            member.apply(document, wire.now)
    assert len(member.staging) == 0 and member.staging._overhead == 0 and member.staging._bytes == 0


def test_no_part_of_a_batch_is_visible_before_the_last_one_came(wire: Wire) -> None:
    [(first, _), (second, _)] = wire[0].documents.publish_many([Write("a", b"1"), Write("b", b"2")], wire.now)
    other = wire[1]
    metadata = other.documents
    metadata.apply(first, wire.now)
    assert held(other, "a") is None and other.documents.digest == 0
    metadata.apply(second, wire.now)
    assert (held(other, "a"), held(other, "b")) == (b"1", b"2")
    changed = [event for event in other.take_events() if isinstance(event, DocumentChanged)]
    assert [event.document.key for event in changed] == ["a", "b"]


def test_a_batch_of_which_a_part_was_overtaken_is_complete_with_the_later_version(wire: Wire) -> None:
    [(first, _), (second, _)] = wire[0].documents.publish_many([Write("a", b"1"), Write("b", b"2")], wire.now)
    later, _ = wire[0].documents.publish("a", b"3", wire.now)
    metadata = wire[1].documents
    metadata.apply(second, wire.now)
    assert held(wire[1], "b") is None
    metadata.apply(later, wire.now)
    assert (held(wire[1], "a"), held(wire[1], "b")) == (b"3", b"2")
    assert not metadata.apply(first, wire.now)


def test_batches_that_wait_for_each_other_become_visible_in_the_end(wire: Wire) -> None:
    old = wire[0].documents.publish_many([Write("a", b"1"), Write("b", b"1")], wire.now)
    new = wire[0].documents.publish_many([Write("a", b"2"), Write("c", b"2")], wire.now)
    parts = [document for document, _ in (*old, *new)]
    for order in ([1, 2, 0, 3], [2, 1, 0, 3], [3, 1, 2], [0, 1, 3, 2]):
        fresh = Wire(1)
        for index in order:
            fresh[0].documents.apply(parts[index], fresh.now)
        assert [held(fresh[0], key) for key in "abc"] == [b"2", b"1", b"2"], order


def test_an_incomplete_batch_is_forgotten_and_counted(wire: Wire) -> None:
    [(first, _), _] = wire[0].documents.publish_many([Write("a", b"1"), Write("b", b"2")], wire.now)
    alone = Wire(1)
    alone[0].documents.apply(first, alone.now)
    alone.run(70)
    assert len(alone[0].documents.staging) == 0
    assert alone[0].counters["batches_given_up"] == 1
    assert alone[0].documents.apply(first, alone.now)


def test_a_batch_is_taken_by_a_new_member_after_the_deletions_in_it_were_retired(wire: Wire) -> None:
    """Nobody tells of the tombstone any more, so nobody can wait for it."""
    wire[0].documents.publish("old", b"1", wire.now)
    wire.run(3)
    away = wire[2].node
    wire.cut.add(away.address)
    wire[0].documents.publish_many([Write("new", b"1"), Write("old", deleted=True)], wire.now)
    wire.run(GRACE + 30, 1.0)
    fresh = Node("198.18.0.9", 8000)
    wire.disks[fresh.address] = MemoryStore()
    wire.boot(fresh, wire[0].node)
    wire.cut.clear()
    wire.run(20)
    assert [held(engine, "new") for engine in wire.engines.values()] == [b"1"] * 4
    assert [held(engine, "old") for engine in wire.engines.values()] == [None] * 4
    assert wire.agree()
    assert [len(engine.documents.staging) for engine in wire.engines.values()] == [0] * 4


def test_a_batch_is_all_or_nothing_for_whoever_writes_it(wire: Wire) -> None:
    document, _ = wire[0].documents.publish("a", b"1", wire.now)
    wrong = Version(5, document.version.origin)
    with pytest.raises(ProtocolError) as refused:
        wire[0].documents.publish_many([Write("b", b"1"), Write("a", b"2", expected=wrong)], wire.now)
    assert refused.value.code == "version_mismatch"
    assert refused.value.details == {"key": "a", "expected": str(wrong), "actual": str(document.version)}
    assert held(wire[0], "b") is None
    for writes in (
        [Write("b"), Write("b")],
        [Write(f"k{n}") for n in range(65)],
        [Write("b" * 500 + str(n)) for n in range(9)],
    ):
        with pytest.raises(ProtocolError) as refused:
            wire[0].documents.publish_many(writes, wire.now)
        assert refused.value.code == "invalid_document"
    assert len(list(wire[0].documents.live())) == 1


def test_what_stays_as_it_is_keeps_its_version_in_a_batch(wire: Wire) -> None:
    document, _ = wire[0].documents.publish("a", b"1", wire.now)
    (same, kept), (_, written), (gone, nothing) = wire[0].documents.publish_many(
        [Write("a", b"1"), Write("b", b"2"), Write("never", deleted=True)], wire.now
    )
    assert (same, kept, written, gone, nothing) == (document, False, True, None, False)
    assert wire[0].documents.get("b").batch == ()


def test_a_document_is_over_on_every_member_at_once_and_without_a_word(wire: Wire) -> None:
    document, _ = wire[0].documents.publish("lease", b"1", wire.now, expires_in=30)
    wire.run(25)
    assert [held(engine, "lease") for engine in wire.engines.values()] == [b"1"] * 3
    before = sum(engine.counters["tx_metadata"] for engine in wire.engines.values())
    wire.run(6)
    assert [held(engine, "lease") for engine in wire.engines.values()] == [None] * 3
    assert wire.agree()
    assert sum(engine.counters["tx_metadata"] for engine in wire.engines.values()) == before
    assert wire[1].documents.held("lease").version == Version(document.version.hlc + 1, document.version.origin)


def test_whoever_renews_a_document_wins_against_its_end(wire: Wire) -> None:
    wire[0].documents.publish("lease", b"1", wire.now, expires_in=30)
    wire.run(5)
    away = Address("198.18.0.3", 8000)
    wire.cut.add(away)
    wire[0].documents.publish("lease", b"1", wire.now, expires_in=3600)
    wire.run(40)
    assert held(wire[2], "lease") is None
    wire.cut.clear()
    wire.run(20)
    assert [held(engine, "lease") for engine in wire.engines.values()] == [b"1"] * 3


def test_a_comparison_does_not_see_what_is_over(wire: Wire) -> None:
    wire[0].documents.publish("lease", b"1", wire.now, expires_in=1)
    wire.settle()
    wire.time += 2
    document, changed = wire[0].documents.publish("lease", b"2", wire.now, absent=True)
    assert changed and document.expires == 0


def test_tombstones_go_after_their_grace_everywhere(wire: Wire) -> None:
    wire[0].documents.publish("a", b"1", wire.now)
    wire.run(3)
    tombstone, _ = wire[1].documents.delete("a", wire.now)
    wire.run(GRACE - 10, 1.0)
    assert wire[2].documents.held("a") == tombstone
    wire.run(20, 1.0)
    assert [engine.documents.held("a") for engine in wire.engines.values()] == [None] * 3
    assert wire.agree() and wire[0].documents.digest == 0
    disk = wire.disks[wire[2].node.address]
    assert disk.load().documents == disk.history("a") == [tombstone]
    again = wire.boot(wire[2].node, wire[0].node)
    assert again.documents.digest == 0 and again.documents.held("a") is None
    document, _ = again.documents.publish("a", b"2", wire.now)
    wire.run(3, 1.0)
    assert document.version > tombstone.version and held(wire[0], "a") == b"2"


@pytest.mark.slow
def test_a_member_that_was_away_for_too_long_brings_nothing_back(wire: Wire) -> None:
    wire[0].documents.publish("gone", b"1", wire.now)
    wire[0].documents.publish("stays", b"1", wire.now)
    wire.run(3)
    away = wire[2].node
    wire.cut.add(away.address)
    wire.run(20, 1.0)
    wire[0].documents.delete("gone", wire.now)
    wire.run(GRACE + 30, 1.0)
    assert held(wire[2], "gone") == b"1"
    news, _ = wire[2].documents.publish("written while away", b"1", wire.now)
    wire.cut.clear()
    wire.run(30)
    assert wire.agree()
    assert [held(engine, "gone") for engine in wire.engines.values()] == [None] * 3
    assert [held(engine, "stays") for engine in wire.engines.values()] == [b"1"] * 3
    assert [held(engine, news.key) for engine in wire.engines.values()] == [b"1"] * 3
    assert not conflicts(wire)
    assert sum(engine.counters["documents_refused_collected"] for engine in wire.engines.values()) > 0
    assert wire.disks[away.address].history("gone")[0].deleted


@pytest.mark.parametrize("remember", [1, 0])
def test_a_deletion_is_remembered_while_one_member_is_left_that_knew_of_it(wire: Wire, remember: int) -> None:
    """New members are not told of what was retired: docs/protocol.md, "Documents", states the bound."""
    wire[0].documents.publish("gone", b"1", wire.now)
    wire.run(3)
    away = wire[2].node.address
    wire.cut.add(away)
    wire[0].documents.delete("gone", wire.now)
    wire.run(GRACE + 30, 1.0)
    for number in range(2 - remember):  # replaced one after the other
        fresh = Node(f"198.18.0.{10 + number}", 8000)
        wire.disks[fresh.address] = MemoryStore()
        wire.boot(fresh, wire[1].node)
        wire.run(10)
        del wire.engines[wire[number].node.address]
        wire.run(10)
    wire.cut.clear()
    wire.engines[away].seed(fresh, wire.now)
    wire.run(30)
    assert wire.agree()
    expected = None if remember else b"1"
    assert [held(engine, "gone") for engine in wire.engines.values()] == [expected] * 3


@pytest.mark.parametrize(("days", "documents", "warns"), [(0.5, 1, False), (2, 1, True), (2, 0, False)])
def test_who_was_away_for_longer_than_deletions_are_told_of_is_warned_of(
    days: float, documents: int, warns: bool
) -> None:
    node = Node(OWN.ip, OWN.port)
    engine = Engine(node, Settings(tombstone_grace=86_400), CODEC, random.Random(1), incarnation=5)
    last_heard = now_at(EPOCH - days * 86_400).wall_ns
    known = [Known(OTHER, 3, 1, last_heard), Known(Address("198.18.0.3", 8000), 3, 1, last_heard - 10**18)]
    stored = [Document("k", Version(EPOCH * 500 << 16, OTHER), b"x")] * documents
    engine.start(now_at(EPOCH), known, stored)
    warned = [event.text for event in engine.take_events() if isinstance(event, Warned) and event.code == "was_away"]
    assert len(warned) == warns
    assert not warns or "2.0 days ago" in warned[0]


@pytest.mark.slow
def test_a_new_member_hears_of_no_deletion_of_long_ago_and_takes_what_is_older(wire: Wire) -> None:
    wire[0].documents.publish("old", b"1", wire.now)
    wire[0].documents.publish("a", b"1", wire.now)
    wire[0].documents.delete("a", wire.now)
    wire.run(GRACE + 30, 1.0)
    fresh = Node("198.18.0.9", 8000)
    wire.disks[fresh.address] = MemoryStore()
    engine = wire.boot(fresh, wire[0].node)
    wire.run(20)
    assert held(engine, "old") == b"1" and wire.agree()
    assert engine.documents.tombstone_watermark == 0 < wire[0].documents.tombstone_watermark


def test_more_deletions_than_documents_are_allowed_are_forgotten_and_told_of() -> None:
    wire = Wire(0)
    wire.settings = replace(wire.settings, limits=Limits(documents=3))
    node = Node("198.18.0.1", 8000)
    wire.disks[node.address] = MemoryStore()
    engine = wire.boot(node, node)
    for number in range(5):
        wire.time += 1
        engine.documents.publish(f"k/{number}", b"1", wire.now)
        engine.documents.delete(f"k/{number}", wire.now)
        wire.run(GRACE + 5, 5.0)
    assert engine.counters["tombstones_dropped"] == 2
    assert [document.key for document in wire.disks[node.address].load().documents] == ["k/2", "k/3", "k/4"]
    assert any(isinstance(event, Warned) and event.code == "tombstones_dropped" for event in wire.seen)


def test_a_store_keeps_what_documents_came_to_have() -> None:
    from xdp_gossip.store import rows

    plain = Document("a", Version(1 << 16, Address("198.18.0.11", 8000)), b"x", "json", "me", "why")
    for document in (plain, replace(plain, expires=5), replace(plain, batch=("a", "b"), base=plain.version)):
        assert rows.row_document(rows.document_row(document)) == document
    successor = replace(plain, base=plain.version, ancestors=(plain.version, Version(5, plain.version.origin)))
    assert rows.row_document(rows.document_row(successor)) == successor


def conflicts(wire: Wire) -> set[bytes]:
    """Values that were overtaken without having been read, as told of by whoever held them."""
    events = [event for event in wire.seen if isinstance(event, DocumentChanged) and event.conflict]
    return {event.replaced.value for event in events if event.replaced}


def test_a_publish_that_only_the_successor_of_its_rival_meets_is_told_of_too(wire: Wire) -> None:
    alone = wire[0].node.address
    wire[0].documents.publish("k", b"read by all", wire.now)
    wire.run(3)
    wire.cut = {alone}
    wire[0].documents.publish("k", b"lost", wire.now)
    wire.run(1)
    wire[1].documents.publish("k", b"rival", wire.now)
    wire.run(1)
    wire[2].documents.publish("k", b"its successor", wire.now)
    wire.run(1)
    wire.cut = set()
    wire.run(20)
    assert wire.agree() and held(wire[0], "k") == b"its successor"
    assert conflicts(wire) == {b"lost"}
    versions = wire.disks[alone].history("k")
    lost = unread(versions, versions[0].version, alone)
    assert [version.value for version in versions if version.version in lost] == [b"lost"]
    assert [version.value for version in versions if version.version not in lost] == [b"its successor", b"read by all"]


def test_who_slept_through_some_successors_sees_no_conflict(wire: Wire) -> None:
    wire[1].documents.publish("k", b"0", wire.now)
    wire.run(3)
    wire.cut = {wire[0].node.address}
    for number in range(1, 8):
        wire[1 + number % 2].documents.publish("k", b"%d" % number, wire.now)
        wire.run(1)
    wire.cut = set()
    wire.run(20)
    assert wire.agree() and held(wire[0], "k") == b"7"
    assert conflicts(wire) == set()


def test_of_one_overtaken_by_more_versions_than_are_named_its_author_tells(wire: Wire) -> None:
    wire[0].documents.publish("k", b"0", wire.now)
    wire.run(3)
    wire.cut = {wire[0].node.address}
    wire[0].documents.publish("k", b"lost", wire.now)
    for number in range(1, 15):
        wire.run(1)
        wire[1 + number % 2].documents.publish("k", b"%d" % number, wire.now)
    wire.cut = set()
    wire.run(20)
    assert wire.agree() and held(wire[0], "k") == b"14"
    assert conflicts(wire) == {b"lost"}


class Alone:
    """The rules of writing without an engine."""

    def __init__(self) -> None:
        self.table = DocumentTable()
        settings, rng = Settings(tombstone_grace=GRACE), random.Random(1)
        local, members = Local(Node(OWN.ip, OWN.port), Record(), 1), Membership(OWN, 10, rng)
        self.out = Outbox(CODEC, local, members, Timing(settings, members), lambda: self.table.digest, rng)
        self.metadata = Metadata(OWN, settings, self.out, self.table, Signers())

    def write(self, key: str, at: float, **fields: object) -> Document:
        value = b"" if fields.get("deleted") else b"v"
        [(document, changed)] = self.metadata.publish_many([Write(key, value, **fields)], now_at(at))  # type: ignore[arg-type]
        assert changed and document is not None
        return document


OWN, OTHER = Address("198.18.0.1", 8000), Address("198.18.0.2", 8000)


def now_at(seconds: float, running: float | None = None) -> Now:
    """The wall clock says ``seconds``, and so much has passed since EPOCH, or ``running`` when that clock was set."""
    return Now(1000 + (seconds - EPOCH if running is None else running), int(seconds * 1e9))


@pytest.mark.parametrize("at", [100.0, EPOCH - 259_200.0, EPOCH - 600.0, EPOCH, 4_330_000_000.0])
def test_a_new_version_is_above_every_version_held_whatever_the_clock_says(at: float) -> None:
    alone = Alone()
    held = Document("k", Version(EPOCH * 1000 << 16, OTHER), b"of a clock that was right")
    gone = Document("gone", Version(EPOCH * 1000 << 16, OTHER), deleted=True)
    assert alone.metadata.apply(held, now_at(EPOCH)) and alone.metadata.apply(gone, now_at(EPOCH))
    alone.metadata.tick(now_at(EPOCH + GRACE + 1))
    assert "gone" not in alone.table
    assert alone.write("k", at).version > held.version
    assert alone.write("gone", at).version > gone.version


def test_versions_follow_the_newest_one_known_while_the_clock_cannot_be_right() -> None:
    alone = Alone()
    held = Document("k", Version(EPOCH * 1000 << 16, OTHER), b"x")
    alone.metadata.load([held], now_at(50))
    assert alone.write("another", 60).version > held.version


def test_no_clock_makes_a_version_that_nothing_can_follow() -> None:
    alone = Alone()
    first = alone.write("k", 2**63 / 1e9)
    assert first.version.hlc < MAX_READING
    again = alone.metadata.publish_many([Write("k", b"later")], now_at(EPOCH))[0][0]
    assert again is not None and again.version > first.version
    assert not alone.metadata.apply(Document("k", Version(MAX_READING, OTHER), b"x"), now_at(EPOCH))
    assert alone.out.counters["documents_refused_future"] == 1


def test_what_nothing_can_follow_is_not_followed_by_what_others_refuse() -> None:
    """Only a member that lies writes such a version; whoever publishes over it is told so."""
    alone = Alone()
    for key, reading in (("k", MAX_READING - 2), ("l", MAX_READING - 3)):
        assert alone.metadata.apply(Document(key, Version(reading, OTHER), b"x"), now_at(EPOCH))
        with pytest.raises(ProtocolError, match=f"no version can follow {reading:016x}@") as caught:
            alone.write(key, EPOCH)
        assert caught.value.code == "version_exhausted"
        with pytest.raises(ProtocolError):
            alone.metadata.publish_many([Write(key, deleted=True)], now_at(EPOCH))
    assert alone.metadata.apply(Document("m", Version(MAX_READING - 4, OTHER), b"x"), now_at(EPOCH))
    assert alone.write("m", EPOCH).version.hlc == MAX_READING - 2
    assert alone.write("another", EPOCH).version.hlc < MAX_READING >> 3


@pytest.mark.parametrize("stored", [False, True])
def test_a_version_that_no_clock_makes_burns_its_own_key_only(stored: bool) -> None:
    """A board without a battery boots in 1970, and follows the newest version known: but not that of a liar."""
    alone = Alone()
    lie = Document("k", Version(MAX_READING - 2, OTHER), b"x")
    if stored:
        alone.metadata.load([lie], now_at(50))
    else:
        assert alone.metadata.apply(lie, now_at(50))
    written = alone.write("another", 60)
    others = Alone()
    assert others.metadata.apply(written, now_at(EPOCH)), "others take it"
    assert others.write("another", EPOCH, deleted=True).version > written.version


def test_a_live_document_leaves_room_for_its_end() -> None:
    alone = Alone()
    assert not alone.metadata.apply(Document("k", Version(MAX_READING - 1, OTHER), b"x", expires=5), now_at(EPOCH))
    assert alone.out.counters["documents_refused_future"] == 1
    assert alone.metadata.apply(Document("k", Version(MAX_READING - 1, OTHER), deleted=True), now_at(EPOCH))


def test_no_other_members_clock_ends_a_document() -> None:
    alone = Alone()
    lease = alone.write("lease", EPOCH, expires_in=60)
    assert not alone.metadata.apply(lease.ended, now_at(EPOCH + 59))
    assert alone.out.counters["documents_refused_early"] == 1
    assert alone.table.get("lease") == lease
    assert alone.metadata.apply(lease.ended, now_at(EPOCH + 60))


@pytest.mark.parametrize("late", [120.0, GRACE * 2])
def test_a_document_that_a_wrong_clock_ended_here_is_taken_again(late: float) -> None:
    alone, disk = Alone(), MemoryStore()
    lease = Document("lease", Version(EPOCH * 1000 << 16, OTHER), b"v", expires=(EPOCH + 90) * 1000)
    alone.metadata.load([], now_at(EPOCH))
    assert alone.metadata.apply(lease, now_at(EPOCH))
    leap = LEAP_HOLDS + 10
    alone.metadata.expire(now_at(EPOCH + 10 + late, running=10))
    assert alone.table.get("lease") == lease
    alone.metadata.expire(now_at(EPOCH + leap + late, running=leap))
    alone.metadata.tick(now_at(EPOCH + leap + late, running=leap))
    assert alone.table.get("lease") != lease
    assert not alone.metadata.outranked_by(entry_of(lease), now_at(EPOCH + leap + late, running=leap))
    assert alone.metadata.apply(lease, now_at(EPOCH + leap + 1, running=leap + 1))
    assert alone.table.get("lease") == lease
    persist(disk, [e for e in alone.out.take_events() if isinstance(e, (DocumentChanged, TombstonesCollected))])
    assert disk.load().documents == [lease] and not alone.out.counters["document_conflicts"]


def test_what_a_wrong_clock_retired_is_told_of_again() -> None:
    alone = Alone()
    tombstone = Document("gone", Version(EPOCH * 1000 << 16, OTHER), deleted=True)
    assert alone.metadata.apply(tombstone, now_at(EPOCH))
    alone.metadata.tick(now_at(EPOCH + 8 * 86_400, running=0))
    assert alone.table.get("gone") == tombstone
    alone.metadata.tick(now_at(EPOCH + 8 * 86_400 + LEAP_HOLDS, running=LEAP_HOLDS))
    assert alone.table.get("gone") is None
    alone.metadata.tick(now_at(EPOCH + LEAP_HOLDS + 15))
    assert alone.table.get("gone") == tombstone


def test_a_bucket_of_more_documents_than_hashes_are_named_is_listed_whole(
    wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both sides learn what they lack, also in a bucket whose hashes would not fit one request."""
    monkeypatch.setattr(anti_entropy, "KNOWN", 3)
    for number in range(600):
        wire[number % 3].documents.publish(f"k/{number}", b"x", wire.now)
    wire.run(5)
    assert wire.agree()
    wire.cut = {wire[0].node.address}
    for number in (5, 6, 700):
        wire[0].documents.publish(f"k/{number}", b"of the first", wire.now)
        wire[1].documents.publish(f"k/{number + 1000}", b"of the others", wire.now)
    wire.run(1)
    wire.cut = set()
    wire.run(10)
    assert wire.agree()
    assert held(wire[2], "k/700") == b"of the first" and held(wire[0], "k/1700") == b"of the others"


def test_frames_of_documents_are_filled(wire: Wire) -> None:
    sender, receiver = wire[0], wire[1].node.address
    sender.take_transmits()
    documents = [Document(f"k{number:04d}", Version(1 << 20, OTHER), b"x" * (number % 97)) for number in range(1000)]
    sender._supply.push(documents, receiver, wire.now)
    frames = [len(sent.data) for sent in sender.take_transmits() if isinstance(sent, Transmit)]
    longest = max(CODEC.size_of(Documents((document,))) for document in documents)
    assert max(frames) <= wire.settings.size
    assert min(frames[:-1]) > wire.settings.size - longest
    for sent in range(1, 64):  # also with a list so long that its length field grows
        sender._supply.push(documents[:sent], receiver, wire.now)
    assert all(len(sent.data) <= wire.settings.size for sent in sender.take_transmits() if isinstance(sent, Transmit))


def test_a_full_holder_is_not_tried_for_each_document(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    away = wire[2].node.address
    wire.cut = {away}
    count = 1500
    for number in range(count):
        wire[0].documents.publish(f"k{number:04d}", b"%d" % number, wire.now)
        if number % 100 == 0:
            wire.settle()
    wire.run(5)
    calls: Counter[str] = Counter()
    fetcher = wire.engines[away]._fetcher

    def counted(name: str) -> None:
        function = getattr(fetcher, name)

        def call(*arguments: object) -> object:
            calls[name] += 1
            return function(*arguments)

        monkeypatch.setattr(fetcher, name, call)

    counted("_choose")
    counted("pump")
    wire.cut = set()
    wire.run(10)
    assert held(wire.engines[away], "k1499") == b"1499" and wire.agree()
    # One try for each document, and for each set of holders, of which there are two here.
    assert 0 < calls["_choose"] <= count + 2 * calls["pump"]
