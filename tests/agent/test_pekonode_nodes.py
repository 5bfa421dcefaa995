# SPDX-License-Identifier: MIT
"""PekoNode's wire from end to end: agents and library nodes that see each other, and packets of the Go program."""

from __future__ import annotations

import contextlib
import functools
import json
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.agents import SECRET, agent
from tests.support.ports import free_port
from xdp_gossip import Node, NodeList
from xdp_gossip.core.interface import ProtocolError
from xdp_gossip.core.settings import MAX_DATAGRAM, MAX_OBJECT, Settings
from xdp_gossip.core.types import Address, Now, State
from xdp_gossip.pekonode import PekoNodeEngine
from xdp_gossip.pekonode import codec as codec

#: Agents are processes here.
pytestmark = pytest.mark.slow

GOLDEN = Path(__file__).parent / "golden" / "pekonode"
PROTOCOLS = ("UDP", "TCP")


def golden(kind: str) -> list[bytes]:
    """What two nodes of the Go program sent each other: one packet a line, in the order in which they were sent.

    Key "shared-secret", Cycle 1. A-server (port 29101, then 29201) published "test metadata" in the first run, and
    six bytes before B-server joined in the second.
    """
    return [bytes.fromhex(line) for line in (GOLDEN / f"{kind.lower()}.hex").read_text().split()]


