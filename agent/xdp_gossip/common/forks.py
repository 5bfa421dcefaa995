# SPDX-License-Identifier: MIT
"""Makes a forked child close the ports and state files of its parent's node lists.

A child inherits every descriptor, and a port, or the lock of a file, is free only once nobody has it open any more:
a child that lives on would hold both after its parent closed them, or died. SQLite, moreover, writes to a file that
it believes to be in a transaction when the child ends. So the child's descriptors lead to /dev/null. They are not
closed: the objects that close them are still there, and the number may be another file's then.
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
    """Register ``sock`` as this process's own: forked children give it up."""
    _sockets.add(sock)


def own_file(path: str | os.PathLike[str]) -> None:
    """Register a file, and files whose names begin with its name, as this process's own. Call it before opening."""
    _files.add(os.path.realpath(path))


def _let_go() -> None:
    """Redirect the registered descriptors. It runs in the child before anything else."""
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
        with contextlib.suppress(OSError):  # the listing's own one is closed again
            if os.readlink(f"{_DESCRIPTORS}/{descriptor}").startswith(names):
                found.add(int(descriptor))
    return found


os.register_at_fork(after_in_child=_let_go)
