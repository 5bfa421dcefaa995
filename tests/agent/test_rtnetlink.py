# SPDX-License-Identifier: MIT
"""What the kernel says over netlink, read in one place for agent and loader; and messages that no kernel would send."""

from __future__ import annotations

import errno
import os
import struct
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xdp_gossip.dataplane import interfaces, routes, rtnetlink


def message(kind: int, body: bytes, length: int | None = None) -> bytes:
    """A netlink message, padded."""
    size = 16 + len(body) if length is None else length
    return (struct.pack("=IHHII", size, kind, 0, 1, 0) + body).ljust((16 + len(body) + 3) & ~3, b"\0")


def test_messages_and_attributes_are_taken_apart_at_their_lengths() -> None:
    data = message(16, b"odd") + message(20, b"even")
    assert list(rtnetlink.messages(data)) == [(16, b"odd"), (20, b"even")]
    body = rtnetlink.packed(3, b"eth0\0") + rtnetlink.packed(0x8000 | 18, rtnetlink.packed(1, b"veth\0"))
    found = rtnetlink.attributes(body)
    assert rtnetlink.text(found[3]) == "eth0"
    # The flag of a nested one is no part of its number.
    assert rtnetlink.text(rtnetlink.attributes(found[18])[1]) == "veth"


def test_what_is_damaged_ends_the_reading() -> None:
    assert list(rtnetlink.messages(message(16, b"good") + message(17, b"bad", length=15) + message(18, b"behind"))) == [
        (16, b"good")
    ]
    assert rtnetlink.attributes(rtnetlink.packed(3, b"good") + struct.pack("=HH", 3, 4)) == {3: b"good"}


@given(st.binary(max_size=200))
def test_no_bytes_make_it_fail_or_run_on(data: bytes) -> None:
    for _, body in rtnetlink.messages(data):
        assert len(body) <= len(data)
    assert all(len(value) <= len(data) for value in rtnetlink.attributes(data).values())
    interfaces.concerns(data, bytes(16), 1, "lo")


def test_the_kernels_refusal_is_an_error_with_its_number() -> None:
    request = rtnetlink.INTERFACE.pack(0, 0, 2**31 - 2, 0, 0)
    with pytest.raises(OSError, match=os.strerror(errno.ENODEV)) as caught:
        list(rtnetlink.ask(rtnetlink.RTM_GETLINK, request))
    assert caught.value.errno == errno.ENODEV


def test_an_answer_of_another_type_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rtnetlink, "_GET_LESS_NEW", 1)
    with pytest.raises(OSError, match=r"expected an answer of type 17, got 16"):
        list(rtnetlink.ask(rtnetlink.RTM_GETLINK, rtnetlink.INTERFACE.pack(0, 0, 1, 0, 0)))


def test_agent_and_loader_see_the_same_interface() -> None:
    found, loopback = interfaces.look("127.0.0.1", 0, "").interface, interfaces.by_name("lo")
    assert found is not None and loopback is not None
    assert replace(found, features=None) == loopback == interfaces.by_index(found.index)
    assert loopback.loopback and loopback.holds and loopback.ethernet
    assert interfaces.owners("127.0.0.1") == (loopback.index,)
    assert routes.interface("127.0.0.1", "127.0.0.1") == loopback.index
    assert routes.interface("127.0.0.1", "198.18.255.254") is None, "no interface has the source"


@pytest.mark.parametrize("index", [-1, 0, 2**31 - 2, 2**31])
def test_an_index_of_no_interface_leads_to_none(index: int) -> None:
    assert interfaces.by_index(index) is None


def test_the_default_route_counts_where_no_other_leads_anywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    table = {"198.18.0.2": 7, "198.18.0.3": 1, "198.51.100.1": 8}
    monkeypatch.setattr(routes, "interface", lambda to, source, within, uid: table.get(to))

    def ways(*toward: str) -> list[int]:
        return routes.ways("198.18.0.1", toward, lambda index: index != 1)

    assert ways("198.18.0.1", "198.18.0.2", "198.18.0.3", "fd00::1") == [7]
    # Addresses of this host lead to loopback; the first address of nobody is one that routers drop traffic by.
    assert ways("198.18.0.3") == ways() == [8]
    table["192.0.2.1"] = 9
    assert ways("198.18.0.9") == [9]
    table.clear()
    assert ways("198.18.0.2") == []
