# SPDX-License-Identifier: MIT
"""An honest wait: which nodes a majority counts, who is forgotten, and what an isolated member refuses."""

from __future__ import annotations

import asyncio
import json
import random
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from api_harness import serving
from fake_node_list import Convergence, FakeNodeList

from tests.support.patience import patient
from tests.support.ports import free_port
from tests.support.process import command
from xdp_gossip import AsyncNodeList, Node, NodeList
from xdp_gossip.core.engine import Engine
from xdp_gossip.core.interface import Known, ProtocolError
from xdp_gossip.core.members.membership import FORGET_AFTER, Membership
from xdp_gossip.core.messages import MemberInfo, MemberList
from xdp_gossip.core.packets import Header, PacketType, Rejected
from xdp_gossip.core.types import Address, Member, Now, Record, State
from xdp_gossip.node.convergence import Voters, enough_for

LOCAL = Address("198.18.0.1", 8000)


def at(number: int) -> Address:
    """The address of a node."""
    return Address(f"198.18.0.{number}", 8000)


def member(number: int, state: State, incarnation: int = 1, *, local: bool = False) -> Member:
    """A node as the engine lists it; without incarnation it was never heard."""
    return Member(at(number), state, incarnation, 0, Record(f"n{number}"), 1.0, 0, local=local)


# -- which nodes are voters ------------------------------------------------------------------------------------------

ALONE = member(1, State.ALIVE, local=True)


@pytest.mark.parametrize(
    "others, known, dead, agent_down",
    [
        ([], 1, 0, 0),
        ([(State.ALIVE, 1)], 2, 0, 0),
        ([(State.SUSPECT, 1)], 2, 0, 0),
        ([(State.DEAD, 1)], 2, 1, 0),
        ([(State.AGENT_DOWN, 1)], 2, 0, 1),
        ([(State.LEFT, 1)], 1, 0, 0),
        ([(State.ALIVE, 1), (State.DEAD, 1), (State.AGENT_DOWN, 1), (State.LEFT, 1)], 4, 1, 1),
        # A new seed counts until its timeout; afterwards only while this node has met nobody.
        ([(State.ALIVE, 1), (State.SUSPECT, 0)], 3, 0, 0),
        ([(State.ALIVE, 1), (State.DEAD, 0)], 2, 0, 0),
        ([(State.SUSPECT, 0)], 2, 0, 0),
        ([(State.DEAD, 0), (State.DEAD, 0)], 3, 2, 0),
    ],
)
def test_voters_are_the_known_nodes_that_have_not_left(
    others: list[tuple[State, int]], known: int, dead: int, agent_down: int
) -> None:
    members = [ALONE, *(member(number, *entry) for number, entry in enumerate(others, 2))]
    assert Voters.among(members) == Voters(known, dead, agent_down)


@pytest.mark.parametrize(
    "wait, confirmed, members, known, enough",
    [
        ("all", 2, 2, 5, True),
        ("all", 1, 2, 2, False),
        ("majority", 2, 2, 3, True),
        ("majority", 2, 2, 4, False),  # half is no majority
        ("majority", 2, 2, 5, False),
        ("majority", 3, 3, 5, True),
        (2, 2, 9, 9, True),
        (2, 1, 1, 1, False),
    ],
)
def test_what_is_enough(wait: str | int, confirmed: int, members: int, known: int, enough: bool) -> None:
    assert enough_for(wait)(confirmed, members, known) is enough


def test_no_two_sides_of_a_partition_have_a_majority() -> None:
    for known in range(1, 30):
        for side in range(known + 1):
            sides = (side, known - side)
            assert sum(enough_for("majority")(members, members, known) for members in sides) <= 1


# -- forgetting ------------------------------------------------------------------------------------------------------


def membership_of(*states: State, heard: bool = True, most: int = 100) -> Membership:
    """A NodeList with one peer for each state, all of them last heard at second 0."""
    membership = Membership(LOCAL, most, random.Random(1))
    for number, state in enumerate(states, 2):
        peer = membership.add(at(number), Now(0.0, 0))
        peer.incarnation = int(heard)
        peer.liveness.state = state
        membership.changed(peer)
    return membership


A, S, D, L, W = State.ALIVE, State.SUSPECT, State.DEAD, State.LEFT, State.AGENT_DOWN


