# SPDX-License-Identifier: MIT
"""Rendered files with real agents and helpers: documents become files, commands decide, the former file comes back."""

from __future__ import annotations

import contextlib
import grp
import json
import os
import pwd
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.fleet import Agent, Cluster, eventually
from tests.support.process import COMMAND

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

FAST = {"cycle": 0.5, "timeout": 2.5}
USER = pwd.getpwuid(os.getuid()).pw_name
GROUP = grp.getgrgid(os.getgid()).gr_name
SOURCE = """\
{% set s = json('site') %}port {{ s.port }}
name {{ node.name }}
{% if s.broken|default('') == node.name %}bad{% endif %}"""

#: Says no to a file in which a line says bad, and counts its calls.
VALIDATE = """#!/bin/sh
echo . >> "{log}.validations"
sleep 0.3  # long enough to be asked meanwhile what came of it
if grep -q '^bad$' "$1"; then echo "line $(grep -n '^bad$' "$1" | cut -d: -f1): bad"; exit 1; fi
"""
#: Notes what it reloaded; waits while there is one file, fails while another says so.
RELOAD = """#!/bin/sh
while [ -e "{log}.hold" ]; do sleep 0.05; done
head -n 1 "{path}" >> "{log}.reloads"
if [ -e "{log}.fail" ] && grep -q "$(cat "{log}.fail")" "{path}"; then echo "will not run with that"; exit 3; fi
"""


class Host:
    """An agent with one template, its helper, and the commands."""

    def __init__(self, agent: Agent) -> None:
        self.agent = agent
        directory = agent.directory
        self.path = directory / "etc" / "site.conf"
        self.path.parent.mkdir()
        self.log = directory / "commands"
        self.source = directory / "site.j2"
        self.source.write_text(SOURCE)
        for name, text in (("validate", VALIDATE), ("reload", RELOAD)):
            script = directory / name
            script.write_text(text.format(log=self.log, path=self.path))
            script.chmod(0o755)
        self.template: dict[str, Any] = {
            "name": "site",
            "source": str(self.source),
            "path": str(self.path),
            "owner": USER,
            "group": GROUP,
            "mode": "0640",
            "user": USER,
            "validate": [str(directory / "validate"), "{file}"],
            "reload": [str(directory / "reload")],
            "wait": 0.2,
            "show_output": True,
        }
        agent.settings["templates"] = [self.template]
        agent.settings["files_helper"] = {"socket": str(directory / "helper.sock"), "user": USER}
        agent.settings["files_helper"]["state_dir"] = str(directory / "helper")
        self.helper: subprocess.Popen[bytes] | None = None

    def start_helper(self) -> None:
        """Start it; from the main thread only."""
        config = self.agent.directory / "agent.yml"
        with (self.agent.directory / "helper.log").open("ab") as log:
            self.helper = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", str(COMMAND), "files-helper", "--config", str(config)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def stop_helper(self) -> None:
        if self.helper is not None:
            self.helper.kill()
            self.helper.wait(10)

    def rendered(self) -> dict[str, Any]:
        return dict(self.agent.call("GET", "/v1/rendered")["templates"][0])

    def not_in(self, state: str, text: str = "") -> str | None:
        found = self.rendered()
        return None if found["state"] == state and text in found["error"] else f"{self.agent.name}: {found}"

    def reloads(self) -> list[str]:
        with contextlib.suppress(FileNotFoundError):
            return Path(f"{self.log}.reloads").read_text().splitlines()
        return []

    def content(self) -> str | None:
        with contextlib.suppress(FileNotFoundError):
            return self.path.read_text()
        return None


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[list[Host]]:
    with Cluster(tmp_path, 3, **FAST) as cluster:
        made = [Host(agent) for agent in cluster]
        try:
            cluster.form()
            for host in made:
                host.start_helper()
            yield made
        except BaseException:
            for host in made:
                print(host.agent.name, (host.agent.directory / "helper.log").read_text())
            raise
        finally:
            for host in made:
                host.stop_helper()


