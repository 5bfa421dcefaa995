# SPDX-License-Identifier: MIT
"""The bpf() calls that only the loader makes, through libbpf: links, pins, test runs, clsact filters.

Descriptors are plain integers that the caller closes. Every failure is an ``OSError`` with the kernel's errno.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
from dataclasses import dataclass

from .. import libbpf

#: enum bpf_attach_type
XDP = 37
XDP_DEVMAP = 33
TCX_INGRESS = 46
TCX_EGRESS = 47

#: Flag of a TCX link (linux/bpf.h): ahead of those that are there. Without a program named, ahead of all.
BEFORE = 1 << 3

#: Flags of an XDP link (linux/if_link.h).
XDP_GENERIC = 1 << 1
XDP_NATIVE = 1 << 2

#: enum bpf_map_type
ARRAY, HASH, LRU_HASH, PERCPU_ARRAY, LPM_TRIE, RINGBUF = 2, 1, 9, 6, 11, 27

_TEST_RUN_LIVE_FRAMES = 1 << 1


class _LinkOptions(ctypes.Structure):
    _fields_ = (
        ("size", ctypes.c_size_t),
        ("flags", ctypes.c_uint32),
        ("iter_info", ctypes.c_void_p),
        ("iter_info_len", ctypes.c_uint32),
        ("target_btf_id", ctypes.c_uint32),
    )


class _TestRun(ctypes.Structure):
    _fields_ = (
        ("size", ctypes.c_size_t),
        ("data_in", ctypes.c_char_p),
        ("data_out", ctypes.c_void_p),
        ("data_size_in", ctypes.c_uint32),
        ("data_size_out", ctypes.c_uint32),
        ("ctx_in", ctypes.c_void_p),
        ("ctx_out", ctypes.c_void_p),
        ("ctx_size_in", ctypes.c_uint32),
        ("ctx_size_out", ctypes.c_uint32),
        ("retval", ctypes.c_uint32),
        ("repeat", ctypes.c_int),
        ("duration", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
        ("cpu", ctypes.c_uint32),
        ("batch_size", ctypes.c_uint32),
    )


class _LinkInfo(ctypes.Structure):
    # The kernel's ends in a union; an XDP and a TCX link both begin it with the interface. The rest is room for it.
    _fields_ = (
        ("type", ctypes.c_uint32),
        ("id", ctypes.c_uint32),
        ("prog_id", ctypes.c_uint32),
        ("_pad", ctypes.c_uint32),
        ("ifindex", ctypes.c_uint32),
        ("_rest", ctypes.c_uint8 * 236),
    )


class _MapInfo(ctypes.Structure):
    _fields_ = (
        ("type", ctypes.c_uint32),
        ("id", ctypes.c_uint32),
        ("key_size", ctypes.c_uint32),
        ("value_size", ctypes.c_uint32),
        ("max_entries", ctypes.c_uint32),
        ("_rest", ctypes.c_uint8 * 236),
    )


class _ProgramInfo(ctypes.Structure):
    _fields_ = (
        ("type", ctypes.c_uint32),
        ("id", ctypes.c_uint32),
        ("_between", ctypes.c_uint8 * 56),
        ("name", ctypes.c_char * 16),
        ("_rest", ctypes.c_uint8 * 176),
    )


@dataclass(frozen=True)
class Link:
    """A bpf_link: its program, and the interface it sits on (0: the interface is gone)."""

    id: int
    program: int
    ifindex: int


@dataclass(frozen=True)
class Map:
    """What a map is; two maps with equal ones (but for ``id``) can take each other's place."""

    id: int
    type: int
    key_size: int
    value_size: int
    max_entries: int


def library() -> ctypes.CDLL:
    """libbpf. Raises ``OSError`` when this host has none."""
    try:
        return libbpf.library()
    except libbpf.LibraryMissing as error:
        raise OSError(str(error)) from None


def check(result: int, what: str) -> int:
    """``result`` of a libbpf function, or ``OSError``: libbpf 1 returns -errno, libbpf 0 returns -1."""
    if result >= 0:
        return result
    number = ctypes.get_errno() if result == -1 else -result
    raise OSError(number, os.strerror(number), what)


def pin(descriptor: int, path: str) -> None:
    """Give a map, program or link a name in a bpffs."""
    check(library().bpf_obj_pin(descriptor, path.encode()), path)


def get(path: str) -> int:
    """A descriptor of what is pinned at ``path``."""
    return check(library().bpf_obj_get(path.encode()), path)


