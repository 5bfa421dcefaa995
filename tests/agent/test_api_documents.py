# SPDX-License-Identifier: MIT
"""Documents over HTTP: values, entity tags, compare-and-set, tombstones, history, limits."""

from __future__ import annotations

import asyncio
import base64
import hashlib
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from api_harness import serving
from fake_node_list import FakeNodeList

from xdp_gossip.core.types import Document
from xdp_gossip.node.shapes import published_at


def run(tmp_path: Path, test: Any, **options: Any) -> FakeNodeList:
    """Run ``test(api, fake)`` against a served API."""

    async def main() -> FakeNodeList:
        fake = FakeNodeList()
        async with serving(fake, tmp_path, **options) as (api, _server):
            await test(api, fake)
        return fake

    return asyncio.run(main())


def test_a_document_goes_in_and_comes_out(tmp_path: Path) -> None:
    async def test(api: Any, fake: Any) -> None:
        value = bytes(range(256))
        put = await api(
            "PUT", "/v1/documents/app/db.yml", params="content_type=yaml&author=ops&comment=first", body=value
        )
        assert put.status == 200
        written = put.json
        assert written["changed"] is True
        assert written["previous_version"] is None
        assert written["digest"] == f"sha256:{hashlib.sha256(value).hexdigest()}"
        assert (written["author"], written["comment"], written["size"]) == ("user:root", "[ops] first", 256)

        got = await api("GET", "/v1/documents/app/db.yml")
        assert got.body == value
        assert got.headers["ETag"] == f'"{written["version"]}"'
        assert got.headers["X-XDP-Gossip-Digest"] == written["digest"]
        assert got.headers["Content-Type"] == "application/yaml"
        assert got.headers["X-Content-Type-Options"] == "nosniff"

        as_json = (await api("GET", "/v1/documents/app/db.yml", params="format=json")).json
        assert base64.b64decode(as_json["value_base64"]) == value

        head = await api("HEAD", "/v1/documents/app/db.yml")
        assert head.status == 200
        assert head.headers["Content-Length"] == "256"
        assert head.body == b""

    run(tmp_path, test)


def test_publishing_the_same_again_changes_nothing(tmp_path: Path) -> None:
    async def test(api: Any, fake: Any) -> None:
        first = (await api("PUT", "/v1/documents/a", body=b"x")).json
        second = (await api("PUT", "/v1/documents/a", body=b"x")).json
        assert second["changed"] is False
        assert second["version"] == first["version"]
        assert second["previous_version"] == first["version"]

    run(tmp_path, test)


def test_entity_tags_save_the_transfer(tmp_path: Path) -> None:
    async def test(api: Any, fake: Any) -> None:
        await api("PUT", "/v1/documents/a", body=b"x")
        for path in ("/v1/documents/a", "/v1/documents"):
            etag = (await api("GET", path)).headers["ETag"]
            for known in (etag, "*", f'"other", {etag}'):
                answer = await api("GET", path, headers={"If-None-Match": known})
                assert (answer.status, answer.body) == (304, b"")
                assert answer.headers["ETag"] == etag
            assert (await api("GET", path, headers={"If-None-Match": '"other"'})).status == 200
            assert (await api("GET", path, headers={"If-None-Match": "no quotes"})).code == "invalid_header"
        await api("PUT", "/v1/documents/a", body=b"y")
        assert (await api("GET", "/v1/documents/a", headers={"If-None-Match": etag})).status == 200

    run(tmp_path, test)


