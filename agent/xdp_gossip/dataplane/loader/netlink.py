# SPDX-License-Identifier: MIT
"""What the kernel says of interfaces and queueing disciplines, asked over rtnetlink: no subprocess, no parsing of text.

rtnetlink(7); the structures are those of linux/rtnetlink.h, linux/if_link.h and linux/pkt_sched.h.
"""

from __future__ import annotations

import ipaddress
import os
import socket
import struct
import sys
from collections.abc import Iterator
from dataclasses import dataclass

_HEADER = struct.Struct("=IHHII")
_LINK = struct.Struct("=BxHiII")
_ADDRESS = struct.Struct("=BBBBI")
_TRAFFIC = struct.Struct("=BxxxiIII")
_ATTRIBUTE = struct.Struct("=HH")

_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_NLM_F_REQUEST, _NLM_F_DUMP = 0x1, 0x300
_RTM_GETLINK, _RTM_GETADDR, _RTM_GETQDISC, _RTM_GETTFILTER = 18, 22, 38, 46
_IFA_ADDRESS, _IFA_LOCAL = 1, 2
_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MTU, _IFLA_LINK, _IFLA_MASTER, _IFLA_LINKINFO = 1, 3, 4, 5, 10, 18
_IFLA_LINK_NETNSID, _IFLA_XDP = 37, 43
_IFLA_INFO_KIND = 1
_IFLA_XDP_ATTACHED, _IFLA_XDP_PROG_ID = 2, 4
_TCA_KIND = 1
_IFF_UP, _IFF_LOOPBACK = 0x1, 0x8
#: ARPHRD_ETHER and ARPHRD_LOOPBACK (linux/if_arp.h): interfaces whose frames begin with an Ethernet header.
_ETHERNET = (1, 772)
_CLSACT = 0xFFFF << 16
_NESTED = 0x3FFF
#: Datagrams of one answer: a host with a million addresses is not one that this is for.
_MOST_REPLIES = 100_000

#: Parents of the filters at the two hooks of a clsact.
INGRESS, EGRESS = _CLSACT | 0xFFF2, _CLSACT | 0xFFF3

_XDP_MODES = {1: "native", 2: "generic", 3: "hardware", 4: "several modes"}


@dataclass(frozen=True)
class Interface:
    """A network interface. ``kind`` is veth, bond, ... or "" for a device; ``xdp_program`` the id of who sits there.

    ``below`` is the interface that it sits on (of a VLAN, of a macvlan) or its veth peer, 0 where that is in another
    namespace; ``master`` is the bond or bridge that it belongs to, 0 for none.
    """

    index: int
    name: str
    mtu: int
    kind: str
    up: bool
    loopback: bool
    mac: bytes
    xdp_program: int
    xdp_mode: str
    ethernet: bool = True
    below: int = 0
    master: int = 0


def interfaces() -> list[Interface]:
    """Every interface of this network namespace. Raises ``OSError``."""
    return [_interface(body) for body in _dump(_RTM_GETLINK, _LINK.pack(0, 0, 0, 0, 0))]


def by_name(name: str) -> Interface | None:
    """The interface of this name."""
    return next((found for found in interfaces() if found.name == name), None)


def by_index(index: int) -> Interface | None:
    """The interface of this index."""
    return next((found for found in interfaces() if found.index == index), None)


def owners(ip: str) -> list[int]:
    """Indexes of the interfaces that have the address ``ip``. Raises ``OSError``."""
    wanted = ipaddress.ip_address(ip).packed
    found: dict[int, None] = {}
    for body in _dump(_RTM_GETADDR, _ADDRESS.pack(0, 0, 0, 0, 0)):
        attributes = _attributes(body[_ADDRESS.size :])
        # On a point-to-point interface IFA_ADDRESS is the peer's.
        if attributes.get(_IFA_LOCAL, attributes.get(_IFA_ADDRESS)) == wanted:
            found[_ADDRESS.unpack_from(body)[4]] = None
    return list(found)


