# SPDX-License-Identifier: MIT
"""Checks whether a process without privileges, such as the agent, may use BPF maps on this kernel.

Linux 5.19 and later allow this; earlier kernels allow it only if ``kernel.unprivileged_bpf_disabled`` is 0. The
kernel's version number is not sufficient: distributions backport the change of Linux 5.19, and security modules and
containers add restrictions. So the module makes a trial call of bpf() and reads the result.
"""

from __future__ import annotations

import errno
import os
import subprocess
import sys

from .libbpf import library

#: Script that opens a pin that does not exist. The kernel either refuses the call at once (EPERM) or looks for the pin
#: (ENOENT). The script prints the error number.
_ASK = """
import ctypes, sys
loaded = ctypes.CDLL(sys.argv[1], use_errno=True)
loaded.bpf_obj_get(b"/nonexistent/xdp-gossip")
print(ctypes.get_errno())
"""
_NOBODY = 65534
_SECONDS = 20.0


def needed() -> list[str]:
    """The capabilities that the agent's systemd unit needs on this kernel: either ``["CAP_BPF"]`` or an empty list.

    Also returns an empty list if the kernel cannot be asked: without libbpf no data plane is possible, and doctor
    reports the cause.
    """
    try:
        return ["CAP_BPF"] if os.geteuid() == 0 and maps_refused() else []
    except OSError:
        return []


def maps_refused() -> bool:
    """Whether the kernel refuses the use of maps to unprivileged processes.

    Raises ``LibraryMissing``, and ``OSError`` if the check fails. If the caller is root, the check runs as the user
    nobody. If the caller is another user, the check runs as that user, with that user's capabilities.
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
