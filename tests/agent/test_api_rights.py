# SPDX-License-Identifier: MIT
"""Rights: every route of the description, with every right, on allowed and on foreign keys."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from api_harness import OPERATIONS, Answer, Api, eventually
from fake_node_list import FakeNodeList

from xdp_gossip.api import access as access_module
from xdp_gossip.api import app as app_module
from xdp_gossip.api.access import Access, Identity, Right
from xdp_gossip.api.accounts import Accounts, Peer, peer_of
from xdp_gossip.api.app import build_app
from xdp_gossip.api.audit import Audit
from xdp_gossip.api.routes import Route, add_to, get
from xdp_gossip.api.server import ApiServer
from xdp_gossip.config.access import MAX_TOKENS, SocketRight, TokenConfig, hash_of, new_token
from xdp_gossip.core.types import Address

ALLOWED, FOREIGN = "app/one", "db/one"
PREFIXES = ("app/", "web")


def entry(name: str, rights: str, prefixes: tuple[str, ...] = ()) -> TokenConfig:
    """A token whose text is made of its name."""
    return TokenConfig(name, hash_of(f"the-token-called-{name}"), rights, prefixes)


TOKENS = (
    *(entry(right, right) for right in ("read", "write", "admin")),
    *(entry(f"{right}-some", right, PREFIXES) for right in ("read", "write")),
)

#: Every operation of the description: the right that it needs, the body that it takes, and whether it concerns one
#: document ("key"), all documents ("all"), or none ("").
TABLE: dict[tuple[str, str], tuple[str, bytes | None, str]] = {
    ("GET", "/v1/health"): ("public", None, ""),
    ("GET", "/v1/status"): ("read", None, ""),
    ("GET", "/v1/keys"): ("read", None, ""),
    ("GET", "/v1/sealing-key"): ("read", None, ""),
    ("GET", "/v1/configuration"): ("admin", None, ""),
    ("GET", "/v1/metrics"): ("read", None, ""),
    ("GET", "/v1/openapi.yaml"): ("read", None, ""),
    ("GET", "/v1/nodes"): ("read", None, ""),
    ("DELETE", "/v1/nodes/{node}"): ("admin", None, ""),
    ("GET", "/v1/sd/prometheus"): ("read", None, ""),
    ("GET", "/v1/node"): ("read", None, ""),
    ("PATCH", "/v1/node"): ("admin", b'{"name": "other"}', ""),
    ("POST", "/v1/node/join"): ("admin", b'{"nodes": ["198.18.0.12:8000"]}', ""),
    ("POST", "/v1/node/start"): ("admin", None, ""),
    ("POST", "/v1/node/stop"): ("admin", None, ""),
    ("POST", "/v1/node/leave"): ("admin", None, ""),
    ("GET", "/v1/documents"): ("read", None, ""),
    ("POST", "/v1/documents"): ("write", b'{"documents": [{"key": "KEY", "value": "x"}]}', "key"),
    ("GET", "/v1/documents/{key}"): ("read", None, "key"),
    ("PUT", "/v1/documents/{key}"): ("write", b"x", "key"),
    ("DELETE", "/v1/documents/{key}"): ("write", None, "key"),
    ("GET", "/v1/history/{key}"): ("read", None, "key"),
    ("POST", "/v1/rollback/{key}"): ("write", b'{"version": "0000000000000005@198.18.0.11:8000"}', "key"),
    ("POST", "/v1/repair"): ("write", b"{}", "all"),
    ("GET", "/v1/requests/{id}"): ("read", None, ""),
    ("DELETE", "/v1/requests/{id}"): ("write", None, ""),
    ("GET", "/v1/watch"): ("read", None, ""),
    ("GET", "/v1/rendered"): ("read", None, ""),
    ("GET", "/v1/rendered/fleet"): ("read", None, "all"),
    ("GET", "/v1/convergence"): ("read", None, "all"),
    ("GET", "/list"): ("read", None, ""),
    ("GET", "/metadata"): ("read", None, "all"),
    ("POST", "/set"): ("admin", b'{"Addr": "198.18.0.13", "Port": 8000}', ""),
    ("POST", "/publish"): ("write", b"x", "all"),
    ("POST", "/stop"): ("admin", None, ""),
    ("GET", "/stop"): ("admin", None, ""),
    ("POST", "/start"): ("admin", None, ""),
    ("GET", "/start"): ("admin", None, ""),
}


class Fleet(FakeNodeList):
    """A node list with a document inside and one outside the prefixes."""

    def __init__(self) -> None:
        super().__init__()
        self._write(ALLOWED, b"1", "raw", "", "", False)
        self._write(FOREIGN, b"2", "raw", "", "", False)

    async def troubled_files(self, timeout: float) -> Any:
        """No member has trouble."""
        from xdp_gossip.node.fleetfiles import FleetFiles

        return FleetFiles(1, 1, 0, (), 0, ())


async def compared() -> dict[str, Any]:
    """The configuration is the same."""
    return {"file": "/etc/xdp-gossip/agent.yml", "problems": [], "reload": [], "restart": []}


@contextlib.asynccontextmanager
async def served(
    fake: Any, access: Access, path: Path | None = None, *, audit: Audit | None = None, **more: Any
) -> AsyncIterator[tuple[Any, dict[str, int]]]:
    """The API on TCP, or on the Unix socket ``path``; yields a function that makes a client for a token."""
    counters: dict[str, int] = {}
    audit = audit or Audit(counters)
    app = build_app(
        fake, local=path is not None, access=access, audit=audit, counters=counters, compared=compared, **more
    )
    server = ApiServer(app, counters)
    if path is not None:
        await server.open_unix(str(path))
        base = "http://localhost"
    else:
        base = f"http://{await server.open_tcp(Address('127.0.0.1', 0))}"
    async with contextlib.AsyncExitStack() as stack:

        async def client(name: str = "", header: str = "") -> Api:
            header = header or (f"Bearer the-token-called-{name}" if name else "")
            connector = aiohttp.UnixConnector(str(path)) if path is not None else None
            session = aiohttp.ClientSession(
                connector=connector,
                headers={"Authorization": header} if header else {},
                timeout=aiohttp.ClientTimeout(total=20),
            )
            return Api(await stack.enter_async_context(session), base)

        try:
            yield client, counters
        finally:
            await stack.aclose()
            await asyncio.wait_for(server.close(), 10)


def test_every_operation_has_its_row() -> None:
    assert {key: row[0] for key, row in TABLE.items()} == {key: one["x-right"] for key, one in OPERATIONS.items()}


def test_every_route_declares_the_right_of_the_description() -> None:
    async def main() -> None:
        for local in (True, False):
            app = build_app(FakeNodeList(), local=local, token="x" * 16, ui=True)  # type: ignore[arg-type]
            for route in app.router.routes():
                path, method = str(route.resource and route.resource.canonical), route.method.replace("HEAD", "GET")
                right = route.handler.right  # type: ignore[attr-defined]
                expected = "public" if path.startswith("/ui/") else OPERATIONS[method, path]["x-right"]
                assert right.word == expected, (method, path)

    asyncio.run(main())


def as_user(monkeypatch: pytest.MonkeyPatch, uid: int, *gids: int) -> None:
    """Make every client of the socket this user."""
    monkeypatch.setattr(app_module, "peer_of", lambda sock: Peer(uid, frozenset(gids)))


@pytest.mark.parametrize("where", ["tcp", "socket"])
@pytest.mark.parametrize("who", [token.name for token in TOKENS])
def test_every_operation_with_every_right(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, who: str, where: str
) -> None:
    right, _, limited = who.partition("-")
    prefixes = PREFIXES if limited else ()

    async def ask(api: Api, method: str, path: str, key: str, body: bytes | None) -> Answer:
        path = path.replace("{key}", key).replace("{node}", "198.18.0.12:8000").replace("{id}", "request-1")
        return await api(
            method,
            path,
            params="timeout=0" if "watch" in path else "",
            body=body and body.replace(b"KEY", key.encode()),
        )

    async def main() -> None:
        if where == "tcp":
            access = Access(None, TOKENS)
        else:
            as_user(monkeypatch, 4_000_000_001)
            access = Access(None, (), (SocketRight("4000000001", "", right, prefixes),))
        async with served(Fleet(), access, tmp_path / "s" if where == "socket" else None) as (client, counters):
            api = await client(who if where == "tcp" else "")
            refused = 0
            for (method, path), (needed, body, concerns) in TABLE.items():
                if (method, path) in (("GET", "/stop"), ("GET", "/start")) and where == "tcp":
                    continue  # on the socket only
                for key in (ALLOWED, FOREIGN) if concerns == "key" else ("",):
                    answer = await ask(api, method, path, key, body)
                    has = ("public", "read", "write", "admin").index(right)
                    may = has >= ("public", "read", "write", "admin").index(needed)
                    own = not limited or concerns == "" or (concerns == "key" and key == ALLOWED)
                    if may and own:
                        assert answer.status not in (401, 403), (method, path, key, answer)
                        continue
                    refused += 1
                    assert (answer.status, answer.code) == (403, "forbidden"), (method, path, key, answer)
                    text = answer.json["error"]["message"]
                    assert (f"needs the right {needed}" in text) if not may else ("app/ or web" in text), text
            assert counters["api_forbidden"] == refused

    asyncio.run(main())


@pytest.mark.slow
def test_without_a_token_nothing_but_the_health() -> None:
    async def main() -> None:
        async with served(Fleet(), Access(None, TOKENS)) as (client, counters):
            for header in (
                *(
                    "",
                    "Bearer",
                    "Bearer ",
                    "Bearer wrong-token",
                    "Basic the-token-called-admin",
                    "the-token-called-admin",
                ),
                *(f"Bearer {TOKENS[2].hash}", f"Bearer {TOKENS[2].hash[7:]}", "Bearer the-token-called-admin x"),
                *("Bearer THE-TOKEN-CALLED-ADMIN", "Bearer the-token-called-admi\u00f1", "Digest x"),
            ):
                api = await client(header=header)
                for (method, path), (needed, body, _concerns) in TABLE.items():
                    answer = await api(
                        method, path.replace("{key}", ALLOWED), body=None if needed == "public" else body
                    )
                    assert answer.status == (200 if needed == "public" else 401), (method, path, header)
            assert counters["api_forbidden"] == 0
            assert counters["api_unauthorized"] > 0
            assert (await (await client(header="bearer  the-token-called-read "))("GET", "/v1/node")).status == 200

    asyncio.run(main())


def test_the_hash_of_the_empty_text_lets_nobody_in() -> None:
    async def main() -> None:
        nothing = (TokenConfig("nothing", hash_of(""), "admin"),)
        async with served(Fleet(), Access(None, nothing)) as (client, counters):
            for header in ("Bearer", "Bearer ", "bearer   "):
                assert (await (await client(header=header))("GET", "/v1/documents")).status == 401
            assert counters["api_unauthorized"] == 3

    asyncio.run(main())


def test_a_route_without_a_right_does_not_start() -> None:
    from aiohttp import web

    async def handler(_request: web.Request) -> web.StreamResponse:
        return web.Response()

    audit = Audit({})
    with pytest.raises(AssertionError, match="expected a route with the right"):
        add_to(web.Application(), [web.get("/x", handler)], audit)  # type: ignore[list-item]
    with pytest.raises(AssertionError, match="expected the right that a client needs"):
        Route("read", "GET", "/x", handler)  # type: ignore[arg-type]
    app = web.Application()
    add_to(app, [get(Right.READ, "/x", handler)], audit)
    assert all(route.handler.right is Right.READ for route in app.router.routes())  # type: ignore[attr-defined]


# -- prefixes ----------------------------------------------------------------------------------------------------


def test_a_prefix_is_the_beginning_of_the_text() -> None:
    some = Identity("ci", Right.WRITE, ("app/", "web"))
    assert [key for key in ("app/a", "app", "apple", "web", "website/x", "xapp/a", "App/a") if some.may_use(key)] == [
        *("app/a", "web", "website/x")
    ]
    assert some.narrowed("") == ("app/", "web")
    assert some.narrowed("ap") == ("app/",)
    assert some.narrowed("app/b") == ("app/b",)
    assert some.narrowed("db") == ()
    assert Identity("ci", Right.READ).narrowed("db") == ("db",)


def test_lists_have_only_the_keys_of_the_client() -> None:
    async def main() -> None:
        fake = Fleet()
        for key in ("app/two", "web", "website", "ap", "zebra", "app/three"):
            await fake.publish(b"x", key)
        mine = ["app/one", "app/three", "app/two", "web", "website"]
        async with served(fake, Access(None, TOKENS)) as (client, _counters):
            some, everything = await client("read-some"), await client("read")

            async def keys(api: Api, params: str = "") -> list[str]:
                found = (await api("GET", "/v1/documents", params=params)).json["documents"]
                return [document["key"] for document in found]

            assert await keys(some) == mine
            assert len(await keys(everything)) == 8
            assert await keys(some, "prefix=app/t") == ["app/three", "app/two"]
            assert await keys(some, "prefix=ap") == ["app/one", "app/three", "app/two"]
            assert await keys(some, "prefix=db") == []
            for limit in (1, 2, 3, 4, 5, 6):
                listed, cursor, pages = [], "", 0
                while True:
                    query = f"limit={limit}" + (f"&cursor={cursor}" if cursor else "")
                    page = (await some("GET", "/v1/documents", params=query)).json
                    listed += [document["key"] for document in page["documents"]]
                    pages += 1
                    if page["next_cursor"] is None:
                        break
                    cursor = page["next_cursor"]
                assert (listed, pages) == (mine, -(-len(mine) // limit))
            tags = {(await api("GET", "/v1/documents")).headers["ETag"] for api in (some, everything)}
            assert len(tags) == 2

    asyncio.run(main())


@pytest.mark.parametrize("key", ["app/../db/one", "app/./../db/one", "app/%2e%2e/db/one", "app%2F..%2Fdb%2Fone"])
def test_dots_lead_nowhere(key: str) -> None:
    async def main() -> None:
        fake = Fleet()
        async with served(fake, Access(None, TOKENS)) as (client, _counters):
            some = await client("write-some")
            answer = await some("PUT", f"/v1/documents/{key}", body=b"x")
            assert (answer.status, answer.code) == (400, "invalid_key")
        assert sorted(fake.held) == [ALLOWED, FOREIGN]

    asyncio.run(main())


def test_a_batch_with_one_foreign_key_writes_nothing() -> None:
    async def main() -> None:
        fake = Fleet()
        async with served(fake, Access(None, TOKENS)) as (client, _counters):
            some = await client("write-some")
            documents: list[dict[str, Any]] = [{"key": "app/new", "value": "x"}, {"key": FOREIGN, "delete": True}]
            answer = await some("POST", "/v1/documents", json_body={"documents": documents})
            assert (answer.status, answer.json["error"]["key"]) == (403, FOREIGN)
            assert "documents[1].key" in answer.json["error"]["message"]
            assert "app/new" not in fake.held and len(fake.held[FOREIGN]) == 1
            answer = await some("POST", "/v1/documents", json_body={"documents": documents[:1]})
            assert answer.status == 200 and answer.json["documents"][0]["author"] == "write-some"

    asyncio.run(main())


def test_watch_and_streams_tell_of_own_keys_only() -> None:
    async def main() -> None:
        fake = Fleet()
        async with served(fake, Access(None, TOKENS)) as (client, _counters):
            some = await client("read-some")
            waiting = asyncio.ensure_future(some("GET", "/v1/watch", params=f"since={fake.revision}&timeout=20"))
            await asyncio.sleep(0.1)
            await fake.publish(b"3", FOREIGN)
            await asyncio.sleep(0.1)
            assert not waiting.done()
            await fake.publish(b"3", ALLOWED)
            assert [change["document"]["key"] for change in (await waiting).json["changes"]] == [ALLOWED]
            nothing = (await some("GET", "/v1/watch", params="since=0&timeout=0&prefix=db")).json
            assert nothing["changes"] == [] and nothing["revision"] == fake.revision

            url = f"{some.base}/v1/watch?since=0"
            async with some.session.get(url, headers={"Accept": "text/event-stream"}) as stream:
                await fake.publish(b"4", FOREIGN)
                await fake.publish(b"4", "website")
                text = b""
                while b"website" not in text:
                    text += await asyncio.wait_for(stream.content.readany(), 10)
            assert ALLOWED.encode() in text and FOREIGN.encode() not in text

    asyncio.run(main())


def test_waits_and_repairs_are_for_own_keys_only() -> None:
    async def main() -> None:
        async with served(Fleet(), Access(None, TOKENS)) as (client, _counters):
            some = await client("write-some")
            for key, status in ((ALLOWED, 200), (FOREIGN, 403)):
                assert (await some("GET", "/v1/convergence", params=f"key={key}")).status == status
                assert (await some("POST", "/v1/repair", json_body={"key": key})).status == status
            # A document that does not exist is denied like one that does.
            denied = [
                await some("GET", f"/v1/{path}/db/{key}") for path in ("documents", "history") for key in ("one", "no")
            ]
            assert {(answer.status, answer.code) for answer in denied} == {(403, "forbidden")}

    asyncio.run(main())


def test_rendered_files_of_foreign_documents_are_not_shown() -> None:
    def rendered() -> list[dict[str, Any]]:
        shape: dict[str, Any] = {
            "path": "/x",
            "state": "applied",
            "digest": None,
            "error": "",
            "output": "",
            "drift": "",
        }
        shape.update(drifts=0, since="2026-01-01T00:00:00Z", changed=None, renderings=1)
        sources = {"own": [ALLOWED], "both": [ALLOWED, FOREIGN], "foreign": [FOREIGN], "none": []}
        return [{"name": name, "documents": dict.fromkeys(keys), **shape} for name, keys in sources.items()]

    async def main() -> None:
        async with served(Fleet(), Access(None, TOKENS), rendered=rendered) as (client, _counters):
            names = {}
            for who in ("read-some", "read"):
                answer = await (await client(who))("GET", "/v1/rendered")
                names[who] = [one["name"] for one in answer.json["templates"]]
            assert names == {"read-some": ["own"], "read": ["own", "both", "foreign", "none"]}

    asyncio.run(main())


def test_the_outcome_of_a_request_is_for_its_client() -> None:
    async def main() -> None:
        async with served(Fleet(), Access(None, TOKENS)) as (client, _counters):
            first, second, admin = await client("write-some"), await client("write"), await client("admin")
            headers = {"X-XDP-Gossip-Request-Id": "request-1"}
            assert (await first("PUT", f"/v1/documents/{ALLOWED}", body=b"9", headers=headers)).status == 200
            reused = await second("PUT", f"/v1/documents/{ALLOWED}", body=b"9", headers=headers)
            assert (reused.status, reused.code) == (409, "request_id_reused")
            for method in ("GET", "DELETE"):
                assert (await second(method, "/v1/requests/request-1")).code == "request_not_found"
            for api in (first, admin):
                assert (await api("GET", "/v1/requests/request-1")).json["state"] == "done"

    asyncio.run(main())


# -- who wrote it ------------------------------------------------------------------------------------------------


def test_the_author_is_the_client_that_authenticated() -> None:
    async def main() -> None:
        fake = Fleet()
        async with served(fake, Access("the-token-called-file", TOKENS)) as (client, _counters):
            for who, name in (("write", "write"), ("file", "token_file")):
                api = await client(who)
                for said, comment in (
                    *(("", ""), ("comment=why", "why"), (f"author={name}&comment=why", "why")),
                    *(("author=admin", "[admin]"), ("author=alice&comment=why", "[alice] why")),
                ):
                    await fake.delete("app/x")
                    written = (await api("PUT", "/v1/documents/app/x", params=said, body=b"x")).json
                    assert (written["author"], written["comment"]) == (name, comment), said
                long = await api("PUT", "/v1/documents/app/x", params=f"author=me&comment={'c' * 1024}", body=b"y")
                assert (long.status, long.code) == (400, "invalid_request")
                assert "at most 1019 bytes" in long.json["error"]["message"]
                assert (await api("POST", "/publish", body=who.encode())).json["author"] == name
                version = (await api("GET", "/v1/history/app/x")).json["versions"][-1]["version"]
                body = {"version": version, "author": "bob"}
                back = await api("POST", "/v1/rollback/app/x", json_body=body)
                assert back.status == 200
                assert fake.held["app/x"][0].author in (name, "")

    asyncio.run(main())


# -- the Unix socket ---------------------------------------------------------------------------------------------


def test_who_may_open_the_socket_is_admin_unless_rights_are_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rights = (
        SocketRight("", "4100000001", "write", ("app/",)),
        SocketRight("4000000002", "", "read"),
        SocketRight("", "no-such-group", "admin"),
    )

    async def may(access: Access, uid: int, *gids: int) -> list[int]:
        as_user(monkeypatch, uid, *gids)
        async with served(Fleet(), access, tmp_path / "s") as (client, _counters):
            api = await client()
            asked = [("GET", "/v1/health"), ("GET", "/v1/node"), ("PUT", "/v1/documents/app/a"), ("POST", "/stop")]
            return [(await api(method, path, body=b"" if method == "PUT" else None)).status for method, path in asked]

    async def main() -> None:
        assert await may(Access(), 4_000_000_001) == [200, 200, 200, 200]
        access = Access(None, (), rights)
        assert await may(access, 4_000_000_001) == [200, 403, 403, 403]
        assert await may(access, 4_000_000_001, 4_100_000_001) == [200, 200, 200, 403]
        assert await may(access, 4_000_000_002) == [200, 200, 403, 403]
        # The first entry that names the user or one of the groups counts.
        assert await may(access, 4_000_000_002, 4_100_000_001) == [200, 200, 200, 403]
        for uid in (0, os.geteuid()):
            assert await may(access, uid) == [200, 200, 200, 200]

    asyncio.run(main())


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become another user")
def test_the_kernel_names_the_user_and_its_groups() -> None:
    import socket
    import subprocess
    import sys

    code = (
        "import os, socket, sys\n"
        "os.setgroups([4100000001, 4100000002]); os.setgid(4100000003); os.setuid(4000000001)\n"
        "s = socket.socket(socket.AF_UNIX); s.connect(chr(0) + sys.argv[1]); s.recv(1)"
    )
    name = f"xdp-gossip-test-{os.getpid()}"  # an abstract name, which has no permissions
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(f"\0{name}")
        listening.listen()
        listening.settimeout(20)
        with subprocess.Popen([sys.executable, "-c", code, name]):
            with listening.accept()[0] as sock:
                peer = peer_of(sock)
    assert peer == Peer(4_000_000_001, frozenset({4_100_000_001, 4_100_000_002, 4_100_000_003}))


def test_names_are_looked_up_once_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    from xdp_gossip.api import accounts

    asked: list[Any] = []

    def looked_up(wanted: Any) -> dict[Any, Any]:
        asked.append(list(wanted))
        return {one: "bob" if isinstance(one, int) else 7 for one in wanted}

    monkeypatch.setattr(accounts, "_looked_up", looked_up)

    async def main() -> None:
        now = 0.0
        known = Accounts(lambda: now)
        entries = (SocketRight("", "ops", "read"),)
        for _ in range(3):
            await known.learn(Peer(5, frozenset({7})), entries)
        assert asked == [[5, "group:ops"]]
        assert known.name(5) == "bob" and known.matches(Peer(5, frozenset({7})), entries[0])
        assert not known.matches(Peer(5, frozenset({8})), entries[0])
        now = 61.0
        await known.learn(Peer(5, frozenset({7})), entries)
        assert len(asked) == 2

    asyncio.run(main())


# -- reload ------------------------------------------------------------------------------------------------------


def test_a_token_that_is_removed_ends_what_it_has_open() -> None:
    async def main() -> None:
        fake = Fleet()
        access = Access(None, TOKENS)
        async with served(fake, access) as (client, _counters):
            read, write = await client("read"), await client("write")

            async def stream(api: Api) -> bytes:
                headers = {"Accept": "text/event-stream"}
                async with api.session.get(f"{api.base}/v1/watch", headers=headers) as answer:
                    return await answer.content.read()

            streams = [asyncio.ensure_future(stream(api)) for api in (read, write)]
            polls = [asyncio.ensure_future(api("GET", "/v1/watch", params="timeout=20")) for api in (read, write)]

            async def open_ones() -> bool:
                return len(access._held) == 4

            await eventually(open_ones)
            access.configure(None, (TOKENS[1], *TOKENS[2:]), ())  # without "read"
            assert b"event: hello" in await asyncio.wait_for(streams[0], 10)
            assert (await asyncio.wait_for(polls[0], 10)).status == 401
            await asyncio.sleep(0.1)
            assert not streams[1].done() and not polls[1].done()
            assert (await read("GET", "/v1/node")).status == 401
            assert (await write("GET", "/v1/node")).status == 200
            # The same name and another token, or the same token with another right, is another client.
            access.configure(None, (TokenConfig("write", TOKENS[1].hash, "read"),), ())
            await asyncio.wait_for(streams[1], 10)
            assert (await asyncio.wait_for(polls[1], 10)).status == 401
            assert (await write("PUT", f"/v1/documents/{ALLOWED}", body=b"x")).status == 403
            assert not access._held

    asyncio.run(main())


@pytest.mark.slow
def test_a_write_whose_token_is_removed_while_it_arrives_takes_no_effect() -> None:
    async def main() -> None:
        fake = Fleet()
        access = Access(None, TOKENS)
        async with served(fake, access) as (client, _counters):
            api = await client("admin")
            begun = asyncio.Event()

            async def slow() -> AsyncIterator[bytes]:
                yield b"one "
                begun.set()
                await asyncio.sleep(0.3)
                yield b"two"

            for method, path in (("PUT", "/v1/documents/app/late"), ("PATCH", "/v1/node"), ("POST", "/publish")):
                access.configure(None, TOKENS, ())
                begun.clear()
                sent = asyncio.ensure_future(api.session.request(method, api.base + path, data=slow()))
                await begun.wait()
                await asyncio.sleep(0.1)
                access.configure(None, (TOKENS[0],), ())
                answer = await sent
                assert answer.status == 401, path
        assert sorted(fake.held) == [ALLOWED, FOREIGN] and fake.record.name == "host1"

    asyncio.run(main())


def test_each_of_a_thousand_tokens_is_recognised() -> None:
    held = tuple(TokenConfig(f"t{n}", hash_of(f"token-number-{n}"), "read") for n in range(MAX_TOKENS))
    access = Access(None, held)
    for n in range(0, MAX_TOKENS, 50):
        found = access.of_token(f"Bearer token-number-{n}")
        assert found is not None and found.name == f"t{n}"
        assert access.of_token(f"Bearer token-number-{n}x") is None


def test_every_hash_is_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    compared_with: list[bytes] = []

    def compare(held: bytes, given: bytes) -> bool:
        compared_with.append(held)
        return held == given

    monkeypatch.setattr(access_module.hmac, "compare_digest", compare)
    access = Access("the-token-called-file", TOKENS)
    for name in ("file", "read", "write-some", "unknown"):
        compared_with.clear()
        access.of_token(f"Bearer the-token-called-{name}")
        assert len(compared_with) == len(TOKENS) + 1


def test_a_new_token_has_enough_entropy() -> None:
    made = {new_token() for _ in range(100)}
    assert len(made) == 100 and all(len(token) >= 43 and token.isascii() for token in made)
    token = made.pop()
    assert hash_of(token) == f"sha256:{hashlib.sha256(token.encode()).hexdigest()}"
    assert token not in json.dumps(TokenConfig("x", hash_of(token), "read").__dict__)
