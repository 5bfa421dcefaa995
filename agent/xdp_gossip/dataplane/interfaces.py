# SPDX-License-Identifier: MIT
"""Reads network interfaces and their addresses from the kernel, for the agent and the loader. Needs no privilege.

The sources are rtnetlink (see rtnetlink(7)) and the netdev family of generic netlink. Structures and numbers come from
linux/if_link.h, linux/if_arp.h, linux/genetlink.h and linux/netdev.h.
"""

from __future__ import annotations

import errno
import functools
import ipaddress
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from . import routes, rtnetlink
from .rtnetlink import ADDRESS, INTERFACE, attributes, number, packed, text

_GENERIC = struct.Struct("=BBxx")
#: Netlink attributes with the ids of XDP programs: IFLA_XDP_PROG_ID, and one attribute for each mode if programs are
#: attached in several modes.
_XDP_PROGRAMS = (4, 5, 6, 7)
_IFLA_XDP_ATTACHED = 2
_XDP_MODES = {1: "native", 2: "generic", 3: "hardware", 4: "several modes"}
#: Hardware types of interfaces whose frames begin with an Ethernet header: ARPHRD_ETHER and ARPHRD_LOOPBACK.
_ETHERNET = (1, 772)
_GENL_ID_CTRL, _CTRL_CMD_GETFAMILY, _CTRL_ATTR_FAMILY_ID, _CTRL_ATTR_FAMILY_NAME = 0x10, 3, 1, 2
_NETDEV_CMD_DEV_GET, _NETDEV_A_DEV_IFINDEX, _NETDEV_A_DEV_XDP_FEATURES = 1, 1, 3

#: Kinds of interfaces that can have an address, but never receive a packet from a network ("holders").
_HOLDERS = ("dummy", "vrf")


@dataclass(frozen=True)
class Interface:
    """A network interface.

    ``kind``: type of a virtual interface, such as veth or bond; "" for a hardware device. ``ethernet``: frames begin
    with an Ethernet header. ``programs``: ids of the attached XDP programs. ``xdp_mode``: mode of the attached programs
    ("": none). ``below``: index of the lower interface (of a VLAN or macvlan) or of the veth peer; 0 if there is none,
    or if the lower interface or the peer is in another namespace. ``master``: index of the VRF, bond or bridge to which
    the interface belongs; 0 for none. ``features``: XDP features of the driver (enum netdev_xdp_act); None if they were
    not queried, or if the kernel is older than Linux 6.3.
    """

    index: int
    name: str
    kind: str
    mtu: int
    up: bool
    running: bool = True
    loopback: bool = False
    ethernet: bool = True
    mac: bytes = b""
    programs: frozenset[int] = frozenset()
    xdp_mode: str = ""
    below: int = 0
    master: int = 0
    carrier_changes: int = 0
    features: int | None = None

    @property
    def holds(self) -> bool:
        """Whether the interface can have an address, but never receives a packet from a network: loopback, a dummy or a
        VRF.
        """
        return self.loopback or self.kind in _HOLDERS


@dataclass(frozen=True)
class Facts:
    """The kernel's current facts about a data plane's interface and the node's address.

    ``interface``: the data plane's interface; None if it does not exist. ``owners``: indexes of the interfaces that
    have the node's address. ``ways``: indexes of the interfaces that send the packets from the node's address; empty if
    no destination is known. ``ways`` is None if the routes do not matter, because the data plane's interface has the
    address, or because no loopback interface, dummy or VRF has the address.
    """

    interface: Interface | None
    owners: tuple[int, ...]
    ways: frozenset[int] | None = None

    def __str__(self) -> str:
        """Describe the facts for a log."""
        has = f"the address is on interface {self.owners[0]}" if self.owners else "no interface has the address"
        watched = self.interface
        if watched is None:
            return f"no interface to watch; {has}"
        state = "carrier" if watched.running else "no carrier" if watched.up else "down"
        said = f"{watched.name} (interface {watched.index}): {state}, MTU {watched.mtu}; {has}"
        if self.ways is None:
            return said
        return f"{said}; packets from it leave by {', '.join(map(str, sorted(self.ways))) or 'no interface'}"


def look(ip: str, index: int, name: str, toward: Sequence[str] = ()) -> Facts:
    """Read the facts about the interface ``index``.

    If ``index`` is 0, read the facts about the interface ``name``. If no interface has this name, read the facts about
    the first interface with the address ``ip``.

    ``toward``: some destination addresses of the node's packets. Raises ``OSError``.
    """
    having = owners(ip)
    if index:
        found = by_index(index)
    else:
        found = (_get(name=name) if name else None) or (by_index(having[0]) if having else None)
    ways = None
    if having and index not in having:
        holder = found if found is not None and found.index == having[0] else by_index(having[0])
        if holder is not None and holder.holds:
            ways = frozenset(ways_from(ip, holder, toward, functools.cache(by_index)) if toward else ())
    return Facts(replace(found, features=_features(found.index)) if found is not None else None, having, ways)


