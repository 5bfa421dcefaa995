# SPDX-License-Identifier: MIT
"""The same fleet on every plane: what a member sees must not depend on how packets travel."""

from __future__ import annotations

import concurrent.futures
import random
import signal
import threading
import time
from pathlib import Path

import pytest

from tests.planes.conftest import CYCLE, TIMEOUT
from tests.planes.fleet import Fleet, Host
from tests.support.fleet import SECRET, eventually
from tests.support.keys import OTHER_KEY
from xdp_gossip.wire.keys import derive

pytestmark = [pytest.mark.slow, pytest.mark.timeout(150)]

#: Three rounds of probes, which poor local health stretches, and a busy machine.
SUSPICION = 3 * CYCLE / 2 * 3 + 4
#: Documents of a kilobyte that each of three publishes: together more than the ring buffer holds.
FLOOD = 80


def kernel_plane(fleet: Fleet) -> None:
    """Leave a test out where there is no data plane."""
    if fleet.plane == "UDP":
        pytest.skip("about the kernel data plane")


def lost(fleet: Fleet) -> str:
    """The event of a node whose agent is gone: a kernel goes on answering for the host."""
    return "removed" if fleet.plane == "UDP" else "agent_down"


def test_all_join_in_the_mode_asked_for_and_without_a_capability(fleet: Fleet) -> None:
    for host in fleet:
        status = host.status()
        assert status["mode"] == fleet.plane
        assert ("dataplane" in status) == (fleet.plane != "UDP")
        modes = {node["protocol"] for node in host.nodes()}
        assert modes == {fleet.plane}
        found = dict(
            line.split(":\t") for line in Path(f"/proc/{host.pid}/status").read_text().splitlines() if line[:3] == "Cap"
        )
        assert {int(value, 16) for value in found.values()} == {0}
        assert "Uid:\t0" not in Path(f"/proc/{host.pid}/status").read_text()


def test_heartbeats_reach_all(fleet: Fleet) -> None:
    def sequences() -> dict[tuple[str, str], int]:
        return {(host.name, node["name"]): node["sequence"] for host in fleet for node in host.nodes()}

    before = sequences()

    def still() -> str | None:
        behind = [pair for pair, sequence in sequences().items() if sequence < before[pair] + 2]
        return f"(at, of) {behind}: no new heartbeats" if behind else None

    eventually(still, 20 * CYCLE)


def test_heartbeats_without_news_do_not_reach_user_space(fleet: Fleet) -> None:
    kernel_plane(fleet)
    # That a node has caught up is news to the others: one heartbeat of each, which may still be to come.
    eventually(lambda: None if all(host.call("GET", "/v1/status")["caught_up"] for host in fleet) else "behind", 60)
    told = [host.kernel()["take_heartbeat"] for host in fleet]

    def untold() -> str | None:
        taken = [host.kernel()["take_heartbeat"] - before for host, before in zip(fleet, told)]
        return f"the kernels took {taken} heartbeats since" if min(taken) < 9 else None

    eventually(untold, 60)
    agents = [host.counters().get("rx_heartbeat", 0) for host in fleet]
    kernels = [host.kernel()["take_heartbeat"] for host in fleet]

    def few() -> str | None:
        taken = [host.kernel()["take_heartbeat"] - before for host, before in zip(fleet, kernels)]
        return f"the kernels took {taken} heartbeats of three others" if min(taken) < 20 else None

    eventually(few, 60)
    for host, agent, kernel in zip(fleet, agents, kernels):
        taken = host.kernel()["take_heartbeat"] - kernel
        woken = host.counters().get("rx_heartbeat", 0) - agent
        assert woken <= taken // 10, f"{host.name}: {woken} of {taken} heartbeats came through to the agent"


def test_a_publish_reaches_all(fleet: Fleet) -> None:
    for number in range(4):
        key, value = f"publish/{number}", b"%d of %s" % (number, fleet.plane.encode())
        fleet[number].publish(key, value)
        eventually(lambda key=key, value=value: fleet.lacking(key, value), 3, 0.01)  # type: ignore[misc]
    large = bytes(range(256)) * 400
    fleet[2].publish("publish/large", large)
    eventually(lambda: fleet.lacking("publish/large", large), 5, 0.02)
    fleet.settled()


def test_private_data_reach_all(fleet: Fleet) -> None:
    host = fleet[3]
    data = f"rack {time.monotonic_ns()}"
    host.call("PATCH", "/v1/node", {"private_data": data})

    def unseen() -> str | None:
        for other in fleet:
            said = {node["name"]: node["private_data"] for node in other.nodes()}
            if said.get(host.name) != data:
                return f"{other.name} reads {said.get(host.name)!r}"
        return None

    eventually(unseen, 5, 0.02)