def test_compare_and_set(tmp_path: Path) -> None:
    async def test(api: Any, fake: Any) -> None:
        put = "/v1/documents/a"
        assert (await api("PUT", put, body=b"0", headers={"If-Match": "*"})).status == 412
        first = (await api("PUT", put, body=b"1", headers={"If-None-Match": "*"})).json["version"]
        refused = await api("PUT", put, body=b"2", headers={"If-None-Match": "*"})
        assert (refused.status, refused.code) == (412, "version_mismatch")
        assert refused.json["error"]["actual"] == first

        second = (await api("PUT", put, body=b"2", headers={"If-Match": f'"{first}"'})).json["version"]
        refused = await api("PUT", put, body=b"3", headers={"If-Match": f'"{first}"'})
        assert refused.status == 412
        assert refused.json["error"]["expected"] == first
        assert refused.json["error"]["actual"] == second
        assert fake.read("a") == b"2"

        assert (await api("PUT", put, body=b"3", headers={"If-Match": "*"})).status == 200
        assert (await api("DELETE", put, headers={"If-Match": f'"{second}"'})).status == 412
        assert fake.read("a") == b"3"

    run(tmp_path, test)


@pytest.mark.parametrize(
    "headers",
    [
        {"If-Match": "17"},
        {"If-Match": '"nonsense"'},
        {"If-Match": 'W/"0000000000000001@1.2.3.4:5"'},
        {"If-Match": '"0000000000000001@1.2.3.4:5", "0000000000000002@1.2.3.4:5"'},
        {"If-None-Match": '"0000000000000001@1.2.3.4:5"'},
        {"If-Match": "*", "If-None-Match": "*"},
    ],
)
def test_a_condition_that_makes_no_sense_is_refused(tmp_path: Path, headers: dict[str, str]) -> None:
    async def test(api: Any, fake: Any) -> None:
        await api("PUT", "/v1/documents/a", body=b"1")
        answer = await api("PUT", "/v1/documents/a", body=b"2", headers=headers)
        assert answer.status == 400
        assert fake.read("a") == b"1"

    run(tmp_path, test)


def test_delete_leaves_a_tombstone_and_a_history(tmp_path: Path) -> None:
    async def test(api: Any, fake: Any) -> None:
        assert (await api("DELETE", "/v1/documents/a")).json == {
            "key": "a",
            "version": None,
            "changed": False,
            "previous_version": None,
        }
        assert (await api("GET", "/v1/history/a")).status == 404
        first = (await api("PUT", "/v1/documents/a", body=b"1")).json
        deleted = (await api("DELETE", "/v1/documents/a", params="author=me&comment=why")).json
        assert (deleted["deleted"], deleted["changed"]) == (True, True)
        assert (deleted["author"], deleted["comment"]) == ("user:root", "[me] why")
        assert (await api("DELETE", "/v1/documents/a", params="comment=%0a")).status == 400
        assert deleted["previous_version"] == first["version"]
        assert (await api("DELETE", "/v1/documents/a")).json["changed"] is False

        gone = await api("GET", "/v1/documents/a")
        assert (gone.status, gone.code) == (404, "document_not_found")
        assert (await api("GET", "/v1/documents")).json["documents"] == []

        history = (await api("GET", "/v1/history/a", params="values=1")).json
        assert [entry["deleted"] for entry in history["versions"]] == [True, False]
        assert base64.b64decode(history["versions"][1]["value_base64"]) == b"1"
        assert "value_base64" not in (await api("GET", "/v1/history/a")).json["versions"][1]

    run(tmp_path, test)


@pytest.mark.parametrize(
    "key", ["default", "a/b/c", "ключ", "with space", "100%", "a?b#c", "a&b=c", "%2e", "q\"uote'", "…/🚀"]
)
def test_any_good_key_survives_the_path(tmp_path: Path, key: str) -> None:
    async def test(api: Any, fake: Any) -> None:
        for safe in ("/", ""):  # a slash may be encoded or not
            answer = await api("PUT", f"/v1/documents/{quote(key, safe=safe)}", body=key.encode())
            assert answer.json["key"] == key
        assert (await api("GET", f"/v1/documents/{quote(key)}")).body == key.encode()
        assert (await api("GET", "/v1/documents")).json["documents"][0]["key"] == key
        assert list(fake.held) == [key]

    run(tmp_path, test)


