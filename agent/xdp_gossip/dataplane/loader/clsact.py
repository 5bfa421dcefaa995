# SPDX-License-Identifier: MIT
"""Attaches TC programs on kernels without TCX (before Linux 6.6), as filters of a clsact queueing discipline.

Our filters have their own priority and handle. A filter of a clsact queueing discipline cannot be pinned: the filter
stays when the process that created it ends, and any privileged process can remove it. So the loader records the id of
the filter's program before it attaches the filter, and replaces or removes a filter only if the filter's program is
ours.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from typing import Any

from .. import libbpf, rtnetlink
from .errors import LoaderError

#: The handle of our filters ("XG" in ASCII), and the priority of our filters unless a foreign filter has a smaller
#: priority number.
PRIORITY = 0x5847
HANDLE = 0x5847
_POINTS = {"ingress": 1, "egress": 2}
#: Maps each hook to the parent handle of its filters: TC_H_CLSACT with TC_H_MIN_INGRESS or TC_H_MIN_EGRESS
#: (linux/pkt_sched.h).
_PARENTS = {"ingress": 0xFFFFFFF2, "egress": 0xFFFFFFF3}
_REPLACE = 1
#: struct tcmsg (linux/rtnetlink.h): family, index of the interface, handle, parent, info
_TRAFFIC = struct.Struct("=BxxxiIII")
_TCA_KIND = 1


class _Hook(ctypes.Structure):
    _fields_ = (
        ("size", ctypes.c_size_t),
        ("ifindex", ctypes.c_int),
        ("attach_point", ctypes.c_int),
        ("parent", ctypes.c_uint32),
    )


class _Options(ctypes.Structure):
    _fields_ = (
        ("size", ctypes.c_size_t),
        ("prog_fd", ctypes.c_int),
        ("flags", ctypes.c_uint32),
        ("prog_id", ctypes.c_uint32),
        ("handle", ctypes.c_uint32),
        ("priority", ctypes.c_uint32),
    )


def _hook(ifindex: int, point: int) -> Any:
    return ctypes.byref(_Hook(size=ctypes.sizeof(_Hook), ifindex=ifindex, attach_point=point))


def _options(priority: int, **values: int) -> _Options:
    return _Options(size=ctypes.sizeof(_Options), handle=HANDLE, priority=priority, **values)


def present(ifindex: int) -> bool:
    """Whether the interface has a clsact (or the older ingress) queueing discipline. Raises ``OSError``."""
    return any(
        _TRAFFIC.unpack_from(body)[1] == ifindex
        and rtnetlink.text(rtnetlink.attributes(body[_TRAFFIC.size :]).get(_TCA_KIND, b"")) in ("clsact", "ingress")
        for body in rtnetlink.ask(rtnetlink.RTM_GETQDISC, _TRAFFIC.pack(0, ifindex, 0, 0, 0), dump=True)
    )


def _filters(ifindex: int, hook: str) -> list[int]:
    """Return the priority of each entry that the kernel lists at a hook: filters, and heads of filter chains.

    Raises ``OSError``.
    """
    request = _TRAFFIC.pack(0, ifindex, 0, _PARENTS[hook], 0)
    found = rtnetlink.ask(rtnetlink.RTM_GETTFILTER, request, dump=True)
    return [_TRAFFIC.unpack_from(body)[4] >> 16 for body in found]


def make(ifindex: int) -> None:
    """Create a clsact queueing discipline at the interface.

    Raises ``OSError`` (EEXIST: the interface already has a clsact queueing discipline).
    """
    libbpf.check(libbpf.library().bpf_tc_hook_create(_hook(ifindex, 3)), "clsact")


def first_priority(ifindex: int, hook: str) -> int:
    """Return a priority with which a new filter runs first at the hook: the lowest number runs first.

    Within one priority the newest filter runs first, so priority 1 works even if another filter also has priority 1.
    """
    taken = _filters(ifindex, hook)
    return max(1, min([PRIORITY, *(priority - 1 for priority in taken if priority)]))


def ahead(ifindex: int, hook: str, priority: int) -> list[int]:
    """Return the priorities of the filters that run before our filter.

    ``priority``: priority of our filter. Raises ``OSError``.

    A foreign filter can run before ours only if it has priority 1, and if it is for a single protocol or of another
    kind. Our filter is for all protocols, so the kernel does not let it share priority 1 with that foreign filter.
    """
    return sorted({each for each in _filters(ifindex, hook) if 0 < each < priority})


def attach(ifindex: int, hook: str, program: int, ours: list[int], priority: int) -> None:
    """Attach a program at the hook ``ingress`` or ``egress``.

    If the hook already has a filter with our priority and handle, and the filter's program is one of ``ours``, replaces
    this filter.

    Raises ``OSError`` (EEXIST: a foreign filter has our priority and handle; EINVAL: another kind of filter has the
    priority).
    """
    replace = _REPLACE if query(ifindex, hook, priority) in ours else 0
    options = _options(priority, prog_fd=program, flags=replace)
    libbpf.check(libbpf.library().bpf_tc_attach(_hook(ifindex, _POINTS[hook]), ctypes.byref(options)), f"TC {hook}")


def query(ifindex: int, hook: str, priority: int) -> int:
    """Return the id of the program of the filter with ``priority`` and our handle; 0 if there is no such filter."""
    options = _options(priority)
    try:
        libbpf.check(libbpf.library().bpf_tc_query(_hook(ifindex, _POINTS[hook]), ctypes.byref(options)), f"TC {hook}")
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.EINVAL, errno.ENODEV):
            return 0
        raise
    return int(options.prog_id)


def detach(ifindex: int, hook: str, ours: list[int], priority: int) -> None:
    """Remove the filter with our priority and handle, if its program is one of ``ours``. Raises ``OSError``."""
    if query(ifindex, hook, priority) not in ours:
        return
    options = _options(priority)
    libbpf.check(libbpf.library().bpf_tc_detach(_hook(ifindex, _POINTS[hook]), ctypes.byref(options)), f"TC {hook}")


def remove(ifindex: int) -> None:
    """Delete the interface's clsact queueing discipline, unless it contains a filter. Raises ``LoaderError``."""
    try:
        if not present(ifindex) or any(_filters(ifindex, hook) for hook in _PARENTS):
            return
        libbpf.check(libbpf.library().bpf_tc_hook_destroy(_hook(ifindex, 3)), "clsact")
    except OSError as error:
        if error.errno not in (errno.ENODEV, errno.ENOENT):
            raise LoaderError(
                f"clsact of interface {ifindex}: {error.strerror or os.strerror(error.errno or 0)}"
            ) from None
