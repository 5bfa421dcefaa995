# SPDX-License-Identifier: MIT
"""The dashboards are what Grafana's schema describes, and show every metric of the agent."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted((ROOT / "roles" / "monitoring" / "files" / "dashboards").glob("*.json"))
#: What Grafana puts in place of a variable when a panel asks Prometheus.
VARIABLES = ("datasource", "job", "cluster", "instance", "__rate_interval")

register_default_plugins()


def lost(before: Any, after: Any, place: str = "") -> Iterator[str]:
    """The places where a value is not what it was."""
    if isinstance(before, dict) and isinstance(after, dict):
        for name, value in before.items():
            if name not in after:
                yield f"{place}/{name}"
            else:
                yield from lost(value, after[name], f"{place}/{name}")
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for number, (one, other) in enumerate(zip(before, after)):
            yield from lost(one, other, f"{place}[{number}]")
    elif before != after:
        yield f"{place}: {before!r} became {after!r}"


def through_the_schema(dashboard: dict[str, Any]) -> Any:
    """The dashboard as Grafana's own library reads and writes it: it drops what the schema does not have."""
    return json.loads(JSONEncoder().encode(Dashboard.from_json(dashboard)))


def queries(dashboard: dict[str, Any]) -> list[str]:
    """The queries of all panels."""
    return [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]


def test_there_is_a_dashboard_for_each_subject() -> None:
    assert [path.stem for path in FILES] == ["dataplane", "documents", "fleet", "node"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_dashboard_is_of_the_schema(path: Path) -> None:
    dashboard = json.loads(path.read_text())
    assert list(lost(dashboard, through_the_schema(dashboard))) == []


def test_what_the_schema_does_not_have_is_found() -> None:
    dashboard = json.loads(FILES[0].read_text())
    dashboard["panels"][0]["heading"] = "x"
    dashboard["templating"]["list"][0]["kind"] = "x"
    found = sorted(lost(dashboard, through_the_schema(dashboard)))
    assert found == ["/panels[0]/heading", "/templating/list[0]/kind"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_dashboard_is_whole(path: Path) -> None:
    dashboard = json.loads(path.read_text())
    assert dashboard["uid"] == f"xdp-gossip-{path.stem}" and dashboard["title"].startswith("XDP Gossip: ")
    numbers = [panel["id"] for panel in dashboard["panels"]]
    assert len(numbers) == len(set(numbers))
    declared = {variable["name"] for variable in dashboard["templating"]["list"]}
    taken: set[tuple[int, int]] = set()
    for panel in dashboard["panels"]:
        assert panel["title"] and panel["description"].endswith("."), panel["title"]
        place = panel["gridPos"]
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert not cells & taken and place["x"] + place["w"] <= 24, panel["title"]
        taken |= cells
        for target in panel["targets"]:
            assert panel["datasource"] == target["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
            used = set(re.findall(r"\$(\w+)", target["expr"]))
            assert used <= set(VARIABLES) and used - {"__rate_interval"} <= declared, target["expr"]


def test_the_dashboards_show_every_metric() -> None:
    text = (ROOT / "docs" / "api.md").read_text()
    table = text[text.index("| metric | meaning |") :].partition("\n\n")[0]
    documented = {name.partition("{")[0] for name in re.findall(r"`(xdp_[^`]+)`", table)}
    shown = {
        name
        for path in FILES
        for query in queries(json.loads(path.read_text()))
        for name in re.findall(r"xdp_gossip_\w+", query)
    }
    assert shown <= documented
    # Settings and counters that say nothing over time.
    unshown = {"xdp_gossip_zones", "xdp_gossip_cycle_seconds", "xdp_gossip_timeout_seconds", "xdp_gossip_incarnation"}
    assert documented - shown <= unshown
