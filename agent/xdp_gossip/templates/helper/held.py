# SPDX-License-Identifier: MIT
"""A file held open: everything about it is read from its descriptor, never from its name a second time."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from types import TracebackType

_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
#: Extended attributes that a new file takes over: access rights, the SELinux label, what users noted. Not capabilities
#: (security.capability), which belong to the former content.
_KEPT = ("system.posix_acl_access", "security.selinux")


class PlaceError(Exception):
    """The file cannot be written there; the text says why.

    ``final``: retrying is useless until somebody changes something.
    """

    def __init__(self, text: str, *, final: bool = False) -> None:
        super().__init__(text)
        self.final = final


class Held:
    """An open regular file; use it as a context manager."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.status = os.fstat(descriptor)

    @classmethod
    def open(cls, name: str, directory: int, path: str) -> Held | None:
        """Open the file ``name``; None if it is missing.

        ``path`` is for error texts. Raises a final PlaceError unless it is a regular file.
        """
        try:
            descriptor = os.open(name, _READ, dir_fd=directory)
        except FileNotFoundError:
            return None
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise PlaceError(
                    f"{path}: expected a regular file or nothing, got a symbolic link: give the path that it leads to"
                    " as path, or remove it",
                    final=True,
                ) from None
            if error.errno == errno.ENXIO:  # a socket
                raise _odd(path) from None
            raise
        found = cls(descriptor)
        if not stat.S_ISREG(found.status.st_mode):
            found.close()
            raise _odd(path)
        return found

    def __enter__(self) -> Held:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the descriptor."""
        os.close(self.descriptor)

    def is_same(self, found: os.stat_result) -> bool:
        """Whether ``found`` describes this very file."""
        return (found.st_dev, found.st_ino) == (self.status.st_dev, self.status.st_ino)

    def digest(self, most: int) -> bytes | None:
        """SHA-256 of the content if it is at most ``most`` bytes, else None."""
        if os.fstat(self.descriptor).st_size > most:
            return None
        found = hashlib.sha256()
        offset = 0
        while piece := os.pread(self.descriptor, min(1 << 20, most + 1 - offset), offset):
            found.update(piece)
            offset += len(piece)
        return found.digest()

    def attributes(self) -> dict[str, bytes]:
        """The extended attributes that a file keeps when it replaces this one."""
        found = {}
        try:
            for name in os.listxattr(self.descriptor):
                if name in _KEPT or name.startswith("user."):
                    found[name] = os.getxattr(self.descriptor, name)
        except OSError as error:
            if error.errno != errno.EOPNOTSUPP:
                raise
        return found

    def take_over(self, attributes: dict[str, bytes]) -> list[str]:
        """Set these extended attributes and remove others of their kind.

        Returns the names of those that could not be set.
        """
        lacking = []
        present = self.attributes()
        for name, value in attributes.items():
            if present.get(name) == value:
                continue
            try:
                os.setxattr(self.descriptor, name, value)
            except OSError as error:
                if error.errno not in (errno.EPERM, errno.EACCES, errno.EOPNOTSUPP, errno.EINVAL):
                    raise
                lacking.append(f"{name} ({error.strerror})")
        for name in present:
            # A label is never taken away: the kernel gave it.
            if name not in attributes and name != "security.selinux":
                os.removexattr(self.descriptor, name)
        return lacking

    def sync(self) -> None:
        """Flush content and attributes to disk."""
        os.fsync(self.descriptor)


def _odd(path: str) -> PlaceError:
    return PlaceError(f"{path}: expected a regular file or nothing, got another kind of file: remove it", final=True)
