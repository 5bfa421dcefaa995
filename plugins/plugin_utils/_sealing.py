# Copyright (c) 2026, the XDP Gossip contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Seals documents on the controller (HPKE base mode, RFC 9180, with X25519, HKDF-SHA256 and ChaCha20-Poly1305).

ansible-core requires ``cryptography`` on the controller. The scheme is in docs/wire.md of the agent.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import typing as t

from ansible_collections.xdp_gossip.fleet.plugins.module_utils._sealed import (
    KEYS,
    Envelope,
    Recipient,
    head_of,
    key_of,
    parse_envelope,
)

try:
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
    from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
except ImportError:  # ansible-core requires cryptography, so only tools for documentation run without it
    pass

KEY_SIZE = 32
_PURPOSE = b"XDP Gossip sealed document"
_LABEL = b"HPKE-v1"
_KEM_SUITE = b"KEM" + (0x20).to_bytes(2, "big")
_SUITE = b"HPKE" + b"".join(number.to_bytes(2, "big") for number in (0x20, 1, 3))


class SealingError(Exception):
    """Raised if a document cannot be sealed or opened. The message contains no content of a document."""


class NotForThisKey(SealingError):
    """Raised if a document is not sealed for a key."""


class PublicKey(t.NamedTuple):
    """The name of a recipient, and its public key (32 bytes)."""

    name: str
    raw: bytes

    @property
    def recipient(self) -> Recipient:
        """The recipient as an envelope names it."""
        return Recipient(self.name, key_of(self.raw))


def public_key(private: bytes) -> bytes:
    """Return the public key of a private key."""
    return _raw(X25519PrivateKey.from_private_bytes(private))


def _raw(key: X25519PrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)


def _hmac(key: bytes, *parts: bytes) -> bytes:
    return hmac.new(key, b"".join(parts), hashlib.sha256).digest()


def _expand(key: bytes, info: bytes, length: int = KEY_SIZE) -> bytes:
    """HKDF-Expand for at most one block (RFC 5869)."""
    return _hmac(key, info, b"\x01")[:length]


class Suite:
    """LabeledExtract and LabeledExpand of RFC 9180 for one suite."""

    def __init__(self, identifier: bytes) -> None:
        self._identifier = identifier

    def extract(self, salt: bytes, label: bytes, secret: bytes) -> bytes:
        """LabeledExtract."""
        return _hmac(salt, _LABEL, self._identifier, label, secret)

    def expand(self, key: bytes, label: bytes, info: bytes, length: int = KEY_SIZE) -> bytes:
        """LabeledExpand for at most 32 bytes."""
        return _expand(key, length.to_bytes(2, "big") + _LABEL + self._identifier + label + info, length)


def cipher_of(private: X25519PrivateKey, peer: bytes, shared_with: bytes, purpose: bytes) -> tuple[bytes, bytes]:
    """Return key and nonce of the first message between two keys. ``shared_with`` is enc and pkR of the RFC.

    Raises ``ValueError`` if ``peer`` is not a public key.
    """
    kem, suite = Suite(_KEM_SUITE), Suite(_SUITE)
    exchanged = private.exchange(X25519PublicKey.from_public_bytes(peer))
    secret = kem.expand(kem.extract(b"", b"eae_prk", exchanged), b"shared_secret", shared_with)
    context = b"\0" + suite.extract(b"", b"psk_id_hash", b"") + suite.extract(b"", b"info_hash", purpose)
    schedule = suite.extract(secret, b"secret", b"")
    return suite.expand(schedule, b"key", context), suite.expand(schedule, b"base_nonce", context, 12)


def encrypt_to(
    public: bytes, purpose: bytes, bound: bytes, message: bytes, ephemeral: X25519PrivateKey | None = None
) -> bytes:
    """Return enc and the ciphertext of ``message`` for a public key. ``ephemeral`` is for test vectors."""
    own = ephemeral or X25519PrivateKey.generate()
    key, nonce = cipher_of(own, public, _raw(own) + public, purpose)
    return _raw(own) + ChaCha20Poly1305(key).encrypt(nonce, message, bound)


