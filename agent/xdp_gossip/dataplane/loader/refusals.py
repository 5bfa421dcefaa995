# SPDX-License-Identifier: MIT
"""Reads the senders of packets that the programs dropped.

The senders are a sample: at most one packet per processor and kernel tick is recorded.

The address is the packet's source address, which a sender can forge.
"""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import headers, layout, libbpf
from . import pins


@dataclass(frozen=True)
class Source:
    """The packets from one address that were dropped for one reason.

    ``verdict``: name of the counter for this reason. ``ago``: seconds since the last such packet.
    """

    addr: str
    verdict: str
    what: str
    samples: int
    ago: float


def sources(pinned: Path) -> list[Source]:
    """The senders of dropped packets, most recent first. Raises ``OSError``."""
    names = headers.counters()
    by_index = list(names)
    now = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
    found: dict[bytes, Source] = {}
    with pins.opened(pinned / "refusals") as descriptor:
        for key in libbpf.keys(descriptor, layout.REFUSAL_KEY.size, headers.constants()["XG_REFUSALS"]):
            try:
                samples, last = layout.REFUSAL.unpack(libbpf.lookup(descriptor, key, layout.REFUSAL.size))
            except FileNotFoundError:
                continue  # the map evicted the entry before this lookup
            addr, verdict, _zero = layout.REFUSAL_KEY.unpack(key)
            if verdict >= len(by_index):
                continue
            parsed = ipaddress.IPv6Address(addr)
            name = by_index[verdict]
            ago = max(0.0, (now - last) / 1e9)
            found[key] = Source(str(parsed.ipv4_mapped or parsed), name, names[name], samples, round(ago, 1))
    return sorted(found.values(), key=lambda source: source.ago)


def line(source: Mapping[str, Any]) -> str:
    """Format one source as a line of text."""
    number = source["samples"]
    packets = "1 packet" if number == 1 else f"{number} packets"
    return (
        f"{source['addr']}: {packets} dropped as {source['verdict']} ({source['what']}; sampled), "
        f"last {source['ago']:.0f} s ago"
    )
