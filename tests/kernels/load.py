# SPDX-License-Identifier: MIT
"""``load.py DUMP OUT``: ask this kernel's verifier for every program of a dump. Needs Python alone, no BCC.

Every program is tried on its own. OUT is JSON: program -> accepted, instructions, verified (instructions that the
verifier walked), stack (bytes), helpers (ids), says (the end of the verifier's log).
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import json
import os
import re
import resource
import struct
import sys
from pathlib import Path
from typing import Any

_SYSCALL_BPF = 321
_MAP_CREATE, _PROG_LOAD, _OBJ_PIN, _OBJ_GET, _BTF_LOAD = 0, 5, 6, 7, 18
_TYPES = {"SCHED_CLS": 3, "XDP": 6, "RAW_TRACEPOINT": 17}
_DEVMAP, _ATTACH_DEVMAP = 14, 33
#: The kernel adds it to every device map; it may not be asked for (BPF_F_RDONLY_PROG).
_ADDED_FLAG = 1 << 7
#: Opcodes: a call, and a load of 64 bits, whose source register says that the value is a map's descriptor.
_CALL, _LOAD_64, _IS_MAP = 0x85, 0x18, 1
_LOG_BYTES = 1 << 24
_LOG_TEXT, _LOG_STATS = 1, 4
_LAST_LINES = 12

_libc = ctypes.CDLL(None, use_errno=True)


def _bpf(command: int, attributes: bytes) -> int:
    """The system call: a descriptor, or -errno."""
    room = ctypes.create_string_buffer(attributes.ljust(144, b"\0"), 144)
    result = _libc.syscall(_SYSCALL_BPF, command, room, 144)
    return int(result) if result >= 0 else -ctypes.get_errno()


def _lock_types(key: int, value: int) -> int:
    """BTF that says of a map's value no more than that a ``struct bpf_spin_lock`` is its first member."""
    names = b"\0"
    at = {}
    for name in ("u32", "bpf_spin_lock", "val", "value", "lock", "key"):
        at[name] = len(names)
        names += name.encode() + b"\0"
    integer, structure = 1 << 24, 4 << 24
    types = struct.pack("<IIII", at["u32"], integer, 4, 32)
    types += struct.pack("<IIIIII", at["bpf_spin_lock"], structure | 1, 4, at["val"], 1, 0)
    types += struct.pack("<IIIIII", at["value"], structure | 1, value, at["lock"], 2, 0)
    types += struct.pack("<III", at["key"], structure, key)
    head = struct.pack("<HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(types), len(types), len(names))
    whole = ctypes.create_string_buffer(head + types + names, len(head) + len(types) + len(names))
    return _bpf(_BTF_LOAD, struct.pack("<QQIII", ctypes.addressof(whole), 0, len(whole), 0, 0))


def make(spec: dict[str, Any]) -> int:
    """Make a map of a dump: a descriptor, or -errno."""
    flags = spec["flags"] & ~_ADDED_FLAG if spec["type"] == _DEVMAP else spec["flags"]
    attributes = struct.pack("<5I", spec["type"], spec["key"], spec["value"], spec["entries"], flags)
    if spec["name"] == "nodes":
        types = _lock_types(spec["key"], spec["value"])
        attributes += struct.pack("<II16sIIII", 0, 0, b"nodes", 0, types, 4, 3)
    return _bpf(_MAP_CREATE, attributes)


def ask(name: str, kind: int, code: bytes, attach: int = 0) -> tuple[int, str]:
    """Load a program whose maps are descriptors: its own descriptor, or -errno, and what the verifier said."""
    instructions = ctypes.create_string_buffer(code, len(code))
    licence = ctypes.create_string_buffer(b"GPL")
    log = ctypes.create_string_buffer(_LOG_BYTES)
    result = -1
    for level in (_LOG_STATS, _LOG_TEXT):
        head = (kind, len(code) // 8, ctypes.addressof(instructions), ctypes.addressof(licence))
        logged = (level, _LOG_BYTES, ctypes.addressof(log), 0, 0, name.encode()[:15], 0, attach)
        result = _bpf(_PROG_LOAD, struct.pack("<IIQQ", *head) + struct.pack("<IIQII16sII", *logged))
        if result >= 0:
            break
    return result, log.value.decode(errors="replace")


def linked(text: str, maps: dict[int, int]) -> bytes:
    """A program's bytecode, with this process's descriptors of maps for those of the dump."""
    code = bytearray.fromhex(text)
    for at in range(0, len(code), 8):
        opcode, registers, _, value = struct.unpack_from("<BBhi", code, at)
        if opcode == _LOAD_64 and registers >> 4 == _IS_MAP:
            struct.pack_into("<i", code, at + 4, maps[value])
    return bytes(code)


def shared(spec: dict[str, Any], path: str) -> int:
    """The map that is pinned at ``path``, made and pinned if there is none: a descriptor, or -errno."""
    where = ctypes.create_string_buffer(path.encode())
    found = _bpf(_OBJ_GET, struct.pack("<QII", ctypes.addressof(where), 0, 0))
    if found != -errno.ENOENT:
        return found
    found = make(spec)
    if found >= 0:
        pinned = _bpf(_OBJ_PIN, struct.pack("<QII", ctypes.addressof(where), found, 0))
        if pinned < 0:
            os.close(found)
            return pinned
    return found


def _load(name: str, kind: str, code: bytes) -> dict[str, Any]:
    result, said = ask(name, _TYPES[kind], code, _ATTACH_DEVMAP if name == "xg_xdp_egress" else 0)
    if result >= 0:
        os.close(result)
    verified, stack = re.search(r"processed (\d+) insns", said), re.search(r"stack depth ([\d+]+)", said)
    return {
        "accepted": result >= 0,
        "error": os.strerror(-result) if result < 0 else "",
        "instructions": len(code) // 8,
        "verified": int(verified[1]) if verified else 0,
        "stack": sum(map(int, stack[1].split("+"))) if stack else 0,
        "helpers": sorted(_helpers(code)),
        "says": said.strip().splitlines()[-_LAST_LINES:] if result < 0 else [],
    }


def _helpers(code: bytes) -> set[int]:
    """Ids of the helpers that are called."""
    found = set()
    for at in range(0, len(code), 8):
        opcode, registers, _, value = struct.unpack_from("<BBhi", code, at)
        if opcode == _CALL and registers >> 4 == 0:
            found.add(value)
    return found


def load(dumped: dict[str, Any]) -> dict[str, Any]:
    """Program -> what became of it."""
    # Before Linux 5.11 maps count as locked memory. Later kernels do without, and some of them forbid it.
    with contextlib.suppress(ValueError):
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    found: dict[str, Any] = {}
    for parts in dumped.values():
        made = {int(number): make(spec) for number, spec in parts["maps"].items()}
        for number, spec in parts["maps"].items():
            if made[int(number)] < 0:
                found[f"map {spec['name']}"] = {"accepted": False, "error": os.strerror(-made[int(number)]), "says": []}
        for name, (kind, text) in parts["programs"].items():
            found[name] = _load(name, kind, linked(text, made))
    return found


if __name__ == "__main__":
    Path(sys.argv[2]).write_text(json.dumps(load(json.loads(Path(sys.argv[1]).read_text()))))
