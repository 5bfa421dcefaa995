# SPDX-License-Identifier: MIT
"""Creates maps and loads programs with the system call bpf(). Only the loader calls these functions.

The functions of libbpf for this purpose changed their names and arguments between the versions 0.5 and 1.0, and Ubuntu
22.04 has libbpf 0.5. The system call is the same everywhere (linux/bpf.h, ``union bpf_attr``).

Descriptors are plain integers that the caller closes. Every failure is an ``OSError`` with the kernel's errno.
"""

from __future__ import annotations

import ctypes
import errno
import functools
import os
import platform
import struct
from typing import Any

#: Machine (uname -m) -> number of the system call bpf (asm/unistd.h). Only 64-bit little-endian machines are listed.
_NUMBERS = {"x86_64": 321, "aarch64": 280, "riscv64": 280, "loongarch64": 280, "ppc64le": 361}
_MAP_CREATE, _PROG_LOAD, _BTF_LOAD = 0, 5, 18
#: Program types (enum bpf_prog_type).
SCHED_CLS, PROG_XDP, RAW_TRACEPOINT = 3, 6, 17
#: More map types (enum bpf_map_type).
DEVMAP = 14
#: Levels of the verifier's log: every instruction, only the totals.
LOG_TEXT, LOG_TOTALS = 1, 4
#: The verifier gives up if a signal is pending. libbpf tries as often.
_ATTEMPTS = 5
_NAME_BYTES = 15
#: Kinds of types in BTF (linux/btf.h), as in ``btf_type.info``.
_INTEGER, _STRUCTURE = 1 << 24, 4 << 24


@functools.lru_cache(maxsize=1)
def _libc() -> Any:
    loaded = ctypes.CDLL(None, use_errno=True)
    loaded.syscall.restype = ctypes.c_long
    return loaded


def _bpf(command: int, attributes: bytes, what: str) -> int:
    machine = platform.machine()
    if machine not in _NUMBERS:
        raise OSError(errno.ENOSYS, f"expected a machine of {', '.join(_NUMBERS)}, got {machine}", what)
    room = ctypes.create_string_buffer(attributes, len(attributes))
    number, size = ctypes.c_long(_NUMBERS[machine]), ctypes.c_uint(len(attributes))
    result = int(_libc().syscall(number, ctypes.c_int(command), room, size))
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), what)
    return result


def map_create(name: str, kind: int, key: int, value: int, entries: int, flags: int = 0, *, lock: bool = False) -> int:
    """Create a map and return its descriptor.

    ``kind``: number of the map type. ``key``, ``value``: sizes in bytes. ``lock``: the value begins with a ``struct
    bpf_spin_lock``; the kernel then needs a description of the value's type (BTF).
    """
    types = _lock_types(key, value, name) if lock else -1
    try:
        attributes = struct.pack("=7I16s", kind, key, value, entries, flags, 0, 0, _name(name))
        if lock:
            attributes += struct.pack("=4I", 0, types, _KEY_TYPE, _VALUE_TYPE)
        return _bpf(_MAP_CREATE, attributes, f"map {name}")
    finally:
        if lock:
            os.close(types)


def program_load(name: str, kind: int, code: bytes, attach_type: int = 0, log: Any = None, level: int = 0) -> int:
    """Load a program and return its descriptor.

    ``code``: instructions of 8 bytes, with descriptors of maps. ``log``: a buffer of ctypes for the verifier's
    messages; ``level``: :data:`LOG_TEXT`, :data:`LOG_TOTALS` or 0 for none.
    """
    instructions, licence = ctypes.create_string_buffer(code, len(code)), ctypes.create_string_buffer(b"GPL")
    room = (level, len(log), ctypes.addressof(log)) if level else (0, 0, 0)
    attributes = struct.pack(
        "=IIQQIIQII16sII",
        kind,
        len(code) // 8,
        ctypes.addressof(instructions),
        ctypes.addressof(licence),
        *room,
        0,
        0,
        _name(name),
        0,
        attach_type,
    )
    for attempt in range(_ATTEMPTS):
        try:
            return _bpf(_PROG_LOAD, attributes, f"program {name}")
        except BlockingIOError:
            if attempt == _ATTEMPTS - 1:
                raise
    raise AssertionError("unreachable: the last attempt returns or raises")


def _name(name: str) -> bytes:
    return name.encode("ascii")[:_NAME_BYTES]


#: Ids of the types in the description of :func:`_lock_types`, in the order of their definition.
_LOCK_TYPE, _VALUE_TYPE, _KEY_TYPE = 2, 3, 4


def _lock_types(key: int, value: int, name: str) -> int:
    """Load BTF that describes only one member of a map's value: the ``struct bpf_spin_lock`` at its beginning.

    Returns a descriptor. ``key``, ``value``: sizes in bytes. Source: Documentation/bpf/btf.rst in Linux.
    """
    text, at = b"\0", {}
    for word in ("u32", "bpf_spin_lock", "val", "value", "lock", "key"):
        at[word] = len(text)
        text += word.encode() + b"\0"
    types = struct.pack("=IIII", at["u32"], _INTEGER, 4, 32)
    types += struct.pack("=IIIIII", at["bpf_spin_lock"], _STRUCTURE | 1, 4, at["val"], 1, 0)
    types += struct.pack("=IIIIII", at["value"], _STRUCTURE | 1, value, at["lock"], _LOCK_TYPE, 0)
    types += struct.pack("=III", at["key"], _STRUCTURE, key)
    head = struct.pack("=HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(types), len(types), len(text))
    whole = ctypes.create_string_buffer(head + types + text, len(head) + len(types) + len(text))
    attributes = struct.pack("=QQIII", ctypes.addressof(whole), 0, len(whole), 0, 0)
    return _bpf(_BTF_LOAD, attributes, f"types of map {name}")
