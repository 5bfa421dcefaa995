# Copyright (c) 2026, the XDP Gossip contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""PRIVATE to this collection: which remote names may become host names of an inventory.

A member of the fleet chooses its own name, and an inventory gives names power: ``all`` is a group that every host
is in, ``localhost`` is the control machine, a host that other sources already know has variables and secrets.
So names pass a strict pattern, and one that already means something is refused.
"""

from __future__ import annotations

import collections.abc as c
import ipaddress
import re
import typing as t

from ansible_collections.xdp_gossip.fleet.plugins.module_utils._json import clip

#: Host names as in DNS, with underscores; colons only in IPv6 addresses, which are checked apart.
_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,251}[A-Za-z0-9])?")
_RESERVED = re.compile(r"(?i)(?:all|ungrouped|(?:[a-z0-9]+-)?localhost[0-9]*(?:\..*)?)")


#: A host name and the node that it stands for.
Named = tuple[str, dict[str, t.Any]]


class NameRefused(ValueError):
    """A name, or a whole node, that must not enter the inventory; ``str()`` says why."""


class NameMalformed(NameRefused):
    """A name that no host can have, as one with a space: it means nothing to Ansible, and another may do instead."""


def address_of(node: c.Mapping[str, t.Any]) -> str:
    """The address to connect to. Raises ``NameRefused`` for one that does not lead to another machine.

    A node behind a loopback or unspecified address would make the control machine connect to itself.
    """
    address = ipaddress.ip_address(node["addr"])
    for kind in ("loopback", "unspecified", "multicast", "link_local"):
        if getattr(address, "is_" + kind):
            raise NameRefused("address %s is %s: no way to reach one host by it" % (address, kind.replace("_", "-")))
    if address == ipaddress.IPv4Address("255.255.255.255"):
        raise NameRefused("address %s is a broadcast address" % address)
    return str(address)


def address_and_port(node: c.Mapping[str, t.Any]) -> str:
    """``198.18.0.11_8000``, ``fd00--11_8000``: a name without colons, which host patterns would split at."""
    return "%s_%d" % (str(node["addr"]).replace(":", "-"), node["port"])


def check_name(
    name: t.Any, node: c.Mapping[str, t.Any], group_prefixes: c.Sequence[str], groups: c.Container[str]
) -> str:
    """Return ``name`` when ``node`` may be called so. Raises ``NameRefused``; ``NameMalformed`` if no host can.

    ``groups`` are names of groups, in lower case, ``group_prefixes`` beginnings of groups still to be made.
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
        # Somebody else's address would catch plays and variables meant for that machine.
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
    """Leave out nodes that claim one name together; returns the rest and why the others are missing.

    No member can prove that a name is its own, so taking the first would let one pass for another. Only when a
    single claimant is alive it keeps the name: the others are what it left behind at an earlier address.
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
