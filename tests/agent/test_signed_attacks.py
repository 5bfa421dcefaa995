# SPDX-License-Identifier: MIT
"""A member that holds the cluster's secret and runs changed code, against documents that need a signature.

The member has the engine of the product with its checks taken out, so each way of a document to other members is that
of the product. It tries every kind of forgery on every way, a thousand tries in all. No other member stores, shows or
passes on any of them, and each try is refused and counted.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from typing import Callable

import pytest
from test_core_documents import EPOCH, GRACE, Wire

from tests.support.signer import START, Draft, Key, documents, rules
from xdp_gossip.core.documents.packing import packed
from xdp_gossip.core.documents.table import entry_of
from xdp_gossip.core.engine import Engine
from xdp_gossip.core.events import DocumentChanged
from xdp_gossip.core.messages import Announce, Documents
from xdp_gossip.core.packets import PacketType
from xdp_gossip.core.signers import Signers, Verified
from xdp_gossip.core.types import Document, Node, Version
from xdp_gossip.store.sqlite import MemoryStore, persist

pytestmark = pytest.mark.slow

ALICE, WITHDRAWN, EVE = Key(1), Key(2), Key(3)
SECOND = 1_000_000
PREFIX = "app/"
RULES = rules(
    ALICE.signer("alice", PREFIX), WITHDRAWN.signer("wendy", PREFIX, valid_before=START), EVE.signer("eve", "other/")
)
KEYS = tuple(f"{PREFIX}{name}" for name in ("config", "list", "deleted", "large"))
EVIL = b"evil"


class NoSigners(Signers):
    """The rules of a member that has taken the checks out of its code."""

    def check(self, document: Document, latest: int | None = None, verified: Verified = None) -> None:
        return

    def may_accept(self, key: str, version: Version) -> bool:
        return True


class Fleet(Wire):
    """Three honest members, and one that lies."""

    signers: Signers | None = RULES
    grace = 10 * GRACE  # the tombstone outlasts all tries

    def __init__(self) -> None:
        super().__init__(4)
        self.liar = self[3].node.address
        self.honest = [engine.node.address for engine in self.engines.values() if engine.node.address != self.liar]
        self.run(5)
        #: What the signer wrote first, then, and last.
        self.first = [self.sign(key, 1, b"first") for key in KEYS]
        self.then = [self.sign(key, 2, b"then", batch=True) for key in KEYS[:2]]
        self.last = [self.sign(key, 3, b"last" * (9000 if key.endswith("large") else 1)) for key in KEYS]
        self.gone = self.sign(f"{PREFIX}deleted", 4, deleted=True)
        for document in (*self.first, *self.last, self.gone):
            assert self.engines[self.honest[0]].documents.apply(document, self.now)
            self.run(1)
        self.run(10)
        assert self.agree()
        self.truth = self.held()

    def boot(self, node: Node, seed: Node) -> Engine:
        engine = super().boot(node, seed)
        if node.addr.endswith(".4"):
            engine.documents.signers = NoSigners()
        return engine

    def sign(
        self, key: str, at: float, value: bytes = b"", deleted: bool = False, batch: bool = False, by: Key = ALICE
    ) -> Document:
        drafts = [Draft(key, value, deleted=deleted)]
        if batch:
            drafts.append(Draft(f"{PREFIX}other", value))
        return documents(by, START + int(at * SECOND), *drafts)[0]

    def held(self) -> list[dict[str, Document]]:
        """What each honest member holds under the prefix, tombstones included."""
        engines = [self.engines[address] for address in self.honest]
        return [
            {document.key: document for document in engine.documents.table if document.key.startswith(PREFIX)}
            for engine in engines
        ]

    def refused(self) -> int:
        names = ("documents_refused_unsigned", "documents_refused_signature", "documents_refused_collected")
        return sum(self.engines[address].counters[name] for address in self.honest for name in names)


Forge = Callable[[Fleet, random.Random, str], Document]


def _version(fleet: Fleet, rng: random.Random) -> Version:
    return Version((EPOCH * 1000 + rng.randrange(10_000, 50_000) << 16) + rng.randrange(1 << 16), fleet.liar)


def _held(fleet: Fleet, key: str) -> Document:
    return fleet.truth[0][key]


def unsigned(fleet: Fleet, rng: random.Random, key: str) -> Document:
    return Document(key, _version(fleet, rng), EVIL)


def unsigned_deletion(fleet: Fleet, rng: random.Random, key: str) -> Document:
    return Document(key, _version(fleet, rng), deleted=True)


def unsigned_in_disguise(fleet: Fleet, rng: random.Random, key: str) -> Document:
    held = _held(fleet, key).version
    return Document(key, replace(held, hlc=held.hlc + 64 * rng.randrange(1, 1000)), EVIL)


def unsigned_expiry(fleet: Fleet, rng: random.Random, key: str) -> Document:
    return replace(_held(fleet, key), value=b"x", deleted=False, expires=rng.randrange(1, EPOCH * 1000)).ended


def foreign_key(fleet: Fleet, rng: random.Random, key: str) -> Document:
    return fleet.sign(key, 5 + rng.random(), EVIL, by=Key(rng.randrange(100, 1000)))


def foreign_prefix(fleet: Fleet, rng: random.Random, key: str) -> Document:
    return fleet.sign(key, 5 + rng.random(), EVIL, by=EVE)


def withdrawn(fleet: Fleet, rng: random.Random, key: str) -> Document:
    return fleet.sign(key, 5 + rng.random(), EVIL, by=WITHDRAWN)


def another_cluster(fleet: Fleet, rng: random.Random, key: str) -> Document:
    draft = Draft(key, EVIL)
    return documents(ALICE, START + int((5 + rng.random()) * SECOND), draft, cluster=f"c{rng.random()}")[0]


def another_value(fleet: Fleet, rng: random.Random, key: str) -> Document:
    return replace(fleet.sign(key, 5 + rng.random(), b"good"), value=EVIL + b"%d" % rng.randrange(1000))


def another_key(fleet: Fleet, rng: random.Random, key: str) -> Document:
    return replace(fleet.sign("elsewhere", 5 + rng.random(), EVIL), key=key)


def another_time(fleet: Fleet, rng: random.Random, key: str) -> Document:
    old = fleet.sign(key, 1, b"first")
    return replace(old, version=replace(old.version, hlc=old.version.hlc + (rng.randrange(10, 100) << 26)))


def another_type(fleet: Fleet, rng: random.Random, key: str) -> Document:
    return replace(fleet.sign(key, 5 + rng.random(), b"good"), content_type="json")


def another_expiry(fleet: Fleet, rng: random.Random, key: str) -> Document:
    good = fleet.sign(key, 5 + rng.random(), b"good")
    return replace(good, expires=(EPOCH + rng.randrange(1, 10_000)) * 1000)


def early_expiry(fleet: Fleet, rng: random.Random, key: str) -> Document:
    held = _held(fleet, key)
    return replace(
        held,
        value=b"",
        deleted=True,
        expires=rng.randrange(1, EPOCH * 1000),
        base=held.version,
        version=replace(held.version, hlc=held.version.hlc + 1),
    )


def another_comment(fleet: Fleet, rng: random.Random, key: str) -> Document:
    return replace(fleet.sign(key, 5 + rng.random(), b"good"), comment=f"approved by {rng.random()}")


def an_author(fleet: Fleet, rng: random.Random, key: str) -> Document:
    return replace(fleet.sign(key, 5 + rng.random(), b"good"), author="alice")


def another_base(fleet: Fleet, rng: random.Random, key: str) -> Document:
    return replace(fleet.sign(key, 5 + rng.random(), b"good"), base=_version(fleet, rng))


def part_of_a_batch(fleet: Fleet, rng: random.Random, key: str) -> Document:
    return replace(fleet.sign(key, 5 + rng.random(), EVIL, batch=True), batch=())


def stolen_signature(fleet: Fleet, rng: random.Random, key: str) -> Document:
    good = fleet.sign(key, 5 + rng.random(), b"good")
    return replace(good, value=EVIL, signature=fleet.sign(f"{PREFIX}other", 5, EVIL).signature)


def broken_signature(fleet: Fleet, rng: random.Random, key: str) -> Document:
    good = fleet.sign(key, 5 + rng.random(), EVIL)
    assert good.signature is not None
    blob = bytearray(good.signature.blob)
    blob[rng.randrange(len(blob))] ^= 1 << rng.randrange(8)
    return replace(good, signature=replace(good.signature, blob=bytes(blob)))


def no_signature_at_all(fleet: Fleet, rng: random.Random, key: str) -> Document:
    good = fleet.sign(key, 5 + rng.random(), EVIL)
    assert good.signature is not None
    return replace(good, signature=replace(good.signature, blob=rng.randbytes(rng.randrange(300))))


def time_to_come(fleet: Fleet, rng: random.Random, key: str) -> Document:
    return fleet.sign(key, 200_000 + rng.random(), EVIL)


#: Every kind of forgery. A deletion of the signer that was true once, and every older version, are replays.
KINDS: tuple[Forge, ...] = (
    *(unsigned, unsigned_deletion, unsigned_in_disguise, unsigned_expiry, foreign_key, foreign_prefix, withdrawn),
    *(another_cluster, another_value, another_key, another_time, another_type, another_expiry, early_expiry),
    *(another_comment, an_author, another_base, part_of_a_batch, stolen_signature, broken_signature),
    *(no_signature_at_all, time_to_come),
)


def replays(fleet: Fleet) -> Iterator[Document]:
    """What the signer really signed, but has replaced since."""
    yield from fleet.first
    yield from fleet.then
    yield next(document for document in fleet.last if document.key == fleet.gone.key)


# -- the ways to another member ----------------------------------------------------------------------------------


def rumor(fleet: Fleet, forged: Document) -> None:
    """A rumor that the kernel would relay; a document that is too long for a datagram is announced."""
    liar = fleet.engines[fleet.liar]
    liar.documents.table.put(forged)
    for message in packed([forged], liar._out.codec):
        liar._out.rumor(PacketType.METADATA, message, fleet.now)


def push(fleet: Fleet, forged: Document) -> None:
    """Pushed, or sent as if it had been asked for."""
    liar = fleet.engines[fleet.liar]
    for address in fleet.honest:
        liar._out.send(Documents((forged,)), address, fleet.now)


def announce(fleet: Fleet, forged: Document) -> None:
    """Announced to be fetched: whole, or in chunks if it is large."""
    liar = fleet.engines[fleet.liar]
    liar.documents.table.put(forged)
    for address in fleet.honest:
        liar._out.send(Announce((entry_of(forged),)), address, fleet.now)


def sync(fleet: Fleet, forged: Document) -> None:
    """Found by the others when they compare their documents with those of the liar."""
    fleet.engines[fleet.liar].documents.table.put(forged)
    for address in fleet.honest:
        fleet.engines[address].repair(fleet.now)
        fleet.engines[address]._anti_entropy.request(fleet.liar, fleet.now)


def restored(fleet: Fleet, forged: Document) -> None:
    """In the state file of a member that starts."""
    address = fleet.honest[1]
    disk = MemoryStore()
    persist(disk, [DocumentChanged(each, None, False) for each in (*fleet.truth[1].values(), forged)])
    fleet.disks[address] = disk
    before = dict(fleet.engines[address].counters)
    engine = fleet.boot(fleet.engines[address].node, fleet.engines[fleet.honest[0]].node)
    for name in ("documents_refused_unsigned", "documents_refused_signature", "documents_refused_collected"):
        engine._out.count(name, before[name])


WAYS = (rumor, push, announce, sync, restored)


@pytest.fixture(scope="module")
def fleet() -> Fleet:
    return Fleet()


def tried(fleet: Fleet, way: Callable[[Fleet, Document], None], forged: Document) -> int:
    """Try one forgery on one way. Returns how often it was refused."""
    before = fleet.refused()
    way(fleet, forged)
    fleet.settle()
    # A member that started with a forgery in its state file gets the true version from the others.
    fleet.run(5 if way is restored else 0.5)
    refused = fleet.refused() - before
    # The liar forgets it again, so that the next try is alone.
    truth = fleet.truth[0].get(forged.key)
    table = fleet.engines[fleet.liar].documents.table
    table.remove(forged.key)
    if truth is not None:
        table.put(truth)
    return refused


#: A signature of a time to come is the signer's own, so a state file may hold it: the clock may be wrong at a start.
TRIES = [(forge, way) for forge in KINDS for way in WAYS if (forge, way) != (time_to_come, restored)]


@pytest.mark.parametrize(("forge", "way"), TRIES, ids=lambda each: each.__name__)
def test_no_forgery_is_stored_shown_or_passed_on(
    fleet: Fleet, forge: Forge, way: Callable[[Fleet, Document], None]
) -> None:
    rng = random.Random(f"{forge.__name__} {way.__name__}")
    for number in range(10):
        key = KEYS[number % 2] if number < 8 else f"{PREFIX}new{number}"
        if number >= 8 and forge in (unsigned_in_disguise, unsigned_expiry, early_expiry):
            key = KEYS[number % 2]
        forged = forge(fleet, rng, key)
        if number == 7 and not forged.deleted:
            # A large document, which travels in chunks.
            forged = replace(forged, value=forged.value + rng.randbytes(40_000))
        refused = tried(fleet, way, forged)
        assert refused > 0, f"try {number}: not counted"
        assert fleet.held() == fleet.truth, f"try {number}: taken"


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_nothing_that_was_signed_once_can_be_replayed(fleet: Fleet, way: Callable[[Fleet, Document], None]) -> None:
    for old in replays(fleet):
        tried(fleet, way, old)
        assert fleet.held() == fleet.truth


def test_the_thousand_tries_are_a_thousand() -> None:
    assert len(KINDS) >= 15 and len(TRIES) * 10 >= 1000


@pytest.mark.parametrize("size", [10, 40_000], ids=["whole", "in chunks"])
@pytest.mark.parametrize("way", [rumor, push, announce, sync], ids=lambda way: way.__name__)
def test_a_forged_copy_does_not_keep_the_true_document_away(way: Callable[[Fleet, Document], None], size: int) -> None:
    """The copy has the key, version and content of the true one, and comes first; then both are told at once."""
    fleet = Fleet()
    good = fleet.sign(KEYS[0], 5, b"x" * size)
    way(fleet, replace(good, comment="approved"))
    fleet.settle()
    assert fleet.held() == fleet.truth and fleet.refused() > 0
    assert fleet.engines[fleet.honest[0]].documents.apply(good, fleet.now)
    fleet.run(30)
    assert [held[KEYS[0]] for held in fleet.held()] == [good] * 3
