# SPDX-License-Identifier: MIT
"""The benchmark ``faults``: how it reads event streams, what it computes from them, and what it writes."""

from __future__ import annotations

import argparse
import json
import os
import time
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from bench import faults, impair, plots, serf
from bench.__main__ import _numbers, _planes
from bench.report import Report
from bench.views import Change, Lines, Views, Watcher, incomplete, removal
from tests.support.patience import patient

SVG = "{http://www.w3.org/2000/svg}"


def changes(*found: tuple[float, int, int, bool]) -> list[Change]:
    return [Change(*entry) for entry in found]


def test_a_removal_is_complete_when_each_healthy_member_has_removed_all_faulty() -> None:
    seen = changes((12, 0, 3, False), (13, 0, 4, False), (12.5, 1, 4, False), (15, 1, 3, False), (14, 2, 3, False))
    found = removal(seen, 5, [3, 4], since=10)
    assert (found.first, found.last) == (3, None)
    assert (found.removed_in, found.views) == (5, 6)
    found = removal([*seen, *changes((17.5, 2, 4, False))], 5, [3, 4], since=10)
    assert (found.first, found.last, found.removed_in) == (3, 7.5, 6)
    assert (found.healthy_removed, found.flaps) == (0, 0)


def test_a_healthy_member_removed_by_two_others_counts_once_and_in_two_views() -> None:
    found = removal(changes((11, 0, 1, False), (12, 2, 1, False), (13, 2, 1, True)), 4, [], since=10)
    assert (found.healthy_removed, found.healthy_views, found.flaps) == (1, 2, 0)
    assert (found.first, found.last, found.views) == (None, None, 0)


def test_what_a_faulty_member_sees_and_what_was_before_the_fault_do_not_count() -> None:
    found = removal(
        changes((9, 0, 1, False), (9.5, 0, 1, True), (11, 2, 0, False), (11, 2, 1, False)), 3, [2], since=10
    )
    assert (found.removed_in, found.healthy_removed, found.flaps) == (0, 0, 0)


def test_a_flap_is_a_removal_after_a_return_in_one_view() -> None:
    times = [(11, False), (12, True), (13, False), (14, True), (15, False)]
    seen = changes(*((when, 0, 2, present) for when, present in times), (11, 1, 2, False), (12, 1, 2, True))
    found = removal(seen, 3, [2], since=10)
    assert (found.flaps, found.most_flaps) == (2, 2)
    assert (found.first, found.last) == (1, 1), "the first removal of each view counts"


def test_views_record_only_what_changes_and_nothing_about_the_observer() -> None:
    views = Views()
    for subject, present in ((1, False), (1, True), (1, True), (0, True), (1, False)):
        views.record(1.0, 0, subject, present)
    assert [(change.subject, change.present) for change in views.changes] == [(1, True), (1, False)]
    assert incomplete(views, [0, 1]) == "host0 does not count host1 as present"
    views.record(2.0, 0, 1, True)
    views.record(2.0, 1, 0, True)
    assert incomplete(views, [0, 1]) is None


def test_the_events_in_the_log_of_serf() -> None:
    log = (
        b'2026/11/29 23:19:40 [DEBUG] agent: Requesting user event send: bench7. Coalesced: false. Payload: ""\n'
        b"2026/11/29 23:19:40 [DEBUG] serf: messageUserEventType: bench7\n"
        b"2026/11/29 23:19:40 [INFO] agent: Received event: user-event: bench7\n"
        b"2026/11/29 23:19:41 [DEBUG] serf: messageUserEventType: other8\n"
    )
    assert list(Lines(serf.parse_events)(log)) == [(7, True), (7, True)]


