# SPDX-License-Identifier: MIT
"""Switches the terminal to a full-screen mode for drawing, and restores it when the program ends in any way."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import termios
from collections.abc import Callable
from types import TracebackType
from typing import Any

from . import tables
from .common import OK

#: Escape sequences to enter and leave full-screen mode: alternate screen, hidden cursor, no line wrap.
_TAKE, _GIVE = "\x1b[?1049h\x1b[?25l\x1b[?7l", "\x1b[?7h\x1b[?25h\x1b[?1049l"


class Terminal:
    """The terminal on stdout in full-screen mode, and key presses on stdin if stdin is a terminal.

    The constructor needs a running event loop.

    The future ``ended`` receives the exit code when the user or a signal ends the program: 0 for the key q, 128 plus
    the signal number for a signal. ``wake`` is called when the whole screen must be drawn again. On SIGTSTP, the
    terminal returns to its normal mode until the program continues.
    """

    def __init__(self, wake: Callable[[], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._wake = wake
        self._keys = sys.stdin.fileno() if sys.stdin.isatty() else None
        self._before: list[Any] | None = None
        self.ended: asyncio.Future[int] = self._loop.create_future()

    def __enter__(self) -> Terminal:
        self._take()
        if self._keys is not None:
            self._loop.add_reader(self._keys, self._read)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            self._loop.add_signal_handler(number, self._end, 128 + number)
        self._loop.add_signal_handler(signal.SIGWINCH, self._wake)
        self._loop.add_signal_handler(signal.SIGTSTP, self._stop)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._keys is not None:
            self._loop.remove_reader(self._keys)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGWINCH, signal.SIGTSTP):
            self._loop.remove_signal_handler(number)
        try:
            self._give()
        except (OSError, termios.error):
            if kind is None and self.ended.done() and self.ended.result() == OK:
                raise  # after a hangup the terminal cannot be restored, and the exit code reports the hangup already

    def size(self) -> tuple[int, int]:
        """Return the number of columns and lines of the terminal; 80 and 24 if the terminal does not report its
        size.
        """
        try:
            found = os.get_terminal_size(sys.stdout.fileno())
        except OSError:
            return tables.terminal_columns(), 24
        return found.columns or 80, found.lines or 24

    def draw(self, lines: list[str]) -> None:
        """Replace the screen with ``lines``, which must fit on the terminal."""
        sys.stdout.write("\x1b[H" + "\r\n".join(f"{line}\x1b[K" for line in lines) + "\x1b[J")
        sys.stdout.flush()

    def _take(self) -> None:
        if self._keys is not None:
            self._before = termios.tcgetattr(self._keys)
            mode = termios.tcgetattr(self._keys)
            mode[3] &= ~(termios.ECHO | termios.ICANON)
            termios.tcsetattr(self._keys, termios.TCSADRAIN, mode)
        sys.stdout.write(_TAKE)
        sys.stdout.flush()

    def _give(self) -> None:
        if self._keys is not None and self._before is not None:
            termios.tcsetattr(self._keys, termios.TCSADRAIN, self._before)
        sys.stdout.write(_GIVE)
        sys.stdout.flush()

    def _read(self) -> None:
        assert self._keys is not None
        try:
            found = os.read(self._keys, 1024)
        except OSError:
            found = b""
        if not found:
            self._end(128 + signal.SIGHUP)  # empty input means that the terminal was closed
        elif found in (b"q", b"Q") or b"\x04" in found:
            self._end(OK)

    def _end(self, status: int) -> None:
        if not self.ended.done():
            self.ended.set_result(status)

    def _stop(self) -> None:
        self._give()
        self._loop.remove_signal_handler(signal.SIGTSTP)
        os.kill(os.getpid(), signal.SIGTSTP)
        # SIGCONT resumes execution here.
        self._loop.add_signal_handler(signal.SIGTSTP, self._stop)
        self._take()
        self._wake()
