# SPDX-License-Identifier: MIT
"""Members that refuse, drip, flood, lie or die: the source goes on with another, and says so when there is none."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.xdp_gossip.fleet.extensions.eda.plugins.plugin_utils import _member

from tests.support.patience import patient

from .running import Source
from .scripted import DIGEST, Scripted, node

TIMEOUT = 1.0


@pytest.fixture
def good() -> Iterator[Scripted]:
    """A member that behaves."""
    with Scripted() as member:
        yield member


@pytest.fixture
def bad() -> Iterator[Scripted]:
    """A member that a test tells to misbehave."""
    with Scripted() as member:
        yield member


def _refuse(handler: Any) -> None:
    handler.reply(401, {"error": {"code": "unauthorized", "message": "no"}})


def _deny(handler: Any) -> None:
    handler.reply(403, {"error": {"code": "forbidden", "message": "GET /v1/nodes needs the right read"}})


def _redirect(handler: Any) -> None:
    handler.reply(302, b"", Location="http://127.0.0.1:1/v1/nodes")


def _compress(handler: Any) -> None:
    handler.reply(200, b"\x1f\x8b", Content_Encoding="gzip")


def _no_json(handler: Any) -> None:
    handler.reply(200, b"<html>")


def _array(handler: Any) -> None:
    handler.reply(200, b"[]")


def _deep(handler: Any) -> None:
    handler.reply(200, b'{"nodes":' + b"[" * 100_000 + b"]" * 100_000 + b"}")


def _no_nodes(handler: Any) -> None:
    handler.reply(200, {"nodes": "all", "revision": 1, "cluster": "default", "digest": DIGEST})


def _bad_revision(handler: Any) -> None:
    handler.reply(200, {"nodes": [], "revision": -1, "cluster": "default", "digest": DIGEST})


def _no_http(handler: Any) -> None:
    handler.wfile.write(b"SSH-2.0-OpenSSH_9.2\r\n")


def _break_off(handler: Any) -> None:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{")


def _silence(handler: Any) -> None:
    time.sleep(3 * TIMEOUT)


def _drip(handler: Any) -> None:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
    for _ in range(100):
        handler.wfile.write(b" ")
        time.sleep(0.1 * TIMEOUT)


def _flood(handler: Any) -> None:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\n\r\n")
    for _ in range(10_000):
        handler.wfile.write(b" " * 65536)


@pytest.mark.parametrize(
    ("misbehave", "reason"),
    [
        (_refuse, "answered 401 unauthorized (a token is needed)"),
        (_deny, "answered 403 forbidden (GET /v1/nodes needs the right read)"),
        (_redirect, "answered 302"),
        (_compress, "content encoding"),
        (_no_json, "not an agent's answer"),
        (_array, "expected a JSON object, got list"),
        (_deep, "nested deeper"),
        (_no_nodes, "nodes: expected a list, got str"),
        (_bad_revision, "revision: expected a number"),
        (_no_http, ""),
        (_break_off, ""),
        (_silence, f"no complete answer within {TIMEOUT:g} s"),
        (_drip, f"no complete answer within {TIMEOUT:g} s"),
        (_flood, "the answer is longer than"),
    ],
)
def test_whatever_a_member_does_the_next_one_is_asked_and_the_reason_is_told(
    bad: Scripted,
    good: Scripted,
    collections: Path,
    misbehave: Callable[[Any], None],
    reason: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_member, "MAX_ANSWER", 1 << 20)
    bad.misbehave = misbehave
    with Source(collections, endpoints=[bad.url, good.url], timeout=TIMEOUT, initial=True) as source:
        assert source.next("join", seconds=10)["endpoint"] == good.url
    with Source(collections, endpoints=[bad.url], timeout=TIMEOUT, settle=0) as source:
        (attempt,) = source.next("fleet_unreachable", seconds=10)["attempts"]
        assert attempt["endpoint"] == bad.url
        assert reason in attempt["reason"]
        assert attempt["reason"]


def test_a_wrong_token_is_named_as_such_and_one_is_never_sent_by_a_redirect(
    bad: Scripted, good: Scripted, collections: Path
) -> None:
    bad.misbehave = lambda handler: handler.reply(307, b"", Location=good.url + "/v1/nodes?state=all")
    with Source(collections, endpoints=[bad.url], token="a-secret", settle=0) as source:
        source.next("fleet_unreachable")
    assert bad.headers["Authorization"] == "Bearer a-secret"
    assert good.asked == []
    bad.misbehave = _refuse
    with Source(collections, endpoints=[bad.url], token="a-secret", settle=0) as source:
        event = source.next("fleet_unreachable")
    assert "the token was refused" in event["attempts"][0]["reason"]
    assert "a-secret" not in str(event)


def test_a_replaced_token_is_used_without_a_restart(good: Scripted, collections: Path, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("old\n")

    def check(handler: Any) -> None:
        if handler.headers["Authorization"] != "Bearer new":
            _refuse(handler)
        else:
            good.misbehave = None
            handler.reply(503, {"error": {"code": "busy", "message": "once more"}})

    good.misbehave = check
    with Source(collections, endpoints=[good.url], token_file=str(token), settle=0) as source:
        source.next("fleet_unreachable")
        token.write_text("new\n")
        source.next("fleet_reachable")


def test_while_nobody_answers_attempts_become_rare(bad: Scripted, collections: Path) -> None:
    bad.misbehave = _refuse
    with Source(collections, endpoints=[bad.url], settle=0) as source:
        source.next("fleet_unreachable")
        began = time.monotonic()
        _until(lambda: len(bad.asked) >= 5, 60.0)
        took = time.monotonic() - began
    # Pauses of half a second, one, two and four, each less up to a half for chance.
    assert took > 0.5 * (1 + 2)


def test_a_member_whose_feed_fails_at_once_is_not_asked_in_a_tight_loop(bad: Scripted, collections: Path) -> None:
    def fail(handler: Any) -> None:
        bad.misbehave = None
        try:
            if handler.path.startswith("/v1/watch"):
                handler.reply(500, b"")
            else:
                handler.do_GET()
        finally:
            bad.misbehave = fail

    bad.misbehave = fail
    with Source(collections, endpoints=[bad.url]) as source:
        assert source.rest(3.0) == []
    assert bad.count("/v1/watch") <= 6


def test_a_feed_that_rings_all_the_time_is_looked_at_five_times_a_second(good: Scripted, collections: Path) -> None:
    with Source(collections, endpoints=[good.url]) as source:
        began, deadline = time.monotonic(), time.monotonic() + 60.0
        before = good.count("/v1/nodes")
        while good.count("/v1/nodes") < before + 8:
            assert time.monotonic() < deadline, "it does not look"
            good.revision += 1
            time.sleep(0.001)
        took = time.monotonic() - began
        assert source.rest(0.1) == []
    # Eight looks are seven pauses between them. The first may have been under way, and so may the last.
    assert took > 6 * 0.2


def test_a_member_that_served_in_between_is_asked_again_at_once(good: Scripted, collections: Path) -> None:
    def fail_once(handler: Any) -> None:
        good.misbehave = None
        handler.reply(500, b"")

    with Source(collections, endpoints=[good.url]) as source:
        # Pauses that grew would be above the patience of this loop from the eighth on.
        for number in range(1, 13):
            _until(lambda number=number: good.count("/v1/watch") == number)
            good.misbehave = fail_once
            good.revision += 1
        assert source.rest(0.1) == []


def test_short_silence_is_not_told(good: Scripted, collections: Path) -> None:
    with Source(collections, endpoints=[good.url], settle=20) as source:
        _until(lambda: good.count("/v1/watch") == 1)
        good.misbehave = _refuse
        good.revision += 1
        _until(lambda: good.count("/v1/nodes") >= 3)
        good.misbehave = None
        good.change([node(11, local=True), node(12)])
        assert source.next()["type"] == "join"


def test_what_changed_while_nobody_answered_is_told_afterwards(good: Scripted, collections: Path) -> None:
    good.nodes = [node(11, local=True), node(12), node(13)]
    with Source(collections, endpoints=[good.url], settle=0) as source:
        _until(lambda: good.count("/v1/watch") == 1)
        good.misbehave = _refuse
        good.revision += 1
        source.next("fleet_unreachable")
        # Another run of the agent: its revisions have nothing to do with the earlier ones.
        good.revision = 5
        good.nodes = [node(11, local=True, incarnation=2), node(12, "dead"), node(14)]
        good.misbehave = None
        told = [source.next()["type"] for _ in range(4)]
        assert told == ["fleet_reachable", "update", "dead", "join"]
        assert source.rest(1.0) == []  # and .13, which is not listed, is not taken for dead


def document(clock: int, key: str = "app", **fields: Any) -> dict[str, Any]:
    """A document's description as the API gives it."""
    return {"key": key, "version": f"{clock:016x}@198.18.0.11:8000", "digest": "sha256:" + "0" * 64, **fields}


