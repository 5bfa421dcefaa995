# SPDX-License-Identifier: MIT
"""A real Prometheus finds the agents through one of them, scrapes all, answers the dashboards and raises alerts."""

from __future__ import annotations

import contextlib
import json
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from test_alerts import ALERTS, RULES
from test_dashboards import FILES, queries

from tests.support.fleet import Cluster
from tests.support.patience import patient
from tests.support.ports import free_port

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

ROOT = Path(__file__).resolve().parents[2]
DOCUMENT = ROOT / "docs" / "monitoring.md"
DEFAULTS = yaml.safe_load((ROOT / "roles" / "monitoring" / "defaults" / "main.yml").read_text())
TOKEN = "a-token-that-may-read-only"
#: Families of which a fleet over UDP without rendered files has no series.
ABSENT = ("xdp_gossip_dataplane_packets_total", "xdp_gossip_template", "plane_stepped_down")


class Prometheus:
    """One that runs, and what a test asks of it."""

    def __init__(self, port: int) -> None:
        self.address = f"127.0.0.1:{port}"

    def ask(self, path: str, **query: str) -> Any:
        """The data of an answer of its API. Raises ``AssertionError`` when it refuses the request."""
        url = f"http://{self.address}/api/v1/{path}?{urllib.parse.urlencode(query)}"
        try:
            with urllib.request.urlopen(url, timeout=20) as response:
                answer = json.load(response)
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{query}: {error.read().decode()}") from None
        assert answer["status"] == "success", answer
        return answer["data"]

    def ready(self) -> bool:
        """Whether it answers questions. Raises ``OSError`` before."""
        with urllib.request.urlopen(f"http://{self.address}/-/ready", timeout=20) as response:
            return bool(response.status == 200)

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The series of an instant query."""
        found = self.ask("query", query=expression)
        assert found["resultType"] == "vector"
        return list(found["result"])

    def targets(self) -> dict[str, str]:
        """Instance -> health of each target."""
        return {one["labels"]["instance"]: one["health"] for one in self.ask("targets")["activeTargets"]}

    def firing(self) -> set[tuple[str, str]]:
        """Name and instance of each alert that fires."""
        return {
            (one["labels"]["alertname"], one["labels"].get("instance", ""))
            for one in self.ask("alerts")["alerts"]
            if one["state"] == "firing"
        }


def eventually(question: Callable[[], Any], seconds: float = 60.0) -> Any:
    """The first true answer."""
    deadline = time.monotonic() + patient(seconds)
    while True:
        with contextlib.suppress(OSError):
            if answer := question():
                return answer
        assert time.monotonic() < deadline, f"it never came true: {question}"
        time.sleep(0.2)


def rules(directory: Path) -> Path:
    """The alert rules, in a hurry: each condition has to hold for a second only."""
    found = yaml.safe_load(RULES.read_text())
    for group in found["groups"]:
        group["interval"] = "1s"
        for rule in group["rules"]:
            if "for" in rule:
                rule["for"] = "1s"
    path = directory / "alerts.yml"
    path.write_text(yaml.safe_dump(found))
    return path


def job_of(cluster: Cluster, token: Path) -> dict[str, Any]:
    """The scrape configuration of docs/monitoring.md, with this fleet's addresses and token, and without TLS."""
    text = DOCUMENT.read_text()
    found = yaml.safe_load(text[text.index("scrape_configs:") :].partition("```")[0])
    assert found["rule_files"] == [str(Path(DEFAULTS["xdp_gossip_monitoring_rules_file"]).parent / "*.yml")]
    (job,) = found["scrape_configs"]
    assert job["scheme"] == "https"
    job["scheme"] = "http"
    for sender in (job, *job["http_sd_configs"]):
        assert sender.pop("tls_config")["ca_file"]
        assert sender["authorization"]["credentials_file"] == DEFAULTS["xdp_gossip_monitoring_token_file"]
        sender["authorization"]["credentials_file"] = str(token)
    for agent, source in zip(cluster, job["http_sd_configs"]):
        path = source["url"].partition("/v1/")[2]
        source["url"] = f"http://{agent.settings['api']['listen']}/v1/{path}"
        source["refresh_interval"] = "1s"
    return dict(job)