def test_the_killed_is_removed_and_comes_back(fleet: Fleet) -> None:
    victim = fleet[3]
    marks = {host.name: host.revision() for host in fleet}
    victim.kill()
    eventually(lambda: fleet.without(victim), TIMEOUT + SUSPICION, 0.05)
    for host in fleet.hosts[:3]:
        gone = [found for found in host.events(marks[host.name]) if found[0] in ("removed", "agent_down")]
        assert gone == [(lost(fleet), victim.address)], f"{host.name}: {gone}"
    fleet.start([victim])
    eventually(lambda: fleet.missing(victim), 5, 0.02)


def test_who_leaves_is_dropped_at_once(fleet: Fleet) -> None:
    leaver = fleet[2]
    marks = {host.name: host.revision() for host in fleet if host is not leaver}
    assert leaver.call("POST", "/v1/node/leave")["changed"]
    eventually(lambda: fleet.without(leaver), TIMEOUT, 0.02)
    end = time.monotonic() + 2 * TIMEOUT
    while time.monotonic() < end:
        assert fleet.without(leaver) is None
        time.sleep(0.1)
    for host in fleet:
        if host is not leaver:
            # It was dropped because it said so, not because a timeout had passed.
            events = [event for event, address in host.events(marks[host.name]) if address == leaver.address]
            assert events == ["left"], f"{host.name}: {events}"
    assert leaver.call("POST", "/v1/node/start")["changed"]
    eventually(lambda: fleet.missing(leaver), 5, 0.02)


def test_who_is_paused_is_dropped_and_goes_on_listening(fleet: Fleet) -> None:
    paused = fleet[1]
    paused.call("POST", "/stop")
    took = eventually(lambda: fleet.without(paused), TIMEOUT + 2 * CYCLE + SUSPICION, 0.05)
    assert took > TIMEOUT - 2 * CYCLE, "dropped before the timeout"
    value = b"while paused, over " + fleet.plane.encode()
    fleet[3].publish("paused", value)
    eventually(lambda: None if paused.read("paused") == value else "the paused node hears nothing", 5)
    paused.call("POST", "/start")
    eventually(lambda: fleet.missing(paused), 5, 0.02)


def test_a_restart_costs_nobody_and_the_list_is_there_at_once(fleet: Fleet) -> None:
    host = fleet[0]
    marks = {other.name: other.revision() for other in fleet}
    everybody = {other.address for other in fleet}
    assert host.stop() == 0
    fleet.start([host])
    marks[host.name] = host.revision()
    eventually(lambda: None if host.listed("alive") == everybody else f"lists {host.listed('alive')}", 3, 0.01)
    time.sleep(TIMEOUT)
    for other in fleet:
        gone = [found for found in other.events(marks[other.name]) if found[0] in ("removed", "left")]
        assert not gone, f"{other.name}: {gone}"


def test_who_may_not_speak_is_not_heard(fleet: Fleet) -> None:
    """Also what others relay: what counts is where a packet comes from."""
    host = fleet[0]
    name = "rx_not_allowed" if fleet.plane == "UDP" else "drop_not_allowed"

    def refused() -> int:
        found = host.counters() if fleet.plane == "UDP" else host.kernel()
        return found.get(name, 0)

    def heard() -> int:
        return host.counters()["rx_heartbeat"] if fleet.plane == "UDP" else host.kernel()["take_heartbeat"]

    host.settings["dataplane"] = {**host.settings.get("dataplane", {}), "allow": ["203.0.113.0/24", "2001:db8::/32"]}
    assert host.stop() == 0
    fleet.start([host])
    # It hears no probes either, so the others give it up. It removes nobody: it knows that it is the isolated one.
    before, earlier = refused(), heard()
    eventually(lambda: fleet.without(host), 60)
    eventually(lambda: None if refused() > before else f"{name} stands still", 60)
    assert heard() == earlier

    host.settings["dataplane"]["allow"] = ["198.18.0.0/15", "fd00::/8"]
    assert host.stop() == 0
    fleet.start([host])
    fleet.settled(60)
    before = refused()
    fleet.settled(60)
    assert refused() == before