def publish(host: Host, text: str, key: str = "site") -> str:
    return str(host.agent.call("PUT", f"/v1/documents/{key}?content_type=json", text.encode())["version"])


def applied(host: Host, version: str, timeout: float = 20) -> dict[str, Any]:
    query = f"key=site&version={version}&applied=1&wait=all&timeout={timeout:g}"
    return dict(host.agent.call("GET", f"/v1/convergence?{query}"))


def test_from_a_publish_to_files_and_back_from_what_was_refused(hosts: list[Host]) -> None:
    for host in hosts:
        eventually(lambda host=host: host.not_in("pending", "there is none"), 20)  # type: ignore[misc]
        assert host.content() is None

    found = applied(hosts[0], publish(hosts[0], '{"port": 80}'))
    assert found["converged"] and found["confirmed"] == 3, found
    for host in hosts:
        assert host.content() == f"port 80\nname {host.agent.name}\n"
        assert (host.path.stat().st_mode & 0o7777, host.path.stat().st_uid) == (0o640, os.getuid())
        assert host.reloads() == ["port 80"]

    # One host says no: it keeps what it had, and everybody can learn which and why from anybody.
    version = publish(hosts[1], '{"port": 81, "broken": "node3"}')
    found = applied(hosts[1], version)
    assert not found["converged"] and found["confirmed"] == 2
    by_name = {result["name"]: result for result in found["results"]}
    refused = by_name["node3"]
    assert refused["holds"] and refused["applied"]["state"] == "failed" and refused["applied"]["version"] == version
    assert "refused by site: validation" in refused["reason"] and "exit code 1" in refused["reason"]
    # What the command said may quote secrets: it is told on the host itself, and where the template allows it only.
    assert hosts[2].rendered()["output"] == "line 3: bad" and "line 3" not in str(found)
    assert "line 3" not in hosts[2].agent.log.read_text()
    assert all(by_name[name]["applied"]["state"] == "applied" for name in ("node1", "node2"))
    assert [host.content() for host in hosts] == [
        "port 81\nname node1\n",
        "port 81\nname node2\n",
        "port 80\nname node3\n",
    ]
    assert hosts[2].reloads() == ["port 80"]
    metrics = hosts[2].agent.ask("GET", "/v1/metrics").body.decode()
    assert 'name="site"' in metrics or 'template="site"' in metrics

    # A reload that fails: the former file is back, and was reloaded.
    Path(f"{hosts[1].log}.fail").write_text("port 82")
    found = applied(hosts[0], publish(hosts[2], '{"port": 82}'))
    assert (found["confirmed"], found["converged"]) == (2, False)
    assert hosts[1].content() == "port 81\nname node2\n"
    assert hosts[1].reloads() == ["port 80", "port 81", "port 82", "port 81"]
    assert "reload" in hosts[1].rendered()["error"] and hosts[1].rendered()["output"] == "will not run with that"
    assert hosts[2].content() == "port 82\nname node3\n"
    assert sorted(os.listdir(hosts[1].path.parent)) == ["site.conf"]

    # And what is right is taken again. At no moment does anybody take the former refusal for one of this version.
    version = publish(hosts[0], '{"port": 83}')

    def refused_or_open() -> str | None:
        found = applied(hosts[0], version, timeout=0)
        states = [(one["name"], one["applied"]) for one in found["results"]]
        assert not [one for one in states if one[1]["state"] == "failed"], states
        return None if found["converged"] else str(states)

    eventually(refused_or_open, 20, pause=0.02)
    assert {host.reloads()[-1] for host in hosts} == {"port 83"}


