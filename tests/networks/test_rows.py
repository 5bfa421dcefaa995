# SPDX-License-Identifier: MIT
"""Each row of the table: the mode, the members, and that the kernel does its work there."""

from __future__ import annotations

import time

import pytest

from tests.networks import sniff
from tests.networks.world import World
from tests.support.fleet import eventually
from tests.support.patience import patient

pytestmark = [pytest.mark.slow, pytest.mark.timeout(150)]

#: Cycles in which every host has sent heartbeats and relayed those of the others.
SOME = 6
_BOUND = 20.0


def test_the_mode_is_the_best_of_the_interface_and_the_reason_is_told(world: World) -> None:
    row = world.row
    for host in world.hosts:
        status = host.status()
        assert status["mode"] == row.mode, f"{host.name}: {status['mode_reason']}; {host.loader_said}"
        assert row.words in status["mode_reason"]
        assert bool(status["mode_reason"]) == bool(row.words)
        if row.on:
            assert status["dataplane"]["interface"] == row.interface
        assert {node["protocol"] for node in host.nodes()} == {row.mode}


def test_all_are_members_and_hold_what_one_publishes(world: World) -> None:
    for number, host in enumerate(world.hosts):
        key, value = f"row/{number}", f"{number} of {world.row.name}".encode()
        host.publish(key, value)
        eventually(lambda key=key, value=value: world.lacking(key, value), 10, 0.02)  # type: ignore[misc]
    large = bytes(range(256)) * 400  # goes by TCP
    world.hosts[2].publish("row/large", large)
    eventually(lambda: world.lacking("row/large", large), 10, 0.02)
    world.settled()


def test_packets_leave_from_the_address_that_peers_know(world: World) -> None:
    for host in world.hosts:
        counters = host.counters()
        assert counters["source_unavailable"] == 0, host.name


def test_the_kernel_sends_the_copies_of_own_rumors_and_of_others(world: World) -> None:
    _needs_plane(world)
    before = [host.kernel() for host in world.hosts]

    def idle() -> str | None:
        for host, old in zip(world.hosts, before):
            new = host.kernel()
            still = [name for name in ("fanout", "fanout_copy", "relay", "copy") if new[name] < old[name] + SOME]
            if still:
                return f"{host.name}: {', '.join(still)} did not grow by {SOME}: {_working(new)}"
        return None

    eventually(idle, _BOUND)
    for host in world.hosts:
        kernel = host.kernel()
        assert kernel["hop_learnt"] + kernel["hop_fib"] > 0, f"{host.name}: no next hop known: {_working(kernel)}"
        assert not host.counters()["carriers_lost"], host.name


def test_no_copy_goes_through_the_agent_once_next_hops_are_known(world: World) -> None:
    _needs_plane(world)
    warm = ("copy", "fanout_copy")
    lost = ("copy_unresolved", "fanout_unresolved", "relay_failed", "fanout_failed")
    before = [(host.kernel(), host.counters()["plane_unresolved"]) for host in world.hosts]

    def idle() -> str | None:
        for host, (old, _) in zip(world.hosts, before):
            new = host.kernel()
            if any(new[name] < old[name] + 5 * SOME for name in warm):
                return f"{host.name}: too few copies to tell: {_working(new)}"
        return None

    eventually(idle, 2 * _BOUND)
    for host, (old, unresolved) in zip(world.hosts, before):
        new = host.kernel()
        assert {name: new[name] - old[name] for name in lost} == dict.fromkeys(lost, 0), host.name
        assert host.counters()["plane_unresolved"] == unresolved, host.name


def test_copies_leave_from_the_relayers_own_address_and_port(world: World) -> None:
    if world.row.interface in ("tun0", "wg0"):
        pytest.skip("no frame of it is seen in the hub")
    known = {host.number: (host.ip, host.port) for host in world.hosts}
    relayers: set[int] = set()
    originators: set[int] = set()
    with sniff.tap() as sock:
        deadline = time.monotonic() + patient(_BOUND)
        while (len(relayers) < len(known) or len(originators) < len(known)) and time.monotonic() < deadline:
            seen = sniff.take(sock)
            if seen is None or not seen.port.startswith("eth"):  # a bridge sees what its ports do
                continue
            number = int(seen.port.rpartition("-")[2])
            assert (seen.source.ip, seen.source.port) == known[number], seen
            (relayers if seen.relayed else originators).add(number)
    assert originators == set(known)
    assert relayers == set(known), "hosts whose copies of others' rumors were seen"


def _needs_plane(world: World) -> None:
    if not world.row.on:
        pytest.skip("about the kernel data plane")


def _working(kernel: dict[str, int]) -> dict[str, int]:
    return {name: value for name, value in kernel.items() if value and not name.startswith("drop_")}
