# SPDX-License-Identifier: MIT
"""What the kernel says of one interface and one address, and when that changes: rtnetlink and the netdev family of
generic netlink, without a privilege.

rtnetlink(7); structures and numbers are those of linux/if_link.h, linux/genetlink.h and linux/netdev.h.
"""

from __future__ import annotations

import errno
import ipaddress
import socket
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from . import routes, rtnetlink
from .rtnetlink import ADDRESS, LINK, attributes, number, packed, text

_GENERIC = struct.Struct("=BBxx")
#: IFLA_XDP_PROG_ID and, where programs are attached in several modes, one for each.
_XDP_PROGRAMS = (4, 5, 6, 7)
_GENL_ID_CTRL, _CTRL_CMD_GETFAMILY, _CTRL_ATTR_FAMILY_ID, _CTRL_ATTR_FAMILY_NAME = 0x10, 3, 1, 2
_NETDEV_CMD_DEV_GET, _NETDEV_A_DEV_IFINDEX, _NETDEV_A_DEV_XDP_FEATURES = 1, 1, 3


#: Kinds of interfaces that can hold an address, but never receive a packet from a network.
HOLDERS = ("dummy", "vrf")


@dataclass(frozen=True)
class Link:
    """An interface. ``kind``: veth, bond, ..., "" for a device; ``programs``: ids of the XDP programs on it;
    ``features``: what its driver can do with XDP now (enum netdev_xdp_act), None before Linux 6.3;
    ``holds``: it is the loopback interface or one of :data:`HOLDERS`; ``master``: the VRF, bond or bridge it is in."""

    index: int
    name: str
    kind: str
    up: bool
    running: bool
    mtu: int
    mac: bytes
    programs: frozenset[int]
    carrier_changes: int
    features: int | None
    holds: bool = False
    master: int = 0


@dataclass(frozen=True)
class Facts:
    """The interface of a plane (None: it does not exist), and the indexes of the interfaces that have the address.

    ``ways``: if only a holder has the address, the interfaces by which packets from it leave. None if no plane depends
    on it, empty if no destination is known.
    """

    link: Link | None
    owners: tuple[int, ...]
    ways: frozenset[int] | None = None

    def __str__(self) -> str:
        """The facts in words, for a log."""
        has = f"the address is on interface {self.owners[0]}" if self.owners else "no interface has the address"
        link = self.link
        if link is None:
            return f"no interface to watch; {has}"
        state = "carrier" if link.running else "no carrier" if link.up else "down"
        said = f"{link.name} (interface {link.index}): {state}, MTU {link.mtu}; {has}"
        if self.ways is None:
            return said
        return f"{said}; packets from it leave by {', '.join(map(str, sorted(self.ways))) or 'no interface'}"


def look(ip: str, index: int, name: str, toward: Sequence[str] = ()) -> Facts:
    """The facts about the interface ``index``; with 0, about the one called ``name``, or else the first with ``ip``.

    ``toward``: addresses that packets go to, of which some suffice. Raises ``OSError``.
    """
    owners = tuple(dict.fromkeys(_owners(ip)))
    if index:
        link = _link(index=index)
    else:
        link = (_link(name=name) if name else None) or (_link(index=owners[0]) if owners else None)
    ways = None
    if owners and index not in owners:
        holder = link if link is not None and link.index == owners[0] else _link(index=owners[0])
        if holder is not None and holder.holds:
            ways = frozenset(_ways(ip, holder, toward))
    return Facts(link, owners, ways)


def _ways(ip: str, holder: Link, toward: Sequence[str]) -> Iterator[int]:
    if not toward:
        return
    known: dict[int, Link | None] = {}

    def usable(index: int) -> bool:
        if index not in known:
            known[index] = _link(index=index)
        link = known[index]
        return link is not None and not link.holds

    vrf = holder if holder.kind == "vrf" else _link(index=holder.master) if holder.master else None
    within = vrf.index if vrf is not None and vrf.kind == "vrf" else 0
    yield from dict.fromkeys(routes.ways(ip, toward, usable, within))


