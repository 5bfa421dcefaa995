# SPDX-License-Identifier: MIT
"""Rules of signed documents: who may write what, which version holds, expiry, deletion, withdrawal, restart."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import pytest
from test_core_documents import EPOCH, GRACE, Wire, held

from tests.support.signer import CLUSTER, START, Draft, Key, documents, rules, writes
from xdp_gossip.core.documents.metadata import FAR
from xdp_gossip.core.documents.table import entry_of
from xdp_gossip.core.events import DocumentChanged, DocumentRefused, DocumentWithheld
from xdp_gossip.core.interface import InvalidError, ProtocolError
from xdp_gossip.core.settings import Limits, Settings
from xdp_gossip.core.signatures import signed_at
from xdp_gossip.core.signers import Refused, Signers
from xdp_gossip.core.types import Address, Document, Version, Write
from xdp_gossip.signing.sshsig import verify
from xdp_gossip.store.sqlite import MemoryStore, persist

ALICE, BOB, EVE = Key(1), Key(2), Key(3)
SECOND = 1_000_000
SIGNERS = (ALICE.signer("alice", "app/", "both/"), BOB.signer("bob", "db/", "both/", "app/bob/"))


class SignedWire(Wire):
    """Members with the signers alice and bob."""

    signers: Signers | None = rules(*SIGNERS)


@pytest.fixture
def wire() -> SignedWire:
    made = SignedWire(3)
    made.run(5)
    return made


def refusals(wire: Wire) -> int:
    names = ("documents_refused_unsigned", "documents_refused_signature")
    return sum(engine.counters[name] for engine in wire.engines.values() for name in names)


def publish(wire: Wire, number: int, key: Key, at: float, *drafts: Draft) -> list[tuple[Document | None, bool]]:
    """Publish on a member what was signed ``at`` seconds after START."""
    return wire[number].documents.publish_many(writes(key, START + int(at * SECOND), *drafts), wire.now)


def error(wire: Wire, number: int, key: Key, at: float, *drafts: Draft) -> ProtocolError:
    with pytest.raises(ProtocolError) as raised:
        publish(wire, number, key, at, *drafts)
    return raised.value


def test_a_signed_document_reaches_all_and_says_who_signed_it(wire: SignedWire) -> None:
    [(document, changed)] = publish(wire, 0, ALICE, 1, Draft("app/a", b"1"))
    assert changed and document is not None and signed_at(document.version) == START + SECOND
    wire.run(3)
    assert wire.agree() and all(held(engine, "app/a") == b"1" for engine in wire.engines.values())
    for engine in wire.engines.values():
        found = engine.documents.get("app/a")
        assert found is not None
        by = engine.documents.signers.signed_by(found, START)
        assert by is not None and (by.signer, by.withdrawn) == ("alice", False) and by.fingerprint.startswith("SHA256:")
    assert refusals(wire) == 0


def test_the_longest_prefix_decides_and_never_falls_back_to_unsigned(wire: SignedWire) -> None:
    assert error(wire, 0, BOB, 1, Draft("app/a", b"1")).code == "signature_refused"
    assert error(wire, 0, ALICE, 1, Draft("app/bob/a", b"1")).code == "signature_refused"
    publish(wire, 0, BOB, 1, Draft("app/bob/a", b"1"))
    publish(wire, 0, BOB, 1, Draft("both/a", b"1"))
    publish(wire, 0, ALICE, 2, Draft("both/a", b"2"))
    for key in ("app/a", "app/bob/b", "db/", "both/x"):
        with pytest.raises(ProtocolError, match="expected a signature of") as raised:
            wire[0].documents.publish(key if key != "db/" else "db/x", b"1", wire.now)
        assert raised.value.code == "signature_required"
    with pytest.raises(ProtocolError, match="expected a signature of bob"):
        wire[0].documents.delete("app/bob/a", wire.now)
    wire[0].documents.publish("application", b"no prefix of any signer", wire.now)


def test_a_signature_covers_every_field(wire: SignedWire) -> None:
    """A document with any other value of any field is refused, on each member, and counted."""
    base = Version(EPOCH * 1000 << 16, Address("198.18.0.9", 8000))
    [good] = documents(ALICE, START, Draft("app/a", b"1", (base,), "text", expires=EPOCH * 1000 + 10**9), comment="why")
    others = {
        "key": "app/b",
        "version": replace(good.version, hlc=good.version.hlc + 64),
        "value": b"2",
        "content_type": "raw",
        "author": "alice",
        "comment": "because",
        "deleted": True,
        "base": None,
        "expires": good.expires + 1,
        "batch": ("app/a", "app/b"),
        "ancestors": (base,),
        "signature": None,
    }
    checked = rules(*SIGNERS)
    checked.check(good)
    assert set(others) == set(Document.__dataclass_fields__), "a new field of a document needs a row here"
    for name, value in others.items():
        with pytest.raises(Refused):
            checked.check(replace(good, **{name: value}))
    for wrong in (
        replace(good, version=replace(good.version, origin=Address("198.18.0.1", 8000))),
        replace(good, version=replace(good.version, hlc=good.version.hlc + 1)),
        replace(good, version=replace(good.version, hlc=good.version.hlc + 5)),
        replace(good, value=b"", deleted=True, expires=0),
    ):
        with pytest.raises(Refused):
            checked.check(wrong)


def test_a_signature_for_another_cluster_or_purpose_is_refused() -> None:
    checked = rules(*SIGNERS)
    with pytest.raises(Refused, match="does not match"):
        checked.check(documents(ALICE, START, Draft("app/a", b"1"), cluster="another")[0])
    [good] = documents(ALICE, START, Draft("app/a", b"1"))
    assert good.signature is not None
    with pytest.raises(Refused, match="namespace"):
        checked.check(replace(good, signature=replace(good.signature, blob=ALICE.sign(b"x", "git"))))


def test_versions_are_ordered_by_the_time_of_the_signature_alone(wire: SignedWire) -> None:
    """Members with different clocks agree, and an older signature never takes the place of a later one."""
    publish(wire, 0, ALICE, 2, Draft("app/a", b"later"))
    wire.run(2)
    refused = error(wire, 1, ALICE, 1, Draft("app/a", b"earlier"))
    assert refused.code == "signature_outdated"
    assert "made after the version" in str(refused) and refused.details["lineage"]
    wire.run(2)
    assert wire.agree() and held(wire[2], "app/a") == b"later"


def test_the_same_publish_on_two_members_is_one_version(wire: SignedWire) -> None:
    one = publish(wire, 0, ALICE, 1, Draft("app/a", b"1"))
    two = publish(wire, 1, ALICE, 1, Draft("app/a", b"1"))
    assert one[0][0] == two[0][0]
    wire.run(2)
    again = publish(wire, 2, ALICE, 5, Draft("app/a", b"1"))
    assert not again[0][1] and again[0][0] == one[0][0]
    assert publish(wire, 2, ALICE, 5, Draft("app/none", deleted=True)) == [(None, False)]


def test_another_signer_signs_the_same_content_anew(wire: SignedWire) -> None:
    [(first, _)] = publish(wire, 0, ALICE, 1, Draft("both/a", b"1"))
    [(second, changed)] = publish(wire, 0, BOB, 2, Draft("both/a", b"1", (first.version,) if first else ()))
    assert changed and second is not None and first is not None and second.version > first.version


def test_a_deletion_needs_a_signature_and_an_older_version_does_not_come_back(wire: SignedWire) -> None:
    [(first, _)] = publish(wire, 0, ALICE, 1, Draft("app/a", b"1"))
    assert first is not None
    wire.run(2)
    publish(wire, 1, ALICE, 2, Draft("app/a", read=(first.version,), deleted=True))
    wire.run(2)
    assert wire.agree() and all(engine.documents.get("app/a") is None for engine in wire.engines.values())
    wire.run(GRACE + 10, step=5)
    assert all(engine.documents.held("app/a") is None for engine in wire.engines.values()), "the tombstone is retired"
    for engine in wire.engines.values():
        assert not engine.documents.apply(first, wire.now)
        assert engine.documents.lineage("app/a")
    assert error(wire, 0, ALICE, 1, Draft("app/a", b"1")).code == "signature_outdated"


def test_tombstones_of_signed_documents_are_never_dropped() -> None:
    wire = SignedWire(1)
    wire.settings = Settings(cycle=1.0, tombstone_grace=GRACE, limits=Limits(documents=5))
    node = wire[0].node
    wire.boot(node, node)
    for number in range(20):
        publish(wire, 0, ALICE, number, Draft(f"app/{number}", b"1"))
        publish(wire, 0, ALICE, number + 0.5, Draft(f"app/{number}", deleted=True))
        wire.run(GRACE + 5, step=60)
    assert len(wire[0].documents.expiry.retired) == 20


def test_signatures_of_strangers_make_no_member_remember_more() -> None:
    """Everybody can make a key and sign what needs no signature: documents of long ago, and their deletions."""
    wire = SignedWire(1)
    wire.settings = Settings(cycle=1.0, tombstone_grace=GRACE, limits=Limits(documents=5))
    member = wire.boot(wire[0].node, wire[0].node)
    long_ago = START - 10 * int(GRACE) * SECOND
    for number in range(20):
        key = f"free/{number}"
        for at, draft in enumerate((Draft(key, b"1"), Draft(key, deleted=True))):
            [document] = documents(Key(number), long_ago + at, draft)
            assert member.documents.apply(document, wire.now)
        wire.run(1)
    assert len(member.documents.expiry.retired) == 5 and member.counters["tombstones_dropped"] == 15


def test_a_signed_document_expires_everywhere_and_its_tombstone_needs_no_signer(wire: SignedWire) -> None:
    expires = int((EPOCH + wire.time + 10) * 1000)
    publish(wire, 0, ALICE, 1, Draft("app/a", b"1", expires=expires), Draft("app/b", b"2"))
    wire.run(3)
    wire.cut = {wire[2].node.address}
    wire.run(15)
    assert wire[0].documents.get("app/a") is None and wire[0].documents.held("app/a") is not None
    # A member without any state gets the tombstone from the others, who only know it by themselves.
    wire.cut = set()
    wire.disks[wire[2].node.address] = MemoryStore()
    wire.boot(wire[2].node, wire[0].node)
    wire.run(20)
    assert wire.agree() and wire[2].documents.get("app/a") is None and held(wire[2], "app/b") == b"2"
    assert refusals(wire) == 0


def test_an_expiry_cannot_be_made_up(wire: SignedWire) -> None:
    [(document, _)] = publish(wire, 0, ALICE, 1, Draft("app/a", b"1"))
    assert document is not None and document.signature is not None
    ended = replace(document, expires=EPOCH * 1000 - 5).ended
    for engine in wire.engines.values():
        assert not engine.documents.apply(ended, wire.now)
    wire.run(2)
    assert all(held(engine, "app/a") == b"1" for engine in wire.engines.values())


def unsigned_batch(*keys: str) -> list[Document]:
    """One unsigned batch of another member."""
    version = Version(EPOCH * 1000 << 16, Address("198.18.0.9", 8000))
    return [Document(key, version, b"1", batch=tuple(sorted(keys))) for key in sorted(keys)]


def without_signers(count: int) -> SignedWire:
    """Members that know no signers yet."""
    wire = SignedWire(count)
    wire.signers = rules()
    for number in range(count):
        wire.boot(wire[number].node, wire[0].node)
    wire.run(5)
    return wire


def test_a_part_that_waits_for_its_batch_is_no_way_around_new_signers() -> None:
    """The part was accepted while nobody had to sign it, and the rest of its batch comes afterwards."""
    wire = without_signers(1)
    member = wire[0]
    part, rest = unsigned_batch("app/a", "free")
    assert member.documents.apply(part, wire.now) and member.documents.awaited(entry_of(part))
    before = member.counters["batches_given_up"]
    member.trust(SIGNERS, wire.now)
    assert member.counters["batches_given_up"] == before + 1
    member.documents.apply(rest, wire.now)
    assert held(member, "app/a") is None and held(member, "free") == b"1"


def test_a_publish_that_new_signers_overtake_takes_no_effect() -> None:
    """Signers come between the two steps of a publish, while the version is written to the disk."""
    wire = without_signers(1)
    documents_ = wire[0].documents
    prepared = documents_.prepare([Write("app/a", b"1"), Write("free", b"1")], wire.now)
    wire[0].trust(SIGNERS, wire.now)
    assert not documents_.commit(prepared, wire.now)
    assert held(wire[0], "app/a") is None and held(wire[0], "free") is None
    signed = documents_.prepare(writes(ALICE, START + SECOND, Draft("app/a", b"2")), wire.now)
    wire[0].trust([BOB.signer("bob", "app/")], wire.now)
    assert not documents_.commit(signed, wire.now) and held(wire[0], "app/a") is None
    wire[0].trust(SIGNERS, wire.now)
    assert documents_.commit(signed, wire.now) and held(wire[0], "app/a") == b"2"


@pytest.mark.parametrize("signed", [False, True])
def test_the_rest_of_a_batch_does_not_wait_for_what_signers_exclude(wire: SignedWire, signed: bool) -> None:
    """A member that comes after the signers gets the other documents of a batch from before them."""
    batch = unsigned_batch("app/a", "free")
    if signed:
        batch = documents(EVE, START + SECOND, Draft("app/a", b"1"), Draft("free", b"1"))
    rest = next(document for document in batch if document.key == "free")
    assert wire[0].documents.apply(rest, wire.now)
    wire.run(3)
    assert wire.agree() and all(held(engine, "free") == b"1" for engine in wire.engines.values())
    [first, _] = documents(ALICE, START + SECOND, Draft("app/b", b"1"), Draft("free/b", b"1"))
    assert wire[0].documents.apply(first, wire.now)
    assert held(wire[0], "app/b") is None, "the signers allow the rest of this batch"


def test_a_version_that_is_withheld_cannot_end_before_its_time(wire: SignedWire) -> None:
    """Who has a signed version can compute its tombstone. Before the expiry, it must not delete the version before."""
    [(former, _)] = publish(wire, 0, ALICE, 1, Draft("app/a", b"1"))
    wire.run(2)
    assert former is not None
    expires = EPOCH * 1000 + 3_600_000
    [withheld] = documents(ALICE, START + 2 * SECOND, Draft("app/a", b"2", (former.version,), expires=expires))
    [fresh] = documents(ALICE, START + 2 * SECOND, Draft("app/new", b"2", expires=expires))
    for early in (withheld.ended, fresh.ended):
        before = wire[1].counters["documents_refused_early"]
        assert not wire[1].documents.apply(early, wire.now)
        assert wire[1].counters["documents_refused_early"] == before + 1
    wire.run(2)
    assert wire.agree() and all(held(engine, "app/a") == b"1" for engine in wire.engines.values())
    wire.time += 3600
    assert wire[1].documents.apply(withheld.ended, wire.now), "the time has come"
    wire.run(5)
    assert wire.agree() and all(engine.documents.get("app/a") is None for engine in wire.engines.values())


def test_a_signed_batch_is_visible_together_or_not_at_all(wire: SignedWire) -> None:
    with pytest.raises(InvalidError, match="one signature over all"):
        wire[0].documents.publish_many([*writes(ALICE, START, Draft("app/a")), Write("x", b"1")], wire.now)
    assert error(wire, 0, ALICE, 1, Draft("app/a", b"1"), Draft("db/a", b"1")).code == "signature_refused"
    publish(wire, 0, ALICE, 1, Draft("app/a", b"1"), Draft("app/b", b"2"), Draft("plain", b"3"))
    wire.run(3)
    assert wire.agree() and all(held(engine, "plain") == b"3" for engine in wire.engines.values())
    [one, two] = documents(ALICE, START + 9 * SECOND, Draft("app/a", b"4"), Draft("app/b", b"5"))
    for engine in wire.engines.values():
        assert engine.documents.apply(one, wire.now)
        assert held(engine, "app/a") == b"1", "a part of a batch is not visible alone"
        assert engine.documents.apply(two, wire.now)
        assert (held(engine, "app/a"), held(engine, "app/b")) == (b"4", b"5")
    alone = replace(one, batch=())
    with pytest.raises(Refused):
        rules(*SIGNERS).check(alone)


def test_a_signature_of_a_time_to_come_is_refused(wire: SignedWire) -> None:
    far = FAR
    assert error(wire, 0, ALICE, wire.time + far + 5, Draft("app/a", b"1")).code == "signature_refused"
    [ahead] = documents(ALICE, START + int((wire.time + far + 5) * SECOND), Draft("app/a", b"1"))
    assert not wire[1].documents.apply(ahead, wire.now)
    publish(wire, 0, ALICE, wire.time + far - 5, Draft("app/a", b"1"))


def test_a_withdrawn_signer_writes_no_more_and_stays_readable(wire: SignedWire) -> None:
    publish(wire, 0, ALICE, 1, Draft("app/a", b"1"))
    wire.run(2)
    gone = (ALICE.signer("alice", "app/", valid_before=START + 2 * SECOND), BOB.signer("bob", "app/"))
    for engine in wire.engines.values():
        assert engine.trust(gone, wire.now) == 0
    assert "withdrawn" in str(error(wire, 0, ALICE, 3, Draft("app/a", b"2")))
    found = wire[0].documents.get("app/a")
    assert found is not None
    by = wire[0].documents.signers.signed_by(found, START + 4 * SECOND)
    assert by is not None and by.withdrawn
    publish(wire, 0, BOB, 4, Draft("app/a", b"3", (found.version,)))
    wire.run(2)
    assert wire.agree() and held(wire[2], "app/a") == b"3"


def test_signers_that_come_withhold_what_is_not_signed_and_the_history_keeps_it() -> None:
    wire = SignedWire(2)
    wire.signers = rules()
    wire.boot(wire[0].node, wire[0].node)
    wire.boot(wire[1].node, wire[0].node)
    wire.run(5)
    wire[0].documents.publish("app/a", b"unsigned", wire.now)
    wire[0].documents.publish("free", b"unsigned", wire.now)
    wire.run(3)
    wire.seen.clear()
    assert [engine.trust(SIGNERS, wire.now) for engine in wire.engines.values()] == [1, 1]
    wire.run(3)
    assert wire.agree() and held(wire[0], "app/a") is None and held(wire[0], "free") == b"unsigned"
    assert sum(isinstance(event, DocumentWithheld) for event in wire.seen) == 2
    store = MemoryStore()
    for event in wire.seen:
        if isinstance(event, DocumentWithheld):
            persist(store, [DocumentChanged(event.document, None, False), event])
    assert [each.value for each in store.history("app/a")] == [b"unsigned"] and not store.load().documents
    publish(wire, 1, ALICE, wire.time, Draft("app/a", b"signed"))
    wire.run(3)
    assert wire.agree() and held(wire[0], "app/a") == b"signed"


def test_a_restored_state_file_is_no_way_around(wire: SignedWire) -> None:
    [forged] = documents(EVE, START + SECOND, Draft("app/a", b"evil"))
    unsigned = Document("app/b", Version(EPOCH * 1000 << 16, Address("198.18.0.9", 8000)), b"evil")
    good = documents(ALICE, START + SECOND, Draft("app/c", b"good"))[0]
    disk = wire.disks[wire[0].node.address] = MemoryStore()
    persist(disk, [DocumentChanged(each, None, False) for each in (forged, unsigned, good)])

    engine = wire.boot(wire[0].node, wire[0].node)
    assert [document.key for document in engine.documents.live()] == ["app/c"]
    assert engine.counters["documents_refused_signature"] == 1 and engine.counters["documents_refused_unsigned"] == 1


def test_a_refused_document_is_told_once_with_the_member_it_came_from(wire: SignedWire) -> None:
    [forged] = documents(EVE, START + SECOND, Draft("app/a", b"evil"))
    wire.seen.clear()
    for _ in range(5):
        assert not wire[0].documents.apply(forged, wire.now, wire[1].node.address)
    wire.settle()
    [told] = [event for event in wire.seen if isinstance(event, DocumentRefused)]
    assert told.source == wire[1].node.address and "got one by SHA256:" in told.reason
    assert wire[0].counters["documents_refused_signature"] == 5
    for number in range(100):
        wire[0].documents.apply(documents(EVE, START, Draft(f"app/{number}", b"evil"))[0], wire.now)
    wire.settle()
    assert sum(isinstance(event, DocumentRefused) for event in wire.seen) == 32
    assert {event.key for event in wire.seen if isinstance(event, DocumentRefused)} >= {"app/a", "app/0"}
    assert wire[0].counters["documents_refused_signature"] == 105


def test_conflicts_of_signed_documents_follow_what_the_signer_had_read(wire: SignedWire) -> None:
    [(one, _)] = publish(wire, 0, ALICE, 1, Draft("both/a", b"1"))
    wire.run(2)
    assert one is not None
    publish(wire, 0, ALICE, 2, Draft("both/a", b"2", (one.version,)))
    publish(wire, 1, BOB, 3, Draft("both/a", b"3", (one.version,)))
    wire.run(3)
    conflicts = [event for event in wire.seen if isinstance(event, DocumentChanged) and event.conflict]
    assert wire.agree() and held(wire[2], "both/a") == b"3"
    assert {event.replaced.value for event in conflicts if event.replaced} == {b"2"}


def test_a_large_signed_document_travels_in_chunks(wire: SignedWire) -> None:
    value = bytes(range(256)) * 1024
    publish(wire, 0, ALICE, 1, Draft("app/large", value))
    wire.run(10)
    assert wire.agree() and held(wire[2], "app/large") == value and CLUSTER


def test_the_largest_signed_batch_reaches_all(wire: SignedWire) -> None:
    """64 documents with all the keys that a batch may have, each as long as a packet just allows."""
    most = wire.settings.size // 2
    drafts = [Draft(f"app/{number:02d}/{'k' * 55}", b"x" * (most - 40 * number)) for number in range(64)]
    publish(wire, 0, ALICE, 1, *drafts)
    wire.run(20)
    assert wire.agree() and all(held(wire[2], draft.key) == draft.value for draft in drafts)


@pytest.mark.parametrize("less", [0, 1, 100, 178, 179, 180, 181, 182, 200, 400])
def test_documents_about_as_long_as_a_packet_allows_reach_all(wire: SignedWire, less: int) -> None:
    """A member that knows only the entry cannot know how long the signature is."""
    value = bytes(wire.settings.size // 2 - less)
    publish(wire, 0, ALICE, 1, Draft("app/a", value))
    wire.run(6)
    assert wire.agree() and held(wire[2], "app/a") == value


def test_a_batch_whose_keys_and_signature_leave_no_room_is_refused() -> None:
    from xdp_gossip.core.settings import Settings

    wire = SignedWire(1)
    wire.settings = Settings(cycle=1.0, size=4096)
    wire.boot(wire[0].node, wire[0].node)
    drafts = [Draft(f"app/{number:02d}/{'k' * 55}", b"x") for number in range(64)]
    with pytest.raises(InvalidError, match="publish fewer together"):
        publish(wire, 0, ALICE, 1, *drafts)
    publish(wire, 0, ALICE, 1, *drafts[:10])
    plain = [Write(f"plain/{number:02d}/{'k' * 53}", b"x") for number in range(64)]
    with pytest.raises(InvalidError, match="publish fewer together"):
        wire[0].documents.publish_many(plain, wire.now)


def test_an_unsigned_version_is_told_although_it_is_not_fetched(wire: SignedWire) -> None:
    wire.seen.clear()
    plain = Document("app/a", Version(EPOCH * 1000 << 16, wire[1].node.address), b"evil")
    for _ in range(3):
        assert not wire[0].documents.apply(plain, wire.now, wire[1].node.address)
    wire.settle()
    [told] = [event for event in wire.seen if isinstance(event, DocumentRefused)]
    assert (told.key, told.version, told.source) == ("app/a", plain.version, wire[1].node.address)
    assert wire[0].counters["documents_refused_unsigned"] == 3


def test_a_forged_copy_does_not_keep_the_true_document_away(wire: SignedWire) -> None:
    """Key, version and content of both are the same, so a member must not know the version by them alone."""
    liar, honest = wire[1].node.address, wire[2].node.address
    [good] = documents(ALICE, START + SECOND, Draft("app/a", b"1"))
    assert good.signature is not None
    for forged in (replace(good, comment="approved"), replace(good, signature=replace(good.signature, blob=b"x"))):
        for source in (liar, honest, None):
            assert not wire[0].documents.apply(forged, wire.now, source)
    assert wire[0].documents.apply(good, wire.now, liar) and held(wire[0], "app/a") == b"1"


class CountedWire(SignedWire):
    """Members that count the signatures they verify."""

    def __init__(self, count: int) -> None:
        self.calls: Counter[tuple[bytes, bytes]] = Counter()
        self.together: list[int] = []
        self.signers = Signers(CLUSTER, SIGNERS, self.verify, self.verify_all)
        super().__init__(count)

    def verify(self, blob: bytes, message: bytes) -> bytes:
        self.calls[blob, message] += 1
        return verify(blob, message)

    def verify_all(self, signatures: Sequence[tuple[bytes, bytes]]) -> list[bytes | ValueError]:
        self.together.append(len(signatures))
        return [self.verify(*each) for each in signatures]


def test_a_member_that_catches_up_verifies_each_signature_once_and_many_together() -> None:
    wire = CountedWire(2)
    wire.run(5)
    away = wire[1].node.address
    wire.cut = {away}
    singles, batch = 300, [Draft(f"app/batch{number:02d}", b"%d" % number) for number in range(30)]
    for number in range(singles):
        assert publish(wire, 0, ALICE, number, Draft(f"app/{number:03d}", b"%d" % number))[0][1]
    assert all(changed for _, changed in publish(wire, 0, ALICE, singles, *batch))
    wire.settle()
    assert len(wire.calls) == singles + 1 and set(wire.calls.values()) == {1}
    wire.calls.clear()
    wire.together.clear()
    wire.cut = set()
    wire.run(60)
    assert wire.agree() and len(wire[1].documents.table) == singles + len(batch)
    assert refusals(wire) == 0
    # The documents of the batch may arrive in several packets.
    batches = [times for (_, message), times in wire.calls.items() if b"app/batch" in message]
    assert len(wire.calls) == singles + 1 and sum(wire.calls.values()) - sum(batches) == singles
    assert sum(batches) <= len(batch) // 3 and max(wire.together) > 30


def test_a_restarted_member_verifies_what_it_stored_together() -> None:
    wire = CountedWire(2)
    wire.run(5)
    for number in range(20):
        publish(wire, 0, ALICE, number, Draft(f"app/{number:03d}", b"%d" % number))
    wire.run(1)
    wire.calls.clear()
    wire.together.clear()
    again = wire.boot(wire[0].node, wire[1].node)
    assert len(again.documents.table) == 20
    assert wire.together == [20] and set(wire.calls.values()) == {1}


def test_a_wrong_signature_among_right_ones_is_refused_alone(wire: SignedWire) -> None:
    right = [documents(ALICE, START + SECOND, Draft(f"app/{number}", b"right"))[0] for number in range(20)]
    signature = right[7].signature
    assert signature is not None
    forged = replace(right[7], value=b"forged")
    other = replace(right[9], signature=replace(signature, blob=signature.blob[:-1] + b"?"))
    engine = wire[0]
    sent = [*right[:7], forged, right[8], other, *right[10:]]
    engine._fetcher.take(sent, wire[1].node.address, wire.now)
    assert sorted(document.key for document in engine.documents.table) == sorted(
        document.key for number, document in enumerate(right) if number not in (7, 9)
    )
    assert engine.counters["documents_refused_signature"] == 2
