# SPDX-License-Identifier: MIT
"""Bad input for a live agent: what each class is, how it is made, and which counters have to tell of it."""

from __future__ import annotations

import contextlib
import random
import socket
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from tests.support.fleet import SECRET, Agent
from tests.support.keys import OTHER_KEY, with_id
from tests.transports import Wrapped
from xdp_gossip import AsyncNodeList, Node
from xdp_gossip.core.events import Transmit
from xdp_gossip.core.messages import Ack
from xdp_gossip.core.packets import Header, PacketType
from xdp_gossip.core.types import Address
from xdp_gossip.transport import Receive, Transport
from xdp_gossip.wire.keys import Keyring, derive
from xdp_gossip.wire.native import BLOCK_BYTES, HEADER_BYTES, MAC_BYTES, NativeCodec, mac

CLUSTER = "default"
#: Longest packet the agents are configured for (the default).
SIZE = 16384
_VERSION_AT = 2
#: Datagrams a second.
RATE = 5_000


@dataclass(frozen=True)
class BadInput:
    """One class of datagrams, and counters of which at least one has to grow by it."""

    name: str
    make: Callable[[], bytes]
    counters: tuple[str, ...]


class RecordingTransport(Wrapped):
    """Keeps a copy of every packet that comes and goes."""

    def __init__(self, inner: Transport, recording: list[bytes]) -> None:
        super().__init__(inner)
        self._recording = recording

    async def open(self, receive: Receive) -> None:
        def recorded(data: bytes, source: Address, screened: bool = False) -> bool | None:
            self._recording.append(data)
            return receive(data, source, screened)

        await super().open(recorded)

    def send(self, transmit: Transmit) -> None:
        self._recording.append(transmit.data)
        super().send(transmit)


class Recorder(AsyncNodeList):
    """A true member that keeps a copy of every packet it receives."""

    def __init__(self, node: Node, seed: Address) -> None:
        super().__init__(amount=4, cycle=0.5, timeout=2.5, secret_key=SECRET, listen_addr=node.addr)
        self.recording: list[bytes] = []
        self.new(node)
        self.set(Node(seed.ip, seed.port))

    def _make_transport(self, node: Node) -> Transport:
        return RecordingTransport(super()._make_transport(node), self.recording)


