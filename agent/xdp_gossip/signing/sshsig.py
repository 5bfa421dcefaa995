# SPDX-License-Identifier: MIT
"""Reads public keys and signatures of OpenSSH, and verifies the signatures.

The formats are those of PROTOCOL.sshsig, PROTOCOL.u2f and PROTOCOL of OpenSSH, and of RFC 4253 and RFC 5656.
"""

from __future__ import annotations

import base64
import binascii
import functools
import hashlib
from collections.abc import Callable
from typing import NamedTuple

from ..core.shown import shown
from ..core.signatures import NAMESPACE

#: Types of keys whose signatures this module verifies.
KEY_TYPES = (
    "ssh-ed25519",
    "sk-ssh-ed25519@openssh.com",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
)
_MAGIC = b"SSHSIG"
_VERSION = 1
_HASHES: dict[bytes, Callable[[bytes], bytes]] = {
    b"sha256": lambda data: hashlib.sha256(data).digest(),
    b"sha512": lambda data: hashlib.sha512(data).digest(),
}
_ARMOR = ("-----BEGIN SSH SIGNATURE-----", "-----END SSH SIGNATURE-----")
_WRONG = "it does not match the text and the public key"
#: Bytes of an Ed25519 public key and of an Ed25519 signature (RFC 8032).
_ED25519_KEY, _ED25519_SIGNATURE = 32, 64
#: A hardware key sets this flag in its signature if its owner touched it (PROTOCOL.u2f).
_USER_PRESENT = 0x01


