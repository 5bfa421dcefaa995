# SPDX-License-Identifier: MIT
"""Writes and reads the text of server-sent events (HTML standard, 9.2)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

MEDIA_TYPE = "text/event-stream"

#: Most bytes of one event that a reader accepts. An agent's longest event, a long key with its comment, is far below.
MAX_EVENT = 1 << 20

_LINE_END = re.compile(rb"\r\n|\n|\r")


@dataclass(frozen=True)
class Event:
    """One event. ``id`` is None when it carries none. Without data it is no event, but its id counts."""

    name: str
    data: str
    id: str | None


def encode(name: str, data: bytes, number: int | None = None) -> bytes:
    """Encode an event; ``data`` is one line of UTF-8, ``number`` its id."""
    head = f"event: {name}\n" if number is None else f"id: {number}\nevent: {name}\n"
    return head.encode("ascii") + b"data: " + data + b"\n\n"


def keep_alive(number: int) -> bytes:
    """A comment, which readers skip, with the id to continue from.

    They keep the id, so that they do not go back to what was filtered out for them.
    """
    return f": keep-alive\nid: {number}\n\n".encode("ascii")


class Parser:
    """Reads a stream piece by piece."""

    def __init__(self) -> None:
        self._rest = b""
        self._begin()

    def _begin(self) -> None:
        self._name = ""
        self._data: list[str] = []
        self._id: str | None = None
        self._size = 0

    def feed(self, piece: bytes) -> Iterator[Event]:
        """The events that ``piece`` completes, including those with only an id.

        Raises ``ValueError`` when one is longer than :data:`MAX_EVENT`.
        """
        text = self._rest + piece
        start = 0
        for end in _LINE_END.finditer(text):
            if end.group() == b"\r" and end.end() == len(text):
                break  # perhaps the first half of a line end
            line, start = text[start : end.start()], end.end()
            if line:
                self._field(line)
                continue
            event = Event(self._name or "message", "\n".join(self._data), self._id)
            complete = bool(self._data) or self._id is not None
            self._begin()
            if complete:
                yield event
        self._rest = text[start:]
        if self._size + len(self._rest) > MAX_EVENT:
            raise ValueError(f"expected events of at most {MAX_EVENT} bytes")

    def _field(self, line: bytes) -> None:
        self._size += len(line)
        name, _colon, value = line.decode("utf-8", "replace").partition(":")
        value = value[1:] if value.startswith(" ") else value
        if name == "event":
            self._name = value
        elif name == "data":
            self._data.append(value)
        elif name == "id" and "\0" not in value:
            self._id = value
