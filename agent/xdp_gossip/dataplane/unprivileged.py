# SPDX-License-Identifier: MIT
"""Asks the kernel whether a process without privileges, such as the agent, may use BPF maps.

Linux 5.19 allows it; earlier kernels only where ``kernel.unprivileged_bpf_disabled`` is 0. Distributions backport such
changes, and security modules and containers add prohibitions of their own, so the version says nothing.
"""

from __future__ import annotations

import errno
import os
import subprocess
import sys

from .libbpf import library

#: Asks for what is pinned where nothing is: refused at once (EPERM), or looked for (ENOENT). Prints the error.
_ASK = """
import ctypes, sys
loaded = ctypes.CDLL(sys.argv[1], use_errno=True)
loaded.bpf_obj_get(b"/nonexistent/xdp-gossip")
print(ctypes.get_errno())
"""
_NOBODY = 65534
_SECONDS = 20.0


def needed() -> list[str]:
    """The capabilities that this kernel demands of the agent, for its unit: ``["CAP_BPF"]`` or none.

    Also none where nothing can be asked: without libbpf there is no data plane, and doctor reports the rest.
    """
    try:
        return ["CAP_BPF"] if os.geteuid() == 0 and maps_refused() else []
    except OSError:
        return []


def maps_refused() -> bool:
    """Whether the kernel refuses. Raises ``LibraryMissing``, and ``OSError`` when it cannot be asked.

    Root asks as the user nobody; other users ask as themselves, with whatever capabilities they have.
    """
    words = [sys.executable, "-Ic", _ASK, library()._name]
    nobody = {"user": _NOBODY, "group": _NOBODY, "extra_groups": []} if os.geteuid() == 0 else {}
    try:
        done = subprocess.run(  # type: ignore[call-overload]
            words, stdin=subprocess.DEVNULL, capture_output=True, timeout=_SECONDS, check=False, cwd="/", **nobody
        )
    except subprocess.SubprocessError as error:
        raise OSError(errno.EIO, f"bpf() cannot be tried without a privilege: {error}") from None
    if done.stdout.split() in ([b"%d" % errno.ENOENT], [b"%d" % errno.EPERM]):
        return int(done.stdout) == errno.EPERM
    said = done.stderr.decode("utf-8", "replace").strip().splitlines()[-1:] or [f"status {done.returncode}"]
    raise OSError(errno.EIO, f"bpf() cannot be tried without a privilege: {said[0]}")