@pytest.mark.parametrize(
    "path", ["a//b", "/a", "a/", "a/./b", "a/../b", "..", "%00", "a%0Ab", "%ff", "%ed%a0%80", "k" * 513]
)
def test_a_bad_key_is_refused(tmp_path: Path, path: str) -> None:
    async def test(api: Any, fake: Any) -> None:
        answer = await api("PUT", f"/v1/documents/{path}", body=b"x")
        assert (answer.status, answer.code) == (400, "invalid_key")
        assert fake.held == {}

    run(tmp_path, test)


@pytest.mark.slow
def test_a_document_over_the_limit_is_refused(tmp_path: Path) -> None:
    async def endless(size: int) -> Any:
        for _ in range(size // 1024):
            yield b"x" * 1024

    async def test(api: Any, fake: Any) -> None:
        assert (await api("PUT", "/v1/documents/a", body=b"x" * 4096)).status == 200
        for body in (b"x" * 4097, endless(1 << 20)):
            answer = await api("PUT", "/v1/documents/b", body=body)
            assert (answer.status, answer.code) == (413, "document_too_large")
            assert answer.json["error"]["limit"] == 4096
        assert list(fake.held) == ["a"]

    run(tmp_path, test, max_document=4096)


def test_compressed_bodies_are_refused(tmp_path: Path) -> None:
    async def test(api: Any, fake: Any) -> None:
        answer = await api("PUT", "/v1/documents/a", body=b"x", headers={"Content-Encoding": "gzip"})
        assert answer.status in (400, 415)
        assert fake.held == {}

    run(tmp_path, test)


@pytest.mark.parametrize(
    "params",
    [
        "content_type=a%20b",
        "content_type=",
        "content_type=a/b/c",
        "author=%0a",
        "comment=" + "x" * 1025,
        "autor=x",
        "author=a&author=b",
    ],
)
def test_bad_attributes_are_refused(tmp_path: Path, params: str) -> None:
    async def test(api: Any, fake: Any) -> None:
        assert (await api("PUT", "/v1/documents/a", params=params, body=b"x")).status == 400
        assert fake.held == {}

    run(tmp_path, test)


def test_the_prefix_selects(tmp_path: Path) -> None:
    async def test(api: Any, fake: Any) -> None:
        for key in ("app/a", "app/b", "web/a"):
            await api("PUT", f"/v1/documents/{key}", body=b"x")
        found = (await api("GET", "/v1/documents", params="prefix=app/")).json["documents"]
        assert [entry["key"] for entry in found] == ["app/a", "app/b"]
        assert (await api("GET", "/v1/documents", params="prefix=" + "x" * 513)).status == 400

    run(tmp_path, test)


def test_large_histories_come_without_the_values_that_do_not_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("xdp_gossip.api.documents.MAX_HISTORY_VALUES", 10)

    async def test(api: Any, fake: Any) -> None:
        for value in (b"1" * 6, b"2" * 6, b"3" * 4):
            await api("PUT", "/v1/documents/a", body=value)
        versions = (await api("GET", "/v1/history/a", params="values=1")).json["versions"]
        assert [entry["value_base64"] is None for entry in versions] == [False, False, True]

    run(tmp_path, test)


def test_a_stored_content_type_cannot_forge_a_header(tmp_path: Path) -> None:
    async def test(api: Any, fake: Any) -> None:
        await api("PUT", "/v1/documents/a", body=b"x")
        held = fake.held["a"][0]
        fake.held["a"][0] = Document(held.key, held.version, held.value, "text/html\r\nX-Evil: 1")
        answer = await api("GET", "/v1/documents/a")
        assert answer.headers["Content-Type"] == "application/octet-stream"
        assert "X-Evil" not in answer.headers

    run(tmp_path, test)


@pytest.mark.parametrize(
    ("milliseconds", "text"),
    [
        (0, "1970-01-01T00:00:00.000Z"),
        (1_700_000_000_123, "2023-11-14T22:13:20.123Z"),
        (2**48 - 1, "9999-12-31T23:59:59.999Z"),
    ],
)
def test_published_at_for_any_clock(milliseconds: int, text: str) -> None:
    assert published_at(milliseconds) == text
