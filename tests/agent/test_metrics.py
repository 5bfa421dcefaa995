# SPDX-License-Identifier: MIT
"""Metrics: what Prometheus reads is what the status says."""

from __future__ import annotations

import re
from pathlib import Path

from fake_node_list import FakeNodeList
from prometheus_client.parser import text_string_to_metric_families

from xdp_gossip.api import metrics
from xdp_gossip.cli import nodes
from xdp_gossip.core.types import Address, Member, Record, State
from xdp_gossip.dataplane import headers

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "api.md"


def scrape(fake: FakeNodeList) -> dict[tuple[str, str], float]:
    """(name, value of the only label or "") -> value."""
    body, content_type = metrics.render(fake.status(), fake.members(None))
    assert content_type.startswith("text/plain")
    samples = [sample for family in text_string_to_metric_families(body.decode()) for sample in family.samples]
    found = {(sample.name, "".join(sample.labels.values())): sample.value for sample in samples}  # no two are the same
    assert len(found) == len(samples)
    return found


def test_metrics_follow_the_status() -> None:
    fake = FakeNodeList()
    fake.others = [
        Member(Address("198.18.0.12", 8000), State.ALIVE, 1, 1, None, 0.1, fake.digest),
        Member(Address("198.18.0.13", 8000), State.SUSPECT, 1, 1, None, 9.0, 12345),
        Member(Address("198.18.0.14", 8000), State.DEAD, 1, 1, None, 99.0, fake.digest),
    ]
    found = scrape(fake)
    for state, count in (("alive", 2), ("suspect", 1), ("dead", 1), ("left", 0)):
        assert found["xdp_gossip_members", state] == count
    assert found["xdp_gossip_members_in_sync", ""] == 2
    assert found["xdp_gossip_caught_up", ""] == 1
    assert found["xdp_gossip_state", "running"] == 1
    assert found["xdp_gossip_uptime_seconds", ""] == 12.5
    assert found["xdp_gossip_incarnation", ""] == 5
    assert found["xdp_gossip_events_total", "tx_packets"] == 4
    fake.stop()
    found = scrape(fake)
    assert (found["xdp_gossip_state", "running"], found["xdp_gossip_state", "paused"]) == (0, 1)


def test_every_metric_is_documented_with_its_labels() -> None:
    fake = FakeNodeList()
    fake.others = [in_zone(12, "a")]
    rendered = {"name": "nginx", "state": "applied", "drift": "", "drifts": 1, "renderings": 2}
    process = {"descriptors": 1, "descriptors_limit": 2, "memory": 3, "memory_limit": 4}
    status = {**fake.status(), "process": process, "dataplane": {"counters": {"news": 1}}}
    body = metrics.render(status, fake.members(None), [rendered])[0].decode()
    found = set()
    for family in text_string_to_metric_families(body):
        for sample in family.samples:
            if not sample.name.endswith("_created"):
                labels = ",".join(sample.labels)
                found.add(f"{sample.name}{{{labels}}}" if labels else sample.name)
    text = DOCUMENT.read_text()
    table = text[text.index("| metric | meaning |") :].partition("\n\n")[0]
    documented = [name for row in table.splitlines() for name in re.findall(r"`(xdp_[^`]+)`", row.split("|")[1])]
    assert len(documented) == len(set(documented))

    def sort(name: str) -> str:
        family, found, labels = name.partition("{")
        return family + found + ",".join(sorted(labels.rstrip("}").split(",")))

    assert {sort(name) for name in documented} == {sort(name) for name in found}


def zones_of(fake: FakeNodeList) -> tuple[dict[str, float], dict[tuple[str, str], float]]:
    """The number of zones by state, and the number of nodes by zone and state."""
    body = metrics.render(fake.status(), fake.members(None))[0].decode()
    samples = [sample for family in text_string_to_metric_families(body) for sample in family.samples]
    zones = {one.labels["state"]: one.value for one in samples if one.name == "xdp_gossip_zones"}
    nodes = [one for one in samples if one.name == "xdp_gossip_zone_nodes"]
    found = {(one.labels["zone"], one.labels["state"]): one.value for one in nodes}
    assert len(found) == len(nodes)
    return zones, found


def in_zone(number: int, zone: str | None, state: State = State.ALIVE) -> Member:
    record = None if zone is None else Record(f"n{number}", zone=zone)
    return Member(Address(f"198.18.{number // 250 + 1}.{number % 250}", 8000), state, 1, 1, record, 0.1, 0)


