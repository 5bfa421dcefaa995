# SPDX-License-Identifier: MIT
"""Signed documents: the statement that a signer signs, and the version that follows from the signature.

A signature covers every field of a document. The fields in :class:`Part` are in the statement: as one line for a single
document, as the hash of this line for each of several documents. The version follows from the time of the signature and
the public key of the signer. The field ``author`` of a signed document is empty. So no member can change any field of a
signed document.

docs/protocol.md, "Signed documents", describes the rules.
"""

from __future__ import annotations

import base64
import datetime
import functools
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .types import Document, Version

#: Maximum bytes of a signature. A signature of OpenSSH with an Ed25519 key has some 200 bytes, of a hardware key some
#: 300 bytes.
MAX_SIGNATURE = 1024
#: The namespace of signatures: the signer gives it to ``ssh-keygen -Y sign -n``. A signature for another purpose is not
#: accepted.
NAMESPACE = "xdp-gossip"
#: The first 8 bytes of the origin in the version of a signed document. They are those of the network 100::/64, which
#: no host uses (RFC 6666). The other 8 bytes are the first bytes of the SHA-256 of the public key.
NETWORK = bytes.fromhex("0100000000000000")
_PORT = 1
#: Maximum number of ancestors that a document lists. Ancestors are the versions before its ``base``.
MAX_ANCESTORS = 7
#: Steps of the clock reading's counter (16 bits) per microsecond of the time of the signature. A tombstone of expiry is
#: one step above its document.
_STEPS = 64
_EPOCH = datetime.datetime(1970, 1, 1)  # without a time zone: the text of a time must not contain its offset
#: Writes a text in quotes. ``json.dumps`` with an option would build such an encoder for each text.
_quoted = json.JSONEncoder(ensure_ascii=False).encode
#: Microseconds since the epoch of the latest time that a statement can contain: the end of the year 9999.
MAX_SIGNED_AT = 253_402_300_799_999_999


@dataclass(frozen=True)
class Part:
    """What a statement says about one document.

    ``read``: the versions that the signer had read, ``Document.base`` first and then ``Document.ancestors``; () if the
    signer had read none.
    """

    key: str
    deleted: bool
    content_type: str
    size: int
    content_hash: bytes
    expires: int
    read: tuple[Version, ...]

    @property
    def line(self) -> str:
        """The line of a statement about this document alone."""
        after = f"after {' '.join(map(str, self.read)) or 'nothing'}"
        if self.deleted:
            return f"delete {_quoted(self.key)} {after}"
        expires = f"expires {text_of_time(self.expires * 1000) if self.expires else 'never'}"
        return f"{part_begin(self.key, self.content_type, self.size, self.content_hash)}{expires} {after}"

    @property
    def hash(self) -> bytes:
        """SHA-256 of the line."""
        return hashlib.sha256(self.line.encode()).digest()


@dataclass(frozen=True)
class Signature:
    """The signature of one or several documents that were signed together.

    ``blob``: the signature as OpenSSH writes it (PROTOCOL.sshsig), decoded from its ASCII armor. ``batch``: key and
    hash (:attr:`Part.hash`) of each document that was signed, sorted by key; () if it is a single document. ``part``:
    only in a tombstone of expiry, what the statement says about the document that expired.
    """

    blob: bytes
    batch: tuple[tuple[str, bytes], ...] = ()
    part: Part | None = None

    @property
    def room(self) -> int:
        """Bytes that the signature needs in a packet, beyond the fields of a document without a signature."""
        return len(self.blob) + sum(len(key.encode()) + 40 for key, _ in self.batch) + 200 * (self.part is not None)

    def outliving(self, document: Document) -> Signature:
        """The signature for the tombstone that replaces ``document`` when it expires."""
        return replace(self, part=part_of(document))


def fingerprint(public_key: bytes) -> str:
    """The fingerprint of a public key as OpenSSH prints it: ``SHA256:`` and base64 without padding."""
    return "SHA256:" + base64.b64encode(hashlib.sha256(public_key).digest()).rstrip(b"=").decode()


def public_key_of(blob: bytes) -> bytes:
    """The public key in a signature of OpenSSH, without any check of the signature itself.

    Raises ``ValueError`` if ``blob`` is no such signature.
    """
    # "SSHSIG", the version (4 bytes), and the public key with its length (PROTOCOL.sshsig).
    start = 14
    length = int.from_bytes(blob[10:start], "big")
    if blob[:6] != b"SSHSIG" or not 0 < length <= len(blob) - start:
        raise ValueError("expected a signature of OpenSSH")
    return blob[start : start + length]


class StatementError(ValueError):
    """Raised for a document whose fields contradict its signature."""


def text_of_time(microseconds: int) -> str:
    """A time in UTC, such as ``2027-01-31T12:00:00.000000Z``. ``microseconds``: microseconds since the epoch."""
    return f"{(_EPOCH + datetime.timedelta(microseconds=microseconds)).isoformat(timespec='microseconds')}Z"


def part_of(document: Document) -> Part:
    """What the statement of ``document`` has to say about it."""
    content = ("", 0, b"") if document.deleted else (document.content_type, document.size, document.content_hash)
    read = () if document.base is None else (document.base, *document.ancestors)
    return Part(document.key, document.deleted, *content, document.expires, read)


def statement(cluster: str, signed_at: int, comment: str, parts: Sequence[Part]) -> bytes:
    """The text that a signer signs.

    ``signed_at``: microseconds since the epoch, at most ``MAX_SIGNED_AT``. ``parts``: all documents that are signed
    together, sorted by key.
    """
    lines = [parts[0].line] if len(parts) == 1 else _hashed([(part.key, part.hash) for part in parts])
    return _text(cluster, signed_at, comment, lines)


