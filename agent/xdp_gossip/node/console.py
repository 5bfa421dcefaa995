# SPDX-License-Identifier: MIT
"""Formats the lines that PekoNode prints with IsPrint, in the format that PekoNode's README shows (docs/toolkit.md)."""

from __future__ import annotations

import datetime
from collections.abc import Sequence

from ..core.events import DocumentChanged, Event, HeartbeatSent, Joined, Paused, Resumed, SwapAnswered, SwapRequested
from ..core.shown import printable
from ..core.types import Address, Node


def _body(event: Event, nodes: Sequence[Node], listen_addr: str) -> str | None:
    if isinstance(event, Joined):
        return f"[Join]: {event.node}"
    if isinstance(event, Paused):
        return f"[Stop]: {event.node}"
    if isinstance(event, Resumed):
        return f"[Start]: {event.node}"
    if isinstance(event, HeartbeatSent):
        listen = Address(listen_addr or event.node.addr, event.node.port)
        return f"[Listen]: {listen} / [Node list]: [{' '.join(map(str, nodes))}]"
    if isinstance(event, SwapRequested):
        return f"[Swap Request]: {event.requester} -> {event.responder}"
    if isinstance(event, SwapAnswered):
        return f"[Swap Response]: {event.requester} <- {event.responder}"
    if isinstance(event, DocumentChanged) and event.local:
        document = event.document
        content = "deleted" if document.deleted else f"{document.size} bytes"
        publisher = nodes[0] if nodes else document.version.origin
        # PekoNode prints the document's value here. This line omits the value, because a document may contain secrets.
        return f"[Publish]: {publisher} / [Metadata]: {document.key} ({content})"
    return None


def format_event(event: Event, nodes: Sequence[Node], when: datetime.datetime, listen_addr: str = "") -> str | None:
    """Format ``event`` as a console line without a newline; None for an event that PekoNode does not print.

    ``nodes`` is the node list at that moment, with the local node first. ``when`` is printed in whole seconds and in
    its own time zone. ``listen_addr`` is the address that the line prints after ``[Listen]`` (default: the node's own
    address).
    """
    body = _body(event, nodes, listen_addr)
    return None if body is None else f"{when:%Y-%m-%d %H:%M:%S} [{printable(body)}]"
