# SPDX-License-Identifier: MIT
"""Codec of native packets.

A packet is a header of 88 bytes; some types also have an encrypted body (docs/wire.md; ``bpf/wire.h``). The header has
the signed block (64 bytes), its MAC (16 bytes), the relay area (4 bytes, not signed) and the salt of the body (4
bytes). All integers are big-endian.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import struct

from nacl.bindings import (
    crypto_aead_chacha20poly1305_ietf_decrypt,
    crypto_aead_chacha20poly1305_ietf_encrypt,
    crypto_shorthash_siphashx24,
)
from nacl.exceptions import CryptoError

from ..core.messages import BODILESS
from ..core.packets import Header, PacketKey, PacketKeys, PacketType, Rejected
from ..core.registry import Message
from ..core.types import Address
from . import bodies
from .keys import Keyring, cluster_id

MAGIC = 0x5847  # "XG"
WIRE_VERSION = 2
_BLOCK = struct.Struct("!HBBIBBHIQ16sQQQ")
_RELAY = struct.Struct("!BB2x")
BLOCK_BYTES = _BLOCK.size
MAC_BYTES = 16
SALT_BYTES = 4
_TTL_AT = BLOCK_BYTES + MAC_BYTES
_SALT_AT = _TTL_AT + _RELAY.size
HEADER_BYTES = _SALT_AT + SALT_BYTES
_TAG_BYTES = 16
_NONCE = bytes(12)
_TYPES = {int(kind): kind for kind in PacketType}


class NativeCodec:
    """Encodes and decodes the packets of one cluster (``core.packets.Codec``).

    ``salt``: 4 bytes that should be different in each run of this node; random by default. See docs/wire.md, "Keys".
    """

    def __init__(self, keyring: Keyring, salt: bytes | None = None) -> None:
        self._keyring: PacketKeys = keyring
        self._salt = os.urandom(SALT_BYTES) if salt is None else salt
        self._cluster = cluster_id(keyring.cluster)

    @property
    def keys(self) -> tuple[tuple[int, str], ...]:
        """Fingerprint and state of each key."""
        return self._keyring.states

    def use(self, keyring: PacketKeys) -> None:
        """Replace the keys. From now on, packets are checked and signed with the keys of ``keyring``."""
        self._keyring = keyring

    def parse(self, data: bytes) -> Header:
        """The unverified header of a packet. Raises ``Rejected``."""
        if len(data) < HEADER_BYTES:
            raise Rejected("truncated")
        (
            magic,
            version,
            kind,
            cluster,
            key_id,
            flags,
            port,
            incarnation,
            sequence,
            origin,
            wall_ns,
            documents_digest,
            record_digest,
        ) = _BLOCK.unpack_from(data)
        if magic != MAGIC:
            raise Rejected("malformed")
        if version != WIRE_VERSION:
            raise Rejected("foreign_version")
        if cluster != self._cluster:
            raise Rejected("foreign_cluster")
        packet_type = _TYPES.get(kind)
        if packet_type is None or not port or not incarnation or not sequence:
            raise Rejected("malformed")
        if packet_type in BODILESS:
            if len(data) != HEADER_BYTES:
                raise Rejected("malformed")
        elif len(data) <= HEADER_BYTES + _TAG_BYTES:
            raise Rejected("truncated")
        ttl, hops = _RELAY.unpack_from(data, _TTL_AT)
        acknowledges = packet_type is PacketType.EDGE_ACK
        return Header(
            packet_type,
            Address.unpack(origin, port),
            incarnation,
            sequence,
            wall_ns,
            documents_digest,
            record_digest,
            flags,
            key_id,
            ttl,
            hops,
            int.from_bytes(data[_SALT_AT:HEADER_BYTES], "big") if acknowledges else 0,
        )

    def verify(self, data: bytes, header: Header) -> None:
        """Check the MAC of a packet. Raises ``Rejected``."""
        keys = self._keys(header)
        if not hmac.compare_digest(mac(keys.mac, data), data[BLOCK_BYTES:_TTL_AT]):
            raise Rejected("bad_mac")

    def open(self, data: bytes, header: Header) -> Message | None:
        """Decrypt the body and return its message; None for a type without a body. Raises ``Rejected``."""
        if header.type in BODILESS:
            return None
        block = data[:BLOCK_BYTES]
        salt = data[_SALT_AT:HEADER_BYTES]
        try:
            key = _body_key(self._keys(header), block, salt)
            raw = crypto_aead_chacha20poly1305_ietf_decrypt(data[HEADER_BYTES:], block, _NONCE, key)
        except CryptoError:
            raise Rejected("bad_body") from None
        return bodies.unpack(header.type, raw)

    def encode(self, header: Header, message: Message | None) -> bytes:
        """Return a signed and encrypted packet.

        The packet is signed with the active key, and not with the key that ``header`` names.
        """
        keys = self._keyring.active
        block = _BLOCK.pack(
            MAGIC,
            WIRE_VERSION,
            header.type,
            self._cluster,
            keys.id,
            header.flags,
            header.origin.port,
            header.incarnation,
            header.sequence,
            header.origin.packed,
            header.wall_ns,
            header.documents_digest,
            header.record_digest,
        )
        sealed = header.lease_age_ms.to_bytes(SALT_BYTES, "big")
        if message is not None:
            key = _body_key(keys, block, self._salt)
            sealed = self._salt + crypto_aead_chacha20poly1305_ietf_encrypt(bodies.pack(message), block, _NONCE, key)
        relay = _RELAY.pack(header.ttl, header.hops)
        return block + mac(keys.mac, block + bytes(MAC_BYTES) + relay + sealed) + relay + sealed

    def relayed(self, data: bytes) -> bytes | None:
        """A copy of the packet for the next hop: ttl is one lower and hops is one higher. None if ttl is already 0."""
        ttl, hops = _RELAY.unpack_from(data, _TTL_AT)
        if ttl == 0:
            return None
        return data[:_TTL_AT] + _RELAY.pack(ttl - 1, min(hops + 1, 255)) + data[_SALT_AT:]

    def size_of(self, message: Message) -> int:
        """Length in bytes of a packet with ``message``."""
        return HEADER_BYTES + _TAG_BYTES + len(bodies.pack(message))

    def _keys(self, header: Header) -> PacketKey:
        keys = self._keyring.get(header.key_id)
        if keys is None:
            raise Rejected("unknown_key")
        return keys


def mac(key: bytes, packet: bytes) -> bytes:
    """The correct MAC of ``packet`` under ``key`` (16 bytes). The function ignores the MAC that ``packet`` contains."""
    tag: bytes = crypto_shorthash_siphashx24(packet[:BLOCK_BYTES] + packet[_SALT_AT:], key)
    return tag


def _body_key(keys: PacketKey, block: bytes, salt: bytes) -> bytes:
    """Return the encryption key for the body of one packet, 32 bytes.

    The key is derived from the signed block, which is different in each packet of a run. Packets of two runs may have
    equal signed blocks if the state directory was restored from a copy and the clock stands still. Because of the salt,
    packets of two runs have different keys even if their signed blocks are equal.
    """
    return hashlib.blake2s(block, digest_size=32, key=keys.body, salt=salt).digest()
