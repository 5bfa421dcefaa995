# Copyright (c) 2026, the XDP Gossip contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""PRIVATE to this collection: takes the envelope of a sealed document apart, without any key. Python 3.8 or later.

Layout: the first line, the content type and the recipients (together the head), for each recipient an encapsulated key
and the encrypted content key, a commitment, the tag of the publisher, and the ciphertext (docs/wire.md).
"""

from __future__ import annotations

import base64
import hashlib
import typing as t

#: Content type of a document whose content is an envelope.
SEALED = "sealed"
FIRST_LINE = b"XDP Gossip sealed 1\n"
#: Maximum number of recipients, and maximum bytes of the name of a recipient and of the content type.
MAX_RECIPIENTS = 1024
MAX_NAME = 255
MAX_TYPE = 32
#: Bytes of a hash, of the keys for one recipient, of the commitment and the tag together, and of an authentication tag.
HASH = 32
KEYS = 80
MARKS = 64
AUTHENTICATION = 16


class Recipient(t.NamedTuple):
    """A recipient of a sealed document: a name for people, and the SHA-256 of the public key."""

    name: str
    key: bytes

    @property
    def fingerprint(self) -> str:
        """The fingerprint of the public key, in the form in which OpenSSH shows fingerprints."""
        return shown_key(self.key)


class Envelope(t.NamedTuple):
    """The parts of an envelope. ``keys`` are the bytes for all recipients, in their order."""

    content_type: str
    recipients: tuple[Recipient, ...]
    head: bytes
    keys: bytes
    commitment: bytes
    tag: bytes
    ciphertext: bytes

    @property
    def size(self) -> int:
        """The size of the content in bytes."""
        return len(self.ciphertext) - AUTHENTICATION

    def describe(self) -> dict[str, t.Any]:
        """Return what everybody may know of the document, as modules return it."""
        found = sorted(self.recipients)
        recipients = [{"name": one.name, "key": one.fingerprint} for one in found]
        return {"content_type": self.content_type, "size": self.size, "recipients": recipients}


def shown_key(key: bytes) -> str:
    """Return the text of a fingerprint."""
    return "SHA256:" + base64.b64encode(key).rstrip(b"=").decode("ascii")


def key_of(public: bytes) -> bytes:
    """Return the SHA-256 of a public key, by which an envelope names a recipient."""
    return hashlib.sha256(public).digest()


def encode_text(text: str, most: int) -> bytes:
    """Encode the length of a text and the text. Raises ``ValueError``."""
    raw = text.encode("utf-8")
    if len(raw) > most or not text.isprintable():
        raise ValueError("expected printable text of at most %d bytes, got %r" % (most, text[:80]))
    return bytes((len(raw),)) + raw


def head_of(content_type: str, recipients: t.Sequence[Recipient]) -> bytes:
    """Encode the head of an envelope. ``recipients`` must be sorted by their keys. Raises ``ValueError``."""
    if not 1 <= len(recipients) <= MAX_RECIPIENTS:
        raise ValueError("expected 1 to %d recipients, got %d" % (MAX_RECIPIENTS, len(recipients)))
    if not content_type:
        raise ValueError("expected a content type")
    parts = [FIRST_LINE, encode_text(content_type, MAX_TYPE), len(recipients).to_bytes(2, "big")]
    for number, one in enumerate(recipients):
        if number and recipients[number - 1].key >= one.key:
            raise ValueError("expected each recipient once, sorted by key, got %r out of order" % one.name[:80])
        parts += [encode_text(one.name, MAX_NAME), one.key]
    return b"".join(parts)


def parse_envelope(value: bytes) -> Envelope:
    """Take an envelope apart. Raises ``ValueError`` with the reason if ``value`` is not an envelope."""
    if not value.startswith(FIRST_LINE):
        raise ValueError("expected the first line %r" % FIRST_LINE.decode("ascii"))
    at = len(FIRST_LINE)

    def take(length: int) -> bytes:
        nonlocal at
        found, at = value[at : at + length], at + length
        if len(found) != length:
            raise ValueError("expected more than %d bytes" % len(value))
        return found

    content_type = take(take(1)[0]).decode("utf-8")
    recipients: list[Recipient] = []
    for _each in range(int.from_bytes(take(2), "big")):
        if len(recipients) == MAX_RECIPIENTS:
            raise ValueError("expected at most %d recipients" % MAX_RECIPIENTS)
        name = take(take(1)[0]).decode("utf-8")
        recipients.append(Recipient(name, take(HASH)))
    head = value[:at]
    if head_of(content_type, recipients) != head:
        raise ValueError("expected an envelope in its only form")
    keys, marks = take(KEYS * len(recipients)), take(MARKS)
    ciphertext = value[at:]
    if len(ciphertext) < AUTHENTICATION:
        raise ValueError("expected more than %d bytes" % len(value))
    return Envelope(content_type, tuple(recipients), head, keys, marks[:HASH], marks[HASH:], ciphertext)


def summary(value: bytes, digest: str) -> str | None:
    """Return the text that a diff shows of an envelope; ``None`` if ``value`` is not an envelope."""
    try:
        found = parse_envelope(value)
    except ValueError:
        return None
    lines = ["sealed document, %d bytes, %s" % (len(value), digest)]
    lines.append("content: %s, %d bytes" % (found.content_type, found.size))
    lines += ["recipient: %s %s" % (one.name, one.fingerprint) for one in sorted(found.recipients)]
    return "\n".join(lines) + "\n"