def ways_from(
    ip: str, holder: Interface, toward: Sequence[str], known: Callable[[int], Interface | None], uid: int | None = None
) -> list[int]:
    """Return the indexes of the interfaces that send packets with the source address ``ip``.

    See :func:`routes.ways`.

    ``holder``: the interface that has the address ``ip``. ``known``: function that returns the interface with a given
    index. Raises ``OSError``.
    """

    def usable(index: int) -> bool:
        found = known(index)
        return found is not None and not found.holds

    # An address of a VRF may be on the VRF itself, or on a dummy that belongs to the VRF.
    vrf = holder if holder.kind == "vrf" else known(holder.master) if holder.master else None
    return routes.ways(ip, toward, usable, vrf.index if vrf is not None and vrf.kind == "vrf" else 0, uid)


def concerns(data: bytes, ip: bytes, index: int, name: str) -> bool:
    """Whether ``data`` reports a change of the address ``ip`` (packed), or of the interface with this index or name."""
    for kind, body in rtnetlink.messages(data):
        if kind in (rtnetlink.RTM_NEWLINK, rtnetlink.RTM_DELLINK) and len(body) >= INTERFACE.size:
            called = text(attributes(body[INTERFACE.size :]).get(rtnetlink.IFLA_IFNAME, b""))
            if INTERFACE.unpack_from(body)[2] == index or called == name:
                return True
        elif kind in (rtnetlink.RTM_NEWADDR, rtnetlink.RTM_DELADDR) and len(body) >= ADDRESS.size:
            if rtnetlink.own_address(body) == ip:
                return True
    return False


def every() -> list[Interface]:
    """Return every interface of this network namespace. Raises ``OSError``."""
    request = INTERFACE.pack(0, 0, 0, 0, 0)
    return [_interface(body) for body in rtnetlink.ask(rtnetlink.RTM_GETLINK, request, dump=True)]


def by_name(name: str) -> Interface | None:
    """Return the interface called ``name``; None if there is none. Raises ``OSError``."""
    return next((found for found in every() if found.name == name), None)


def by_index(index: int) -> Interface | None:
    """Return the interface with this index; None if there is none. Raises ``OSError``."""
    # A request with index 0 does not select an interface.
    return _get(index=index) if 0 < index < 1 << 31 else None


def owners(ip: str) -> tuple[int, ...]:
    """Return the indexes of the interfaces that have the address ``ip``. Raises ``OSError``."""
    wanted = ipaddress.ip_address(ip).packed
    return tuple(dict.fromkeys(owner for owner, address, _prefix in _addresses() if address == wanted))


def networks(index: int) -> list[ipaddress.IPv4Network | ipaddress.IPv6Network]:
    """Return the networks of the interface, computed from its addresses and prefix lengths. Raises ``OSError``."""
    found = [(address, prefix) for owner, address, prefix in _addresses() if owner == index and address]
    return [ipaddress.ip_network(each, strict=False) for each in found]


def _addresses() -> Iterator[tuple[int, bytes | None, int]]:
    """Yield (index of the interface, packed address, prefix length) for each address of this host."""
    for body in rtnetlink.ask(rtnetlink.RTM_GETADDR, ADDRESS.pack(0, 0, 0, 0, 0), dump=True):
        _family, prefix, _flags, _scope, owner = ADDRESS.unpack_from(body)
        yield owner, rtnetlink.own_address(body), prefix


def _get(*, index: int = 0, name: str = "") -> Interface | None:
    named = packed(rtnetlink.IFLA_IFNAME, name.encode() + b"\0") if name else b""
    try:
        return _interface(next(iter(rtnetlink.ask(rtnetlink.RTM_GETLINK, INTERFACE.pack(0, 0, index, 0, 0) + named))))
    except OSError as error:
        if error.errno in (errno.ENODEV, errno.ENOENT):
            return None
        raise


def _interface(body: bytes) -> Interface:
    _family, hardware, index, flags, _change = INTERFACE.unpack_from(body)
    said = attributes(body[INTERFACE.size :])
    xdp = attributes(said.get(rtnetlink.IFLA_XDP, b""))
    return Interface(
        index,
        text(said.get(rtnetlink.IFLA_IFNAME, b"")),
        text(attributes(said.get(rtnetlink.IFLA_LINKINFO, b"")).get(rtnetlink.IFLA_INFO_KIND, b"")),
        number(said.get(rtnetlink.IFLA_MTU, b"")),
        bool(flags & rtnetlink.IFF_UP),
        bool(flags & rtnetlink.IFF_RUNNING),
        bool(flags & rtnetlink.IFF_LOOPBACK),
        hardware in _ETHERNET,
        said.get(rtnetlink.IFLA_ADDRESS, b""),
        frozenset(number(xdp[which]) for which in _XDP_PROGRAMS if which in xdp) - {0},
        _XDP_MODES.get(number(xdp.get(_IFLA_XDP_ATTACHED, b"")), ""),
        0 if rtnetlink.IFLA_LINK_NETNSID in said else number(said.get(rtnetlink.IFLA_LINK, b"")),
        number(said.get(rtnetlink.IFLA_MASTER, b"")),
        number(said.get(rtnetlink.IFLA_CARRIER_CHANGES, b"")),
    )


def _features(index: int) -> int | None:
    """Query the XDP features of an interface's driver. Returns None if the kernel has no netdev family."""
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
