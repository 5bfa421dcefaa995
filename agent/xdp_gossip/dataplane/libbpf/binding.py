# SPDX-License-Identifier: MIT
"""Loads libbpf (0.5 to 1.x) once and declares the signatures of the functions in use."""

from __future__ import annotations

import ctypes
import functools
import os
from typing import Any

NAMES = ("libbpf.so.1", "libbpf.so.0")
#: Type of the callback that a ring buffer calls for each record.
SAMPLE = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)


class LibraryMissing(OSError):
    """No usable libbpf was found; the message says what to install."""


@functools.lru_cache(maxsize=1)
def library() -> ctypes.CDLL:
    """Load libbpf at the first call and return it. Raises ``LibraryMissing``.

    The library must contain the functions that the agent calls. Functions that only the loader calls have ctypes'
    default signature, because they take only integers and pointers.
    """
    loaded = None
    for name in NAMES:
        try:
            loaded = ctypes.CDLL(name, use_errno=True)
            break
        except OSError:
            continue
    if loaded is None:
        raise LibraryMissing(f"{' or '.join(NAMES)}: not found; install libbpf1 (Debian) or libbpf (Red Hat, SUSE)")
    text, pointer, u64 = ctypes.c_char_p, ctypes.c_void_p, ctypes.c_uint64
    signatures: dict[str, tuple[Any, tuple[Any, ...]]] = {
        "bpf_obj_get": (ctypes.c_int, (text,)),
        "bpf_obj_get_info_by_fd": (ctypes.c_int, (ctypes.c_int, pointer, pointer)),
        "bpf_map_lookup_elem_flags": (ctypes.c_int, (ctypes.c_int, pointer, pointer, u64)),
        "bpf_map_update_elem": (ctypes.c_int, (ctypes.c_int, pointer, pointer, u64)),
        "bpf_map_delete_elem": (ctypes.c_int, (ctypes.c_int, pointer)),
        "bpf_map_get_next_key": (ctypes.c_int, (ctypes.c_int, pointer, pointer)),
        "bpf_map_lookup_batch": (ctypes.c_int, (ctypes.c_int, *(pointer,) * 6)),
        "bpf_map_update_batch": (ctypes.c_int, (ctypes.c_int, *(pointer,) * 4)),
        "bpf_map_delete_batch": (ctypes.c_int, (ctypes.c_int, *(pointer,) * 3)),
        "ring_buffer__new": (pointer, (ctypes.c_int, SAMPLE, pointer, pointer)),
        "ring_buffer__consume": (ctypes.c_int, (pointer,)),
        "ring_buffer__epoll_fd": (ctypes.c_int, (pointer,)),
        "ring_buffer__free": (None, (pointer,)),
        "libbpf_num_possible_cpus": (ctypes.c_int, ()),
    }
    for name, (result, arguments) in signatures.items():
        try:
            function = getattr(loaded, name)
        except AttributeError:
            raise LibraryMissing(f"{loaded._name} has no {name}: expected libbpf 0.5 or later") from None
        function.restype, function.argtypes = result, arguments
    return loaded


def check(result: int, what: str) -> int:
    """Return the ``result`` of a libbpf function, or raise ``OSError`` if ``result`` is an error.

    libbpf 1 returns -errno; libbpf 0 returns -1 and sets errno.
    """
    if result >= 0:
        return result
    number = ctypes.get_errno() if result == -1 else -result
    raise OSError(number, os.strerror(number), what)


def processors() -> int:
    """The number of values in an entry of a per-CPU map. Raises ``LibraryMissing``, ``OSError``."""
    return check(int(library().libbpf_num_possible_cpus()), "number of possible processors")


def get(path: str) -> int:
    """Open the object that is pinned at ``path``; the caller closes the descriptor. Raises ``OSError``."""
    return check(library().bpf_obj_get(os.fsencode(path)), path)


def information(descriptor: int, info: ctypes.Structure, what: str) -> None:
    """Let the kernel write the properties of an open BPF object into ``info``.

    ``info`` declares the first fields of a kernel ``struct bpf_*_info``. Raises ``OSError``.
    """
    length = ctypes.c_uint32(ctypes.sizeof(info))
    check(library().bpf_obj_get_info_by_fd(descriptor, ctypes.byref(info), ctypes.byref(length)), what)
