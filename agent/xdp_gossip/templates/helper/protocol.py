# SPDX-License-Identifier: MIT
"""The protocol between agent and helper: a frame with a JSON header, followed by the content.

A request for one template consists of ``length (4 bytes, big-endian) | {"template": NAME, "size": N}`` and N bytes of
content. The answer is one frame ``{"state", "changed", "stage", "error", "output"}``. With ``"repair": true``, the
helper also replaces a file that was changed by hand and whose template has ``drift: report``. Each connection carries
exactly one request.

A request for all templates of a service is ``{"service": NAME, "sizes": {TEMPLATE: N, ...}}`` (and ``repair``),
followed by the contents in the order of ``sizes``. The answer is ``{"results": {TEMPLATE: answer for one template}}``,
or one answer that is the same for all templates.

``{"watch": true}`` requests frames ``{"drifted": {NAME: TEXT}}``, which list all templates whose file differs from the
installed content. The helper sends the first frame at once. Until either side closes the connection, the helper sends a
further frame when the list changes, and after each check that finds a file that differs.
"""

from __future__ import annotations

import json
import struct
from typing import Any

#: Maximum bytes of a request's header or of an answer.
MAX_FRAME = 65_536
LENGTH = struct.Struct(">I")


def pack(value: dict[str, Any]) -> bytes:
    """Encode ``value`` as a frame."""
    body = json.dumps(value).encode("ascii")
    return LENGTH.pack(len(body)) + body


def unpack(body: bytes) -> dict[str, Any]:
    """Decode the body of a frame. Raises ``ValueError``."""
    value = json.loads(body.decode("utf-8"))
    if not isinstance(value, dict):
        raise ValueError("expected a JSON object")
    return value
