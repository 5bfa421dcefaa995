# SPDX-License-Identifier: MIT
"""docs/wire.md is enough to read the wire: ``wire_decoder.py`` was written from that page alone, without these packets.

It opens the vectors, and every packet that three members send one another.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.agent import wire_decoder
from tests.agent.test_wire_vectors import raw
from tests.support.patience import patient
from tests.support.ports import free_port
from tests.transports import Wrapped
from xdp_gossip import AsyncNodeList, Node
from xdp_gossip.core.events import Transmit
from xdp_gossip.transport import Transport

VECTORS = json.loads((Path(__file__).parent / "golden" / "wire-2.json").read_text())
SECRET = "the secret of a decoder"


def test_every_vector_is_opened() -> None:
    decoder = wire_decoder.Decoder(VECTORS["cluster"], [VECTORS["secret"]])
    for vector in VECTORS["packets"]:
        packet = decoder.decode(bytes.fromhex(vector["packet"]))
        names = ("type", "flags", "origin", "incarnation", "sequence", "documents_digest", "record_digest", "ttl")
        assert {name: getattr(packet, name) for name in names} == {name: vector[name] for name in names}
        assert (packet.wall_time, packet.message) == (vector["wall_ns"], vector["message"])
        if packet.message is not None:
            assert len(packet.fields) >= len(raw(vector["body"])) - 1


class Recorder(Wrapped):
    """Keeps what is sent."""

    def __init__(self, inner: Transport, sent: list[bytes]) -> None:
        super().__init__(inner)
        self._sent = sent

    def send(self, transmit: Transmit) -> None:
        self._sent.append(transmit.data)
        super().send(transmit)


class Member(AsyncNodeList):
    """A member whose packets are recorded."""

    def __init__(self, sent: list[bytes], port: int, seed: int, **options: Any) -> None:
        super().__init__(cycle=0.2, timeout=3, secret_key=SECRET, listen_addr="127.0.0.1", cluster="decoded", **options)
        self._sent = sent
        self.new(Node("127.0.0.1", port, f"member {port}", "some data"))
        self.set(Node("127.0.0.1", seed))

    def _make_transport(self, node: Node) -> Transport:
        return Recorder(super()._make_transport(node), self._sent)


async def _until(condition: Callable[[], bool]) -> None:
    for _ in range(round(patient(60) / 0.05)):
        if condition():
            return
        await asyncio.sleep(0.05)
    raise AssertionError("the members did not agree")


async def _talk(sent: list[bytes]) -> int:
    """Three members at work; returns the documents digest that they agree on."""
    ports = [free_port() for _ in range(3)]
    members = [Member(sent, port, ports[0]) for port in ports]
    for member in members:
        await member.join()
    try:
        await members[0].publish(b"a value", "app/one", content_type="text", comment="first")
        await members[1].publish(bytes(5000), "app/long")
        await members[2].publish(b"to be deleted", "app/gone")
        await _until(lambda: all(len(member.documents()) == 3 for member in members))
        await members[0].delete("app/gone")
        await members[1].publish(b"another", "app/one")
        await _until(lambda: len({member.status()["digest"] for member in members}) == 1)
        await _until(lambda: all(member.read("app/one") == b"another" for member in members))
        digest = int(members[0].status()["digest"], 16)
        await members[2].leave()
        return digest
    finally:
        for member in members:
            await member.close()


def test_every_packet_of_three_members_is_opened() -> None:
    sent: list[bytes] = []
    digest = asyncio.run(_talk(sent))
    decoder = wire_decoder.Decoder("decoded", [SECRET])
    opened = [decoder.decode(packet) for packet in sent]
    assert {packet.type for packet in opened} >= {1, 2, 3, 4, 5, 6}
    assert {packet.message for packet in opened} >= {"SyncRequest", "SyncResponse", "Documents", "RecordRumor", None}
    newest: dict[str, dict[str, Any]] = {}
    for packet in opened:
        for document in packet.fields.get("documents", ()):
            if document["version"] > newest.get(document["key"], {"version": ""})["version"]:
                newest[document["key"]] = document
    assert [document["deleted"] for _, document in sorted(newest.items())] == [True, False, False]
    assert wire_decoder.documents_digest(newest.values()) == digest
    assert digest in {packet.documents_digest for packet in opened}
    records = {packet.origin: packet.fields["record"] for packet in opened if packet.message == "RecordRumor"}
    for packet in opened:
        if packet.type == 1 and packet.origin in records:
            assert wire_decoder.record_digest(records[packet.origin]) == packet.record_digest


def test_what_is_changed_is_refused() -> None:
    decoder = wire_decoder.Decoder(VECTORS["cluster"], [VECTORS["secret"]])
    for vector in VECTORS["packets"]:
        data = bytes.fromhex(vector["packet"])
        for at in (0, 2, 4, 40, 63, 64, 79, 84, len(data) - 1):
            changed = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
            try:
                decoder.decode(changed)
            except ValueError:
                continue
            raise AssertionError(f"{vector['message']}: byte {at} was changed, and the packet opened")