def test_a_gap_in_the_feed_loses_nothing(good: Scripted, collections: Path) -> None:
    good.documents = [document(1, "kept"), document(1, "changed"), document(1, "deleted")]
    with Source(collections, endpoints=[good.url]) as source:
        _until(lambda: good.count("/v1/watch") == 1)
        good.documents = [document(1, "kept"), document(2, "changed"), document(1, "new")]
        good.nodes = [node(11, local=True), node(12)]
        good.revision = good.oldest = 90_000
        told = {(event["type"], event.get("document", {}).get("key")) for event in source.rest(2.0)}
    assert told == {
        ("join", None),
        ("document_changed", "changed"),
        ("document_changed", "new"),
        ("document_deleted", "deleted"),
    }


def test_a_deletion_is_told_at_once_when_the_feed_has_it(good: Scripted, collections: Path) -> None:
    good.documents = [document(1), document(1, "lagging")]
    good.converged = False
    with Source(collections, endpoints=[good.url]) as source:
        _until(lambda: good.count("/v1/watch") == 1)
        good.documents = []
        tombstone = document(2, deleted=True)
        good.changes = [{"revision": good.revision + 1, "kind": "document", "event": "deleted", "document": tombstone}]
        good.revision += 1
        event = source.next("document_deleted")
        assert event["document"]["version"] == tombstone["version"]
        assert source.rest(1.0) == []  # the other is only missing here, until all agree
        good.converged = True
        assert source.next("document_deleted")["document"]["key"] == "lagging"


