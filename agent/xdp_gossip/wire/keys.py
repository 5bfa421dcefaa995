# SPDX-License-Identifier: MIT
"""Keys of a cluster, and what is derived from each secret.

A secret is either a generated key (``xgk1_`` and 43 characters, 256 random bits) or a passphrase. HKDF derives the keys
and a fingerprint of 8 bytes from a generated key. A passphrase is first stretched by scrypt. The first byte of the
fingerprint is the key id, which each packet contains. So a key is the same key on every node that has the secret, and
no number is configured. The keys are never sent; the fingerprint is public.

To rotate keys without interruption, first give every node the new secret with the state ``staged``. Nodes accept
packets signed with a staged key. Second, set the new key to ``active`` and the old key to ``retiring`` on every node.
Nodes then sign packets with the new key and still accept packets signed with the old key. Finally, remove the old key
from every node.
"""

from __future__ import annotations

import base64
import binascii
import functools
import hashlib
import os
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from ..common.hkdf import hkdf
from ..core.settings import KEY_STATES
from ..core.types import MAX_KEYS

#: Prefix of a generated key. The digit is the version of the format.
GENERATED = "xgk1_"
#: Bytes of a generated key, and the characters that base64url needs for them without padding.
_KEY_BYTES, _KEY_CHARACTERS = 32, 43
_ALPHABET = re.compile(r"[A-Za-z0-9_-]*")

#: Version of the derivation; the beginning of both salts.
_SALT = b"xdp-gossip/2 "
#: Parameters of scrypt (RFC 7914): N, r and p. Stretching takes 32 MiB (128 x N x r bytes) and about a quarter of a
#: second, and so does each guess of an attacker with a recorded packet. The parameters are those of OWASP's Password
#: Storage Cheat Sheet with 32 MiB.
SCRYPT_N, SCRYPT_R, SCRYPT_P = 1 << 15, 8, 3
#: Memory that OpenSSL may use for scrypt. Its default is 32 MiB, a little less than these parameters need.
_SCRYPT_MEMORY = 64 << 20


@dataclass(frozen=True)
class Key:
    """What is derived from one secret.

    ``fingerprint``: 64 bits that name the key. ``mac``: 16 bytes, for the MAC. ``body``: 32 bytes, to derive the AEAD
    keys of packets.
    """

    fingerprint: int
    mac: bytes = field(repr=False)
    body: bytes = field(repr=False)

    @property
    def id(self) -> int:
        """The key id, 0 to 255: the first byte of the fingerprint."""
        return self.fingerprint >> 56


def cluster_id(name: str) -> int:
    """The 32-bit number that stands for the cluster ``name`` in packets. The number of a cluster is no secret."""
    return int.from_bytes(hashlib.blake2s(name.encode(), digest_size=4, person=b"xg-clust").digest(), "big")


def generate() -> str:
    """Return a new generated key: the prefix ``xgk1_`` and 32 random bytes in base64url without padding."""
    return GENERATED + base64.urlsafe_b64encode(os.urandom(_KEY_BYTES)).decode().rstrip("=")


def is_generated(secret: str) -> bool:
    """Whether ``secret`` has the prefix of a generated key. Otherwise it is a passphrase."""
    return secret.startswith(GENERATED)


def check_secret(secret: str) -> None:
    """Raise ``ValueError`` if ``secret`` is neither a generated key nor a passphrase. The error never quotes it.

    A passphrase has printable characters in normal form C of Unicode, and neither begins nor ends with a space. Other
    texts look the same to people and are other keys: with a line feed of a file, a byte order mark of an editor, or an
    accent that another system encodes in two characters.
    """
    if is_generated(secret):
        _decoded(secret)
    elif not secret.isprintable() or secret != secret.strip() or secret != unicodedata.normalize("NFC", secret):
        text = "expected a passphrase of printable characters in Unicode's normal form C, without spaces around it"
        raise ValueError(f"{text}, got another text")


def derive(cluster: str, secret: str) -> Key:
    """Derive the key of ``secret`` in the cluster ``cluster``.

    A passphrase takes about a quarter of a second for the first time in a process. Raises ``ValueError`` as
    :func:`check_secret` does.
    """
    check_secret(secret)
    if is_generated(secret):
        return _expand(cluster, _decoded(secret))
    # Without a secret there is nothing to protect, so nothing is stretched.
    return _expand(cluster, _stretched(cluster, secret) if secret else b"")


