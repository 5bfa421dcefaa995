# SPDX-License-Identifier: MIT
"""A tiny network in virtual time for PekoNode engines, with nodes that behave like PekoNode's own (storms included)."""

from __future__ import annotations

import heapq
import itertools
import random
from dataclasses import replace
from typing import Any, Callable

from xdp_gossip.core.events import Event, Transmit
from xdp_gossip.core.settings import Settings
from xdp_gossip.core.types import Address, Node, Now
from xdp_gossip.pekonode import PekoNodeEngine
from xdp_gossip.pekonode import codec as codec
from xdp_gossip.pekonode.packet import Packet, PekoNodeId, Swap

STRANGER = Address("198.18.9.9", 9)
WALL = 1_700_000_000_000_000_000


class Net:
    """Engines and Go-like nodes by address; delivers packets in 0.5 to 2 ms, or loses them."""

    def __init__(self, seed: int = 1, loss: float = 0.0) -> None:
        self.rng = random.Random(seed)
        self.mono = 1000.0
        self.loss = loss
        self.engines: dict[Address, PekoNodeEngine] = {}
        self.goes: dict[Address, GoLike] = {}
        self.events: dict[Address, list[Event]] = {}
        self.sent: list[tuple[float, Address, Transmit]] = []
        self.cut: Callable[[Address, Address], bool] = lambda source, to: False
        self._wire: list[tuple[float, int, Address, Address, bytes | None]] = []
        self._woken: dict[Address, float] = {}
        self._order = itertools.count()

    @property
    def now(self) -> Now:
        return Now(self.mono, WALL + round((self.mono - 1000) * 1e9))

    def add(self, index: int, secret_key: str = "k", name: str = "", data: str = "", **options: Any) -> PekoNodeEngine:
        node = Node("198.18.0.1", 8000 + index, name or f"n{index}", data)
        engine = PekoNodeEngine(node, Settings(**options), random.Random(f"{self.rng.random()}"), secret_key)
        self.engines[node.address] = engine
        self.events.setdefault(node.address, [])
        return engine

    def cluster(self, count: int, **options: Any) -> list[PekoNodeEngine]:
        """``count`` engines that know the first one, started."""
        engines = [self.add(index, **options) for index in range(count)]
        for engine in engines:
            if engine is not engines[0]:
                engine.seed(engines[0].node, self.now)
            engine.start(self.now)
        return engines

    def add_go(self, index: int, secret_key: str = "k") -> GoLike:
        node = GoLike(PekoNodeId("198.18.0.1", 8000 + index, f"go{index}"), codec.secret_digest(secret_key), self.rng)
        self.goes[node.id.address] = node
        return node

    def inject(self, to: Address, data: bytes) -> None:
        """Give ``data`` to an engine, from an address that is nobody's."""
        self.engines[to].receive(data, STRANGER, self.now)
        self._collect()

    def run(self, seconds: float) -> None:
        """Let virtual time pass."""
        end = self.mono + seconds
        self._collect()
        while self._wire and self._wire[0][0] <= end:
            due, _, source, to, data = heapq.heappop(self._wire)
            self.mono = max(self.mono, due)
            if to in self.engines:
                self._drive(to, source, data)
            elif to in self.goes and data is None:
                self._post(to, self.goes[to].beat(self.mono))
                self._wake(to, self.goes[to].next_beat)
            elif to in self.goes:
                self._post(to, self.goes[to].receive(data, self.mono))
        self.mono = end

    def _drive(self, to: Address, source: Address, data: bytes | None) -> None:
        engine = self.engines[to]
        if data is not None:
            engine.receive(data, source, self.now)
        elif (engine.next_timer() or 0) <= self.mono:
            self._woken.pop(to, None)
            engine.handle_timer(self.now)
        self._collect_one(to)

    def _collect(self) -> None:
        for address in self.engines:
            self._collect_one(address)
        for address, node in self.goes.items():
            self._wake(address, node.next_beat)

    def _collect_one(self, address: Address) -> None:
        engine = self.engines[address]
        self.events[address] += engine.take_events()
        self._post(address, engine.take_transmits())
        due = engine.next_timer()
        if due is not None:
            self._wake(address, due)

    def _wake(self, address: Address, due: float) -> None:
        """Come back at ``due``; a wake-up that turns out early does nothing."""
        if self._woken.get(address) != due:
            self._woken[address] = due
            heapq.heappush(self._wire, (due, next(self._order), address, address, None))

    def _post(self, source: Address, transmits: list[Transmit]) -> None:
        for transmit in transmits:
            self.sent.append((self.mono, source, transmit))
            if self.rng.random() >= self.loss and not self.cut(source, transmit.to):
                at = self.mono + self.rng.uniform(0.0005, 0.002)
                heapq.heappush(self._wire, (at, next(self._order), source, transmit.to, transmit.data))


class GoLike:
    """What a PekoNode node does, faults and all: relays every copy, keys nodes by all four fields."""

    def __init__(self, node: PekoNodeId, secret: str, rng: random.Random) -> None:
        self.id = node
        self.secret = secret
        self.rng = rng
        self.amount, self.cycle, self.timeout = 3, 6, 20
        self.nodes: dict[PekoNodeId, float] = {}
        self.data: bytes | None = b""
        self.stamp = 0
        self.next_beat = 1000.0

    def get(self, mono: float) -> list[PekoNodeId]:
        self.nodes = {node: seen for node, seen in self.nodes.items() if int(seen) + self.timeout >= int(mono)}
        return list(self.nodes)

    def beat(self, mono: float) -> list[Transmit]:
        self.next_beat = mono + self.cycle
        self.nodes[self.id] = mono
        out = self.broadcast(Packet(self.id, frozenset({self.id.label}), secret=self.secret), mono)
        others = [node for node in self.get(mono) if node.label != self.id.label]
        if others:
            out.append(self.swap(Swap.REQUEST, self.rng.choice(others)))
        return out

    def publish(self, data: bytes, stamp: int, mono: float) -> list[Transmit]:
        self.data, self.stamp = data, stamp
        packet = Packet(self.id, frozenset({self.id.label}), data, stamp, is_update=True, secret=self.secret)
        return self.broadcast(packet, mono)

    def receive(self, raw: bytes, mono: float) -> list[Transmit]:
        packet = codec.decode(raw)
        if packet.secret != self.secret:
            return []
        newer = packet.stamp > self.stamp
        if packet.swap:
            if newer:
                self.data, self.stamp = packet.data, packet.stamp
            elif packet.stamp < self.stamp and packet.swap is Swap.REQUEST:
                return [self.swap(Swap.RESPONSE, packet.node)]
            return []
        self.nodes[packet.node] = mono
        if packet.is_update and newer:
            self.data, self.stamp = packet.data, packet.stamp
        return self.broadcast(packet, mono)

    def broadcast(self, packet: Packet, mono: float) -> list[Transmit]:
        infected = set(packet.infected)
        targets = []
        for node in self.rng.sample(self.get(mono), len(self.nodes)):
            if len(targets) < self.amount and node.label not in infected:
                infected.add(node.label)
                targets.append(node.address)
        raw = codec.encode(replace(packet, infected=frozenset(infected)))
        return [Transmit(target, raw) for target in targets]

    def swap(self, role: Swap, to: PekoNodeId) -> Transmit:
        packet = Packet(self.id, data=self.data, stamp=self.stamp, swap=role, secret=self.secret)
        return Transmit(to.address, codec.encode(packet))
