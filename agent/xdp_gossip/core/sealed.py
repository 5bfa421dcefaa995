# SPDX-License-Identifier: MIT
"""The envelope of a sealed document: recipients, the content key encrypted for each of them, and the ciphertext.

This module only takes an envelope apart. It has no keys; :mod:`xdp_gossip.sealing` seals and opens envelopes. The
layout is in docs/wire.md, "Sealed documents".
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass, field

from .shown import shown

#: Content type of a document whose value is an envelope.
SEALED = "sealed"
MAGIC = b"XDP Gossip sealed 1\n"
MAX_RECIPIENTS = 1024
#: Maximum bytes of the name of a recipient and of the content type inside the envelope, in UTF-8.
MAX_NAME = 255
MAX_TYPE = 32
#: Bytes of a fingerprint, an encapsulated key, an encrypted content key, and the tag of the ciphertext (RFC 9180 with
#: X25519, SHA-256 and ChaCha20-Poly1305).
FINGERPRINT = 32
ENCAPSULATED = 32
WRAPPED = 32 + 16
OVERHEAD = 16
_STANZA = ENCAPSULATED + WRAPPED
_COMMITMENT = _TAG = 32


@dataclass(frozen=True)
class Recipient:
    """A recipient of a sealed document. ``name``: a label for people; only ``fingerprint`` (32 bytes) counts."""

    name: str
    fingerprint: bytes

    @property
    def text(self) -> str:
        """The fingerprint as people read it."""
        return fingerprint_text(self.fingerprint)


@dataclass(frozen=True)
class Envelope:
    """The parts of an envelope.

    ``content_type``: type of the content inside. ``head``: the encoded type and recipients. ``stanzas``: for each
    recipient, the encapsulated key and the encrypted content key. ``commitment``: a MAC with the content key. ``tag``:
    a MAC with a secret of the publisher, or random bytes.
    """

    content_type: str
    recipients: tuple[Recipient, ...]
    head: bytes = field(repr=False)
    stanzas: bytes = field(repr=False)
    commitment: bytes = field(repr=False)
    tag: bytes = field(repr=False)
    ciphertext: bytes = field(repr=False)

    @property
    def size(self) -> int:
        """Length of the content inside, in bytes."""
        return len(self.ciphertext) - OVERHEAD

    @property
    def names(self) -> list[str]:
        """Names of the recipients, sorted. A recipient without a name has its fingerprint instead."""
        return sorted(one.name or one.text for one in self.recipients)

    def stanza(self, fingerprint: bytes) -> tuple[bytes, bytes] | None:
        """Return the encapsulated key and the encrypted content key for a recipient; None if it is no recipient."""
        for number, one in enumerate(self.recipients):
            if one.fingerprint == fingerprint:
                found = self.stanzas[number * _STANZA : (number + 1) * _STANZA]
                return found[:ENCAPSULATED], found[ENCAPSULATED:]
        return None


def fingerprint(public_key: bytes) -> bytes:
    """The fingerprint of a public key: its SHA-256, 32 bytes."""
    return hashlib.sha256(public_key).digest()


def fingerprint_text(raw: bytes) -> str:
    """A fingerprint in the form in which OpenSSH shows those of its keys."""
    return "SHA256:" + base64.b64encode(raw).rstrip(b"=").decode()


def make_head(content_type: str, recipients: tuple[Recipient, ...]) -> bytes:
    """Encode the type of the content and the recipients, in the order of their fingerprints.

    Raises ``ValueError`` for a type or a name that is too long, no recipient or too many, or one key twice.
    """
    ordered = sorted(recipients, key=lambda one: one.fingerprint)
    if not 1 <= len(ordered) <= MAX_RECIPIENTS:
        raise ValueError(f"recipients: expected 1 to {MAX_RECIPIENTS}, got {len(ordered)}")
    head = bytearray(MAGIC)
    head += _text("content type", content_type, MAX_TYPE, 1)
    head += len(ordered).to_bytes(2, "big")
    for before, one in zip([None, *ordered], ordered):
        if before is not None and before.fingerprint == one.fingerprint:
            raise ValueError(f"recipients: {shown(before.name)} and {shown(one.name)} have the same key {one.text}")
        head += _text("recipient", one.name, MAX_NAME, 0) + one.fingerprint
    return bytes(head)


def _text(what: str, text: str, most: int, least: int) -> bytes:
    raw = text.encode("utf-8")
    if not least <= len(raw) <= most or not text.isprintable():
        raise ValueError(f"{what}: expected printable text of {least} to {most} bytes, got {shown(text)}")
    return bytes((len(raw),)) + raw


class _Reader:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self.at = 0

    def raw(self, length: int) -> bytes:
        found = self._data[self.at : self.at + length]
        if len(found) < length:
            raise ValueError(f"it ends after {len(self._data)} bytes, in the middle of a field")
        self.at += length
        return found

    def text(self, what: str, most: int, least: int) -> str:
        raw = self.raw(self.raw(1)[0])
        try:
            found = raw.decode("utf-8")
        except UnicodeDecodeError:
            raise ValueError(f"{what}: expected UTF-8") from None
        _text(what, found, most, least)
        return found


def parse(data: bytes) -> Envelope:
    """Take an envelope apart. The cost is bounded by the number of recipients. Raises ``ValueError``."""
    reader = _Reader(data)
    if data[: len(MAGIC)] != MAGIC:
        raise ValueError("it does not begin with 'XDP Gossip sealed 1'")
    reader.raw(len(MAGIC))
    content_type = reader.text("content type", MAX_TYPE, 1)
    count = int.from_bytes(reader.raw(2), "big")
    if not 1 <= count <= MAX_RECIPIENTS:
        raise ValueError(f"expected 1 to {MAX_RECIPIENTS} recipients, got {count}")
    recipients: list[Recipient] = []
    for _each in range(count):
        one = Recipient(reader.text("recipient", MAX_NAME, 0), reader.raw(FINGERPRINT))
        if recipients and recipients[-1].fingerprint >= one.fingerprint:
            raise ValueError("expected the recipients in the order of their fingerprints, each once")
        recipients.append(one)
    head = data[: reader.at]
    stanzas, commitment, tag = reader.raw(count * _STANZA), reader.raw(_COMMITMENT), reader.raw(_TAG)
    ciphertext = data[reader.at :]
    if len(ciphertext) < OVERHEAD:
        raise ValueError(f"it ends after {len(data)} bytes, in the middle of a field")
    return Envelope(content_type, tuple(recipients), head, stanzas, commitment, tag, ciphertext)
