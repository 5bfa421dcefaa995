# SPDX-License-Identifier: MIT
"""The API's sockets: permissions, stale sockets, TLS, and clients that stall, crowd, or send rubbish."""

from __future__ import annotations

import asyncio
import os
import random
import socket
import stat
import subprocess
from pathlib import Path
from urllib.parse import quote

import pytest
from api_harness import OPERATIONS, eventually, serving, serving_tcp
from fake_node_list import FakeNodeList

from tests.support.agents import cluster
from xdp_gossip.api import admission, connection
from xdp_gossip.api.app import build_app
from xdp_gossip.api.client import ApiError, Client, Unreachable
from xdp_gossip.api.server import ApiBindError, ApiServer, tls_context
from xdp_gossip.core.types import Address

FUZZ_REQUESTS = 10_000


async def wait_closed(reader: asyncio.StreamReader, seconds: float) -> bytes:
    """Everything until the other side closes."""
    try:
        return await asyncio.wait_for(reader.read(), seconds)
    except ConnectionResetError:
        return b""


def test_the_socket_is_for_owner_and_group(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(FakeNodeList(), tmp_path):
            mode = os.stat(tmp_path / "api.sock").st_mode
            assert stat.S_ISSOCK(mode)
            assert stat.S_IMODE(mode) == 0o660
        assert not (tmp_path / "api.sock").exists()

    asyncio.run(main())


def test_a_stale_socket_is_replaced_and_a_live_one_is_not(tmp_path: Path) -> None:
    path = str(tmp_path / "api.sock")
    with socket.socket(socket.AF_UNIX) as left_over:
        left_over.bind(path)

    async def main() -> None:
        async with serving(FakeNodeList(), tmp_path) as (api, _server):
            second = ApiServer(build_app(FakeNodeList(), local=True))  # type: ignore[arg-type]
            with pytest.raises(ApiBindError, match="another process serves it"):
                await second.open_unix(path)
            await second.close()
            assert (await api("GET", "/v1/health")).status == 200

    asyncio.run(main())


def test_a_file_in_the_place_of_the_socket_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "api.sock"
    path.write_text("precious")

    async def main() -> None:
        server = ApiServer(build_app(FakeNodeList(), local=True))  # type: ignore[arg-type]
        with pytest.raises(ApiBindError, match="expected a socket"):
            await server.open_unix(str(path))
        with pytest.raises(ApiBindError, match="No such file or directory"):
            await server.open_unix(str(tmp_path / "missing" / "api.sock"))
        await server.close()

    asyncio.run(main())
    assert path.read_text() == "precious"


def test_a_port_in_use_is_named() -> None:
    async def main() -> None:
        async with serving_tcp(FakeNodeList()) as (_api, _server, where):
            second = ApiServer(build_app(FakeNodeList(), token="x" * 16))  # type: ignore[arg-type]
            with pytest.raises(ApiBindError, match=f"{where}: .*in use"):
                await second.open_tcp(where)
            await second.close()

    asyncio.run(main())


@pytest.mark.slow
def test_clients_that_only_connect_are_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "HEAD_SECONDS", 0.3)

    async def main() -> None:
        async with serving(FakeNodeList(), tmp_path) as (api, server):
            path = str(tmp_path / "api.sock")
            silent = await asyncio.open_unix_connection(path)
            slow = await asyncio.open_unix_connection(path)
            slow[1].write(b"GET /v1/health HTTP/1.1\r\nHost: x\r\nX-Slow: ")
            await api("GET", "/v1/health")
            assert await wait_closed(silent[0], 2) == b""
            assert await wait_closed(slow[0], 2) == b""
            assert server.admission.counters["api_closed_idle"] == 2
            # The well-behaved connection is still the same one.
            await api("GET", "/v1/health")
            assert server.admission.open == 1
            for _reader, writer in (silent, slow):
                writer.close()

    asyncio.run(main())


@pytest.mark.slow
def test_a_client_that_does_not_read_is_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "STALL_SECONDS", 0.3)

    async def main() -> None:
        fake = FakeNodeList()
        await fake.publish(b"x" * (1 << 20), "big")
        async with serving(fake, tmp_path) as (api, server):
            _reader, writer = await asyncio.open_unix_connection(str(tmp_path / "api.sock"), limit=1024)
            writer.write(b"GET /v1/documents/big HTTP/1.1\r\nHost: x\r\n\r\n" * 8)
            for _ in range(40):
                await asyncio.sleep(0.05)
                if server.admission.counters["api_closed_stalled"]:
                    break
            assert server.admission.counters["api_closed_stalled"] == 1
            assert (await api("GET", "/v1/health")).status == 200
            writer.close()

    asyncio.run(main())


