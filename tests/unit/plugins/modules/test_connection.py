# SPDX-License-Identifier: MIT
"""The connection options of modules: where they come from, and what is told of endpoints that fail."""

from __future__ import annotations

import pytest
from ansible_collections.xdp_gossip.fleet.plugins.module_utils._settings import ENVIRONMENT
from ansible_collections.xdp_gossip.fleet.tests.unit.plugins.fake_member import FakeMember, free_port, node
from ansible_collections.xdp_gossip.fleet.tests.unit.plugins.run_module import run_module

MODULES = {
    "info": {"gather": ["status"]},
    "verify": {},
    "publish": {"content": "x"},
    "node": {"state": "started"},
}


@pytest.fixture(name="member")
def fixture_member():
    with FakeMember(token="secret") as member:
        member.nodes = [node("198.18.0.11", "host11", local=True)]
        yield member


@pytest.mark.parametrize("module", sorted(MODULES))
def test_the_environment_of_the_target_stands_in_for_options(member, monkeypatch, module):
    values = {
        "endpoints": "%s,%s" % (member.url, member.url),
        "token": "secret",
        "timeout": "3.5",
        "retries": "0",
        "validate_certs": "false",
        "ca_path": "/c",
        "client_cert": "/d",
        "client_key": "/e",
    }
    for option, value in values.items():
        monkeypatch.setenv(ENVIRONMENT[option], value)
    result = run_module(module, MODULES[module])
    assert result["rc"] == 0 and result["endpoint"] == member.url and result["failed_endpoints"] == []
    used = result["invocation"]["module_args"]
    assert (used["timeout"], used["retries"], used["validate_certs"]) == (3.5, 0, False)
    assert used["endpoints"] == [member.url, member.url] and used["client_key"] == "/e"
    assert "secret" not in result["output"]
    # What the task says counts more.
    wrong = run_module(module, dict(MODULES[module], token="wrong"))
    assert wrong["rc"] == 1 and "the token was refused" in wrong["msg"]


def test_a_token_of_the_environment_does_not_stand_in_the_way_of_a_token_file(member, monkeypatch, tmp_path):
    (tmp_path / "right").write_text("secret\n")
    (tmp_path / "wrong").write_text("wrong\n")
    options = dict(MODULES["info"], endpoints=[member.url])
    monkeypatch.setenv("XDP_GOSSIP_TOKEN", "wrong")
    assert run_module("info", dict(options, token_file=str(tmp_path / "right")))["rc"] == 0
    monkeypatch.delenv("XDP_GOSSIP_TOKEN")
    monkeypatch.setenv("XDP_GOSSIP_TOKEN_FILE", str(tmp_path / "wrong"))
    assert run_module("info", dict(options, token="secret"))["rc"] == 0
    both = run_module("info", dict(options, token="secret", token_file=str(tmp_path / "right")))
    assert both["rc"] == 1 and "mutually exclusive" in both["msg"]


@pytest.mark.parametrize(
    "options, said",
    [
        ({"endpoints": []}, "endpoints: expected at least one"),
        ({"timeout": 0}, "timeout: expected more than 0"),
        ({"retries": -1}, "retries: expected 0 to 100"),
    ],
)
def test_wrong_values_are_named(options, said):
    result = run_module("info", options)
    assert result["rc"] == 1 and said in result["msg"]


@pytest.mark.parametrize("module", ["info", "publish", "verify"])
def test_two_dead_endpoints_and_one_alive_are_enough(member, module, tmp_path):
    dead = ["http://127.0.0.1:%d" % free_port(), "unix://%s/none.sock" % tmp_path]
    result = run_module(module, dict(MODULES[module], endpoints=dead + [member.url], token="secret", timeout=5))
    assert result["rc"] == 0 and result["endpoint"] == member.url
    assert [attempt["endpoint"] for attempt in result["failed_endpoints"]] == dead
    reasons = [failed["reason"] for failed in result["failed_endpoints"]]
    assert "refused" in reasons[0] and "No such file" in reasons[1]
    # The warning, which newer versions of ansible-core print when a module runs inside them.
    assert "%s answered instead" % member.url in result["output"]


def test_retries_say_what_failed_and_how_many_are_left(member, tmp_path):
    dead = ["http://127.0.0.1:%d" % free_port(), "unix://%s/none.sock" % tmp_path]
    result = run_module("info", {"endpoints": dead, "retries": 2})
    assert result["rc"] == 1 and result["error"]["code"] == "no_member_answered"
    for said in ("2 retries left", "1 retry left"):
        assert said in result["output"]
    assert "0 retries left" not in result["output"]
    for url in dead:
        assert url in result["msg"]
    assert [attempt["endpoint"] for attempt in result["failed_endpoints"]] == dead


def test_a_refused_request_is_told_as_data(member):
    member.misbehave = lambda handler: handler.error(409, "too_many_documents", limit=3)
    result = run_module("publish", {"endpoints": [member.url], "content": "x"})
    assert result["error"] == {"code": "too_many_documents", "status": 409, "details": {"limit": 3}}
    assert result["endpoint"] == member.url
