# SPDX-License-Identifier: MIT
"""BPF programs and links: pinning, attachment and test runs. Only the loader calls these functions.

Descriptors are plain integers that the caller closes. Every failure is an ``OSError`` with the kernel's errno.
"""

from __future__ import annotations

import ctypes
import os
from dataclasses import dataclass
from typing import NamedTuple

from .binding import check, information, library

#: Attach types (enum bpf_attach_type).
XDP = 37
XDP_DEVMAP = 33
TCX_INGRESS = 46
TCX_EGRESS = 47

#: Flag of a TCX link (linux/bpf.h): insert before existing programs. If the request names no existing program, the
#: kernel inserts the link before all of them.
BEFORE = 1 << 3

#: Flags of an XDP link (linux/if_link.h).
XDP_GENERIC = 1 << 1
XDP_NATIVE = 1 << 2

_TEST_RUN_LIVE_FRAMES = 1 << 1
#: Maximum bytes that a program may add to a frame in a test run.
_ROOM = 4096


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
        ("ctx_in", ctypes.c_char_p),
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
    # The kernel's structure ends in a union; in XDP and TCX links, the union begins with the interface index. The rest
    # is padding.
    _fields_ = (
        ("type", ctypes.c_uint32),
        ("id", ctypes.c_uint32),
        ("prog_id", ctypes.c_uint32),
        ("_pad", ctypes.c_uint32),
        ("ifindex", ctypes.c_uint32),
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
    """A bpf_link: its id, its program's id, and its interface's index (0 if the interface no longer exists)."""

    id: int
    program: int
    ifindex: int


def pin(descriptor: int, path: str) -> None:
    """Pin a map, program or link at ``path`` in a bpffs."""
    check(library().bpf_obj_pin(descriptor, path.encode()), path)


class RunResult(NamedTuple):
    """The result of a test run: the program's return value, the frame after the run, and nanoseconds per run."""

    value: int
    frame: bytes
    nanoseconds: int


def link_create(program: int, ifindex: int, kind: int, flags: int = 0) -> int:
    """Attach a program to an interface and return the link's descriptor.

    The program stays attached until the link's last descriptor is closed and its last pin is removed.
    """
    options = _LinkOptions(size=ctypes.sizeof(_LinkOptions), flags=flags)
    return check(library().bpf_link_create(program, ifindex, kind, ctypes.byref(options)), f"interface {ifindex}")


def link_update(link: int, program: int) -> None:
    """Replace the program of a link atomically, without losing a packet."""
    check(library().bpf_link_update(link, program, None), "link")


def link_detach(link: int) -> None:
    """Detach a link's program from its hook at once. The link itself remains, but has no effect. Needs Linux 5.9."""
    check(library().bpf_link_detach(link), "link")


def link_info(descriptor: int) -> Link:
    """Ask the kernel for the properties of a link."""
    info = _LinkInfo()
    information(descriptor, info, "link")
    return Link(info.id, info.prog_id, info.ifindex)


def program_info(descriptor: int) -> tuple[int, str]:
    """The id and name (at most 15 characters) of a program."""
    info = _ProgramInfo()
    information(descriptor, info, "program")
    return info.id, info.name.decode("ascii", "replace")


def program_name(number: int) -> str:
    """The name of the program with this id; "" if it cannot be read (no such program, or no privilege)."""
    try:
        descriptor = check(library().bpf_prog_get_fd_by_id(ctypes.c_uint32(number)), f"program {number}")
    except OSError:
        return ""
    try:
        return program_info(descriptor)[1]
    finally:
        os.close(descriptor)


def tracepoint_open(name: str, program: int) -> int:
    """Attach a program to a raw tracepoint and return the link's descriptor.

    The program stays attached until this descriptor is closed and the link's pins are removed.
    """
    return check(library().bpf_raw_tracepoint_open(name.encode(), program), f"tracepoint {name}")


def run(
    program: int, frame: bytes, *, context: bytes = b"", repeat: int = 1, live: int = 0, batch: int = 0
) -> RunResult:
    """Run a program on a frame ``repeat`` times (BPF_PROG_TEST_RUN). Raises ``OSError``.

    ``context`` is the ``struct __sk_buff`` of a TC program. ``live``: if not 0, the kernel runs an XDP program on this
    number of frames and really sends the frames that the program redirects (Linux 5.18); the return value in the result
    is then 0. ``batch``: number of live frames that the kernel processes at a time; 0 lets the kernel decide.
    """
    options = _TestRun(size=ctypes.sizeof(_TestRun), data_in=frame, data_size_in=len(frame), repeat=live or repeat)
    room = ctypes.create_string_buffer(len(frame) + _ROOM)
    if context:
        options.ctx_in, options.ctx_size_in = context, len(context)
    if live:
        options.flags, options.batch_size = _TEST_RUN_LIVE_FRAMES, batch
    else:
        options.data_out = ctypes.cast(room, ctypes.c_void_p)
        options.data_size_out = len(room)
    check(library().bpf_prog_test_run_opts(program, ctypes.byref(options)), "test run")
    return RunResult(int(options.retval), room.raw[: options.data_size_out], int(options.duration))
