# SPDX-License-Identifier: MIT
"""A program container that fits this release, for tests that load nothing into a kernel."""

from __future__ import annotations

import struct
from typing import Any

from xdp_gossip.dataplane import headers
from xdp_gossip.dataplane.loader import container
from xdp_gossip.dataplane.loader.container import CONSTANT, MAP, NUMBER, Container, MapSpec, Part
from xdp_gossip.dataplane.loader.programs import SOURCES


def wide(source: int, value: int, upper: int = 0, register: int = 1) -> bytes:
    """A load of a 64-bit number."""
    return struct.pack("<BBhiBBhi", 0x18, register | source << 4, 0, value, 0, 0, 0, upper)


def call(number: int, source: int = 0) -> bytes:
    """A call."""
    return struct.pack("<BBhi", 0x85, source << 4, 0, number)


EXIT = struct.pack("<BBhi", 0x95, 0, 0, 0)
CODE = wide(MAP, 1) + wide(CONSTANT, 1) + wide(NUMBER, -5, 7) + call(1) + EXIT


def made(**changes: Any) -> Container:
    """A container that fits this release, but for the changes: every program is the same."""
    parts = []
    for source, programs in SOURCES.items():
        specs = (MapSpec("first", 2, 4, 8, 1, 0, False, False), MapSpec("nodes", 1, 20, 64, 0, 0, True, True))
        parts.append(Part(source, specs, tuple(container.Program(*each, CODE) for each in programs.items())))
    fields = {
        "sources": headers.sources_digest(),
        "layout": headers.constants()["XG_LAYOUT"],
        "compiler": "BCC 1, LLVM 2",
        "parts": tuple(parts),
    }
    return Container(**{**fields, **changes})
