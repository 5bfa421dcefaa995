# SPDX-License-Identifier: GPL-3.0-or-later
"""Helpers for commands, files, locks, mounts and processes of the machine."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


class LabError(Exception):
    """An error for the user. The message says what was wrong, where it was wrong, and what was expected."""


NOT_FOUND = 127
"""Exit status of setpriv if the program does not exist, the same as in a shell."""
# Words to put before a command, so that the kernel kills the command when this process dies. A command that survived
# could race with commands of the next run.
WITH_US = ("setpriv", "--pdeathsig", "KILL", "--")


def run(argv: Sequence[str], *, timeout: float = 30.0, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run a command for at most `timeout` seconds, and return its exit status and its output as text.

    Raises LabError if the program does not exist or takes more than `timeout` seconds. With `check`, also raises
    LabError if the exit status is not 0.
    """
    try:
        done = subprocess.run(
            [*WITH_US, *argv],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
    except FileNotFoundError as error:
        raise LabError(f"{WITH_US[0]}: program not found; expected Debian with util-linux") from error
    except subprocess.TimeoutExpired as error:
        raise LabError(f"{' '.join(argv)}: no end after {timeout:g} s") from error
    if done.returncode == NOT_FOUND:
        raise LabError(f"{argv[0]}: program not found; the role installs it on Debian, is this Debian?")
    if check and done.returncode != 0:
        tail = (done.stderr or done.stdout).strip()[-2000:]
        raise LabError(f"{' '.join(argv)}: exit status {done.returncode}: {tail}")
    return done


def wait_until(condition: Callable[[], bool], timeout: float, interval: float = 0.05) -> bool:
    """Poll `condition` every `interval` seconds until the condition is true or `timeout` seconds have passed.

    Return the last value of `condition`.
    """
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() >= deadline:
            return False
        time.sleep(interval)
    return True


def write_file(path: Path, text: str, mode: int = 0o644) -> bool:
    """Replace the file `path` atomically if its content differs from `text`.

    Return whether the function replaced the file.
    """
    try:
        if path.read_text(encoding="utf-8") == text:
            return False
    except (FileNotFoundError, UnicodeDecodeError):
        pass
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
        os.fchmod(descriptor, mode)
        stream.write(text)
        stream.flush()
        os.fsync(descriptor)
    os.replace(temporary, path)
    return True


def read_json(path: Path) -> dict[str, Any] | None:
    """Return the JSON object in the file `path`, or None if the file does not exist or is damaged."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    return value if isinstance(value, dict) else None


@contextlib.contextmanager
def locked(path: Path, timeout: float) -> Iterator[None]:
    """Context manager: hold an exclusive lock on the file `path`. The function creates the file if it is missing.

    Raises LabError if another process holds the lock for more than `timeout` seconds. The other process may delete the
    file, so the lock is valid only if `path` still refers to the locked file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + timeout
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if path.exists() and path.stat().st_ino == os.fstat(descriptor).st_ino:
                break
        except BlockingIOError:
            pass
        os.close(descriptor)
        if time.monotonic() >= deadline:
            raise LabError(f"{path}: another run holds this lock for more than {timeout:g} s; wait for it to end")
        time.sleep(0.2)
    try:
        yield
    finally:
        os.close(descriptor)


@dataclass(frozen=True)
class Mount:
    """One line of /proc/self/mountinfo."""

    point: Path
    kind: str
    options: str


def mounts() -> list[Mount]:
    """Return the mounts in this process's mount namespace, oldest first."""
    found = []
    for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines():
        left, _dash, right = line.partition(" - ")
        point = re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), left.split(" ")[4])
        kind, _word, options = right.split(" ", 2)
        found.append(Mount(Path(point), kind, options))
    return found


def mounts_under(path: Path) -> list[Mount]:
    """Return the mounts at or below `path`, newest first, which is the order for unmounting."""
    return [entry for entry in reversed(mounts()) if path == entry.point or path in entry.point.parents]


def unmount_under(path: Path) -> bool:
    """Unmount all mounts at or below `path` (busy mounts lazily), and return whether there were any mounts."""
    found = mounts_under(path)
    for entry in found:
        point = str(entry.point)
        if not wait_until(lambda: run(["umount", point], check=False).returncode == 0, 3.0, 0.2):  # noqa: B023
            run(["umount", "--lazy", point])
    return bool(found)


def remove_tree(path: Path) -> None:
    """Unmount all mounts in a directory tree, and delete the tree. Raises LabError if a mount remains.

    The function never deletes files below a mount point that is still mounted, because these files belong to the
    mounted file system.
    """
    if not path.exists():
        return
    unmount_under(path)
    left = mounts_under(path)
    if left:
        raise LabError(f"{left[0].point}: still mounted, not deleting {path}")
    shutil.rmtree(path)


@dataclass(frozen=True)
class ProcessId:
    """The identity of a process: its number, start time and boot id.

    A later process with the same number has another identity.
    """

    pid: int
    start: int
    """Start time in clock ticks since boot, field 22 of /proc/<pid>/stat."""
    boot: str
    """The machine's boot id."""

    @classmethod
    def of(cls, pid: int) -> ProcessId:
        """Return the identity of the running process `pid`. Raises LabError if there is no such process."""
        fields = _stat(pid)
        if fields is None:
            raise LabError(f"process {pid}: gone")
        return cls(pid, int(fields[19]), _boot_id())

    @classmethod
    def load(cls, path: Path) -> ProcessId | None:
        """Return the identity that the file `path` stores, or None if the file does not store an identity."""
        value = read_json(path)
        try:
            return None if value is None else cls(int(value["pid"]), int(value["start"]), str(value["boot"]))
        except (KeyError, TypeError, ValueError):
            return None

    def save(self, path: Path) -> None:
        """Store this identity in the file `path`."""
        write_file(path, json.dumps(asdict(self)) + "\n")

    def alive(self) -> bool:
        """Return whether this process still runs. A zombie does not count as running."""
        fields = _stat(self.pid)
        return (
            fields is not None and fields[0] not in "ZX" and int(fields[19]) == self.start and self.boot == _boot_id()
        )

    def send(self, number: int) -> None:
        """Send a signal to this process, or do nothing if the process has ended."""
        try:
            descriptor = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return
        try:
            # Open the descriptor before the check, so that the signal goes to the same process that was checked.
            if self.alive():
                signal.pidfd_send_signal(descriptor, number)
        except ProcessLookupError:
            pass
        finally:
            os.close(descriptor)

    def children(self) -> list[ProcessId]:
        """Return the direct children of this process."""
        found = []
        for entry in os.listdir("/proc"):
            fields = _stat(int(entry)) if entry.isdigit() else None
            if fields is not None and int(fields[1]) == self.pid and fields[0] not in "ZX":
                found.append(ProcessId(int(entry), int(fields[19]), self.boot))
        return found


def _boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def _stat(pid: int) -> list[str] | None:
    """Return the fields of /proc/<pid>/stat, or None if the process does not exist.

    The list starts with the process state, so index 1 is the number of the parent process, and index 19 is the start
    time.
    """
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    return text.rpartition(")")[2].split()