class Publishes:
    """Publishes at one host ten times a second until the block ends; ``values`` has what was published."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.values: dict[str, bytes] = {}
        self.failed: list[str] = []

    def _run(self) -> None:
        number = 0
        while not self._stop.wait(0.1):
            number += 1
            key, value = f"rotation/{number}", b"number %d" % number
            try:
                self._host.publish(key, value)
            except Exception as error:  # told by the test
                self.failed.append(f"{key}: {error!r}")
            else:
                self.values[key] = value

    def __enter__(self) -> Publishes:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(60)


#: Counters that a packet with a key of another step would raise.
REFUSED = ("rx_unknown_key", "rx_bad_mac", "rx_bad_body", "drop_unknown_key", "drop_bad_mac")


def refused(fleet: Fleet) -> dict[tuple[str, str], int]:
    """The counters of packets that were refused for their key, of agents and of kernels."""
    found = {}
    for host in fleet:
        counters = {**host.counters(), **(host.kernel() if fleet.plane != "UDP" else {})}
        found.update({(host.name, name): counters[name] for name in REFUSED if name in counters})
    return found


def test_a_key_is_rotated_by_reloads_and_nobody_notices(fleet: Fleet) -> None:
    """No restart, no packet refused for its key, nobody suspected, and no publish lost."""
    old, new = SECRET, OTHER_KEY
    names = {old: "old.key", new: "new.key"}
    steps = [[("active", old), ("staged", new)], [("active", new), ("retiring", old)], [("active", new)]]

    def runs() -> dict[str, tuple[int | None, int]]:
        return {host.name: (host.pid, host.status()["node"]["incarnation"]) for host in fleet}

    fleet.settled(30)
    before, running, marks = refused(fleet), runs(), {host.name: host.revision() for host in fleet}
    with Publishes(fleet[0]) as publishes:
        for step in steps:
            shown = [
                {"fingerprint": f"{derive('default', secret).fingerprint:016x}", "state": state}
                for state, secret in step
            ]
            for host in random.Random(1).sample(fleet.hosts, len(fleet.hosts)):
                host.settings.pop("secret_key_file", None)
                host.settings["keys"] = [
                    {"file": str(host.write_secret(names[secret], secret)), "state": state} for state, secret in step
                ]
                host.give_to_user()
                host.write_config()
                host.signal(signal.SIGHUP)
            wanted = sorted(shown, key=lambda key: key["fingerprint"])

            def untold(wanted: list[dict[str, str]] = wanted) -> str | None:
                for host in fleet:
                    for node in host.nodes():
                        if node.get("keys") != wanted:
                            return f"{host.name} is told that {node['name']} has {node.get('keys')}"
                return None

            eventually(untold, 20, 0.05)
            done = len(publishes.values)  # until no packet of the step before is under way
            eventually(lambda done=done: None if len(publishes.values) >= done + 8 else "few publishes", 20)  # type: ignore[misc]
    assert not publishes.failed and len(publishes.values) >= 24
    for key, value in publishes.values.items():
        eventually(lambda key=key, value=value: fleet.lacking(key, value), 20, 0.05)  # type: ignore[misc]
    assert runs() == running
    assert refused(fleet) == before
    for host in fleet:
        changes = host.events(marks[host.name])
        assert {event for event, _ in changes} <= {"updated"}, f"{host.name}: {changes}"
    value = b"signed with the new key, over " + fleet.plane.encode()
    fleet[1].publish("rotated", value)
    eventually(lambda: fleet.lacking("rotated", value), 3, 0.02)


def test_the_frozen_comes_back_and_accuses_nobody(fleet: Fleet) -> None:
    sleeper = fleet[0]
    marks = {host.name: host.revision() for host in fleet}
    before = sleeper.kernel() if fleet.plane != "UDP" else {}
    sleeper.signal(signal.SIGSTOP)
    try:
        eventually(lambda: fleet.without(sleeper, but=sleeper), TIMEOUT + SUSPICION, 0.05)
        time.sleep(TIMEOUT)
        if before:
            after = sleeper.kernel()
            assert after["take_heartbeat"] > before["take_heartbeat"] + 10, "the kernel went on recording"
            assert after["copy"] > before["copy"] + 10, "the kernel went on relaying"
    finally:
        sleeper.signal(signal.SIGCONT)
    eventually(lambda: fleet.missing(sleeper), 10, 0.05)
    time.sleep(TIMEOUT)  # for a late accusation to show
    for host in fleet:
        gone = {found for found in host.events(marks[host.name]) if found[0] in ("removed", "agent_down")}
        assert gone == (set() if host is sleeper else {(lost(fleet), sleeper.address)}), f"{host.name}: {gone}"


def test_a_full_ring_buffer_is_counted_and_made_good(fleet: Fleet) -> None:
    kernel_plane(fleet)
    sleeper, publishers = fleet[3], fleet.hosts[:3]
    value = random.Random(1).randbytes(1000)

    def flood(publisher: Host, attempt: int) -> None:
        for number in range(FLOOD):
            publisher.publish(f"flood/{attempt}/{publisher.name}/{number}", value)

    lost = sleeper.kernel()["news_lost"]
    for attempt in range(1, 4):
        sleeper.signal(signal.SIGSTOP)
        try:
            # All at once: who is silent for longer than the timeout is not sent to any more. A busy machine may need
            # longer than that, and is given another chance.
            with concurrent.futures.ThreadPoolExecutor(3) as pool:
                list(pool.map(flood, publishers, [attempt] * 3))
            overflowed = sleeper.kernel()["news_lost"] > lost
        finally:
            sleeper.signal(signal.SIGCONT)
        eventually(lambda count=attempt * 3 * FLOOD: _incomplete(sleeper, count), 15)  # type: ignore[misc]
        fleet.settled()
        if overflowed:
            break
    assert overflowed
    for key in publishers[0].versions():
        if key.startswith("flood/"):
            publishers[0].call("DELETE", f"/v1/documents/{key}")


def _incomplete(host: Host, count: int) -> str | None:
    found = sum(key.startswith("flood/") for key in host.versions())
    return None if found == count else f"{host.name} holds {found} of {count}"
