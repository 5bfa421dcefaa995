# SPDX-License-Identifier: MIT
"""Prepares signed publishes: builds the documents that a signer signed, and checks them against the rules."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ..interface import InvalidError, ProtocolError
from ..signatures import MAX_ANCESTORS, MAX_SIGNED_AT, Signature, origin_of, part_of, public_key_of, reading_of
from ..signers import Refused, Signers
from ..types import Address, Document, Prepared, Version, Write


def signed_documents(writes: Sequence[Write], comment: str) -> list[Document]:
    """Build the documents of one signed publish.

    Each write has an explicit content type. Raises ``InvalidError`` if the writes were not signed together.
    """
    first = writes[0].signed
    key = writes[0].key
    if first is None or any(
        write.signed is None or (write.signed.signed_at, write.signed.blob) != (first.signed_at, first.blob)
        for write in writes
    ):
        text = "expected one signature over all documents that are published together"
        raise InvalidError("invalid_document", text, key=key)
    if not 0 <= first.signed_at <= MAX_SIGNED_AT:
        text = f"signed_at: expected 0 to {MAX_SIGNED_AT} microseconds since the epoch, got {first.signed_at}"
        raise InvalidError("invalid_document", text, key=key)
    try:
        ip, port = origin_of(public_key_of(first.blob))
    except ValueError as error:
        raise InvalidError("invalid_document", f"signature: {error}", key=key) from None
    version = Version(reading_of(first.signed_at), Address.unpack(ip, port))
    keys = tuple(sorted(write.key for write in writes))
    alone = [
        Document(
            write.key,
            version,
            bytes(write.value),
            write.content_type or "raw",
            "",
            comment,
            write.deleted,
            write.signed.read[0] if write.signed is not None and write.signed.read else None,
            write.expires,
            keys if len(keys) > 1 else (),
            write.signed.read[1 : MAX_ANCESTORS + 1] if write.signed is not None else (),
        )
        for write in writes
    ]
    parts = sorted(map(part_of, alone), key=lambda part: part.key)
    batch = tuple((part.key, part.hash) for part in parts) if len(parts) > 1 else ()
    return [replace(document, signature=Signature(first.blob, batch)) for document in alone]


def prepare_signed(
    documents: Sequence[Document],
    helds: Sequence[Document | None],
    known: Sequence[Document | None],
    signers: Signers,
    latest: int | None,
) -> list[Prepared]:
    """Check signed documents before a publish on this member.

    ``helds``: the current version of each document, or None. ``known``: as ``helds``, with retired tombstones.
    ``latest``: see ``Signers.check``. Raises ``ProtocolError`` (signature_refused, signature_outdated).
    """
    for document, verified in zip(documents, signers.verify(documents)):
        try:
            signers.check(document, latest, verified)
        except Refused as reason:
            text = f"document {document.key!r}: {reason}"
            raise ProtocolError("signature_refused", text, key=document.key) from None
    if all(_alike(held, document) for held, document in zip(helds, documents)):
        return [Prepared(document.key, held, False, held) for held, document in zip(helds, documents)]
    for former, document in zip(known, documents):
        # One more, because the former version may leave a tombstone of expiry.
        if former is not None and document.version.hlc <= former.version.hlc + 1:
            text = f"document {document.key!r}: expected a signature made after the version {former.version}"
            lineage = [str(version) for version in (former.version, *former.lineage)]
            raise ProtocolError("signature_outdated", text, key=document.key, lineage=lineage)
    return [Prepared(document.key, document, True, held) for held, document in zip(helds, documents)]


def _alike(held: Document | None, document: Document) -> bool:
    """Whether ``document`` would change nothing: the same signer has signed the same content before."""
    if held is None or held.deleted:
        return document.deleted
    if document.deleted or held.signature is None or held.version.origin != document.version.origin:
        return False
    return replace(part_of(held), read=()) == replace(part_of(document), read=())
