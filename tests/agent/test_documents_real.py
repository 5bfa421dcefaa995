# SPDX-License-Identifier: MIT
"""Batches, expiry, rollback, contents and repair through the API of real node lists on loopback."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from api_harness import Api, serving
from test_api_real import eventually

from tests.support.agents import cluster
from xdp_gossip.core.interface import ProtocolError
from xdp_gossip.worker import content


def body(**members: Any) -> bytes:
    return json.dumps(members).encode()


async def post(api: Api, path: str, **members: Any) -> Any:
    return await api("POST", path, body=body(**members), headers={"Content-Type": "application/json"})


def test_several_documents_in_one_request(tmp_path: Path) -> None:
    async def main() -> None:
        for name in ("a", "b"):
            (tmp_path / name).mkdir()
        async with (
            cluster(2) as lists,
            serving(lists[0], tmp_path / "a") as (first, _),
            serving(lists[1], tmp_path / "b") as (second, _),
        ):
            documents = [
                {"key": "app/a", "value": "größer", "content_type": "text"},
                {"key": "app/b", "value_base64": "AAE=", "expires_in": 3600},
                {"key": "app/never", "delete": True},
            ]
            answer = (await post(first, "/v1/documents", documents=documents, author="me", comment="why")).json
            assert answer["changed"] and [entry["changed"] for entry in answer["documents"]] == [True, True, False]
            assert {entry["version"] for entry in answer["documents"][:2]} == {answer["version"]}
            assert [entry.get("batch_size") for entry in answer["documents"]] == [2, 2, None]
            one = (await first("GET", "/v1/documents/app/b", params="format=json")).json
            assert (one["batch_size"], one["batch"]) == (2, ["app/a", "app/b"])
            assert answer["documents"][0]["expires"] is None and answer["documents"][1]["expires"]
            assert (answer["documents"][0]["author"], answer["documents"][0]["comment"]) == ("user:root", "[me] why")

            async def arrived() -> bool:
                return (await second("GET", "/v1/documents/app/b")).status == 200

            await eventually(arrived)
            assert (await second("GET", "/v1/documents/app/a")).body == "größer".encode()

            again = (await post(first, "/v1/documents", documents=documents[:1])).json
            assert (again["changed"], again["version"]) == (False, None)

            # One comparison that fails, and nothing is written.
            documents = [
                {"key": "app/c", "value": "1"},
                {"key": "app/a", "value": "2", "if_version": "0000000000000005@127.0.0.1:1"},
            ]
            refused = await post(first, "/v1/documents", documents=documents)
            assert (refused.status, refused.code) == (412, "version_mismatch")
            assert refused.json["error"]["key"] == "app/a"
            assert refused.json["error"]["actual"] == answer["version"]
            assert (await first("GET", "/v1/documents/app/c")).status == 404
            assert (await post(first, "/v1/repair")).json["asked"] in (0, 1)

    asyncio.run(main())


def test_lists_do_not_name_a_batch_with_each_document(tmp_path: Path) -> None:
    """What each document adds to a list depends on it alone, not on how many it was written with."""

    async def main() -> None:
        async with cluster(1) as lists, serving(lists[0], tmp_path) as (api, _):
            sizes = {}
            for count in (2, 64):
                since = lists[0].revision
                documents = [{"key": f"{count}/{number:050d}", "value": "x"} for number in range(count)]
                answer = await post(api, "/v1/documents", documents=documents)
                listed = await api("GET", "/v1/documents", params=f"prefix={count}/")
                watched = await api("GET", "/v1/watch", params=f"since={since}&timeout=0")
                history = await api("GET", f"/v1/history/{count}/{0:050d}", params="values=1")
                assert len(listed.json["documents"]) == len(watched.json["changes"]) == count
                assert {entry["batch_size"] for entry in listed.json["documents"]} == {count}
                sizes[count] = [len(one.body) / count for one in (answer, listed, watched)] + [len(history.body)]
            for few, many in zip(sizes[2], sizes[64]):
                assert many < few + 20

    asyncio.run(main())


@pytest.mark.parametrize(
    ("documents", "where"),
    [
        ([], "documents:"),
        ("x", "documents:"),
        ([{"key": "a"}], "documents[0].value:"),
        ([{"key": "a", "value": "1"}, 5], "documents[1]:"),
        ([{"key": "a/../b", "value": "1"}], "documents[0].key:"),
        ([{"key": "a", "value": "1", "value_base64": "AA=="}], "documents[0].value:"),
        ([{"key": "a", "value_base64": "?"}], "documents[0].value_base64:"),
        ([{"key": "a", "value": "1", "if_version": "5"}], "documents[0].if_version:"),
        ([{"key": "a", "value": "1", "expires_in": "5"}], "documents[0].expires_in:"),
        ([{"key": "a", "value": "1", "if_absent": 1}], "documents[0].if_absent:"),
        ([{"key": "a", "value": "1", "ttl": 1}], "documents[0]:"),
        ([{"key": "a", "value": "1", "expires_in": -1}], "expires_in:"),
        ([{"key": "a", "value": "{", "content_type": "json"}], "line 1, column 2"),
        ([{"key": "a", "value": "1"}, {"key": "a", "value": "2"}], "'a': expected each key once"),
    ],
)
def test_a_batch_that_makes_no_sense_is_told_where(tmp_path: Path, documents: Any, where: str) -> None:
    async def main() -> None:
        async with cluster(1) as lists, serving(lists[0], tmp_path) as (api, _):
            refused = await post(api, "/v1/documents", documents=documents)
            assert refused.status == 400 and where in refused.json["error"]["message"]
            assert (await api("GET", "/v1/documents")).json["documents"] == []

    asyncio.run(main())


def test_rollback_and_differences(tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster(1) as lists, serving(lists[0], tmp_path) as (api, _):
            first = (await api("PUT", "/v1/documents/k", params="content_type=text", body=b"one\n")).json
            second = (await api("PUT", "/v1/documents/k", params="content_type=text", body=b"two\n")).json
            gone = (await api("DELETE", "/v1/documents/k", params="author=me&comment=why")).json
            assert (gone["author"], gone["comment"], gone["content_type"]) == ("user:root", "[me] why", "raw")
            for wanted, value in ((first, b"one\n"), (second, b"two\n")):
                old = await api("GET", "/v1/documents/k", params=f"version={wanted['version']}")
                assert (old.body, old.headers["ETag"]) == (value, f'"{wanted["version"]}"')
            old = await api("GET", "/v1/documents/k", params=f"format=json&version={first['version']}")
            assert (old.json["version"], old.json["comment"], old.json["size"]) == (first["version"], "", 4)
            refused = await api("GET", "/v1/documents/k", params=f"version={gone['version']}")
            assert (refused.status, refused.code, refused.json["error"]["comment"]) == (
                410,
                "version_deleted",
                "[me] why",
            )
            refused = await api("GET", "/v1/documents/k", params="version=0000000000000005@127.0.0.1:1")
            assert (refused.status, refused.code) == (404, "version_not_found")
            assert (await api("GET", "/v1/documents/k", params="version=5")).code == "invalid_version"
            back = await post(api, "/v1/rollback/k", version=first["version"], author="me")
            assert back.json["changed"] and back.json["comment"] == f"[me] rollback to {first['version']}"
            assert (await api("GET", "/v1/documents/k")).body == b"one\n"
            versions = (await api("GET", "/v1/history/k", params="diff=1")).json["versions"]
            assert [entry["deleted"] for entry in versions] == [False, True, False, False]
            assert "-one\n+two\n" in versions[2]["diff"] and first["version"] in versions[2]["diff"]
            assert "+one\n" in versions[3]["diff"]
            unknown = await post(api, "/v1/rollback/k", version="0000000000000005@127.0.0.1:1")
            assert (unknown.status, unknown.code) == (404, "version_not_found")
            stale = await api(
                "POST",
                "/v1/rollback/k",
                body=body(version=second["version"]),
                headers={"Content-Type": "application/json", "If-Match": f'"{first["version"]}"'},
            )
            assert (stale.status, stale.code) == (412, "version_mismatch")

    asyncio.run(main())


@pytest.mark.slow
def test_a_document_that_expires_is_gone_and_told_of(tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster(1) as lists, serving(lists[0], tmp_path) as (api, _):
            revision = lists[0].revision
            written = (await api("PUT", "/v1/documents/lease", params="expires_in=0.4", body=b"x")).json
            assert written["expires"]

            async def gone() -> bool:
                return (await api("GET", "/v1/documents/lease")).status == 404

            await eventually(gone)
            changes = (await api("GET", "/v1/watch", params=f"since={revision}&timeout=0")).json["changes"]
            assert [change["event"] for change in changes if change["kind"] == "document"] == ["published", "deleted"]
            assert (await api("PUT", "/v1/documents/l", params="expires_in=0", body=b"x")).status == 400

    asyncio.run(main())


@pytest.mark.slow
def test_a_rollback_ends_when_the_version_was_to_end(tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster(1) as lists, serving(lists[0], tmp_path) as (api, _):
            lease = (await api("PUT", "/v1/documents/k", params="expires_in=3600", body=b"lease")).json
            short = (await api("PUT", "/v1/documents/k", params="expires_in=0.3", body=b"short")).json
            await api("PUT", "/v1/documents/k", body=b"later")

            async def back(version: str, **more: Any) -> Any:
                return await post(api, "/v1/rollback/k", version=version, **more)

            assert (await back(lease["version"])).json["expires"] == lease["expires"]
            assert (await back(lease["version"])).json["changed"] is False
            assert (await back(lease["version"], expires_in=7200)).json["expires"] > lease["expires"]
            assert (await back(lease["version"], expires_in="never")).json["expires"] is None
            assert (await back(lease["version"], expires_in="ever")).status == 400
            assert (await back(lease["version"], expires_in=0)).status == 400

            async def over() -> bool:
                return (await back(short["version"])).status == 409

            await eventually(over)
            refused = await back(short["version"])
            assert refused.code == "version_expired" and "expires_in" in refused.json["error"]["message"]
            assert (await back(short["version"], expires_in="never")).json["expires"] is None
            assert (await api("GET", "/v1/documents/k")).body == b"short"

    asyncio.run(main())


def test_a_rollback_takes_what_would_be_refused_today(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A version that held before checks became stricter may be needed once more."""

    async def main() -> None:
        async with cluster(1) as [one]:
            with monkeypatch.context() as patch:
                patch.setattr(content, "check", lambda *_: None)
                former = (await one.publish(b'{"a": 1, "a": 2}', "k", content_type="json")).document
            await one.publish(b"{}", "k")
            assert former is not None
            assert (await one.rollback("k", former.version)).changed
            assert one.read("k") == former.value

    asyncio.run(main())


