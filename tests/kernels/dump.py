# SPDX-License-Identifier: MIT
"""``dump.py BPF OUT [FLAG...]``: compile a ``bpf/`` with this system's BCC, and write bytecode and maps as JSON.

FLAGs are for ``dataplane.c``. Runs inside a distribution's root, with its Python. The programs are found in the
sources, so that none is forgotten.
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

#: A program: what its context is decides its type.
_PROGRAM = re.compile(r"^int (xg_\w+)\(struct (\w+) \*\w+\)$", re.MULTILINE)
_TYPES = {"xdp_md": "XDP", "__sk_buff": "SCHED_CLS", "bpf_raw_tracepoint_args": "RAW_TRACEPOINT"}
_SOURCES = ("dataplane.c", "selftest.c")
#: A table that is pinned where the loader says so.
_SHARED = re.compile(r"\bXG_SHARED\(\"\w+\", (\w+)\)")


def dump(bpf: Path, flags: Sequence[str] = ()) -> dict[str, Any]:
    """Source -> programs (type, bytecode) and maps by the descriptor that the bytecode has."""
    os.environ["BCC_KERNEL_SOURCE"] = str(bpf / "kshim")
    import bcc  # type: ignore[import-not-found,unused-ignore]

    includes = [bpf / "kshim/include", bpf, Path("/usr/include"), *Path("/usr/include").glob("*-linux-gnu")]
    found: dict[str, Any] = {}
    for source in _SOURCES:
        own = [*flags] if source == "dataplane.c" else []
        module = bcc.BPF(src_file=str(bpf / source).encode(), cflags=[*(f"-I{path}" for path in includes), *own])
        text = (bpf / source).read_text(encoding="utf-8")
        programs = {
            name: (_TYPES[kind], module.dump_func(name.encode()).hex()) for name, kind in _PROGRAM.findall(text)
        }
        maps = _maps(bcc.lib, module.module)
        for spec in maps.values():
            spec["pinned"] = spec["name"] in _SHARED.findall(text)
        found[source] = {"programs": programs, "maps": maps, "flags": sorted(own)}
    return found


def _maps(lib: Any, module: int) -> dict[str, dict[str, Any]]:
    lib.bpf_table_name.restype = ctypes.c_char_p
    for function in (lib.bpf_table_name, lib.bpf_table_fd_id):
        function.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    lib.bpf_num_tables.argtypes = [ctypes.c_void_p]
    found = {}
    for number in range(lib.bpf_num_tables(module)):
        descriptor = lib.bpf_table_fd_id(module, number)
        lines = Path(f"/proc/self/fdinfo/{descriptor}").read_text().splitlines()
        told = {name: value for name, _, value in (line.partition(":\t") for line in lines)}
        found[str(descriptor)] = {
            "name": lib.bpf_table_name(module, number).decode(),
            "type": int(told["map_type"]),
            "key": int(told["key_size"]),
            "value": int(told["value_size"]),
            "entries": int(told["max_entries"]),
            "flags": int(told["map_flags"], 16),
        }
    return found


if __name__ == "__main__":
    Path(sys.argv[2]).write_text(json.dumps(dump(Path(sys.argv[1]), sys.argv[3:])))
