# SPDX-License-Identifier: MIT
"""PekoNode's wire format: one JSON object per datagram or TCP connection, as Go's ``encoding/json`` writes it.

``{"Node":{"Addr":text,"Port":int,"Name":text,"PrivateData":text},"Infected":{"addr:port":true,...},
"Metadata":{"Data":base64 or null,"Update":int64},"IsUpdate":bool,"IsSwap":0|1|2,"SecretKey":text}``

The encoder writes the same bytes as Go 1.22 and later for the same packet: fields in the order of the struct, map keys
sorted, ``<``, ``>``, ``&``, U+2028 and U+2029 escaped. (Go before 1.22 writes the control characters 8 and 12 as
\\u0008 and \\u000c.) The decoder accepts every packet that a Go node can send. Like Go, the decoder ignores unknown
fields, and reads a missing or null field as the zero value of its type; a packet must have a ``Node`` with a port. The
decoder rejects some packets that Go accepts: field names in another letter case, invalid UTF-8 and lone surrogates (Go
would replace them), negative versions and unknown swap roles.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from typing import Any, NoReturn

from .packet import MAX_STAMP, Packet, PekoNodeId, Swap, WireError

__all__ = ["DEFAULT_SIZE", "Packet", "PekoNodeId", "Swap", "WireError", "decode", "encode", "secret_digest"]

#: PekoNode's default ``Size`` in bytes. A node drops packets of ``Size`` bytes or more.
DEFAULT_SIZE = 16384

#: Characters that Go escapes in JSON strings although JSON does not require it. Outside of strings, JSON has none of
#: these characters.
_GO_ESCAPES = str.maketrans({char: f"\\u{ord(char):04x}" for char in "<>&\u2028\u2029"})


def secret_digest(secret_key: str) -> str:
    """The MD5 of the cluster's key in lower-case hexadecimal, as PekoNode's ``New`` computes it; "" for an empty key.

    The digest is weak protection: an attacker who sees one packet can send forged packets. PekoNode has no stronger
    method.
    """
    if not secret_key:
        return ""
    return hashlib.md5(secret_key.encode(), usedforsecurity=False).hexdigest()


def encode(packet: Packet) -> bytes:
    """Encode a packet as a Go node would.

    ``Infected`` is never null, because Go nodes crash when they add an entry to a null map.
    """
    node = packet.node
    data = None if packet.data is None else base64.b64encode(packet.data).decode("ascii")
    fields = {
        "Node": {
            "Addr": node.addr,
            "Port": node.port,
            "Name": node.name,
            "PrivateData": node.private_data,
        },
        "Infected": dict.fromkeys(sorted(packet.infected), True),
        "Metadata": {"Data": data, "Update": packet.stamp},
        "IsUpdate": packet.is_update,
        "IsSwap": int(packet.swap),
        "SecretKey": packet.secret,
    }
    text = json.dumps(fields, ensure_ascii=False, separators=(",", ":"), check_circular=False)
    return text.translate(_GO_ESCAPES).encode("utf-8")


def decode(data: bytes, size: int = DEFAULT_SIZE) -> Packet:
    """Decode one packet.

    Raises ``WireError`` with the reason ``oversized`` if ``data`` has ``size`` bytes or more, otherwise ``malformed``.
    """
    if len(data) >= size:
        raise WireError("oversized", f"packet: expected less than {size} bytes, got {len(data)}")
    fields = _object(_parse(data), "packet")
    node = _object(fields.get("Node"), "Node")
    metadata = _optional_object(fields, "Metadata")
    return Packet(
        node=PekoNodeId(
            addr=_text(node, "Addr"),
            port=_integer(node, "Port", 1, 65535),
            name=_text(node, "Name"),
            private_data=_text(node, "PrivateData"),
        ),
        infected=_infected(_optional_object(fields, "Infected")),
        data=_blob(metadata, "Data"),
        stamp=_integer(metadata, "Update", 0, MAX_STAMP),
        is_update=_flag(fields, "IsUpdate"),
        swap=Swap(_integer(fields, "IsSwap", 0, 2)),
        secret=_text(fields, "SecretKey"),
    )


def _parse(data: bytes) -> Any:
    try:
        return json.loads(data.decode("utf-8"), parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError and JSONDecodeError are ValueErrors
        raise WireError("malformed", f"packet: expected one JSON object in UTF-8: {error}") from None


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _wrong(name: str, expected: str, value: object) -> WireError:
    return WireError("malformed", f"{name}: expected {expected}, got {value!r:.60}")


def _object(value: Any, name: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _wrong(name, "an object", value)
    return value


def _optional_object(fields: dict[str, Any], name: str) -> dict[str, Any]:
    value = fields.get(name)
    return {} if value is None else _object(value, name)


def _text(fields: dict[str, Any], name: str) -> str:
    value = fields.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise _wrong(name, "text", value)
    return _valid(value, name)


def _valid(text: str, name: str) -> str:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise _wrong(name, "valid Unicode", text) from None
    return text


def _integer(fields: dict[str, Any], name: str, least: int, most: int) -> int:
    value = fields.get(name)
    if value is None:
        value = 0
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise _wrong(name, f"an integer from {least} to {most}", value)
    return value


def _flag(fields: dict[str, Any], name: str) -> bool:
    value = fields.get(name)
    if value is None:
        return False
    if not isinstance(value, bool):
        raise _wrong(name, "true or false", value)
    return value


def _infected(labels: dict[str, Any]) -> frozenset[str]:
    if any(not isinstance(mark, bool) for mark in labels.values()):
        raise _wrong("Infected", "true or false for each node", labels)
    return frozenset(_valid(label, "Infected") for label, mark in labels.items() if mark)


def _blob(fields: dict[str, Any], name: str) -> bytes | None:
    value = fields.get(name)
    if value is None:
        return None
    if not isinstance(value, str) or len(value) % 4:
        raise _wrong(name, "base64 with padding", value)
    try:
        return base64.b64decode(value, validate=True)
    except (ValueError, binascii.Error):
        raise _wrong(name, "base64 with padding", value) from None
