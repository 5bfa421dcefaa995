# SPDX-License-Identifier: MIT
"""``/v1/watch`` as server-sent events: the text of it, and streams over a served API."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import socket
from collections.abc import AsyncIterator, Coroutine
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from api_harness import SPEC, TOKEN, inlined, serving, serving_tcp
from fake_node_list import FakeNodeList

from tests.support.agents import cluster
from tests.support.patience import patient
from xdp_gossip import AsyncNodeList
from xdp_gossip.api import eventstream, streams
from xdp_gossip.api.admission import Admission, Place
from xdp_gossip.api.client import ApiError, Client, Unreachable, WatchStream
from xdp_gossip.api.connection import GuardedProtocol
from xdp_gossip.api.eventstream import Event, Parser, encode, keep_alive
from xdp_gossip.node.changes import ChangeLog

ACCEPT = {"Accept": "text/event-stream"}
ENTRY = inlined(SPEC["components"]["schemas"]["Changes"]["properties"]["changes"]["items"])


def run(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(work, 60))


async def until(condition: Any, seconds: float = 10.0) -> None:
    deadline = asyncio.get_running_loop().time() + patient(seconds)
    while not condition():
        assert asyncio.get_running_loop().time() < deadline, "it never came true"
        await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def streaming(api: Any, params: str = "", headers: dict[str, str] | None = None) -> AsyncIterator[Any]:
    """An open stream: a function that returns its next event, None at its end; it checks the first changes."""
    async with api.session.get(f"{api.base}/v1/watch?{params}", headers={**ACCEPT, **(headers or {})}) as answer:
        assert answer.status == 200, await answer.text()
        assert answer.content_type == "text/event-stream"
        assert answer.headers["Cache-Control"] == "no-store"
        parser, waiting, unchecked = Parser(), [], 20

        async def following() -> Event | None:
            nonlocal unchecked
            while not waiting:
                piece = await asyncio.wait_for(answer.content.readany(), 20)
                if not piece:
                    return None
                waiting.extend(parser.feed(piece))
            event = waiting.pop(0)
            if event.name == "change" and unchecked:
                unchecked -= 1
                jsonschema.validate(json.loads(event.data), ENTRY)
            return event

        yield following


def key_of(event: Event | None) -> str:
    assert event is not None and event.name == "change"
    return str(json.loads(event.data)["document"]["key"])


# -- the text -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 2, 3, 1000])
def test_a_stream_is_read_the_same_however_it_is_cut(size: int) -> None:
    text = (
        b": a comment\n\nretry: 10\nevent: hello\ndata: {}\n\n"
        b"id: 7\r\nevent: change\r\ndata: one\r\ndata:two\r\n\r\n"
        b"data: \xc3\xbc\r\rid: 9\n\n:\nid\n\nevent: nothing\n\nunknown: x\ndata\n\n"
    )
    parser = Parser()
    found = [event for start in range(0, len(text), size) for event in parser.feed(text[start : start + size])]
    assert found == [
        Event("hello", "{}", None),
        Event("change", "one\ntwo", "7"),
        Event("message", "ü", None),
        Event("message", "", "9"),
        Event("message", "", ""),
        Event("message", "", None),
    ]


def test_what_is_written_can_be_read() -> None:
    parser = Parser()
    text = encode("change", b'{"a":1}', 12) + keep_alive(13) + encode("hello", b"{}")
    assert list(parser.feed(text)) == [
        Event("change", '{"a":1}', "12"),
        Event("message", "", "13"),
        Event("hello", "{}", None),
    ]


@pytest.mark.parametrize("piece", [b"x" * 1000, b"data: x\n" * 100])
def test_an_endless_event_is_refused(piece: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(eventstream, "MAX_EVENT", 5000)
    parser = Parser()
    with pytest.raises(ValueError, match="at most 5000 bytes"):
        for _ in range(20):
            list(parser.feed(piece))


# -- streams --------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_stream_tells_what_changes(tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster(1) as (node_list,), serving(node_list, tmp_path) as (api, _):
            since = node_list.revision
            async with (
                streaming(api) as every,
                streaming(api, "prefix=app/&kind=document") as some,
                streaming(api, "kind=node") as nodes,
            ):
                for stream in (every, some, nodes):
                    assert await stream() == Event("hello", f'{{"revision":{since}}}', str(since))
                await api("PUT", "/v1/documents/other", body=b"x")
                await api("PUT", "/v1/documents/app/%C3%BC%E2%80%A8", body=b"x")
                await api("PATCH", "/v1/node", json_body={"private_data": "line\nbreak"})
                await api("DELETE", "/v1/documents/other")
                assert [key_of(await every()), key_of(await every())] == ["other", "app/ü\u2028"]
                moved, gone = await every(), await every()
                assert json.loads(moved.data)["node"]["private_data"] == "line\nbreak"
                assert (json.loads(gone.data)["event"], gone.id) == ("deleted", str(since + 4))
                assert key_of(await some()) == "app/ü\u2028"
                assert await nodes() == moved

    run(main())


@pytest.mark.slow
def test_reconnecting_goes_on_where_it_was(tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster(1) as (node_list,), serving(node_list, tmp_path) as (api, _):
            start = node_list.revision
            for number in range(3):
                await api("PUT", f"/v1/documents/k{number}", body=b"x")
            # A browser repeats the address it began with; the header is what counts.
            for params, headers in ((f"since={start + 1}", {}), (f"since={start}", {"Last-Event-ID": str(start + 1)})):
                async with streaming(api, params, headers) as stream:
                    hello = await stream()
                    assert (hello.name, hello.id) == ("hello", str(start + 1))
                    assert [key_of(await stream()), key_of(await stream())] == ["k1", "k2"]
            # From before this agent's time, or after: everything has to be read again, once.
            for position in (start - 1, start + 1000, 0):
                async with streaming(api, f"since={position}") as stream:
                    hello, resync = await stream(), await stream()
                    # Who is cut off between the two must not take the first for a place to go on from.
                    assert (hello.name, hello.id) == ("hello", None)
                    assert (resync.name, resync.id) == ("resync", str(node_list.revision))
                    assert json.loads(resync.data) == {"revision": node_list.revision}
                    await api("PUT", "/v1/documents/later", body=str(position).encode())
                    assert key_of(await stream()) == "later"

    run(main())


def test_a_quiet_stream_shows_that_it_lives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "KEEP_ALIVE", 0.05)

    async def main() -> None:
        async with cluster(1) as (node_list,), serving(node_list, tmp_path) as (api, _):
            async with streaming(api, "prefix=app/&kind=document") as stream:
                await stream()
                await api("PUT", "/v1/documents/other", body=b"x")
                # What the filter holds back moves the place to go on from, or a later reconnect would be a gap.
                while (event := await stream()).id != str(node_list.revision):
                    assert (event.name, event.data) == ("message", "")

    run(main())


def test_streams_end_in_an_orderly_way_when_the_agent_closes(tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster(1) as (node_list,):
            async with serving(node_list, tmp_path) as (api, api_server):
                async with streaming(api) as first, streaming(api, "prefix=a") as second:
                    await first(), await second()
                    await asyncio.wait_for(api_server.close(), 10)
                    # The end of the body, not a broken connection.
                    assert [await first(), await second()] == [None, None]

    run(main())


def test_a_stream_ends_with_its_node_list(tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster(1) as (node_list,), serving(node_list, tmp_path) as (api, _):
            async with streaming(api) as stream:
                await stream()
                await node_list.close()
                while (event := await stream()) is not None:
                    assert event.data == ""
            answer = await api("GET", "/v1/watch", headers=ACCEPT)
            assert (answer.status, answer.code) == (503, "not_ready")

    run(main())


@pytest.mark.slow
def test_streams_are_bounded_and_a_place_is_free_as_soon_as_its_client_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("xdp_gossip.api.context.MAX_STREAMS", 2)

    async def main() -> None:
        async with cluster(1) as (node_list,), serving_tcp(node_list) as (api, _, where):

            async def counters() -> dict[str, int]:
                return dict((await api("GET", "/v1/status")).json["counters"])

            async with streaming(api) as one:
                await one()
                async with streaming(api) as two:
                    await two()
                    refused = await api("GET", "/v1/watch", headers=ACCEPT)
                    assert (refused.status, refused.code, refused.headers["Retry-After"]) == (503, "busy", "1")
                    # Streams and long polls have places of their own.
                    assert (await api("GET", "/v1/watch", params="timeout=0")).status == 200
            # Nothing happens that would be written to the clients: their places are free all the same.
            deadline = asyncio.get_running_loop().time() + 10
            for _ in range(6):
                while True:
                    async with api.session.get(f"http://{where}/v1/watch", headers=ACCEPT) as answer:
                        if answer.status == 200:
                            break
                    assert asyncio.get_running_loop().time() < deadline
                    await asyncio.sleep(0.02)
            found = await counters()
            assert found["api_streams_opened"] == 8
            assert found["api_streams_refused"] >= 1
            assert found["api_streams_stalled"] == 0

    run(main())


def test_an_abandoned_long_poll_gives_its_place_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("xdp_gossip.api.context.MAX_WAITING", 1)

    async def main() -> None:
        async with cluster(1) as (node_list,), serving(node_list, tmp_path) as (api, _):
            poll = asyncio.ensure_future(api("GET", "/v1/watch", params="timeout=60"))
            await until(lambda: node_list._log._waiting)
            poll.cancel()
            await asyncio.gather(poll, return_exceptions=True)
            await until(lambda: not node_list._log._waiting)
            assert (await api("GET", "/v1/watch", params="timeout=0")).status == 200

    run(main())


@pytest.mark.slow
def test_a_client_that_does_not_read_is_cut_off_and_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "STALLED", 2.0)

    async def main() -> None:
        counters: dict[str, int] = {}
        async with cluster(1) as (node_list,):
            app = streams_app(node_list, counters)
            async with serving(node_list, tmp_path, app=app) as (api, _), streaming(api) as healthy:
                await healthy()
                _reader, writer = await stalling(tmp_path)
                await until(lambda: counters["api_streams_opened"] == 2)
                document = (await node_list.publish(b"x", "k", comment="c" * 900)).document
                last = node_list.revision + 3000

                async def read_on() -> None:
                    while (await healthy()).id != str(last):
                        continue

                reading = asyncio.ensure_future(read_on())
                for number in range(3000):
                    node_list._log.add("document", "published", document)
                    if number % 100 == 0:
                        await asyncio.sleep(0.001)
                # The one is cut off, the other gets all of it.
                await until(lambda: counters["api_streams_stalled"] == 1, 20)
                await reading
                assert app["context"].streams.used == 1
                writer.close()

    run(main())


def streams_app(node_list: Any, counters: dict[str, int]) -> Any:
    """The API with its context at hand."""
    from xdp_gossip.api import app as app_module

    kept: list[Any] = []

    class Keeping(app_module.Context):
        def __post_init__(self) -> None:
            super().__post_init__()
            kept.append(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(app_module, "Context", Keeping)
        app = app_module.build_app(node_list, local=True, counters=counters)
    app["context"] = kept[0]
    return app


async def stalling(tmp_path: Path) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A client that asks for a stream and then reads nothing but what its reader's small buffer takes."""
    where = socket.socket(socket.AF_UNIX)
    where.setblocking(False)
    await asyncio.get_running_loop().sock_connect(where, str(tmp_path / "api.sock"))
    reader, writer = await asyncio.open_unix_connection(sock=where, limit=1024)
    writer.write(b"GET /v1/watch HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\n\r\n")
    return reader, writer


