# SPDX-License-Identifier: MIT
"""Bodies of native packets: ``[tag, fields...]`` in msgpack. ``core/messages.py`` defines the tags and fields."""

from __future__ import annotations

import msgpack

from ..core.messages import BY_CLASS, BY_TAG
from ..core.packets import PacketType, Rejected
from ..core.registry import Message


def pack(message: Message) -> bytes:
    """Encode a message as the bytes of a body."""
    registered = BY_CLASS[type(message)]
    return bytes(msgpack.packb([registered.tag, *registered.schema.pack(message)], use_bin_type=True))


def unpack(kind: PacketType, raw: bytes) -> Message:
    """Decode the body of a packet of type ``kind``, and check it completely. Raises ``Rejected``: bad_body."""
    try:
        fields = msgpack.unpackb(raw, raw=False, strict_map_key=True, max_map_len=0, max_ext_len=0)
        tagged = isinstance(fields, list) and fields and type(fields[0]) is int
        registered = BY_TAG.get(fields[0]) if tagged else None
        if registered is None or kind not in registered.kinds:
            raise ValueError("expected a message that this packet type may carry")
        message: Message = registered.schema.unpack(fields[1:])
    except (ValueError, TypeError, OverflowError, msgpack.exceptions.UnpackException):
        raise Rejected("bad_body") from None
    return message
