# SPDX-License-Identifier: MIT
"""Keeps the memory of a process, which contains secrets, out of core dumps."""

from __future__ import annotations

import ctypes
import os
import resource

#: Option of prctl(2), from linux/prctl.h.
_PR_SET_DUMPABLE = 4


def forbid_core_dumps() -> None:
    """Forbid core dumps of this process, and of processes that it starts. Raises ``OSError``.

    The limit of core files alone would not suffice: the kernel ignores a limit of 0 if a program receives the core
    (core(5), "Piping core dumps to a program"). A process that is not dumpable has no core at all, and other processes
    of the same user cannot read its memory (ptrace(2)).
    """
    if resource.getrlimit(resource.RLIMIT_CORE) != (0, 0):  # the unit sets the limit, and forbids a change of limits
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0):
        code = ctypes.get_errno()
        raise OSError(code, f"core dumps not forbidden: {os.strerror(code)}")
