# SPDX-License-Identifier: GPL-3.0-or-later
"""What the lab needs of the machine: commands, files, locks, mounts and process identity."""

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
    """Something the user can act on; its text says what, where and what was expected."""


NOT_FOUND = 127
"""Exit status of setpriv, as of a shell, when there is no such program."""
# A command must not outlive the run that wanted it: the next run, which may want the opposite, would race with it.
WITH_US = ("setpriv", "--pdeathsig", "KILL", "--")


def run(argv: Sequence[str], *, timeout: float = 30.0, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run a command for at most `timeout` seconds and return it with its output as text.

    Raises LabError when the program is missing, overruns, or (with `check`) exits with a status other than 0.
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
    """Poll `condition` until it holds or `timeout` seconds have passed; return whether it held."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() >= deadline:
            return False
        time.sleep(interval)
    return True


def write_file(path: Path, text: str, mode: int = 0o644) -> bool:
    """Replace `path` atomically when its content differs; return whether it was written."""
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
    """Return the object in `path`, or None when there is no file or a crash left it unreadable."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    return value if isinstance(value, dict) else None


@contextlib.contextmanager
def locked(path: Path, timeout: float) -> Iterator[None]:
    """Hold an exclusive lock on `path` (made when missing); LabError when it is not free within `timeout` s.

    The holder may delete the file, so a lock counts only while the path still names the locked file.
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
    """Return the mounts this process sees, oldest first."""
    found = []
    for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines():
        left, _dash, right = line.partition(" - ")
        point = re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), left.split(" ")[4])
        kind, _word, options = right.split(" ", 2)
        found.append(Mount(Path(point), kind, options))
    return found


def mounts_under(path: Path) -> list[Mount]:
    """Return the mounts at or below `path`, the last one first: the order to unmount them in."""
    return [entry for entry in reversed(mounts()) if path == entry.point or path in entry.point.parents]


def unmount_under(path: Path) -> bool:
    """Unmount everything at or below `path`; return whether there was anything. A busy mount is detached lazily."""
    found = mounts_under(path)
    for entry in found:
        point = str(entry.point)
        if not wait_until(lambda: run(["umount", point], check=False).returncode == 0, 3.0, 0.2):  # noqa: B023
            run(["umount", "--lazy", point])
    return bool(found)


def remove_tree(path: Path) -> None:
    """Delete a directory tree, refusing to reach through a mount: that would empty what is mounted there."""
    if not path.exists():
        return
    unmount_under(path)
    left = mounts_under(path)
    if left:
        raise LabError(f"{left[0].point}: still mounted, not deleting {path}")
    shutil.rmtree(path)


@dataclass(frozen=True)
class ProcessId:
    """A process named so that a later one with the same number is not taken for it."""

    pid: int
    start: int
    """Start time in clock ticks since boot, field 22 of /proc/<pid>/stat."""
    boot: str
    """The machine's boot id."""

    @classmethod
    def of(cls, pid: int) -> ProcessId:
        """Return the identity of the running process `pid`; LabError when there is none."""
        fields = _stat(pid)
        if fields is None:
            raise LabError(f"process {pid}: gone")
        return cls(pid, int(fields[19]), _boot_id())

    @classmethod
    def load(cls, path: Path) -> ProcessId | None:
        """Return the identity recorded in `path`, None when there is none."""
        value = read_json(path)
        try:
            return None if value is None else cls(int(value["pid"]), int(value["start"]), str(value["boot"]))
        except (KeyError, TypeError, ValueError):
            return None

    def save(self, path: Path) -> None:
        """Record this identity in `path`."""
        write_file(path, json.dumps(asdict(self)) + "\n")

    def alive(self) -> bool:
        """Tell whether exactly this process still runs (a zombie does not)."""
        fields = _stat(self.pid)
        return (
            fields is not None and fields[0] not in "ZX" and int(fields[19]) == self.start and self.boot == _boot_id()
        )

    def send(self, number: int) -> None:
        """Send a signal to exactly this process; nothing happens when it is gone."""
        try:
            descriptor = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return
        try:
            # The descriptor pins the process first, so the identity checked is the one signalled.
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
    """Fields of /proc/<pid>/stat from the state on (so the parent is 1 and the start time 19), None when gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    return text.rpartition(")")[2].split()