@pytest.mark.parametrize(
    ("content_type", "value", "reason"),
    [
        ("text", b"\xff", "byte 0 is not UTF-8"),
        ("json", b'{"a": }', "line 1, column 7"),
        ("json", b"NaN", "NaN is not JSON"),
        ("json", b"[" * 100_000, "nested too deeply"),
        ("yaml", b"a: [1\nb: 2", "line 2, column"),
        ("yaml", b"!!python/object:os.system {}", "could not determine a constructor"),
        ("yaml", b"a: 1\n---\nb: 2\n", "but found another document"),
    ],
)
def test_contents_are_what_their_type_says(content_type: str, value: bytes, reason: str) -> None:
    with pytest.raises(ProtocolError, match="expected valid") as refused:
        content.check("k", value, content_type)
    assert refused.value.code == "invalid_content" and reason in str(refused.value)


@pytest.mark.parametrize("content_type", ["raw", "application/json", "text", "json", "yaml"])
def test_good_contents(content_type: str) -> None:
    content.check("k", b'{"a": [1, "x"]}', content_type)


def test_differences_of_what_is_no_text_are_not_shown() -> None:
    assert content.diff(b"a\n", b"b", "old", "new") == (
        "--- old\n+++ new\n@@ -1 +1 @@\n-a\n+b\n\\ No newline at end of file\n"
    )
    assert content.diff(b"\0", b"b", "old", "new") is None
    assert content.diff(b"a", b"\xff", "old", "new") is None
    assert content.diff(b"a", b"b" * (content.MAX_DIFF + 1), "old", "new") is None
