# SPDX-License-Identifier: MIT
"""PekoNode's metadata as a document: one value for the whole cluster, versioned by its publisher's clock.

On PekoNode's wire, a version is a *stamp*: nanoseconds since the epoch. In this project, a version is a ``Version``: 48
bits of milliseconds, 16 bits of counter, and an origin. A stamp has no origin. The nanoseconds within a millisecond
need 20 bits, but the counter has only 16. Therefore the origin is a placeholder that encodes the other 4 bits, from
``0.0.0.0:1`` to ``0.0.0.0:16``. The mapping is exact and preserves the order, so members agree on every version.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from ..core.events import DocumentChanged, Warned
from ..core.interface import ProtocolError
from ..core.settings import Settings
from ..core.signers import Signers
from ..core.types import DEFAULT_KEY, Address, Document, Now, Prepared, Version, Write
from .outbox import PekoNodeOutbox
from .packet import MAX_STAMP

_NO_EXPIRY = "PekoNode's wire has no documents that expire"
_NO_SIGNATURE = "PekoNode's wire has no signed documents"
_NS_PER_MS = 1_000_000
_PLACEHOLDER = "0.0.0.0"
#: Number of stamps per counter value: 62,500 counter values, which fit into 16 bits, cover a millisecond.
_STEP = 16


def version_of(stamp: int) -> Version:
    """Convert a stamp (nanoseconds, 0 to ``MAX_STAMP``) to a version."""
    millis, rest = divmod(stamp, _NS_PER_MS)
    counter, low = divmod(rest, _STEP)
    return Version(millis << 16 | counter, Address(_PLACEHOLDER, low + 1))


def stamp_of(version: Version) -> int:
    """Convert a version to a stamp: the inverse of :func:`version_of`.

    If the agent used the native wire before, a version from that time becomes a stamp in the same millisecond, so that
    the document keeps its age.
    """
    millis, counter = version.hlc >> 16, version.hlc & 0xFFFF
    low = version.origin.port - 1 if version.origin.ip == _PLACEHOLDER and version.origin.port <= _STEP else 0
    rest = min(counter * _STEP + low, _NS_PER_MS - 1)
    return min(millis * _NS_PER_MS + rest, MAX_STAMP)


def document_of(stamp: int, value: bytes | None) -> Document:
    """Build the document from a packet's stamp and metadata.

    A packet contains no author, no comment and no content type.
    """
    return Document(DEFAULT_KEY, version_of(stamp), value or b"")


def check_key(key: str) -> None:
    """Raise ``ProtocolError`` (unsupported_key) unless ``key`` is the key of the cluster's only document."""
    if key != DEFAULT_KEY:
        raise ProtocolError(
            "unsupported_key", f"document {key!r}: PekoNode's wire has one document only, {DEFAULT_KEY!r}"
        )


