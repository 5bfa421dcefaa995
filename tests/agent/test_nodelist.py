# SPDX-License-Identifier: MIT
"""The toolkit as PekoNode describes it, on real sockets."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.keys import KEY
from tests.support.patience import patient
from tests.support.ports import free_port
from xdp_gossip import Node, NodeList, NotReadyError, ProtocolError, TransportError


def until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + patient(seconds)
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.02)


@pytest.fixture
def make() -> Iterator[Callable[..., NodeList]]:
    made: list[NodeList] = []

    def build(name: str, port: int, *seeds: int, **options: object) -> NodeList:
        settings = {"cycle": 0.5, "timeout": 1.5, "secret_key": KEY, "listen_addr": "127.0.0.1", **options}
        node_list = NodeList(**settings)
        made.append(node_list)
        node_list.new(Node("127.0.0.1", port, name, f"data of {name}"))
        for seed in seeds:
            node_list.set(Node("127.0.0.1", seed))
        node_list.join()
        return node_list

    yield build
    for node_list in made:
        node_list.close()


def names(node_list: NodeList) -> list[str]:
    return sorted(node.name for node in node_list.get())


@pytest.mark.slow
@pytest.mark.parametrize("protocol", ["UDP", "TCP"])
def test_the_seeds_example(make: Callable[..., NodeList], protocol: str) -> None:
    one, two, three = free_port(), free_port(), free_port()
    a = make("A", one, protocol=protocol)
    b = make("B", two, one, protocol=protocol)
    c = make("C", three, one, protocol=protocol)
    until(lambda: all(names(n) == ["A", "B", "C"] for n in (a, b, c)))
    assert a.get()[0] == Node("127.0.0.1", one, "A", "data of A")
    a.publish(b"test metadata")
    until(lambda: all(n.read() == b"test metadata" for n in (a, b, c)))
    assert b.stop() and not b.stop()
    until(lambda: names(a) == ["A", "C"] and names(c) == ["A", "C"])
    c.publish(b"while B was silent")
    until(lambda: b.read() == b"while B was silent")
    assert b.start() and not b.start()
    until(lambda: names(a) == ["A", "B", "C"], 2.0)


@pytest.mark.slow
def test_a_seed_is_listed_until_its_timeout(make: Callable[..., NodeList]) -> None:
    silent = free_port()
    a = make("A", free_port(), silent)
    assert [node.port for node in a.get()][1:] == [silent]
    until(lambda: len(a.get()) == 1)


def test_changing_private_data_changes_the_node(make: Callable[..., NodeList]) -> None:
    port = free_port()
    a, b = make("A", port), make("B", free_port(), port)
    until(lambda: names(a) == ["A", "B"])
    assert b.update_node(private_data="new")
    until(lambda: [n.private_data for n in a.get() if n.name == "B"] == ["new"])
    assert len(a.get()) == 2


def test_calls_out_of_order_name_the_missing_one() -> None:
    node_list = NodeList()
    calls: list[Callable[[], object]] = [
        node_list.get,
        node_list.join,
        node_list.stop,
        node_list.start,
        node_list.read,
        lambda: node_list.publish(b"x"),
        lambda: node_list.set(Node("127.0.0.1", 1)),
    ]
    for call in calls:
        with pytest.raises(NotReadyError, match=r"call new\(\) first"):
            call()
    node_list.new(Node("127.0.0.1", free_port()))
    for call in calls[2:6]:
        with pytest.raises(NotReadyError, match=r"call join\(\) first"):
            call()
    with pytest.raises(NotReadyError, match=r"new\(\) was called before"):
        node_list.new(Node("127.0.0.1", 1))
    node_list.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "xdp-gossip"]


def test_defaults_are_the_seeds() -> None:
    node_list = NodeList()
    inner = node_list._inner
    settings = inner.settings
    assert (settings.amount, settings.queue, settings.size, settings.protocol, settings.listen_addr) == (
        3,
        9,
        16384,
        "UDP",
        "0.0.0.0",
    )
    node_list.new(Node("127.0.0.1", free_port()))
    with node_list:
        node_list.join()
        status = node_list.status()
        assert (status["cycle"], status["timeout"]) == (6.0, 20.0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"amount": 0}, "amount: expected a whole number from 1 to 64, got 0"),
        ({"cycle": -1}, "cycle: expected"),
        ({"size": 100}, "size: expected a whole number from 4096"),
        ({"protocol": "SCTP"}, "protocol: expected one of UDP, TCP, auto, XDP, TC, got 'SCTP'"),
        ({"wire": "json"}, "wire: expected one of native, pekonode"),
    ],
)
def test_bad_parameters_are_named(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        NodeList(**options)


def test_a_taken_port_is_an_error_and_leaves_nothing(make: Callable[..., NodeList]) -> None:
    port = free_port()
    make("A", port)
    other = NodeList(listen_addr="127.0.0.1")
    other.new(Node("127.0.0.1", port))
    with pytest.raises(TransportError, match=str(port)):
        other.join()
    other.close()
    assert len([thread for thread in threading.enumerate() if thread.name == "xdp-gossip"]) == 1


def test_compare_and_set_tells_both_versions(make: Callable[..., NodeList]) -> None:
    a = make("A", free_port())
    first = a.publish(b"1", "app/x").document
    second = a.publish(b"2", "app/x").document
    assert first is not None and second is not None
    with pytest.raises(ProtocolError) as refused:
        a.publish(b"3", "app/x", expected=first.version)
    assert refused.value.details == {
        "key": "app/x",
        "expected": str(first.version),
        "actual": str(second.version),
    }
    assert a.read("app/x") == b"2"
    assert [document.value for document in a.history("app/x")] == [b"2", b"1"]


@pytest.mark.slow
def test_state_survives_close(make: Callable[..., NodeList], tmp_path: Path) -> None:
    port, other = free_port(), free_port()
    a = make("A", port, state_dir=tmp_path / "a")
    b = make("B", other, port, state_dir=tmp_path / "b")
    until(lambda: names(a) == ["A", "B"] and names(b) == ["A", "B"])
    a.publish(b"kept", "app/x")
    until(lambda: b.read("app/x") == b"kept")
    a.close()
    b.close()
    again_a, again_b = make("A", port, state_dir=tmp_path / "a"), make("B", other, state_dir=tmp_path / "b")
    assert again_a.read("app/x") == again_b.read("app/x") == b"kept"
    until(lambda: names(again_a) == ["A", "B"] and names(again_b) == ["A", "B"])


def test_console_lines(make: Callable[..., NodeList], capsys: pytest.CaptureFixture[str]) -> None:
    port = free_port()
    a = make("A-server", port, is_print=True)
    make("B", free_port(), port)
    until(lambda: names(a) == ["A-server", "B"])
    a.publish(b"x")
    a.stop()
    a.start()
    a.close()
    lines = capsys.readouterr().out.splitlines()
    node = rf"\{{127\.0\.0\.1 {port} A-server data of A-server\}}"
    stamp = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d "
    for body in (
        rf"\[\[Join\]: {node}\]",
        rf"\[\[Listen\]: 127\.0\.0\.1:{port} / \[Node list\]: \[{node}.*\]\]",
        rf"\[\[Stop\]: {node}\]",
        rf"\[\[Start\]: {node}\]",
        rf"\[\[Publish\]: {node}.*\]",
        rf"\[\[Swap Request\]: 127\.0\.0\.1:\d+ -> 127\.0\.0\.1:{port}\]",
        rf"\[\[Swap Response\]: 127\.0\.0\.1:\d+ <- 127\.0\.0\.1:{port}\]",
    ):
        assert any(re.fullmatch(stamp + body, line) for line in lines), f"{body} not in {lines}"
