# SPDX-License-Identifier: MIT
"""The helper's own directory, which only root can write. The directory contains new files before they are installed,
and the records of installed files.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import stat
from typing import Any

from ...config.templates import who_else_writes
from .held import PlaceError

DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
#: Flags to create a file that must not exist yet.
CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def walk(directory: str) -> tuple[int, bool]:
    """Open ``directory`` without following symbolic links. Returns the directory's descriptor, and whether only root
    can write to the directory and to all its parents.

    Raises PlaceError. The PlaceError is final (a retry would fail again) if a component of the path is a symbolic link
    or is not a directory.
    """
    descriptor = os.open("/", DIRECTORY)
    try:
        found = os.fstat(descriptor)
        trusted = not who_else_writes(found)
        for part in directory.strip("/").split("/"):
            if not part:
                continue
            try:
                below = os.open(part, DIRECTORY, dir_fd=descriptor)
            except OSError as error:
                # With O_DIRECTORY, both a file and a symbolic link cause ENOTDIR.
                final = error.errno in (errno.ENOTDIR, errno.ELOOP)
                what = "no directory, or a symbolic link: give the path that it leads to" if final else error.strerror
                raise PlaceError(
                    f"{directory}: expected only directories in this path, got {part}: {what}", final=final
                ) from None
            os.close(descriptor)
            descriptor = below
            found = os.fstat(descriptor)
            trusted = trusted and not who_else_writes(found)
    except BaseException:
        os.close(descriptor)
        raise
    # A sticky bit on a parent directory prevents other users from replacing the directory, but not from creating it
    # first. The helper's own directory must therefore be writable by root only.
    return descriptor, trusted and not found.st_mode & 0o022


class Own:
    """The directory ``path``, which is created if it does not exist. Raises PlaceError if users other than root can
    write to the directory.
    """

    def __init__(self, path: str) -> None:
        self.path = path

    def open(self) -> int:
        """Open the directory and return its descriptor, which the caller closes.

        Other users can traverse the directory but not list it.
        """
        try:
            with contextlib.suppress(FileExistsError):
                os.makedirs(self.path, 0o711)
        except OSError as error:
            raise PlaceError(f"files_helper.state_dir: {self.path}: {error.strerror or error}") from None
        descriptor, trusted = walk(self.path)
        if not trusted:
            os.close(descriptor)
            raise PlaceError(
                f"files_helper.state_dir: {self.path}: it and all its parents must belong to root and be writable by"
                " root only"
            )
        if stat.S_IMODE(os.fstat(descriptor).st_mode) != 0o711:
            os.fchmod(descriptor, 0o711)
        return descriptor

    def room(self, target: str) -> int:
        """Open the subdirectory (mode 0700) that stores data about the file ``target``, and return its descriptor."""
        own = self.open()
        try:
            name = _room(target)
            with contextlib.suppress(FileExistsError):
                os.mkdir(name, 0o700, dir_fd=own)
            return os.open(name, DIRECTORY, dir_fd=own)
        finally:
            os.close(own)

    def note(self, target: str, name: str, value: dict[str, Any]) -> None:
        """Store ``value`` under ``name`` for the file ``target``. The value is on disk when this method returns."""
        room = self.room(target)
        try:
            new = f"{name}.new"
            with contextlib.suppress(FileNotFoundError):
                os.unlink(new, dir_fd=room)
            with open(os.open(new, CREATE, 0o600, dir_fd=room), "w", encoding="ascii") as stream:
                json.dump(value, stream)
                stream.flush()
                os.fsync(stream.fileno())
            os.rename(new, name, src_dir_fd=room, dst_dir_fd=room)
            os.fsync(room)
        finally:
            os.close(room)

    def recall(self, target: str, name: str) -> dict[str, Any] | None:
        """Return the value that was stored under ``name`` for the file ``target``. Return None if no value was stored,
        or if the stored value is damaged.
        """
        room = self.room(target)
        try:
            with open(os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=room), encoding="ascii") as stream:
                value = json.load(stream)
        except (FileNotFoundError, ValueError):
            return None
        finally:
            os.close(room)
        return value if isinstance(value, dict) else None

    def forget(self, target: str, name: str) -> None:
        """Delete the value that was stored under ``name`` for the file ``target``."""
        room = self.room(target)
        try:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name, dir_fd=room)
        finally:
            os.close(room)

    def room_path(self, target: str) -> str:
        """Return the path of the subdirectory that stores data about the file ``target``."""
        return os.path.join(self.path, _room(target))


def _room(target: str) -> str:
    return hashlib.sha256(os.fsencode(target)).hexdigest()[:32]
