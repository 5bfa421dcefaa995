# SPDX-License-Identifier: MIT
"""xdp_gossip_key_gate waits for the fleet or for the agent's own configuration, and says what is missing."""

from __future__ import annotations

import typing as t

import pytest
from ansible_collections.xdp_gossip.fleet.plugins.module_utils._gate import Unanswered
from ansible_collections.xdp_gossip.fleet.plugins.modules import xdp_gossip_key_gate as gate
from ansible_collections.xdp_gossip.fleet.tests.unit.plugins.run_module import run_module

OLD, NEW = "aa00000000000000", "bb00000000000000"


def node(**keys: str) -> dict[str, t.Any]:
    prints = {"old": OLD, "new": NEW}
    shown = [{"fingerprint": prints[key], "state": state} for key, state in keys.items()]
    return {"name": "n1", "addr": "198.18.0.1", "port": 8000, "state": "alive", "keys": shown}


@pytest.fixture(name="answers")
def fixture_answers(monkeypatch: pytest.MonkeyPatch) -> list[t.Any]:
    """What the agent answers, one after the other, the last one again and again."""
    answers: list[t.Any] = []

    def ask(socket: str, question: str, seconds: float) -> t.Any:
        if question == "/v1/status":
            return {"caught_up": not any(isinstance(answer, dict) and answer.get("new") for answer in answers)}
        answer = answers[0] if len(answers) == 1 else answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        assert (socket, question) == ("/x.sock", "/v1/configuration" if "reload" in answer else "/v1/nodes?state=all")
        return answer

    monkeypatch.setattr(gate, "ask", ask)
    monkeypatch.setattr(gate, "PAUSE", 0)
    return answers


def asked(step: str = "stage", timeout: float = 60, **more: t.Any) -> dict[str, t.Any]:
    options = {"socket": "/x.sock", "step": step, "current": OLD, "next": NEW, "known": [OLD, NEW], "timeout": timeout}
    result = run_module("key_gate", dict(options, **more))
    assert result["rc"] == 0 and not result["changed"]
    return result


def test_it_waits_until_all_are_ready(answers):
    answers += [{"nodes": [node(old="active")]}, Unanswered("busy"), {"nodes": [node(old="active", new="staged")]}]
    result = asked()
    assert result["passed"] and result["unmet"] == [] and len(answers) == 1
    assert result["expected"] == "the key %s, staged" % NEW


def test_who_is_not_ready_in_time_is_named(answers):
    answers += [{"nodes": [node(old="active")]}]
    result = asked(timeout=0)
    assert result["answered"] and not result["passed"]
    assert result["unmet"] == ["n1 (198.18.0.1:8000), alive, shows %s (active)" % OLD]
    assert asked(timeout=0, known=[NEW])["unmet"][0].endswith("which this controller does not know")


def test_the_operators_words_count(answers):
    answers += [{"nodes": [dict(node(old="active"), state="dead")]}]
    assert not asked(timeout=0)["passed"] and asked(timeout=0, gone=["n1"])["passed"]
    answers[:] = [{"nodes": [node(old="active", new="staged")]}]
    assert not asked("start", 0, known=[OLD])["passed"] and asked("start", 0, known=[OLD], lost_next=True)["passed"]


@pytest.mark.parametrize("answer", [Unanswered("nobody"), {"nodes": None}, {"nodes": [{}]}])
def test_an_agent_that_gives_no_answer_is_not_waited_for(answers, answer):
    answers += [answer]
    result = asked()
    assert not result["answered"] and not result["passed"] and len(result["unmet"]) == 1


def test_an_agent_that_does_not_know_the_fleet_yet_is_not_believed(answers):
    """An agent that lost its state and reaches nobody lists itself alone, and all that it lists is ready."""
    answers += [{"nodes": [node(old="active", new="staged")], "new": True}]
    result = asked(timeout=0)
    assert not result["answered"] and not result["passed"]
    assert "does not know the whole fleet yet" in result["unmet"][0]
    answers += [{"nodes": [node(old="active", new="staged")]}]
    answers[1:1] = [answers[0]]
    assert asked()["passed"] and len(answers) == 1, "it is waited for"
    answers[:] = [{"nodes": [node(old="active")], "new": True}]
    assert asked(timeout=0)["answered"], "what it knows is missing stops the play anyway"


def test_a_reload_is_waited_for(answers):
    fine = {"file": "/a.yml", "problems": [], "reload": [], "restart": ["amount"]}
    answers += [Unanswered("starts"), dict(fine, reload=["api.tokens"]), fine]
    assert asked("reload")["passed"]
    answers[:] = [dict(fine, problems=["keys: bad"], reload=["log"])]
    assert asked("reload", 0)["unmet"] == ["/a.yml: keys: bad", "log: not yet applied"]
