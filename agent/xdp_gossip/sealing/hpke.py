# SPDX-License-Identifier: MIT
"""HPKE in base mode for one message: DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, ChaCha20-Poly1305 (RFC 9180).

``cryptography`` of Debian 12 has the primitives but no HPKE. Names of functions, labels and constants are those of the
RFC. All keys are raw: 32 bytes each.
"""

from __future__ import annotations

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from ..common.hkdf import expand, extract
from .keys import KEY_BYTES

_VERSION = b"HPKE-v1"
#: The suites of the key encapsulation and of the whole scheme: KEM 0x0020, KDF 0x0001, AEAD 0x0003 (section 7).
_KEM = b"KEM\x00\x20"
_HPKE = b"HPKE\x00\x20\x00\x01\x00\x03"
_MODE_BASE = b"\x00"
_NONCE_BYTES = 12


class OpenError(Exception):
    """Raised if a message cannot be opened: another key, other associated data, or a changed message."""


def _public(key: X25519PrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)


def _labeled_extract(suite: bytes, salt: bytes, label: bytes, secret: bytes) -> bytes:
    return extract(salt, _VERSION + suite + label + secret)


def _labeled_expand(suite: bytes, key: bytes, label: bytes, info: bytes, length: int) -> bytes:
    return expand(key, length.to_bytes(2, "big") + _VERSION + suite + label + info, length)


def shared_secret(private_key: X25519PrivateKey, peer: bytes, context: bytes) -> bytes:
    """ExtractAndExpand of section 4.1 over the Diffie-Hellman value of two keys. Raises ``ValueError``."""
    # This raises ValueError if the shared value is zero, as the RFC requires (section 7.1.4).
    exchanged = private_key.exchange(X25519PublicKey.from_public_bytes(peer))
    return _labeled_expand(
        _KEM, _labeled_extract(_KEM, b"", b"eae_prk", exchanged), b"shared_secret", context, KEY_BYTES
    )


def key_schedule(secret: bytes, info: bytes) -> tuple[bytes, bytes]:
    """The key and the nonce of the first message (section 5.1), from a shared secret."""
    none = _labeled_extract(_HPKE, b"", b"psk_id_hash", b"")
    context = _MODE_BASE + none + _labeled_extract(_HPKE, b"", b"info_hash", info)
    found = _labeled_extract(_HPKE, secret, b"secret", b"")
    key = _labeled_expand(_HPKE, found, b"key", context, KEY_BYTES)
    return key, _labeled_expand(_HPKE, found, b"base_nonce", context, _NONCE_BYTES)


def seal(
    public_key: bytes, info: bytes, associated: bytes, message: bytes, ephemeral: bytes | None = None
) -> tuple[bytes, bytes]:
    """Encrypt ``message`` for ``public_key``. Returns the encapsulated key and the ciphertext.

    ``ephemeral``: the ephemeral private key, only for test vectors. Raises ``ValueError`` for a wrong public key.
    """
    own = X25519PrivateKey.generate() if ephemeral is None else X25519PrivateKey.from_private_bytes(ephemeral)
    encapsulated = _public(own)
    key, nonce = key_schedule(shared_secret(own, public_key, encapsulated + public_key), info)
    return encapsulated, ChaCha20Poly1305(key).encrypt(nonce, message, associated)


def open_sealed(private_key: bytes, encapsulated: bytes, info: bytes, associated: bytes, ciphertext: bytes) -> bytes:
    """Decrypt a message that :func:`seal` returned. Raises :class:`OpenError`."""
    own = X25519PrivateKey.from_private_bytes(private_key)
    try:
        secret = shared_secret(own, encapsulated, encapsulated + _public(own))
        key, nonce = key_schedule(secret, info)
        return ChaCha20Poly1305(key).decrypt(nonce, ciphertext, associated)
    except (InvalidTag, ValueError):
        raise OpenError("it was changed, or was sealed for another document, cluster or key") from None
