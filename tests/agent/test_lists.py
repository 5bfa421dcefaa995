# SPDX-License-Identifier: MIT
"""What lists and cheap calls cost, and pages, entity tags and compression of lists."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any, Callable

import aiohttp
import aiohttp.test_utils
import pytest
from api_harness import TOKEN, Api, serving, serving_tcp
from fake_node_list import FakeNodeList
from pekonode_net import Net
from test_api_real import eventually

from tests.support.agents import cluster
from xdp_gossip import AsyncNodeList
from xdp_gossip.api import lists
from xdp_gossip.api.access import Access
from xdp_gossip.api.audit import Audit
from xdp_gossip.api.client import Client
from xdp_gossip.api.context import Context
from xdp_gossip.api.streams import Streams
from xdp_gossip.core.sealed import Recipient, make_head
from xdp_gossip.core.types import Address, Document, Member, Record, State, Version
from xdp_gossip.node import shapes

NODES = 23


def real(tmp_path: Path, test: Callable[[Api, AsyncNodeList], Any]) -> None:
    """Run ``test`` against the API of a real node list."""

    async def main() -> None:
        async with cluster(1) as made, serving(made[0], tmp_path) as (api, _):
            await test(api, made[0])

    asyncio.run(main())


def crowd() -> FakeNodeList:
    fake = FakeNodeList()
    states = (State.ALIVE, State.SUSPECT, State.DEAD)
    fake.others = [
        Member(Address(f"198.18.{number % 3}.{100 - number}", 8000 + number), states[number % 3], 1, 2, None, 0.5, 0)
        for number in range(NODES)
    ]
    return fake


def faked(tmp_path: Path, fake: FakeNodeList, test: Callable[[Api, FakeNodeList], Any]) -> None:
    async def main() -> None:
        async with serving(fake, tmp_path) as (api, _):
            await test(api, fake)

    asyncio.run(main())


def test_cheap_calls_look_at_no_node_and_no_document(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(api: Api, made: AsyncNodeList) -> None:
        await made.publish(b"v", "a/b")
        tags = {path: (await api("GET", path)).headers["ETag"] for path in ("/v1/nodes", "/v1/documents")}
        runtime = made._runtime
        assert runtime is not None
        with monkeypatch.context() as patched:
            for name in ("members", "members_after"):
                patched.setattr(runtime.engine, name, None)
            patched.setattr(runtime.engine.documents, "live", None)
            assert (await api("GET", "/v1/health")).json == {"status": "ok"}
            assert (await api("GET", "/v1/node")).json["local"]
            status = (await api("GET", "/v1/status")).json
            assert (status["documents"], status["document_bytes"], status["members"]["alive"]) == (1, 1, 1)
            assert made.summary() == "running: 1 alive, 0 suspect, 1 documents"
            for path, tag in tags.items():
                assert (await api("GET", path, headers={"If-None-Match": tag})).status == 304
            assert made.state() == "running"
            patched.setattr(made, "status", None)
            assert (await api("POST", "/v1/node/stop")).json == {"state": "paused", "changed": True}
            assert (await api("GET", "/v1/health")).status == 503
            assert made.state() == "paused"

    real(tmp_path, test)


def test_each_change_of_documents_or_of_the_local_node_changes_the_tags(tmp_path: Path) -> None:
    async def test(api: Api, made: AsyncNodeList) -> None:
        async def tags() -> tuple[str, str]:
            nodes, documents = await api("GET", "/v1/nodes"), await api("GET", "/v1/documents")
            return nodes.headers["ETag"], documents.headers["ETag"]

        seen = {await tags()}
        await made.publish(b"1", "a")
        seen.add(await tags())
        await made.publish(b"2", "a")
        seen.add(await tags())
        await made.delete("a")
        seen.add(await tags())
        assert len(seen) == len({nodes for nodes, _ in seen}) == len({documents for _, documents in seen}) == 4
        made.update_node("another")
        nodes, documents = await tags()
        assert nodes not in {each for each, _ in seen} and documents in {each for _, each in seen}
        found = {(await api("GET", "/v1/documents", params=p)).headers["ETag"] for p in ("", "prefix=a", "limit=1")}
        found |= {(await api("GET", "/v1/documents", params=p)).headers["ETag"] for p in ("limit=2", "cursor=a")}
        assert len(found) == 5

    real(tmp_path, test)


@pytest.mark.parametrize("seed", range(5))
def test_the_revision_on_pekonodes_wire(seed: int) -> None:
    net = Net(seed, loss=0.2)
    engines = net.cluster(4, cycle=1.0)
    seen: dict[tuple[int, int], tuple[Member, ...]] = {}
    rng = random.Random(seed)
    for _ in range(400):
        net.run(rng.uniform(0.01, 0.5))
        if rng.random() < 0.1:
            engine = rng.choice(engines)
            rng.choice((engine.pause, engine.resume, engine.leave, engine.resume))(net.now)
        if rng.random() < 0.1:
            engine = rng.choice(engines)
            engine.update_node(net.now, private_data=str(rng.random()))
        if rng.random() < 0.1:
            rng.choice(engines).documents.publish("default", str(rng.random()).encode(), net.now)
        for number, engine in enumerate(engines):
            members = engine.members(net.now)
            shown = tuple(replace(member, sequence=0, last_heard=0.0) for member in members[1:])
            assert seen.setdefault((number, engine.revision), shown) == shown
            for place, member in enumerate(members[1:], 1):
                assert list(engine.members_after(member.address, net.now)) == members[place + 1 :]
    assert len(seen) > 50


def test_pages_of_nodes(tmp_path: Path) -> None:
    async def test(api: Api, fake: FakeNodeList) -> None:
        whole = (await api("GET", "/v1/nodes")).json
        assert whole["next_cursor"] is None
        addresses = [(node["addr"], node["port"]) for node in whole["nodes"]]
        assert len(addresses) == 17 and any(node["local"] for node in whole["nodes"])
        found, params = [], "limit=5"
        for count in (5, 5, 5, 2):
            page = (await api("GET", "/v1/nodes", params=params)).json
            assert len(page["nodes"]) == count
            found += page["nodes"]
            params = f"limit=5&cursor={page['next_cursor']}"
        assert page["next_cursor"] is None and found == whole["nodes"]
        # A page of nothing but the rest, exactly.
        page = (await api("GET", "/v1/nodes", params="limit=17")).json
        assert (len(page["nodes"]), page["next_cursor"]) == (17, None)

    faked(tmp_path, crowd(), test)


def test_pages_of_a_node_list() -> None:
    async def main() -> None:
        async with cluster(4) as made:

            async def met() -> bool:
                return len(made[2].members()) == 4

            await eventually(met)
            whole = made[2].page()
            assert sorted(member.address for member in made[2].members()) == [member.address for member in whole]
            assert sum(member.local for member in whole) == 1
            pages = [made[2].page(None, after, 1)[0] for after in (None, *(member.address for member in whole[:-1]))]
            assert [member.address for member in pages] == [member.address for member in whole]
            assert made[2].page(None, whole[-1].address) == made[2].page(frozenset({State.DEAD})) == []
            assert made[2].page(None, zones=frozenset({"paris"})) == []
            assert [each.address for each in made[2].page(None, zones=frozenset({""}))] == [m.address for m in whole]
            for bad in ("paris", {1}, 7):
                with pytest.raises(TypeError, match=r"zones: expected (a set of zones|text)"):
                    made[2].page(None, zones=bad)  # type: ignore[arg-type]

    asyncio.run(main())


def test_pages_of_documents_stay_true_while_others_write(tmp_path: Path) -> None:
    async def test(api: Api, made: AsyncNodeList) -> None:
        for number in range(10):
            await made.publish(b"v", f"app/{number}")
        await made.publish(b"v", "other")
        first = (await api("GET", "/v1/documents", params="prefix=app/&limit=4")).json
        assert [entry["key"] for entry in first["documents"]] == [f"app/{number}" for number in range(4)]
        assert first["next_cursor"] == "app/3"
        # The cursor names a place, not a document: that may be gone, and others may have come.
        await made.delete("app/3")
        await made.delete("app/5")
        await made.publish(b"v", "app/0.5")
        await made.publish(b"v", "app/3.5")
        second = (await api("GET", "/v1/documents", params="prefix=app/&limit=4&cursor=app/3")).json
        assert [entry["key"] for entry in second["documents"]] == ["app/3.5", "app/4", "app/6", "app/7"]
        last = (await api("GET", "/v1/documents", params="prefix=app/&limit=4&cursor=app/7")).json
        assert [entry["key"] for entry in last["documents"]] == ["app/8", "app/9"] and last["next_cursor"] is None
        beyond = (await api("GET", "/v1/documents", params="prefix=app/&cursor=zzz")).json
        assert (beyond["documents"], beyond["next_cursor"]) == ([], None)

    real(tmp_path, test)


def test_limits_and_cursors_that_cannot_be_are_refused(tmp_path: Path) -> None:
    async def test(api: Api, fake: FakeNodeList) -> None:
        for path in ("/v1/nodes", "/v1/documents"):
            for bad in ("limit=0", "limit=10001", "limit=-1", "limit=x", "limit=1&limit=2", "cursor=" + "x" * 513):
                answer = await api("GET", path, params=bad)
                assert answer.status == 400 and bad[:5] in answer.body.decode(), bad
        assert "cursor: expected ADDRESS:PORT" in (await api("GET", "/v1/nodes", params="cursor=x")).body.decode()

    faked(tmp_path, crowd(), test)


def test_lists_are_compressed_for_who_takes_that_and_documents_never(tmp_path: Path) -> None:
    async def main() -> None:
        fake = crowd()
        await fake.publish(b"secret" * 100, "a/b", content_type="raw")
        async with serving_tcp(fake) as (_, _, where), aiohttp.ClientSession(auto_decompress=False) as session:
            headers = {"Authorization": f"Bearer {TOKEN}"}

            async def ask(path: str, accepted: str | None) -> tuple[str | None, bytes]:
                chosen = {**headers, **({} if accepted is None else {"Accept-Encoding": accepted})}
                skip = ["Accept-Encoding"] if accepted is None else []
                url = f"http://{where}{path}"
                async with session.get(url, headers=chosen, skip_auto_headers=skip) as answer:
                    assert answer.status == 200, await answer.read()
                    return answer.headers.get("Content-Encoding"), await answer.read()

            plain = json.loads((await ask("/v1/nodes", "identity"))[1])
            for accepted in ("gzip", "br, gzip;q=0.5", "*", "GZIP"):
                coding, body = await ask("/v1/nodes", accepted)
                assert coding == "gzip" and json.loads(gzip.decompress(body)) == plain, accepted
            for accepted in (None, "identity", "br", "gzip;q=0", "gzip; q=0.0, *", "", "*;q=0"):
                coding, body = await ask("/v1/nodes", accepted)
                assert coding is None and json.loads(body) == plain, accepted
            assert (await ask("/v1/documents", "gzip"))[0] == "gzip"
            held = "/v1/documents/a/b"
            for path in (held, f"{held}?format=json", "/v1/history/a/b?values=1", "/v1/status"):
                assert (await ask(path, "gzip"))[0] is None, path
            async with Client(f"http://{where}", token=TOKEN) as client:
                assert (await client.nodes())["nodes"] == plain["nodes"]

    asyncio.run(main())


def test_others_have_their_turn_while_a_long_list_is_written(tmp_path: Path) -> None:
    """Counted in turns of the loop, not in seconds."""

    async def main() -> None:
        turns = 0

        async def count() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        task = asyncio.ensure_future(count())
        request = aiohttp.test_utils.make_mocked_request("GET", "/", headers={"Accept-Encoding": "gzip"})
        numbers = list(range(10_000))
        answer = await lists.answer(request, "numbers", numbers, lambda number: {"number": number}, {"more": 1}, {})
        task.cancel()
        assert isinstance(answer.body, bytes)
        assert json.loads(gzip.decompress(answer.body)) == {"numbers": [{"number": n} for n in numbers], "more": 1}
        assert turns >= 40

    asyncio.run(main())


def test_the_client_reads_page_by_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("xdp_gossip.api.client._PAGE", 4)

    async def main() -> None:
        fake = crowd()
        for number in range(9):
            await fake.publish(b"v", f"app/{number}", content_type="raw")
        async with serving_tcp(fake) as (_, _, where), Client(f"http://{where}", token=TOKEN) as client:
            assert [node async for node in client.each_node("all")] == (await client.nodes("all"))["nodes"]
            odd = [replace(member, record=Record(zone="odd")) for member in fake.others[1::2]]
            fake.others[1::2] = odd
            found = [node async for node in client.each_node("all", zone="odd")]
            assert len(found) == len(odd) > 8 and all(node["zone"] == "odd" for node in found)
            assert found == (await client.nodes("all", zone="odd"))["nodes"]
            keys = [document["key"] async for document in client.each_document("app/")]
            assert keys == [f"app/{number}" for number in range(9)]
            assert [document async for document in client.each_document("none")] == []

    asyncio.run(main())


def envelope(recipients: int) -> bytes:
    """A sealed document with this number of recipients; nobody can open it."""
    names = (Recipient(f"host{number}", hashlib.sha256(b"%d" % number).digest()) for number in range(recipients))
    return make_head("raw", tuple(names)) + bytes(recipients * 80 + 64 + 16)


def test_recipients_delay_no_other_task_and_stay_in_no_memory(tmp_path: Path) -> None:
    """Whoever may publish decides how many recipients a document names; a list or a stream must not wait for all."""

    def document(number: int, recipients: int) -> Document:
        version = Version(1 << 40, Address("198.18.0.1", 8000))
        return Document(f"d/{number:03}", version, envelope(recipients), content_type="sealed")

    def shape(value: Document) -> dict[str, Any]:
        return shapes.document(value, None)

    many = [document(number, 200) for number in range(8)]
    assert [len(part) for part in lists._slices(many, shape)] == [2, 2, 2, 2]
    assert [len(part) for part in lists._slices([document(n, 1) for n in range(300)], shape)] == [125, 125, 50]
    plain = [{"key": str(number), "sealed": None} for number in range(600)]
    assert [len(part) for part in lists._slices(plain, dict)] == [250, 250, 100]
    assert all("sealed" not in vars(each) for each in many), "a parsed envelope is not kept"

    async def test(api: Api, fake: FakeNodeList) -> None:
        for number in range(20):
            await fake.publish(envelope(1024), f"d/{number:02}", content_type="sealed")
        listed = (await api("GET", "/v1/documents")).json["documents"]
        assert [len(each["sealed"]["recipients"]) for each in listed] == [1024] * 20
        watched = (await api("GET", "/v1/watch", params="since=1")).json["changes"]
        assert [each["document"] for each in watched] == listed
        streams = Streams(Context(fake, Access("x" * 32), Audit({}), True, 1 << 20))  # type: ignore[arg-type]
        for number in range(100):
            text = streams._text(replace(fake.log[number % 20], revision=number))
            assert sum(map(len, streams._texts.values())) <= 4 << 20 and len(text) > 50_000
        assert 1 < len(streams._texts) < 100

    faked(tmp_path, FakeNodeList(), test)
