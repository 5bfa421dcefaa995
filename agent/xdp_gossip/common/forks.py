# SPDX-License-Identifier: MIT
"""Makes a forked child release the sockets and state files of its parent's node lists.

A child inherits every file descriptor of its parent. A port or a file lock becomes free only when no process has it
open, so a child would block the parent's ports and locks after the parent closed them or died. When the child ends,
SQLite may also write to a file in which the parent has a transaction. Therefore the child redirects the descriptors of
its parent's sockets and state files to /dev/null. The child does not close these descriptors, because Python objects in
the child still refer to the descriptors and would later close their numbers, which may belong to other files by then.
"""

from __future__ import annotations

import contextlib
import os
import socket
import weakref

_DESCRIPTORS = "/proc/self/fd"

_sockets: weakref.WeakSet[socket.socket] = weakref.WeakSet()
_files: set[str] = set()


def own_socket(sock: socket.socket) -> None:
    """Register ``sock``, so that forked children release it."""
    _sockets.add(sock)


def own_file(path: str | os.PathLike[str]) -> None:
    """Register a file, and all files whose paths begin with ``path``, so that forked children release them.

    Call this before opening the file.
    """
    _files.add(os.path.realpath(path))


def _let_go() -> None:
    """Redirect the registered descriptors to /dev/null. ``os.fork`` calls this function in the child."""
    found = {sock.fileno() for sock in list(_sockets)} - {-1}
    if _files:
        found.update(_descriptors_of(tuple(_files)))
    _sockets.clear()
    _files.clear()
    if found:
        nothing = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        for descriptor in found:
            os.dup2(nothing, descriptor, inheritable=False)
        os.close(nothing)


def _descriptors_of(names: tuple[str, ...]) -> set[int]:
    found = set()
    for descriptor in os.listdir(_DESCRIPTORS) if os.path.isdir(_DESCRIPTORS) else ():
        with contextlib.suppress(OSError):  # this descriptor was that of the directory listing, which is already closed
            if os.readlink(f"{_DESCRIPTORS}/{descriptor}").startswith(names):
                found.add(int(descriptor))
    return found


os.register_at_fork(after_in_child=_let_go)