@pytest.mark.parametrize(
    "states, forgotten",
    [
        ([A, A, D], [D]),
        ([A, D, D, L], [L]),  # 2 of 4: a minority must never forget itself into a majority
        ([D], []),
        ([L, L], [L, L]),
        ([A, A, W, D], [D]),  # the host answers, so it is known to be there
        ([A, S, S, D, D], []),
    ],
)
def test_a_dead_node_is_forgotten_after_a_day_only_by_a_majority(states: list[State], forgotten: list[State]) -> None:
    membership = membership_of(*states)
    gone: list[State] = []
    membership.on_forget = lambda peer: gone.append(peer.liveness.state)
    membership.forget_old(Now(FORGET_AFTER, 0))
    assert gone == []
    membership.forget_old(Now(FORGET_AFTER + 1, 0))
    assert gone == forgotten


def test_who_makes_room_for_a_new_node_stays_a_voter_of_a_minority() -> None:
    def after_one_more(*states: State) -> tuple[list[bool], int]:
        membership = membership_of(*states, most=len(states))
        membership.add(at(9), Now(1.0, 0))
        return [membership.get(at(number)) is not None for number in range(2, 2 + len(states))], len(
            membership.displaced
        )

    assert after_one_more(A, D, D) == ([True, False, True], 1)
    assert after_one_more(A, A, D) == ([True, True, False], 0)
    assert after_one_more(D, D, L) == ([True, True, False], 0)  # who left is no voter
    assert after_one_more(W, D, W) == ([True, False, True], 1)
    assert after_one_more(W, W, W) == ([False, True, True], 1)
    with pytest.raises(Rejected, match="table_full"):
        after_one_more(A, A, S)
    membership = membership_of(A, D, D, most=3)
    membership.add(at(9), Now(1.0, 0))
    assert not membership.sees_majority
    assert Voters.among([ALONE, member(2, A)], 3) == Voters(5, 3, 0)
    membership.forget_old(Now(FORGET_AFTER + 1, 0))
    assert len(membership.displaced) == 1
    membership = membership_of(A, A, A, D)
    membership.displaced[at(20)] = None
    membership.forget_old(Now(1.0, 0))
    assert not membership.displaced


def test_the_tally_has_each_state() -> None:
    tally = membership_of(*State, *State).tally(State.ALIVE)
    assert tally == {state: 2 + (state is State.ALIVE) for state in State}


@pytest.fixture(name="world")
def fixture_world() -> Any:
    """An engine of the simulator that knows three nodes from its disk, and the codec of its cluster."""
    from tests.sim.world import _CODEC
    from xdp_gossip.core.settings import Settings

    now = Now(100.0, 1_700_000_000_000_000_000)
    engine = Engine(Node(LOCAL.ip, LOCAL.port, "n1"), Settings(), _CODEC, random.Random(1), 1)
    known = [Known(at(number), 4, 7, now.wall_ns, f"n{number}") for number in (2, 3, 4)]
    engine.start(now, known)
    engine.take_transmits()
    engine.take_events()
    return engine, now, _CODEC


def test_nodes_from_the_disk_count_before_they_are_heard(world: Any) -> None:
    engine, now, _ = world
    assert Voters.among(engine.members(now)) == Voters(4, 3, 0)


def test_a_forgotten_node_stays_forgotten_until_it_is_heard(world: Any) -> None:
    engine, now, codec = world
    forgotten = engine.forget(at(3), now)
    assert (forgotten.address, forgotten.state) == (at(3), State.DEAD)
    assert "MemberForgotten" in [type(event).__name__ for event in engine.take_events()]
    assert Voters.among(engine.members(now)).known == 3
    # It is contacted further on, also after a restart, and counts for nothing.
    (former,) = engine.former(now)
    assert former.is_former and former.address == at(3)

    def hear(origin: Address, info: MemberInfo) -> None:
        header = Header(PacketType.SWAP_RESPONSE, origin, 5, 1, now.wall_ns, 0, 0)
        engine.receive(codec.encode(header, MemberList((info,))), origin, now)

    dead = MemberInfo(at(3), 4, 7, State.DEAD, 60_000, 0, 0)
    hear(at(2), dead)  # another member has not forgotten it
    assert at(3) not in [known.address for known in engine.members(now)]
    heartbeat = Header(PacketType.HEARTBEAT, at(3), 4, 8, now.wall_ns, 0, 0)
    engine.receive(codec.encode(heartbeat, None), at(3), now)
    assert {known.address: known.state for known in engine.members(now)}[at(3)] is State.ALIVE
    assert engine.former(now) == []


