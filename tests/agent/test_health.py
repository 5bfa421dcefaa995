# SPDX-License-Identifier: MIT
"""Whether a data plane does its work, and when the loader is asked: judged from totals, facts and time alone."""

from __future__ import annotations

import ipaddress
import json
import os
from collections import Counter
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

import pytest

from xdp_gossip.core.types import Now
from xdp_gossip.dataplane import asking, headers, interfaces, rtnetlink
from xdp_gossip.dataplane.asking import ANSWER, FIRST, MOST, SETTLE, STABLE, Asking, Request
from xdp_gossip.dataplane.health import _FANOUT_ENDS, _PASSED, _TAKEN, COPY_ENDS, PROOFS, Health, Plane, Work
from xdp_gossip.dataplane.interfaces import Facts, Interface

ETH0 = Interface(
    7, "eth0", "", 1500, up=True, mac=b"\2\0\0\0\0\1", programs=frozenset({42}), carrier_changes=2, features=3
)
FACTS = Facts(ETH0, (7,))
PLANE = Plane("eth0", 7, 42, frozenset({7}))


def work(at_socket: int = 0, sent: int = 0, lost: int = 0, **kernel: int) -> Work:
    """Totals."""
    return Work(kernel, at_socket, sent, lost)


def proof(health: Health, totals: Work, facts: Facts | None = FACTS) -> str:
    """The verdict's proof, "" when there is none."""
    found = health.judge(totals, facts)
    assert found is None or (found.proof in PROOFS and found.text and found.awaited)
    return found.proof if found is not None else ""


def test_every_counter_that_is_judged_by_exists() -> None:
    assert {*COPY_ENDS, *_FANOUT_ENDS, *_TAKEN, *_PASSED, "copy_due", "copy_lost"} <= set(headers.counters())


@pytest.mark.parametrize(
    ("totals", "expected"),
    [
        (work(at_socket=1), "passed_by"),
        (work(at_socket=25, take_heartbeat=75), ""),
        (work(at_socket=26, take_heartbeat=74), "passed_by"),
        (work(at_socket=3, pass_odd=2, pass_no_agent=1), ""),
        (work(sent=4, lost=1), ""),
        (work(sent=4, lost=2), "carriers_lost"),
        (work(copy_due=8, copy=6, copy_surplus=1, copy_unresolved=1), ""),
        (work(copy_due=8), "copies_lost"),
        (work(copy_due=8, copy=8, copy_lost=3), "copies_lost"),
        (work(copy_due=8, copy=4, relay_failed=4), "copies_refused"),
        (work(fanout_copy=1, fanout_failed=1), "copies_refused"),
        (work(answer=8), ""),
        (work(answer=8, copy_lost=3), "copies_lost"),
        (work(answer=8, copy_due=8, copy=8, copy_lost=3), ""),
        (work(answer=8, answer_failed=2), ""),
        (work(answer=8, answer_failed=3), "copies_refused"),
    ],
)
def test_what_was_left_undone_in_one_cycle(totals: Work, expected: str) -> None:
    health = Health(PLANE)
    # What was in flight when the plane came into use is nobody's fault.
    assert proof(health, work(at_socket=9, sent=5, lost=5, copy_due=100)) == ""
    grown = {name: totals.kernel.get(name, 0) for name in (*totals.kernel, "copy_due")}
    grown["copy_due"] += 100
    totals = Work(grown, totals.at_socket + 9, totals.carriers_sent + 5, totals.carriers_lost + 5)
    assert proof(health, totals) == expected
    assert proof(Health(PLANE), totals) == ""


def test_a_datagram_read_a_cycle_after_it_was_counted_is_explained() -> None:
    health = Health(PLANE)
    assert proof(health, work()) == ""
    assert proof(health, work(pass_no_agent=3)) == ""
    assert proof(health, work(at_socket=3, pass_no_agent=3)) == ""
    assert proof(health, work(at_socket=4, pass_no_agent=3)) == "passed_by"


def test_nothing_is_judged_without_a_carrier() -> None:
    health = Health(PLANE)
    down = Facts(replace(ETH0, running=False, carrier_changes=3), (7,))
    back = Facts(replace(ETH0, carrier_changes=4), (7,))
    assert proof(health, work()) == ""
    assert proof(health, work(copy_due=9), down) == ""
    assert proof(health, work(copy_due=19), back) == ""  # it was away for a part of the cycle
    assert proof(health, work(copy_due=29), back) == "copies_lost"


