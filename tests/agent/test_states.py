# SPDX-License-Identifier: MIT
"""Every surface handles every state of a node: a new state fails here until each of them knows it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from doctoring import look
from fake_node_list import FakeNodeList

from xdp_gossip.api import metrics
from xdp_gossip.api.info import openapi_text
from xdp_gossip.api.nodes import parse_states
from xdp_gossip.cli import livescreen, tables
from xdp_gossip.cli.doctor import members
from xdp_gossip.core.events import MemberChanged
from xdp_gossip.core.types import PRESENT, Address, Member, Record, State
from xdp_gossip.node import shapes
from xdp_gossip.node.convergence import Voters
from xdp_gossip.nodelist import _event_of

ROOT = Path(__file__).resolve().parents[2]
WEB = ROOT / "agent" / "xdp_gossip" / "web"
EDA = ROOT / "extensions" / "eda" / "plugins"
WORDS = [state.value for state in State]


def member(state: State, number: int = 7) -> Member:
    """A node in ``state``."""
    return Member(Address(f"198.18.0.{number}", 8000), state, 1, 1, Record("n"), 1.0, 0)


def text(path: Path) -> str:
    """The text of a file."""
    return path.read_text(encoding="utf-8")


def literal(source: str, name: str) -> str:
    """What is assigned to ``name`` in Python or JavaScript: from the opening bracket to the closing one."""
    found = re.search(rf"^(?:const )?{name}(?:: [^=]+)? = ([({{\[].*?[)}}\]])", source, re.MULTILINE | re.DOTALL)
    assert found is not None, name
    return found[1]


#: State -> the event of a node that was alive and is in this state now.
EVENTS = {
    State.ALIVE: "updated",
    State.SUSPECT: "suspected",
    State.AGENT_DOWN: "agent_down",
    State.DEAD: "removed",
    State.LEFT: "left",
}


@pytest.mark.parametrize("state", State)
def test_the_feed_has_an_event_for_each_change(state: State) -> None:
    assert _event_of(MemberChanged(member(state), State.ALIVE)) == EVENTS[state]
    back = _event_of(MemberChanged(member(State.ALIVE), state))
    assert back == {State.ALIVE: "updated", State.DEAD: "joined", State.LEFT: "joined"}.get(state, "recovered")


@pytest.mark.parametrize("state", State)
def test_the_api_lists_and_describes_each_state(state: State) -> None:
    spec: dict[str, Any] = yaml.safe_load(openapi_text())
    assert parse_states(state.value) == {state}
    assert state.value in spec["components"]["schemas"]["State"]["enum"]
    assert state.value in spec["components"]["schemas"]["Status"]["properties"]["members"]["required"]
    assert shapes.node(member(state))["state"] == state.value
    assert parse_states(None) == PRESENT


@pytest.mark.parametrize("state", State)
def test_the_metrics_count_each_state(state: State) -> None:
    status = {**FakeNodeList().status(), "members": {word: int(word == state.value) for word in WORDS}}
    body = metrics.render(status, [], [])[0].decode()
    counts = {word: f'xdp_gossip_members{{state="{word}"}} {float(word == state.value)}' for word in WORDS}
    assert all(line in body for line in counts.values())


@pytest.mark.parametrize("state", State)
def test_the_command_line_colours_each_state_and_ranks_problems_first(state: State) -> None:
    assert state.value in tables.STYLES
    problem = state not in (State.ALIVE, State.LEFT)
    assert (state.value in livescreen.URGENT) is problem
    columns, (row,) = tables.node_table([shapes.node(member(state))], f"{0:016x}")
    cells = dict(zip(columns, row))
    assert cells["state"] == state.value and (cells["in sync"] is not None) is (state in PRESENT)


@pytest.mark.parametrize("state", State)
def test_doctor_speaks_of_nodes_with_problems(state: State) -> None:
    found = [finding.id for finding in members.examine(look(nodes=[{**shapes.node(member(state)), "name": "x"}]))]
    assert ("members.agent_down" in found) is (state is State.AGENT_DOWN)
    assert ("members.suspect" in found) is (state is State.SUSPECT)


@pytest.mark.parametrize("state", State)
def test_a_majority_counts_each_state_but_left(state: State) -> None:
    found = Voters.among([member(State.ALIVE, 1), member(state)])
    assert found.known == 1 + (state is not State.LEFT)
    assert (found.dead, found.agent_down) == (int(state is State.DEAD), int(state is State.AGENT_DOWN))


@pytest.mark.parametrize("state", State)
def test_the_page_shows_each_state(state: State) -> None:
    fleet, findings = text(WEB / "fleet.js"), text(WEB / "findings.js")
    for name in ("KINDS", "RANK"):
        assert re.search(rf"\b{state.value}:", literal(fleet, name)), name
    if state not in (State.ALIVE, State.LEFT):
        assert f'node.state === "{state.value}"' in findings and f'id: "{state.value}"' in findings


def test_plugins_and_event_source_know_the_states_of_the_agent() -> None:
    plugins = ROOT / "plugins"
    assert re.findall(r'"(\w+)"', literal(text(plugins / "module_utils" / "_nodes.py"), "STATES")) == sorted(
        WORDS, key=["alive", "suspect", "agent_down", "dead", "left"].index
    )
    for path, names in (
        (plugins / "plugin_utils" / "_merge.py", ("_RANK",)),
        (EDA / "plugin_utils" / "_nodes.py", ("_GONE", "_TYPES")),
    ):
        for name in names:
            assert set(re.findall(r'"(\w+)":', literal(text(path), name))) == set(WORDS), name
    for path in (
        plugins / "inventory" / "nodelist.py",
        plugins / "modules" / "xdp_gossip_info.py",
        EDA / "event_source" / "membership.py",
    ):
        choices = re.findall(r"choices: \[(alive[^\]]*)\]", text(path))
        assert choices and all(set(found.split(", ")) == set(WORDS) for found in choices), path
    schema = json.loads(text(EDA / "event_source" / "schemas" / "membership.json"))
    assert set(schema["properties"]["states"]["items"]["enum"]) == set(WORDS)


def test_an_isolated_node_is_an_error_for_doctor() -> None:
    found = {finding.id: finding for finding in members.examine(look(isolated=True))}
    assert found["members.isolated"].level == "error" and "confirms no document" in found["members.isolated"].text
    assert "members.isolated" not in {finding.id for finding in members.examine(look())}


def test_top_shows_isolation_and_counts_hosts_without_agent() -> None:
    status = {**FakeNodeList().status(), "members": {**dict.fromkeys(WORDS, 0), "agent_down": 2}}
    view = SimpleNamespace(status=status, files=[], nodes=[])
    assert livescreen._trouble(view) == "2 agent_down nodes"  # type: ignore[arg-type]
