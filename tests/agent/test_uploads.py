# SPDX-License-Identifier: MIT
"""Bodies cost what has arrived of them, and one that stalls keeps no other from being taken; over real sockets."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from api_harness import TOKEN, serving, serving_tcp
from fake_node_list import FakeNodeList

from xdp_gossip.api import context as context_module
from xdp_gossip.api import uploads as uploads_module
from xdp_gossip.api.app import build_app
from xdp_gossip.api.errors import Fault
from xdp_gossip.api.uploads import LEAST_PACE, PATIENCE, Uploads
from xdp_gossip.common.internal_errors import RECORD

#: Bytes of the largest document, and of the largest JSON body, here: both are in the room that uploads share.
LARGEST, JSON = 100_000, 50_000
ROOM = 4 * (LARGEST + JSON)


class Stalling:
    """Requests that begin and do not go on, on connections of their own."""

    def __init__(self, path: str) -> None:
        self._path = path
        self.open: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def send(self, target: str, declared: int, body: bytes = b"") -> int:
        """Begin a request; returns its number."""
        reader, writer = await asyncio.open_unix_connection(self._path)
        writer.write(f"{target} HTTP/1.1\r\nHost: x\r\nContent-Length: {declared}\r\n\r\n".encode() + body)
        await writer.drain()
        self.open.append((reader, writer))
        return len(self.open) - 1

    async def answer(self, number: int, rest: bytes = b"") -> str:
        """The first line of the answer, once ``rest`` was sent."""
        reader, writer = self.open[number]
        writer.write(rest)
        return (await asyncio.wait_for(reader.readline(), 60)).decode().strip()


class Place:
    """An API with stalling clients."""

    def __init__(self, api: Any, stalling: Stalling, counters: dict[str, int], uploads: Uploads) -> None:
        self.api = api
        self.stalling = stalling
        self.counters = counters
        self.uploads = uploads

    async def arrived(self, size: int) -> None:
        """Until so many bytes of bodies are held."""
        for _ in range(2000):
            if self.uploads.used == size:
                return
            await asyncio.sleep(0.01)
        raise AssertionError(f"{self.uploads.used} bytes of bodies are held, expected {size}")


@contextlib.asynccontextmanager
async def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Place]:
    monkeypatch.setattr(context_module, "MAX_JSON", JSON)
    made: list[Uploads] = []

    class Noted(Uploads):
        def __init__(self, *words: Any) -> None:
            super().__init__(*words)
            made.append(self)

    monkeypatch.setattr(context_module, "Uploads", Noted)
    counters: dict[str, int] = {}
    fake = FakeNodeList()
    app = build_app(fake, local=True, max_document=LARGEST, counters=counters)  # type: ignore[arg-type]
    async with serving(fake, tmp_path, app=app) as (api, _):
        stalling = Stalling(str(tmp_path / "api.sock"))
        assert (counters["api_uploads_refused"], counters["api_uploads_cut"]) == (0, 0)
        yield Place(api, stalling, counters, made[0])
        for _, writer in stalling.open:
            writer.close()
    assert RECORD.count == 0


@pytest.mark.parametrize(
    "target", ["PUT /v1/documents/a", "POST /v1/documents", "POST /publish", "POST /v1/rollback/a", "POST /set"]
)
def test_what_is_declared_costs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: str) -> None:
    async def main() -> None:
        async with place(tmp_path, monkeypatch) as here:
            for _ in range(30):
                await here.stalling.send(target, JSON, b"x")
            await here.arrived(30)
            assert (await here.api("PUT", "/v1/documents/b", body=bytes(LARGEST))).status == 200

    asyncio.run(main())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("target", "size"), [("PUT /v1/documents/a", LARGEST), ("POST /v1/documents", LARGEST), ("POST /v1/repair", JSON)]
)
def test_those_that_stall_give_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: str, size: int) -> None:
    monkeypatch.setattr(uploads_module, "PATIENCE", 0.0)  # behind the least pace at once

    async def main() -> None:
        async with place(tmp_path, monkeypatch) as here:
            count = ROOM // size
            for number in range(count):
                await here.stalling.send(target, size, bytes(size - 1))
                await here.arrived((number + 1) * (size - 1))
            assert (await here.api("PUT", "/v1/documents/b", body=bytes(LARGEST))).status == 200
            cut = here.counters["api_uploads_cut"]
            assert 1 <= cut <= LARGEST // size and here.counters["api_uploads_refused"] == 0
            assert here.uploads.used == (count - cut) * (size - 1)
            assert (await here.stalling.answer(0)).startswith("HTTP/1.1 503")  # it waited longest
            # The others may still be completed.
            assert not (await here.stalling.answer(count - 1, b"\0")).startswith("HTTP/1.1 503")

    asyncio.run(main())


def test_when_all_keep_pace_the_one_that_wants_more_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads_module, "PATIENCE", 1e9)

    async def main() -> None:
        async with place(tmp_path, monkeypatch) as here:
            for number in range(6):
                await here.stalling.send("PUT /v1/documents/a", LARGEST, bytes(LARGEST - 1))
                await here.arrived((number + 1) * (LARGEST - 1))
            refused = await here.api("PUT", "/v1/documents/b", body=bytes(LARGEST))
            assert (refused.status, refused.code, refused.headers["Retry-After"]) == (503, "busy", "1")
            assert (here.counters["api_uploads_refused"], here.counters["api_uploads_cut"]) == (1, 0)
            assert here.uploads.used == 6 * (LARGEST - 1)
            assert (await here.stalling.answer(3, b"\0")).startswith("HTTP/1.1 200")
            await here.arrived(5 * (LARGEST - 1))
            assert (await here.api("PUT", "/v1/documents/b", body=bytes(LARGEST))).status == 200

    asyncio.run(main())


def test_a_trickle_is_no_pace_and_a_burst_earns_no_long_rest() -> None:
    async def main() -> None:
        now = [0.0]
        uploads = Uploads(100 * LEAST_PACE, {}, lambda: now[0])
        with uploads.opened() as burst, uploads.opened() as trickle, uploads.opened() as steady:
            uploads.add(burst, bytes(90 * LEAST_PACE))
            while now[0] < PATIENCE + 1:
                now[0] += 0.25
                uploads.add(trickle, b"x")
                uploads.add(steady, bytes(LEAST_PACE // 4))
            assert steady.due >= now[0] > max(burst.due, trickle.due)
            with uploads.opened() as other:
                uploads.add(other, bytes(50 * LEAST_PACE))
                assert burst.cut.done() and not steady.cut.done()
                with pytest.raises(Fault, match="too many uploads"):
                    uploads.add(other, bytes(60 * LEAST_PACE))
                assert trickle.cut.done() and not steady.cut.done()
        assert uploads.used == 0

    asyncio.run(main())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("head", "answers"),
    [
        (f"Authorization: Bearer {TOKEN}\r\nContent-Length: 1", ["HTTP/1.1 100", "HTTP/1.1 200"]),
        (f"Authorization: Bearer {TOKEN}\r\nContent-Length: 2000000", ["HTTP/1.1 413"]),
        ("Content-Length: 1", ["HTTP/1.1 401"]),
        (f"Authorization: Bearer {TOKEN}\r\nIf-Match: 5\r\nContent-Length: 1", ["HTTP/1.1 400"]),
    ],
)
def test_a_body_is_asked_for_once_nothing_else_is_wrong(head: str, answers: list[str]) -> None:
    async def main() -> None:
        async with serving_tcp(FakeNodeList()) as (_, _, where):
            reader, writer = await asyncio.open_connection(where.ip, where.port)
            request = f"PUT /v1/documents/a HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n{head}\r\n\r\n"
            writer.write(request.encode())
            for answer in answers:
                assert (await asyncio.wait_for(reader.readline(), 60)).decode().startswith(answer)
                if answer.endswith("100"):
                    assert await reader.readline() == b"\r\n"
                    writer.write(b"x")
            writer.close()

    asyncio.run(main())