class ClusterDocument:
    """The only document of a PekoNode cluster. Implements ``core.interface.AskedDocuments``.

    The latest stamp wins. Of two documents with the same stamp, the document with the higher rank wins.
    """

    def __init__(self, settings: Settings, out: PekoNodeOutbox) -> None:
        self.stamp = 0
        self.current: Document | None = None
        #: Function that sends the document to other nodes, called after a publish on this node.
        self.on_publish: Callable[[], None] = lambda: None
        #: No signers, because packets of this wire have no room for a signature.
        self.signers = Signers()
        self._settings = settings
        self._out = out

    @property
    def limit(self) -> int:
        """Maximum bytes of a value whose packet, with the value in base64, is shorter than ``size`` bytes."""
        return min(self._out.room(self._settings.amount), self._settings.limits.document)

    @property
    def digest(self) -> int:
        """The state hash of this node's document; 0 if there is no document."""
        return self.current.state_hash if self.current else 0

    @property
    def totals(self) -> tuple[int, int]:
        """The number of documents (0 or 1), and the bytes of the document's value."""
        return (0, 0) if self.current is None else (1, self.current.size)

    def get(self, key: str) -> Document | None:
        """This node's document if ``key`` is its key; otherwise None."""
        return self.current if key == DEFAULT_KEY else None

    def held(self, key: str) -> Document | None:
        """The same as :meth:`get`, because this wire has no tombstones."""
        return self.get(key)

    def lineage(self, key: str) -> tuple[Version, ...]:
        """The version of this node's document; () if ``key`` is not its key or there is no document."""
        held = self.get(key)
        return (held.version,) if held is not None else ()

    def live(self, prefix: str = "", after: str = "") -> Iterator[Document]:
        """Iterate over this node's document, if its key starts with ``prefix`` and comes after ``after``."""
        chosen = self.current is not None and DEFAULT_KEY.startswith(prefix) and after < DEFAULT_KEY
        return iter([self.current] if self.current is not None and chosen else [])

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
        """Write the only document of the cluster. Returns the current document, and whether this call changed it.

        The new version is later than the current version, even if the current version is in the future.
        ``content_type``, ``author`` and ``comment`` are stored on this node only; a document from another node has the
        type raw. Raises
        ``ProtocolError``: unsupported_key, unsupported_operation, version_mismatch, document_too_large,
        version_exhausted.
        """
        check_key(key)
        if expires_in is not None:
            raise ProtocolError("unsupported_operation", _NO_EXPIRY)
        held = self.current
        content_type = Write(key, content_type=content_type).type_over(held)
        self._compare(expected, absent)
        if len(value) > self.limit:
            raise ProtocolError(
                "document_too_large",
                f"document {DEFAULT_KEY!r}: expected at most {self.limit} bytes (the most that nodes with Size "
                f"{self._settings.size} can receive), got {len(value)}",
                limit=self.limit,
                size=len(value),
            )
        if held is not None and held.value == value and held.content_type == content_type:
            return held, False
        stamp = max(now.wall_ns, self.stamp + 1)
        if stamp > MAX_STAMP:
            raise ProtocolError(
                "version_exhausted",
                f"document {DEFAULT_KEY!r}: a node published the highest possible version (2^63 - 1), so no later "
                "version can be written; restart the whole cluster",
            )
        base = held.version if held else None
        document = Document(DEFAULT_KEY, version_of(stamp), bytes(value), content_type, author, comment, base=base)
        self._store(document, stamp, local=True)
        self.on_publish()
        return document, True

    def publish_many(
        self, writes: Sequence[Write], now: Now, *, author: str = "", comment: str = ""
    ) -> list[tuple[Document | None, bool]]:
        """Publish the only document in ``writes``, like :meth:`publish`.

        Raises ``ProtocolError`` (unsupported_operation) if ``writes`` contains several documents or a deletion.
        """
        if len(writes) == 1 and writes[0].deleted:
            return [self.delete(writes[0].key, now)]
        if len(writes) != 1:
            raise ProtocolError(
                "unsupported_operation",
                "expected one document to publish, because PekoNode's wire has only one document",
            )
        write = writes[0].typed(self.current)
        if write.expires:
            raise ProtocolError("unsupported_operation", _NO_EXPIRY)
        if write.signed is not None:
            raise ProtocolError("unsupported_operation", _NO_SIGNATURE)
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
        """Return None, because this engine sends a document before the document is on the disk."""
        return None

    def commit(self, prepared: Sequence[Prepared], now: Now) -> bool:
        """Raise ``ProtocolError`` (unsupported_operation), because :meth:`prepare` prepares no documents."""
        raise ProtocolError("unsupported_operation", "PekoNode's wire does not support prepare and commit")

    def delete(self, key: str, now: Now, *, expected: Version | None = None) -> tuple[Document | None, bool]:
        """Raise ``ProtocolError`` (unsupported_operation), because this wire has no tombstones."""
        raise ProtocolError(
            "unsupported_operation",
            "PekoNode's wire cannot delete the document; publish an empty one instead",
        )

    def take(self, document: Document, stamp: int, now: Now) -> bool:
        """Store another node's ``document`` if its rank is higher than that of this node's document.

        Returns whether ``stamp`` is newer than this node's stamp.
        """
        newer = stamp > self.stamp
        if not newer:
            if self.current is None or stamp < self.stamp or document.content_hash == self.current.content_hash:
                return False
            self._out.count("version_ties")
            if document.rank < self.current.rank:
                return False
        ahead = (stamp - now.wall_ns) / 1e9
        if newer and ahead > self._settings.max_clock_drift:
            self._out.count("versions_in_future")
            self._out.emit(Warned("version_in_future", f"a node published a version {ahead:.0f} s in the future"))
        self._store(document, stamp, local=False)
        return newer

    def outranks(self, document: Document) -> bool:
        """Whether this node's document has a higher rank than ``document``."""
        return self.current is not None and self.current.rank > document.rank

    def restore(self, document: Document) -> None:
        """Load a document from the store, even if it was stored while the agent used the native wire.

        A document that PekoNode's wire cannot carry stays on the disk, and causes a warning.
        """
        if document.key != DEFAULT_KEY or document.deleted or document.size > self.limit:
            self._out.count("documents_not_restored")
            text = f"document {document.key!r}: PekoNode's wire cannot carry it, left out"
            self._out.emit(Warned("document_not_restored", text))
            return
        self.stamp = stamp_of(document.version)
        self.current = replace(document, version=version_of(self.stamp))

    def _store(self, document: Document, stamp: int, local: bool) -> None:
        former, self.current = self.current, document
        tie = former is not None and stamp == self.stamp
        self.stamp = stamp
        self._out.emit(DocumentChanged(document, former, local, tie))

    def _compare(self, expected: Version | None, absent: bool) -> None:
        actual = self.current.version if self.current else None
        if (expected is not None and actual != expected) or (absent and actual is not None):
            raise ProtocolError(
                "version_mismatch",
                f"document {DEFAULT_KEY!r}: expected {expected or 'no document'}, found {actual or 'no document'}",
                expected=str(expected) if expected else None,
                actual=str(actual) if actual else None,
            )