def concerns(data: bytes, ip: bytes, index: int, name: str) -> bool:
    """Whether a datagram of :func:`rtnetlink.events` is about the address ``ip`` (packed) or the interface."""
    for kind, body in rtnetlink.messages(data):
        if kind in (rtnetlink.RTM_NEWLINK, rtnetlink.RTM_DELLINK) and len(body) >= LINK.size:
            called = text(attributes(body[LINK.size :]).get(rtnetlink.IFLA_IFNAME, b""))
            if LINK.unpack_from(body)[2] == index or called == name:
                return True
        elif kind in (rtnetlink.RTM_NEWADDR, rtnetlink.RTM_DELADDR) and len(body) >= ADDRESS.size:
            if rtnetlink.own_address(body) == ip:
                return True
    return False


def _owners(ip: str) -> Iterator[int]:
    wanted = ipaddress.ip_address(ip)
    family = socket.AF_INET if wanted.version == 4 else socket.AF_INET6
    for body in rtnetlink.ask(rtnetlink.RTM_GETADDR, ADDRESS.pack(family, 0, 0, 0, 0), dump=True):
        if rtnetlink.own_address(body) == wanted.packed:
            yield ADDRESS.unpack_from(body)[4]


def _link(*, index: int = 0, name: str = "") -> Link | None:
    named = packed(rtnetlink.IFLA_IFNAME, name.encode() + b"\0") if name else b""
    try:
        body = next(iter(rtnetlink.ask(rtnetlink.RTM_GETLINK, LINK.pack(0, 0, index, 0, 0) + named)))
    except OSError as error:
        if error.errno in (errno.ENODEV, errno.ENOENT):
            return None
        raise
    _family, _type, found, flags, _change = LINK.unpack_from(body)
    said = attributes(body[LINK.size :])
    xdp = attributes(said.get(rtnetlink.IFLA_XDP, b""))
    kind = text(attributes(said.get(rtnetlink.IFLA_LINKINFO, b"")).get(rtnetlink.IFLA_INFO_KIND, b""))
    return Link(
        found,
        text(said.get(rtnetlink.IFLA_IFNAME, b"")),
        kind,
        bool(flags & rtnetlink.IFF_UP),
        bool(flags & rtnetlink.IFF_RUNNING),
        number(said.get(rtnetlink.IFLA_MTU, b"")),
        said.get(rtnetlink.IFLA_ADDRESS, b""),
        frozenset(number(xdp[which]) for which in _XDP_PROGRAMS if which in xdp) - {0},
        number(said.get(rtnetlink.IFLA_CARRIER_CHANGES, b"")),
        _features(found),
        bool(flags & rtnetlink.IFF_LOOPBACK) or kind in HOLDERS,
        number(said.get(rtnetlink.IFLA_MASTER, b"")),
    )


def _features(index: int) -> int | None:
    """What the driver says it can do with XDP; None where the kernel has no such family."""
    try:
        wanted = packed(_CTRL_ATTR_FAMILY_NAME, b"netdev\0")
        family = _generic(_GENL_ID_CTRL, _CTRL_CMD_GETFAMILY, wanted).get(_CTRL_ATTR_FAMILY_ID, b"")
        wanted = packed(_NETDEV_A_DEV_IFINDEX, struct.pack("=I", index))
        return number(_generic(number(family), _NETDEV_CMD_DEV_GET, wanted).get(_NETDEV_A_DEV_XDP_FEATURES, b""))
    except (OSError, StopIteration):
        return None


def _generic(family: int, command: int, wanted: bytes) -> dict[int, bytes]:
    request = _GENERIC.pack(command, 1) + wanted
    answer = next(iter(rtnetlink.ask(family, request, protocol=rtnetlink.NETLINK_GENERIC)))
    return attributes(answer[_GENERIC.size :])