def test_a_refusal_is_told_once(good: Scripted, collections: Path) -> None:
    refusal = {
        "key": "app",
        "version": document(2)["version"],
        "reason": "no {{ signature }}",
        "from": "198.18.0.12:8000",
    }
    with Source(collections, endpoints=[good.url]) as source:
        _until(lambda: good.count("/v1/watch") == 1)
        good.changes = [{"revision": good.revision + 1, "kind": "refusal", "event": "refused", "refusal": refusal}]
        good.revision += 1
        event = source.next()
        assert (event["type"], event["endpoint"], event["initial"]) == ("document_refused", good.url, False)
        assert event["refusal"] == {**refusal, "reason": ""} and event["withheld"] == ["refusal.reason"]
        assert event["cluster"] == "default"
        good.revision += 1
        assert source.rest(1.0) == []


def test_a_member_of_another_cluster_is_refused(bad: Scripted, good: Scripted, collections: Path) -> None:
    bad.cluster = "another"
    bad.nodes = []
    with Source(collections, endpoints=[good.url, bad.url], settle=0) as source:
        _until(lambda: good.count("/v1/watch") == 1)
        good.misbehave = _refuse
        good.revision += 1
        reasons = str(source.next("fleet_unreachable")["attempts"])
    assert "expected a member of cluster 'default', got one of 'another'" in reasons


def test_a_member_that_has_left_is_not_believed(bad: Scripted, good: Scripted, collections: Path) -> None:
    bad.nodes = [node(11, "left", local=True), node(12, "dead")]
    with Source(collections, endpoints=[bad.url, good.url], initial=True) as source:
        assert source.next("join")["endpoint"] == good.url


def test_an_isolated_member_is_left_for_the_next_one(bad: Scripted, good: Scripted, collections: Path) -> None:
    bad.isolated = True
    bad.nodes = [node(11, local=True), node(12, "dead")]
    with Source(collections, endpoints=[bad.url, good.url], initial=True) as source:
        assert source.next("join")["endpoint"] == good.url


def test_malformed_nodes_are_left_out_and_the_others_told(good: Scripted, collections: Path) -> None:
    good.nodes = [node(11, local=True), node(12, name=["x"]), "text", node(13, addr="nowhere"), node(14)]
    with Source(collections, endpoints=[good.url], initial=True) as source:
        assert [source.next("join")["node"]["addr"] for _ in range(2)] == ["198.18.0.11", "198.18.0.14"]


def test_templates_in_names_and_data_do_not_reach_the_rules(good: Scripted, collections: Path) -> None:
    good.nodes = [node(12, name="{{ lookup('pipe', 'id') }}", private_data="{% set x = 1 %}")]
    with Source(collections, endpoints=[good.url], initial=True) as source:
        event = source.next("join")
    assert (event["node"]["name"], event["node"]["private_data"]) == ("", "")
    assert event["withheld"] == ["node.name", "node.private_data"]
    assert "{{" not in str(event)


def test_no_proxy_and_no_netrc_are_used(
    good: Scripted, collections: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login a password b\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    with Source(collections, endpoints=[good.url], initial=True) as source:
        source.next("join")
    assert "Authorization" not in good.headers


def test_a_wrong_argument_ends_the_source_with_a_reason(collections: Path) -> None:
    with Source(collections, endpoint="http://127.0.0.1:1") as source:
        source.join()
    assert "endpoint: expected one of the arguments" in str(source.error)


def test_cancelling_ends_the_source_and_is_passed_on(good: Scripted, collections: Path) -> None:
    with Source(collections, endpoints=[good.url]) as source:
        _until(lambda: good.count("/v1/watch") == 1)
        source.cancel()
        source.join()
    assert type(source.error).__name__ == "CancelledError"


def test_outside_an_installed_collection_the_plugin_says_what_it_needs(collections: Path) -> None:
    root = Path(__file__).resolve().parents[2]
    file = root / "extensions" / "eda" / "plugins" / "event_source" / "membership.py"
    with Source(collections, file=file) as source:
        source.join()
    assert "expected to be installed as part of the collection xdp_gossip.fleet" in str(source.error)


def test_nobody_listens(collections: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        endpoints = [url, "unix:///nowhere/api.sock"]
        with Source(collections, endpoints=endpoints, settle=0) as source:
            attempts = source.next("fleet_unreachable")["attempts"]
    assert [attempt["endpoint"] for attempt in attempts] == endpoints
    assert attempts[0]["reason"] == "Connection refused"
    assert attempts[1]["reason"] == "No such file or directory"


def _until(holds: Callable[[], bool], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + patient(seconds)
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)
