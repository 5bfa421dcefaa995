# Copyright (c) 2026, the XDP Gossip contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""PRIVATE to this collection: decides which names of members may become host names of an inventory.

A member of the fleet chooses its own name, and some names have a meaning in an inventory. ``all`` is a group that
contains every host, ``localhost`` is the controller, and the name of a host in another inventory source gives access to
the variables and secrets of that host. Names of members must therefore match a strict pattern, and names that already
have a meaning in an inventory are rejected.
"""

from __future__ import annotations

import collections.abc as c
import ipaddress
import re
import typing as t

from ansible_collections.xdp_gossip.fleet.plugins.module_utils._json import clip

#: Pattern of host names: DNS names that may also contain underscores. The pattern does not match IPv6 addresses;
#: ``check_name`` handles addresses separately.
_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,251}[A-Za-z0-9])?")
_RESERVED = re.compile(r"(?i)(?:all|ungrouped|(?:[a-z0-9]+-)?localhost[0-9]*(?:\..*)?)")


#: A host name and the node that has it.
Named = tuple[str, dict[str, t.Any]]


class NameRefused(ValueError):
    """Raised for a name, or a node, that must not become part of the inventory; ``str()`` says why."""


class NameMalformed(NameRefused):
    """Raised for a name that no host can have, such as a name with a space. After this error, the inventory plugin may
    try another name for the node.
    """


def address_of(node: c.Mapping[str, t.Any]) -> str:
    """Return the node's address. Raises ``NameRefused`` if the address cannot belong to another machine.

    With a loopback or unspecified address, the controller would connect to itself.
    """
    address = ipaddress.ip_address(node["addr"])
    for kind in ("loopback", "unspecified", "multicast", "link_local"):
        if getattr(address, "is_" + kind):
            raise NameRefused("address %s is %s: no way to reach one host by it" % (address, kind.replace("_", "-")))
    if address == ipaddress.IPv4Address("255.255.255.255"):
        raise NameRefused("address %s is a broadcast address" % address)
    return str(address)


def address_and_port(node: c.Mapping[str, t.Any]) -> str:
    """Return a name such as ``198.18.0.11_8000`` or ``fd00--11_8000``. The name has no colons, because Ansible splits
    host patterns at colons.
    """
    return "%s_%d" % (str(node["addr"]).replace(":", "-"), node["port"])


def check_name(
    name: t.Any, node: c.Mapping[str, t.Any], group_prefixes: c.Sequence[str], groups: c.Container[str]
) -> str:
    """Return ``name`` if ``node`` may use this name. Raises ``NameRefused``, or ``NameMalformed`` if no host can have
    the name.

    ``groups`` contains the names of groups in lower case. ``group_prefixes`` contains the prefixes of groups that
    Ansible will create.
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
        # If the name of a node were the address of another machine, the node would get the plays and variables of that
        # machine.
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
    """Return the nodes that have a unique name, and one line of text for each node whose name is not unique.

    If several nodes have the same name, no node gets the name, because no node can prove its right to the name. If only
    one of the nodes with the same name is alive, this node keeps the name, because the other entries are probably the
    same node at earlier addresses.
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
