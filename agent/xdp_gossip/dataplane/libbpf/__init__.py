# SPDX-License-Identifier: MIT
"""The binding to libbpf and to the system call bpf, with ctypes. No other module calls them.

This binding needs one megabyte of memory, whereas BCC needs a hundred megabytes.

``binding`` loads the library, ``maps`` contains maps and ring buffers, ``programs`` and ``creation`` contain the
functions that only the loader calls. Descriptors are plain integers that the caller closes. Every failure is an
``OSError`` with the kernel's errno; failures of ``Map`` and ``RingBuffer`` are ``MapError``, which names the map and
the call.
"""

from __future__ import annotations

from .binding import LibraryMissing, check, get, library, processors
from .creation import (
    DEVMAP,
    LOG_TEXT,
    LOG_TOTALS,
    PROG_XDP,
    RAW_TRACEPOINT,
    SCHED_CLS,
    map_create,
    program_load,
)
from .maps import (
    ANY,
    ARRAY,
    EXIST,
    HASH,
    LOCK,
    LPM_TRIE,
    LRU_HASH,
    NOEXIST,
    PERCPU_ARRAY,
    RINGBUF,
    Map,
    MapError,
    MapInfo,
    RingBuffer,
    delete,
    keys,
    lookup,
    lookup_per_cpu,
    map_info,
    update,
)
from .programs import (
    BEFORE,
    TCX_EGRESS,
    TCX_INGRESS,
    XDP,
    XDP_DEVMAP,
    XDP_GENERIC,
    XDP_NATIVE,
    Link,
    RunResult,
    link_create,
    link_detach,
    link_info,
    link_update,
    pin,
    program_info,
    program_name,
    run,
    tracepoint_open,
)

__all__ = [
    "ANY", "ARRAY", "BEFORE", "DEVMAP", "EXIST", "HASH", "LOCK", "LOG_TEXT", "LOG_TOTALS", "LPM_TRIE", "LRU_HASH",
    "LibraryMissing", "Link", "Map", "MapError", "MapInfo", "NOEXIST", "PERCPU_ARRAY", "PROG_XDP", "RAW_TRACEPOINT",
    "RINGBUF", "RingBuffer", "RunResult", "SCHED_CLS", "TCX_EGRESS", "TCX_INGRESS", "XDP", "XDP_DEVMAP", "XDP_GENERIC",
    "XDP_NATIVE", "check", "delete", "get", "keys", "library", "link_create", "link_detach", "link_info", "link_update",
    "lookup", "lookup_per_cpu", "map_create", "map_info", "pin", "processors", "program_info", "program_load",
    "program_name", "run", "tracepoint_open", "update",
]  # fmt: skip