def test_the_log_of_serf_is_read_in_pieces() -> None:
    text = (
        b"==> Log data will now stream in as it occurs:\n"
        b"    2026/11/29 23:19:40 [INFO] serf: EventMemberJoin: host12 198.18.64.22\n"
        b"    2026/11/29 23:19:41 [INFO] agent: Received event: member-join\n"
        b"    2026/11/29 23:19:50 [INFO] memberlist: Suspect host12 has failed, no acks received\n"
        b"    2026/11/29 23:19:51 [INFO] serf: EventMemberFailed: host12 198.18.64.22\n"
        b"    2026/11/29 23:19:59 [INFO] serf: EventMemberLeave: host3 198.18.64.13\n"
    )
    lines = Lines(serf.parse)
    found = [change for at in range(0, len(text), 7) for change in lines(text[at : at + 7])]
    assert found == [(12, True), (12, False), (3, False)]


def test_the_event_stream_of_the_agent_is_read() -> None:
    def event(state: str) -> bytes:
        node = {"addr": str(faults.address_of(4).ip), "state": state}
        return b"data: " + json.dumps({"kind": "node", "event": "x", "node": node}).encode()

    states = ("alive", "suspect", "dead", "agent_down", "left")
    assert [next(faults.parse(event(state))) for state in states] == [
        (4, True), (4, True), (4, False), (4, False), (4, False)
    ]  # fmt: skip
    for line in (b"HTTP/1.0 200 OK\r", b"event: change", b'data: {"revision": 3}', b": keep-alive", b""):
        assert list(faults.parse(line)) == []
    with pytest.raises(ValueError, match="lost changes"):
        list(faults.parse(b"event: resync"))


def test_the_watcher_records_changes_and_reports_the_end_of_a_stream() -> None:
    views, watcher = Views(), Watcher()
    reading, writing = os.pipe()
    try:
        watcher.add(reading, views, 5, Lines(serf.parse))
        os.close(reading)
        os.write(writing, b"[INFO] serf: EventMemberJoin: host1 198.18.64.11\n[INFO] serf: EventMem")
        os.write(writing, b"berFailed: host1 198.18.64.11\n")
        os.close(writing)
        deadline = time.monotonic() + patient(20)
        while 5 not in views.problems:
            assert time.monotonic() < deadline, "the end of the stream was never reported"
            time.sleep(0.01)
    finally:
        watcher.close()
    assert [(change.observer, change.subject, change.present) for change in views.changes] == [
        (5, 1, True), (5, 1, False)
    ]  # fmt: skip
    assert views.changes[0].when <= views.changes[1].when
    assert views.problems == {5: "the event stream ended"}


def test_rules_replace_each_other_in_one_transaction() -> None:
    script = impair.ruleset([impair.incoming(2), impair.outgoing(10, 80), *impair.between(0, 1)])
    assert script.splitlines() == [
        "flush chain bridge xgf faults",
        'add rule bridge xgf faults oifname "xgfv2" drop',
        'add rule bridge xgf faults iifname "xgfv10" numgen random mod 100 < 80 drop',
        'add rule bridge xgf faults iifname "xgfv0" oifname "xgfv1" drop',
        'add rule bridge xgf faults iifname "xgfv1" oifname "xgfv0" drop',
    ]
    assert impair.ruleset(()) == "flush chain bridge xgf faults\n"


@pytest.mark.parametrize("hosts", [3, 4, 5, 10, 50, 100])
def test_the_healthy_are_a_majority(hosts: int) -> None:
    assert all(2 * fault.faulty(hosts) < hosts for fault in faults.FAULTS)
    (crash,) = (fault for fault in faults.FAULTS if fault.name == faults.CRASH)
    assert faults.FAULTS[-1] is crash, "the hosts of a crash stay cut off"
    assert crash.faulty(hosts) >= (2 if hosts >= 5 else 1)


def test_theory() -> None:
    assert [faults.observers_packets(hosts) for hosts in (3, 11, 1000)] == [6, 22, 22]
    assert faults.serf_detection(10) == pytest.approx(5.58, abs=0.01)
    assert faults.serf_detection(100) - faults.serf_detection(10) == pytest.approx(4)


def run(system: str, hosts: int, fault: str, **more: float | None) -> dict[str, object]:
    figures = {"first": None, "last": None, "removed_in": 0, "views": 0, "healthy_removed": 0, "healthy_views": 0}
    what = {"plane": "udp", "n": hosts, "fault": fault, "system": system, "faulty": int(fault == faults.CRASH)}
    return {**what, **figures, "flaps": 0, **more}