@pytest.mark.slow
def test_a_body_that_does_not_come_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("xdp_gossip.api.params.BODY_SECONDS", 0.2)

    async def main() -> None:
        fake = FakeNodeList()
        async with serving(fake, tmp_path):
            reader, writer = await asyncio.open_unix_connection(str(tmp_path / "api.sock"))
            writer.write(b"PUT /v1/documents/a HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nhalf")
            head = await asyncio.wait_for(reader.readline(), 5)
            assert b" 408 " in head
            writer.close()
        assert fake.held == {}

    asyncio.run(main())


def test_of_a_crowd_the_oldest_give_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "MAX_PER_SOURCE", 3)

    async def main() -> None:
        async with serving_tcp(FakeNodeList()) as (_api, server, where):
            crowd = [await asyncio.open_connection(where.ip, where.port) for _ in range(5)]
            await asyncio.sleep(0.2)
            assert server.admission.open == 3
            assert server.admission.counters["api_evicted"] == 2
            for _reader, writer in crowd:
                writer.close()
            for _ in range(40):
                await asyncio.sleep(0.05)
                if not server.admission.open:
                    break
            assert server.admission.open == 0
            assert not server.admission._per_source
            async with Client(f"http://{where}", token="a-token-of-the-tests") as client:
                assert (await client.status())["state"] == "running"

    asyncio.run(main())


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """A self-signed certificate for 127.0.0.1 and its key."""
    directory = tmp_path_factory.mktemp("tls")
    cert, key = str(directory / "cert.pem"), str(directory / "key.pem")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
        + ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", cert],
        check=True,
        capture_output=True,
        timeout=30,
    )
    return cert, key


def test_tls_serves_who_trusts_it(certificate: tuple[str, str]) -> None:
    async def main() -> None:
        server = ApiServer(build_app(FakeNodeList(), token="x" * 16))  # type: ignore[arg-type]
        where = await server.open_tcp(Address("127.0.0.1", 0), tls_context(*certificate))
        try:
            async with Client(f"https://{where}", token="x" * 16, ca_file=certificate[0]) as client:
                assert (await client.status())["cluster"] == "default"
            async with Client(f"https://{where}", token="x" * 16) as client:
                with pytest.raises(Unreachable, match="certificate"):
                    await client.status()
            async with Client(f"http://{where}", token="x" * 16, timeout=5) as client:
                with pytest.raises(Unreachable):
                    await client.status()
        finally:
            await server.close()

    asyncio.run(main())


@pytest.mark.slow
def test_the_client_says_who_did_not_answer_and_why(tmp_path: Path) -> None:
    async def main() -> None:
        async with Client(f"unix://{tmp_path}/none.sock") as client:
            with pytest.raises(Unreachable, match=r"unix://.*none\.sock: No such file"):
                await client.status()
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            port = taken.getsockname()[1]
            async with Client(f"http://127.0.0.1:{port}") as client:
                with pytest.raises(Unreachable, match="refused"):
                    await client.status()
            taken.listen()  # accepts, never answers
            async with Client(f"http://127.0.0.1:{port}", timeout=0.3) as client:
                with pytest.raises(Unreachable, match="no answer in time"):
                    await client.status()

    asyncio.run(main())


@pytest.mark.parametrize(
    "endpoint", ["", "ftp://x", "unix://relative", "http://", "127.0.0.1:8001", "http://u:p@h", "unix:///a?b"]
)
def test_the_client_refuses_what_is_no_endpoint(endpoint: str) -> None:
    with pytest.raises(ValueError, match="expected unix:///PATH"):
        Client(endpoint)


def test_the_client_speaks_every_call(tmp_path: Path) -> None:
    async def main() -> None:
        fake = FakeNodeList()
        async with serving(fake, tmp_path), Client(f"unix://{tmp_path}/api.sock") as client:
            first = await client.publish("a/ü%", b"1", content_type="text", author="me", comment="c d", if_absent=True)
            with pytest.raises(ApiError) as refused:
                await client.publish("a/ü%", b"2", if_absent=True)
            assert (refused.value.status, refused.value.code) == (412, "version_mismatch")
            assert refused.value.details["actual"] == first["version"]
            await client.publish("a/ü%", b"2", if_version=first["version"])
            assert (await client.read("a/ü%"))[0] == b"2"
            assert (await client.document("a/ü%"))["size"] == 1
            assert len((await client.documents("a/"))["documents"]) == 1
            assert len((await client.history("a/ü%", values=True))["versions"]) == 2
            assert (await client.delete("a/ü%"))["changed"] is True
            assert (await client.update_node(private_data="p"))["private_data"] == "p"
            assert await client.join(["198.18.0.77:8000"]) == 1
            assert (await client.switch("stop"))["state"] == "paused"
            assert (await client.nodes("all"))["nodes"][0]["local"]
            assert (await client.watch(0, 0.0, "a/"))["changes"]
            assert (await client.convergence("a", wait="majority"))["converged"] is True
            assert (await client.keys())[0]["id"] == 0x13
            with pytest.raises(ApiError, match="there is no document"):
                await client.read("a/ü%")

    asyncio.run(main())


