# SPDX-License-Identifier: MIT
"""Hosts that hear one direction only, and two sides of a fleet: who is removed, who confirms a publish, what heals."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator

import pytest

from tests.networks.foreign import TCX_DROP, attached, returning
from tests.planes.conftest import CYCLE, TIMEOUT
from tests.planes.fleet import Fleet, Host, command
from tests.support.fleet import eventually
from tests.support.patience import patient
from tests.support.process import COMMAND

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

#: Until the members have removed a host, or list it again. Events end the wait, this is only its end.
SECONDS = 60.0


@pytest.fixture(scope="module", params=["UDP", "XDP (native)"])
def fleet(request: pytest.FixtureRequest) -> Iterator[Fleet]:
    """Five agents that agree."""
    with Fleet(request.param, 5, cycle=CYCLE, timeout=TIMEOUT) as made:
        made.start()
        made.settled()
        yield made


def dropping(host: Host, direction: str) -> contextlib.AbstractContextManager[None]:
    """Drop what goes "to" a host, or comes "from" it, on the hub's end of its link."""
    return attached(returning(TCX_DROP), host.hub, f"v{host.number}", egress=direction == "to")


def publish(host: Host, key: str, wait: str, seconds: float) -> tuple[int, str]:
    """``xdp-gossip publish --wait``: its exit status and what it said."""
    words = ["--socket", str(host.socket), "publish", key, "--value", "x", "--wait", wait, "--timeout", str(seconds)]
    done = subprocess.run(
        [str(COMMAND), *words], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=patient(seconds + 60)
    )
    return done.returncode, done.stdout + done.stderr


def isolated(host: Host, wanted: bool) -> str | None:
    """None when the host calls itself isolated, or does not, as ``wanted``."""
    told = host.call("GET", "/v1/nodes")["isolated"]
    return None if told is wanted else f"{host.name} says isolated: {told}"


# Each on a host of its own: one that was removed a second time returns a minute later.
@pytest.mark.parametrize(("direction", "number"), [("to", 4), ("from", 3)])
def test_a_host_of_one_direction_is_removed_confirms_nothing_and_returns(
    fleet: Fleet, direction: str, number: int
) -> None:
    victim = fleet[number]
    others = [host for host in fleet if host is not victim]
    marks = {host.name: host.revision() for host in fleet}
    with dropping(victim, direction):
        eventually(lambda: fleet.without(victim), SECONDS, 0.1)
        eventually(lambda: isolated(victim, True), SECONDS, 0.1)
        status, said = publish(others[0], f"{direction}/others", "all", SECONDS)
        assert status == 0, said
        status, said = publish(victim, f"{direction}/victim", "1", 5)
        assert status and "isolated" in said, (status, said)
        assert victim.read(f"{direction}/victim") is None
        assert victim.listed() == {host.address for host in fleet}, "it removes nobody"
    eventually(lambda: isolated(victim, False), SECONDS, 0.1)
    fleet.settled(SECONDS)
    status, said = publish(victim, f"{direction}/victim", "all", SECONDS)
    assert status == 0, said
    for host in others:
        gone = [found for found in host.events(marks[host.name]) if found[0] in ("removed", "left", "agent_down")]
        assert gone == [("removed", victim.address)], host.name


def test_only_the_side_of_three_confirms_with_a_majority(fleet: Fleet) -> None:
    small, large = fleet.hosts[:2], fleet.hosts[2:]
    command("ip", "-n", small[0].hub, "link", "add", "br1", "type", "bridge", "mcast_snooping", "0")
    command("ip", "-n", small[0].hub, "link", "set", "br1", "up")
    bridges = {True: "br1", False: "br0"}
    try:
        for host in small:
            command("ip", "-n", host.hub, "link", "set", f"v{host.number}", "master", bridges[True])
        for side in (small, large):
            addresses = {host.address for host in side}
            for host in side:
                eventually(
                    lambda host=host, addresses=addresses: (  # type: ignore[misc]
                        None if host.listed() == addresses else f"{host.name} lists {host.listed()}"
                    ),
                    SECONDS,
                    0.1,
                )
        status, said = publish(large[0], "split", "majority", SECONDS)
        assert status == 0, said
        status, said = publish(small[0], "split", "majority", 3)
        assert status and "of 5 known members, 3 dead" in said, (status, said)
    finally:
        for host in small:
            command("ip", "-n", host.hub, "link", "set", f"v{host.number}", "master", bridges[False])
    fleet.settled(SECONDS)