RUNS = [
    run("XDP Gossip", 5, faults.REST, packets=8.0, probes=0.0, processor=0.1),
    run("Serf", 5, faults.REST, packets=2.0, processor=0.05),
    run("XDP Gossip", 5, faults.CRASH, first=8.0, last=9.0),
    run("Serf", 5, faults.CRASH, first=5.0, last=6.0),
    run("XDP Gossip", 10, faults.CRASH),
    run("Serf", 10, faults.CRASH, first=6.0, last=7.0),
]


def test_charts_show_measured_lines_beside_theory() -> None:
    drawn = faults.charts(RUNS)
    assert sorted(drawn) == ["detection", "packets", "processor"]
    for name, text in drawn.items():
        root = ET.fromstring(text)
        assert root.tag == f"{SVG}svg"
        dashed = [path for path in root.iter(f"{SVG}path") if "theory" in path.get("class", "")]
        assert bool(dashed) == (name != "processor"), name
    detection = ET.fromstring(drawn["detection"])
    assert len(list(detection.iter(f"{SVG}circle"))) == 3, "a crash that was never noticed has no point"
    assert faults.charts(RUNS[2:]).keys() == {"detection"}


def test_a_chart_needs_a_point_and_escapes_names() -> None:
    with pytest.raises(ValueError, match="at least one point"):
        plots.chart("t", "x", "y", [plots.Line("none", [])])
    text = plots.chart("a < b", "x & y", "z", [plots.Line("<&>", [(3, 0.0), (1, 0.0)])])
    assert "<&>" in [found.text for found in ET.fromstring(text).iter(f"{SVG}text")]


def test_goals_compare_with_serf_under_the_same_fault() -> None:
    report = Report("faults", "", ("one", "two"), rows=[("a", "b")], data={"runs": RUNS})
    faults._judge(report)
    crash = f"UDP, 5: {faults.CRASH}: removed by all after, s"
    assert {goal.name: (goal.wanted, goal.met) for goal in report.goals}[crash] == ("<= 6", False)
    assert sum(1 for goal in report.goals if "healthy members removed" in goal.name and goal.met) == 3
    assert json.loads(json.dumps(report.json(), allow_nan=False))["runs"] == RUNS, "JSON has no infinity"
    assert report.markdown() == "| one | two |\n| --- | --- |\n| a | b |\n"


def test_a_table_and_charts_are_written_beside_the_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faults, "DIRECTORY", tmp_path / "bench")
    report = Report("faults", "", ("one", "two"), rows=[faults._cells(entry) for entry in RUNS], data={"runs": RUNS})
    written = [path.name for path in faults._write(report)]
    assert written == ["faults.md", "faults-detection.svg", "faults-packets.svg", "faults-processor.svg"]
    assert "never" in (tmp_path / "bench" / "faults.md").read_text()


def test_options_name_hosts_and_planes() -> None:
    assert _numbers("3,20") == (3, 20)
    assert _planes("udp,xdp-native") == ("udp", "xdp-native")
    for text in ("2", "", "5,", "x", "1001"):
        with pytest.raises(argparse.ArgumentTypeError, match="from 3 to 1000"):
            _numbers(text)
    with pytest.raises(argparse.ArgumentTypeError, match="expected udp, tc, xdp-generic, xdp-native, got sctp"):
        _planes("sctp")


def test_without_the_program_serf_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serf, "UNPACKED", tmp_path / "serf")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert serf.binary() is None
    assert [system.name for system in faults._systems(tmp_path, "udp", 3, serf.binary())] == ["XDP Gossip"]
    (tmp_path / "serf").write_text("#!/bin/sh\n")
    (tmp_path / "serf").chmod(0o755)
    assert serf.binary() == str(tmp_path / "serf")
    assert [len(system.members) for system in faults._systems(tmp_path, "udp", 3, serf.binary())] == [3, 3]