def link_create(program: int, ifindex: int, kind: int, flags: int = 0) -> int:
    """Attach a program to an interface; it stays until the last descriptor and pin of the link are gone."""
    options = _LinkOptions(size=ctypes.sizeof(_LinkOptions), flags=flags)
    return check(library().bpf_link_create(program, ifindex, kind, ctypes.byref(options)), f"interface {ifindex}")


def link_update(link: int, program: int) -> None:
    """Put another program into a link, in one step that loses no packet."""
    check(library().bpf_link_update(link, program, None), "link")


def link_detach(link: int) -> None:
    """Take a link's program off its hook at once; the link stays, without effect (Linux 5.9)."""
    check(library().bpf_link_detach(link), "link")


def _info(descriptor: int, info: ctypes.Structure, what: str) -> None:
    length = ctypes.c_uint32(ctypes.sizeof(info))
    check(library().bpf_obj_get_info_by_fd(descriptor, ctypes.byref(info), ctypes.byref(length)), what)


def link_info(descriptor: int) -> Link:
    """What a link is."""
    info = _LinkInfo()
    _info(descriptor, info, "link")
    return Link(info.id, info.prog_id, info.ifindex)


def map_info(descriptor: int) -> Map:
    """What a map is."""
    info = _MapInfo()
    _info(descriptor, info, "map")
    return Map(info.id, info.type, info.key_size, info.value_size, info.max_entries)


def program_info(descriptor: int) -> tuple[int, str]:
    """Id and name (at most 15 characters) of a program."""
    info = _ProgramInfo()
    _info(descriptor, info, "program")
    return info.id, info.name.decode("ascii", "replace")


def program_name(number: int) -> str:
    """Name of the program with this id, "" when it cannot be had (gone, or no privilege)."""
    try:
        descriptor = check(library().bpf_prog_get_fd_by_id(ctypes.c_uint32(number)), f"program {number}")
    except OSError:
        return ""
    try:
        return program_info(descriptor)[1]
    finally:
        os.close(descriptor)


def update(map_descriptor: int, key: bytes, value: bytes) -> None:
    """Write one entry of a map."""
    check(library().bpf_map_update_elem(map_descriptor, key, value, ctypes.c_uint64(0)), "map entry")


def delete(map_descriptor: int, key: bytes) -> None:
    """Remove one entry of a map, which may be gone already."""
    with contextlib.suppress(FileNotFoundError):
        check(library().bpf_map_delete_elem(map_descriptor, key), "map entry")


def keys(map_descriptor: int, size: int, most: int) -> list[bytes]:
    """The keys of a map, at most ``most``. An LRU map may change meanwhile: then some are missing, or come twice."""
    found: list[bytes] = []
    key, following = None, ctypes.create_string_buffer(size)
    while len(found) < most:
        result = library().bpf_map_get_next_key(map_descriptor, key, following)
        if result < 0 and (ctypes.get_errno() if result == -1 else -result) == errno.ENOENT:
            return found
        check(result, "next key")
        key = following.raw
        found.append(key)
    return found


def tracepoint_open(name: str, program: int) -> int:
    """Attach to a raw tracepoint: until the returned descriptor, a link, and its pins are gone."""
    return check(library().bpf_raw_tracepoint_open(name.encode(), program), f"tracepoint {name}")


def lookup(map_descriptor: int, key: bytes, size: int) -> bytes:
    """The entry of a map whose values have ``size`` bytes."""
    value = ctypes.create_string_buffer(size)
    check(library().bpf_map_lookup_elem(map_descriptor, key, value), "map entry")
    return value.raw


def lookup_per_cpu(map_descriptor: int, index: int) -> int:
    """The sum over all CPUs of a 64-bit entry of a per-CPU array."""
    cpus = check(library().libbpf_num_possible_cpus(), "CPUs")
    values = (ctypes.c_uint64 * cpus)()
    key = ctypes.c_uint32(index)
    check(library().bpf_map_lookup_elem(map_descriptor, ctypes.byref(key), values), f"entry {index}")
    return sum(values)


def run(program: int, frame: bytes, *, live: int = 0) -> int:
    """What a program returns for a frame (BPF_PROG_TEST_RUN).

    With ``live`` so many frames really go where the program sends them (Linux 5.18), and the result is 0.
    """
    options = _TestRun(size=ctypes.sizeof(_TestRun), data_in=frame, data_size_in=len(frame), repeat=1)
    room = ctypes.create_string_buffer(len(frame) + 256)
    if live:
        options.flags = _TEST_RUN_LIVE_FRAMES
        options.repeat = live
    else:
        options.data_out = ctypes.cast(room, ctypes.c_void_p)
        options.data_size_out = len(room)
    check(library().bpf_prog_test_run_opts(program, ctypes.byref(options)), "test run")
    return int(options.retval)
