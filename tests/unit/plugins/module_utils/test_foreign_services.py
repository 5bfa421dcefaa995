# SPDX-License-Identifier: MIT
"""Another HTTP service at an endpoint is an endpoint that failed, whatever it answers; the next one is asked."""

from __future__ import annotations

import json
import typing as t

import pytest
from ansible_collections.xdp_gossip.fleet.plugins.module_utils._client import Client, Unreachable
from ansible_collections.xdp_gossip.fleet.plugins.module_utils._settings import Settings
from ansible_collections.xdp_gossip.fleet.tests.unit.plugins.fake_member import FakeMember, node
from ansible_collections.xdp_gossip.fleet.tests.unit.plugins.run_module import run_module

PAGE = b"<html><body><h1>Welcome to nginx!</h1></body></html>"
#: What an agent would answer, too, but for the header.
LIKE_AN_AGENTS = json.dumps({"error": {"code": "document_not_found", "message": "no"}}).encode()

#: status, headers, body
FOREIGN = {
    "page": (200, {}, PAGE),
    "page, 404": (404, {}, PAGE),
    "page, 400": (400, {}, b"The plain HTTP request was sent to HTTPS port"),
    "page, 401": (401, {"WWW-Authenticate": "Basic"}, PAGE),
    "page, 403": (403, {}, PAGE),
    "page, 405": (405, {"Allow": "GET"}, PAGE),
    "page, 410": (410, {}, PAGE),
    "page, 412": (412, {}, PAGE),
    "page, 413": (413, {}, PAGE),
    "page, 501": (501, {}, PAGE),
    "redirect": (302, {"Location": "https://login.example/"}, b""),
    "not modified": (304, {}, b""),
    "no content": (204, {}, b""),
    "other JSON": (200, {}, b'{"status": "ok", "changed": true, "version": "1"}'),
    "a list": (200, {}, b"[]"),
    "other JSON, 404": (404, {}, b'{"error": {"code": 404, "message": "not found"}}'),
    "like an agent's, 404": (404, {}, LIKE_AN_AGENTS),
    "like an agent's, 412": (412, {}, LIKE_AN_AGENTS),
}


def client(*urls: str, **options: t.Any) -> Client:
    return Client(Settings(dict({"timeout": 5, "retries": 0}, **options, endpoints=list(urls))))


@pytest.fixture(name="foreign", params=FOREIGN)
def fixture_foreign(request: pytest.FixtureRequest) -> t.Iterator[FakeMember]:
    status, headers, body = FOREIGN[request.param]

    def answer(handler: t.Any) -> None:
        handler.reply(status, body, dict(headers, Server="nginx/1.22.1"))

    with FakeMember() as service:
        service.marked = False
        service.misbehave = answer
        yield service


@pytest.fixture(name="member")
def fixture_member() -> t.Iterator[FakeMember]:
    with FakeMember() as member:
        member.nodes = [node("198.18.0.11", "m1", local=True)]
        yield member


def test_a_read_goes_on_to_the_next_endpoint(foreign, member):
    asked = client(foreign.url, member.url)
    assert asked.request("GET", "/v1/status").json()["state"] == "running"
    assert asked.endpoint == member.url
    assert [failed["endpoint"] for failed in asked.attempts] == [foreign.url]


@pytest.mark.parametrize("method", ["PUT", "DELETE"])
def test_a_write_was_taken_by_no_member(foreign, member, method):
    """So it goes on to the next endpoint, also with a condition; nothing of it is uncertain."""
    version = member.put("a", b"old")["version"]
    condition = {"If-Match": '"%s"' % version}
    asked = client(foreign.url, member.url)
    answer = asked.request(method, "/v1/documents/a", body=b"new", headers=condition, repeatable=False)
    assert answer.json()["changed"] is True and answer.endpoint == member.url
    assert len([asked for asked in foreign.requests if asked[0] == method]) == 1


def test_alone_it_is_named_with_its_reason(foreign):
    with pytest.raises(Unreachable) as caught:
        client(foreign.url, retries=1).request("PUT", "/v1/documents/a", body=b"x", repeatable=False)
    assert not caught.value.maybe_applied
    reason = caught.value.attempts[0][1]
    assert reason.startswith("answered ") and ("nginx/1.22.1" in reason or "401" in reason)


@pytest.mark.parametrize(
    "name, options",
    [
        ("info", {}),
        ("publish", {"key": "a", "content": "x", "if_version": "absent"}),
        ("verify", {"wait_timeout": 0}),
    ],
)
def test_modules_go_on_and_tell(foreign, member, name, options):
    result = run_module(name, dict(options, endpoints=[foreign.url, member.url], retries=0))
    assert result["rc"] == 0 and result["endpoint"] == member.url
    assert [failed["endpoint"] for failed in result["failed_endpoints"]] == [foreign.url]
    result = run_module(name, dict(options, endpoints=[foreign.url, "unix:///nobody.sock"], retries=0))
    assert result["error"]["code"] == "no_member_answered"
    assert foreign.url + ": answered" in result["msg"] and "unix:///nobody.sock: No such file" in result["msg"]


def test_a_proxy_that_fails_may_have_passed_a_write_on(member):
    """What stands before an agent answers with a page of its own when the agent's answer did not come in time."""

    def gateway(handler: t.Any) -> None:
        handler.reply(504, PAGE)

    with FakeMember() as proxy:
        proxy.marked = False
        proxy.misbehave = gateway
        with pytest.raises(Unreachable) as caught:
            client(proxy.url, member.url).request("PUT", "/v1/documents/a", body=b"x", repeatable=False)
    assert caught.value.maybe_applied and not member.requests


def test_an_endless_answer_is_a_failed_endpoint_too(member, monkeypatch):
    from ansible_collections.xdp_gossip.fleet.plugins.module_utils import _client

    monkeypatch.setattr(_client, "MAX_BODY", 1 << 20)

    def pour(handler: t.Any) -> None:
        handler.send_response(200)
        handler.end_headers()
        while True:
            handler.wfile.write(b"x" * 65536)

    with FakeMember() as first:
        first.marked = False
        first.misbehave = pour
        asked = client(first.url, member.url)
        assert asked.request("GET", "/v1/status").endpoint == member.url
        assert "longer than" in asked.attempts[0]["reason"]
