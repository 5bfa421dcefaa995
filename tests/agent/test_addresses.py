# SPDX-License-Identifier: MIT
"""Addresses that the agent listens on and that are not there: told, followed, and no reason to end."""

from __future__ import annotations

import asyncio
import logging
import socket
from pathlib import Path

import pytest

from tests.support.agents import agent
from tests.support.ports import free_port
from xdp_gossip.core.types import Address
from xdp_gossip.pekonode.transport import OneShotTransport
from xdp_gossip.service import addresses
from xdp_gossip.service.addresses import Addresses, present
from xdp_gossip.transport import TransportError
from xdp_gossip.transport.sockets import bound_socket, listening_socket
from xdp_gossip.transport.tcp import TcpTransport
from xdp_gossip.transport.udp import UdpTransport

#: Of the network for benchmarks (RFC 2544) and of the one for documentation (RFC 3849): no host has them.
ABSENT, ABSENT_SIX = "198.18.255.253", "2001:db8::253"


@pytest.mark.parametrize(
    ("ip", "expected"),
    [("127.0.0.1", True), ("0.0.0.0", True), ("::", True), ("::1", True), (ABSENT, False), (ABSENT_SIX, False)],
)
def test_which_addresses_are_there(ip: str, expected: bool) -> None:
    assert present(ip) is expected


@pytest.mark.parametrize("ip", [ABSENT, ABSENT_SIX])
def test_sockets_are_bound_to_an_address_that_is_to_come(ip: str) -> None:
    async def run() -> None:
        for kind in (UdpTransport, TcpTransport, OneShotTransport):
            transport = kind((ip, 0))
            await transport.open(lambda data, source, screened=False: True)
            assert transport.local.ip == ip
            await transport.close()

    asyncio.run(run())


def test_a_port_in_use_is_an_error_also_there() -> None:
    with bound_socket(ABSENT, 0, socket.SOCK_STREAM) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(TransportError, match=rf"cannot listen on TCP {ABSENT}:{port}: Address already in use"):
            listening_socket(Address(ABSENT, port), socket.SOCK_STREAM)


def test_each_change_is_told_once(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    there: set[str] = set()
    monkeypatch.setattr(addresses, "present", lambda ip: ip in there)
    caplog.set_level(logging.INFO, "xdp_gossip.addresses")

    async def run() -> None:
        followed = Addresses({"listen_addr": ABSENT, "api.listen": ABSENT, "other": "198.18.255.252", "none": ""})
        followed.open()
        both = f"address {ABSENT} (listen_addr, api.listen); address 198.18.255.252 (other)"
        assert followed.waiting == both
        assert followed.changed.is_set()
        followed.changed.clear()
        followed.look()
        assert not followed.changed.is_set()
        there.update((ABSENT, "198.18.255.252"))
        followed._read()  # as when the kernel tells of a change
        assert followed.waiting == ""
        assert followed.changed.is_set()
        there.clear()
        followed.look()
        assert followed.waiting == both, "one that goes later is missed as well"
        followed.close()
        followed.close()

    asyncio.run(run())
    lines = [record.getMessage() for record in caplog.records]
    wait = f"listen_addr, api.listen: no interface has {ABSENT}: waiting for this address; not serving there yet"
    assert lines.count(wait) == 2
    assert lines.count(f"listen_addr, api.listen: {ABSENT} is there now") == 1
    assert len(lines) == 6


@pytest.mark.slow
def test_an_agent_without_its_addresses_runs_and_says_so(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(20)
        api = {"socket": str(tmp_path / "a" / "api.sock"), "token_file": "api.token"}
        api["listen"] = f"{ABSENT}:{free_port()}"
        environment = {"NOTIFY_SOCKET": str(tmp_path / "notify")}
        with agent(tmp_path / "a", environment=environment, listen_addr=ABSENT, api=api) as running:
            said = ""
            while "READY=1" not in said:
                said = manager.recv(4096).decode()
            waiting = f"address {ABSENT} (listen_addr, api.listen)"
            assert f"waiting for {waiting}" in said
            status = running.json("status")
            assert (status["state"], status["waiting"]) == ("running", waiting)
            assert waiting.encode() in running.command("status").stdout
            doctor = running.command("doctor", "--config", str(tmp_path / "a" / "agent.yml")).stdout
            assert f"waiting for {waiting}".encode() in doctor
            assert running.log_text().count("waiting for this address") == 1
            assert running.stop() == 0