def test_a_burst_is_one_reload_and_a_restart_is_none(hosts: list[Host]) -> None:
    holds = [Path(f"{host.log}.hold") for host in hosts]
    for hold in holds:
        hold.touch()
    version = publish(hosts[0], '{"port": 99}')
    for host in hosts:  # each of them is about to reload
        eventually(lambda host=host: None if host.content() == f"port 99\nname {host.agent.name}\n" else "no file", 10)  # type: ignore[misc]
    for port in range(100, 115):
        version = publish(hosts[port % 3], f'{{"port": {port}}}')
    for hold in holds:
        hold.unlink()
    assert applied(hosts[0], version)["converged"]
    for host in hosts:
        # What came while a reload was under way is the next one; one more may have begun before all of it was there.
        assert (host.reloads()[0], host.reloads()[-1]) == ("port 99", "port 114")
        assert len(host.reloads()) <= 3
    host = hosts[0]
    before = host.reloads()
    assert host.agent.stop() == 0
    host.agent.start()
    eventually(host.agent.not_ready, 20)
    eventually(lambda: host.not_in("applied"), 20)
    assert host.reloads() == before


def test_without_a_helper_it_says_so_and_goes_on_when_there_is_one(hosts: list[Host]) -> None:
    host = hosts[0]
    host.stop_helper()
    publish(host, '{"port": 90}')
    eventually(lambda: host.not_in("failed", "files helper"), 20)
    assert host.content() is None
    host.start_helper()
    eventually(lambda: host.not_in("applied"), 30)
    assert host.content() == "port 90\nname node1\n"