def test_a_fleet_without_zones_has_no_series_of_zones() -> None:
    fake = FakeNodeList()
    fake.others = [in_zone(1, ""), in_zone(2, None, State.DEAD)]
    assert b"xdp_gossip_zone" not in metrics.render(fake.status(), fake.members(None))[0]


def test_nodes_are_counted_by_zone_and_a_lost_zone_is_told() -> None:
    fake = FakeNodeList()
    states = {
        "b": (State.ALIVE, State.SUSPECT, State.DEAD, State.LEFT),
        "lost": (State.DEAD, State.AGENT_DOWN, State.LEFT),
        "closed": (State.LEFT,),
        'odd "\\\n': (State.SUSPECT,),
    }
    fake.others = [in_zone(number, zone, state) for zone, some in states.items() for number, state in enumerate(some)]
    fake.others.append(in_zone(9, None, State.SUSPECT))
    zones, nodes = zones_of(fake)
    assert zones == {"present": 2, "lost": 1}
    expected = {(zone, state.value): float(some.count(state)) for zone, some in states.items() for state in State}
    none = {("", state.value): float(state in (State.ALIVE, State.SUSPECT)) for state in State}  # this node has no zone
    assert nodes == {**expected, **none}
    # Every node is in one of the series.
    status = fake.status()["members"]
    assert {state: sum(count for (_, word), count in nodes.items() if word == state) for state in status} == status
    fake.record = Record("host1", zone="a")
    assert zones_of(fake)[1]["a", "alive"] == 1


def test_the_number_of_zones_with_series_is_bounded() -> None:
    fake = FakeNodeList()
    most = metrics.MOST_ZONES
    fake.others = [in_zone(number, f"z{number:04}") for number in reversed(range(most + 50))]
    fake.others.append(in_zone(most + 50, "z9999", State.DEAD))
    zones, nodes = zones_of(fake)
    assert zones == {"present": most + 50, "lost": 1}
    assert {zone for zone, _ in nodes} == {"", *(f"z{number:04}" for number in range(most))}
    assert (nodes["", "alive"], nodes["", "dead"]) == (51, 1)  # this node, which has no zone, and the rest


def test_nothing_is_left_in_a_global_registry() -> None:
    fake = FakeNodeList()
    first = metrics.render(fake.status(), fake.members())
    assert metrics.render(fake.status(), fake.members()) == first
    assert b"python_info" not in first[0]


def test_a_cluster_name_with_odd_characters_stays_one_line() -> None:
    fake = FakeNodeList()
    status = {**fake.status(), "cluster": 'a"b\\c\nd'}
    body = metrics.render(status, [])[0].decode()
    info = next(line for line in body.splitlines() if line.startswith("xdp_gossip_build_info{"))
    assert r'cluster="a\"b\\c\nd"' in info


def test_the_kernel_has_its_own_counters_where_there_is_a_data_plane() -> None:
    fake = FakeNodeList()
    kept = "xdp_gossip_dataplane_packets_total"
    # One may come: its first packets are to be seen as an increase.
    assert {value: count for (name, value), count in scrape(fake).items() if name == kept} == dict.fromkeys(
        headers.counters(), 0
    )
    # None can come; and one that is there and cannot be read has not begun again.
    for change in ({"protocol": "UDP"}, {"mode": "XDP (native)"}):
        assert kept.encode() not in metrics.render({**fake.status(), **change}, fake.members())[0]
    counters = {name: number for number, name in enumerate(headers.counters())}
    fake.dataplane = {"interface": "eth0", "directory": "/run/x", "container": "", "counters": counters}
    found = scrape(fake)
    for name, number in counters.items():
        assert found["xdp_gossip_dataplane_packets_total", name] == number


def test_the_status_sums_up_what_the_kernel_did() -> None:
    fake = FakeNodeList()
    assert "kernel" not in nodes.summary(fake.status())
    counters = {**dict.fromkeys(headers.counters(), 0), "take_heartbeat": 7, "take_leave": 1, "take_newcomer": 2}
    counters.update(relay=6, drop_duplicate=20, drop_bad_mac=3)
    fake.dataplane = {"interface": "eth0", "directory": "/run/x", "container": "", "counters": counters}
    assert nodes.summary(fake.status())["kernel"] == "8 rumors taken, 6 relayed, 23 dropped on eth0"
