# Copyright (c) 2026, the XDP Gossip contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""PRIVATE to this collection: decides which names of members may become host names of an inventory.

A member of the fleet chooses its own name, and names have power in an inventory. ``all`` is a group that contains every
host, ``localhost`` is the control machine, and a host of another inventory source has variables and secrets. Names of
members must therefore match a strict pattern, and names that already have a meaning are refused.
"""

from __future__ import annotations

import collections.abc as c
import ipaddress
import re
import typing as t

from ansible_collections.xdp_gossip.fleet.plugins.module_utils._json import clip

#: Pattern of host names as in DNS, and with underscores. IPv6 addresses, which contain colons, are checked separately.
_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,251}[A-Za-z0-9])?")
_RESERVED = re.compile(r"(?i)(?:all|ungrouped|(?:[a-z0-9]+-)?localhost[0-9]*(?:\..*)?)")


#: A host name and the node that has it.
Named = tuple[str, dict[str, t.Any]]


class NameRefused(ValueError):
    """Raised for a name, or a node, that must not become part of the inventory; ``str()`` says why."""


class NameMalformed(NameRefused):
    """Raised for a name that no host can have, such as one with a space. The node may still get another name."""


def address_of(node: c.Mapping[str, t.Any]) -> str:
    """Return the node's address. Raises ``NameRefused`` if the address does not lead to one other machine.

    A node with a loopback or unspecified address would make the control machine connect to itself.
    """
    address = ipaddress.ip_address(node["addr"])
    for kind in ("loopback", "unspecified", "multicast", "link_local"):
        if getattr(address, "is_" + kind):
            raise NameRefused("address %s is %s: no way to reach one host by it" % (address, kind.replace("_", "-")))
    if address == ipaddress.IPv4Address("255.255.255.255"):
        raise NameRefused("address %s is a broadcast address" % address)
    return str(address)


def address_and_port(node: c.Mapping[str, t.Any]) -> str:
    """Return a name such as ``198.18.0.11_8000`` or ``fd00--11_8000``, without colons, which split host patterns."""
    return "%s_%d" % (str(node["addr"]).replace(":", "-"), node["port"])


def check_name(
    name: t.Any, node: c.Mapping[str, t.Any], group_prefixes: c.Sequence[str], groups: c.Container[str]
) -> str:
    """Return ``name`` if ``node`` may have it. Raises ``NameRefused``, or ``NameMalformed`` if no host can have the
    name.

    ``groups`` contains the names of groups in lower case, ``group_prefixes`` the prefixes of future groups.
    """
    if not isinstance(name, str):
        raise NameRefused("host name: expected text, got %s" % type(name).__name__)
    try:
        address = str(ipaddress.ip_address(name))
    except ValueError:
        if not _NAME.fullmatch(name):
            raise NameMalformed(
                "host name %r: expected at most 253 letters, digits, dots, dashes and underscores" % clip(name, 80)
            ) from None
    else:
        # With another machine's address as its name, the node would get plays and variables of that machine.
        if address != node["addr"] or "%" in name:
            raise NameRefused("host name %r is an address that is not the node's own" % clip(name, 80))
        return address
    lowered = name.lower()
    if _RESERVED.fullmatch(lowered):
        raise NameRefused("host name %r means something else to Ansible" % name)
    if lowered in groups or any(lowered.startswith(prefix) for prefix in group_prefixes):
        raise NameRefused("host name %r is, or may become, the name of a group" % name)
    return name


def refuse_shared(named: c.Sequence[Named]) -> tuple[list[Named], list[str]]:
    """Leave out nodes that share a name. Returns the nodes with an own name, and one line for each node that was left
    out.

    No member can prove that it owns a name, so with "the first one wins" a node could pose as another. If only one of
    these nodes is alive, that node keeps the name, because the others are its entries from earlier addresses.
    """
    claims: dict[str, list[dict[str, t.Any]]] = {}
    for name, node in named:
        claims.setdefault(name.lower(), []).append(node)
    kept, problems = [], []
    for name, node in named:
        rivals = [other for other in claims[name.lower()] if other is not node]
        if not rivals or (node["state"] == "alive" and all(other["state"] != "alive" for other in rivals)):
            kept.append((name, node))
            continue
        shown = ", ".join(address_and_port(other) for other in rivals[:3])
        problems.append("%s: host name %r is claimed by %s too" % (address_and_port(node), name, shown))
    return kept, problems