class _Reader:
    """Reads the fields of a binary structure of OpenSSH one after the other. Raises ``ValueError`` at its end."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def raw(self, length: int) -> bytes:
        found = self._data[self._at : self._at + length]
        if len(found) < length:
            raise ValueError(f"expected {length} bytes, got {len(found)}")
        self._at += length
        return found

    def number(self) -> int:
        return int.from_bytes(self.raw(4), "big")

    def string(self) -> bytes:
        return self.raw(self.number())

    def end(self) -> None:
        if self._at != len(self._data):
            raise ValueError(f"expected the end, got {len(self._data) - self._at} further bytes")


class _Parsed(NamedTuple):
    public_key: bytes
    hash_name: bytes
    signature: bytes


def _string(data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + data


def parse_public_key(line: str) -> bytes:
    """Decode a public key in the format of a file ``*.pub``: type, base64, and an optional comment.

    Raises ``ValueError`` for another format, or for a type that is not one of ``KEY_TYPES``.
    """
    fields = line.split()
    if len(fields) < 2 or fields[0] not in KEY_TYPES:
        raise ValueError(f"expected a line such as 'ssh-ed25519 AAAA...' with one of {', '.join(KEY_TYPES)}")
    try:
        decoded = base64.b64decode(fields[1], validate=True)
        reader = _Reader(decoded)
        named = reader.string()
    except (binascii.Error, ValueError):
        raise ValueError(f"expected the key in base64 after {fields[0]}") from None
    if named != fields[0].encode():
        raise ValueError(f"expected a key of type {fields[0]}, got one of type {shown(named.decode(errors='replace'))}")
    try:
        _verifier(decoded)
    except ValueError as error:
        raise ValueError(f"expected a key of type {fields[0]}: {error}") from None
    return decoded


def unarmored(text: str) -> bytes:
    """Decode a signature as ``ssh-keygen -Y sign`` writes it, with or without its first and last line.

    Raises ``ValueError``.
    """
    lines = [line.strip() for line in text.strip().splitlines()]
    if lines and lines[0] == _ARMOR[0]:
        if lines[-1] != _ARMOR[1]:
            raise ValueError(f"expected {_ARMOR[1]!r} as the last line")
        lines = lines[1:-1]
    try:
        blob = base64.b64decode("".join(lines), validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("expected a signature of OpenSSH in base64") from None
    _parsed(blob)
    return blob


def armored(blob: bytes) -> str:
    """A signature in the text format that ``ssh-keygen -Y verify`` reads."""
    text = base64.b64encode(blob).decode()
    return "\n".join((_ARMOR[0], *(text[at : at + 70] for at in range(0, len(text), 70)), _ARMOR[1], ""))


def verify(blob: bytes, message: bytes) -> bytes:
    """Verify a signature of ``message``. Returns the public key of the signer.

    Raises ``ValueError`` if the signature is malformed, wrong, for another namespace, or by a key of another type.
    """
    edwards = _edwards(blob[:-_ED25519_SIGNATURE])
    if edwards is not None:
        signed = edwards.signed + _string(edwards.hash(message))
        _check_edwards(blob[-_ED25519_SIGNATURE:], signed, edwards.edwards_key)
        return edwards.public_key
    parsed = _parsed(blob)
    _verifier(parsed.public_key)(parsed.signature, _signed(parsed.hash_name, _HASHES[parsed.hash_name](message)))
    return parsed.public_key


def _signed(hash_name: bytes, digest: bytes) -> bytes:
    """The data that a signature is made of (PROTOCOL.sshsig)."""
    reserved = b""
    return _MAGIC + b"".join(_string(part) for part in (NAMESPACE.encode(), reserved, hash_name, digest))


class _Edwards(NamedTuple):
    """What all Ed25519 signatures of one key have in common.

    ``public_key``: the key as OpenSSH encodes it. ``edwards_key``: its 32 bytes of RFC 8032. ``hash``: the function
    that hashes the message. ``signed``: the signed data without the hash at its end.
    """

    public_key: bytes
    hash: Callable[[bytes], bytes]
    signed: bytes
    edwards_key: bytes


@functools.lru_cache(maxsize=64)
def _edwards(head: bytes) -> _Edwards | None:
    """Read the part of a signature before the raw Ed25519 signature, which is the same in all signatures of a key.

    The results for the latest signers are cached, so that a member parses the signatures of a signer only once. Returns
    None for a signature of another type.

    Raises ``ValueError`` if the signature is malformed, for another namespace, or by a key of another type.
    """
    try:
        # The lengths of all fields are in ``head``, so zeros can stand for the raw signature.
        parsed = _parsed(head + bytes(_ED25519_SIGNATURE))
        fields = _Reader(parsed.public_key)
        if fields.string() != b"ssh-ed25519":
            return None
    except ValueError:
        return None  # the caller reads the signature again, and says what is wrong
    _verifier(parsed.public_key)  # raises for a malformed key
    edwards_key = fields.string()
    signature = _Reader(parsed.signature)
    if signature.string() != b"ssh-ed25519" or signature.string() != bytes(_ED25519_SIGNATURE):
        return None
    signature.end()

    signed = _signed(parsed.hash_name, b"")[: -len(_string(b""))]
    return _Edwards(parsed.public_key, _HASHES[parsed.hash_name], signed, edwards_key)


def _check_edwards(signature: bytes, data: bytes, edwards_key: bytes) -> None:
    """Verify a raw Ed25519 signature of ``data``. Raises ``ValueError``."""
    # Imported late: an agent without signed documents does not need the memory.
    from nacl.bindings import crypto_sign_open
    from nacl.exceptions import CryptoError

    try:
        # libsodium takes half as long as OpenSSL.
        crypto_sign_open(signature + data, edwards_key)
    except CryptoError:
        raise ValueError(_WRONG) from None


def _parsed(blob: bytes) -> _Parsed:
    reader = _Reader(blob)
    if reader.raw(len(_MAGIC)) != _MAGIC or reader.number() != _VERSION:
        raise ValueError("expected a signature of OpenSSH, version 1")
    public_key, namespace = reader.string(), reader.string()
    reserved, hash_name, signature = reader.string(), reader.string(), reader.string()
    reader.end()
    if namespace != NAMESPACE.encode():
        raise ValueError(f"expected the namespace {NAMESPACE}, got {shown(namespace.decode(errors='replace'))}")
    if reserved or hash_name not in _HASHES:
        raise ValueError("expected sha256 or sha512, and nothing in the reserved field")
    return _Parsed(public_key, hash_name, signature)


@functools.lru_cache(maxsize=64)
def _verifier(public_key: bytes) -> Callable[[bytes, bytes], None]:
    """Return a function that takes a signature of this key and the signed data, and raises ``ValueError``.

    The functions of the latest keys are cached, because a fleet has few signers and many documents.

    Raises ``ValueError`` if the public key is malformed or of another type.
    """
    # Imported late: an agent without signed documents does not need the memory.
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

    reader = _Reader(public_key)
    kind = reader.string().decode(errors="replace")
    if kind not in KEY_TYPES:
        raise ValueError(f"expected a key of type {', '.join(KEY_TYPES)}, got {shown(kind)}")

    def own(signature: bytes) -> _Reader:
        """Read the type at the start of a signature, which must be the type of the key."""
        fields = _Reader(signature)
        if fields.string() != kind.encode():
            raise ValueError(f"expected a signature of type {kind}")
        return fields

    def checked(check: Callable[[], None]) -> None:
        try:
            check()
        except InvalidSignature:
            raise ValueError(_WRONG) from None

    if kind.startswith("ecdsa-"):
        curves = {b"nistp256": ec.SECP256R1(), b"nistp384": ec.SECP384R1(), b"nistp521": ec.SECP521R1()}
        digests = {b"nistp256": hashes.SHA256(), b"nistp384": hashes.SHA384(), b"nistp521": hashes.SHA512()}
        name, point = reader.string(), reader.string()
        reader.end()
        if name not in curves or not kind.endswith(name.decode()):
            raise ValueError("the curve is another one than that of the key's type")
        curve_key = ec.EllipticCurvePublicKey.from_encoded_point(curves[name], point)

        def check_ecdsa(signature: bytes, data: bytes) -> None:
            fields = own(signature)
            pair = _Reader(fields.string())
            fields.end()
            r, s = (int.from_bytes(pair.string(), "big") for _ in range(2))
            pair.end()
            encoded = encode_dss_signature(r, s)
            checked(lambda: curve_key.verify(encoded, data, ec.ECDSA(digests[name])))

        return check_ecdsa

    edwards_key = reader.string()
    if len(edwards_key) != _ED25519_KEY:
        raise ValueError(f"expected {_ED25519_KEY} bytes of the key, got {len(edwards_key)}")
    application = reader.string() if kind.startswith("sk-") else None
    reader.end()

    def check_ed25519(signature: bytes, data: bytes) -> None:
        fields = own(signature)
        raw = fields.string()
        if application is not None:
            flags, counter = fields.raw(1), fields.raw(4)
            if not flags[0] & _USER_PRESENT:
                raise ValueError("the owner of the hardware key did not touch it")
            data = hashlib.sha256(application).digest() + flags + counter + hashlib.sha256(data).digest()
        fields.end()
        if len(raw) != _ED25519_SIGNATURE:
            raise ValueError(f"expected {_ED25519_SIGNATURE} bytes of a signature, got {len(raw)}")
        _check_edwards(raw, data, edwards_key)

    return check_ed25519
