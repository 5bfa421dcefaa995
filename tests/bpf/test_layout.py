# SPDX-License-Identifier: MIT
"""The structures of bpf/maps.h and bpf/wire.h are those that Python packs, field by field."""

from __future__ import annotations

import os
import re
import struct
from pathlib import Path

import pytest

from tests.bpf.harness import Plane
from xdp_gossip.dataplane import headers, layout, libbpf

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root: BPF")]

#: C type -> bytes. Natural alignment, as the BPF target has it.
SIZES = {"__u8": 1, "__be16": 2, "__u16": 2, "__be32": 4, "__u32": 4, "__u64": 8, "__be64": 8, "__s64": 8}
SIZES["struct bpf_spin_lock"] = 4
STRUCTS = {
    "xg_config": layout.CONFIG,
    "xg_key": layout.KEY,
    "xg_node_key": layout.NODE_KEY,
    "xg_node": layout.NODE,
    "xg_direct": layout.DIRECT,
    "xg_asker": layout.ASKER,
    "xg_ack": layout.ACK,
    "xg_allow_key": layout.ALLOW_KEY,
    "xg_target": layout.TARGET,
    "xg_nexthop": layout.NEXTHOP,
    "xg_event": layout.EVENT,
    "xg_refusal_key": layout.REFUSAL_KEY,
    "xg_refusal": layout.REFUSAL,
}
MAPS = {
    "config": (4, layout.CONFIG.size, 1),
    "keys": (4, layout.KEY.size, 256),
    "nodes": (layout.NODE_KEY.size, layout.NODE.size, None),
    "directs": (layout.NODE_KEY.size, layout.DIRECT.size, 4096),
    "askers": (layout.NODE_KEY.size, layout.ASKER.size, 4096),
    "acks": (layout.NODE_KEY.size, layout.ACK.size, 1024),
    "allow": (layout.ALLOW_KEY.size, 1, 257),
    "targets": (4, layout.TARGET.size, 512),
    "nexthops": (16, layout.NEXTHOP.size, 4096),
    "counters": (4, 8, len(headers.counters())),
    "events": (0, 0, 256 * 1024),
    "refusals": (layout.REFUSAL_KEY.size, layout.REFUSAL.size, 1024),
}


def fields(name: str) -> list[tuple[int, int]]:
    """Offset and size of each field of a C structure, padding fields left out."""
    text = "".join((headers.directory() / file).read_text() for file in ("maps.h", "wire.h"))
    text = re.sub(r"/\*.*?\*/", "", text, flags=re.DOTALL)
    body = re.search(rf"struct {name} {{(.*?)}};", text, re.DOTALL)
    assert body, f"struct {name}: not found"
    found, at = [], 0
    for kind, field, count in re.findall(r"((?:struct )?\w+) (\w+)(?:\[(\w+)\])?;", body[1]):
        times = int(count) if count.isdigit() else headers.constants()[count] if count else 1
        size = SIZES[kind]
        at = (at + size - 1) // size * size
        # Python reads an array of words as words, one of bytes as one string.
        if field != "zero":
            found += [(at + i * size, size) for i in range(times)] if size > 1 and count else [(at, size * times)]
        at += size * times
    return found


def formatted(form: struct.Struct) -> list[tuple[int, int]]:
    """Offset and size of each value of a ``struct`` format."""
    found, at = [], 0
    for count, code in re.findall(r"(\d*)([a-zA-Z])", form.format):
        size = struct.calcsize(f"={code}")
        if code in "sx":
            if code == "s":
                found.append((at, int(count or 1)))
            at += int(count or 1)
        else:
            for _ in range(int(count or 1)):
                found.append((at, size))
                at += size
    return found


@pytest.mark.parametrize("name", STRUCTS)
def test_structures_are_the_same(name: str) -> None:
    ours = formatted(STRUCTS[name])
    if name in ("xg_node_key", "xg_refusal_key"):
        ours = ours[:-1]  # its padding is written out, as it is part of the key
    assert fields(name) == ours


@pytest.mark.parametrize("name", MAPS)
def test_maps_have_the_sizes_that_user_space_expects(plane: Plane, name: str) -> None:
    info = libbpf.map_info(plane.map(name))
    key, value, entries = MAPS[name]
    assert (info.key_size, info.value_size, info.max_entries) == (key, value, entries or plane.nodes)


def test_each_counter_that_is_named_is_counted_somewhere() -> None:
    """And each that a program counts has a name."""
    sources = "".join(
        path.read_text() for path in Path(headers.directory()).glob("*.[ch]") if path.name != "counters.h"
    )
    used = set(re.findall(r"\bXG_COUNT_(\w+)", sources))
    assert used == set(headers.counters())
