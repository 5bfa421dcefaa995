# SPDX-License-Identifier: MIT
"""The main loop of a worker process: it checks, parses and compares contents until the agent closes the pipe."""

from __future__ import annotations

import contextlib
import struct
import sys
from collections.abc import Sequence
from typing import Any, Callable

import msgpack

from ..core.interface import ProtocolError
from . import content

_LENGTH = struct.Struct(">I")


def check(key: str, value: bytes, content_type: str) -> list[Any]:
    """Check a content. Returns ``["done", None]`` or ``["refused", code, text, details]``."""
    try:
        content.check(key, value, content_type)
    except ProtocolError as error:
        return ["refused", error.code, str(error), dict(error.details)]
    return ["done", None]


def differences(pairs: Sequence[Sequence[Any]]) -> list[Any]:
    """Compute a diff with ``content.diff`` for each pair (old, new, name of old, name of new).

    Returns ``["done", texts]``.
    """
    return ["done", [content.diff(*pair) for pair in pairs]]


def parse(raw: bytes, most: int) -> list[Any]:
    """Parse a JSON text, which may contain at most ``most`` values.

    Returns ``["done", value]`` or ``["refused", reason]``.
    """
    try:
        value = content.parse_json(raw)
    except (ValueError, RecursionError) as error:
        return ["refused", "nested too deeply" if isinstance(error, RecursionError) else str(error)[:300]]
    if _count(value, most) > most:
        return ["refused", f"expected at most {most} values in it"]
    return ["done", value]


def _count(value: Any, most: int) -> int:
    count, waiting = 0, [value]
    while waiting and count <= most:
        found = waiting.pop()
        count += 1
        if isinstance(found, (list, dict)):
            count += len(found)
            waiting += found.values() if isinstance(found, dict) else found
    return count


_JOBS: dict[str, Callable[..., list[Any]]] = {"check": check, "differences": differences, "parse": parse}


def main() -> None:
    """Read jobs from standard input and write their answers to standard output, until the agent closes the pipe."""
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w", encoding="ascii") as stream:
        # If memory runs out, the kernel kills this process before it kills the agent.
        stream.write("1000")
    source, target = sys.stdin.buffer, sys.stdout.buffer
    # A call of print() must not write to the pipe that carries the frames.
    sys.stdout = sys.stderr
    while True:
        head = source.read(_LENGTH.size)
        if len(head) < _LENGTH.size:
            return
        name, *arguments = msgpack.unpackb(source.read(_LENGTH.unpack(head)[0]), raw=False)
        try:
            answer = _JOBS[name](*arguments)
        except MemoryError:
            answer = ["too much", "it takes too much memory"]
        body = msgpack.packb(answer, use_bin_type=True)
        target.write(_LENGTH.pack(len(body)) + body)
        target.flush()
