# SPDX-License-Identifier: MIT
"""Writes the cluster's documents (PekoNode's Metadata), checks new versions, and decides which of two versions wins."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Callable

from ..events import DocumentChanged, TombstonesCollected, Warned
from ..interface import InvalidError, ProtocolError
from ..messages import Documents, Entry
from ..outbox import Outbox
from ..packets import PacketType
from ..settings import Settings
from ..shown import shown
from ..signatures import is_expiry, public_key_of
from ..signers import Refused, Signer, Signers, Verified
from ..types import (
    MAX_AUTHOR,
    MAX_BATCH,
    MAX_BATCH_KEYS,
    MAX_COMMENT,
    MAX_CONTENT_TYPE,
    MAX_EXPIRES_IN,
    Address,
    Document,
    Now,
    Prepared,
    Version,
    Write,
    check_key,
    check_text,
)
from .clock import EARLIEST_MS, MAX_READING, NS_PER_MS, HybridClock, SteadyTime
from .expiry import Expiry
from .packing import packed
from .refusals import Refusals
from .room import Room
from .signing import prepare_signed, signed_documents
from .staging import Staging
from .table import DocumentTable, entry_of

#: Seconds by which the time of a signature may be ahead of the cluster's time. The clocks of a small cluster may be
#: wrong by hours, and all its members must nevertheless accept the same documents.
FAR = 86_400.0
#: Minimum bytes of a value in a packet with a part of a document, with the lengths of its fields. Without this room,
#: the document could not be sent in parts.
_LEAST_DATA = 768


class Metadata:
    """The documents of this member, and the rules for versions of other members.

    Implements ``interface.AskedDocuments``.
    """

    def __init__(
        self, origin: Address, settings: Settings, out: Outbox, table: DocumentTable, signers: Signers
    ) -> None:
        self.table = table
        self.signers = signers
        #: The Metadata calls ``before_write`` before each write on this node, and ``on_change`` after each change of a
        #: document.
        self.before_write: Callable[[Now], None] = lambda now: None
        self.on_change: Callable[[Now], None] = lambda now: None
        self._origin = origin
        self._settings = settings
        self._out = out
        self._clock = HybridClock(int(settings.max_clock_drift * 1000))
        self._steady = SteadyTime()
        self.offset = 0.0  # the seconds by which the cluster's clock is ahead of the local clock
        self.expiry = Expiry(table, settings.tombstone_grace, settings.limits.documents, self._must_remember)
        self.staging = Staging(table, settings.limits.document, self._excludes)
        self._refusals = Refusals(out)
        self._room = Room(table, settings.limits)

    def load(self, documents: Iterable[Document], now: Now) -> None:
        """Put the stored documents of an earlier run into the table, including retired tombstones.

        Documents without a valid signature where one is required stay out of the table.
        """
        stored = list(documents)
        for document, verified in zip(stored, self.signers.verify(stored)):
            try:
                self.signers.check(document, verified=verified)
            except Refused as reason:
                self._refusals.withheld(document, reason)
                continue
            self._put(document)
            self._clock.observe(document.version.hlc + 1)
        self.expiry.retire(self.expiry.old(self._ending_ms(now)))

    def trust(self, signers: Iterable[Signer], now: Now) -> int:
        """Replace the signers. See ``Asked.trust``."""
        self.signers = self.signers.among(signers)
        self._refusals.forget()
        # A part of an incomplete batch was checked by the former rules, and would become visible without another check.
        # The next sync fetches the batch again.
        self._out.count("batches_given_up", self.staging.clear())
        withheld = 0
        for document in [*self.table, *self.expiry.retired.values()]:
            try:
                self._check_again(document)
            except Refused as reason:
                withheld += 1
                self.table.remove(document.key)
                self.expiry.retired.pop(document.key, None)
                self._refusals.withheld(document, reason)
        if withheld:
            self.on_change(now)
        return withheld

    def _excludes(self, key: str, version: Version) -> bool:
        return self.signers.excludes(key, version)

    def _must_remember(self, tombstone: Document) -> bool:
        """Whether a retired tombstone must never be dropped.

        Without the tombstone, another member could bring back an older signed version. Everybody can make keys and sign
        documents that need no signature, so tombstones of these documents are dropped like unsigned ones.
        """
        return tombstone.signature is not None and self.signers.prefix_of(tombstone.key) is not None

    def _check_again(self, document: Document) -> None:
        """Check a document, whose signature was verified before, by the present signers. Raises ``Refused``."""
        signature = document.signature
        self.signers.check(document, verified=None if signature is None else public_key_of(signature.blob))

    def _still_allowed(self, document: Document) -> bool:
        try:
            self._check_again(document)
        except Refused:
            return False
        return True

    @property
    def digest(self) -> int:
        """See ``AskedDocuments.digest``."""
        return self.table.digest

    @property
    def totals(self) -> tuple[int, int]:
        """See ``AskedDocuments.totals``."""
        return self.table.live, self.table.bytes

    def get(self, key: str) -> Document | None:
        """See ``AskedDocuments.get``."""
        held = self.table.get(key)
        return None if held is None or held.deleted else held

    def held(self, key: str) -> Document | None:
        """See ``AskedDocuments.held``."""
        return self.table.get(key)

    def lineage(self, key: str) -> tuple[Version, ...]:
        """See ``AskedDocuments.lineage``."""
        known = self._known(key)
        return (known.version, *known.lineage) if known is not None else ()

    def live(self, prefix: str = "", after: str = "") -> Iterator[Document]:
        """See ``AskedDocuments.live``."""
        return self.table.live_after(after, prefix)

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
        """See ``AskedDocuments.publish``."""
        write = Write(key, value, content_type, expected, absent, expires_in)
        document, changed = self.publish_many([write], now, author=author, comment=comment)[0]
        assert document is not None
        return document, changed

    def delete(self, key: str, now: Now, *, expected: Version | None = None) -> tuple[Document | None, bool]:
        """See ``AskedDocuments.delete``."""
        return self.publish_many([Write(key, expected=expected, deleted=True)], now)[0]

    def publish_many(
        self, writes: Sequence[Write], now: Now, *, author: str = "", comment: str = ""
    ) -> list[tuple[Document | None, bool]]:
        """See ``AskedDocuments.publish_many``. A write that would change nothing creates no new version."""
        prepared = self.prepare(writes, now, author=author, comment=comment)
        self.commit(prepared, now)
        return [(item.document, item.changed) for item in prepared]

    def commit(self, prepared: Sequence[Prepared], now: Now) -> bool:
        """See ``AskedDocuments.commit``."""
        changes = [(item.document, item.held) for item in prepared if item.changed and item.document is not None]
        if any(self.table.get(document.key) is not held for document, held in changes):
            return False
        if not all(self._still_allowed(document) for document, _ in changes):
            return False  # the signers were replaced; the caller prepares again, and learns what is wrong
        if not self._room.fits([document for document, _ in changes]):
            return False
        for document, held in changes:
            self._store(document, held, now, local=True)
        if changes:
            self._settle(now)
            self._spread([document for document, _ in changes], now)
        return True

    def _spread(self, documents: Sequence[Document], now: Now) -> None:
        if self._out.local.status == "running":
            for message in packed(documents, self._out.codec):
                self._out.rumor(PacketType.METADATA, message, now)

    def prepare(
        self,
        writes: Sequence[Write],
        now: Now,
        *,
        author: str = "",
        comment: str = "",
        pending: Sequence[Prepared] = (),
    ) -> list[Prepared]:
        """See ``AskedDocuments.prepare``."""
        self.before_write(now)
        self.expire(now)  # an expired document must not satisfy a compare-and-set
        helds = [self._checked(write, author, comment) for write in writes]
        writes = [write.typed(held) for write, held in zip(writes, helds)]
        self._room.check(writes, helds, pending)
        expiries = [self._expiry(write, now) for write in writes]
        if any(write.signed for write in writes):
            return self._prepare_signed(writes, helds, comment, now)
        self._check_unsigned(writes)
        changed = [not _equals(held, write, expires) for write, held, expires in zip(writes, helds, expiries)]
        keys = tuple(sorted(write.key for write, news in zip(writes, changed) if news))
        _check_batch(keys)
        version = Version(self._reading(writes, changed, now), self._origin)
        prepared: list[Prepared] = []
        for write, held, expires, news in zip(writes, helds, expiries, changed):
            # ``former`` may be a retired tombstone, which counts as read by the author of the new version
            former = self._known(write.key)
            document = Document(
                write.key,
                version,
                bytes(write.value),
                write.type_over(held),
                author,
                comment,
                write.deleted,
                former.version if former else None,
                expires,
                keys if len(keys) > 1 else (),
                former.lineage if former else (),
            )
            prepared.append(Prepared(write.key, document if news else held, news, held))
        self._check_heads(prepared)
        return prepared

    def _prepare_signed(
        self, writes: Sequence[Write], helds: Sequence[Document | None], comment: str, now: Now
    ) -> list[Prepared]:
        _check_batch(tuple(sorted(write.key for write in writes)))
        documents = signed_documents(writes, comment)
        known = [self._known(document.key) for document in documents]
        prepared = prepare_signed(documents, helds, known, self.signers, self._latest_signature(now))
        self._check_heads(prepared)
        self._clock.observe(documents[0].version.hlc + 1)
        return prepared

    def _check_heads(self, prepared: Sequence[Prepared]) -> None:
        """Check that a packet has room for a part of each value, beside the keys of the batch and the signature.

        Raises ``ProtocolError`` (invalid_document).
        """
        for item in prepared:
            document = item.document
            if document is None or not (document.batch or document.signature):
                continue  # the other fields have limits that leave enough room
            head = self._out.codec.size_of(Documents((replace(document, value=b""),)))
            if head + _LEAST_DATA > self._settings.size:
                text = f"document {document.key!r}: expected at most {self._settings.size - _LEAST_DATA} bytes of keys,"
                text += f" comment and signature (size is {self._settings.size}), got {head}; publish fewer together"
                raise InvalidError("invalid_document", text, key=document.key)

    def _check_unsigned(self, writes: Sequence[Write]) -> None:
        for write in writes:
            signers = [signer.name for signer in self.signers.signers_of(write.key)]
            if signers:
                text = f"document {write.key!r}: expected a signature of {' or '.join(signers)}, got none"
                raise ProtocolError("signature_required", text, key=write.key, signers=signers)

    def _latest_signature(self, now: Now) -> int | None:
        """The latest time of a signature that this member accepts now, in microseconds since the epoch.

        None: a clock that is certainly wrong cannot limit the time.
        """
        wall_ms = self._wall_ms(now)
        ahead = max(FAR, self._settings.max_clock_drift)
        return wall_ms * 1000 + int(ahead * 1e6) if wall_ms >= EARLIEST_MS else None

    def verify(self, documents: Sequence[Document]) -> list[Verified]:
        """Verify the signatures of documents that :meth:`apply` is about to accept, all together.

        The method skips documents that :meth:`apply` refuses without a look at the signature. Each item of the result
        belongs to one document, and is an argument of :meth:`apply`.
        """
        due: dict[str, int] = {}
        for number, document in enumerate(documents):
            if document.signature is not None and document.key not in due and self._may_take(entry_of(document)):
                due[document.key] = number
        found: list[Verified] = [None] * len(documents)
        for number, verified in zip(due.values(), self.signers.verify([documents[number] for number in due.values()])):
            found[number] = verified
        return found

    def _may_take(self, entry: Entry) -> bool:
        """Whether :meth:`apply` is going to verify the signature of a document, as far as a quick look shows."""
        held = self.table.get(entry.key)
        newer = (held is None or entry.rank > held.rank) and not self.awaited(entry)
        return newer and self.signers.may_accept(entry.key, entry.version) and not self._room.lacks(entry)

    def apply(self, document: Document, now: Now, source: Address | None = None, verified: Verified = None) -> bool:
        """Accept a document of another member if its version outranks the local version and breaks no rule.

        ``source``: the member that sent the document, for the log. ``verified``: see :meth:`verify`; None: the
        signature was not verified yet. Returns whether the document was accepted; a document of an incomplete batch
        also counts as accepted. The method counts documents that break a rule.
        """
        entry = entry_of(document)
        if not self.outranked_by(entry, now) or self.refuses(entry, now, source):
            return False
        if not self.has_signature(document, now, source, verified) or self._ends_early(document, now):
            return False
        self._clock.observe(document.version.hlc + 1)
        # After the grace period of the tombstones in a batch, no member sends these tombstones any more, so the batch
        # would never become complete.
        if len(document.batch) > 1 and not self.expiry.is_old(document, self._ending_ms(now)):
            self._out.count("batches_dropped", self.staging.add(document, now))
        else:
            self._store(document, self._given_way(document, now), now, local=False)
        self._settle(now)
        return True

    def _ends_early(self, document: Document, now: Now) -> bool:
        """Whether a signed ``document`` is a tombstone of expiry whose time has not come. The method counts it.

        Everybody who has a signed version can compute its tombstone. A member that withholds the version itself must
        not be able to delete the version before it on the other members.
        """
        if document.signature is None or not is_expiry(document) or document.expires <= self._ending_ms(now):
            return False
        self._out.count("documents_refused_early")
        return True

    def has_signature(self, document: Document, now: Now, source: Address | None, verified: Verified = None) -> bool:
        """Whether ``document`` has a valid signature, or needs none. The method records a document that it refuses.

        ``verified``: see :meth:`verify`.
        """
        try:
            self.signers.check(document, self._latest_signature(now), verified)
        except Refused as reason:
            self._refusals.refused(entry_of(document), reason, source, now)
            return False
        return True

    def has_refused(self, entry: Entry, source: Address) -> bool:
        """Whether this member has refused the version of ``entry`` that ``source`` sent, because of its signature."""
        return self._refusals.has(entry, source)

    def awaited(self, entry: Entry) -> bool:
        """Whether the version of ``entry`` or a later version has arrived, but waits for other documents of a batch."""
        part = self.staging.get(entry.key)
        return part is not None and part.rank >= entry.rank

    def tick(self, now: Now) -> None:
        """Expire documents, retire old tombstones, and drop batches that stayed incomplete for too long."""
        self.expire(now)
        wall_ms = self._ending_ms(now)
        for tombstone in self.expiry.too_early(wall_ms):
            self._put(tombstone)
        retired = tuple(self.expiry.old(wall_ms))
        if retired:
            dropped = self.expiry.retire(retired)
            self._out.count("tombstones_collected", len(retired))
            self._out.count("tombstones_dropped", len(dropped))
            self._out.emit(TombstonesCollected(retired, dropped))
            if dropped:
                text = f"forgot {len(dropped)} deletions, more than {self._settings.limits.documents} are remembered: a"
                self._out.emit(Warned("tombstones_dropped", f"{text} member that was away since may bring them back"))
        self._out.count("batches_given_up", self.staging.expire(now))

    def expire(self, now: Now) -> None:
        """Replace expired documents by tombstones. Each member does so by itself, with identical tombstones."""
        for held in self.expiry.expired(self._ending_ms(now)):
            self._out.count("documents_expired")
            self._store(held.ended, held, now, local=False)

    def until_expiry(self, now: Now) -> float | None:
        """Seconds until the next document may expire; None if no document has an expiry."""
        when = self.expiry.next_expiry
        return None if when is None else (when - self._ending_ms(now)) / 1000

    # -- which of two versions holds ---------------------------------------------------------------------------

    @property
    def tombstone_watermark(self) -> int:
        """The clock reading of the newest retired tombstone; 0 if there are no retired tombstones."""
        return max((tombstone.version.hlc for tombstone in self.expiry.retired.values()), default=0)

    def buried(self, entry: Entry, now: Now) -> Document | None:
        """Return the retired tombstone that outranks an entry of another member; None if there is none.

        If the method finds such a tombstone, it counts the entry as refused.
        """
        tombstone = self.expiry.retired.get(entry.key)
        if tombstone is None or self.table.get(entry.key) is not None:
            return None
        if entry.rank >= tombstone.rank or self._not_over(tombstone, entry, now):
            return None
        self._out.count("documents_refused_collected")
        return tombstone

    def outranked_by(self, entry: Entry, now: Now) -> bool:
        """Whether another member's version replaces the local version: the version of higher rank wins.

        There is one exception: if another member replaced a document by a tombstone because the document expired, the
        tombstone wins only after the document has also expired by the clock of this member.
        """
        if self.awaited(entry):
            return False
        held = self._known(entry.key)
        if held is None or held.key not in self.table:
            if entry.deleted and self.expiry.is_old(_tombstone(entry), self._ending_ms(now)):
                return held is not None and entry.rank > held.rank
            return held is None or entry.rank > held.rank or self._not_over(held, entry, now)
        if self._not_over(held, entry, now):
            return True
        if held.expires and not held.deleted and entry.deleted and entry.version == held.ended.version:
            over = held.expired(self._ending_ms(now))
            self._out.count("documents_refused_early", not over)
            return over
        return entry.rank > held.rank

    def _not_over(self, tombstone: Document, entry: Entry, now: Now) -> bool:
        """Whether ``tombstone`` replaced the version of ``entry`` too early, because a clock was wrong."""
        early = tombstone.deleted and tombstone.expires > self._ending_ms(now)
        return early and not entry.deleted and entry.version == tombstone.base

    def _given_way(self, document: Document, now: Now) -> Document | None:
        """Return the version that ``document`` replaces: from the table, or a tombstone that was retired too early."""
        held = self._known(document.key)
        if held is None or document.key in self.table:
            return held
        return held if self._not_over(held, entry_of(document), now) else None

    def _known(self, key: str) -> Document | None:
        """Return the document or tombstone of ``key``: the one in the table, otherwise the retired tombstone."""
        return self.table.get(key) or self.expiry.retired.get(key)

    def refuses(self, entry: Entry, now: Now, source: Address | None = None) -> bool:
        """Whether another member's version breaks a rule of this member, as far as its entry shows.

        If the version breaks a rule, count it as refused and emit a warning. ``source``: the member that sent the
        entry, for the log.
        """
        if not self.signers.may_accept(entry.key, entry.version):
            unsigned = Refused("unsigned", "its version is not one of a signed document")
            self._refusals.refused(entry, unsigned, source, now)
            return True
        # A document's reading must be lower than the maximum, because the tombstone that replaces the document needs a
        # higher reading.
        if entry.version.hlc + (not entry.deleted) >= MAX_READING:
            reason = "future"
        else:
            reason = self._room.lacks(entry)
        if not reason:
            return False
        self._out.count(f"documents_refused_{reason}")
        self._out.emit(
            Warned(f"document_refused_{reason}", f"document {entry.key!r}: version {entry.version} refused ({reason})")
        )
        return True

    def _wall_ms(self, now: Now) -> int:
        return max(0, now.wall_ns // NS_PER_MS + int(self.offset * 1000))

    def _ending_ms(self, now: Now) -> int:
        """Return the time by which documents expire and tombstones are retired, in milliseconds since the epoch."""
        return self._steady.read(self._wall_ms(now), now)

    def _compare(self, key: str, held: Document | None, expected: Version | None, absent: bool) -> None:
        actual = None if held is None or held.deleted else held.version
        if (expected is not None and actual != expected) or (absent and actual is not None):
            raise ProtocolError(
                "version_mismatch",
                f"document {key!r}: expected {expected or 'no document'}, found {actual or 'no document'}",
                key=key,
                expected=str(expected) if expected else None,
                actual=str(actual) if actual else None,
            )

    def _checked(self, write: Write, author: str, comment: str) -> Document | None:
        """Check the fields and the compare-and-set of ``write``.

        Return the current document or tombstone that ``write`` would replace. Raises ``ProtocolError``.
        """
        try:
            check_key(write.key)
            check_text("content_type", write.content_type or "", MAX_CONTENT_TYPE)
            check_text("author", author, MAX_AUTHOR)
            check_text("comment", comment, MAX_COMMENT)
            if write.expires_in is not None and not 0 < write.expires_in <= MAX_EXPIRES_IN:
                wanted = f"more than 0 and at most {MAX_EXPIRES_IN} seconds"
                raise ValueError(f"expires_in: expected {wanted}, got {shown(write.expires_in)}")
        except ValueError as error:
            raise InvalidError("invalid_document", str(error), key=write.key) from None
        held = self.table.get(write.key)
        self._compare(write.key, held, write.expected, write.absent)
        return held

    def _expiry(self, write: Write, now: Now) -> int:
        if write.deleted:
            return 0
        if write.expires_in is None:
            if 0 < write.expires <= self._ending_ms(now):
                text = f"document {write.key!r}: the version to be written has expired: say how long it is to live now"
                raise ProtocolError("version_expired", f"{text} (expires_in)", key=write.key)
            return write.expires
        return self._wall_ms(now) + math.ceil(write.expires_in * 1000)

    def _reading(self, writes: Sequence[Write], changed: Sequence[bool], now: Now) -> int:
        """Return the clock reading for a new version; 0 if no write changes anything. Raises ``ProtocolError``.

        The new reading is higher than the readings of all replaced versions, and of the tombstones that those versions
        leave when they expire. A new version therefore outranks the version that it replaces, even if the clock of its
        author is wrong.
        """
        if not any(changed):
            return 0
        reading = self._clock.tick(self._wall_ms(now))
        for write in writes:
            held = self._known(write.key)
            if held is not None:
                reading = max(reading, held.version.hlc + 2)
                if reading + 1 >= MAX_READING:
                    raise ProtocolError(
                        "version_exhausted",
                        f"document {write.key!r}: no version can follow {held.version}, because other members would "
                        "refuse a version with a higher clock reading; publish under another key",
                        key=write.key,
                        actual=str(held.version),
                    )
        self._clock.observe(reading + 1)
        return reading

    def _settle(self, now: Now) -> None:
        """Move the documents of complete batches into the table."""
        for parts in self.staging.complete():
            for part in parts:
                if self.outranked_by(entry_of(part), now):
                    self._store(part, self._given_way(part, now), now, local=False)

    def _put(self, document: Document) -> None:
        self.table.put(document)
        self.expiry.note(document)

    def _store(self, document: Document, held: Document | None, now: Now, local: bool) -> None:
        overtaken = not local and held is not None and document.overtakes(held, held.version.origin == self._origin)
        # no conflict if ``held`` is the tombstone of this document's expiry, which a wrong clock caused
        overtaken = overtaken and held != document.ended
        self._put(document)
        self.staging.stored(document)
        if overtaken and held is not None:
            self._out.count("document_conflicts")
            text = f"document {document.key!r}: version {document.version} took the place of {held.version}, which its"
            self._out.emit(Warned("document_conflict", f"{text} author had not read; that stays in the history here"))
        if self._clock.too_far_ahead(document.version.hlc, self._wall_ms(now)):
            self._out.count("documents_ahead")
            text = f"document {document.key!r}: version {document.version} is of a time to come: its author's clock"
            self._out.emit(Warned("document_ahead", f"{text} was wrong, or the clocks here are"))
        self._out.emit(DocumentChanged(document, held, local, overtaken))
        self.on_change(now)


def _equals(held: Document | None, write: Write, expires: int) -> bool:
    if held is None or held.deleted or write.deleted:
        # A deletion changes nothing if there is no document.
        return write.deleted and (held is None or held.deleted)
    return held.value == write.value and held.content_type == write.type_over(held) and held.expires == expires


def _tombstone(entry: Entry) -> Document:
    return Document(entry.key, entry.version, deleted=True)


def _check_batch(keys: tuple[str, ...]) -> None:
    if len(set(keys)) < len(keys):
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ProtocolError("invalid_document", f"document {twice!r}: expected each key once, got it twice", key=twice)
    if len(keys) > MAX_BATCH:
        raise ProtocolError(
            "invalid_document", f"expected at most {MAX_BATCH} documents published together, got {len(keys)}"
        )
    if len(keys) > 1 and sum(len(key.encode()) for key in keys) > MAX_BATCH_KEYS:
        raise ProtocolError(
            "invalid_document", f"expected keys of at most {MAX_BATCH_KEYS} bytes together in one publish"
        )
