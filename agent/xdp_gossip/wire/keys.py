# SPDX-License-Identifier: MIT
"""Keys of a cluster: up to 256 key slots.

The keys of a slot are derived from the secret of the slot. The keys are never sent. To rotate keys without
interruption, first give every node the new secret in a slot with the state ``staged``. Nodes accept packets signed with
a staged slot. Second, set the new slot to ``active`` on every node, so that nodes sign packets with the new slot. Set
the old slot to ``retiring``, so that nodes still accept packets signed with the old slot. Finally, remove the old slot
from every node.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field

from ..core.settings import KEY_STATES


@dataclass(frozen=True)
class SlotKeys:
    """The keys of one slot, ``mac`` (16 bytes, for the MAC) and ``body`` (32 bytes, to derive AEAD keys of packets)."""

    mac: bytes = field(repr=False)
    body: bytes = field(repr=False)


def cluster_id(name: str) -> int:
    """The 32-bit number that stands for the cluster ``name`` in packets. The number of a cluster is no secret."""
    return int.from_bytes(hashlib.blake2s(name.encode(), digest_size=4, person=b"xg-clust").digest(), "big")


class Keyring:
    """The key slots of one cluster."""

    def __init__(self, cluster: str, slots: Mapping[int, tuple[str, str]]) -> None:
        """Derive the keys of ``slots``: slot number (0-255) -> (secret, state).

        Raises ``ValueError`` if a slot number or a state is wrong, or if the number of active slots is not one.
        """
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
        """A keyring for a cluster without key slots. Its only secret is in slot 0."""
        return cls(cluster, {0: (secret, "active")})

    def get(self, number: int) -> SlotKeys | None:
        """The keys of the slot ``number``; None if there is no such slot."""
        return self._keys.get(number)


def _derive(cluster: str, secret: str) -> SlotKeys:
    """Derive the keys of a slot by HKDF (RFC 5869). The cluster name is the salt, so two clusters never share a key."""
    salt = b"xdp-gossip/1 " + cluster.encode()
    return SlotKeys(
        mac=hkdf(secret.encode(), salt, b"packet mac", 16),
        body=hkdf(secret.encode(), salt, b"body", 32),
    )


def hkdf(secret: bytes, salt: bytes, info: bytes, length: int) -> bytes:
    """HKDF with SHA-256 (RFC 5869), for one block of output: ``length`` is at most 32 bytes.

    The HKDF of the library ``cryptography`` would load its OpenSSL backend, which takes 6.5 MB of every agent's memory.
    """
    assert 0 < length <= 32
    extracted = hmac.digest(salt, secret, "sha256")
    return hmac.digest(extracted, info + b"\x01", "sha256")[:length]
