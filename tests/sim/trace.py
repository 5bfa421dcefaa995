# SPDX-License-Identifier: MIT
"""A world's events as lines of text; docs/simulator.md says how to read them.

    SECONDS hostN WHAT DETAILS

``SECONDS`` is virtual time. A line with a lower-case word is an input of the node (``boot``, ``receive``, ``timer``);
one with a class name is what its engine told after that input.
"""

from __future__ import annotations

from xdp_gossip.core.events import (
    CaughtUp,
    DocumentChanged,
    Event,
    IncarnationChanged,
    MemberChanged,
    Warned,
)
from xdp_gossip.core.packets import Codec, Rejected
from xdp_gossip.core.types import Address


def line(codec: Codec, seconds: float, number: int, what: str, data: bytes) -> str:
    """The line of an input: ``data`` is the packet of ``receive``, or text."""
    details = _packet(codec, data) if what == "receive" else data.decode()
    return f"{seconds:12.6f} host{number} {what} {details}".rstrip()


def event_line(seconds: float, number: int, event: Event) -> str | None:
    """The line of an event; None for one that says nothing of the cluster, such as a heartbeat that was sent."""
    details = _event(event)
    return None if details is None else f"{seconds:12.6f} host{number} {type(event).__name__} {details}"


def host(address: Address) -> str:
    """``host2`` for 198.18.0.3:8000, as ``world.SimNode`` numbers its nodes; any other address as it is."""
    network, _, last = address.ip.rpartition(".")
    return f"host{int(last) - 1}" if network == "198.18.0" and address.port == 8000 else str(address)


def _packet(codec: Codec, data: bytes) -> str:
    try:
        header = codec.parse(data)
        message = codec.open(data, header)
    except Rejected as rejected:
        return f"{len(data)} bytes, {rejected.reason}"
    name = header.type.name.title() if message is None else type(message).__name__
    text = f"{name} of {host(header.origin)} run {header.incarnation} #{header.sequence}"
    text += f" ttl {header.ttl}" if header.ttl else ""
    return f"{text} digest {header.documents_digest >> 48:04x}"


def _event(event: Event) -> str | None:
    if isinstance(event, MemberChanged):
        if event.previous is event.member.state:
            return f"{host(event.member.address)} record"
        before = event.previous.value if event.previous else "unknown"
        return f"{host(event.member.address)} {before} -> {event.member.state.value}"
    if isinstance(event, DocumentChanged):
        document = event.document
        what = "deleted" if document.deleted else f"{document.size} bytes"
        conflict = ", conflict" if event.conflict else ""
        return f"{document.key!r} {document.version.hlc:016x}@{host(document.version.origin)} {what}{conflict}"
    if isinstance(event, Warned):
        return f"{event.code}: {event.text}"
    if isinstance(event, IncarnationChanged):
        return str(event.incarnation)
    return event.how if isinstance(event, CaughtUp) else None