def networks(index: int) -> list[ipaddress.IPv4Network | ipaddress.IPv6Network]:
    """The networks that the interface is in, by its addresses and their prefixes. Raises ``OSError``."""
    found = []
    for body in _dump(_RTM_GETADDR, _ADDRESS.pack(0, 0, 0, 0, 0)):
        _family, prefix, _flags, _scope, owner = _ADDRESS.unpack_from(body)
        attributes = _attributes(body[_ADDRESS.size :])
        address = attributes.get(_IFA_LOCAL, attributes.get(_IFA_ADDRESS))
        if owner == index and address:
            found.append(ipaddress.ip_network((address, prefix), strict=False))
    return found


def has_clsact(ifindex: int) -> bool:
    """Whether the interface has a clsact (or the older ingress) queueing discipline."""
    kinds = []
    for body in _dump(_RTM_GETQDISC, _TRAFFIC.pack(0, ifindex, 0, 0, 0)):
        if _TRAFFIC.unpack_from(body)[1] == ifindex:
            kinds.append(_attributes(body[_TRAFFIC.size :]).get(_TCA_KIND, b"").rstrip(b"\0"))
    return b"clsact" in kinds or b"ingress" in kinds


def filters(ifindex: int, parent: int) -> list[int]:
    """The priorities of the filters (and chains' heads) at a hook of the interface's clsact, one for each."""
    found = _dump(_RTM_GETTFILTER, _TRAFFIC.pack(0, ifindex, 0, parent, 0))
    return [_TRAFFIC.unpack_from(body)[4] >> 16 for body in found]


def _interface(body: bytes) -> Interface:
    _family, hardware, index, flags, _change = _LINK.unpack_from(body)
    attributes = _attributes(body[_LINK.size :])
    kind = _attributes(attributes.get(_IFLA_LINKINFO, b"")).get(_IFLA_INFO_KIND, b"")
    xdp = _attributes(attributes.get(_IFLA_XDP, b""))
    return Interface(
        index,
        attributes.get(_IFLA_IFNAME, b"").rstrip(b"\0").decode("utf-8", "replace"),
        int.from_bytes(attributes.get(_IFLA_MTU, b""), sys.byteorder),
        kind.rstrip(b"\0").decode("ascii", "replace"),
        bool(flags & _IFF_UP),
        bool(flags & _IFF_LOOPBACK),
        attributes.get(_IFLA_ADDRESS, b""),
        int.from_bytes(xdp.get(_IFLA_XDP_PROG_ID, b""), sys.byteorder),
        _XDP_MODES.get(int.from_bytes(xdp.get(_IFLA_XDP_ATTACHED, b""), sys.byteorder), ""),
        hardware in _ETHERNET,
        0 if _IFLA_LINK_NETNSID in attributes else int.from_bytes(attributes.get(_IFLA_LINK, b""), sys.byteorder),
        int.from_bytes(attributes.get(_IFLA_MASTER, b""), sys.byteorder),
    )


def _attributes(data: bytes) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    at = 0
    while at + _ATTRIBUTE.size <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, at)
        if length < _ATTRIBUTE.size:
            break
        found[kind & _NESTED] = data[at + _ATTRIBUTE.size : at + length]
        at += (length + 3) & ~3
    return found


def _dump(kind: int, request: bytes) -> Iterator[bytes]:
    """The body of each message that answers a dump request."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE) as channel:
        channel.settimeout(10)
        channel.bind((0, 0))
        header = _HEADER.pack(_HEADER.size + len(request), kind, _NLM_F_REQUEST | _NLM_F_DUMP, 1, 0)
        channel.send(header + request)
        for _ in range(_MOST_REPLIES):
            data = channel.recv(1 << 18)
            at = 0
            while at + _HEADER.size <= len(data):
                length, answer, _flags, _sequence, _port = _HEADER.unpack_from(data, at)
                body = data[at + _HEADER.size : at + length]
                if answer == _NLMSG_DONE:
                    return
                if answer == _NLMSG_ERROR:
                    number = -int.from_bytes(body[:4], sys.byteorder, signed=True)
                    raise OSError(number, os.strerror(number), "rtnetlink")
                yield body
                at += (length + 3) & ~3
    raise OSError("rtnetlink: expected an end of the answer, got more and more")