def statement_of(cluster: str, document: Document) -> bytes:
    """The statement that the signer of ``document`` signed.

    Raises :class:`StatementError` if a field of the document contradicts the statement.
    """
    signature, when = document.signature, signed_at(document.version)
    assert signature is not None
    if when is None:
        raise StatementError("its version is not one of a signed document")
    part = _checked_part(document, signature)
    if not signature.batch:
        return _text(cluster, when, document.comment, [part.line])
    return _text(cluster, when, document.comment, _hashed(signature.batch))


def statement_begin(cluster: str, signed_at: int) -> str:
    """The first lines of each statement for ``cluster`` at the time ``signed_at``, in microseconds since the epoch."""
    return f"{NAMESPACE} statement 1\ncluster {_quoted(cluster)}\nsigned-at {text_of_time(signed_at)}\n"


def part_begin(key: str, content_type: str, size: int, content_hash: bytes) -> str:
    """The beginning of the line of a statement about one document with this content, up to the expiry."""
    return f"publish {_quoted(key)} type {_quoted(content_type)} size {size} sha256 {content_hash.hex()} "


def batch_line(key: str, part_hash: bytes) -> str:
    """The line of a statement about one of several documents. ``part_hash``: :attr:`Part.hash`."""
    return f"document {_quoted(key)} sha256 {part_hash.hex()}"


def _hashed(batch: Sequence[tuple[str, bytes]]) -> list[str]:
    return [batch_line(key, digest) for key, digest in batch]


def _text(cluster: str, signed_at: int, comment: str, lines: Sequence[str]) -> bytes:
    body = "\n".join(lines)
    return f"{statement_begin(cluster, signed_at)}comment {_quoted(comment)}\n{body}\n".encode()


def reading_of(signed_at: int) -> int:
    """The clock reading of the versions that were signed at ``signed_at`` (microseconds since the epoch)."""
    milliseconds, microseconds = divmod(signed_at, 1000)
    return milliseconds << 16 | microseconds * _STEPS


def time_after(version: Version | None, clock: int) -> int:
    """The time with which a signer signs a document whose present version is ``version``.

    ``clock``: the present time. The result is the present time, or the first time whose version outranks ``version``
    and the tombstone that it leaves when it expires. All times are microseconds since the epoch.
    """
    if version is None or reading_of(clock) > version.hlc + 1:
        return clock
    milliseconds, counter = version.hlc + 1 >> 16, version.hlc + 1 & 0xFFFF
    return milliseconds * 1000 + min(1000, counter // _STEPS + 1)


def signed_at(version: Version) -> int | None:
    """The time of the signature in microseconds since the epoch; None if ``version`` is not one of a signed document.

    For the version of a tombstone of expiry, the result is the time at which the expired document was signed.
    """
    if not has_signed_form(version):
        return None
    reading = version.hlc
    microseconds, over = divmod(reading & 0xFFFF, _STEPS)
    found = (reading >> 16) * 1000 + microseconds
    return found if microseconds < 1000 and over < 2 and found <= MAX_SIGNED_AT else None


def has_signed_form(version: Version) -> bool:
    """Whether the origin of ``version`` is that of a public key, and not the address of a node."""
    return version.origin.packed[:8] == NETWORK


@functools.lru_cache(maxsize=64)
def origin_of(public_key: bytes) -> tuple[bytes, int]:
    """The origin, as 16 bytes and a port, of the versions that the owner of ``public_key`` signs.

    ``public_key``: the key as in the second field of a line of OpenSSH, decoded.
    """
    return NETWORK + hashlib.sha256(public_key).digest()[:8], _PORT


def is_expiry(document: Document) -> bool:
    """Whether a signed ``document`` is the tombstone that replaced an expired document (``Document.ended``)."""
    return document.version.hlc % _STEPS == 1


def _checked_part(document: Document, signature: Signature) -> Part:
    """The part of the statement about ``document``, or about the document that expired.

    Raises :class:`StatementError` if a field of the document contradicts it.
    """
    keys = tuple(key for key, _ in signature.batch)
    if len(keys) == 1 or any(first >= second for first, second in zip(keys, keys[1:])):
        raise StatementError("its batch is not one of several documents, sorted by key")
    if document.author or (document.ancestors and document.base is None):
        raise StatementError("it has an author, or ancestors without a base")
    if is_expiry(document):
        part = _expired_part(document, signature)
    else:
        part = part_of(document)
        if signature.part is not None:
            raise StatementError("it has the statement of another document")
        if document.batch != keys:
            raise StatementError("it names other documents of its batch than the statement")
        if document.deleted and (document.size or document.expires or document.content_type != "raw"):
            raise StatementError("a deletion has a value, a type or an expiry")
    if part.expires > MAX_SIGNED_AT // 1000:
        raise StatementError("it expires after the year 9999")
    if keys and (document.key, part.hash) not in signature.batch:
        raise StatementError("the statement says something else of the document")
    return part


def _expired_part(tombstone: Document, signature: Signature) -> Part:
    """The part of the document of which ``tombstone`` is the tombstone of expiry (``Document.ended``)."""
    part = signature.part
    base = replace(tombstone.version, hlc=tombstone.version.hlc - 1)
    sound = tombstone.deleted and not tombstone.size and not tombstone.batch and tombstone.base == base
    if part is None or part.deleted or not part.expires or not sound:
        raise StatementError("it is no tombstone of a document that expires")
    own = (tombstone.key, tombstone.expires, tombstone.content_type, tombstone.ancestors)
    if (part.key, part.expires, part.content_type, part.read[:MAX_ANCESTORS]) != own:
        raise StatementError("it is the tombstone of another document")
    return part
