# SPDX-License-Identifier: MIT
"""The simulated network: what happens to a packet between two nodes is drawn from the world's one random source."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass

#: As transport/udp.py: longer packets go by TCP.
DATAGRAM = 1232


@dataclass
class Link:
    """What datagrams suffer; probabilities from 0 to 1, times in seconds."""

    loss: float = 0.0
    duplicate: float = 0.0
    delay: float = 0.001
    #: Mean of an exponential extra delay: what makes datagrams overtake each other.
    jitter: float = 0.002
    #: Chance of a delay of up to a second, long enough to meet what happened in between.
    straggle: float = 0.0


class Network:
    """Links and cuts between nodes, which are numbered."""

    def __init__(self, rng: random.Random, link: Link) -> None:
        self.link = link
        self._rng = rng
        self._cut: set[tuple[int, int]] = set()
        #: Bytes of UDP payload of the longest datagram from one node to another; longer ones vanish without a word.
        self.mtu: dict[tuple[int, int], int] = {}
        self._streams: dict[tuple[int, int], float] = {}
        #: Number of a node -> share of the datagrams to it, and from it, that are lost.
        self.loss_in: dict[int, float] = {}
        self.loss_out: dict[int, float] = {}

    def cut(self, senders: Iterable[int], receivers: Iterable[int], both_ways: bool = True) -> None:
        """Nothing passes from ``senders`` to ``receivers`` any more, nor back when ``both_ways``."""
        receivers = list(receivers)
        for a in senders:
            for b in receivers:
                if a != b:
                    self._cut.add((a, b))
                    if both_ways:
                        self._cut.add((b, a))

    def heal(self) -> None:
        """Everything passes again."""
        self._cut.clear()
        self.loss_in.clear()
        self.loss_out.clear()

    def passes(self, sender: int, receiver: int, reliable: bool) -> bool:
        """Whether the link stands; TCP needs both directions."""
        if (sender, receiver) in self._cut:
            return False
        if self.loss_out.get(sender, 0.0) >= 1.0 or self.loss_in.get(receiver, 0.0) >= 1.0:
            return False
        return not (reliable and not self.passes(receiver, sender, False))

    def arrivals(self, sender: int, receiver: int, reliable: bool, now: float) -> list[float]:
        """When copies of a packet sent ``now`` arrive; none when it is lost."""
        if not self.passes(sender, receiver, reliable):
            return []
        rng, link = self._rng, self.link
        if reliable:
            # In order, and each loss costs a retransmission instead of the packet.
            retries = 0
            while rng.random() < link.loss and retries < 6:
                retries += 1
            when = now + 2 * link.delay + 0.2 * retries
            when = max(when, self._streams.get((sender, receiver), 0.0) + 1e-6)
            self._streams[sender, receiver] = when
            return [when]
        kept = (1.0 - self.loss_out.get(sender, 0.0)) * (1.0 - self.loss_in.get(receiver, 0.0))
        if kept < 1.0 and rng.random() >= kept:
            return []
        copies = 1 + (rng.random() < link.duplicate)
        times = []
        for _ in range(copies):
            if rng.random() >= link.loss:
                extra = rng.uniform(0.1, 1.0) if rng.random() < link.straggle else rng.expovariate(1 / link.jitter)
                times.append(now + link.delay + extra)
        return times
