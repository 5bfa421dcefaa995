# SPDX-License-Identifier: MIT
"""When a rotation may go on: a table of what nodes show, and one sentence for each node that stops it."""

from __future__ import annotations

import typing as t

import pytest
from ansible_collections.xdp_gossip.fleet.plugins.module_utils import _key_gate as gate

OLD, NEW, FORMER, STRANGE = "aa00000000000000", "bb00000000000000", "cc00000000000000", "dd00000000000000"
KEYS = gate.Keys(OLD, NEW, frozenset((OLD, NEW, FORMER)))


def node(name: str = "n1", state: str = "alive", signs: t.Optional[int] = None, **keys: str) -> dict[str, t.Any]:
    prints = {"old": OLD, "new": NEW, "former": FORMER, "strange": STRANGE}
    shown = [{"fingerprint": prints[key], "state": its} for key, its in keys.items()]
    found = {"name": name, "addr": "198.18.0.1", "port": 8000, "state": state, "key_id": signs, "keys": shown}
    return {key: value for key, value in found.items() if value not in (None, [])}


@pytest.mark.parametrize(
    ("step", "shown", "told"),
    [
        ("start", node(old="active"), ""),
        ("start", node(old="active", new="staged"), "shows aa00000000000000 (active), bb00000000000000 (staged)"),
        ("start", node(former="active"), "shows cc00000000000000 (active)"),
        ("start", node(old="active", strange="staged"), "has the key dd00000000000000 (staged), which this controller"),
        ("start", node(), "shows no keys"),
        ("stage", node(old="active"), "shows aa00000000000000 (active)"),
        ("stage", node(old="active", new="staged"), ""),
        # An interrupted run had gone on already.
        ("stage", node(old="retiring", new="active"), ""),
        ("stage", node(old="active", new="retiring"), "shows"),
        ("stage", node(state="dead", old="active"), "n1 (198.18.0.1:8000), dead, shows aa00000000000000 (active)"),
        ("stage", node(state="agent_down", old="active"), "agent_down, shows"),
        ("stage", node(state="left", old="active"), ""),
        ("stage", node(old="active", new="staged", strange="retiring"), "does not know"),
        ("activate", node(old="active", new="staged"), "shows aa00000000000000 (active), bb00000000000000 (staged)"),
        ("activate", node(old="retiring", new="active"), ""),
        ("activate", node(old="retiring", new="active", signs=0xBB), ""),
        ("activate", node(old="retiring", new="active", signs=0xAA), "still signed with the key id 170"),
        # A dead node sends nothing; its record says what it will do.
        ("activate", node(state="dead", old="retiring", new="active", signs=0xAA), ""),
        ("retire", node(old="retiring", new="active", signs=0xBB), "shows aa00000000000000 (retiring)"),
        ("retire", node(new="active", signs=0xBB), ""),
    ],
)
def test_what_stops_a_step(step: str, shown: dict[str, t.Any], told: str) -> None:
    found = gate.unmet([node("fine", old="active") if step == "start" else node("left", "left"), shown], step, KEYS, ())
    assert len(found) == bool(told) and told in "".join(found)


@pytest.mark.parametrize("given", ["198.18.0.1:8000", "n1"])
def test_only_a_dead_node_can_be_given_up(given: str) -> None:
    assert gate.unmet([node(state="dead", old="active")], "stage", KEYS, [given]) == []
    for state in ("alive", "suspect", "agent_down"):
        (told,) = gate.unmet([node(state=state, old="active")], "stage", KEYS, [given])
        assert told.endswith("listed in xdp_gossip_gone, but expected to be dead, and it is %s" % state)
    assert len(gate.unmet([node(state="dead", old="active")], "stage", KEYS, ["198.18.0.1:80"])) == 1


def test_an_address_of_ipv6_has_brackets() -> None:
    six = dict(node(state="dead", old="active"), addr="fd00::1")
    assert gate.unmet([six], "stage", KEYS, ["[fd00::1]:8000"]) == []
    assert "([fd00::1]:8000)" in gate.unmet([six], "stage", KEYS, [])[0]


def test_a_lost_key_that_is_only_staged_does_not_stop_the_start_if_the_operator_says_so() -> None:
    lost = node(old="active", strange="staged")
    assert gate.unmet([lost], "start", KEYS, (), lost_next=True) == []
    for state in ("active", "retiring"):
        assert gate.unmet([node(old="active", strange=state)], "start", KEYS, (), lost_next=True)


@pytest.mark.parametrize("wrong", [{}, {"addr": None, "keys": 5}, {"keys": [5]}, {"keys": [{"state": "active"}]}])
def test_nodes_of_another_form_never_pass(wrong: dict[str, t.Any]) -> None:
    entry = dict(node(new="active"), **wrong) if wrong else {"name": "n1"}
    with pytest.raises(ValueError, match="expected nodes with addr, port, name, state and keys"):
        gate.unmet([entry], "retire", KEYS, ())


def test_a_message_names_twenty_nodes() -> None:
    told = gate.shortened(["%d" % number for number in range(25)])
    assert len(told) == 21 and told[-1] == "and 5 more" and gate.shortened(["1"]) == ["1"]
