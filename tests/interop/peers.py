# SPDX-License-Identifier: MIT
"""A Go node and an agent side by side: both can be told and asked the same things."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Awaitable, Callable
from typing import Any

from tests.support.ports import free_port
from xdp_gossip.core.events import Event, Transmit
from xdp_gossip.core.settings import Settings
from xdp_gossip.core.types import PRESENT, Address, Node, Now
from xdp_gossip.pekonode import PekoNodeEngine
from xdp_gossip.pekonode import codec as codec
from xdp_gossip.pekonode.transport import OneShotTransport
from xdp_gossip.transport.udp import UdpTransport

HOST = "127.0.0.1"
#: (name, private data) of each node, sorted.
Listing = list[tuple[str, str]]


class GoNode:
    """A real PekoNode in a process of its own (see pekod/main.go)."""

    def __init__(self, binary: str, protocol: str, name: str, data: str = "", key: str = "k", **flags: Any) -> None:
        self.node = Node(HOST, free_port(), name, data)
        self._command = [binary, f"-addr={HOST}", f"-port={self.node.port}", f"-name={name}", f"-data={data}"]
        self._command += [f"-protocol={protocol}", f"-key={key}", *(f"-{k}={v}" for k, v in flags.items())]
        self._process: asyncio.subprocess.Process | None = None

    async def start(self, *seeds: Node) -> None:
        seeds_flag = ",".join(str(seed.address) for seed in seeds)
        pipe = asyncio.subprocess.PIPE
        self._process = await asyncio.create_subprocess_exec(
            *self._command, f"-seeds={seeds_flag}", stdin=pipe, stdout=pipe, stderr=asyncio.subprocess.DEVNULL
        )
        await self.ask("read")

    async def ask(self, line: str) -> str:
        assert self._process is not None and self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(line.encode() + b"\n")
        answer = await asyncio.wait_for(self._process.stdout.readline(), 10)
        assert answer and not answer.startswith(b"error"), f"pekod {self.node.name}: {line[:60]!r} -> {answer!r}"
        return answer.decode().strip()

    async def listing(self) -> Listing:
        nodes = json.loads(await self.ask("get"))
        return sorted((node["Name"], node["PrivateData"]) for node in nodes)

    async def publish(self, value: bytes) -> None:
        assert await self.ask(f"publish {value.hex()}") == "ok"

    async def read(self) -> bytes:
        return bytes.fromhex((await self.ask("read")).removeprefix("hex:"))

    async def stop(self) -> None:
        await self.ask("stop")

    async def resume(self) -> None:
        await self.ask("start")

    async def close(self) -> None:
        if self._process is not None:
            self._process.kill()
            await self._process.wait()


class Agent:
    """The PekoNode engine on a real transport."""

    def __init__(self, protocol: str, name: str, data: str = "", key: str = "k", **settings: Any) -> None:
        self.node = Node(HOST, free_port(), name, data)
        options = Settings(**{"cycle": 1.0, **settings})
        self.engine = PekoNodeEngine(self.node, options, random.Random(), key)
        self.events: list[Event] = []
        self.sent: list[Transmit] = []
        address = self.node.address
        self.transport: UdpTransport | OneShotTransport = (
            UdpTransport(address, frames=False) if protocol == "UDP" else OneShotTransport(address)
        )
        self._timer: asyncio.TimerHandle | None = None

    @property
    def now(self) -> Now:
        return Now(time.monotonic(), time.time_ns())

    async def start(self, *seeds: Node) -> None:
        await self.transport.open(self._receive)
        for seed in seeds:
            self.engine.seed(seed, self.now)
        self.engine.start(self.now)
        self.pump()

    def pump(self) -> None:
        """Let out what the engine has, and come back when it wants."""
        self.events += self.engine.take_events()
        for transmit in self.engine.take_transmits():
            self.sent.append(transmit)
            self.transport.send(transmit)
        due = self.engine.next_timer()
        if self._timer is not None:
            self._timer.cancel()
        if due is not None:
            self._timer = asyncio.get_running_loop().call_later(max(0.0, due - time.monotonic()), self._tick)

    def _tick(self) -> None:
        self.engine.handle_timer(self.now)
        self.pump()

    def _receive(self, data: bytes, source: Address) -> None:
        self.engine.receive(data, source, self.now)
        self.pump()

    async def listing(self) -> Listing:
        present = [member.node for member in self.engine.members(self.now) if member.state in PRESENT]
        return sorted((node.name, node.private_data) for node in present)

    async def publish(self, value: bytes) -> None:
        self.engine.documents.publish("default", value, self.now)
        self.pump()

    async def read(self) -> bytes:
        document = self.engine.documents.get("default")
        return document.value if document else b""

    async def stop(self) -> None:
        self.engine.pause(self.now)
        self.pump()

    async def resume(self) -> None:
        self.engine.resume(self.now)
        self.pump()

    async def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        await self.transport.close()


async def until(what: str, condition: Callable[[], Awaitable[bool]], seconds: float) -> float:
    """Wait for ``condition``; returns the seconds it took, fails when it does not come true in time."""
    start = time.monotonic()
    while not await condition():
        assert time.monotonic() - start < seconds, f"not within {seconds} s: {what}"
        await asyncio.sleep(0.005)
    return time.monotonic() - start
