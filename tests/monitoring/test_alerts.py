# SPDX-License-Identifier: MIT
"""Each alert rule fires on what it is for, and on nothing that a healthy fleet does; Prometheus' own tool judges."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
RULES = ROOT / "roles" / "monitoring" / "files" / "alerts.yml"
DOCUMENT = ROOT / "docs" / "monitoring.md"

ALERTS = {rule["alert"]: rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]}

#: Two members for two hours, healthy: name of the series -> its values at each minute, in promtool's notation.
HEALTHY = {
    'up{JOB, instance="a"}': "1x120",
    'xdp_gossip_build_info{JOB, instance="a", version="1.0.0"}': "1x3000",
    'xdp_gossip_build_info{JOB, instance="b", version="1.0.0"}': "1x3000",
    'xdp_gossip_members{JOB, instance="a", state="alive"}': "2x120",
    'xdp_gossip_members{JOB, instance="a", state="suspect"}': "0x120",
    'xdp_gossip_members{JOB, instance="a", state="dead"}': "0x120",
    'xdp_gossip_members{JOB, instance="a", state="agent_down"}': "0x120",
    'xdp_gossip_members{JOB, instance="b", state="dead"}': "0x120",
    'xdp_gossip_members{JOB, instance="b", state="agent_down"}': "0x120",
    'xdp_gossip_zones{JOB, instance="a", state="lost"}': "0x120",
    'xdp_gossip_zones{JOB, instance="b", state="lost"}': "0x120",
    'xdp_gossip_problems{JOB, instance="a", problem="clock"}': "0x120",
    'xdp_gossip_isolated{JOB, instance="a"}': "0x120",
    'xdp_gossip_state{JOB, instance="a", state="running"}': "1x120",
    'xdp_gossip_caught_up{JOB, instance="a"}': "1x120",
    'xdp_gossip_members_in_sync{JOB, instance="a"}': "2x120",
    'xdp_gossip_events_total{JOB, instance="a", name="rx_bad_mac"}': "3x120",
    'xdp_gossip_events_total{JOB, instance="a", name="rx_unknown_key"}': "0x120",
    'xdp_gossip_dataplane_packets_total{JOB, instance="a", verdict="drop_bad_mac"}': "0x120",
    'xdp_gossip_dataplane_packets_total{JOB, instance="a", verdict="news"}': "0+100x120",
    'xdp_gossip_dataplane_packets_total{JOB, instance="a", verdict="copy_lost"}': "7x120",
    'xdp_gossip_events_total{JOB, instance="a", name="document_conflicts"}': "0x120",
    'xdp_gossip_events_total{JOB, instance="a", name="documents_refused_too_large"}': "1x120",
    'xdp_gossip_events_total{JOB, instance="a", name="documents_not_stored"}': "0x120",
    'xdp_gossip_events_total{JOB, instance="a", name="state_file_repairs"}': "0x120",
    'xdp_gossip_events_total{JOB, instance="a", name="plane_stepped_down"}': "0x120",
    'xdp_gossip_events_total{JOB, instance="a", name="internal_errors"}': "0x120",
    'xdp_gossip_uptime_seconds{JOB, instance="a"}': "60+60x120",
    'xdp_gossip_document_bytes{JOB, instance="a"}': "800x120",
    'xdp_gossip_document_limit_bytes{JOB, instance="a"}': "1000x120",
    'xdp_gossip_template_state{JOB, instance="a", template="nginx", state="failed"}': "0x120",
    'xdp_gossip_template_drifted{JOB, instance="a", template="nginx"}': "0x120",
    'xdp_gossip_template_drifts_total{JOB, instance="a", template="nginx"}': "4x120",
    'xdp_gossip_process_memory_bytes{JOB, instance="a"}': "50x120",
    'xdp_gossip_process_memory_limit_bytes{JOB, instance="a"}': "0x120",
    'xdp_gossip_process_descriptors{JOB, instance="a"}': "50x120",
    'xdp_gossip_process_descriptors_limit{JOB, instance="a"}': "1024x120",
}
FLEET: dict[str, str] = {}
MEMBER = {"instance": "a"}

#: Alert -> the series that differ from the healthy fleet's, and the labels of the alert beside job, cluster and
#: severity. Some alerts have several such rows.
CASES: list[tuple[str, dict[str, str], dict[str, str]]] = [
    (
        "XdpGossipNodeDead",
        {
            'xdp_gossip_members{JOB, instance="a", state="dead"}': "1x120",
            'xdp_gossip_members{JOB, instance="b", state="dead"}': "1x120",
        },
        FLEET,
    ),
    (
        "XdpGossipAgentDown",
        {
            'xdp_gossip_members{JOB, instance="a", state="agent_down"}': "2x120",
            'xdp_gossip_members{JOB, instance="b", state="agent_down"}': "2x120",
        },
        FLEET,
    ),
    (
        "XdpGossipZoneLost",
        {
            'xdp_gossip_zones{JOB, instance="a", state="lost"}': "1x120",
            'xdp_gossip_zones{JOB, instance="b", state="lost"}': "1x120",
        },
        FLEET,
    ),
    ("XdpGossipProblem", {'xdp_gossip_problems{JOB, instance="a", problem="clock"}': "1x120"}, {"problem": "clock"}),
    (
        "XdpGossipDocumentConflict",
        {'xdp_gossip_events_total{JOB, instance="a", name="document_conflicts"}': "0x115 1x5"},
        FLEET,
    ),
    (
        "XdpGossipMixedReleases",
        {'xdp_gossip_build_info{JOB, instance="b", version="1.0.0"}': "_x3000"}
        | {'xdp_gossip_build_info{JOB, instance="b", version="0.9.0"}': "1x3000"},
        FLEET,
    ),
    ("XdpGossipScrapeFailed", {'up{JOB, instance="a"}': "0x120"}, MEMBER),
    ("XdpGossipIsolated", {'xdp_gossip_isolated{JOB, instance="a"}': "1x120"}, MEMBER),
    (
        "XdpGossipNotRunning",
        {'xdp_gossip_state{JOB, instance="a", state="running"}': "0x120"},
        {**MEMBER, "state": "running"},
    ),
    ("XdpGossipNotCaughtUp", {'xdp_gossip_caught_up{JOB, instance="a"}': "0x120"}, MEMBER),
    ("XdpGossipNotInSync", {'xdp_gossip_members_in_sync{JOB, instance="a"}': "1x120"}, MEMBER),
    (
        "XdpGossipRejectedSenders",
        {'xdp_gossip_events_total{JOB, instance="a", name="rx_unknown_key"}': "0+2x120"},
        MEMBER,
    ),
    (
        "XdpGossipRejectedSenders",
        {'xdp_gossip_dataplane_packets_total{JOB, instance="a", verdict="drop_bad_mac"}': "0+2x120"},
        MEMBER,
    ),
    (
        "XdpGossipDocumentsRefused",
        {'xdp_gossip_events_total{JOB, instance="a", name="documents_refused_too_large"}': "1x115 2x5"},
        {**MEMBER, "name": "documents_refused_too_large"},
    ),
    (
        "XdpGossipStorageFails",
        {'xdp_gossip_events_total{JOB, instance="a", name="documents_not_stored"}': "0x115 1x5"},
        MEMBER,
    ),
    (
        "XdpGossipStorageFails",
        {'xdp_gossip_events_total{JOB, instance="a", name="audit_lost"}': "0x115 1x5"},
        MEMBER,
    ),
    (
        "XdpGossipStateFileRepaired",
        {'xdp_gossip_events_total{JOB, instance="a", name="state_file_repairs"}': "1x120"},
        {**MEMBER, "name": "state_file_repairs"},
    ),
    ("XdpGossipStoreNearlyFull", {'xdp_gossip_document_bytes{JOB, instance="a"}': "901x120"}, MEMBER),
    (
        "XdpGossipTemplateFailed",
        {'xdp_gossip_template_state{JOB, instance="a", template="nginx", state="failed"}': "1x120"},
        {**MEMBER, "template": "nginx", "state": "failed"},
    ),
    (
        "XdpGossipTemplateDrifted",
        {'xdp_gossip_template_drifted{JOB, instance="a", template="nginx"}': "1x120"},
        {**MEMBER, "template": "nginx"},
    ),
    (
        "XdpGossipTemplateDrifted",
        {'xdp_gossip_template_drifts_total{JOB, instance="a", template="nginx"}': "4x115 5x5"},
        {**MEMBER, "template": "nginx"},
    ),
    (
        "XdpGossipPlaneSteppedDown",
        {'xdp_gossip_events_total{JOB, instance="a", name="plane_stepped_down"}': "0x115 1x5"},
        {**MEMBER, "name": "plane_stepped_down"},
    ),
    (
        "XdpGossipPacketsLost",
        {'xdp_gossip_dataplane_packets_total{JOB, instance="a", verdict="copy_lost"}': "7+2x120"},
        {**MEMBER, "verdict": "copy_lost"},
    ),
    (
        "XdpGossipInternalErrors",
        {'xdp_gossip_events_total{JOB, instance="a", name="internal_errors"}': "0x115 1x5"},
        {**MEMBER, "name": "internal_errors"},
    ),
    ("XdpGossipNearLimits", {'xdp_gossip_process_memory_limit_bytes{JOB, instance="a"}': "52x120"}, MEMBER),
    ("XdpGossipNearLimits", {'xdp_gossip_process_descriptors{JOB, instance="a"}': "1000x120"}, MEMBER),
]
#: Minutes after which an alert is looked for: most of them after two hours.
MINUTES = {"XdpGossipMixedReleases": 2000}


def series(changed: dict[str, str]) -> list[dict[str, str]]:
    """The series of a fleet, as promtool reads them."""
    return [
        {"series": name.replace("JOB", 'job="xdp-gossip", cluster="default"'), "values": values}
        for name, values in {**HEALTHY, **changed}.items()
    ]


def judge(tmp_path: Path, changed: dict[str, str], expected: dict[str, list[dict[str, str]]], minutes: int) -> str:
    """What promtool says of a test that expects for each alert these instances; "" when all are right."""
    test = {
        "interval": "1m",
        "input_series": series(changed),
        "alert_rule_test": [
            {
                "eval_time": f"{minutes}m",
                "alertname": alert,
                "exp_alerts": [
                    {
                        "exp_labels": {
                            "job": "xdp-gossip",
                            "cluster": "default",
                            "severity": rule["labels"]["severity"],
                            **labels,
                        },
                    }
                    for labels in expected.get(alert, [])
                ],
            }
            for alert, rule in ALERTS.items()
        ],
    }
    # The texts have values in them: they are compared by nobody, so promtool gets rules without.
    rules: dict[str, Any] = yaml.safe_load(RULES.read_text())
    for group in rules["groups"]:
        for rule in group["rules"]:
            del rule["annotations"]
    (tmp_path / "rules.yml").write_text(yaml.safe_dump(rules))
    path = tmp_path / "test.yml"
    path.write_text(yaml.safe_dump({"rule_files": ["rules.yml"], "evaluation_interval": "1m", "tests": [test]}))
    done = subprocess.run(["promtool", "test", "rules", str(path)], capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else done.stdout + done.stderr


def test_the_rules_are_sound() -> None:
    done = subprocess.run(["promtool", "check", "rules", str(RULES)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(ALERTS)} rules found" in done.stdout


def test_every_alert_has_a_case_and_a_text() -> None:
    assert {alert for alert, _, _ in CASES} == set(ALERTS)
    for name, rule in ALERTS.items():
        assert rule["labels"]["severity"] in ("info", "warning", "critical"), name
        assert rule["annotations"]["summary"] and rule["annotations"]["description"], name


def test_every_alert_is_documented() -> None:
    text = DOCUMENT.read_text()
    rows = [row.split("|") for row in text[text.index("| alert | severity |") :].partition("\n\n")[0].splitlines()[2:]]
    documented = {row[1].strip(" `"): (row[2].strip(), row[4].strip()) for row in rows}
    assert documented == {
        name: (rule["labels"]["severity"], rule.get("for", "at once")) for name, rule in ALERTS.items()
    }


def test_a_healthy_fleet_raises_no_alert(tmp_path: Path) -> None:
    assert judge(tmp_path, {}, {}, 120) == ""
    assert judge(tmp_path, {}, {}, 2000) == ""


@pytest.mark.parametrize(("alert", "changed", "labels"), CASES)
def test_an_alert_fires_on_what_it_is_for_and_no_other_does(
    tmp_path: Path, alert: str, changed: dict[str, str], labels: dict[str, str]
) -> None:
    assert judge(tmp_path, changed, {alert: [labels]}, MINUTES.get(alert, 120)) == ""


def test_one_member_that_is_wrong_raises_no_alert_about_the_fleet(tmp_path: Path) -> None:
    said = {
        f'xdp_gossip_members{{JOB, instance="{instance}", state="dead"}}': f"{dead}x120"
        for instance, dead in (("a", 9), ("b", 0), ("c", 0))
    }
    assert judge(tmp_path, said, {}, 120) == ""


def test_an_alert_that_is_over_ends(tmp_path: Path) -> None:
    assert judge(tmp_path, {'xdp_gossip_isolated{JOB, instance="a"}': "1x60 0x60"}, {}, 120) == ""
