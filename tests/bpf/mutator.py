# SPDX-License-Identifier: MIT
"""Packets that are authentic, replayed, mutated or nonsense, from a seed: what a hostile network may bring."""

from __future__ import annotations

import random
import time

from tests.bpf import scene
from tests.bpf.harness import CODEC
from xdp_gossip.core.packets import Header, PacketType
from xdp_gossip.core.types import Address

SECOND = 1_000_000_000
#: Seconds that an origin's time may be off. No two of them differ by about 5 or 60, the limits of the tests'
#: configuration: a slow machine must not decide the verdict.
OFFSETS = (0, 0, 0, 0, 0, 2, -2, 9, -9, 40, -40, 90, -90, 300)
#: How many packets are kept to be replayed.
KEPT = 60
ORIGINS = 12


class Mutator:
    """An endless stream of packets to a node of ``family``."""

    def __init__(self, rng: random.Random, family: int) -> None:
        self._rng = rng
        self._family = family
        self._origins = [scene.address(rng.choice((4, 6)), 100 + number) for number in range(ORIGINS)]
        self._next: dict[Address, int] = dict.fromkeys(self._origins, 1)
        self._incarnation: dict[Address, int] = dict.fromkeys(self._origins, 3)
        self._kept: list[bytes] = []
        self._bodies = {kind: [scene.body(kind, size) for size in (0, 1, 7, 300, 900)] for kind in PacketType}

    def next(self) -> bytes:
        """One packet."""
        rng = self._rng
        draw = rng.random()
        if draw < 0.02:
            return rng.randbytes(rng.choice((0, 1, 63, 87, 88, 89, 104, 105, 300, 1232, 1233, 1400)))
        data = rng.choice(self._kept) if self._kept and draw < 0.2 else self._authentic()
        if draw > 0.5:
            return data
        for _ in range(rng.choice((1, 1, 1, 2, 5))):
            data = self._mutated(data)
        return data

    def _authentic(self) -> bytes:
        rng = self._rng
        local = scene.local(self._family)
        origin = local if rng.random() < 0.03 else rng.choice(self._origins)
        kind = rng.choices(list(PacketType), (60, 3, 3, 10, 2, 8, 6, 8, 8, 5))[0]
        header = Header(
            type=kind,
            origin=origin,
            incarnation=rng.randint(3, 7) if origin == local else self._run(origin),
            sequence=self._round() if kind is PacketType.EDGE_ACK else self._sequence(origin),
            wall_ns=time.time_ns() + rng.choice(OFFSETS) * SECOND,
            documents_digest=rng.choice((0x5D, 0x5D, 0x5D, 1, 2)),
            record_digest=rng.choice((0xAB, 0xAB, 0xAB, 0xAB, 0xCD)),
            flags=rng.choices((0, 1, 2, 255), (90, 5, 3, 2))[0],
            ttl=rng.choice((0, 1, 4, 255)),
            hops=rng.choice((0, 3, 254, 255)),
            lease_age_ms=rng.choice((0, 1, 5000, (1 << 32) - 1)) if kind is PacketType.EDGE_ACK else 0,
        )
        data = CODEC.encode(header, rng.choice(self._bodies[kind]))
        self._kept = [*self._kept[-KEPT:], data]
        return data

    def _run(self, origin: Address) -> int:
        """The origin's incarnation: it grows now and then; sometimes an old one turns up."""
        draw = self._rng.random()
        if draw < 0.01:
            self._incarnation[origin] += 1
        return max(1, self._incarnation[origin] - (1 if draw > 0.97 else 0))

    def _sequence(self, origin: Address) -> int:
        """Mostly the next one; some come late, some jump, now and then to the last there is."""
        rng = self._rng
        number = self._next.get(origin, 1)
        draw = rng.random()
        if draw < 0.75:
            number += 1
        elif draw < 0.95:
            return max(1, number - rng.randint(0, 70))
        elif draw < 0.999:
            number += rng.choice((2, 10, 62, 63, 64, 65, 200, 1 << 33))
        else:
            return (1 << 64) - rng.randint(1, 3)
        self._next[origin] = number
        return number

    def _round(self) -> int:
        """A round of the local node: most are among its last 64, which count."""
        return scene.ASKED + self._rng.choice((-70, -65, *range(-64, 3), 1 << 33))

    def _mutated(self, data: bytes) -> bytes:
        rng = self._rng
        if not data:
            return rng.randbytes(3)
        draw, at = rng.random(), rng.randrange(len(data))
        if draw < 0.5:
            # Headers decide more than bodies.
            at = rng.randrange(min(len(data), 88))
            return data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :]
        if draw < 0.7:
            return data[:at] + bytes([rng.choice((0, 1, 0x7F, 0x80, 0xFF))]) + data[at + 1 :]
        if draw < 0.8:
            return data[:at]
        if draw < 0.9:
            return data + rng.randbytes(rng.choice((1, 2, 16, 17, 500)))
        size = rng.choice((2, 4, 8))
        return data[:at] + rng.choice((bytes(size), b"\xff" * size)) + data[at + size :]
