# SPDX-License-Identifier: MIT
"""A document keeps its type, and with it its check, when a writer does not say one (docs/protocol.md, "Documents")."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from api_harness import serving
from test_core_documents import EPOCH, Alone, now_at

from tests.support.agents import agent, cluster
from tests.support.process import AgentProcess
from xdp_gossip import ProtocolError
from xdp_gossip.core.types import TypeChanged, Write
from xdp_gossip.worker.contents import Contents


@pytest.mark.parametrize(
    ("key", "suffix", "content_type"),
    [
        ("app/a.json", "", "json"),
        ("app/a.YAML", "", "yaml"),
        ("app/a.yml", ".json", "yaml"),
        ("app/a.txt", "", "text"),
        ("app/a", ".yml", "yaml"),
        ("app/a.conf", ".json", "json"),
        ("app.json/a", "", "raw"),
        ("app/.json", "", "raw"),
        ("app/json", ".conf", "raw"),
    ],
)
def test_the_type_of_a_new_document(key: str, suffix: str, content_type: str) -> None:
    assert Alone().write(key, EPOCH, suffix=suffix).content_type == content_type
    assert Alone().write(key, EPOCH, suffix=suffix, content_type="raw").content_type == "raw"


def test_a_type_is_kept_until_another_is_said_or_the_document_is_deleted() -> None:
    alone = Alone()

    def write(value: bytes, **fields: Any) -> str:
        [(document, _)] = alone.metadata.publish_many([Write("a.json", value, **fields)], now_at(EPOCH))
        assert document is not None
        return document.content_type

    assert write(b"1") == "json"
    assert write(b"2", content_type="yaml") == "yaml"
    assert write(b"3", suffix=".txt") == "yaml"
    alone.metadata.publish_many([Write("a.json", deleted=True)], now_at(EPOCH))
    assert write(b"4") == "json"
    [(_, changed)] = alone.metadata.publish_many([Write("a.json", b"4")], now_at(EPOCH))
    assert not changed


def test_no_value_is_held_under_a_type_that_it_was_not_checked_for() -> None:
    alone = Alone()
    alone.write("a", EPOCH, content_type="json")
    writes = [Write("a", b"{", checked_as="raw"), Write("b", b"1")]
    with pytest.raises(TypeChanged):
        alone.metadata.publish_many(writes, now_at(EPOCH))
    assert alone.table.get("b") is None


def test_a_type_that_changes_while_a_value_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two writers: the second one's value was checked as raw when the first one made JSON of the document."""
    real = Contents.check

    async def main() -> None:
        async with cluster(1) as [one]:
            first: list[Any] = [b"[1]"]

            async def check(self: Contents, key: str, value: bytes, content_type: str) -> None:
                await real(self, key, value, content_type)
                if first:
                    await one.publish(first.pop(), "k", content_type="json")

            monkeypatch.setattr(Contents, "check", check)
            with pytest.raises(ProtocolError, match=r"expected valid json.*type of the version held"):
                await one.publish(b"{", "k")
            assert one.read("k") == b"[1]"
            assert (await one.publish(b"{", "k", content_type="raw")).changed

    asyncio.run(main())


def test_the_type_is_kept_through_the_api(tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster(1) as lists, serving(lists[0], tmp_path) as (api, _):
            first = (await api("PUT", "/v1/documents/k", params="suffix=.yml", body=b"a: 1")).json
            assert first["content_type"] == "yaml"
            refused = await api("PUT", "/v1/documents/k", body=b"a: [1")
            assert (refused.status, refused.code) == (400, "invalid_content")
            batch = {"documents": [{"key": "k", "value": "a: [1"}, {"key": "l.json", "value": "1"}]}
            assert (await api("POST", "/v1/documents", json_body=batch)).code == "invalid_content"
            batch["documents"][0]["value"] = "a: [1]"
            written = (await api("POST", "/v1/documents", json_body=batch)).json["documents"]
            assert [one["content_type"] for one in written] == ["yaml", "json"]
            await api("PUT", "/v1/documents/k", params="content_type=raw", body=b"a: [1")
            back = (await api("POST", "/v1/rollback/k", json_body={"version": first["version"]})).json
            assert back["content_type"] == "yaml"

    asyncio.run(main())


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with agent(tmp_path_factory.mktemp("types") / "a") as found:
        yield found


@pytest.mark.slow
def test_the_suffix_of_a_file_counts(running: AgentProcess, tmp_path: Path) -> None:
    (tmp_path / "app.json").write_text("[1]", encoding="utf-8")
    (tmp_path / "broken.yaml").write_text("a: [1", encoding="utf-8")
    (tmp_path / ("odd." + "x" * 100)).write_text("x", encoding="utf-8")
    assert running.json("publish", "app", "--file", str(tmp_path / "app.json"))["content_type"] == "json"
    refused = running.command("publish", "other", "--file", str(tmp_path / "broken.yaml"))
    assert refused.returncode != 0 and b"expected valid yaml" in refused.stderr
    odd = running.json("publish", "odd", "--file", str(tmp_path / ("odd." + "x" * 100)))
    assert odd["content_type"] == "raw"