def decrypt_with(private: bytes, purpose: bytes, bound: bytes, sealed: bytes) -> bytes:
    """Return the message of :func:`encrypt_to`. Raises ``SealingError``."""
    own = X25519PrivateKey.from_private_bytes(private)
    enc, ciphertext = sealed[:KEY_SIZE], sealed[KEY_SIZE:]
    try:
        key, nonce = cipher_of(own, enc, enc + _raw(own), purpose)
        return ChaCha20Poly1305(key).decrypt(nonce, ciphertext, bound)
    except (InvalidTag, ValueError):
        raise SealingError("it was changed, or sealed for another document, cluster or key") from None


class Sealer:
    """Seals, opens and recognizes the documents of one cluster.

    ``private``: the private key of the controller. A secret that is derived from it makes the tag of each envelope.
    With the tag, the controller recognizes an envelope of its own with a given content without opening it. Nobody else
    can use the tag to test a guess of the content.
    """

    def __init__(self, cluster: str, private: bytes) -> None:
        self._cluster = cluster
        self._private = private
        self.public = public_key(private)
        self._secret = _expand(_hmac(b"", private), b"XDP Gossip publisher tag")

    def _bound(self, key: str) -> bytes:
        parts = [part.encode("utf-8") for part in (self._cluster, key)]
        return b"".join(len(part).to_bytes(2, "big") + part for part in parts)

    def _tag(self, key: str, sealed: bytes, content: bytes) -> bytes:
        parts = (hashlib.sha256(part).digest() for part in (self._bound(key), sealed, content))
        return _hmac(self._secret, *parts)

    def seal(self, key: str, content: bytes, content_type: str, keys: t.Iterable[PublicKey]) -> bytes:
        """Return the envelope of ``content`` for the document ``key``. Raises ``SealingError``."""
        ordered = sorted(keys, key=lambda one: one.recipient.key)
        try:
            head = head_of(content_type, [one.recipient for one in ordered])
            bound = self._bound(key) + head
            content_key = os.urandom(KEY_SIZE)
            stanzas = b"".join(encrypt_to(one.raw, _PURPOSE, bound, content_key) for one in ordered)
        except ValueError as exc:
            raise SealingError("document %r: sealed_for: %s" % (key, exc)) from None
        commitment, cipher = _content_cipher(content_key, bound + stanzas)
        ciphertext = cipher.encrypt(bytes(12), content, bound + stanzas + commitment)
        tag = self._tag(key, head + stanzas + commitment + ciphertext, content)
        return head + stanzas + commitment + tag + ciphertext

    def is_own(self, key: str, envelope: Envelope, content: bytes) -> bool:
        """Return whether this controller made exactly this envelope for this document with this content."""
        sealed = envelope.head + envelope.keys + envelope.commitment + envelope.ciphertext
        return hmac.compare_digest(self._tag(key, sealed, content), envelope.tag)

    def open(self, key: str, value: bytes) -> bytes:
        """Return the content of an envelope. Raises ``NotForThisKey``, ``SealingError``."""
        try:
            envelope = parse_envelope(value)
        except ValueError as exc:
            raise SealingError("its envelope is damaged: %s" % exc) from None
        own = key_of(self.public)
        number = next((at for at, one in enumerate(envelope.recipients) if one.key == own), None)
        if number is None:
            raise NotForThisKey("it is not sealed for the key of this controller")
        bound = self._bound(key) + envelope.head
        content_key = decrypt_with(self._private, _PURPOSE, bound, envelope.keys[number * KEYS : (number + 1) * KEYS])
        commitment, cipher = _content_cipher(content_key, bound + envelope.keys)
        if not hmac.compare_digest(commitment, envelope.commitment):
            raise SealingError("its commitment is wrong")
        try:
            return cipher.decrypt(bytes(12), envelope.ciphertext, bound + envelope.keys + commitment)
        except InvalidTag:
            raise SealingError("its content was changed") from None


def _content_cipher(content_key: bytes, bound: bytes) -> tuple[bytes, ChaCha20Poly1305]:
    """Return the commitment to the content key, and the cipher of the content."""
    key = _hmac(b"", content_key)
    return _hmac(_expand(key, b"XDP Gossip commitment"), bound), ChaCha20Poly1305(_expand(key, b"XDP Gossip content"))