class Forger:
    """Makes bad datagrams for an agent: ``target`` is attacked, ``member`` is another member's address."""

    def __init__(self, target: Address, member: Address, recording: Sequence[bytes], rng: random.Random) -> None:
        self._target, self._member, self._recording, self._rng = target, member, recording, rng
        self._codec = NativeCodec(Keyring.single(CLUSTER, SECRET))
        self._thief = NativeCodec(Keyring.single(CLUSTER, with_id(CLUSTER, derive(CLUSTER, SECRET).id, SECRET)))
        self._foreign = NativeCodec(Keyring.single("elsewhere", SECRET))
        self._other_key = NativeCodec(Keyring.single(CLUSTER, OTHER_KEY))

    def classes(self) -> list[BadInput]:
        """All of them."""
        rng = self._rng
        return [
            BadInput("random", lambda: rng.randbytes(rng.randrange(1, 1500)), ("rx_malformed", "rx_truncated")),
            BadInput("truncated", self._truncated, ("rx_truncated",)),
            BadInput("prolonged", lambda: self._heartbeat(self._codec) + rng.randbytes(8), ("rx_malformed",)),
            BadInput("malformed body", self._bad_body, ("rx_bad_body",)),
            BadInput("oversized", lambda: rng.randbytes(rng.randrange(SIZE + 1, 30_000)), ("datagrams_oversized",)),
            BadInput("wrong key", lambda: self._heartbeat(self._thief), ("rx_bad_mac",)),
            BadInput("unknown key", lambda: self._heartbeat(self._other_key), ("rx_unknown_key",)),
            BadInput("foreign cluster", lambda: self._heartbeat(self._foreign), ("rx_foreign_cluster",)),
            BadInput("foreign version", self._foreign_version, ("rx_foreign_version",)),
            BadInput("altered", self._altered, ("rx_bad_mac",)),
            BadInput("body exchanged", self._exchanged, ("rx_bad_mac",)),
            BadInput("stale", self._stale, ("rx_stale_time",)),
            BadInput("replayed", lambda: rng.choice(self._recording), ("rx_duplicate",)),
        ]

    def _header(self, origin: Address, wall_ns: int | None = None) -> Header:
        """A header that only its maker's key or its time tell from one that ``origin`` might send next."""
        return Header(
            PacketType.HEARTBEAT,
            origin,
            incarnation=int(time.time()) + 1,
            sequence=self._rng.randrange(1, 2**40),
            wall_ns=time.time_ns() if wall_ns is None else wall_ns,
            documents_digest=self._rng.getrandbits(64),
            record_digest=self._rng.getrandbits(64),
            ttl=8,
        )

    def _heartbeat(self, codec: NativeCodec) -> bytes:
        return codec.encode(self._header(self._member), None)

    def _truncated(self) -> bytes:
        return self._heartbeat(self._codec)[: self._rng.randrange(1, HEADER_BYTES)]

    def _bad_body(self) -> bytes:
        """Authentic up to its body, as if the sender's key were right and its data were not."""
        header = replace(self._header(self._member), type=PacketType.PROBE)
        packet = bytearray(self._codec.encode(header, Ack(1)))
        packet[self._rng.randrange(HEADER_BYTES, len(packet))] ^= 1 << self._rng.randrange(8)
        keys = derive(CLUSTER, SECRET)
        packet[BLOCK_BYTES : BLOCK_BYTES + MAC_BYTES] = mac(keys.mac, bytes(packet))
        return bytes(packet)

    def _foreign_version(self) -> bytes:
        packet = bytearray(self._heartbeat(self._codec))
        packet[_VERSION_AT] = 9
        return bytes(packet)

    def _altered(self) -> bytes:
        """A member's heartbeat with another digest in it."""
        packet = bytearray(self._heartbeat(self._codec))
        packet[self._rng.randrange(48, 64)] ^= 1 << self._rng.randrange(8)
        return bytes(packet)

    def _exchanged(self) -> bytes:
        """A member's packet with the body of another one."""
        header = replace(self._header(self._member), type=PacketType.PROBE)
        first, second = (self._codec.encode(header, Ack(nonce)) for nonce in (1, 2))
        return first[:HEADER_BYTES] + second[HEADER_BYTES:]

    def _stale(self) -> bytes:
        """An authentic heartbeat of a node that is long gone, as a recording of another day holds it."""
        origin = Address(self._target.ip.rpartition(".")[0] + f".{self._rng.randrange(200, 250)}", self._target.port)
        return self._codec.encode(self._header(origin, time.time_ns() - 3600 * 10**9), None)


def address(agent: Agent) -> Address:
    """Where the agent gossips."""
    return Address(agent.ip, agent.port)


def send_at_rate(packets: Sequence[bytes], target: Address) -> None:
    """Throw datagrams at an agent, from a few ports in turn."""
    with contextlib.ExitStack() as stack:
        socks = [stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) for _ in range(4)]
        began = time.monotonic()
        for number, packet in enumerate(packets):
            socks[number % 4].sendto(packet, (target.ip, target.port))
            if number % 50 == 0:
                time.sleep(max(0.0, began + number / RATE - time.monotonic()))


def send_frames(packets: Sequence[bytes], target: Address) -> None:
    """Send packets to an agent over TCP, as many of them as it takes: it may close the connection."""
    data = b"".join(len(packet).to_bytes(4, "big") + packet for packet in packets)
    with contextlib.suppress(ConnectionError), socket.create_connection((target.ip, target.port), timeout=30) as sock:
        sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)
        while sock.recv(1 << 16):
            pass


def grown(before: dict[str, int], after: dict[str, int]) -> Counter[str]:
    """How much each counter grew."""
    return Counter({name: value - before.get(name, 0) for name, value in after.items()})


def rejected(growth: Counter[str]) -> Counter[str]:
    """The counters of what was not accepted."""
    taken = {
        "rx_heartbeat",
        "rx_swap_request",
        "rx_swap_response",
        "rx_metadata",
        "rx_leave",
        "rx_record",
        "rx_probe",
    }
    lost = {"datagrams_oversized", "datagrams_malformed", "datagrams_dropped_kernel"}
    return Counter(
        {
            name: count
            for name, count in growth.items()
            if (name.startswith("rx_") and name not in taken) or name in lost
        }
    )
