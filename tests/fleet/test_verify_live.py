# SPDX-License-Identifier: MIT
"""Verifying what real agents hold: over TLS, member by member, and by the playbooks."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from test_ansible_plugins import PUBLISH, PYTHON, VERIFY, Fleet, pytestmark, that  # noqa: F401  (the same needs)


@pytest.fixture(name="fleet", scope="module")
def fixture_fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    # Gossip is not to notice who has died before somebody asks them.
    fleet = Fleet(tmp_path_factory.mktemp("v"), timeout=3600)
    try:
        fleet.wait_for_hosts(fleet.inventory(), {"host1", "host2", "host3"}, 30)
        yield fleet
    finally:
        fleet.close()


def test_every_member_says_over_tls_what_it_holds(fleet: Fleet) -> None:
    direct = {"direct": True, "wait_timeout": 20}
    fleet.play(
        [
            {PUBLISH: {"key": "app/a", "content": "text", "wait": "all"}, "register": "p"},
            {VERIFY: {"key": "app/a", **direct}, "register": "v"},
            that("v.confirmed == 3", "v.holdings | selectattr('reached') | length == 3"),
            {VERIFY: {"key": "app/a", "version": "{{ p.version }}", **direct}},
            {VERIFY: {"key": "app/a", "content": "text", **direct}},
            {VERIFY: direct},
            {VERIFY: {"key": "none", "state": "absent", **direct}},
            {
                VERIFY: {"key": "app/a", "state": "absent", "direct": True, "wait_timeout": 0},
                "register": "v",
                "ignore_errors": True,
            },
            that("v.failed", "v.mismatched | length == 3", "not v.unreachable_members"),
            that("lookup('xdp_gossip.fleet.metadata', 'app/a') == 'text'"),
        ],
        members="12",
        tls=True,
    )


def test_two_dead_endpoints_over_tls_and_one_alive(fleet: Fleet) -> None:
    dead = ["https://198.18.77.99:8001", "https://198.18.77.11:8002", "https://198.18.77.12:8001"]
    task = {PUBLISH: {"key": "failover", "content": "x", "endpoints": dead, "timeout": 5}, "register": "r"}
    output = fleet.play([task, that("r.changed", "r.failed_endpoints | length == 2")], tls=True)
    assert "[WARNING]" in output and "answered instead" in " ".join(output.split())


def playbook(fleet: Fleet, name: str, *hosts: int, fails: bool = False, **variables: object) -> str:
    """Run a playbook of the collection; each host is a member, or (0) one whose agent is not there."""
    inventory = {
        f"h{number}": {
            "ansible_connection": "local",
            "ansible_python_interpreter": PYTHON,
            "socket": str(fleet.sockets[number - 1]) if number else "/does/not/exist",
        }
        for number in hosts
    }
    path = fleet.directory / "hosts.yml"
    path.write_text(json.dumps({"all": {"hosts": inventory}}))
    wrapper = fleet.directory / "wrapper.yml"
    # The playbooks ask the agent at its default place; the environment names these ones.
    environment = {"XDP_GOSSIP_ENDPOINTS": "unix://{{ socket }}", "XDP_GOSSIP_RETRIES": "0"}
    source = (Path(__file__).resolve().parents[2] / "playbooks" / f"{name}.yml").read_text()
    wrapper.write_text(source.replace("  become: true\n", f"  environment: {json.dumps(environment)}\n"))
    return fleet.run("ansible-playbook", "-i", str(path), str(wrapper), "-e", json.dumps(variables), fails=fails)


def test_the_playbooks_take_one_document_or_many_and_fall_over_to_the_next_host(fleet: Fleet) -> None:
    (fleet.directory / "f.json").write_text('{"a": [1, 2]}\n')
    one = {"xdp_gossip_key": "pb/file", "xdp_gossip_file": "f.json"}
    output = playbook(fleet, "publish", 0, 2, 3, **one)
    assert "pb/file changed to version" in output and "held by 3 of 3 members" in output
    assert "was already" in playbook(fleet, "publish", 3, **one)
    assert "pb/file: 3 of 3 members hold sha256:" in playbook(fleet, "verify", 0, 1, **one)

    documents = {"pb/a": {"content": '{"x": 1}'}, "pb/b": {"value": {"n": 1}}, "pb/c": {"state": "absent"}}
    output = playbook(fleet, "publish", 0, 1, xdp_gossip_documents=documents)
    assert "pb/a changed to" in output and "pb/b changed to" in output and "pb/c was already" in output
    output = playbook(fleet, "verify", 0, 2, xdp_gossip_documents=documents)
    assert "pb/a: 3 of 3 members hold" in output and "pb/c: 3 of 3 members have forgotten it" in output
    fleet.play(
        [
            that("lookup('xdp_gossip.fleet.metadata', 'pb/a') == '{' ~ '\"x\": 1}'"),
            that("lookup('xdp_gossip.fleet.metadata', 'pb/file') == '{' ~ '\"a\": [1, 2]}\\n'"),
        ]
    )

    documents["pb/a"]["content"] = "other"
    output = playbook(fleet, "verify", 1, 2, fails=True, xdp_gossip_documents=documents, xdp_gossip_wait_timeout=0)
    assert "0 of 3 members hold" in output and "pb/a" in output
    assert "3 of 3 members hold" in playbook(fleet, "verify", 2)  # everything
    for name in ("publish", "verify"):
        output = playbook(fleet, name, 0, fails=True, **one)
        assert "No member answered on any of h0" in output


def test_the_playbooks_ask_for_what_is_applied_and_for_repair(fleet: Fleet) -> None:
    documents = {"ap/a": {"content": "a"}, "ap/b": {"content": "b"}, "ap/c": {"state": "absent"}}
    output = playbook(fleet, "publish", 1, xdp_gossip_documents=documents, xdp_gossip_wait_for="applied")
    assert "ap/a changed to" in output and " ".join(output.split()).count("applied by 3 of 3 members") == 3
    output = playbook(
        fleet, "verify", 0, 2, xdp_gossip_documents=documents, xdp_gossip_applied=True, xdp_gossip_repair=True
    )
    assert "ap/a: 3 of 3 members have applied sha256:" in output and "ap/b: 3 of 3 members have applied" in output
    assert "ap/c: 3 of 3 members have forgotten it" in output
    # As text, which -e name=value makes of it.
    one = {"xdp_gossip_key": "ap/a"}
    assert "members hold sha256:" in playbook(fleet, "verify", 1, **one, xdp_gossip_applied="false")
    assert "members have applied sha256:" in playbook(fleet, "verify", 1, **one, xdp_gossip_applied="true")
    # What cannot be is the modules' to say.
    output = playbook(
        fleet,
        "publish",
        1,
        fails=True,
        **one,
        xdp_gossip_content="a",
        xdp_gossip_wait="none",
        xdp_gossip_wait_for="applied",
    )
    assert "wait_for=applied: expected majority, all or a number of members as wait" in output
    assert "applied: expected key with it" in playbook(fleet, "verify", 1, fails=True, xdp_gossip_applied=True)


def test_a_dead_member_is_named_when_members_are_asked_directly(fleet: Fleet) -> None:
    """Last, because it takes one away: gossip has not noticed, but its own API is silent at once."""
    kill = {"ansible.builtin.command": f"kill -KILL {fleet.pids[2]}"}
    verify = {
        VERIFY: {"key": "app/a", "direct": True, "wait_timeout": 0, "retries": 0},
        "register": "v",
        "ignore_errors": True,
    }
    fleet.play(
        [
            kill,
            verify,
            that(
                "v.failed",
                "v.unreachable_members | map(attribute='name') == ['host3']",
                "v.missing | map(attribute='name') == ['host3']",
                "v.confirmed == 2",
            ),
        ],
        tls=True,
    )
