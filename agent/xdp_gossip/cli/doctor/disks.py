# SPDX-License-Identifier: MIT
"""Checks the directories that must be writable: the state directories of the agent and of the files helper."""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Iterator

from . import unseen
from .finding import Finding, Subject
from .look import Look, may_not

_SAYS = Subject(
    "disk",
    missing="warning",
    directory="error",
    readonly="error",
    denied="error",
    full="error",
    low="warning",
    inodes="error",
    slow="warning",
    open="warning",
    failing="error",
    repaired="warning",
    lost="warning",
)
_MIB = 1024 * 1024
#: If fewer bytes than this are free, publishes will soon fail.
_LEAST_FREE = 64 * _MIB
#: A disk counts as nearly full if more than this fraction is used and fewer than ``_ENOUGH`` bytes are free.
_NEARLY = 0.9
_ENOUGH = 1024 * _MIB
_LEAST_INODES = 100
#: If a small synchronous write takes longer than this many seconds, every publish is slow.
_SLOW = 1.0


def examine(look: Look) -> Iterator[Finding]:
    """Yield findings about the disks, and about the storage errors that the agent reports."""
    config = look.config
    if config is not None:
        yield from _directory(config.state_dir, "the agent's unit makes it at start; by hand: mkdir, chown", True)
        if config.templates:
            yield from _directory(config.files_helper.state_dir, "xdp-gossip-files.service makes it at start", False)
    status = look.status or {}
    if status.get("storage_error"):
        yield _SAYS("failing", status["storage_error"], "make room or repair the disk; the agent tries again")
    for problem in status.get("state_problems", []):
        remedy = "look at the disk; publish again what no other member holds; remove the file when it is not needed"
        yield _SAYS("repaired", problem, remedy)
    lost = look.counters.get("versions_given_up", 0)
    if lost:
        text = f"{lost} versions were given up because the disk took no writes: the history here lacks them"
        yield _SAYS("lost", text, "xdp-gossip history KEY on another member has them; look at the disk")


def _directory(path: str, made: str, private: bool) -> Iterator[Finding]:
    try:
        found = os.stat(path)
        if not stat.S_ISDIR(found.st_mode):
            yield _SAYS("directory", f"{path} is no directory", "name a directory, or move away what is there")
            return
        room = os.statvfs(path)
    except OSError as error:
        yield unseen(path) if may_not(error) else _SAYS("missing", f"{path}: {error.strerror}", made)
        return
    wrong = list(_room(path, room))
    if room.f_flag & os.ST_RDONLY:
        remedy = f"dmesg says why, as a rule a disk with errors; mount -o remount,rw {path}"
        wrong.append(_SAYS("readonly", f"{path} is on a file system that is mounted read-only", remedy))
    elif not os.access(path, os.W_OK | os.X_OK):
        denied = f"{path} cannot be written by this user"
        wrong.append(unseen(path) if os.geteuid() else _SAYS("denied", denied, f"lsattr -d {path}; dmesg"))
    else:
        wrong += _probe(path)
    if private and found.st_mode & 0o007:
        wrong.append(_SAYS("open", f"{path} is open to others", f"chmod o= {path}"))
    yield from wrong
    if not wrong:
        yield _SAYS.ok(f"{path} can be written, {room.f_bavail * room.f_frsize // _MIB} MiB are left")


def _room(path: str, room: os.statvfs_result) -> Iterator[Finding]:
    free, size = room.f_bavail * room.f_frsize, room.f_blocks * room.f_frsize
    left = f"{path}: {free // _MIB} of {size // _MIB} MiB are left"
    if free < _LEAST_FREE:
        yield _SAYS("full", left, f"make room: a full disk refuses publishes; du -xh {path} | sort -h | tail")
    elif size and free < (1 - _NEARLY) * size and free < _ENOUGH:
        yield _SAYS("low", left, f"make room; du -xh {path} | sort -h | tail")
    if room.f_files and room.f_favail < _LEAST_INODES:
        text = f"{path}: {room.f_favail} of {room.f_files} inodes are left: soon no file can be created"
        yield _SAYS("inodes", text, f"remove small files; df -i {path}")


def _probe(path: str) -> Iterator[Finding]:
    """Write a block to an unnamed temporary file, and report a failed or slow write.

    The kernel deletes the file when it is closed.
    """
    try:
        handle = os.open(path, os.O_TMPFILE | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL):
            yield _SAYS("denied", f"{path}: no file can be made: {error.strerror}", f"lsattr -d {path}; df -i {path}")
        return
    try:
        begin = time.monotonic()
        os.write(handle, bytes(4096))
        os.fsync(handle)
        seconds = time.monotonic() - begin
    except OSError as error:
        if error.errno != errno.ENOSPC:  # a full disk is reported by the check of the free space
            yield _SAYS("denied", f"{path}: cannot be written: {error.strerror}", "dmesg")
        return
    finally:
        os.close(handle)
    if seconds > _SLOW:
        text = f"{path}: 4 KiB took {seconds:.1f} s to reach the disk; each publish here waits for that"
        yield _SAYS("slow", text, "iostat -x 1; what else writes there?")
