# SPDX-License-Identifier: MIT
"""Ethernet frames around packets, and back: what the programs are given, and what they make of it."""

from __future__ import annotations

import ipaddress
import socket
import struct
from dataclasses import dataclass

from xdp_gossip.core.types import Address

UDP = 17
ETH_IPV4, ETH_IPV6, ETH_VLAN = 0x0800, 0x86DD, 0x8100
HOST_MAC, PEER_MAC = bytes.fromhex("02000000000a"), bytes.fromhex("02000000000b")
#: Headers before the UDP payload.
HEADERS = {4: 14 + 20 + 8, 6: 14 + 40 + 8}


def family(address: Address) -> int:
    """4 or 6."""
    return 6 if ":" in address.ip else 4


def packed(address: Address) -> bytes:
    """4 or 16 bytes."""
    return ipaddress.ip_address(address.ip).packed


def folded(data: bytes) -> int:
    """The sum of RFC 1071 over ``data``, not complemented."""
    words = struct.unpack(f"!{(len(data) + 1) // 2}H", data + bytes(len(data) % 2))
    total = sum(words)
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def pseudo_header(source: Address, target: Address, length: int) -> bytes:
    """What UDP's checksum covers beside the datagram (RFC 768; RFC 8200, section 8.1)."""
    addresses = packed(source) + packed(target)
    return addresses + (struct.pack("!BBH", 0, UDP, length) if family(source) == 4 else struct.pack("!II", length, UDP))


def udp(payload: bytes, source: Address, target: Address, checksum: str = "full", length: int | None = None) -> bytes:
    """A datagram. ``checksum``: full, partial (the pseudo header's sum, as offloading stacks leave it) or none."""
    size = 8 + len(payload) if length is None else length
    head = struct.pack("!HHH", source.port, target.port, size)
    pseudo = pseudo_header(source, target, size)
    if checksum == "none":
        check = 0
    elif checksum == "partial":
        check = folded(pseudo)
    else:
        check = ~folded(pseudo + head + bytes(2) + payload) & 0xFFFF or 0xFFFF
    return head + struct.pack("!H", check) + payload


def ipv4(
    source: Address, target: Address, inner: bytes, options: bytes = b"", fragment: int = 0, hops: int = 9
) -> bytes:
    """An IPv4 packet; ``fragment`` is the 16-bit field of flags and offset."""
    length, first = 20 + len(options) + len(inner), 0x45 + len(options) // 4
    parts = (first, 0, length, 7, fragment, hops, UDP, 0, packed(source), packed(target))
    head = struct.pack("!BBHHHBBH4s4s", *parts) + options
    return head[:10] + struct.pack("!H", ~folded(head) & 0xFFFF) + head[12:] + inner


def ipv6(source: Address, target: Address, inner: bytes, following: int = UDP, hops: int = 9) -> bytes:
    """An IPv6 packet; ``following`` is the type of what ``inner`` begins with."""
    return struct.pack("!IHBB16s16s", 6 << 28, len(inner), following, hops, packed(source), packed(target)) + inner


def ethernet(inner: bytes, kind: int, target: bytes = HOST_MAC, source: bytes = PEER_MAC) -> bytes:
    """A frame."""
    return target + source + struct.pack("!H", kind) + inner


def frame(payload: bytes, source: Address, target: Address, checksum: str = "full", **macs: bytes) -> bytes:
    """A frame with a datagram as any stack sends it. ``macs``: ``mac_target``, ``mac_source``."""
    inner = udp(payload, source, target, checksum)
    ends = (macs.get("mac_target", HOST_MAC), macs.get("mac_source", PEER_MAC))
    if family(source) == 4:
        return ethernet(ipv4(source, target, inner), ETH_IPV4, *ends)
    return ethernet(ipv6(source, target, inner), ETH_IPV6, *ends)


@dataclass(frozen=True)
class Parsed:
    """A frame taken apart; ``sound`` if every length and checksum in it is right."""

    mac_target: bytes
    mac_source: bytes
    source: Address
    target: Address
    hops: int
    payload: bytes
    sound: bool


def parse(data: bytes) -> Parsed:
    """Take a frame apart that :func:`frame` or a program made. Raises ``ValueError`` for any other."""
    kind = struct.unpack_from("!H", data, 12)[0]
    if kind == ETH_IPV4:
        head, rest = data[14:34], data[34:]
        hops, ends, length = head[8], (head[12:16], head[16:20]), struct.unpack_from("!H", head, 2)[0] - 20
        sound = folded(head) == 0xFFFF and head[0] == 0x45 and head[9] == UDP
    elif kind == ETH_IPV6:
        head, rest = data[14:54], data[54:]
        hops, ends, length = head[7], (head[8:24], head[24:40]), struct.unpack_from("!H", head, 4)[0]
        sound = head[6] == UDP
    else:
        raise ValueError(f"expected a frame with IPv4 or IPv6, got EtherType {kind:#06x}")
    ports = struct.unpack_from("!HH", rest)
    name = socket.AF_INET if kind == ETH_IPV4 else socket.AF_INET6
    source, target = (Address.of(socket.inet_ntop(name, end), port or 1) for end, port in zip(ends, ports))
    rest = rest[:length]
    sound = sound and struct.unpack_from("!H", rest, 4)[0] == length == len(rest) and 0 not in ports
    sound = sound and rest[6:8] != b"\0\0" and folded(pseudo_header(source, target, length) + rest) == 0xFFFF
    return Parsed(data[:6], data[6:12], source, target, hops, rest[8:], sound)
