# SPDX-License-Identifier: MIT
"""The data plane's BPF programs at the node's end of the benchmark link (:mod:`.lane`), with their own maps and without
an agent.
"""

from __future__ import annotations

import ctypes
import os
import random
import struct
import time
from collections.abc import Sequence
from pathlib import Path

from xdp_gossip.core.types import Address
from xdp_gossip.dataplane import headers, layout
from xdp_gossip.wire.keys import Keyring, cluster_id

from . import lane, packets, programs
from .netns import BenchError, inside

_HOUR = 3600 * 10**9


class Plane:
    """The data plane ``dataplane.c`` from ``sources``, compiled and configured for the lane's node.

    The caller attaches the programs of the data plane. ``amount``: fan-out. ``members``: addresses of the relay
    targets. ``tc``: use the TC program instead of the XDP program.
    """

    def __init__(
        self, amount: int, members: Sequence[Address], tc: bool = False, sources: Path = programs.BPF_SOURCES
    ) -> None:
        constants = headers.constants()
        self._ring = min(len(members), constants["XG_RING"])
        sizes = {"XG_NODES": 20000, "XG_AMOUNT": amount, "XG_WIDE": 3 * amount}
        self._module = programs.compile_source(sources / "dataplane.c", sizes, sources)
        self._names = list(headers.counters(sources))
        self.kind = programs.TC_INGRESS if tc else programs.XDP
        self.egress = programs.load(self._module, "xg_tc_egress", "SCHED_CLS") if tc else None
        name = "xg_tc_ingress" if tc else "xg_xdp_ingress"
        self.ingress = programs.load(self._module, name, "SCHED_CLS" if tc else "XDP")
        with inside(lane.NODE):
            interface = programs.index_of(lane.INSIDE)
            if not tc:
                copier = programs.load(self._module, "xg_xdp_egress", "XDP", programs.DEVMAP)
                self._copier = copier  # this reference keeps the program loaded
                for table, count in (("relay", amount), ("relay_wide", 3 * amount)):
                    programs.set_devmap(self._module[table], [(interface, copier.fd)] * count)
        key = Keyring.single(packets.CLUSTER, packets.SECRET).active
        self._write("keys", struct.pack("=I", key.id), layout.KEY.pack(1, key.mac))
        self._interface = interface
        self._fill_ring(members)
        self._configure(amount)

    def _write(self, table: str, key: bytes, value: bytes) -> None:
        programs.write(self._module[table], key, value)

    def _fill_ring(self, members: Sequence[Address]) -> None:
        hop = layout.NEXTHOP.pack(lane.PEER_MAC, lane.LOCAL_MAC, self._interface, time.monotonic_ns() + _HOUR)
        for number, member in enumerate(random.Random(1).sample(list(members), self._ring)):
            target = layout.TARGET.pack(member.packed, member.port.to_bytes(2, "big"))
            self._write("targets", struct.pack("=I", number), target)
            self._write("nexthops", member.packed, hop)

    def _configure(self, amount: int) -> None:
        now = time.monotonic_ns()
        config = layout.CONFIG.pack(
            lane.LOCAL.packed,
            lane.LOCAL.port.to_bytes(2, "big"),
            amount,
            3 * amount,
            headers.constants()["XG_RUNNING"],
            cluster_id(packets.CLUSTER).to_bytes(4, "big"),
            1,
            0,
            now + 24 * _HOUR,
            time.time_ns() - now,
            _HOUR,
            _HOUR,
            0,
            self._ring,
            0,  # no probe was sent
            time.time_ns() - now,
            0,
            now,
            0,
            0,
        )
        self._write("config", struct.pack("=I", 0), config)

    def admit(self, origins: int, highest: int = 0) -> None:
        """Add ``origins`` members to the node map, as if the data plane had seen the sequence ``highest`` of each
        member.

        After this call, the data plane accepts a packet of one of these members as new if the packet's sequence is
        above ``highest``.
        """
        import bcc

        now = time.monotonic_ns()
        value = layout.NODE.pack(0, 1, highest, 0, now, time.time_ns() - now, 0, 0, 0, 0, 0, 0)
        keys = b"".join(layout.node_key(packets.origin(number)) for number in range(origins))
        count = ctypes.c_uint32(origins)
        done = bcc.lib.bpf_update_batch(
            self._module["nodes"].map_fd,
            ctypes.create_string_buffer(keys, len(keys)),
            ctypes.create_string_buffer(value * origins, len(value) * origins),
            ctypes.byref(count),
        )
        if done != 0:
            raise BenchError(f"nodes: {os.strerror(ctypes.get_errno())}")

    def counters(self) -> dict[str, int]:
        """The value of every counter, summed over the processors."""
        table = self._module["counters"]
        return {name: sum(table[ctypes.c_int(number)]) for number, name in enumerate(self._names)}
