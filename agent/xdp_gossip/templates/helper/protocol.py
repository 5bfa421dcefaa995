# SPDX-License-Identifier: MIT
"""The protocol between agent and helper: a frame with a JSON header, then the content.

``length (4 bytes, big-endian) | {"template": NAME, "size": N}`` and N bytes; the answer is one frame
``{"state", "changed", "stage", "error", "output"}``. With ``"repair": true`` a file that was changed by hand is
replaced also where the template leaves it. One request for each connection.

``{"service": NAME, "sizes": {TEMPLATE: N, ...}}`` (and ``repair``), then the contents in that order, is for all
templates of a service at once; the answer is ``{"results": {TEMPLATE: what a single one is answered}}``, or a single
one for all.

``{"watch": true}`` asks for frames ``{"drifted": {NAME: TEXT}}``, all templates whose file is not what was put in
place: one at once, one at each change, and one after each look as long as there are any, until either side closes the
connection.
"""

from __future__ import annotations

import json
import struct
from typing import Any

#: Bytes of a header or an answer.
MAX_FRAME = 65_536
LENGTH = struct.Struct(">I")


def pack(value: dict[str, Any]) -> bytes:
    """Encode a frame."""
    body = json.dumps(value).encode("ascii")
    return LENGTH.pack(len(body)) + body


def unpack(body: bytes) -> dict[str, Any]:
    """The value of a frame's body. Raises ``ValueError``."""
    value = json.loads(body.decode("utf-8"))
    if not isinstance(value, dict):
        raise ValueError("expected a JSON object")
    return value
