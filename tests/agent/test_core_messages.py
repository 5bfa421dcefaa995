# SPDX-License-Identifier: MIT
"""The registry of messages is complete, and says the same as docs/wire.md and bpf/wire.h."""

from __future__ import annotations

import random
import re
from dataclasses import dataclass
from pathlib import Path
from typing import get_type_hints

import pytest

from tests.support.keys import KEY
from xdp_gossip.core.engine import Engine
from xdp_gossip.core.messages import BODILESS, BY_CLASS, BY_TAG
from xdp_gossip.core.packets import FLAG_PAUSED, RUMORS, PacketType
from xdp_gossip.core.received import Received
from xdp_gossip.core.registry import Message, message
from xdp_gossip.core.schema import U64, Field
from xdp_gossip.core.settings import Settings
from xdp_gossip.core.types import Node
from xdp_gossip.dataplane.headers import constants
from xdp_gossip.wire.keys import Keyring
from xdp_gossip.wire.native import NativeCodec

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "wire.md").read_text(encoding="utf-8")


def rows(heading: str) -> list[list[str]]:
    """Cells of the table in docs/wire.md with this heading."""
    table = PAGE.partition(heading + "\n")[2].partition("\n\n")[0]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[1:]]


def test_every_message_has_a_handler_that_takes_it() -> None:
    codec = NativeCodec(Keyring.single("c", KEY), b"salt")
    engine = Engine(Node("198.18.0.11", 8000, "a"), Settings(), codec, random.Random(1), 1)
    handlers = engine._dispatcher.handlers
    assert handlers.keys() == BY_CLASS.keys()
    for cls, handler in handlers.items():
        hints = get_type_hints(handler)
        assert hints.pop("return") is type(None)
        assert list(hints.values()) == [cls, Received], handler


def test_every_message_is_registered() -> None:
    assert {cls for cls in Message.__subclasses__() if cls.__module__.startswith("xdp_gossip.")} == set(BY_CLASS)
    assert list(BY_TAG) == [each.tag for each in BY_CLASS.values()]


def test_the_page_has_every_message_with_its_tag_and_its_packets() -> None:
    told = {
        name: (int(tag), {int(kind) for kind in kinds.split(", ")})
        for tag, name, _, kinds in rows("| tag | message | fields | in types |")
    }
    assert told == {cls.__name__: (each.tag, set(map(int, each.kinds))) for cls, each in BY_CLASS.items()}


def test_the_page_has_every_packet_with_its_messages() -> None:
    names = {cls.__name__ for cls in BY_CLASS}
    told = {
        int(kind): (goes == "rumor", set(re.findall(r"\w+", body)) & names)
        for kind, _, goes, body in rows("| type | name | goes | body |")
    }
    assert told == {
        int(kind): (kind in RUMORS, {cls.__name__ for cls, each in BY_CLASS.items() if kind in each.kinds})
        for kind in PacketType
    }


def test_the_kernel_knows_the_same_packets() -> None:
    known = constants()
    assert {kind.name: known[f"XG_{kind.name}"] for kind in PacketType} == {kind.name: int(kind) for kind in PacketType}
    assert known["XG_FLAG_PAUSED"] == FLAG_PAUSED
    source = (ROOT / "bpf" / "wire.h").read_text(encoding="utf-8")
    bodiless = "".join(re.findall(r"#define XG_(?:BODILESS|IS_EDGE)\(type\) (.*)", source)).replace("XG_IS_EDGE", "")
    assert set(re.findall(r"XG_(\w+)", bodiless)) == {kind.name for kind in BODILESS}


@pytest.mark.parametrize(
    ("tag", "kinds", "fields", "expected"),
    [
        (1, [PacketType.PROBE], {"nonce": U64}, "tag 1 belongs to SyncRequest"),
        (9999, [PacketType.PROBE], {"number": U64}, r"expected \['nonce'\]"),
        (9999, [], {"nonce": U64}, "expected one or more"),
        (9999, [PacketType.PROBE, PacketType.SWAP_REQUEST], {"nonce": U64}, "at most one of them direct"),
    ],
)
def test_a_registration_that_contradicts_is_refused(
    tag: int, kinds: list[PacketType], fields: dict[str, Field], expected: str
) -> None:
    @dataclass(frozen=True)
    class Mistaken(Message):
        nonce: int

    with pytest.raises(TypeError, match=expected):
        message(tag, *kinds, **fields)(Mistaken)
    assert 9999 not in BY_TAG
