# SPDX-License-Identifier: MIT
"""xdp_gossip_gate: what an agent must say of itself, and what a failure tells."""

from __future__ import annotations

import typing as t

import pytest
from ansible_collections.xdp_gossip.fleet.plugins.module_utils import _gate
from ansible_collections.xdp_gossip.fleet.tests.unit.plugins.run_module import run_module

STATUS = {"state": "running", "version": "1", "node": {"incarnation": 7}}
NODES = [{"name": "own", "local": True}, {"name": "host2", "local": False}]


def run(monkeypatch, statuses: list[dict[str, t.Any]], **options: t.Any) -> dict[str, t.Any]:
    """The outcome with an agent that gives one status after the other, the last one forever; {} is none."""
    asked: list[str] = []

    def ask(path: str, question: str) -> dict[str, t.Any]:
        if question != "/v1/status":
            return {"nodes": NODES}
        asked.append(question)
        told = statuses[min(len(asked), len(statuses)) - 1]
        if not told:
            raise _gate.Unanswered("%s: nobody" % path)
        return told

    monkeypatch.setattr(_gate, "ask", ask)
    result = run_module("gate", dict({"agent_version": "1", "delay": 0, "retries": 3}, **options))
    return dict(result, asked=len(asked))


def test_it_passes_at_once(monkeypatch):
    result = run(monkeypatch, [STATUS], others=1, above=6)
    assert (result["rc"], result["changed"], result["asked"]) == (0, False, 1)
    assert result["gate"] == {"passed": True, "unmet": "", "status": STATUS, "others": 1, "alive": ["host2"]}


def test_it_waits(monkeypatch):
    result = run(monkeypatch, [{}, dict(STATUS, state="starting"), STATUS])
    assert (result["rc"], result["asked"]) == (0, 3)


@pytest.mark.parametrize(
    ("status", "options", "unmet"),
    [
        ({}, {}, "nobody"),
        (dict(STATUS, state="starting"), {}, "expected it to run, it says starting"),
        (dict(STATUS, version="2"), {}, "expected version 1, it says 2"),
        (STATUS, {"above": 7}, "expected another process than before, it says incarnation 7"),
        (STATUS, {"others": 2}, "expected it to see 2 other member(s), it sees 1"),
        ({"state": "running"}, {}, "expected a status with state, version and node"),
    ],
)
def test_each_condition_is_told(monkeypatch, status, options, unmet):
    result = run(monkeypatch, [status], retries=2, **options)
    assert result["rc"] == 1 and unmet in result["msg"] and not result["gate"]["passed"]
    others = options.get("others", 0)
    told = "expected a running agent of version 1 that sees %d other member(s), got none after\n2 questions with 0 s"
    assert result["msg"].startswith(told % others) and "Journal:" in result["msg"]


def test_an_agent_that_is_not_there(tmp_path):
    result = run_module("gate", {"agent_version": "1", "retries": 0, "socket": str(tmp_path / "none")})
    assert result["rc"] == 1 and "none" in result["msg"] and "Status: none" in result["msg"]