@pytest.mark.parametrize(
    ("facts", "owners", "expected"),
    [
        (Facts(None, (7,)), {7}, "interface_gone"),
        (Facts(ETH0, ()), {7}, "address_moved"),
        (Facts(ETH0, (9,)), {7}, "address_moved"),
        (Facts(ETH0, (1,)), {1, 7}, "address_moved"),  # others than the plane's have it as well, and still do
        (Facts(ETH0, (1, 7)), {7}, ""),
        (Facts(replace(ETH0, name="uplink0"), (7,)), {7}, ""),
        (None, {7}, ""),
        # On the loopback interface, and routed to the plane's.
        (Facts(ETH0, (1,), frozenset({7, 8})), {1}, ""),
        (Facts(ETH0, (1,), frozenset({8})), {1}, "route_moved"),
        (Facts(ETH0, (1,), frozenset()), {1}, ""),  # no route at all: nowhere is better
        (Facts(ETH0, ()), {1}, "address_moved"),
        (Facts(ETH0, (7,)), {1}, "address_moved"),
        # Behind NAT.
        (Facts(ETH0, ()), (), ""),
        (Facts(ETH0, (9,)), (), ""),
    ],
)
def test_what_the_kernel_states(facts: Facts | None, owners: Collection[int], expected: str) -> None:
    assert proof(Health(replace(PLANE, owners=frozenset(owners))), work(), facts) == expected


def test_an_interface_that_the_operator_has_named_is_not_left_for_a_route() -> None:
    plane = replace(PLANE, owners=frozenset({1}), named=True)
    assert proof(Health(plane), work(), Facts(ETH0, (1,), frozenset({8}))) == ""


def test_another_program_must_be_seen_twice() -> None:
    """A loader replaces programs before it records which they are."""
    health = Health(PLANE)
    for programs, expected in ((43, ""), (42, ""), (43, ""), (43, "detached")):
        facts = Facts(replace(ETH0, programs=frozenset({programs})), (7,))
        assert proof(health, work(), facts) == expected
    bare = Facts(replace(ETH0, programs=frozenset()), (7,))
    assert [proof(Health(replace(PLANE, program=0)), work(), bare) for _ in range(3)] == ["", "", ""]


# -- asking ----------------------------------------------------------------------------------------------------


class Rig:
    """An asking with its file, and a clock."""

    def __init__(self, tmp_path: Path, listened: bool = True) -> None:
        self.request = Request(tmp_path)
        if listened:
            self.request.directory.mkdir()
        self.counters: Counter[str] = Counter()
        self.asking = Asking(self.request, lambda name: self.counters.update([name]))
        self.now = 1000.0

    def run(self, seconds: float, reason: str = "because") -> list[float]:
        """Let time pass; when it asked."""
        asked, end = [], self.now + seconds
        while self.now < end:
            before = sum(self.counters.values())
            self.asking.attend(reason, Now(self.now, int(self.now * 1e9)))
            if sum(self.counters.values()) > before:
                asked.append(self.now - end + seconds)
            self.now += 0.25
        return asked


