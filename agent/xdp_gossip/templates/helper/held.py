# SPDX-License-Identifier: MIT
"""An open regular file. The helper reads status, content and attributes of the file through its descriptor, so a rename
of the file cannot mislead the helper.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from types import TracebackType

_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
#: Extended attributes that a new file gets from the former file, in addition to all user.* attributes: the access
#: control list and the SELinux label. Capabilities (security.capability) are not copied, because they were granted to
#: the former content.
_KEPT = ("system.posix_acl_access", "security.selinux")


class PlaceError(Exception):
    """Raised if the helper cannot write the file at this path; the text gives the reason.

    ``final``: whether a retry fails again until someone changes the configuration or the host.
    """

    def __init__(self, text: str, *, final: bool = False) -> None:
        super().__init__(text)
        self.final = final


class Held:
    """An open regular file, used as a context manager."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.status = os.fstat(descriptor)

    @classmethod
    def open(cls, name: str, directory: int, path: str) -> Held | None:
        """Open the file ``name`` in ``directory``. Return None if the file does not exist.

        Error texts contain ``path`` to identify the file. Raises a final PlaceError if ``name`` is not a regular file.
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
        """Whether ``found`` is the status of this file (same device and inode)."""
        return (found.st_dev, found.st_ino) == (self.status.st_dev, self.status.st_ino)

    def digest(self, most: int) -> bytes | None:
        """Return the SHA-256 digest of the content; None if the file is longer than ``most`` bytes."""
        if os.fstat(self.descriptor).st_size > most:
            return None
        found = hashlib.sha256()
        offset = 0
        while piece := os.pread(self.descriptor, min(1 << 20, most + 1 - offset), offset):
            found.update(piece)
            offset += len(piece)
        return found.digest()

    def attributes(self) -> dict[str, bytes]:
        """Return the extended attributes that must be copied from this file to a file that replaces it."""
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
        """Set the extended ``attributes`` on the file.

        Remove all other attributes that :meth:`attributes` returns, except an SELinux label.

        Returns the names of the attributes that could not be set.
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
            # Never remove an SELinux label, because the kernel assigned it.
            if name not in attributes and name != "security.selinux":
                os.removexattr(self.descriptor, name)
        return lacking

    def sync(self) -> None:
        """Flush content and attributes to disk."""
        os.fsync(self.descriptor)


def _odd(path: str) -> PlaceError:
    return PlaceError(f"{path}: expected a regular file or nothing, got another kind of file: remove it", final=True)
