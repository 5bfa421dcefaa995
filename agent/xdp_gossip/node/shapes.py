# SPDX-License-Identifier: MIT
"""Converts objects of the protocol to plain dictionaries with the schemas ``Node`` and ``Document`` of the OpenAPI
file.
"""

from __future__ import annotations

import base64
import datetime
from collections.abc import Iterable
from typing import Any

from ..core.sealed import fingerprint_text
from ..core.signers import SignedBy
from ..core.types import Document, Member, Node


def node(member: Member) -> dict[str, Any]:
    """Convert a member, with the state in which this agent sees it, to the schema ``Node``."""
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
        "zone": member.zone,
        "last_heard": 0.0 if member.local else round(max(0.0, member.last_heard), 3),
        "digest": f"{member.digest:016x}",
        "local": member.local,
        "record_known": record is not None,
        **({"signers": f"{record.signers:016x}"} if record is not None and record.signers else {}),
        **({"keys": keys(record.keys)} if record is not None and record.keys else {}),
        **({"sealing": fingerprint_text(record.sealing)} if record is not None and record.sealing else {}),
        **({"key_id": member.key_id} if member.key_id is not None else {}),
        **({"problems": list(member.problems)} if member.problems else {}),
    }


def keys(states: Iterable[tuple[int, str]]) -> list[dict[str, Any]]:
    """Convert fingerprints and states of keys to a list of the schema ``Key``."""
    return [{"fingerprint": f"{fingerprint:016x}", "state": state} for fingerprint, state in states]


def pascal_node(value: Node) -> dict[str, Any]:
    """Convert a node to the JSON object that PekoNode and eGossip use."""
    return {"Addr": value.addr, "Port": value.port, "Name": value.name, "PrivateData": value.private_data}


def published_at(milliseconds: int) -> str:
    """Format a time stamp (milliseconds since the epoch) by RFC 3339, in UTC.

    A time after the year 9999, which Python cannot represent, becomes the last millisecond of that year.
    """
    try:
        moment = datetime.datetime.fromtimestamp(milliseconds / 1000, datetime.timezone.utc)
    except (OverflowError, ValueError, OSError):
        return "9999-12-31T23:59:59.999Z"
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{milliseconds % 1000:03d}Z"


def signature(found: SignedBy | None) -> dict[str, Any] | None:
    """Convert who signed a document to the schema ``SignedBy``; None for a document without a signature."""
    if found is None:
        return None
    return {"signer": found.signer or None, "key": found.fingerprint, "withdrawn": found.withdrawn}


def sealed(value: Document) -> dict[str, Any] | None:
    """Convert what everybody may know of a sealed document to the schema ``Sealed``; None for another document."""
    found = value.sealed
    if found is None:
        return None
    if isinstance(found, str):
        return {"damaged": found, "content_type": None, "size": None, "recipients": []}
    recipients = sorted(({"name": one.name, "key": one.text} for one in found.recipients), key=_by_name)
    return {"damaged": None, "content_type": found.content_type, "size": found.size, "recipients": recipients}


def _by_name(recipient: dict[str, str]) -> tuple[str, str]:
    return recipient["name"], recipient["key"]


def sealed_summary(value: Document) -> bytes:
    """Describe a sealed document in one line for each property, so that versions can be compared without the content.

    Only for a document whose ``sealed`` is not None.
    """
    found = sealed(value)
    assert found is not None
    lines = [f"sealed document, {value.size} bytes, {value.digest}"]
    if found["damaged"]:
        lines.append(f"damaged: {found['damaged']}")
    else:
        lines.append(f"content: {found['content_type']}, {found['size']} bytes")
    lines += [f"recipient: {one['name']} {one['key']}" for one in found["recipients"]]
    return "".join(f"{line}\n" for line in lines).encode()


def document(value: Document, signed_by: SignedBy | None) -> dict[str, Any]:
    """Convert one version of a document, without its value, to the schema ``Document``.

    Lists of documents use this schema. For documents that were written together, the schema contains only their number.
    If the schema contained the keys of a batch, each document of the batch would list the keys of all other documents.
    """
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
        "expires": published_at(value.expires) if value.expires else None,
        "batch_size": max(1, len(value.batch)),
        "signed_by": signature(signed_by),
        "sealed": sealed(value),
    }


def document_with_value(value: Document, signed_by: SignedBy | None) -> dict[str, Any]:
    """Convert a document to the schema ``Document`` with ``value_base64``."""
    return {**document(value, signed_by), "value_base64": base64.b64encode(value.value).decode("ascii")}


def whole_document(value: Document, signed_by: SignedBy | None, signature: dict[str, str] | None) -> dict[str, Any]:
    """Convert a document to the schema ``Document`` with ``value_base64`` and ``batch``, the keys of all documents
    written together.
    """
    lineage = [str(version) for version in (value.version, *value.lineage)]
    more = {"batch": list(value.batch), "lineage": lineage, "signature": signature}
    return {**document_with_value(value, signed_by), **more}
