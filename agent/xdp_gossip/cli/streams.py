# SPDX-License-Identifier: MIT
"""Standard streams, whatever state the caller left them in, and whatever their encoding."""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Sequence
from typing import Any

from .text import ELLIPSIS, escaped

#: Characters of one line of a message.
_LINE = 1000


def prepare(*, service: bool = False) -> None:
    """Make standard streams usable that are closed, or whose encoding has no room for every character.

    A closed stream stays closed: using it is an error, as in a program in C. Only its number is reserved, so that no
    socket gets it. A ``service`` may print to it; the output is lost.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            # Reading and writing fail as with a closed descriptor, when they may not: what is wanted is not allowed.
            closed = (os.O_WRONLY, os.O_WRONLY if service else os.O_RDONLY, os.O_WRONLY)[number]
            _point(number, closed)
            mode = "r" if number == 0 else "w"
            setattr(sys, name, open(number, mode, encoding="utf-8", errors="backslashreplace", closefd=False))
        elif number == 1 and isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="backslashreplace")


def _point(number: int, flags: int) -> None:
    """Make a descriptor one of nothing."""
    found = os.open(os.devnull, flags)
    if found != number:
        os.dup2(found, number)
        os.close(found)


def finish() -> None:
    """Write what is buffered. Raises ``OSError`` for stdout; nothing is written any more after that."""
    try:
        sys.stderr.flush()
    except OSError:
        give_up(sys.stderr)
    try:
        sys.stdout.flush()
    except OSError:
        give_up(sys.stdout)
        raise


def give_up(stream: Any) -> None:
    """Let what cannot be written vanish, so that Python does not complain of it at its end."""
    try:
        number = stream.fileno()
    except (OSError, ValueError):
        return  # no file: a test's
    _point(number, os.O_WRONLY)


def tell(kind: str, lines: Sequence[str], as_json: bool, prefix: str = "xdp-gossip: ", **more: Any) -> None:
    """One message on stderr; a line of JSON with ``kind`` (error, notice) where ``as_json`` says so, else ``prefix``.

    Whoever cannot read it has gone: that is no error.
    """
    if as_json:
        written = json.dumps({kind: {**more, "message": "\n".join(lines)}})
    else:
        written = prefix + "\n".join(escaped(_short(line)) for line in lines)
    try:
        sys.stderr.write(written + "\n")
        sys.stderr.flush()
    except OSError:
        give_up(sys.stderr)


def _short(line: str) -> str:
    """The first and the last of a line that is too long: what is in the way is a value in its middle."""
    return line if len(line) <= _LINE else f"{line[: _LINE // 2]}{ELLIPSIS}{line[-_LINE // 2 :]}"
