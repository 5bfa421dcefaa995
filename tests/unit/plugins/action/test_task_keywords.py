# SPDX-License-Identifier: MIT
"""What playbooks do with results of the modules: ``until``, loops, ``ignore_errors``, ``async``, by Ansible itself."""

from __future__ import annotations

import json
import typing as t
from pathlib import Path

import pytest
from ansible_collections.xdp_gossip.fleet.tests.unit.plugins.fake_member import FakeMember, free_port, node
from ansible_collections.xdp_gossip.fleet.tests.unit.plugins.run_playbook import play

#: Each module: options, and when it is content with the result.
MODULES = {
    "info": ({"gather": ["nodes"]}, "done.nodes | length == 2"),
    "node": ({"name": "host1"}, "done.node.name == 'host1'"),
    "publish": ({"key": "a", "content": "x", "wait": "1"}, "done.version is truthy"),
    "verify": ({"wait_timeout": 0}, "done.holdings | length == 2"),
}


@pytest.fixture(name="member")
def fixture_member(tmp_path: Path) -> t.Iterator[FakeMember]:
    with FakeMember(unix=str(tmp_path / "api.sock")) as member:
        member.nodes = [node("198.18.0.11", "m1", local=True), node("198.18.0.12", "m2")]
        yield member


def that(*conditions: str) -> dict[str, t.Any]:
    return {"ansible.builtin.assert": {"that": list(conditions)}}


def test_every_module_can_be_repeated_until_it_succeeds(member, tmp_path):
    """The first attempt of each finds a member that is not ready, which is what ``until`` is for."""

    def refuse(handler: t.Any) -> None:
        handler.error(503, "not_ready")
        member.misbehave = None

    for name, (options, content) in MODULES.items():
        member.misbehave = refuse
        module = "xdp_gossip.fleet.xdp_gossip_" + name
        output = play(
            tmp_path,
            [
                {
                    module: dict(options, endpoints=[member.url], retries=0),
                    "register": "done",
                    "until": ["done is success", content],
                    "retries": 3,
                    "delay": 0,
                },
                that("done.attempts == 2", "done.failed_endpoints == []", content),
            ],
        )
        assert output.count("FAILED - RETRYING") == 1


@pytest.mark.parametrize("keyword", ["until", "loop", "async", "plain"])
def test_a_failure_keeps_its_data(tmp_path, keyword):
    """When nobody ever answers, each module's result tells which endpoints failed, whatever the task's keywords."""
    dead = ["http://127.0.0.1:%d" % free_port(), "unix://%s" % (tmp_path / "nobody.sock")]
    tasks: list[dict[str, t.Any]] = []
    keywords: dict[str, t.Any] = {
        "until": {"until": "done is success", "retries": 1, "delay": 0},
        "loop": {"loop": [1, 2]},
        "async": {"async": 60, "poll": 1},
        "plain": {},
    }[keyword]
    for name, (options, _content) in MODULES.items():
        told = "done.results[1]" if keyword == "loop" else "done"
        tasks += [
            dict(
                keywords,
                **{
                    "xdp_gossip.fleet.xdp_gossip_" + name: dict(options, endpoints=dead, retries=0),
                    "register": "done",
                    "ignore_errors": True,
                },
            ),
            that(
                "done is failed",
                told + ".error.code == 'no_member_answered'",
                "%s.failed_endpoints | map(attribute='endpoint') | list == %s"
                % (told, json.dumps(dead[:1] if name == "node" else dead)),
            ),
        ]
        if keyword == "until":
            tasks.append(that("done.attempts == 1"))
        if keyword == "loop":
            tasks.append(that("done.results | length == 2"))
    play(tmp_path, tasks)


def test_a_list_in_a_result_is_no_loop(member, tmp_path):
    """A result that has ``results`` counts as that of a loop: what fails in it would make the task fail."""
    member.lagging["m2"] = 1000
    tasks = [
        {
            "xdp_gossip.fleet.xdp_gossip_verify": {"endpoints": [member.url], "wait_timeout": 0},
            "register": "done",
            "failed_when": "done.holdings | length != 2",
        },
        that("done is success", "done.results is not defined", "done.laggards | length == 1"),
    ]
    play(tmp_path, tasks)
