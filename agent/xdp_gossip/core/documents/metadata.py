# SPDX-License-Identifier: MIT
"""Writes the cluster's documents (PekoNode's Metadata), checks new versions, and decides which of two versions wins."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Callable

from ..events import DocumentChanged, TombstonesCollected, Warned
from ..interface import InvalidError, ProtocolError
from ..messages import Entry
from ..outbox import Outbox
from ..packets import PacketType
from ..settings import Settings
from ..shown import shown
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
from .clock import MAX_READING, NS_PER_MS, HybridClock, SteadyTime
from .expiry import Expiry
from .packing import packed
from .staging import Staging
from .table import DocumentTable, entry_of


class Metadata:
    """The documents of this member, and the rules for versions of other members.

    Implements ``interface.AskedDocuments``.
    """

    def __init__(self, origin: Address, settings: Settings, out: Outbox, table: DocumentTable) -> None:
        self.table = table
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
        self.expiry = Expiry(table, settings.tombstone_grace, settings.limits.documents)
        self.staging = Staging(table, settings.limits.document)

    def load(self, documents: Iterable[Document], now: Now) -> None:
        """Put the stored documents of an earlier run into the table, including retired tombstones."""
        for document in documents:
            self._put(document)
            self._clock.observe(document.version.hlc + 1)
        self.expiry.retire(self.expiry.old(self._ending_ms(now)))

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
        if not self._fits([document for document, _ in changes]):
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
        self._check_room(writes, helds, pending)
        expiries = [self._expiry(write, now) for write in writes]
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
        return prepared

    def apply(self, document: Document, now: Now) -> bool:
        """Accept a document of another member if its version outranks the local version and breaks no rule.

        Returns whether the document was accepted; a document of an incomplete batch also counts as accepted. The method
        counts documents that break a rule.
        """
        entry = entry_of(document)
        if not self.outranked_by(entry, now) or self.refuses(entry, now):
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

    def refuses(self, entry: Entry, now: Now) -> bool:
        """Whether another member's version breaks a rule of this member.

        If the version breaks a rule, count it as refused and emit a warning.
        """
        reason = ""
        # A document's reading must be lower than the maximum, because the tombstone that replaces the document needs a
        # higher reading.
        if entry.version.hlc + (not entry.deleted) >= MAX_READING:
            reason = "future"
        elif entry.size > self._settings.limits.document:
            reason = "too_large"
        elif self.table.get(entry.key) is None and len(self.table) >= self._settings.limits.documents:
            reason = "too_many"
        elif entry.size > self.table.size_of(entry.key) and self.table.bytes + entry.size > self._room(entry.key):
            reason = "store_full"
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

    def _room(self, key: str) -> int:
        """Return ``limits.store`` plus the bytes of the document ``key``, which a new version would replace."""
        return self._settings.limits.store + self.table.size_of(key)

    def _fits(self, documents: Sequence[Document]) -> bool:
        """Whether the limits allow all ``documents``.

        Documents that increase neither the total bytes nor the number of keys are always allowed.
        """
        growth = sum(document.size - self.table.size_of(document.key) for document in documents)
        fresh = sum(document.key not in self.table for document in documents)
        too_large = growth > 0 and self.table.bytes + growth > self._settings.limits.store
        return not too_large and (not fresh or len(self.table) + fresh <= self._settings.limits.documents)

    def _taken(self, pending: Sequence[Prepared]) -> tuple[int, int]:
        """Return the total bytes and the number of documents after a commit of ``pending``.

        If ``pending`` makes a document smaller, the total still contains the present size of this document, which is
        larger.
        """
        coming = [item.document for item in pending if item.changed and item.document is not None]
        growth = sum(max(0, document.size - self.table.size_of(document.key)) for document in coming)
        return self.table.bytes + growth, len(self.table) + sum(document.key not in self.table for document in coming)

    def _check_room(
        self, writes: Sequence[Write], helds: Sequence[Document | None], pending: Sequence[Prepared]
    ) -> None:
        limits = self._settings.limits
        for write in writes:
            if len(write.value) > limits.document:
                raise ProtocolError(
                    "document_too_large",
                    f"document {write.key!r}: expected at most {limits.document} bytes, got {len(write.value)}",
                    key=write.key,
                    limit=limits.document,
                    size=len(write.value),
                )
        if sum(len(write.value) for write in writes) > limits.document:
            raise ProtocolError(
                "document_too_large",
                f"documents published together: expected at most {limits.document} bytes in all",
                limit=limits.document,
                size=sum(len(write.value) for write in writes),
            )
        growth = sum(len(w.value) - (held.size if held else 0) for w, held in zip(writes, helds))
        taken, count = self._taken(pending)
        if growth > 0 and taken + growth > limits.store:
            raise ProtocolError(
                "store_full",
                f"document {writes[0].key!r}: expected at most {limits.store} bytes in all documents "
                f"(limits.store), got {taken} and this publish adds {growth}; delete some documents, or "
                "raise limits.store on every member",
                key=writes[0].key,
                limit=limits.store,
                size=taken + growth,
            )
        fresh = [write.key for write, held in zip(writes, helds) if held is None]
        if fresh and count + len(fresh) > limits.documents:
            raise ProtocolError(
                "too_many_documents",
                f"document {fresh[0]!r}: there are {count} documents already, the limit is {limits.documents}",
                key=fresh[0],
                limit=limits.documents,
            )

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