def test_a_former_member_of_an_earlier_run_is_no_voter(world: Any) -> None:
    engine, now, codec = world
    engine.forget(at(3), now)
    stored = engine.former(now)
    again = Engine(Node(LOCAL.ip, LOCAL.port, "n1"), engine.settings, codec, random.Random(1), 2)
    again.start(now, stored)
    assert Voters.among(again.members(now)).known == 1
    assert [known.address for known in again.former(now)] == [at(3)]


@pytest.mark.parametrize("number, code", [(9, "node_not_found"), (1, "node_not_dead"), (2, "node_not_dead")])
def test_only_a_dead_node_can_be_forgotten(world: Any, number: int, code: str) -> None:
    engine, now, codec = world
    heartbeat = Header(PacketType.HEARTBEAT, at(2), 4, 8, now.wall_ns, 0, 0)
    engine.receive(codec.encode(heartbeat, None), at(2), now)
    with pytest.raises(ProtocolError) as refused:
        engine.forget(at(number), now)
    assert refused.value.code == code


# -- a real node that has just started -------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_node_that_has_just_started_claims_no_majority(tmp_path: Path) -> None:
    def ask(node: NodeList, key: str | None, **options: Any) -> Any:
        return node._wait(node._inner.convergence(key, **options))

    def build(port: int, state_dir: Path, *seeds: int) -> NodeList:
        made = NodeList(cycle=0.1, timeout=1.0, state_dir=state_dir, listen_addr="127.0.0.1")
        made.new(Node("127.0.0.1", port, f"n{port}"))
        for seed in seeds:
            made.set(Node("127.0.0.1", seed))
        made.join()
        return made

    ports = [free_port() for _ in range(3)]
    nodes = [build(port, tmp_path / str(port), *ports[:index]) for index, port in enumerate(ports)]
    deadline = time.monotonic() + patient(60)
    while any(node.status()["members"]["alive"] < 3 for node in nodes):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert ask(nodes[0], None, wait="majority", timeout=patient(10)).known == 3
    for node in nodes:
        node.close()
    alone = build(ports[0], tmp_path / str(ports[0]))
    try:
        alone.publish(b"x", "k")
        found = ask(alone, "k", wait="majority")
        assert (found.converged, found.members, found.confirmed, found.known, found.dead) == (False, 1, 1, 3, 2)
        assert ask(alone, "k", wait="all").converged  # all that are present
        with pytest.raises(ProtocolError, match="expected a known node"):
            alone.forget(Address("127.0.0.1", 1))
        for port in ports[1:]:
            assert alone.forget(Address("127.0.0.1", port)).state is State.DEAD
        assert ask(alone, "k", wait="majority").converged
    finally:
        alone.close()
    alone = build(ports[0], tmp_path / str(ports[0]))
    try:
        assert ask(alone, "k", wait="majority").known == 1  # the word outlives a restart
    finally:
        alone.close()


# -- isolated --------------------------------------------------------------------------------------------------------


