# SPDX-License-Identifier: MIT
"""Nodes, status, waits and eGossip's verbs over HTTP; and that the OpenAPI file says what is served."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import pytest
from api_harness import OPERATIONS, SPEC, serving, serving_tcp
from fake_node_list import Convergence, FakeNodeList

from xdp_gossip.api.app import build_app
from xdp_gossip.common.internal_errors import RECORD
from xdp_gossip.core.interface import ProtocolError
from xdp_gossip.core.types import Address, Member, Node, Record, State
from xdp_gossip.nodelist import NotReadyError
from xdp_gossip.store.sqlite import StoreError


def run(tmp_path: Path, test: Any) -> FakeNodeList:
    """Run ``test(api, fake)`` against a served API."""

    async def main() -> FakeNodeList:
        fake = FakeNodeList()
        for number, state in enumerate(State, 12):
            fake.others.append(Member(Address(f"198.18.0.{number}", 8000), state, 1, 2, None, 3.25, 0))
        async with serving(fake, tmp_path) as (api, _server):
            await test(api, fake)
        return fake

    return asyncio.run(main())


def routes_of(*, local: bool) -> set[tuple[str, str]]:
    """(method, path) of everything served."""

    async def main() -> set[tuple[str, str]]:
        app = build_app(FakeNodeList(), local=local, token=None if local else "x" * 16)  # type: ignore[arg-type]
        return {
            (route.method, route.resource.canonical)
            for route in app.router.routes()
            if route.resource is not None and route.method != "HEAD"
        }

    return asyncio.run(main())


def test_what_is_served_is_what_is_described() -> None:
    assert routes_of(local=True) == set(OPERATIONS)
    assert set(OPERATIONS) - routes_of(local=False) == {("GET", "/stop"), ("GET", "/start")}


def test_the_description_is_sound() -> None:
    names = [operation["operationId"] for operation in OPERATIONS.values()]
    assert len(names) == len(set(names))
    text = str(SPEC)
    for reference in re.findall(r"#/components/([A-Za-z]+)/([A-Za-z0-9]+)", text):
        assert reference[1] in SPEC["components"][reference[0]]
    used = {name for kind, name in re.findall(r"#/components/(schemas)/([A-Za-z0-9]+)", text)}
    assert used == set(SPEC["components"]["schemas"])


def test_the_description_is_served(tmp_path: Path) -> None:
    async def test(api: Any, fake: Any) -> None:
        answer = await api("GET", "/v1/openapi.yaml")
        assert answer.headers["Content-Type"].startswith("application/yaml")
        assert b"openapi: 3.0.3" in answer.body

    run(tmp_path, test)


def test_an_api_without_authentication_is_not_built() -> None:
    for token in (None, ""):
        with pytest.raises(ValueError, match="expected a token"):
            build_app(FakeNodeList(), token=token)  # type: ignore[arg-type]


def test_nodes_by_state(tmp_path: Path) -> None:
    async def test(api: Any, fake: Any) -> None:
        def states(answer: Any) -> list[str]:
            return [node["state"] for node in answer.json["nodes"]]

        assert states(await api("GET", "/v1/nodes")) == ["alive", "alive", "suspect"]
        assert states(await api("GET", "/v1/nodes", params="state=all")) == [
            "alive",
            "alive",
            "suspect",
            "dead",
            "left",
            "agent_down",
        ]
        assert states(await api("GET", "/v1/nodes", params="state=dead,left")) == ["dead", "left"]
        for bad in ("state=", "state=alive,", "state=ALIVE", "state=all,dead", "stat=all", "state=dead&state=left"):
            assert (await api("GET", "/v1/nodes", params=bad)).status == 400
        local = (await api("GET", "/v1/nodes")).json["nodes"][0]
        assert local["local"] is True
        assert (local["last_heard"], local["name"], local["record_known"]) == (0.0, "host1", True)

    run(tmp_path, test)


def test_nodes_by_zone(tmp_path: Path) -> None:
    async def test(api: Any, fake: Any) -> None:
        zones = ("paris", "paris", "lyon", "a b", "größe")
        fake.others = [
            Member(Address(f"198.18.0.{number}", 8000), state, 1, 2, Record(f"n{number}", zone=zone), 3.25, 0)
            for number, (state, zone) in enumerate(zip(State, zones), 12)
        ]

        async def names(params: str) -> list[str]:
            answer = await api("GET", "/v1/nodes", params=params)
            assert answer.status == 200
            return [node["name"] for node in answer.json["nodes"]]

        assert await names("zone=paris") == ["n12", "n13"]
        assert await names("zone=lyon") == [] and await names("zone=lyon&state=all") == ["n14"]
        assert await names("zone=paris,lyon&state=all") == ["n12", "n13", "n14"]
        assert await names("zone=&state=all") == ["host1"]
        assert await names("zone=,lyon&state=all") == ["host1", "n14"]
        assert await names("zone=a%20b,gr%C3%B6%C3%9Fe&state=all") == ["n15", "n16"]
        assert await names("zone=nowhere&state=all") == []
        for bad in ("zone=a&zone=b", f"zone={'x' * 65}", f"zone=a,{'%C3%B6' * 33}"):
            assert (await api("GET", "/v1/nodes", params=bad)).status == 400
        # A page of the nodes of a zone, and the next one.
        first = (await api("GET", "/v1/nodes", params="zone=paris&limit=1")).json
        assert [node["name"] for node in first["nodes"]] == ["n12"]
        rest = (await api("GET", "/v1/nodes", params=f"zone=paris&limit=1&cursor={first['next_cursor']}")).json
        assert [node["name"] for node in rest["nodes"]] == ["n13"] and rest["next_cursor"] is None
        tags = {(await api("GET", "/v1/nodes", params=f"{one}state=all")).headers["ETag"] for one in ("", "zone=&")}
        tags |= {
            (await api("GET", "/v1/nodes", params=f"zone={one}&state=all")).headers["ETag"] for one in ("a", "a,b")
        }
        assert len(tags) == 4

    run(tmp_path, test)


def test_heartbeats_do_not_change_the_entity_tag_and_news_does(tmp_path: Path) -> None:
    async def test(api: Any, fake: Any) -> None:
        etag = (await api("GET", "/v1/nodes")).headers["ETag"]
        before = fake.others[0]
        fake.others[0] = Member(before.address, before.state, 1, 99, None, 0.5, 0)
        assert (await api("GET", "/v1/nodes", headers={"If-None-Match": etag})).status == 304
        fake.others[0] = Member(before.address, State.SUSPECT, 1, 99, None, 9.5, 0)
        changed = await api("GET", "/v1/nodes", headers={"If-None-Match": etag})
        assert changed.status == 200
        await api("PUT", "/v1/documents/a", body=b"x")
        again = await api("GET", "/v1/nodes", headers={"If-None-Match": changed.headers["ETag"]})
        assert again.status == 200
        assert (await api("GET", "/v1/nodes", params="state=alive", headers={"If-None-Match": etag})).status == 200

    run(tmp_path, test)


@pytest.mark.slow
def test_the_local_node_changes(tmp_path: Path) -> None:
    async def test(api: Any, fake: Any) -> None:
        answer = await api("PATCH", "/v1/node", json_body={"private_data": "rack 2"})
        assert (answer.json["name"], answer.json["private_data"]) == ("host1", "rack 2")
        assert (await api("GET", "/v1/node")).json == answer.json
        for bad in (
            {},
            [],
            "x",
            {"name": 1},
            {"name": None},
            {"addr": "1.2.3.4"},
            {"name": "x" * 256},
            {"private_data": "x" * 4097},
        ):
            assert (await api("PATCH", "/v1/node", json_body=bad)).status == 400
        for raw in (b"", b"{", b'{"name":"a","name":"b"}', b'{"name":NaN}', b"\xff", b"[" * 100_000):
            assert (await api("PATCH", "/v1/node", body=raw)).code == "invalid_json"
        assert (await api("PATCH", "/v1/node", body=b" " * (1 << 20) + b" ")).status == 413
        assert fake.record.private_data == "rack 2"

    run(tmp_path, test)


def test_join_takes_addresses(tmp_path: Path) -> None:
    async def test(api: Any, fake: Any) -> None:
        nodes = ["198.18.0.99:8000", "[fd00::1]:8000", "198.18.0.11:8000", "198.18.0.99:8000"]
        assert (await api("POST", "/v1/node/join", json_body={"nodes": nodes})).json == {"added": 2}
        assert fake.seeds == [Node("198.18.0.99", 8000), Node("fd00::1", 8000)]
        groups = [["224.0.0.1:1"], ["0.0.0.0:1"], ["[::]:1"], ["1.2.3.4:5", "255.255.255.255:1"]]
        others = ([], ["host:1"], ["1.2.3.4"], ["1.2.3.4:0"], [8000], "1.2.3.4:5", None, ["1.2.3.4:5"] * 1001)
        for bad in (*groups, *others):
            assert (await api("POST", "/v1/node/join", json_body={"nodes": bad})).status == 400
        assert len(fake.seeds) == 2

    run(tmp_path, test)


def test_stop_start_leave_and_health(tmp_path: Path) -> None:
    async def test(api: Any, fake: Any) -> None:
        assert (await api("GET", "/v1/health")).json == {"status": "ok"}
        assert (await api("POST", "/v1/node/stop")).json == {"state": "paused", "changed": True}
        assert (await api("POST", "/v1/node/stop")).json == {"state": "paused", "changed": False}
        sick = await api("GET", "/v1/health")
        assert (sick.status, sick.json) == (503, {"status": "stopped"})
        assert (await api("POST", "/v1/node/start")).json == {"state": "running", "changed": True}
        assert (await api("POST", "/v1/node/leave", body=b"x")).status == 413
        assert (await api("POST", "/v1/node/leave")).json == {"state": "left", "changed": True}
        assert (await api("GET", "/v1/status")).json["state"] == "left"

    run(tmp_path, test)


def test_before_the_node_list_is_ready(tmp_path: Path) -> None:
    async def test(api: Any, fake: Any) -> None:
        fake.unready = NotReadyError("join() first")
        answer = await api("GET", "/v1/health")
        assert (answer.status, answer.json) == (503, {"status": "starting"})
        for path in ("/v1/status", "/v1/nodes", "/list"):
            assert (await api("GET", path)).code == "not_ready"

    run(tmp_path, test)


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (ProtocolError("document_too_large", "too large", limit=3), 413, "document_too_large"),
        (ProtocolError("unsupported_key", "PekoNode has one document"), 400, "unsupported_key"),
        (ProtocolError("too_many_documents", "enough"), 409, "too_many_documents"),
        (ProtocolError("left", "this node has left"), 409, "left"),
        (StoreError("disk full"), 503, "storage_failed"),
    ],
)
def test_refusals_of_the_layers_below(tmp_path: Path, error: Exception, status: int, code: str) -> None:
    async def test(api: Any, fake: Any) -> None:
        fake.fail = error
        answer = await api("PUT", "/v1/documents/a", body=b"x")
        assert (answer.status, answer.code) == (status, code)
        assert fake.held == {}

    run(tmp_path, test)


def test_a_fault_inside_is_logged_and_not_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def test(api: Any, fake: Any) -> None:
        fake.fail = ZeroDivisionError("secret detail")
        async with api.session.put("http://localhost/v1/documents/a", data=b"x") as response:
            assert response.status == 500
            text = await response.text()
        assert "internal_error" in text
        assert "secret detail" not in text
        assert "Traceback" not in text
        assert (await api("GET", "/v1/health")).status == 200

    run(tmp_path, test)
    assert "secret detail" in caplog.text
    assert [(found.task, found.count) for found in RECORD.clear()] == [("API request", 1)]


def test_what_is_not_there_and_what_is_not_allowed(tmp_path: Path) -> None:
    async def test(api: Any, fake: Any) -> None:
        assert (await api("GET", "/v2")).code == "not_found"
        assert (await api("GET", "/v1/documents/")).status == 404
        answer = await api("DELETE", "/v1/nodes")
        assert (answer.status, answer.code) == (405, "method_not_allowed")
        assert answer.json["error"]["allowed"] == ["GET", "HEAD"]
        assert answer.headers["Allow"] == "GET, HEAD"
        for path in ("/v1/status", "/v1/keys", "/v1/metrics", "/v1/health", "/list", "/metadata"):
            assert (await api("GET", path, params="x=1")).status in (400, 503)

    run(tmp_path, test)


def test_keys_and_metrics(tmp_path: Path) -> None:
    async def test(api: Any, fake: Any) -> None:
        assert (await api("GET", "/v1/keys")).json == {
            "keys": [{"id": 0x13, "fingerprint": "1396a4c4ce1c8b1f", "state": "active"}]
        }
        text = (await api("GET", "/v1/metrics")).body.decode()
        assert 'xdp_gossip_members{state="alive"} 2.0' in text
        assert 'xdp_gossip_events_total{name="rx_packets"} 3.0' in text

    run(tmp_path, test)


def test_watch_waits_for_news(tmp_path: Path) -> None:
    async def test(api: Any, fake: Any) -> None:
        waiting = asyncio.ensure_future(api("GET", "/v1/watch", params="timeout=10&prefix=app/"))
        await asyncio.sleep(0.1)
        await api("PUT", "/v1/documents/other", body=b"x")
        await asyncio.sleep(0.1)
        assert not waiting.done()
        await api("PUT", "/v1/documents/app/a", body=b"x")
        answer = (await asyncio.wait_for(waiting, 5)).json
        assert [change["document"]["key"] for change in answer["changes"]] == ["app/a"]
        later = (await api("GET", "/v1/watch", params=f"since={answer['revision']}&timeout=0")).json
        assert later == {"revision": answer["revision"], "gap": False, "changes": []}
        both = (await api("GET", "/v1/watch", params="since=0&timeout=0")).json
        assert len(both["changes"]) == 2
        for bad in (
            "since=-1",
            "since=x",
            "since=1e3",
            "timeout=61",
            "timeout=nan",
            "timeout=-1",
            "timeout=inf",
            "x=1",
        ):
            assert (await api("GET", "/v1/watch", params=bad)).status == 400

    run(tmp_path, test)


def test_too_many_waiting_requests_are_turned_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("xdp_gossip.api.context.MAX_WAITING", 2)

    async def test(api: Any, fake: Any) -> None:
        waiting = [asyncio.ensure_future(api("GET", "/v1/watch", params="timeout=10")) for _ in range(2)]
        await asyncio.sleep(0.2)
        refused = await api("GET", "/v1/watch", params="timeout=10")
        assert (refused.status, refused.code, refused.headers["Retry-After"]) == (503, "busy", "1")
        await api("PUT", "/v1/documents/a", body=b"x")
        await asyncio.gather(*waiting)
        assert (await api("GET", "/v1/watch", params="timeout=0")).status == 200

    run(tmp_path, test)


def test_waiting_requests_end_when_the_agent_closes(tmp_path: Path) -> None:
    async def main() -> None:
        fake = FakeNodeList()
        async with serving(fake, tmp_path) as (api, server):
            waiting = asyncio.ensure_future(api("GET", "/v1/watch", params="timeout=60"))
            await asyncio.sleep(0.1)
            await asyncio.wait_for(server.close(), 5)
            answer = await waiting
            assert (answer.status, answer.code) == (503, "shutting_down")

    asyncio.run(main())


def test_convergence_passes_the_question_on(tmp_path: Path) -> None:
    async def test(api: Any, fake: Any) -> None:
        row = {
            "addr": "198.18.0.12",
            "port": 8000,
            "name": "b",
            "state": "alive",
            "holds": False,
            "version": None,
            "digest": None,
            "deleted": False,
            "reason": "no answer",
        }
        fake.answer = Convergence(False, 2, 1, 1.23456, "0" * 16, [row])
        answer = (await api("GET", "/v1/convergence", params="wait=majority&timeout=2")).json
        assert answer["results"] == [row]
        assert answer["elapsed"] == 1.235
        assert fake.asked == (None, None, None, "majority", 2.0, False)
        version = "0000000000000001@198.18.0.11:8000"
        digest = "sha256:" + "0" * 64
        await api("GET", "/v1/convergence", params=f"key=a/b&version={version}&digest={digest}&wait=3")
        assert (str(fake.asked[1]), *fake.asked[2:4]) == (version, digest, 3)
        await api("GET", "/v1/convergence", params=f"key=a/b&version={version}&deleted=1")
        assert (str(fake.asked[1]), fake.asked[5]) == (version, True)
        for bad in (
            f"version={version}",
            "deleted=1",
            "key=a&deleted=yes",
            f"key=a&deleted=1&digest={digest}",
            "digest=abc",
            "key=a&digest=" + "0" * 16,
            "wait=0",
            "wait=most",
            "key=",
            "timeout=61",
        ):
            assert (await api("GET", "/v1/convergence", params=bad)).status == 400, bad

    run(tmp_path, test)


def test_egossip_verbs(tmp_path: Path) -> None:
    async def test(api: Any, fake: Any) -> None:
        listed = (await api("GET", "/list")).json
        assert listed[0] == {"Addr": "198.18.0.11", "Port": 8000, "Name": "host1", "PrivateData": "rack 1"}
        node = {"Addr": "198.18.0.50", "Port": 8000, "Name": "n", "PrivateData": "p", "Mac": "00:00:00:00:00:00"}
        assert (await api("POST", "/set", json_body=node)).json == {"added": 1}
        assert (await api("POST", "/set", json_body=[node, {**node, "Port": 7777}])).json == {"added": 2}
        assert fake.seeds[-1] == Node("198.18.0.50", 7777, "n", "p")
        seeds = list(fake.seeds)
        for bad in (
            {},
            [],
            [1],
            {"Addr": "1.2.3.4"},
            {"Port": "8000"},
            {"Port": 8000, "addr": "x"},
            {"Port": 0},
            {"Addr": "host", "Port": 1},
            {"Port": 7777},  # 0.0.0.0, as in PekoNode: this host, where other nodes than its own are not
            {"Addr": "224.0.0.1", "Port": 1},
            [{**node, "Port": 1}, {"Addr": "::", "Port": 1}],
        ):
            assert (await api("POST", "/set", json_body=bad)).status == 400
        assert fake.seeds == seeds
        assert (await api("GET", "/metadata")).body == b""
        assert (await api("POST", "/publish", body=b"test metadata")).json["key"] == "default"
        assert (await api("GET", "/metadata")).body == b"test metadata"
        for method in ("GET", "POST"):
            assert (await api(method, "/stop")).json == {"state": "paused", "changed": True}
            assert (await api(method, "/start")).json == {"state": "running", "changed": True}
        assert (await api("HEAD", "/stop")).status == 405
        assert fake.state() == "running"

    run(tmp_path, test)


def test_tcp_wants_the_token_and_no_state_changing_get() -> None:
    async def main() -> None:
        fake = FakeNodeList()
        async with serving_tcp(fake) as (api, _server, _where):
            assert (await api("GET", "/v1/status")).status == 200
            assert (await api("POST", "/stop")).json["changed"] is True
            for path in ("/start", "/stop"):
                assert (await api("GET", path)).code == "method_not_allowed"
            assert fake.state() == "paused"
        async with serving_tcp(fake, token=None) as (api, _server, _where):
            assert (await api("GET", "/v1/health")).status == 503
            for header in (
                "",
                "Bearer",
                "Bearer x",
                "Basic a-token-of-the-tests",
                "Bearer a-token-of-the-testsX",
                "Bearer ü",
            ):
                for method, path in (
                    ("GET", "/v1/status"),
                    ("PUT", "/v1/documents/a"),
                    ("GET", "/nowhere"),
                    ("POST", "/start"),
                ):
                    answer = await api(method, path, headers={"Authorization": header} if header else None)
                    assert (answer.status, answer.code) == (401, "unauthorized")
                    assert answer.headers["WWW-Authenticate"] == "Bearer"
            assert (
                await api("GET", "/v1/status", headers={"Authorization": "bearer a-token-of-the-tests"})
            ).status == 200
            assert fake.held == {}
            assert fake.state() == "paused"

    asyncio.run(main())
