# SPDX-License-Identifier: MIT
"""Generates frames with authentic packets of a simulated cluster, whose members exist only in these packets."""

from __future__ import annotations

import ipaddress
import struct
import time
from collections.abc import Iterator

from xdp_gossip.core.messages import Documents, RecordRumor
from xdp_gossip.core.packets import Header, PacketType
from xdp_gossip.core.types import Address, Document, Record, Version
from xdp_gossip.dataplane import headers
from xdp_gossip.wire.keys import Keyring
from xdp_gossip.wire.native import BLOCK_BYTES, HEADER_BYTES, NativeCodec

CLUSTER = "bench"
SECRET = "xgk1_kOGm3x_6VEKfHIHYUW1uecf9by3yQV86t5SzTcgOQHQ"
PORT = 8000
TTL = 8
_HALVES = struct.Struct(f"!{HEADER_BYTES // 2}H")
_FIRST_ORIGIN = int(ipaddress.IPv4Address("198.18.70.0"))


def origin(number: int) -> Address:
    """The address of the simulated origin ``number`` (0 to 16383).

    The origins 0 to 511 share one port, the next 512 origins share the next port, and so on.
    """
    return Address(str(ipaddress.IPv4Address(_FIRST_ORIGIN + number % 512)), PORT + number // 512)


def codec(secret: str = SECRET) -> NativeCodec:
    """A codec that signs packets of the benchmarks' cluster."""
    return NativeCodec(Keyring.single(CLUSTER, secret))


def heartbeats(origins: int, count: int, *, first: int = 1, ttl: int = TTL, records: bool = False) -> Iterator[bytes]:
    """Generate ``count`` heartbeats with the current time, from each origin in turn. The sequences start at ``first``.

    ``records``: whether the heartbeats have the digest of a node record (:func:`record_of`).
    """
    sign = codec().encode
    digests = [record_of(number).digest if records else 0 for number in range(origins)]
    wall = time.time_ns()
    addresses = [origin(number) for number in range(origins)]
    for number in range(count):
        sequence = first + number // origins
        yield sign(
            Header(
                PacketType.HEARTBEAT,
                addresses[number % origins],
                incarnation=1,
                sequence=sequence,
                wall_ns=wall,
                documents_digest=0,
                record_digest=digests[number % origins],
                ttl=ttl,
            ),
            None,
        )


def record_of(number: int) -> Record:
    """The node record of the simulated origin ``number``."""
    return Record(f"host{number}", f"role=web rack={number % 40}", "1.0.0", "XDP")


def record_rumors(origins: int, sequence: int = 1) -> Iterator[bytes]:
    """Generate one rumor for each origin, with the node record of that origin.

    ``sequence``: the sequence number that every rumor gets.
    """
    sign, wall = codec().encode, time.time_ns()
    for number in range(origins):
        record = record_of(number)
        header = Header(
            PacketType.RECORD, origin(number), 1, sequence, wall, documents_digest=0, record_digest=record.digest, ttl=1
        )
        yield sign(header, RecordRumor(record))


def documents(origins: int, count: int) -> Iterator[bytes]:
    """Generate ``count`` rumors, from each origin in turn.

    Each rumor contains one document and has the maximum packet length.
    """
    sign, wall = codec(), time.time_ns()
    addresses = [origin(number) for number in range(origins)]
    most = headers.constants()["XG_DATAGRAM_BYTES"]

    def rumor(number: int, size: int) -> Documents:
        version = Version(wall // 10**6 << 16 | number // origins, addresses[number % origins])
        return Documents((Document("bench/document", version, bytes(size)),))

    # Length of a packet without the document's value. The value of 1,000 bytes is a placeholder: its length field is as
    # long as the length field of the real value.
    around = sign.size_of(rumor(0, 1000)) - 1000
    for number in range(count):
        header = Header(PacketType.METADATA, addresses[number % origins], 1, 1 + number // origins, wall, 0, 0, ttl=TTL)
        packet = sign.encode(header, rumor(number, most - around))
        assert len(packet) == most, len(packet)
        yield packet


def forged(packet: bytes, number: int) -> bytes:
    """A copy of ``packet`` with a wrong MAC."""
    mac = bytearray(packet[BLOCK_BYTES : BLOCK_BYTES + 16])
    mac[number % 16] ^= 1 + number % 255
    return packet[:BLOCK_BYTES] + bytes(mac) + packet[BLOCK_BYTES + 16 :]


class Framer:
    """Builds Ethernet frames that carry packets over IPv4 and UDP."""

    def __init__(self, source: Address, destination: Address, source_mac: bytes, destination_mac: bytes) -> None:
        self._ports = struct.pack("!HH", source.port, destination.port)
        self._ethernet = destination_mac + source_mac + b"\x08\x00"
        self._addresses = ipaddress.IPv4Address(source.ip).packed + ipaddress.IPv4Address(destination.ip).packed

    def frame(self, packet: bytes) -> bytes:
        """The complete frame for ``packet``, with correct checksums."""
        length = 8 + len(packet)
        ip = struct.pack("!BBHHHBBH", 0x45, 0, 20 + length, 0, 0x4000, 64, 17, 0) + self._addresses
        ip = ip[:10] + struct.pack("!H", _checksum(ip)) + ip[12:]
        pseudo = self._addresses + struct.pack("!HH", 17, length) + self._ports + struct.pack("!HH", length, 0)
        check = _checksum(pseudo, packet) or 0xFFFF
        return self._ethernet + ip + self._ports + struct.pack("!HH", length, check) + packet


def _checksum(head: bytes, packet: bytes = b"") -> int:
    total = sum(struct.unpack(f"!{len(head) // 2}H", head))
    if len(packet) == HEADER_BYTES:
        total += sum(_HALVES.unpack(packet))
    elif packet:
        total += sum(struct.unpack(f"!{(len(packet) + 1) // 2}H", packet + bytes(len(packet) % 2)))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
