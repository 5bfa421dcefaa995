# SPDX-License-Identifier: MIT
"""The worker's main loop: checks, parses and compares contents until the agent closes the pipe."""

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
    """``["done", None]`` or ``["refused", code, text, details]``."""
    try:
        content.check(key, value, content_type)
    except ProtocolError as error:
        return ["refused", error.code, str(error), dict(error.details)]
    return ["done", None]


def differences(pairs: Sequence[Sequence[Any]]) -> list[Any]:
    """``["done", texts]``: for each pair (old, new, name of old, name of new) as of ``content.diff``."""
    return ["done", [content.diff(*pair) for pair in pairs]]


def parse(raw: bytes, most: int) -> list[Any]:
    """``["done", value]`` of a JSON text with at most ``most`` values in it, or ``["refused", reason]``."""
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
    """Serve jobs until the agent closes the pipe."""
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w", encoding="ascii") as stream:
        stream.write("1000")  # where memory is short, this process is to go and not the agent
    source, target = sys.stdin.buffer, sys.stdout.buffer
    sys.stdout = sys.stderr  # nothing else may come between the frames
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
