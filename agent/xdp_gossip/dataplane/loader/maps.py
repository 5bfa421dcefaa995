# SPDX-License-Identifier: MIT
"""Functions for the maps that the agent and the programs share: expected properties, check of pins, change of owner."""

from __future__ import annotations

import os
from pathlib import Path

from .. import headers, layout, libbpf
from . import pins
from .errors import LoaderError

#: Maps whose number of entries the loader sets: the number of ``limits.nodes``.
SIZED = ("nodes",)


def expected(nodes: int) -> dict[str, tuple[int, int, int, int]]:
    """Return map name -> (type, bytes of a key, bytes of a value, entries), as ``bpf/maps.h`` defines for ``nodes``
    nodes.
    """
    constants = headers.constants()
    return {
        "config": (libbpf.ARRAY, 4, layout.CONFIG.size, 1),
        "keys": (libbpf.ARRAY, 4, layout.KEY.size, 256),
        "nodes": (libbpf.HASH, layout.NODE_KEY.size, layout.NODE.size, nodes),
        "directs": (libbpf.LRU_HASH, layout.NODE_KEY.size, layout.DIRECT.size, constants["XG_DIRECTS"]),
        "askers": (libbpf.LRU_HASH, layout.NODE_KEY.size, layout.ASKER.size, constants["XG_ASKERS"]),
        "acks": (libbpf.LRU_HASH, layout.NODE_KEY.size, layout.ACK.size, constants["XG_ACKS"]),
        "allow": (libbpf.LPM_TRIE, layout.ALLOW_KEY.size, 1, constants["XG_ALLOWED"]),
        "targets": (libbpf.ARRAY, 4, layout.TARGET.size, 2 * constants["XG_RING"]),
        "nexthops": (libbpf.LRU_HASH, 16, layout.NEXTHOP.size, constants["XG_NEXTHOPS"]),
        "events": (libbpf.RINGBUF, 0, 0, constants["XG_EVENT_BYTES"]),
        "counters": (libbpf.PERCPU_ARRAY, 4, 8, len(headers.counters())),
        "refusals": (libbpf.LRU_HASH, layout.REFUSAL_KEY.size, layout.REFUSAL.size, constants["XG_REFUSALS"]),
    }


def misfits(directory: Path, nodes: int) -> list[str]:
    """Describe, one line each, the differences between the maps pinned in ``directory`` and the expected maps."""
    found = []
    for name, wanted in expected(nodes).items():
        try:
            with pins.opened(directory / name) as descriptor:
                info = libbpf.map_info(descriptor)
        except OSError as error:
            found.append(f"map {name}: {error.strerror}")
            continue
        got = (info.type, info.key_size, info.value_size, info.max_entries)
        if got != wanted:
            found.append(f"map {name}: expected (type, key, value, entries) {wanted}, got {got}")
    return found


def forget_next_hops(directory: Path) -> None:
    """Delete all entries of the map of next hops, because they belong to the former interface. Raises ``OSError``."""
    _, key_size, _, entries = expected(0)["nexthops"]
    with pins.opened(directory / "nexthops") as descriptor:
        for key in libbpf.keys(descriptor, key_size, entries):
            libbpf.delete(descriptor, key)


def hand_over(directory: Path, uid: int) -> dict[str, int]:
    """Make the maps accessible to the agent's user only. Returns map name -> id. Raises ``LoaderError``."""
    found = {}
    for name in expected(0):
        path = directory / name
        try:
            with pins.opened(path) as descriptor:
                found[name] = libbpf.map_info(descriptor).id
            # The map's group is root, so that the next loader can open the map without a capability to bypass
            # permissions. The file's permissions are set before its owner, while root still owns the file.
            status = path.stat()
            if status.st_uid == 0:
                os.chmod(path, 0o660)
            if status.st_uid != uid:
                os.chown(path, uid, 0)
        except OSError as error:
            raise LoaderError(f"{path}: {error.strerror}", "the loader needs CAP_CHOWN") from None
    return found