def test_a_file_that_was_changed_by_hand_is_told_and_put_right_or_left(hosts: list[Host]) -> None:
    repair, report = hosts[0], hosts[1]
    assert report.agent.stop() == 0
    report.template["drift"] = "report"
    report.agent.start()
    eventually(report.agent.not_ready, 30)
    version = publish(hosts[2], '{"port": 95}')
    assert applied(hosts[2], version)["converged"]
    good = {host: host.content() for host in hosts}

    def drifts(host: Host) -> tuple[str, str]:
        lines = host.agent.ask("GET", "/v1/metrics").body.decode().splitlines()
        return tuple(  # type: ignore[return-value]
            line.split()[-1] for line in lines if line.startswith(("xdp_gossip_template_drift",)) and "site" in line
        )

    assert drifts(repair) == drifts(report) == ("0.0", "0.0")  # they are there from the start
    # Put right, with a validation and a reload.
    before = len(repair.reloads())
    repair.path.write_text("by hand")
    eventually(lambda: None if repair.content() == good[repair] else str(repair.rendered()), 30)
    eventually(lambda: repair.not_in("applied"), 30)
    assert len(repair.reloads()) == before + 1 and drifts(repair) == ("0.0", "1.0")
    repair.path.unlink()
    eventually(lambda: None if repair.content() == good[repair] else str(repair.rendered()), 30)
    eventually(lambda: repair.not_in("applied"), 30)
    assert "changed by hand: the file was removed" in repair.agent.log.read_text()

    # Left, and told to whoever asks the fleet; an agent that starts leaves it, too.
    report.path.write_text("by hand")
    eventually(lambda: report.not_in("failed", "changed by hand"), 30)
    found = applied(hosts[2], version, timeout=0)
    states = {one["name"]: (one["applied"]["state"], one["reason"]) for one in found["results"]}
    assert states["node2"][0] == "failed" and "site: changed by hand" in states["node2"][1], states
    assert states["node1"][0] == states["node3"][0] == "applied" and drifts(report) == ("1.0", "1.0")
    doctor = subprocess.run(
        [str(COMMAND), "doctor", "--config", str(report.agent.directory / "agent.yml")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "warning rendered.drifted: site" in doctor.stdout, doctor
    assert report.agent.stop() == 0
    report.agent.start()
    eventually(report.agent.not_ready, 30)
    eventually(lambda: report.not_in("failed", "changed by hand"), 30)
    assert report.content() == "by hand"
    # Until somebody wants it right, or the documents say something else.
    report.agent.signal(signal.SIGHUP)
    eventually(lambda: None if report.content() == good[report] else str(report.rendered()), 30)
    eventually(lambda: report.not_in("applied"), 30)
    report.path.write_text("by hand")
    eventually(lambda: report.not_in("failed", "changed by hand"), 30)
    assert applied(hosts[2], publish(hosts[2], '{"port": 96}'))["converged"]
    assert report.content() == "port 96\nname node2\n"


def test_files_of_one_service_are_placed_together_and_reloaded_once(tmp_path: Path) -> None:
    with Cluster(tmp_path, 1, **FAST) as cluster:
        host = Host(cluster[0])
        other = host.path.with_name("users.conf")
        second = host.source.with_name("users.j2")
        second.write_text("{{ json('site').port }} {{ json('users').names | join(' ') }}\n")
        command = {name: host.template.pop(name) for name in ("validate", "reload")}
        host.template.update(service="site", validate=command["validate"])
        host.agent.settings["templates"].append(
            {**host.template, "name": "users", "source": str(second), "path": str(other), "validate": None, "wait": 1}
        )
        host.agent.settings["services"] = [
            {"name": "site", "reload": command["reload"], "user": USER, "show_output": True}
        ]

        def states() -> list[tuple[str, str]]:
            return [(one["state"], one["error"]) for one in host.agent.call("GET", "/v1/rendered")["templates"]]

        def not_all(state: str, text: str = "") -> str | None:
            return None if all(one[0] == state and text in one[1] for one in states()) else str(states())

        try:
            cluster.start([cluster[0]])
            host.start_helper()
            publish(host, '{"port": 70}')
            # One that cannot be rendered keeps the other back.
            eventually(lambda: None if "waits for users of service site" in states()[0][1] else str(states()), 30)
            assert host.content() is None and not other.exists()
            publish(host, '{"names": ["a"]}', "users")
            eventually(lambda: not_all("applied"), 30)
            assert (host.content(), other.read_text()) == ("port 70\nname node1\n", "70 a\n")
            assert host.reloads() == ["port 70"]
            # A document that both read: once for both.
            version = publish(host, '{"port": 71}')
            assert applied(host, version)["converged"]
            assert (host.content(), other.read_text()) == ("port 71\nname node1\n", "71 a\n")
            assert host.reloads() == ["port 70", "port 71"]
            # Both or none, also when one alone has changed.
            Path(f"{host.log}.fail").write_text("port 72")
            version = publish(host, '{"port": 72}')
            found = applied(host, version)
            assert not found["converged"] and "exit code 3" in found["results"][0]["reason"]
            eventually(lambda: not_all("failed", "exit code 3"), 30)
            assert (host.content(), other.read_text()) == ("port 71\nname node1\n", "71 a\n")
            assert host.reloads()[2:] == ["port 72", "port 71"]
            publish(host, '{"names": ["b"]}', "users")
            eventually(lambda: None if len(host.reloads()) == 6 else str(host.reloads()), 30)
            assert other.read_text() == "71 a\n"
            Path(f"{host.log}.fail").unlink()
            publish(host, '{"names": ["c"]}', "users")
            eventually(lambda: not_all("applied"), 30)
            assert (host.content(), other.read_text()) == ("port 72\nname node1\n", "72 c\n")
            # Changed by hand: put right, with one more reload.
            before = len(host.reloads())
            other.write_text("by hand")
            eventually(lambda: None if other.read_text() == "72 c\n" else "by hand", 30)
            eventually(lambda: not_all("applied"), 30)
            assert len(host.reloads()) == before + 1
        except BaseException:
            print((host.agent.directory / "helper.log").read_text())
            raise
        finally:
            host.stop_helper()


def test_documents_and_nodes_that_a_template_reads_make_it_anew(tmp_path: Path) -> None:
    with Cluster(tmp_path, 2, **FAST) as cluster:
        host = Host(cluster[0])
        cluster[0].settings["wait_for_members"] = 1  # its seeds come later
        host.source.write_text(
            "{% for d in documents('vhost/') %}{{ d.key }}={{ d.value }};{% endfor %}\n\n"
            "{{ nodes | map(attribute='name') | join(',') }}\n{{ document('absent', 'default') }}\n"
        )
        try:
            cluster.start([cluster[0]])
            host.start_helper()
            eventually(lambda: host.not_in("applied"), 20)
            assert host.content() == "\nnode1\ndefault\n"
            publish(host, "1", "vhost/b")
            publish(host, "2", "vhost/a")
            eventually(lambda: None if (host.content() or "").startswith("vhost/a=2;vhost/b=1;\n") else "not yet", 20)
            cluster.start([cluster[1]])
            eventually(lambda: None if "node1,node2\n" in (host.content() or "") else str(host.content()), 20)
            publish(host, "3", "other")  # nothing that it reads
            count = len(host.reloads())
            cluster[1].call("DELETE", "/v1/documents/vhost/a")
            eventually(lambda: None if (host.content() or "").startswith("vhost/b=1;\n") else "not yet", 20)
            assert len(host.reloads()) == count + 1
            cluster[1].kill()
            eventually(lambda: None if "\nnode1\n" in (host.content() or "") else str(host.content()), 30)
        finally:
            host.stop_helper()


def test_a_rebuilt_host_never_serves_an_empty_file(hosts: list[Host]) -> None:
    host, other = hosts[2], hosts[0]
    for one in hosts:
        one.source.write_text("{% for d in documents('up/') %}{{ d.value }};{% endfor %}{{ nodes | length }}\n")
        one.agent.signal(signal.SIGHUP)
    for start in range(0, 600, 50):
        batch = {"documents": [{"key": f"up/{n:04}", "value": f"{n}"} for n in range(start, start + 50)]}
        other.agent.call("POST", "/v1/documents", json.dumps(batch).encode())
    expected = "".join(f"{n};" for n in range(600)) + "3\n"
    for one in hosts:
        eventually(lambda one=one: None if one.reloads()[-1:] == [expected[:-1]] else str(one.rendered()), 60)  # type: ignore[misc]
    assert host.content() == expected
    reloads = len(host.reloads())
    assert host.agent.stop() == 0
    shutil.rmtree(host.agent.state_dir)
    host.agent.start()
    seen: set[str | None] = set()
    states: set[str] = set()

    def applied_again() -> str | None:
        seen.add(host.content())
        if host.agent.not_ready() is not None:
            return "not ready"
        found = host.rendered()
        states.add(found["state"])
        return None if found["state"] == "applied" else f"{found}"

    eventually(applied_again, 60, pause=0.02)
    assert seen == {expected}
    assert states <= {"pending", "applied"}
    assert len(host.reloads()) == reloads
    assert host.agent.call("GET", "/v1/status")["caught_up"]


def test_a_host_that_reaches_nobody_keeps_its_file_until_the_limit_that_is_set(hosts: list[Host]) -> None:
    publish(hosts[0], '{"port": 80}')
    host = hosts[2]
    eventually(lambda: host.not_in("applied"), 20)
    for other in hosts[:2]:
        other.agent.kill()
    assert host.agent.stop() == 0
    shutil.rmtree(host.agent.state_dir)
    host.source.write_text("{{ documents('') | length }}\n")
    host.agent.settings["wait_for_members"] = "never"
    host.agent.start()
    eventually(host.agent.not_ready, 20)
    eventually(lambda: host.not_in("pending", "has not caught up with the cluster: no member has answered yet"), 20)
    assert host.content() == "port 80\nname node3\n"
    assert host.agent.stop() == 0
    host.agent.settings["wait_for_members"] = 1
    host.agent.start()
    eventually(lambda: host.not_in("applied") if host.agent.not_ready() is None else "not ready", 30)
    assert host.content() == "0\n"


def test_a_template_without_end_costs_its_time_and_delays_no_heartbeat(hosts: list[Host]) -> None:
    host = hosts[0]
    loop = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
    host.source.write_text("{{ document('site') }}" + loop)
    publish(host, '{"port": 1}')
    deadline = time.monotonic() + 30
    while host.not_in("failed", "took more than"):
        assert time.monotonic() < deadline, host.rendered()
        for other in hosts[1:]:
            assert host.agent.address in other.agent.listed("alive")
        time.sleep(0.2)
    assert host.content() is None