def until(condition: Callable[[], bool], what: str, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"expected within {seconds:g} s: {what}"
        time.sleep(0.02)


def until_held(value: bytes, *nodes: NodeList) -> None:
    until(lambda: all(node_list.read() == value for node_list in nodes), f"{value[:40]!r} on {len(nodes)} nodes")


@contextlib.contextmanager
def library(protocol: str, port: int, *seeds: int, secret_key: str = SECRET, **options: object) -> Iterator[NodeList]:
    node_list = NodeList(
        protocol=protocol,
        wire="pekonode",
        cycle=0.2,
        secret_key=secret_key,
        listen_addr="127.0.0.1",
        **options,
    )
    with node_list:
        node_list.new(Node("127.0.0.1", port, f"library {port}", "zone=a"))
        for seed in seeds:
            node_list.set(Node("127.0.0.1", seed))
        node_list.join()
        yield node_list


def names(node_list: NodeList) -> set[tuple[str, str]]:
    return {(node.name, node.private_data) for node in node_list.get()}


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_two_agents_and_two_library_nodes(protocol: str, tmp_path: Path) -> None:
    first_port, ports = free_port(), (free_port(), free_port())
    settings = {"wire": "pekonode", "protocol": protocol, "seeds": [f"127.0.0.1:{first_port}"]}
    with (
        agent(tmp_path / "a", first_port, **settings) as first,
        agent(tmp_path / "b", **settings) as second,
        library(protocol, ports[0], first_port) as third,
        library(protocol, ports[1], first_port) as fourth,
    ):
        everybody = {("a", ""), ("b", ""), *((f"library {port}", "zone=a") for port in ports)}

        def listed() -> bool:
            of_agents = [
                {(node["name"], node["private_data"]) for node in one.json("members")["nodes"]}
                for one in (first, second)
            ]
            return all(found == everybody for found in (*of_agents, names(third), names(fourth)))

        until(listed, "four nodes that list each other")

        for number, wait in enumerate(("all", "majority", "4")):
            value = f"published by an agent {number}"
            done = second.command("--json", "publish", "default", "--wait", wait, "--timeout", "60", "--value", value)
            assert done.returncode == 0, done.stderr
            found = json.loads(done.stdout)["convergence"]
            assert found["converged"] and found["members"] == 4
            assert found["confirmed"] >= {"all": 4, "majority": 3, "4": 4}[wait]
            until_held(value.encode(), third, fourth)

        fourth.publish(b"\x00published by a library")
        until_held(b"\x00published by a library", third)
        verified = first.command("--json", "verify", "default", "--wait", "all", "--timeout", "60")
        assert verified.returncode == 0, verified.stderr
        assert json.loads(verified.stdout)["confirmed"] == 4
        history = first.json("history", "default")["versions"]
        assert len(history) >= 3
        assert not any(version["conflict"] for version in history)
        for one in (first, second):
            assert one.json("status")["counters"]["receive_errors"] == 0


def test_wire_pekonode_is_not_deaf() -> None:
    """Once no packet was taken: its engine could not be called as the others are, and nobody was told."""
    ports = free_port(), free_port()
    with library("UDP", ports[0]) as first, library("UDP", ports[1], ports[0]) as second:
        first.publish(b"x")
        until(lambda: second.read() == b"x", "the document at the second node")
        until(lambda: names(first) == names(second) and len(first.get()) == 2, "two nodes on both")
        for one in (first, second):
            counters = one.status()["counters"]
            assert (counters["receive_errors"], counters["internal_errors"]) == (0, 0)
            assert counters["rx_heartbeats"] > 0


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_packets_of_the_go_program_are_read_and_written_byte_for_byte(protocol: str) -> None:
    packets = golden(protocol)
    assert len(packets) == 10
    for packet in packets:
        assert codec.encode(codec.decode(packet)) == packet


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_node_takes_what_the_go_program_sends(protocol: str) -> None:
    with library(protocol, free_port(), secret_key="shared-secret") as node_list:
        own = node_list.get()[0]
        for packet in golden(protocol):
            kind = socket.SOCK_DGRAM if protocol == "UDP" else socket.SOCK_STREAM
            with socket.socket(socket.AF_INET, kind) as sock:
                sock.connect((own.addr, own.port))
                sock.sendall(packet)
        until(lambda: node_list.read() == bytes.fromhex("00ff10e29c93"), "the latest of the published documents")
        others = {(node.port, node.name, node.private_data) for node in node_list.get()[1:]}
        assert others == {(29101, "A-server", 'zone=a; "x" é'), (29102, "B-server", "B")}
        versions = node_list.history("default")
        assert [version.value for version in versions] == [bytes.fromhex("00ff10e29c93"), b"test metadata"]
        counters = node_list.status()["counters"]
        assert not [name for name in ("rx_malformed", "rx_wrong_key", "rx_oversized") if counters.get(name)]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_node_in_the_place_of_the_go_program_sends_the_same_bytes(protocol: str) -> None:
    """With the values of a recorded run, an engine makes each of A-server's packets as the Go program did."""
    packets = golden(protocol)
    for port in (29101, 29201):
        mine = [packet for packet in packets if codec.decode(packet).node.port == port]
        beside = Node("127.0.0.1", port + 1, "B-server", "B")
        published = next(packet for packet in map(codec.decode, mine) if packet.stamp)
        engine = PekoNodeEngine(
            Node("127.0.0.1", port, "A-server", 'zone=a; "x" é'),
            Settings(cycle=1.0),
            random.Random(1),
            "shared-secret",
        )
        sent: set[bytes] = set()
        now = Now(1000.0, published.stamp)
        engine.seed(beside, now)
        engine.start(now)
        sent.update(transmit.data for transmit in engine.take_transmits())
        greeting = codec.Packet(
            codec.PekoNodeId(beside.addr, beside.port, beside.name, beside.private_data),
            secret=codec.secret_digest("shared-secret"),
        )
        engine.receive(codec.encode(greeting), Address("127.0.0.1", port + 1), now)
        assert published.data is not None
        engine.documents.publish("default", published.data, now)
        question = codec.Packet(greeting.node, data=b"", swap=codec.Swap.REQUEST, secret=greeting.secret)
        engine.receive(codec.encode(question), Address("127.0.0.1", port + 1), now)
        engine.handle_timer(Now(1001.0, published.stamp + 10**9))
        sent.update(transmit.data for transmit in engine.take_transmits())
        assert set(mine) <= sent


def test_over_tcp_a_document_may_be_larger_than_a_datagram() -> None:
    size = 4 * 1024 * 1024
    value = random.Random(1).randbytes(2_500_000)
    ports = free_port(), free_port()
    with library("TCP", ports[0], size=size) as first, library("TCP", ports[1], ports[0], size=size) as second:
        first.publish(value)
        until(lambda: second.read() == value, "2.5 MB at the second node")
        with pytest.raises(ProtocolError) as caught:
            first.publish(bytes(size))
        assert caught.value.code == "document_too_large"


@pytest.mark.parametrize(
    ("protocol", "size", "most"), [("UDP", MAX_DATAGRAM + 1, MAX_DATAGRAM), ("TCP", MAX_OBJECT + 1, MAX_OBJECT)]
)
def test_a_size_that_the_protocol_cannot_carry_is_refused(protocol: str, size: int, most: int) -> None:
    with pytest.raises(ValueError, match=f"size: expected a whole number from 1 to {most}, got {size}"):
        NodeList(protocol=protocol, wire="pekonode", size=size)


def test_an_overwritten_version_is_no_conflict_on_this_wire() -> None:
    """It says nothing of what an author had read, so nobody may be told that an author had not."""
    ports = free_port(), free_port()
    with library("UDP", ports[0]) as first, library("UDP", ports[1], ports[0]) as second:
        for number in range(3):
            value = b"%d" % number
            (first, second)[number % 2].publish(value)
            until_held(value, first, second)
        for one in (first, second):
            versions = one.history("default")
            assert len(versions) == 3
            assert one._do(functools.partial(one._inner.unread, "default", versions)) == frozenset()


def test_a_seed_that_never_answered_is_waited_for_until_the_timeout() -> None:
    silent = Node("127.0.0.1", free_port())
    engine = PekoNodeEngine(Node("127.0.0.1", 1), Settings(cycle=1.0), random.Random(1))
    engine.seed(silent, Now(10.0, 0))
    engine.start(Now(10.0, 0))
    assert [(member.address, member.state) for member in engine.members(Now(10.0, 0))[1:]] == [
        (silent.address, State.SUSPECT)
    ]
    assert engine.tally()[State.SUSPECT] == 1
    now = 10.0
    while now < 10.0 + engine.timeout + 2:
        now += 0.25
        engine.handle_timer(Now(now, 0))
    assert len(engine.members(Now(now, 0))) == 1
    engine.take_transmits()
    engine.handle_timer(Now(now + 1.0, 0))
    assert silent.address in {transmit.to for transmit in engine.take_transmits()}  # it is tried forever


class Stubborn(threading.Thread):
    """A Go node that holds another value with the same time: it keeps its own, as the Go program does."""

    def __init__(self, value: bytes) -> None:
        super().__init__(daemon=True)
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.sock.bind(("127.0.0.1", 0))
        self.sock.settimeout(0.2)
        self.id = codec.PekoNodeId("127.0.0.1", self.sock.getsockname()[1], "stubborn")
        self.value = value
        self.stamp = 0
        self.asked = threading.Event()
        self.end = threading.Event()

    def run(self) -> None:
        while not self.end.is_set():
            with contextlib.suppress(socket.timeout):
                data, source = self.sock.recvfrom(65_535)
                packet = codec.decode(data)
                if packet.is_update:
                    self.stamp = packet.stamp
                secret = packet.secret
                self.sock.sendto(codec.encode(codec.Packet(self.id, secret=secret)), source)
                if packet.swap is codec.Swap.REQUEST and self.stamp > packet.stamp:
                    answer = codec.Packet(
                        self.id, data=self.value, stamp=self.stamp, swap=codec.Swap.RESPONSE, secret=secret
                    )
                    self.sock.sendto(codec.encode(answer), source)
                    self.asked.set()


def test_a_node_with_another_value_of_the_same_time_does_not_count() -> None:
    stubborn = Stubborn(b"!")
    stubborn.start()
    try:
        with library("UDP", free_port(), stubborn.id.port) as node_list:
            until(lambda: ("stubborn", "") in names(node_list), "the other node")
            # The greater SHA-256 of two holds among agents: ours has to be that, or it would be given up.
            value = max((b"%d" % number for number in range(100)), key=lambda text: codec_hash(text))
            assert codec_hash(value) > codec_hash(stubborn.value)
            node_list.publish(value)
            inner = node_list._inner
            found = node_list._wait(inner.convergence("default", timeout=3.0))
            assert stubborn.asked.is_set()
            assert (found.converged, found.confirmed, found.members) == (False, 1, 2)
    finally:
        stubborn.end.set()
        stubborn.join()
        stubborn.sock.close()


def codec_hash(value: bytes) -> int:
    from xdp_gossip.pekonode.document import document_of

    return document_of(1, value).content_hash
