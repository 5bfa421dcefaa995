# SPDX-License-Identifier: MIT
"""Checks how close the agent's process is to its limits of file descriptors and memory."""

from __future__ import annotations

from collections.abc import Iterator

from .finding import Finding, Subject
from .look import Look

_SAYS = Subject("process", descriptors="warning", memory="warning")
#: A value above this fraction of its limit (file descriptors, memory) is reported as close to the limit.
_NEAR = 0.8
_MIB = 1024 * 1024


def examine(look: Look) -> Iterator[Finding]:
    """Yield findings about the agent's process, taken from the agent's status."""
    process = (look.status or {}).get("process")
    if not process:
        return
    wrong = []
    used, most = process["descriptors"], process["descriptors_limit"]
    if most and used >= _NEAR * most:
        remedy = "raise LimitNOFILE in a drop-in of xdp-gossip.service; who has so many connections? ss -tnp"
        wrong.append(_SAYS("descriptors", f"{used} of {most} file descriptors are in use", remedy))
    memory, limit = process["memory"], process["memory_limit"]
    if limit and memory >= _NEAR * limit:
        text = f"{memory // _MIB} of {limit // _MIB} MiB of memory are in use"
        remedy = "raise xdp_gossip_agent_memory_max (MemoryMax of xdp-gossip.service), or lower limits.store"
        wrong.append(_SAYS("memory", text, remedy))
    yield from wrong
    if not wrong:
        bound = f" of {limit // _MIB}" if limit else ""
        yield _SAYS.ok(f"{used} of {most} file descriptors, {memory // _MIB}{bound} MiB of memory")
