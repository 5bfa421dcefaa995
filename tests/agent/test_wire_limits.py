# SPDX-License-Identifier: MIT
"""The limits that docs/wire.md states are those of the decoder: the longest field passes, and one more does not."""

from __future__ import annotations

import contextlib
import functools
import json
import re
from pathlib import Path
from typing import Any

import msgpack
import pytest

from xdp_gossip.core.packets import PacketType, Rejected
from xdp_gossip.wire import bodies

_ROOT = Path(__file__).resolve().parents[2]
_PAGE = (_ROOT / "docs" / "wire.md").read_text(encoding="utf-8")
_PACKETS = json.loads((Path(__file__).parent / "golden" / "wire-2.json").read_text())["packets"]
#: In which message the vectors have a structure with limits, and how to get to it.
_PLACES = {
    "record": ("RecordRumor", (1,)),
    "document": ("Documents", (1, 0)),
    "file": ("FilesAnswer", (4, 0)),
    "signature": ("Documents", (1, 1, 11)),
    "part": ("Documents", (1, 0, 11, 2)),
}


def _raw(described: Any) -> Any:
    if isinstance(described, list):
        return [_raw(item) for item in described]
    return bytes.fromhex(described["hex"]) if isinstance(described, dict) else described


def _vector(place: str) -> tuple[PacketType, list[Any]]:
    """The first vector with such a message or structure."""
    message, steps = _PLACES.get(place, (place, ()))
    for vector in _PACKETS:
        if vector["message"] == message:
            body = _raw(vector["body"])
            with contextlib.suppress(IndexError):
                if functools.reduce(lambda found, step: found[step], steps, body) is not None:
                    return PacketType(vector["type"]), body
    raise AssertionError(f"no vector has a {place}")


def _rows(header: str) -> list[list[str]]:
    """The cells of the page's table whose first line begins so."""
    _, _, rest = _PAGE.partition(f"\n{header}")
    lines = rest.split("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def _fields(text: str) -> list[tuple[str, str]]:
    """Name and type of each field, out of a cell such as ``nonce u64, overdue [sighting]``."""
    text = re.sub(r"\([^)]*\)", "", text).replace("*", "")
    text = re.sub(r"(\w+) (\{[^{}]*\})", r"\1 structure", text)  # the stamp; others stand in brackets
    items = re.split(r",\s*(?![^\[\]]*\])", text.strip("{} "))
    return [(" ".join(words[:-1]) or words[0].rstrip("?"), words[-1]) for words in (_words(item) for item in items)]


def _words(item: str) -> list[str]:
    name, bracket, rest = item.partition("[")
    return [*name.split(), *([bracket + rest.strip()] if bracket else [])]


@functools.cache
def _places() -> dict[str, list[tuple[str, str]]]:
    """The fields of each message, with its tag before them, and of each structure."""
    found = {name: [("tag", "u8"), *_fields(fields)] for _tag, name, fields, _types in _rows("| tag | message |")}
    return {**found, **{name: _fields(fields) for name, fields in _rows("| structure | fields |")}}


def _limited() -> set[tuple[str, str]]:
    """Every field whose length its type leaves open."""
    return {
        (place, name)
        for place, fields in _places().items()
        for name, kind in fields
        if kind.rstrip("?") in ("text", "bytes") or kind.startswith("[")
    }


def _limits() -> dict[tuple[str, str], int]:
    found = {(place, name): int(most.split()[0].replace(",", "")) for place, name, most in _rows("| in | field |")}
    other = found.pop(("any other", "array"))
    return {**{where: other for where in _limited() if where not in found}, **found}


@functools.cache
def _example(kind: str) -> Any:
    """An item of an array of that type, from the vectors."""
    if kind in ("u7", "u8", "u32", "u64"):
        return 1
    if kind == "key":
        return "k"
    if kind == "version":
        return _structure("document", _vector("document")[1])[1]
    for place, fields in _places().items():
        for position, (_name, of) in enumerate(fields):
            if of.rstrip("?") == f"[{kind}]":
                found = _structure(place, _vector(place)[1])
                if len(found) > position and found[position]:
                    return found[position][0]
    raise AssertionError(f"no vector has a {kind}")


def _structure(place: str, body: list[Any]) -> list[Any]:
    for step in _PLACES.get(place, ("", ()))[1]:
        body = body[step]
    return body


def _taken(place: str, name: str, length: int) -> bool:
    """Whether a body passes whose field has that length."""
    kind, body = _vector(place)
    target = _structure(place, body)
    fields = _places()[place]
    if place == "record":
        target += ["", 0][max(0, len(target) - 5) :]
    if place == "document":
        target += [0, [], []][len(target) - 8 :]
    position, of = next((position, of) for position, (each, of) in enumerate(fields) if each == name)
    target += [False if each == "bool" else [] for _, each in fields[len(target) : position + 1]]
    of = of.rstrip("?")
    target[position] = {"text": "x", "bytes": b"x"}[of] * length if of[0] != "[" else [_example(of[1:-1])] * length
    try:
        bodies.unpack(kind, msgpack.packb(body))
    except Rejected:
        return False
    return True


def test_every_field_of_open_length_is_there() -> None:
    assert len(_limited()) > 30
    assert set(_limits()) == _limited()


@pytest.mark.parametrize(("place", "name"), sorted(_limits()))
def test_a_limit_is_the_decoders(place: str, name: str) -> None:
    most = _limits()[place, name]
    assert _taken(place, name, most)
    assert not _taken(place, name, most + 1)


@pytest.mark.parametrize(
    ("key", "good"),
    [
        *[("x" * 512, True), ("x" * 513, False), ("é" * 256, True), ("é" * 257, False), ("", False)],
        *[("\x1f", False), ("\x20", True), ("\x7f", False), ("\x80", True), ("a//b", False), ("/", False)],
        *[("a/.", False), ("a/../b", False), ("a/.../b", True), ("k/", False)],
    ],
)
def test_the_rules_of_keys(key: str, good: bool) -> None:
    kind, body = _vector("Query")
    body[2] = key
    if good:
        bodies.unpack(kind, msgpack.packb(body))
        return
    with pytest.raises(Rejected):
        bodies.unpack(kind, msgpack.packb(body))


def test_no_port_is_0() -> None:
    kind, body = _vector("PingRequest")
    body[2] = body[2][:16] + b"\0\0"
    with pytest.raises(Rejected):
        bodies.unpack(kind, msgpack.packb(body))