def test_it_asks_at_once_and_then_less_and_less(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    assert rig.run(10) == []
    rig.asking.failed("detached", rig.now)
    assert rig.run(100) == [0, 5, 15, 35, 75]
    assert json.loads(rig.request.path.read_text()) == {"reason": "because", "at": 1000.0 + 10 + 75}
    times = rig.run(5000)
    assert [b - a for a, b in zip(times[-3:], times[-2:])] == [MOST, MOST]


def test_an_agent_that_starts_without_a_plane_asks_at_once(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    rig.asking.want(rig.now)
    rig.asking.hurry(rig.now)
    assert rig.run(16) == [0, 5, 15]
    rig.asking.hurry(rig.now)
    assert rig.run(1) == [0]


def test_a_change_starts_it_over(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    rig.asking.follow(FACTS, 42, rig.now)
    rig.asking.failed("interface_gone", rig.now)
    rig.run(200)
    assert not rig.asking.follow(FACTS, 42, rig.now)
    assert rig.asking.follow(Facts(ETH0, ()), 42, rig.now)
    assert rig.run(6) == [0, 5]


def test_what_the_loader_itself_does_to_the_interface_is_no_change(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    veth = replace(ETH0, kind="veth")
    rig.asking.follow(Facts(veth, (7,)), 42, rig.now)
    rig.asking.want(rig.now)
    rig.asking.loader_worked(rig.now)
    for changed in (replace(veth, running=False), replace(veth, programs=frozenset({9})), veth):
        assert not rig.asking.follow(Facts(changed, (7,)), 42, rig.now)
        rig.now += SETTLE / 5
    rig.now += SETTLE
    assert not rig.asking.follow(Facts(veth, (7,)), 42, rig.now)
    # GRO of the peer; a program of others that goes. On other kinds features follow our own program.
    assert rig.asking.follow(Facts(replace(veth, features=99), (7,)), 42, rig.now)
    assert rig.asking.follow(Facts(replace(veth, features=99, programs=frozenset({42, 5})), (7,)), 42, rig.now)
    other = Asking(rig.request, rig.counters.__getitem__)
    other.follow(FACTS, 42, rig.now)
    assert not other.follow(Facts(replace(ETH0, features=99), (7,)), 42, rig.now)


def test_a_plane_that_fails_again_for_the_same_proof_waits_its_turn(tmp_path: Path) -> None:
    rig = Rig(tmp_path)

    def fail(carried: float) -> float:
        """A plane carries for a while and fails: seconds until the loader is asked; it proves the plane at once."""
        rig.now += carried
        rig.asking.failed("copies_lost", rig.now)
        failed = rig.now
        while not rig.run(0.25):
            pass
        rig.asking.content(rig.now, rig.now)
        return rig.now - 0.25 - failed

    # From request to request: 5 s, 10 s, ...
    assert [fail(0.75) for _ in range(5)] == [0, 4, 9, 19, 39]
    # One that has carried meanwhile, as a link that somebody detaches now and then, does not wait.
    assert fail(STABLE - 1) == 80 - (STABLE - 1) - 0.25
    rig.asking.content(rig.now - 2 * MOST, rig.now)
    assert [fail(6) for _ in range(2)] == [0, 0]
    # Another proof is another matter; and what has carried for long has made up for it.
    rig.asking.failed("detached", rig.now)
    assert rig.run(2)[0] <= asking.SPACING
    rig.asking.content(rig.now - 2 * MOST, rig.now)
    rig.asking.failed("detached", rig.now)
    assert rig.run(10)[0] <= asking.SPACING


def test_a_plane_is_taken_back_when_the_loader_has_looked_at_it(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    rig.asking.failed("detached", rig.now)
    assert not rig.asking.may_take(rig.now, False)
    assert rig.asking.may_take(rig.now, True)
    rig.run(1)
    # It may be at work still: what it has not proved would fail again.
    assert not rig.asking.may_take(rig.now + ANSWER / 2, False)
    assert rig.asking.may_take(rig.now + ANSWER, False)
    assert rig.request.path.is_file()


def test_a_plane_is_tried_again_soon_where_nobody_answers(tmp_path: Path) -> None:
    rig = Rig(tmp_path, listened=False)
    rig.asking.failed("detached", rig.now)
    rig.run(1)
    assert not rig.asking.may_take(rig.now, False)
    assert rig.asking.may_take(rig.now + FIRST, False)


def test_a_failure_is_forgotten_in_a_lower_mode_as_well(tmp_path: Path) -> None:
    """On a bridge there is never a better mode than TC: what failed there once waits no longer for it weeks later."""
    rig = Rig(tmp_path)
    for _ in range(3):
        rig.asking.failed("passed_by", rig.now)
        rig.run(0.25)
        rig.now += 6
    taken = rig.now
    while rig.now < taken + 2 * MOST:
        rig.asking.want(rig.now)
        rig.asking.carries(taken, rig.now)
        rig.run(1)
    rig.asking.failed("passed_by", rig.now)
    assert rig.run(2)[0] <= asking.SPACING


def test_a_request_that_nobody_takes_is_told(tmp_path: Path) -> None:
    """The path unit is stopped, or watches another directory."""
    rig = Rig(tmp_path)
    rig.asking.failed("detached", rig.now)
    rig.run(ANSWER)
    assert "the loader is asked" in rig.asking.words(), "it may be at work"
    rig.run(ANSWER)
    assert f"nobody takes the request {rig.request.path}" in rig.asking.words()
    assert "is xdp-gossip-dataplane.path started" in rig.asking.words()
    rig.request.path.unlink()
    assert "the loader is asked" in rig.asking.words()


def test_the_loader_is_told_whom_packets_go_to(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    assert rig.request.toward() == []
    rig.asking.toward = ("198.18.0.1", "2001:db8::1")
    rig.asking.failed("route_moved", rig.now)
    rig.run(1)
    assert rig.request.toward() == ["198.18.0.1", "2001:db8::1"]
    rig.asking.toward = ()
    rig.run(10)
    assert rig.request.toward() == ["198.18.0.1", "2001:db8::1"], "an agent that knows nobody takes nothing back"
    rig.request.withdraw()
    assert not rig.request.directory.exists()


def test_the_loader_may_read_what_it_is_told_whatever_the_umask(tmp_path: Path) -> None:
    """Its root may override no permissions: the unit leaves it CAP_SYS_ADMIN, CAP_NET_ADMIN and CAP_CHOWN."""
    rig = Rig(tmp_path)
    before = os.umask(0o077)
    try:
        rig.request.write("why", 1.0, ["198.18.0.1"])
    finally:
        os.umask(before)
    assert [path.stat().st_mode & 0o777 for path in sorted(rig.request.directory.iterdir())] == [0o644, 0o644]


def test_to_watch_another_interface_is_no_change(tmp_path: Path) -> None:
    """Without a plane the loopback interface, which has the address, is watched; with one, the plane's."""
    rig = Rig(tmp_path)
    lo = Facts(replace(ETH0, index=1, name="lo", loopback=True), (1,), frozenset({7}))
    eth = Facts(ETH0, (1,), frozenset({7}))
    rig.asking.follow(eth, 42, rig.now)
    rig.asking.other_interface()
    assert not rig.asking.follow(lo, 42, rig.now)
    rig.asking.other_interface()
    assert not rig.asking.follow(eth, 42, rig.now)
    rig.asking.other_interface()
    assert rig.asking.follow(replace(lo, ways=frozenset({8})), 42, rig.now), "a route is another"


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"5", b"null", b'{"a": 1}', b'["fd00::1%eth0", 7]', b"[[]]", b'["x"]', b"[" * 4000, b"\xff"],
)
def test_the_loader_takes_nothing_on_trust(tmp_path: Path, content: bytes) -> None:
    rig = Rig(tmp_path)
    (rig.request.directory / "toward").write_bytes(content)
    assert all(each == str(ipaddress.ip_address(each)) for each in rig.request.toward())


def test_the_loader_follows_no_link_and_waits_for_nobody(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    (tmp_path / "elsewhere").write_text('["198.18.0.1"]')
    (rig.request.directory / "toward").symlink_to(tmp_path / "elsewhere")
    assert rig.request.toward() == []
    (rig.request.directory / "toward").unlink()
    os.mkfifo(rig.request.directory / "toward")
    assert rig.request.toward() == []


def test_without_a_file_it_says_so_and_counts(tmp_path: Path) -> None:
    rig = Rig(tmp_path, listened=False)
    rig.asking.failed("detached", rig.now)
    rig.run(6)
    assert rig.counters == {"plane_ask_failed": 2}
    assert "nothing asks the loader" in rig.asking.words()
    assert "reload-or-restart xdp-gossip-dataplane" in rig.asking.words()


# -- rtnetlink -------------------------------------------------------------------------------------------------


def test_the_kernel_is_asked_without_a_privilege() -> None:
    facts = interfaces.look("127.0.0.1", 0, "")
    assert facts.interface is not None
    assert (facts.interface.name, facts.interface.index in facts.owners, facts.interface.mtu > 0) == ("lo", True, True)
    assert interfaces.look("198.18.255.254", 0, "no-such-name") == Facts(None, ())
    assert interfaces.look("127.0.0.1", 2**31 - 2, "lo").interface is None
    with rtnetlink.events() as channel, pytest.raises(BlockingIOError):
        channel.recv(1)
