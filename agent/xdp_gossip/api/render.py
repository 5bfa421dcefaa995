# SPDX-License-Identifier: MIT
"""Values of the protocol as the API's JSON: ``Node`` and ``Document`` in the OpenAPI file."""

from __future__ import annotations

import base64
import datetime
import hashlib
import json
from collections.abc import Iterable
from typing import Any

from aiohttp import web

from ..core.types import Document, Member, Node

#: Not sent with the entity tag of the node list, because they change with every heartbeat.
_VOLATILE = ("last_heard", "sequence")


def json_response(value: Any, *, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    """``value`` as a JSON response in UTF-8."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    # A lone surrogate can only come from a value of our own; escape it rather than fail the whole answer.
    body = text.encode("utf-8", "backslashreplace")
    return web.Response(body=body, status=status, headers=headers, content_type="application/json", charset="utf-8")


def node(member: Member) -> dict[str, Any]:
    """NODE: one member as this agent sees it."""
    record = member.record
    return {
        "addr": member.address.ip,
        "port": member.address.port,
        "name": record.name if record else "",
        "private_data": record.private_data if record else "",
        "state": member.state.value,
        "incarnation": member.incarnation,
        "sequence": member.sequence,
        "version": record.agent_version if record else "",
        "protocol": record.plane if record else "",
        "last_heard": 0.0 if member.local else round(max(0.0, member.last_heard), 3),
        "digest": f"{member.digest:016x}",
        "local": member.local,
        "record_known": record is not None,
    }


def pascal_node(value: Node) -> dict[str, Any]:
    """A node as PekoNode and eGossip write it in JSON."""
    return {"Addr": value.addr, "Port": value.port, "Name": value.name, "PrivateData": value.private_data}


def published_at(milliseconds: int) -> str:
    """RFC 3339 in UTC. A stamp beyond the year 9999, which no calendar here can hold, is given as its last moment."""
    try:
        moment = datetime.datetime.fromtimestamp(milliseconds / 1000, datetime.timezone.utc)
    except (OverflowError, ValueError, OSError):
        return "9999-12-31T23:59:59.999Z"
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{milliseconds % 1000:03d}Z"


def document(value: Document) -> dict[str, Any]:
    """DOC: what is known of one version of a document, without its value."""
    return {
        "key": value.key,
        "version": str(value.version),
        "digest": value.digest,
        "size": value.size,
        "content_type": value.content_type,
        "author": value.author,
        "comment": value.comment,
        "published_at": published_at(value.version.wall_ms),
        "deleted": value.deleted,
    }


def document_with_value(value: Document) -> dict[str, Any]:
    """DOC with ``value_base64``."""
    return {**document(value), "value_base64": base64.b64encode(value.value).decode("ascii")}


def etag_of(value: Any) -> str:
    """A weak entity tag (RFC 9110, 8.8.1) of a JSON value."""
    raw = json.dumps(value, sort_keys=True).encode("utf-8")
    return f'W/"{hashlib.blake2b(raw, digest_size=12).hexdigest()}"'


def nodes_etag(nodes: Iterable[dict[str, Any]], *more: str) -> str:
    """Entity tag of a node list: equal as long as nothing but heartbeats came in."""
    stable = [{name: value for name, value in entry.items() if name not in _VOLATILE} for entry in nodes]
    return etag_of([stable, *more])