@contextlib.contextmanager
def watched(cluster: Cluster, directory: Path) -> Iterator[Prometheus]:
    """A Prometheus that asks two members for its targets."""
    token = directory / "token"
    token.write_text(TOKEN)
    configuration = {
        "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(rules(directory))],
        "scrape_configs": [job_of(cluster, token)],
    }
    path = directory / "prometheus.yml"
    path.write_text(yaml.safe_dump(configuration))
    check = ["promtool", "check", "config", str(path)]
    done = subprocess.run(check, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    port = free_port()
    words = [
        f"--config.file={path}",
        f"--storage.tsdb.path={directory / 'tsdb'}",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    with (directory / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(["setpriv", "--pdeathsig", "KILL", "prometheus", *words], stdout=log, stderr=log)
    try:
        found = Prometheus(port)
        eventually(found.ready)
        yield found
    except BaseException:
        print((directory / "prometheus.log").read_text()[-5000:])
        raise
    finally:
        process.kill()
        process.wait(20)


def filled(query: str, instance: str) -> str:
    """A query as Grafana asks it."""
    for name, value in (
        ("job", "xdp-gossip"),
        ("cluster", "default"),
        ("instance", instance),
        ("__rate_interval", "5m"),
    ):
        query = query.replace(f"${name}", value)
    assert "$" not in query, query
    return query


def test_prometheus_finds_and_watches_the_fleet(tmp_path: Path) -> None:
    with Cluster(tmp_path, 3, cycle=1) as cluster:
        port = free_port()
        for agent in cluster:
            token = agent.write_secret("token", TOKEN)
            agent.settings["zone"] = "b" if agent is cluster[2] else "a"
            agent.settings["api"] = {**agent.settings["api"], "listen": f"{agent.ip}:{port}", "token_file": str(token)}
        cluster.form()
        cluster[0].publish("app/settings", b"1")
        names = {agent.name for agent in cluster}
        with watched(cluster, tmp_path) as prometheus:
            eventually(lambda: prometheus.targets() == dict.fromkeys(names, "up"))
            # Two members list each target; it is scraped once.
            assert len(prometheus.ask("targets")["activeTargets"]) == 3
            eventually(lambda: len(prometheus.query("count_over_time(xdp_gossip_build_info[1m]) >= 3")) == 3)
            # A healthy fleet answers every panel and raises no alert.
            for path in FILES:
                for query in queries(json.loads(path.read_text())):
                    found = prometheus.query(filled(query, cluster[1].name))
                    if not any(name in query for name in ABSENT) and "==" not in query and "(XDP" not in query:
                        assert found, query
            assert prometheus.query('sum by (zone) (xdp_gossip_zone_nodes{zone="b"})')
            eventually(lambda: all(group["lastEvaluation"] > "2" for group in prometheus.ask("rules")["groups"]))
            told = [rule for group in prometheus.ask("rules")["groups"] for rule in group["rules"]]
            assert {rule["name"] for rule in told} == set(ALERTS)
            assert {rule["health"] for rule in told} == {"ok"}, told
            quiet = {"XdpGossipNotCaughtUp", "XdpGossipNotInSync"}  # they are true for a moment at a start
            assert {name for name, _ in prometheus.firing()} <= quiet
            eventually(lambda: not prometheus.firing())
            # An agent that is gone stays a target, and is told.
            cluster[2].kill()
            gone = cluster[2].name
            eventually(lambda: prometheus.targets() == {**dict.fromkeys(names, "up"), gone: "down"})
            expected = {("XdpGossipScrapeFailed", gone), ("XdpGossipNodeDead", ""), ("XdpGossipZoneLost", "")}
            eventually(lambda: expected <= prometheus.firing())
            summaries = {
                one["labels"]["alertname"]: one["annotations"]["summary"] for one in prometheus.ask("alerts")["alerts"]
            }
            assert summaries["XdpGossipNodeDead"] == "1 nodes are dead"
            assert summaries["XdpGossipScrapeFailed"] == f"{gone}: the metrics of the agent cannot be read"
            # It comes back, and all is well.
            cluster.start([cluster[2]])
            eventually(lambda: prometheus.targets() == dict.fromkeys(names, "up"))
            eventually(lambda: not prometheus.firing(), 120)


def test_what_the_agents_serve_is_what_prometheus_recommends(tmp_path: Path) -> None:
    with Cluster(tmp_path, 1, cycle=1) as cluster:
        cluster.start()
        text = cluster[0].ask("GET", "/v1/metrics").body
    done = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, b"")
