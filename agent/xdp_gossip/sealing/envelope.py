# SPDX-License-Identifier: MIT
"""Seals a content into an envelope, and opens envelopes. The scheme is in docs/wire.md, "Sealed documents".

A random content key encrypts the content once; HPKE encrypts the content key for each recipient. Cluster, key of the
document, inner type and recipients are associated data, so an envelope opens nowhere else.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Sequence
from typing import NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from ..common.hkdf import hkdf
from ..core.sealed import Envelope, Recipient, fingerprint, make_head, parse
from . import hpke
from .keys import KEY_BYTES, PublicKey, public_of

_INFO = b"XDP Gossip sealed document"
_CONTENT = b"XDP Gossip content"
_COMMITMENT = b"XDP Gossip commitment"
#: Each content key encrypts one content, so its nonce may be constant.
_NONCE = bytes(12)


class NotRecipient(Exception):
    """Raised if the key of a host is not among the recipients of an envelope. ``names``: those of the recipients."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(names)
        super().__init__(f"it is sealed for {', '.join(names[:20])}{' and more' if len(names) > 20 else ''}")


class Opened(NamedTuple):
    """The content of an envelope."""

    content: bytes
    content_type: str


def context_of(cluster: str, key: str) -> bytes:
    """Encode the place to which an envelope is bound: the cluster and the key of the document."""
    parts = (cluster.encode("utf-8"), key.encode("utf-8"))
    return b"".join(len(part).to_bytes(2, "big") + part for part in parts)


def seal(cluster: str, key: str, content: bytes, content_type: str, recipients: Sequence[PublicKey]) -> bytes:
    """Seal ``content`` for ``recipients``. Returns the value of the document.

    Raises ``ValueError`` for no recipient, too many, one key twice, or a public key that is none.
    """
    ordered = sorted(recipients, key=lambda one: fingerprint(one.raw))
    head = make_head(content_type, tuple(Recipient(one.name, fingerprint(one.raw)) for one in ordered))
    bound = context_of(cluster, key) + head
    content_key = os.urandom(KEY_BYTES)
    stanzas = b"".join(b"".join(hpke.seal(one.raw, _INFO, bound, content_key)) for one in ordered)
    commitment = _commitment(content_key, bound + stanzas)
    cipher = ChaCha20Poly1305(_derived(content_key, _CONTENT))
    sealed = cipher.encrypt(_NONCE, content, bound + stanzas + commitment)
    # The tag is for publishers with a secret of their own (docs/wire.md). Others cannot tell it from random bytes.
    return head + stanzas + commitment + os.urandom(32) + sealed


def open_envelope(cluster: str, key: str, value: bytes, private_key: bytes) -> Opened:
    """Open the envelope ``value`` of the document ``key``.

    Raises :class:`NotRecipient`, ``hpke.OpenError``, and ``ValueError`` if ``value`` is not an envelope.
    """
    envelope = parse(value)
    stanza = envelope.stanza(fingerprint(public_of(private_key)))
    if stanza is None:
        raise NotRecipient(envelope.names)
    return Opened(_open(context_of(cluster, key), envelope, private_key, stanza), envelope.content_type)


def _open(context: bytes, envelope: Envelope, private_key: bytes, stanza: tuple[bytes, bytes]) -> bytes:
    bound = context + envelope.head
    content_key = hpke.open_sealed(private_key, stanza[0], _INFO, bound, stanza[1])
    # ChaCha20-Poly1305 does not commit to its key: without this MAC, two recipients could read different contents.
    expected = _commitment(content_key, bound + envelope.stanzas)
    if not hmac.compare_digest(expected, envelope.commitment):
        raise hpke.OpenError("its commitment is wrong: it was changed, or its recipients would read different contents")
    cipher = ChaCha20Poly1305(_derived(content_key, _CONTENT))
    try:
        return cipher.decrypt(_NONCE, envelope.ciphertext, bound + envelope.stanzas + envelope.commitment)
    except InvalidTag:
        raise hpke.OpenError("its content was changed") from None


def _derived(content_key: bytes, label: bytes) -> bytes:
    return hkdf(content_key, b"", label, KEY_BYTES)


def _commitment(content_key: bytes, bound: bytes) -> bytes:
    return hmac.new(_derived(content_key, _COMMITMENT), bound, hashlib.sha256).digest()
