# SPDX-License-Identifier: MIT
"""Strangers at the API's port: whatever they do there, who has the token is served, and the log stays short."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import gzip
import logging
import os
import random
import resource
import socket
import ssl
from asyncio.sslproto import SSLProtocol
from collections.abc import AsyncIterator
from typing import Any, Callable

import aiohttp
import pytest
from aiohttp import web
from api_harness import TOKEN
from fake_node_list import FakeNodeList
from test_api_server import certificate  # noqa: F401  (a fixture)

from tests.support.patience import patient
from xdp_gossip.api import admission, connection, listener
from xdp_gossip.api import server as server_module
from xdp_gossip.api.admission import Admission, source_of
from xdp_gossip.api.app import build_app
from xdp_gossip.api.server import ApiServer, tls_context
from xdp_gossip.common.internal_errors import RECORD
from xdp_gossip.core.types import Address

LOG = logging.getLogger("xdp_gossip.api")
HEALTH = b"GET /v1/health HTTP/1.1\r\nHost: x\r\n\r\n"


class Served:
    """The API on loopback, asked as one who has the token, or as a stranger from any of 127/8."""

    def __init__(self, server: ApiServer, where: Address, tls: bool) -> None:
        self.server = server
        self.where = where
        self.tls = tls
        self.counters = server.admission.counters

    async def works(self) -> None:
        """Who has the token is served, over a new connection."""
        trust = ssl.create_default_context() if self.tls else None
        if trust is not None:
            trust.check_hostname, trust.verify_mode = False, ssl.CERT_NONE
        connector = aiohttp.TCPConnector(ssl=trust) if trust else aiohttp.TCPConnector()
        timeout = aiohttp.ClientTimeout(total=patient(30))
        async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
            url = f"{'https' if self.tls else 'http'}://{self.where}/v1/status"
            async with session.get(url, headers={"Authorization": f"Bearer {TOKEN}"}) as answer:
                assert answer.status == 200

    async def stranger(self, number: int = 1) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A TCP connection from a source of its own."""
        local = (f"127.1.{number // 250}.{number % 250 + 1}", 0)
        return await asyncio.open_connection(self.where.ip, self.where.port, local_addr=local)

    async def counted(self, name: str, least: int = 1) -> None:
        """Until it was counted so often."""
        await until(lambda: self.counters[name] >= least)


async def until(condition: Callable[[], bool]) -> None:
    async def look() -> None:
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.02)

    await asyncio.wait_for(look(), patient(30))


@contextlib.asynccontextmanager
async def served(tls: tuple[str, str] | None = None, counters: dict[str, int] | None = None) -> AsyncIterator[Served]:
    server = ApiServer(build_app(FakeNodeList(), token=TOKEN, max_document=1 << 20, counters=counters), counters)
    where = await server.open_tcp(Address("127.0.0.1", 0), tls_context(*tls) if tls else None)
    try:
        yield Served(server, where, tls is not None)
    finally:
        await asyncio.wait_for(server.close(), patient(10))


async def closed(reader: asyncio.StreamReader) -> bytes:
    """What comes until the other side closes."""
    with contextlib.suppress(ConnectionError):
        return await asyncio.wait_for(reader.read(), patient(30))
    return b""


def test_a_source_is_what_one_party_has() -> None:
    assert source_of(("198.18.0.1", 5)) == source_of(("::ffff:198.18.0.1", 5, 0, 0)) == "198.18.0.1"
    assert source_of(("fd00::1", 5, 0, 0)) == source_of(("fd00::2:0:0:9", 6, 0, 0)) == "fd00::/64"
    assert source_of(("fe80::1%eth0", 5, 0, 2)) == "fe80::/64"
    assert source_of("") == source_of(None) == ""


