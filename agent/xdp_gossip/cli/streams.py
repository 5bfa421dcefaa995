# SPDX-License-Identifier: MIT
"""Prepares the standard streams, which may be closed or lack characters in their encoding, and prints messages to
stderr.
"""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Sequence
from typing import Any

from .text import ELLIPSIS, escaped

#: Maximum length, in characters, of one line of a message.
_LINE = 1000


def prepare(*, service: bool = False) -> None:
    """Prepare the standard streams, which may be closed or unable to encode every character.

    A closed stream stays closed: using it is an error, as in a C program. The descriptor number of a closed stream is
    reserved, so that no socket gets it. With ``service``, output to a closed stdout is discarded and is not an error.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            # Open /dev/null write-only for stdin and read-only for stdout, so that using the stream fails as on a
            # closed descriptor.
            closed = (os.O_WRONLY, os.O_WRONLY if service else os.O_RDONLY, os.O_WRONLY)[number]
            _point(number, closed)
            mode = "r" if number == 0 else "w"
            setattr(sys, name, open(number, mode, encoding="utf-8", errors="backslashreplace", closefd=False))
        elif number == 1 and isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="backslashreplace")


def _point(number: int, flags: int) -> None:
    """Make the descriptor ``number`` refer to /dev/null."""
    found = os.open(os.devnull, flags)
    if found != number:
        os.dup2(found, number)
        os.close(found)


def finish() -> None:
    """Flush stdout and stderr.

    Raises ``OSError`` if writing to stdout fails, and discards the output that was not written.
    """
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
    """Redirect an unwritable stream to /dev/null, so that Python does not report an error at exit."""
    try:
        number = stream.fileno()
    except (OSError, ValueError):
        return  # not a real file, but a test's stream
    _point(number, os.O_WRONLY)


def tell(kind: str, lines: Sequence[str], as_json: bool, prefix: str = "xdp-gossip: ", **more: Any) -> None:
    """Print one message to stderr.

    With ``as_json``, the message is one line of JSON, an object with the key ``kind`` (error or notice); otherwise
    ``prefix`` precedes the text. If stderr is a pipe that its reader has closed, the failed write is ignored.
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
    """Shorten a line that is too long.

    Keep the beginning and the end of the line, because its middle is usually a long value.
    """
    return line if len(line) <= _LINE else f"{line[: _LINE // 2]}{ELLIPSIS}{line[-_LINE // 2 :]}"
