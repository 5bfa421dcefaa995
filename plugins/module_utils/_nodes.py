# Copyright (c) 2026, the XDP Gossip contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""PRIVATE to this collection: checks the NodeList in a member's answer. Python 3.8 or later.

Every value in a NodeList comes from another machine. Nodes in the result contain only known fields, whose types and
lengths have been checked. A node with an invalid field is not part of the result; the list of problems contains the
node and the reason. The inventory plugin decides which values may become *host names*.
"""

from __future__ import annotations

import ipaddress
import typing as t

from ansible_collections.xdp_gossip.fleet.plugins.module_utils._json import clip

STATES = ("alive", "suspect", "agent_down", "dead", "left")
MAX_NODES = 50 * 1000

#: Maximum bytes of UTF-8 of each text field. The limits of name and private_data are those of the agent. The limits of
#: the other fields are longer than any value that an agent writes.
_TEXTS = {"name": 255, "private_data": 4096, "version": 255, "protocol": 64, "zone": 255, "digest": 64, "sealing": 64}
_COUNTS = {"incarnation": 2**32 - 1, "sequence": 2**64 - 1}
_FLAGS = ("local", "record_known")


def parse_nodes(nodes: t.Any) -> tuple[list[dict[str, t.Any]], list[str]]:
    """Check the list ``nodes`` in a member's answer.

    Returns the valid nodes, sorted by address and port, and one line of text for each invalid node. The function
    ignores unknown fields, so that the collection also accepts answers of newer agents. A missing field becomes "", 0,
    false or None, so that the collection also accepts answers of older agents. Raises ``ValueError`` if
    ``nodes`` is not a list or has more than ``MAX_NODES`` entries.
    """
    if not isinstance(nodes, list):
        raise ValueError("nodes: expected a list, got %s" % type(nodes).__name__)
    if len(nodes) > MAX_NODES:
        raise ValueError("nodes: expected at most %d, got %d" % (MAX_NODES, len(nodes)))
    good: dict[tuple[str, int], dict[str, t.Any]] = {}
    problems = []
    for position, entry in enumerate(nodes):
        try:
            node = parse_node(entry)
            identity = (node["addr"], node["port"])
            if identity in good:
                raise ValueError("%s port %d is listed twice" % identity)
            good[identity] = node
        except ValueError as exc:
            problems.append("node %d of the NodeList: %s" % (position + 1, exc))
    return [good[identity] for identity in sorted(good, key=_order)], problems


def _order(identity: tuple[str, int]) -> tuple[int, bytes, int]:
    address = ipaddress.ip_address(identity[0])
    return (address.version, address.packed, identity[1])


def parse_node(entry: t.Any) -> dict[str, t.Any]:
    """Check one entry of a NodeList and return its known fields.

    Raises ``ValueError`` if a field is invalid; the message names the field and the expected value.
    """
    if not isinstance(entry, dict):
        raise ValueError("expected an object, got %s" % type(entry).__name__)
    node: dict[str, t.Any] = {"addr": canonical_address(entry.get("addr")), "port": _count(entry, "port", 65535)}
    if not node["port"]:
        raise ValueError("port: expected 1 to 65535, got 0")
    node["state"] = _text(entry, "state", 16)
    if node["state"] not in STATES:
        raise ValueError("state: expected one of %s, got %r" % (", ".join(STATES), clip(node["state"])))
    for field, limit in _TEXTS.items():
        node[field] = _text(entry, field, limit)
    for field, limit in _COUNTS.items():
        node[field] = _count(entry, field, limit)
    for field in _FLAGS:
        value = entry.get(field)
        if value is not None and not isinstance(value, bool):
            raise ValueError("%s: expected true or false, got %s" % (field, type(value).__name__))
        node[field] = bool(value)
    node["last_heard"] = _seconds(entry.get("last_heard"))
    return node


def states_query(states: t.Iterable[str]) -> str:
    """Return the value of the query parameter ``state`` for nodes in ``states``. The caller must filter the answer.

    An older agent rejects the name of a state that it does not know, so ask for all states instead of such a state.
    """
    return "all" if "agent_down" in states else ",".join(states)


def canonical_address(value: t.Any) -> str:
    """Return the canonical spelling of an IP address; an IPv4-mapped IPv6 address becomes IPv4. Raises ``ValueError``.

    The function rejects addresses with a zone (``fe80::1%eth0``). The zone of an IPv6 address has no meaning on another
    machine, and Python accepts any text as a zone.
    """
    if not isinstance(value, str) or len(value) > 64 or "%" in value:
        raise ValueError("addr: expected an IP address, got %r" % (clip(value) if isinstance(value, str) else value,))
    try:
        parsed = ipaddress.ip_address(_plain(value))
    except ValueError:
        raise ValueError("addr: expected an IP address, got %r" % clip(value)) from None
    return str(getattr(parsed, "ipv4_mapped", None) or parsed)


def parse_seed(text: str) -> tuple[str, int]:
    """Parse ``addr:port`` or ``[addr]:port`` into address and port, in the same way as the agent. Raises
    ``ValueError``.
    """
    host, _colon, port = text.strip().rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    number = int(port) if port.isascii() and port.isdigit() and len(port) <= 20 else 0
    if (":" in host and not bracketed) or not 0 < number < 65536:
        raise ValueError("expected ADDRESS:PORT (an IPv6 address in brackets), got %r" % clip(text))
    return canonical_address(host[1:-1] if bracketed else host), number


def _plain(value: str) -> str:
    """Return a copy of ``value`` of type ``str``, because ansible-core uses a subclass of ``str`` to mark templates.

    Raises ``ValueError`` for invalid Unicode.
    """
    try:
        return value.encode("utf-8").decode("utf-8")
    except UnicodeEncodeError:
        raise ValueError("expected valid Unicode text, got %r" % clip(value)) from None


def _text(entry: dict[str, t.Any], field: str, limit: int) -> str:
    value = entry.get(field)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise ValueError("%s: expected text, got %s" % (field, type(value).__name__))
    text = _plain(value)
    size = len(text.encode("utf-8"))
    if size > limit:
        raise ValueError("%s: expected at most %d bytes, got %d" % (field, limit, size))
    return text


def _count(entry: dict[str, t.Any], field: str, limit: int) -> int:
    value = entry.get(field)
    if value is None and field != "port":
        return 0
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= limit:
        shown = clip(str(value)) if isinstance(value, (int, str)) else type(value).__name__
        raise ValueError("%s: expected a number from 0 to %d, got %s" % (field, limit, shown))
    return int(value)


def _seconds(value: t.Any) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < 1e12:
        raise ValueError("last_heard: expected seconds, got %s" % clip(repr(value)[:200]))
    return float(value)