def test_a_stream_that_falls_behind_is_told_so(tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster(1) as (node_list,), serving(node_list, tmp_path) as (api, _):
            node_list._log = ChangeLog(node_list.revision, kept=16)
            async with streaming(api) as stream:
                await stream()
                document = (await node_list.publish(b"x", "first")).document
                for _ in range(40):  # all before the stream gets its turn
                    node_list._log.add("document", "published", document)
                last = node_list.revision
                event = await stream()
                while event.name != "resync":
                    event = await stream()
                # On from there without another word.
                await api("PUT", "/v1/documents/later", body=b"x")
                while key_of(event := await stream()) != "later":
                    continue
                assert int(event.id) > last

    run(main())


@pytest.mark.parametrize(
    ("params", "headers", "what"),
    [
        ("timeout=5", {}, "timeout: expected none"),
        ("kind=documents", {}, "kind: expected document or node"),
        ("since=x", {}, "since: expected"),
        ("", {"Last-Event-ID": "x"}, "Last-Event-ID: expected"),
        ("", {"Last-Event-ID": "-1"}, "Last-Event-ID: expected"),
        ("prefix=" + "x" * 600, {}, "prefix: expected"),
        ("x=1", {}, "query parameter"),
    ],
)
def test_wrong_questions_are_refused_before_the_stream_begins(
    tmp_path: Path, params: str, headers: dict[str, str], what: str
) -> None:
    async def main() -> None:
        async with serving(FakeNodeList(), tmp_path) as (api, _):
            answer = await api("GET", "/v1/watch", params=params, headers={**ACCEPT, **headers})
            assert answer.status == 400
            assert answer.json["error"]["message"].startswith(what)

    run(main())


def test_what_is_no_stream_and_who_may_have_one(tmp_path: Path) -> None:
    async def main() -> None:
        node_list = FakeNodeList()
        async with serving(node_list, tmp_path) as (api, _):
            for accept in ("*/*", "application/json", "text/*", ""):
                answer = await api("GET", "/v1/watch", params="timeout=0", headers={"Accept": accept})
                assert answer.json["changes"] == []
            async with streaming(api, headers={"Accept": "application/json;q=0.1, Text/Event-Stream;q=1"}) as stream:
                assert (await stream()).name == "hello"
            head = await asyncio.wait_for(api("HEAD", "/v1/watch", headers=ACCEPT), 5)
            assert (head.status, head.headers["Content-Type"]) == (200, "text/event-stream; charset=utf-8")
        async with serving_tcp(node_list, token="another") as (api, _, _where):
            assert (await api("GET", "/v1/watch", headers=ACCEPT)).status == 401
        unready = AsyncNodeList()
        async with serving(unready, tmp_path) as (api, _):
            answer = await api("GET", "/v1/watch", headers=ACCEPT)
            assert (answer.status, answer.code) == (503, "not_ready")

    run(main())


def test_the_kinds_of_a_long_poll(tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster(1) as (node_list,), serving(node_list, tmp_path) as (api, _):
            since = node_list.revision
            await api("PUT", "/v1/documents/a", body=b"x")
            await api("PATCH", "/v1/node", json_body={"private_data": "p"})
            for kind in ("document", "node"):
                found = (await api("GET", "/v1/watch", params=f"since={since}&kind={kind}&timeout=0")).json
                assert [change["kind"] for change in found["changes"]] == [kind]
                assert found["revision"] == since + 2
            assert (await api("GET", "/v1/watch", params="kind=both")).status == 400

    run(main())


# -- the client -----------------------------------------------------------------------------------------------------


def test_the_client_follows_and_goes_on_after_a_break(tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster(1) as (node_list,):
            async with serving_tcp(node_list) as (api, first_server, where):
                async with Client(f"http://{where}", token=TOKEN) as client:
                    stream = client.watch_stream("app/", kind="document")
                    following = asyncio.ensure_future(collect(stream))
                    await until(lambda: stream.connections)
                    start = node_list.revision
                    await api("PUT", "/v1/documents/other", body=b"x")
                    await api("PUT", "/v1/documents/app/a", body=b"x")
                    await until(lambda: stream.revision == start + 2)
                    # An agent that closes ends the iteration; it is no error.
                    await asyncio.wait_for(first_server.close(), 10)
                    assert keys(await following) == ["app/a"]
            await node_list.publish(b"missed?", "app/b")
            async with serving_tcp(node_list) as (api, _, where):
                async with Client(f"http://{where}", token=TOKEN) as client:
                    again = client.watch_stream("app/", since=stream.revision, kind="document")
                    async for change in again:
                        assert change["document"]["key"] == "app/b"
                        break
                    # What was not worked up comes once more.
                    assert again.revision == start + 2
                    async for change in client.watch_stream(since=1):
                        assert change == {"revision": node_list.revision, "kind": "resync", "event": "gap"}
                        break

    run(main())


async def collect(stream: WatchStream) -> list[dict[str, Any]]:
    return [change async for change in stream]


def keys(changes: list[dict[str, Any]]) -> list[str]:
    return [change["document"]["key"] for change in changes]


@pytest.mark.slow
def test_the_client_says_what_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("xdp_gossip.api.client._SILENCE", 0.3)

    async def fails(client: Client, error: type[Exception], what: str, kind: str = "") -> None:
        with pytest.raises(error, match=what):
            await asyncio.wait_for(collect(client.watch_stream(kind=kind)), 10)

    async def main() -> None:
        async with serving_tcp(FakeNodeList()) as (_api, _, where):
            async with Client(f"http://{where}", token="wrong") as client:
                await fails(client, ApiError, "unauthorized")
            async with Client(f"http://{where}", token=TOKEN) as client:
                await fails(client, ApiError, "kind: expected", kind="x")
                # No sign of life for longer than an agent leaves between two.
                await fails(client, Unreachable, "no answer in time|Timeout|timeout")
        async with Client(f"http://{where}", token=TOKEN) as client:
            await fails(client, Unreachable, "refused")
        answers = [
            (b"Content-Type: application/json\r\nContent-Length: 2\r\n\r\n{}", "expected text/event-stream, got"),
            (
                b"Content-Type: text/event-stream\r\n\r\nevent: change\ndata: nonsense\n\n",
                "expected a number as id and JSON as data",
            ),
            (b"Content-Type: text/event-stream\r\n\r\nid: x\n\n", "expected a number as id and JSON as data"),
            (b"Content-Type: text/event-stream\r\nContent-Length: 100\r\n\r\n:\n", "payload|not completed"),
        ]
        for answer, what in answers:

            async def serve(reader: Any, writer: Any, answer: bytes = answer) -> None:
                await reader.readuntil(b"\r\n\r\n")
                writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n" + answer)
                writer.close()

            fake = await asyncio.start_server(serve, "127.0.0.1", 0)
            async with fake, Client(f"http://127.0.0.1:{fake.sockets[0].getsockname()[1]}") as client:
                await fails(client, Unreachable, what)

    run(main())


def test_the_end_of_a_connection_is_known_to_whoever_waits() -> None:
    async def main() -> None:
        admission = Admission({}, logging.getLogger("test"))
        protocol = GuardedProtocol(asyncio.Protocol(), Place(admission, "", False))
        before = protocol.lost
        protocol.connection_lost(None)
        assert before.done() and protocol.lost.done()
        late = GuardedProtocol(asyncio.Protocol(), Place(admission, "", False))
        late.connection_lost(None)
        assert late.lost.done()

    run(main())