@pytest.fixture(name="cut")
def fixture_cut(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether each engine calls itself isolated, as a list of one value."""
    cut = [False]
    monkeypatch.setattr(Engine, "isolated", property(lambda engine: cut[0]))
    return cut


def on_a_node(test: Callable[[AsyncNodeList, Any], Any], tmp_path: Path) -> None:
    """Run ``test(node_list, api)`` on a real node."""

    async def main() -> None:
        node_list = AsyncNodeList(cycle=0.1, listen_addr="127.0.0.1", state_dir=tmp_path / "state")
        node_list.new(Node("127.0.0.1", free_port(), "a"))
        await node_list.join()
        async with serving(node_list, tmp_path) as (api, _server):  # type: ignore[arg-type]
            await test(node_list, api)
        await node_list.close()

    asyncio.run(main())


UNLESS = {"X-XDP-Gossip-Unless": "isolated"}


def test_an_isolated_node_says_so_everywhere_and_recovers(tmp_path: Path, cut: list[bool]) -> None:
    async def test(node_list: AsyncNodeList, api: Any) -> None:
        assert (await api("GET", "/v1/health")).json == {"status": "ok"}
        cut[0] = True
        health = await api("GET", "/v1/health")
        assert (health.status, health.json) == (503, {"status": "isolated"})
        assert (await api("GET", "/v1/status")).json["isolated"] is True
        assert (await api("GET", "/v1/nodes")).json["isolated"] is True
        assert b"\nxdp_gossip_isolated 1.0\n" in (await api("GET", "/v1/metrics")).body
        assert node_list.isolated and node_list.health() == "isolated"
        assert node_list.summary().startswith("isolated: 1 alive")
        cut[0] = False
        assert (await api("GET", "/v1/health")).status == 200
        assert b"\nxdp_gossip_isolated 0.0\n" in (await api("GET", "/v1/metrics")).body

    on_a_node(test, tmp_path)


def test_the_entity_tag_of_the_nodes_tells_isolation_apart(tmp_path: Path, cut: list[bool]) -> None:
    async def test(node_list: AsyncNodeList, api: Any) -> None:
        tag = (await api("GET", "/v1/nodes")).headers["ETag"]
        assert (await api("GET", "/v1/nodes", headers={"If-None-Match": tag})).status == 304
        cut[0] = True
        assert (await api("GET", "/v1/nodes", headers={"If-None-Match": tag})).status == 200

    on_a_node(test, tmp_path)


def test_an_isolated_node_refuses_writes_of_those_who_wait(tmp_path: Path, cut: list[bool]) -> None:
    async def test(node_list: AsyncNodeList, api: Any) -> None:
        first = (await api("PUT", "/v1/documents/k", body=b"1", headers=UNLESS)).json["version"]
        cut[0] = True
        batch = json.dumps({"documents": [{"key": "k", "value": "2"}]}).encode()
        back = json.dumps({"version": first}).encode()
        kind = {"Content-Type": "application/json"}
        for answer in (
            await api("PUT", "/v1/documents/k", body=b"2", headers=UNLESS),
            await api("DELETE", "/v1/documents/k", headers=UNLESS),
            await api("POST", "/v1/documents", body=batch, headers={**UNLESS, **kind}),
            await api("POST", "/v1/rollback/k", body=back, headers={**UNLESS, **kind}),
        ):
            assert (answer.status, answer.json["error"]["code"]) == (503, "isolated")
            assert "ask another member" in answer.json["error"]["message"]
        assert len(await node_list.history("k")) == 1 and node_list.read("k") == b"1"
        bad = await api("PUT", "/v1/documents/k", body=b"2", headers={"X-XDP-Gossip-Unless": "bored"})
        assert (bad.status, bad.json["error"]["code"]) == (400, "invalid_header")
        # Who waits for nobody may still write.
        assert (await api("PUT", "/v1/documents/k", body=b"3")).status == 200
        for question in ({}, {"wait": "1"}, {"wait": "majority"}, {"key": "k", "timeout": "60"}):
            params = "&".join(f"{name}={value}" for name, value in question.items())
            answer = await api("GET", "/v1/convergence", params=params)
            assert (answer.status, answer.json["error"]["code"]) == (503, "isolated")

    on_a_node(test, tmp_path)


def test_a_wait_ends_as_soon_as_the_node_is_isolated(tmp_path: Path, cut: list[bool]) -> None:
    async def test(node_list: AsyncNodeList, api: Any) -> None:
        await node_list.publish(b"x", "k")
        waiting = asyncio.ensure_future(node_list.convergence("k", wait=5, timeout=3600))
        await asyncio.sleep(0.05)
        cut[0] = True
        with pytest.raises(ProtocolError, match="isolated"):
            await asyncio.wait_for(waiting, patient(20))

    on_a_node(test, tmp_path)


# -- the routes and commands -----------------------------------------------------------------------------------------


def over(tmp_path: Path, fake: FakeNodeList, *words: str) -> subprocess.CompletedProcess[bytes]:
    """Run a command against ``fake``."""

    async def main() -> subprocess.CompletedProcess[bytes]:
        async with serving(fake, tmp_path) as (_api, _server):
            return await asyncio.to_thread(command, *words, "--socket", str(tmp_path / "api.sock"))

    return asyncio.run(main())


def fleet() -> FakeNodeList:
    """A node list with a node in each state; two dead ones have the same name."""
    fake = FakeNodeList()
    for number, state in enumerate(State, 12):
        record = Record(f"is-{state.value}")
        fake.others.append(Member(at(number), state, 1, 2, record, 3.0, 0))
    fake.others += [Member(at(number), State.DEAD, 1, 2, Record("double"), 3.0, 0) for number in (30, 31)]
    fake.others.append(Member(at(32), State.ALIVE, 1, 2, Record("is-dead"), 3.0, 0))
    return fake


def test_forget_over_the_api(tmp_path: Path) -> None:
    fake = fleet()

    async def main() -> None:
        async with serving(fake, tmp_path) as (api, _server):
            done = await api("DELETE", "/v1/nodes/is-dead")  # the alive node of this name is not meant
            assert (done.status, done.json["forgotten"]["addr"]) == (200, "198.18.0.14")
            assert (await api("DELETE", "/v1/nodes/198.18.0.30:8000")).json["forgotten"]["name"] == "double"
            assert (await api("DELETE", "/v1/nodes/198.18.0.31")).json["forgotten"]["port"] == 8000
            for path, status, code in (
                ("198.18.0.14:8000", 404, "node_not_found"),
                ("nobody", 404, "node_not_found"),
                ("is-alive", 409, "node_not_dead"),
                ("is-suspect", 409, "node_not_dead"),
                ("is-agent_down", 409, "node_not_dead"),
                ("is-left", 409, "node_not_dead"),
                ("198.18.0.11:8000", 409, "node_not_dead"),
            ):
                answer = await api("DELETE", f"/v1/nodes/{path}")
                assert (answer.status, answer.json["error"]["code"]) == (status, code), path
            fake.others += [Member(at(number), State.DEAD, 1, 2, Record("double"), 3.0, 0) for number in (30, 31)]
            answer = await api("DELETE", "/v1/nodes/double")
            assert (answer.status, answer.json["error"]["code"]) == (409, "node_ambiguous")
            assert answer.json["error"]["nodes"] == ["198.18.0.30:8000", "198.18.0.31:8000"]

    asyncio.run(main())


@pytest.mark.slow
def test_the_command_forget(tmp_path: Path) -> None:
    fake = fleet()
    done = over(tmp_path, fake, "forget", "is-dead")
    assert (done.returncode, done.stdout.decode()) == (0, "forgotten: is-dead (198.18.0.14:8000)\n")
    refused = over(tmp_path, fake, "forget", "is-suspect")
    assert refused.returncode == 1 and b"expected a dead node, got one in state suspect" in refused.stderr
    assert json.loads(over(tmp_path, fake, "forget", "198.18.0.30:8000", "--json").stdout)["name"] == "double"


@pytest.mark.slow
@pytest.mark.parametrize("words", [("publish", "k", "--value", "x"), ("delete", "k")])
def test_a_command_that_waits_is_refused_before_it_writes(tmp_path: Path, words: tuple[str, ...]) -> None:
    fake = fleet()
    fake.isolated = True
    refused = over(tmp_path, fake, *words, "--wait", "1", "--json")
    assert (refused.returncode, json.loads(refused.stderr)["error"]["code"]) == (1, "isolated")
    assert fake.held == {}
    assert over(tmp_path, fake, *words).returncode == 0
    verified = over(tmp_path, fake, "verify", "--json")
    assert (verified.returncode, json.loads(verified.stderr)["error"]["code"]) == (1, "isolated")


@pytest.mark.slow
def test_commands_tell_how_many_known_members_are_absent(tmp_path: Path) -> None:
    fake = fleet()
    fake.answer = Convergence(members=3, confirmed=3, known=7, dead=3, agent_down=1)
    lines = over(tmp_path, fake, "publish", "k", "--value", "x", "--wait", "all").stdout.decode().splitlines()
    assert lines[1].startswith("held by 3 of 3 members after ")
    assert lines[2] == "of 7 known members, 3 dead and 1 agent_down"
    fake.answer = Convergence(members=3, confirmed=3, known=3)
    assert len(over(tmp_path, fake, "verify").stdout.splitlines()) == 1


@pytest.mark.slow
def test_commands_list_nodes_without_agent_and_show_isolation(tmp_path: Path) -> None:
    fake = fleet()
    listed = [line.split()[2] for line in over(tmp_path, fake, "members").stdout.decode().splitlines()[1:]]
    assert set(listed) == {"alive", "suspect", "agent_down"}
    assert b"isolated" not in over(tmp_path, fake, "status").stdout
    fake.isolated = True
    status = over(tmp_path, fake, "status").stdout.decode()
    assert "isolated:  no other member answers this one" in status
    assert "1 agent_down" in status
