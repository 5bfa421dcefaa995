# SPDX-License-Identifier: MIT
"""The place where a file is replaced: its directory, held open, and a second one that only root can write.

All names are used relative to open directories, so a user who can write above cannot redirect a write.
docs/security.md says which directory the new file is written in, and why.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
from collections.abc import Iterator
from types import TracebackType

from ...config.templates import who_else_writes
from .held import Held, PlaceError
from .own import CREATE, DIRECTORY, Own, walk

#: Longest suffix of a target that a new file has, too; a longer "suffix" is none that a command would go by.
_MOST_SUFFIX = 24
#: The note in the helper's own directory by which a private directory is known again.
_NOTE = "directory"


class Place:
    """The directory of ``path``; use it as a context manager. ``base`` is the file's name in it.

    ``own`` is the helper's own directory. Raises :class:`PlaceError` and OSError.
    """

    def __init__(self, path: str, own: Own) -> None:
        self.path = path
        self.directory, self.base = os.path.split(path)
        self._own = own
        self._private = ""  # the name of a directory of root's in that of the target
        self._room: int | None = None
        with contextlib.ExitStack() as stack:
            self._open = stack
            self.descriptor, self.trusted = walk(self.directory)
            stack.callback(os.close, self.descriptor)
            self._work = self.descriptor
            if not self.trusted:
                self._room = own.room(path)
                stack.callback(os.close, self._room)
                self._room_path = own.room_path(path)
                self._work = self._room
                if _mount(self._room) != _mount(self.descriptor):
                    self._work = self._private_directory()
                    stack.callback(os.close, self._work)
            self._open = stack.pop_all()

    def __enter__(self) -> Place:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._open:
            if self._private and not os.listdir(self._work):
                # Whoever owns the directory may have taken the name away, and put something else there.
                with contextlib.suppress(OSError):
                    os.rmdir(self._private, dir_fd=self.descriptor)
                self._own.forget(self.path, _NOTE)

    def _private_directory(self) -> int:
        """A directory of root's inside the target's directory: the one that the helper has noted, or a new one."""
        noted = self._own.recall(self.path, _NOTE)
        if noted is not None:
            with contextlib.suppress(OSError):
                descriptor = os.open(noted["name"], DIRECTORY, dir_fd=self.descriptor)
                found = os.fstat(descriptor)
                if [found.st_dev, found.st_ino] == noted["identity"] and _private(found):
                    self._private = noted["name"]
                    return descriptor
                os.close(descriptor)
        name = f".xg-{secrets.token_hex(8)}"
        os.mkdir(name, 0o700, dir_fd=self.descriptor)
        descriptor = os.open(name, DIRECTORY, dir_fd=self.descriptor)
        try:
            found = os.fstat(descriptor)
            if not _private(found) or os.listdir(descriptor):
                raise PlaceError(f"{self.directory}: {name} was replaced by another process while it was created")
            if noted is not None:
                # What an exchange that was cut off has left was in the other one, which somebody has moved.
                os.close(os.open(self.side("lost"), CREATE, 0o600, dir_fd=descriptor))
            self._own.note(self.path, _NOTE, {"name": name, "identity": [found.st_dev, found.st_ino]})
        except BaseException:
            os.close(descriptor)
            raise
        self._private = name
        return descriptor

    # -- the file and its directory --------------------------------------------------------------------------------

    def held(self) -> Held | None:
        """The file that is in place, opened, or None. Raises PlaceError for what cannot be replaced."""
        found = Held.open(self.base, self.descriptor, self.path)
        if found is not None and _mount(found.descriptor) != _mount(self.descriptor):
            found.close()
            raise PlaceError(
                f"{self.path}: it is a mount of its own, which nothing can take the place of: mount its directory, or"
                " unmount it",
                final=True,
            )
        return found

    def check_replaceable(self, name: str) -> None:
        """Raise PlaceError unless ``name`` in the target's directory is a regular file or nothing."""
        found = Held.open(name, self.descriptor, f"{self.directory}/{name}")
        if found is not None:
            found.close()

    def holds(self, file: Held) -> bool:
        """Whether the file in place is ``file`` itself."""
        with contextlib.suppress(FileNotFoundError):
            return file.is_same(os.stat(self.base, dir_fd=self.descriptor, follow_symlinks=False))
        return False

    def remove_base(self) -> None:
        """Remove the file in place if it is there."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.base, dir_fd=self.descriptor)

    def label(self) -> bytes | None:
        """The SELinux label of the directory, which a new file in it would have."""
        try:
            return os.getxattr(self.descriptor, "security.selinux")
        except OSError as error:
            if error.errno in (errno.ENODATA, errno.EOPNOTSUPP):
                return None
            raise

    # -- what lies beside, where only root can write ---------------------------------------------------------------

    def side(self, what: str) -> str:
        """A hidden name beside the file: no pattern such as ``*.conf`` takes it up."""
        return f".{self.base}.xg-{what}"

    def has(self, name: str) -> bool:
        """Whether the private directory has a file of this name."""
        with contextlib.suppress(FileNotFoundError):
            os.stat(name, dir_fd=self._work, follow_symlinks=False)
            return True
        return False

    def open_side(self, name: str) -> Held | None:
        """A file that lies beside, opened, or None."""
        return Held.open(name, self._work, f"{self.directory}/{name}")

    def write(self, content: bytes) -> tuple[str, Held]:
        """Write a new hidden file that only root can read, with the target's suffix; its name, and itself."""
        suffix = os.path.splitext(self.base)[1]
        suffix = suffix if len(suffix.encode()) <= _MOST_SUFFIX else ""
        name = self.side(f"tmp-{secrets.token_hex(8)}{suffix}")
        descriptor = os.open(name, CREATE, 0o600, dir_fd=self._work)
        try:
            with open(descriptor, "wb", closefd=False) as stream:
                stream.write(content)
        except BaseException:
            os.close(descriptor)
            self.remove(name)
            raise
        return name, Held(descriptor)

    @contextlib.contextmanager
    def shown(self, name: str, file: Held, content: bytes, group: int | None) -> Iterator[str]:
        """A path of the new file for a command; nobody but root can replace the file there.

        ``group``: whose group may come to the file, None when the command is root's.
        """
        if self._room is None:
            yield os.path.join(self.directory, name)
            return
        if group is not None:
            os.fchown(self._room, -1, group)
            os.fchmod(self._room, 0o710)
        path = os.path.join(self._room_path, name)
        try:
            if self._work == self._room:
                yield path
                return
            # A directory on a mount where nothing is root's alone: the command gets a copy.
            with open(os.open(name, CREATE, 0o600, dir_fd=self._room), "wb") as stream:
                stream.write(content)
                stream.flush()
                found = os.fstat(file.descriptor)
                os.fchown(stream.fileno(), found.st_uid, found.st_gid)
                os.fchmod(stream.fileno(), stat.S_IMODE(found.st_mode))
            yield path
        finally:
            os.fchmod(self._room, 0o700)
            if self._work != self._room:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(name, dir_fd=self._room)

    def keep(self, held: Held, name: str) -> None:
        """Give the file in place a second name beside; raise PlaceError when it is no more the one that was opened."""
        os.link(self.base, name, src_dir_fd=self.descriptor, dst_dir_fd=self._work, follow_symlinks=False)
        if not held.is_same(os.stat(name, dir_fd=self._work, follow_symlinks=False)):
            self.remove(name)
            raise PlaceError(f"{self.path}: another process replaced it at the same moment")

    def link(self, source: str, target: str) -> None:
        """Give a file that lies beside a second name there, one that must be free."""
        os.link(source, target, src_dir_fd=self._work, dst_dir_fd=self._work, follow_symlinks=False)

    def mark(self, name: str) -> None:
        """Make an empty file beside."""
        os.close(os.open(name, CREATE, 0o600, dir_fd=self._work))

    def rename(self, source: str, target: str) -> None:
        """Put a file that lies beside into the target's directory, in place of ``target``, at once."""
        os.rename(source, target, src_dir_fd=self._work, dst_dir_fd=self.descriptor)

    def remove(self, name: str) -> None:
        """Remove a file that lies beside if it is there."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=self._work)

    def sync(self) -> None:
        """Flush the directory entries to disk."""
        os.fsync(self._work)
        if self._work != self.descriptor:
            os.fsync(self.descriptor)

    def tidy(self) -> None:
        """Remove temporary files that a killed helper left behind."""
        prefix = self.side("tmp-")
        for descriptor in {self._work, self._work if self._room is None else self._room}:
            for name in os.listdir(descriptor):
                if name.startswith(prefix):
                    os.unlink(name, dir_fd=descriptor)


def _mount(descriptor: int) -> str:
    """The mount that an open file is on: two bind mounts of one file system are two, and nothing is renamed between."""
    with open(f"/proc/self/fdinfo/{descriptor}", encoding="ascii") as stream:
        for line in stream:
            if line.startswith("mnt_id:"):
                return line
    raise PlaceError(f"/proc/self/fdinfo/{descriptor}: it names no mount")


def _private(found: os.stat_result) -> bool:
    return found.st_uid == os.geteuid() and not stat.S_IMODE(found.st_mode) & 0o077 and not who_else_writes(found)
