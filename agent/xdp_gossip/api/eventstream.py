# SPDX-License-Identifier: MIT
"""Encodes and parses server-sent events (HTML standard, 9.2)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

MEDIA_TYPE = "text/event-stream"

#: Maximum size, in bytes, of an event that the parser accepts. The longest event that an agent sends (a long key and a
#: comment) is far shorter than this limit.
MAX_EVENT = 1 << 20

_LINE_END = re.compile(rb"\r\n|\n|\r")


@dataclass(frozen=True)
class Event:
    """One event. ``id`` is None if the event has no id.

    A client ignores an event without data, except that it continues from the event's id after a reconnect.
    """

    name: str
    data: str
    id: str | None


def encode(name: str, data: bytes, number: int | None = None) -> bytes:
    """Encode an event; ``data`` is one line of UTF-8, ``number`` is the event's id."""
    head = f"event: {name}\n" if number is None else f"id: {number}\nevent: {name}\n"
    return head.encode("ascii") + b"data: " + data + b"\n\n"


def keep_alive(number: int) -> bytes:
    """Encode a comment that carries the event id from which the client continues after a reconnect.

    A client ignores the comment but stores the id. Each change with an id up to ``number`` either was sent or does not
    match the client's filter, so the server does not examine these changes again after a reconnect.
    """
    return f": keep-alive\nid: {number}\n\n".encode("ascii")


class Parser:
    """An incremental parser of an event stream."""

    def __init__(self) -> None:
        self._rest = b""
        self._begin()

    def _begin(self) -> None:
        self._name = ""
        self._data: list[str] = []
        self._id: str | None = None
        self._size = 0

    def feed(self, piece: bytes) -> Iterator[Event]:
        """Yield the events that ``piece`` completes, including those that have only an id.

        Raises ``ValueError`` if an event is longer than :data:`MAX_EVENT`.
        """
        text = self._rest + piece
        start = 0
        for end in _LINE_END.finditer(text):
            if end.group() == b"\r" and end.end() == len(text):
                break  # a CR at the end may be the first half of CR LF
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
