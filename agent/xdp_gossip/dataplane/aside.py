# SPDX-License-Identifier: MIT
"""Keeps a data plane that no agent uses from speaking for its node.

The programs answer edge probes for as long as they are attached, also after the agent has ended. If the agent then
starts without a data plane, these answers would be those of its earlier run, and the answers of the agent itself would
never be asked for.
"""

from __future__ import annotations

import logging
import os
import struct
from pathlib import Path

from ..core.types import Address
from . import headers, libbpf

_log = logging.getLogger("xdp_gossip.dataplane")

_INDEX = bytes(4)
#: Fields of the beginning of struct xg_config, which is the same in all layouts: addr, port, amount, wide, flags.
_HEAD = struct.Struct("=16s2sHHH")
_CONFIGS = "bpf/v*/config"


def pinned(directory: Path) -> list[Path]:
    """The pins of the configurations in ``directory``, the loader's directory: one for each layout that was loaded."""
    try:
        return sorted(directory.glob(_CONFIGS))
    except OSError:
        return []


def stand_aside(directory: Path, own: Address) -> bool:
    """Make the data plane of the node ``own``, of any layout, pass all packets to the stack.

    Returns whether there was a data plane that did not.
    """
    found = False
    for pin in pinned(directory):
        try:
            found = _release(pin, own) or found
        except (OSError, headers.HeaderError) as error:
            _log.warning("%s: the data plane there may answer edge probes for an earlier run: %s", pin, error)
    return found


def _release(pin: Path, own: Address) -> bool:
    running = headers.constants()["XG_RUNNING"]
    descriptor = libbpf.get(str(pin))
    try:
        held = libbpf.lookup(descriptor, _INDEX, libbpf.map_info(descriptor).value_size)
        addr, port, amount, wide, flags = _HEAD.unpack_from(held)
        if (addr, port) != (own.packed, own.port.to_bytes(2, "big")) or not flags & running:
            return False
        head = _HEAD.pack(addr, port, amount, wide, flags & ~running)
        libbpf.update(descriptor, _INDEX, head + held[_HEAD.size :])
        return True
    finally:
        os.close(descriptor)
