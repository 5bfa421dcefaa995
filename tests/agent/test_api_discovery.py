# SPDX-License-Identifier: MIT
"""The targets of Prometheus: one for each node, with labels that Prometheus can relabel."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from api_harness import serving, serving_tcp
from fake_node_list import FakeNodeList

from xdp_gossip.core.types import Address, Member, Record, State

PATH = "/v1/sd/prometheus"
PREFIX = "__meta_xdp_gossip_"


def fleet() -> FakeNodeList:
    """A node list with a node in each state, one of them with a record, one with an IPv6 address."""
    fake = FakeNodeList()
    record = Record("web-1", "", zone="a", agent_version="1.2.3")
    fake.others.append(Member(Address("198.18.0.12", 8000), State.ALIVE, 1, 2, record, 3.25, 0))
    for number, state in enumerate(State, 13):
        fake.others.append(Member(Address(f"198.18.0.{number}", 8000), state, 1, 2, None, 3.25, 0))
    fake.others.append(Member(Address("fd00::12", 8000), State.DEAD, 1, 2, None, 3.25, 0))
    return fake


def asked(fake: FakeNodeList, tmp_path: Path, params: str = "") -> Any:
    """The answer on the Unix socket."""

    async def main() -> Any:
        async with serving(fake, tmp_path) as (api, _server):
            return await api("GET", PATH, params=params)

    return asyncio.run(main())


def test_every_node_that_has_not_left_is_a_target(tmp_path: Path) -> None:
    answer = asked(fleet(), tmp_path, "port=9100")
    assert answer.status == 200 and answer.headers["Content-Type"].startswith("application/json")
    groups = answer.json
    assert [len(group["targets"]) for group in groups] == [1] * len(groups)
    targets = [group["targets"][0] for group in groups]
    assert "198.18.0.12:9100" in targets and "[fd00::12]:9100" in targets
    states = {group["labels"][PREFIX + "state"] for group in groups}
    assert states == {"alive", "suspect", "agent_down", "dead"}
    labels = groups[targets.index("198.18.0.12:9100")]["labels"]
    assert {name.removeprefix(PREFIX): value for name, value in labels.items()} == {
        "cluster": "default",
        "node": "web-1",
        "addr": "198.18.0.12",
        "port": "8000",
        "state": "alive",
        "zone": "a",
        "version": "1.2.3",
    }
    # A node without a name is called by its address; Prometheus takes texts only.
    other = groups[targets.index("[fd00::12]:9100")]["labels"]
    assert other[PREFIX + "node"] == "fd00::12" and all(isinstance(value, str) for value in other.values())


def test_states_and_zones_can_be_chosen(tmp_path: Path) -> None:
    assert [group["targets"] for group in asked(fleet(), tmp_path, "port=1&state=left").json] == [["198.18.0.16:1"]]
    assert [group["targets"] for group in asked(fleet(), tmp_path, "port=1&zone=a").json] == [["198.18.0.12:1"]]
    assert asked(fleet(), tmp_path, "port=1&zone=b").json == []


def test_what_is_wrong_is_named(tmp_path: Path) -> None:
    for params, told in (
        ("", "port: expected the port of the targets"),
        ("port=0", "port: expected 1 to 65535, got 0"),
        ("port=65536", "port: expected 1 to 65535, got 65536"),
        ("port=web", "port: expected a non-negative integer"),
        ("port=1&state=gone", "state: expected all"),
        ("port=1&limit=3", "limit"),
    ):
        answer = asked(fleet(), tmp_path, params)
        assert answer.status == 400 and told in answer.json["error"]["message"], (params, answer.body)


def test_an_isolated_member_gives_no_list(tmp_path: Path) -> None:
    fake = fleet()
    fake.isolated = True
    answer = asked(fake, tmp_path, "port=1")
    assert (answer.status, answer.code) == (503, "isolated")


def test_over_tcp_the_port_is_that_of_the_api() -> None:
    async def main() -> None:
        async with serving_tcp(fleet()) as (api, _server, where):
            answer = await api("GET", PATH)
            assert answer.status == 200 and len(answer.json) == 7
            assert {group["targets"][0].rpartition(":")[2] for group in answer.json} == {str(where.port)}

    asyncio.run(main())