@pytest.mark.parametrize("tls", [False, True])
def test_many_who_only_hold_on_lock_nobody_out(
    tls: bool,
    certificate: tuple[str, str],  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Eight sources with all connections that they may have, and a hundred with one each."""
    monkeypatch.setattr(admission, "MAX_STRANGERS", 64)
    monkeypatch.setattr(admission, "MAX_PER_SOURCE", 8)

    async def main() -> None:
        async with served(certificate if tls else None) as api:
            held = [await api.stranger(number % 8) for number in range(100)]
            await api.works()
            held += [await api.stranger(100 + number) for number in range(100)]
            await api.works()
            for _reader, writer in held[:50]:
                writer.write(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc" if tls else HEALTH)
            await api.works()
            assert api.server.admission.open <= 64
            assert api.counters["api_evicted"] >= 136
            assert api.counters["api_refused_full"] == api.counters["api_refused_source"] == 0
            for _reader, writer in held:
                writer.close()

    asyncio.run(main())


def test_who_has_shown_the_token_is_not_evicted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "MAX_STRANGERS", 3)
    monkeypatch.setattr(admission, "MAX_CONNECTIONS", 5)

    async def main() -> None:
        async with served() as api:
            reader, writer = await api.stranger()
            question = b"GET /v1/node HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + TOKEN.encode() + b"\r\n\r\n"
            writer.write(question)
            assert b" 200 " in await reader.readline()
            strangers = [await api.stranger(number + 2) for number in range(20)]
            await api.counted("api_evicted", 17)
            writer.write(question)
            await asyncio.wait_for(reader.readuntil(b"HTTP/1.1 200"), patient(30))
            # The oldest went first.
            assert await closed(strangers[0][0]) == b""
            strangers[-1][1].write(HEALTH)
            assert b" 200 " in await asyncio.wait_for(strangers[-1][0].readline(), patient(30))

    asyncio.run(main())


def test_when_all_places_are_proven_the_next_is_turned_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "MAX_CONNECTIONS", 2)
    monkeypatch.setattr(admission, "MAX_PER_USER", 1)
    full = Admission({}, LOG)
    places = [full.admit("a"), full.admit("b")]
    for place in places:
        assert place is not None
        place.prove()
    assert full.admit("c") is None
    assert full.counters["api_refused_full"] == 1
    places[0].leave()  # type: ignore[union-attr]
    assert full.admit("c") is not None
    # On the Unix socket everybody has a right, and each user a share.
    local = Admission({}, LOG, local=True)
    first = local.admit("user 1000")
    assert first is not None and first.proven
    assert local.admit("user 1000") is None
    assert local.admit("user 1001") is not None
    assert local.counters["api_refused_source"] == 1
    first.leave()
    first.leave()
    assert local.open == 1


def test_users_of_the_socket_leave_room_for_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "MAX_USERS", 3)
    local = Admission({}, LOG, local=True)
    root = local.admit("")
    users = [local.admit(f"user {number}") for number in range(5)]
    assert [user is not None for user in users] == [True, True, True, False, False]
    assert local.counters["api_refused_full"] == 2
    assert local.admit("") is not None
    assert root is not None
    root.leave()
    assert local.admit("user 9") is None
    users[0].leave()  # type: ignore[union-attr]
    assert local.admit("user 9") is not None


@pytest.mark.slow
def test_a_handshake_that_does_not_come_is_counted_and_ends(
    certificate: tuple[str, str],  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(listener, "HANDSHAKE_SECONDS", 0.3)

    async def main() -> None:
        async with served(certificate) as api:
            held = [await api.stranger(number) for number in range(20)]
            for _reader, writer in held[::2]:
                writer.write(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc")
            assert api.server.admission.open > 0
            for reader, _writer in held:
                await closed(reader)
            await api.counted("api_tls_failed", 20)
            assert api.server.admission.open == 0
            odd = await api.stranger()
            odd[1].write(HEALTH)  # in clear
            await closed(odd[0])
            await api.counted("api_tls_failed", 21)
            await api.works()

    asyncio.run(main())
    assert len([record for record in caplog.records if record.levelno >= logging.WARNING]) <= 1


@pytest.mark.parametrize("hello", [b"", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc"], ids=["silent", "begun"])
def test_who_is_evicted_in_a_handshake_is_gone_with_all_memory(
    hello: bytes,
    certificate: tuple[str, str],  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """At once: neither the deadline nor the garbage collector is needed for it."""
    monkeypatch.setattr(listener, "HANDSHAKE_SECONDS", 3600.0)
    monkeypatch.setattr(admission, "MAX_PER_SOURCE", 2)

    async def main() -> None:
        async with served(certificate) as api:
            gc.collect()
            gc.disable()
            held = []
            for number in range(12):
                held.append(await api.stranger())
                held[-1][1].write(hello)
                await api.counted("api_evicted", number - 1)
            for reader, _writer in held[:10]:
                assert await closed(reader) == b""
            await api.counted("api_tls_failed", 10)
            assert api.server.admission.open == 2
            await until(lambda: sum(isinstance(found, SSLProtocol) for found in gc.get_objects()) == 2)
            for _reader, writer in held:
                writer.close()

    try:
        asyncio.run(main())
    finally:
        gc.enable()


@pytest.mark.slow
@pytest.mark.parametrize(
    "data",
    [
        b"",
        HEALTH,
        b"GET\r\n\r\n",
        b"GET http://[ HTTP/1.1\r\n\r\n",
        b"PUT /v1/documents/k HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n" + b"x" * 1000,
        b"GET /v1/node HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + TOKEN.encode() + b"\r\n\r\n",
    ],
    ids=["silent", "public", "no HTTP", "no URL", "half a body", "token"],
)
def test_a_connection_that_is_gone_leaves_nothing(data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """At once: neither the garbage collector is needed for it, nor the end of a body that does not come."""
    monkeypatch.setattr(server_module, "_LINGERING_SECONDS", 3600.0)

    def left() -> int:
        kinds = (connection.GuardedProtocol, web.RequestHandler)
        return sum(isinstance(found, kinds) for found in gc.get_objects())

    async def main() -> None:
        async with served() as api:
            await api.works()
            await until(lambda: api.server.admission.open == 0)
            gc.collect()
            before = left()  # what an earlier test of this process has left
            gc.disable()
            for number in range(5):
                reader, writer = await api.stranger(number)
                writer.write(data)
                if data:
                    await asyncio.wait_for(reader.read(20), patient(30))
                writer.close()
            await until(lambda: api.server.admission.open == 0 and left() <= before)
            no_http = data.startswith((b"GET\r", b"GET http://["))
            assert api.counters["api_malformed"] == (5 if no_http else 0)

    try:
        asyncio.run(main())
    finally:
        gc.enable()


BOMB = gzip.compress(bytes(8 << 20))


@pytest.mark.parametrize("path", ["/v1/status", "/v1/health", "/v1/documents/k", "/publish"])
@pytest.mark.parametrize("token", ["", "wrong", TOKEN])
def test_nothing_is_inflated(path: str, token: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import aiohttp.http_parser as parser

    inflated = []
    real = parser.DeflateBuffer.feed_data

    def feed(self: Any, chunk: bytes, *rest: Any) -> Any:
        inflated.append(len(chunk))
        return real(self, chunk, *rest)

    monkeypatch.setattr(parser.DeflateBuffer, "feed_data", feed)

    async def main() -> None:
        async with served() as api:
            reader, writer = await api.stranger()
            head = f"PUT {path} HTTP/1.1\r\nHost: x\r\nContent-Encoding: gzip\r\nContent-Length: {len(BOMB)}\r\n"
            if token:
                head += f"Authorization: Bearer {token}\r\n"
            writer.write(head.encode() + b"\r\n" + BOMB)
            status = int((await asyncio.wait_for(reader.readline(), patient(30))).split()[1])
            assert status in ((405, 415) if token == TOKEN else (401,))
            if token != TOKEN:
                await closed(reader)
            await api.works()

    asyncio.run(main())
    assert inflated == []


@pytest.mark.parametrize(
    "data",
    [
        HEALTH * 2000,
        b"GET /v1/health HTTP/1.1\r\nHost: x\r\n" + b"X-Filler: 0123456789\r\n" * 20_000,
        b"GET /v1/health HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n" + b"x" * 4_000_000,
        b"GET /v1/health HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * 500_000,
        b"PUT /v1/documents/k HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\n\r\n" + b"x" * 8_000_000,
        b"GET http://[ HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /%zz\x00 HTTP/1.1\r\nHost: \xff\r\n\r\n",
        b"GET //\xe2\x80\xae@[::1:99999999/ HTTP/1.1\r\nHost: x:y:z\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET /v1/health HTTP/9.9\r\nHost: x\r\n\r\n",
        b"GET /v1/health HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"GET /v1/health HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc" * 100,
        random.Random(1).randbytes(100_000),
        b"\r\n" * 100_000,
    ],
)
def test_whatever_a_stranger_sends_ends_soon_and_quietly(data: bytes, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with served() as api:
            for number in range(5):
                reader, writer = await api.stranger(number)
                with contextlib.suppress(OSError):
                    writer.write(data)
                    await asyncio.wait_for(writer.drain(), patient(30))
                    if data.startswith(b"\r\n"):
                        writer.write(b"GET x\r\n\r\n")
                    writer.write_eof()
                await closed(reader)
                writer.close()
            await api.works()
            await until(lambda: api.server.admission.open == 0)

    asyncio.run(main())
    assert len([record for record in caplog.records if record.levelno >= logging.WARNING]) <= 1
    assert not [record for record in caplog.records if record.exc_info]


def test_who_asks_and_goes_at_once_leaves_no_traceback(caplog: pytest.LogCaptureFixture) -> None:
    """aiohttp fails an assertion where the client goes between the request and the handler's first step."""

    async def main() -> None:
        async with served() as api:
            await api.works()
            assert api.server._runner is not None and api.server._runner.server is not None
            for turns in range(1, 8):  # of the loop
                place = api.server.admission.admit("198.18.0.9")
                assert place is not None
                gone = connection.GuardedProtocol(api.server._runner.server(), place)
                ours, theirs = socket.socketpair()
                await asyncio.get_running_loop().connect_accepted_socket(lambda gone=gone: gone, ours)
                gone.data_received(HEALTH)
                for _ in range(turns):
                    await asyncio.sleep(0)
                gone.connection_lost(ConnectionResetError())
                theirs.close()
            # Later versions of aiohttp do not fail; nothing is counted then.
            await api.works()

    asyncio.run(main())
    assert not [record for record in caplog.records if record.exc_info]
    assert len([record for record in caplog.records if record.levelno >= logging.WARNING]) <= 1


def test_of_what_aiohttp_logs_our_own_faults_are_told(caplog: pytest.LogCaptureFixture) -> None:
    rules = Admission({}, LOG)
    log = logging.Logger("http")
    log.addFilter(server_module._NoTraceback(rules))
    log.parent = LOG
    try:
        tls_context("none", "none")
    except OSError:
        log.exception("Unhandled exception")
    assert [(found.task, found.count) for found in RECORD.clear()] == [("API request", 1)]
    assert rules.counters["api_malformed"] == 0
    log.error("about no request")
    assert caplog.records[-1].getMessage() == "about no request"


def test_what_a_stranger_may_send_is_bounded() -> None:
    """As far as the guard lets it through: with aiohttp, each request costs some kilobytes."""

    class Inner(asyncio.Protocol):
        taken = 0

        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            pass

        def data_received(self, data: bytes) -> None:
            self.taken += len(data)

    class Transport(asyncio.Transport):
        aborted = False

        def abort(self) -> None:
            self.aborted = True

        def is_closing(self) -> bool:
            return self.aborted

    async def main() -> None:
        head = connection.MAX_HEAD
        for piece, most in ((b"GET / HTTP/1.1\r\n\r\n", 17 * 18), (b"X: y\r\n", head), (b"x" * 4096, head)):
            rules = Admission({}, LOG)
            place = rules.admit("a")
            assert place is not None
            inner, transport = Inner(), Transport()
            guard = connection.GuardedProtocol(inner, place)
            guard.connection_made(transport)
            for _ in range(100_000):
                guard.data_received(piece)
            assert transport.aborted
            assert inner.taken <= most
            assert rules.counters["api_closed_flood"] == 1
            guard.connection_lost(None)
            assert rules.open == 0

    asyncio.run(main())


def test_wrong_tokens_leave_a_trace(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        counters: dict[str, int] = {}
        async with served(counters=counters) as api:
            assert counters["api_unauthorized"] == 0
            for number in range(20):
                reader, writer = await api.stranger(number)
                writer.write(b"GET /v1/node HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer guess%d\r\n\r\n" % number)
                assert b" 401 " in await reader.readline()
                await closed(reader)
            assert counters["api_unauthorized"] == 20

    asyncio.run(main())
    told = [record.getMessage() for record in caplog.records if "token" in record.getMessage()]
    assert len(told) == 1
    assert "127.1.0.1" in told[0]
    assert "guess" not in told[0]


@pytest.mark.slow
def test_without_descriptors_it_waits_and_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with served() as api:
            await api.works()
            held = [await api.stranger(number) for number in range(3)]
            waiting = [socket.socket() for _ in range(40)]
            for sock in waiting:
                sock.setblocking(False)
            limits = resource.getrlimit(resource.RLIMIT_NOFILE)
            most = os.dup(0)  # the first that is free
            os.close(most)
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, limits[1]))
            try:
                for sock in waiting:
                    with contextlib.suppress(BlockingIOError):
                        sock.connect((api.where.ip, api.where.port))
                await api.counted("api_accept_failed")
                await asyncio.sleep(0.3)
                assert api.counters["api_accept_failed"] <= 2
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, limits)
            await api.works()
            for sock in waiting:
                sock.close()
            for _reader, writer in held:
                writer.close()

    asyncio.run(main())
    lines = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(lines) == 1
    assert "Too many open files" in lines[0]


def test_memory_is_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    trimmed: list[Any] = []
    monkeypatch.setattr(admission, "_TRIM_SECONDS", 0.1)
    monkeypatch.setattr(admission, "_give_back", lambda: trimmed.append(1))

    async def main() -> None:
        rules = Admission({}, LOG)
        places = [rules.admit(str(number)) for number in range(100)]
        for place in places:
            assert place is not None
            place.leave()
        await until(lambda: trimmed == [1])

    asyncio.run(main())