def _piece(rng: random.Random) -> str:
    words = [
        "v1",
        "nodes",
        "documents",
        "default",
        "a",
        "..",
        "%00",
        "%ff",
        "node",
        "join",
        "stop",
        "set",
        "*",
        "é",
        "watch",
    ]
    return (
        rng.choice(words) if rng.random() < 0.8 else quote(bytes(rng.randrange(256) for _ in range(rng.randrange(6))))
    )


def _random_request(rng: random.Random) -> bytes:
    """A request between almost right and noise."""
    kind = rng.random()
    if kind < 0.1:
        return bytes(rng.randrange(256) for _ in range(rng.randrange(1, 80))) + b"\r\n\r\n"
    known_method, known_path = rng.choice(sorted(OPERATIONS))
    # Waiting is allowed to take its time; here it must not.
    path = (
        known_path.replace("{key}", _piece(rng))
        if rng.random() < 0.7
        else "/" + "/".join(_piece(rng) for _ in range(3))
    )
    names = [
        "state",
        "format",
        "since",
        "timeout",
        "prefix",
        "key",
        "version",
        "digest",
        "wait",
        "values",
        "x",
        "author",
    ]
    pairs = [f"{rng.choice(names)}={_piece(rng)}" for _ in range(rng.randrange(3))]
    if "watch" in path or "convergence" in path:
        pairs = [pair for pair in pairs if not pair.startswith("timeout")] + ["timeout=0"]
    query = "?" + "&".join(pairs) if pairs else ""
    method = (
        known_method
        if rng.random() < 0.8
        else rng.choice(["GET", "PUT", "POST", "PATCH", "DELETE", "HEAD", "OPTIONS", "X"])
    )
    bodies = [
        b"",
        b"{}",
        b"[]",
        b"null",
        b'{"nodes":[1]}',
        b'{"Port":-1}',
        b'{"name":7}',
        b"[" * 2000,
        b"\xff\xfe",
        b'{"a":1e999}',
    ]
    body = rng.choice(bodies)
    head = [f"{method} {path}{query} HTTP/1.1", "Host: x", "Connection: close"]
    head.append(f"Content-Length: {len(body) if rng.random() < 0.95 else rng.choice(['-1', 'x', '5, 6'])}")
    values = ["*", '"1"', "W/", "gzip", "deflate", "", "Bearer x", "100-continue", "x" * 300]
    for name in ("If-Match", "If-None-Match", "Content-Encoding", "Content-Type", "Authorization", "Expect", "Range"):
        if rng.random() < 0.1:
            head.append(f"{name}: {rng.choice(values)}")
    return "\r\n".join(head).encode("utf-8", "surrogateescape") + b"\r\n\r\n" + body


async def _one(path: str, request: bytes) -> int:
    """Send one request on a connection of its own; returns the status, 0 when the server just closed."""
    reader, writer = await asyncio.open_unix_connection(path)
    try:
        writer.write(request)
        line = await asyncio.wait_for(reader.readline(), 15)
        parts = line.split()
        return int(parts[1]) if len(parts) > 1 and parts[1].isdigit() else 0
    except (ConnectionError, BrokenPipeError):
        return 0
    finally:
        writer.close()


@pytest.mark.slow
def test_ten_thousand_random_requests_change_nothing_that_was_not_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After all of them the server serves, no request got a 500, and the documents are those of the good requests."""

    monkeypatch.setattr(connection, "HEAD_SECONDS", 1.0)
    monkeypatch.setattr("xdp_gossip.api.params.BODY_SECONDS", 1.0)

    async def main() -> None:
        rng = random.Random(20260114)
        statuses: dict[int, int] = {}
        async with cluster(2) as (node_list, other), serving(node_list, tmp_path) as (api, server):
            await node_list.publish(b"precious", "kept")
            path = str(tmp_path / "api.sock")
            for _ in range(FUZZ_REQUESTS // 20):
                batch = [_random_request(rng) for _ in range(20)]
                for status in await asyncio.gather(*(_one(path, request) for request in batch)):
                    statuses[status] = statuses.get(status, 0) + 1
            assert statuses.get(500, 0) == 0, statuses
            assert statuses.get(200, 0) > 500, statuses
            assert statuses.get(400, 0) > 500, statuses
            assert sum(statuses.values()) == FUZZ_REQUESTS
            assert (await api("GET", "/v1/documents/kept")).body == b"precious"
            await asyncio.sleep(0.5)
            assert server.admission.open <= 1
            assert server.admission.counters["api_malformed"] > 100
            assert all(document.key == "kept" or document.size <= 2000 for document in node_list.documents())
            # Random requests may pause the node or make it leave; it comes back and the fleet agrees with it.
            await api("POST", "/v1/node/start")

            async def together() -> bool:
                return {node.name for node in node_list.get()} == {"n1", "n2"}

            await eventually(together)
            answer = await api("GET", "/v1/convergence", params="timeout=20")
            assert answer.json["converged"], answer.json
            assert answer.json["members"] == 2, answer.json
            assert other.read("kept") == b"precious"

    asyncio.run(main())
