# SPDX-License-Identifier: MIT
"""Keys of a cluster: 256 slots, each derived from a shared secret for each purpose. No key is ever on the wire.

Rotation without interruption: put the new secret into another slot as ``staged`` on every node (accepted), then make it
``active`` everywhere (signs; the former becomes ``retiring``, still accepted), then remove the former.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from ..core.settings import KEY_STATES


@dataclass(frozen=True)
class SlotKeys:
    """The keys of one slot: ``mac``, 16 bytes, for packets; ``body``, 32, to derive each packet's AEAD key."""

    mac: bytes = field(repr=False)
    body: bytes = field(repr=False)


def cluster_id(name: str) -> int:
    """32 bits that tell clusters apart on the wire (not a secret)."""
    return int.from_bytes(hashlib.blake2s(name.encode(), digest_size=4, person=b"xg-clust").digest(), "big")


class Keyring:
    """Key slots of one cluster."""

    def __init__(self, cluster: str, slots: Mapping[int, tuple[str, str]]) -> None:
        """``slots``: slot number (0-255) to (secret, state). Raises ``ValueError`` unless exactly one is active."""
        for number, (_, state) in slots.items():
            if not 0 <= number <= 255:
                raise ValueError(f"key slot: expected 0 to 255, got {number}")
            if state not in KEY_STATES:
                raise ValueError(f"key slot {number}: expected one of {', '.join(KEY_STATES)}, got {state!r}")
        active = [number for number, (_, state) in slots.items() if state == "active"]
        if len(active) != 1:
            raise ValueError(f"key slots: expected exactly one active, got {len(active)}")
        self.cluster = cluster
        self.active = active[0]
        self.states = {number: state for number, (_, state) in sorted(slots.items())}
        self._keys = {number: _derive(cluster, secret) for number, (secret, _) in slots.items()}

    @classmethod
    def single(cls, cluster: str, secret: str) -> Keyring:
        """One secret in slot 0, as PekoNode's ``SecretKey``."""
        return cls(cluster, {0: (secret, "active")})

    def get(self, number: int) -> SlotKeys | None:
        """The keys of a slot; None if it is empty."""
        return self._keys.get(number)


def _derive(cluster: str, secret: str) -> SlotKeys:
    """HKDF (RFC 5869) with the cluster as salt: one secret used for two clusters gives unrelated keys."""

    def expand(purpose: bytes, length: int) -> bytes:
        kdf = HKDF(algorithm=SHA256(), length=length, salt=b"xdp-gossip/1 " + cluster.encode(), info=purpose)
        return kdf.derive(secret.encode())

    return SlotKeys(mac=expand(b"packet mac", 16), body=expand(b"body", 32))
