# SPDX-License-Identifier: MIT
"""Runs a configured command as a configured user, with limits on its time and output."""

from __future__ import annotations

import contextlib
import grp
import os
import pwd
import select
import signal
import subprocess
import time
from collections.abc import Sequence
from typing import Any

#: Maximum bytes at the end of a command's output that the helper keeps. The end of the output usually contains the
#: cause of an error.
_TAIL = 2000
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class CommandFailed(Exception):
    """A command ended with an error, took too long, or could not be started; the text of the exception says which of
    these happened.

    ``said`` is the end of the command's output. The output may quote secrets of the rendered file, so show it only to
    users who may read that file.
    """

    def __init__(self, text: str, said: str = "") -> None:
        super().__init__(text)
        self.said = said


def account(user: str) -> pwd.struct_passwd:
    """Look up the account ``user``. Raises CommandFailed."""
    try:
        return pwd.getpwnam(user)
    except KeyError:
        raise CommandFailed(f"user {user!r}: there is no such account") from None


def run(command: Sequence[str], user: str, timeout: float) -> None:
    """Run ``command`` as ``user``; its process group is killed after ``timeout`` seconds. Raises CommandFailed."""
    entry = account(user)
    identity: dict[str, Any] = {}
    # Commands that run as root also get root's groups. The helper's own group is the group of its socket, and files
    # that a command creates must not belong to the agent's group.
    if entry.pw_uid != os.geteuid() or (entry.pw_uid == 0 and entry.pw_gid != os.getegid()):
        groups = [group.gr_gid for group in grp.getgrall() if user in group.gr_mem]
        identity = {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": groups}
    environment = {"PATH": _PATH, "LANG": "C.UTF-8", "HOME": entry.pw_dir, "USER": user, "LOGNAME": user}
    try:
        process = subprocess.Popen(
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd="/",
            env=environment,
            start_new_session=True,
            umask=0o022,
            **identity,
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise CommandFailed(f"{command[0]}: cannot be run: {getattr(error, 'strerror', None) or error}") from None
    tail, in_time = _follow(process, time.monotonic() + timeout)
    said = " ".join(tail.decode("utf-8", "replace").split())
    if not in_time:
        raise CommandFailed(f"{command[0]}: took more than {timeout:g} s and was killed", said)
    if process.returncode:
        code = process.returncode
        how = f"ended with exit code {code}" if code > 0 else f"was ended by {signal.Signals(-code).name}"
        raise CommandFailed(f"{command[0]}: {how}", said)


def _follow(process: subprocess.Popen[bytes], deadline: float) -> tuple[bytes, bool]:
    """Read the command's output until the process ends. Returns the end of the output, and whether the process ended in
    time.

    The function waits for the end of the process and not for the end of the output, because a daemon that the process
    started may keep the pipe open.
    """
    assert process.stdout is not None
    tail = b""
    pipe = process.stdout.fileno()
    os.set_blocking(pipe, False)
    is_open = True
    with process.stdout:
        while True:
            ended = process.poll() is not None
            while is_open:
                try:
                    piece = os.read(pipe, 65536)
                except BlockingIOError:
                    break
                is_open = bool(piece)
                tail = (tail + piece)[-_TAIL:]
                if time.monotonic() >= deadline:
                    break
            if ended:
                return tail, True
            left = deadline - time.monotonic()
            if left <= 0:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                return tail, False
            if is_open:
                select.select([pipe], [], [], min(left, 0.05))
            else:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(left)
