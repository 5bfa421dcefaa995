# SPDX-License-Identifier: MIT
"""Reads interfaces and queueing disciplines from the kernel over rtnetlink (:mod:`..rtnetlink`).

rtnetlink(7); the structures are those of linux/if_link.h and linux/pkt_sched.h.
"""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from .. import rtnetlink
from ..rtnetlink import ADDRESS, LINK, attributes, number, text

_TRAFFIC = struct.Struct("=BxxxiIII")
_IFLA_XDP_ATTACHED, _IFLA_XDP_PROG_ID = 2, 4
_TCA_KIND = 1
#: ARPHRD_ETHER and ARPHRD_LOOPBACK (linux/if_arp.h): interfaces whose frames begin with an Ethernet header.
_ETHERNET = (1, 772)
_CLSACT = 0xFFFF << 16

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
    return [_interface(body) for body in _dump(rtnetlink.RTM_GETLINK, LINK.pack(0, 0, 0, 0, 0))]


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
    for body in _dump(rtnetlink.RTM_GETADDR, ADDRESS.pack(0, 0, 0, 0, 0)):
        if rtnetlink.own_address(body) == wanted:
            found[ADDRESS.unpack_from(body)[4]] = None
    return list(found)


def networks(index: int) -> list[ipaddress.IPv4Network | ipaddress.IPv6Network]:
    """The networks that the interface is in, by its addresses and their prefixes. Raises ``OSError``."""
    found = []
    for body in _dump(rtnetlink.RTM_GETADDR, ADDRESS.pack(0, 0, 0, 0, 0)):
        _family, prefix, _flags, _scope, owner = ADDRESS.unpack_from(body)
        address = rtnetlink.own_address(body)
        if owner == index and address:
            found.append(ipaddress.ip_network((address, prefix), strict=False))
    return found


def has_clsact(ifindex: int) -> bool:
    """Whether the interface has a clsact (or the older ingress) queueing discipline."""
    kinds = []
    for body in _dump(rtnetlink.RTM_GETQDISC, _TRAFFIC.pack(0, ifindex, 0, 0, 0)):
        if _TRAFFIC.unpack_from(body)[1] == ifindex:
            kinds.append(text(attributes(body[_TRAFFIC.size :]).get(_TCA_KIND, b"")))
    return "clsact" in kinds or "ingress" in kinds


def filters(ifindex: int, parent: int) -> list[int]:
    """The priorities of the filters (and chains' heads) at a hook of the interface's clsact, one for each."""
    found = _dump(rtnetlink.RTM_GETTFILTER, _TRAFFIC.pack(0, ifindex, 0, parent, 0))
    return [_TRAFFIC.unpack_from(body)[4] >> 16 for body in found]


def _dump(kind: int, request: bytes) -> Iterator[bytes]:
    return rtnetlink.ask(kind, request, dump=True)


def _interface(body: bytes) -> Interface:
    _family, hardware, index, flags, _change = LINK.unpack_from(body)
    said = attributes(body[LINK.size :])
    xdp = attributes(said.get(rtnetlink.IFLA_XDP, b""))
    return Interface(
        index,
        text(said.get(rtnetlink.IFLA_IFNAME, b"")),
        number(said.get(rtnetlink.IFLA_MTU, b"")),
        text(attributes(said.get(rtnetlink.IFLA_LINKINFO, b"")).get(rtnetlink.IFLA_INFO_KIND, b"")),
        bool(flags & rtnetlink.IFF_UP),
        bool(flags & rtnetlink.IFF_LOOPBACK),
        said.get(rtnetlink.IFLA_ADDRESS, b""),
        number(xdp.get(_IFLA_XDP_PROG_ID, b"")),
        _XDP_MODES.get(number(xdp.get(_IFLA_XDP_ATTACHED, b"")), ""),
        hardware in _ETHERNET,
        0 if rtnetlink.IFLA_LINK_NETNSID in said else number(said.get(rtnetlink.IFLA_LINK, b"")),
        number(said.get(rtnetlink.IFLA_MASTER, b"")),
    )