def clash(keys: Sequence[Key]) -> tuple[int, int] | None:
    """Return the positions of the first two keys with the same id; None if all ids differ.

    Two different keys have the same id in 1 of 256 cases. The keys at the two positions are equal if their secrets are.
    """
    first: dict[int, int] = {}
    for position, key in enumerate(keys):
        if key.id in first:
            return first[key.id], position
        first[key.id] = position
    return None


class Keyring:
    """The keys of one cluster on one node. Immutable."""

    def __init__(self, cluster: str, keys: Iterable[tuple[str, str]]) -> None:
        """Derive ``keys``: pairs of state and secret.

        Raises ``ValueError`` if a state or a secret is wrong, if the number of active keys is not one, if there are
        more than ``MAX_KEYS``, or if two keys have the same id.
        """
        given = list(keys)
        if len(given) > MAX_KEYS:
            raise ValueError(f"expected at most {MAX_KEYS} keys, got {len(given)}")
        for position, (state, _) in enumerate(given):
            if state not in KEY_STATES:
                raise ValueError(f"keys[{position}]: expected one of {', '.join(KEY_STATES)}, got {state!r}")
        active = [position for position, (state, _) in enumerate(given) if state == "active"]
        if len(active) != 1:
            raise ValueError(f"expected exactly one active key, got {len(active)}")
        found = []
        for position, (_, secret) in enumerate(given):
            try:
                found.append(derive(cluster, secret))
            except ValueError as error:
                raise ValueError(f"keys[{position}]: {error}") from None
        both = clash(found)
        if both is not None:
            one, other = both
            if found[one] == found[other]:
                raise ValueError(f"keys[{other}]: expected each secret once, got the secret of keys[{one}] again")
            raise ValueError(
                f"keys[{other}]: expected a key with an id of its own, got the id {found[other].id} of keys[{one}]; "
                "generate another key"
            )
        self.cluster = cluster
        #: The key that signs.
        self.active = found[active[0]]
        #: Fingerprint and state of each key, in the order given.
        self.states = tuple((key.fingerprint, state) for key, (state, _) in zip(found, given))
        self._keys = {key.id: key for key in found}

    @classmethod
    def single(cls, cluster: str, secret: str) -> Keyring:
        """A keyring with one key, which is active."""
        return cls(cluster, [("active", secret)])

    def get(self, key_id: int) -> Key | None:
        """The key with the id ``key_id``; None if there is no such key."""
        return self._keys.get(key_id)

    @property
    def mac_keys(self) -> list[tuple[int, bytes]]:
        """Id and MAC key of each key, for a data plane."""
        return [(key.id, key.mac) for key in self._keys.values()]


def _decoded(secret: str) -> bytes:
    """The 32 bytes of a generated key. Raises ``ValueError``, which never quotes the key."""
    text = secret[len(GENERATED) :]
    expected = f"expected {GENERATED} and {_KEY_CHARACTERS} characters of base64url, got"
    if len(text) != _KEY_CHARACTERS:
        raise ValueError(f"{expected} {GENERATED} and {len(text)} characters; a passphrase must not begin so")
    if not _ALPHABET.fullmatch(text):
        raise ValueError(f"{expected} another character")
    try:
        raw = base64.urlsafe_b64decode(text + "=")
    except binascii.Error:  # pragma: no cover - length and alphabet were checked
        raise ValueError(f"{expected} something else") from None
    # The last character has two bits more than the key. With other bits there, one key would have several texts.
    if base64.urlsafe_b64encode(raw).decode().rstrip("=") != text:
        raise ValueError(f"{expected} a last character that no key has")
    return raw


@functools.lru_cache(maxsize=64)
def _stretched(cluster: str, secret: str) -> bytes:
    """Stretch a passphrase by scrypt. Cached, because a process often needs the same secret again."""
    salt = _SALT + cluster.encode()
    return hashlib.scrypt(
        secret.encode(), salt=salt, n=SCRYPT_N, r=SCRYPT_R, p=SCRYPT_P, maxmem=_SCRYPT_MEMORY, dklen=32
    )


def _expand(cluster: str, secret: bytes) -> Key:
    """Derive a key by HKDF (RFC 5869). The cluster name is part of the salt, so two clusters never share a key."""
    salt = _SALT + cluster.encode()
    return Key(
        fingerprint=int.from_bytes(hkdf(secret, salt, b"key fingerprint", 8), "big"),
        mac=hkdf(secret, salt, b"packet mac", 16),
        body=hkdf(secret, salt, b"body", 32),
    )
