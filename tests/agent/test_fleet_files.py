# SPDX-License-Identifier: MIT
"""Rendered files in trouble on any member are told by every member."""

from __future__ import annotations

import asyncio
import os
import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from api_harness import Api, serving
from fake_node_list import FakeNodeList

from tests.support.keys import KEY
from tests.support.patience import patient
from tests.support.ports import free_port
from xdp_gossip import AsyncNodeList, Node
from xdp_gossip.config.templates import TemplateConfig
from xdp_gossip.core.applied import Applied, TroubledFile, TroubledFiles, for_an_answer
from xdp_gossip.core.interface import ProtocolError
from xdp_gossip.core.messages import FilesAnswer, FilesQuery
from xdp_gossip.core.queries import Queries
from xdp_gossip.core.types import Address, Now
from xdp_gossip.node.fleetfiles import FleetFiles
from xdp_gossip.templates.loop import Rendered

HERE, THERE = Address("198.18.0.11", 8000), Address("198.18.0.12", 8000)
NGINX = TroubledFile("nginx", "/etc/nginx/nginx.conf", "failed", 1_700_000_000_000, "validate: exit status 1")
NET = 50 + os.getpid() % 200


def many(number: int) -> TroubledFiles:
    files = tuple(TroubledFile(f"t{each}", f"/etc/{each}", "drifted", each, "why" * 40) for each in range(number))
    return TroubledFiles(number + 3, number, files)


async def fleet(number: int, **parameters: Any) -> list[AsyncNodeList]:
    """Members on loopback that see each other."""
    port = free_port()
    made: list[AsyncNodeList] = []
    for each in range(1, number + 1):
        ip = f"127.0.{NET}.{each}"
        member = AsyncNodeList(secret_key=KEY, cycle=0.2, listen_addr=ip, **parameters)
        member.new(Node(ip, port, f"host{each}"))
        if made:
            member.set(Node(f"127.0.{NET}.1", port))
        await member.join()
        made.append(member)

    async def seen() -> None:
        names = {f"host{each}" for each in range(1, number + 1)}
        while not all({seen.node.name for seen in member.members()} == names for member in made):  # noqa: ASYNC110
            await asyncio.sleep(0.02)

    await asyncio.wait_for(seen(), patient(30))
    return made


@pytest.mark.slow
def test_any_member_tells_of_the_files_of_all() -> None:
    async def main() -> None:
        one, two, three = await fleet(3)
        two.tell_applied(lambda key: Applied("none"), lambda: TroubledFiles(2, 1, (NGINX,)))
        three.tell_applied(lambda key: Applied("none"), lambda: many(30))
        for asked in (one, two, three):
            found = await asked.troubled_files(patient(20))
            assert (found.members, found.answered, found.silent) == (3, 3, [])
            assert found.templates == 35
            first, *others = found.files
            assert (first["name"], first["template"], first["path"]) == ("host2", NGINX.template, NGINX.path)
            assert (first["state"], first["error"]) == ("failed", NGINX.error)
            assert first["since"] == "2023-11-14T22:13:20.000Z"
            # What does not fit into one answer is counted; of its own files a member knows all.
            assert len(others) + found.untold == 30
            assert (found.untold == 0) is (asked is three)
        for member in (one, two, three):
            await member.close()

    asyncio.run(main())


def pass_over_questions(member: AsyncNodeList) -> None:
    """Have ``member`` give no answer about its files."""
    handlers = member._joined().engine._dispatcher.handlers  # type: ignore[attr-defined]
    handlers[FilesQuery] = lambda query, packet: None


@pytest.mark.slow
def test_a_member_that_does_not_answer_is_named() -> None:
    async def main() -> None:
        one, two = await fleet(2)
        # An older agent refuses a packet that it does not know.
        pass_over_questions(two)
        found = await one.troubled_files(0.7)
        assert (found.members, found.answered) == (2, 1)
        assert [silent["name"] for silent in found.silent] == ["host2"]
        assert one.status()["counters"]["tx_probe"] >= 2, "it was asked once only"
        await one.close()
        await two.close()

    asyncio.run(main())


@pytest.mark.slow
def test_the_question_ends_with_the_node_list() -> None:
    async def main() -> None:
        one, two = await fleet(2)
        pass_over_questions(two)
        asked = asyncio.ensure_future(one.troubled_files(3600))
        await asyncio.sleep(0.2)
        await one.close()
        assert (await asyncio.wait_for(asked, patient(20))).answered == 1
        await two.close()

    asyncio.run(main())


def test_pekonode_has_no_such_question() -> None:
    async def main() -> None:
        (one,) = await fleet(1, wire="pekonode")
        with pytest.raises(ProtocolError) as caught:
            await one.troubled_files()
        assert caught.value.code == "unsupported_operation"
        await one.close()

    asyncio.run(main())


class Out:
    """What an engine would send, tell and count."""

    def __init__(self) -> None:
        self.local = SimpleNamespace(unstored=frozenset)
        self.rng = random.Random(1)
        self.sent: list[Any] = []
        self.events: list[Any] = []
        self.counted: list[str] = []

    def send(self, message: object, to: Address, now: Now) -> None:
        self.sent.append(message)

    def emit(self, event: object) -> None:
        self.events.append(event)

    def count(self, name: str) -> None:
        self.counted.append(name)


def test_an_answer_that_nobody_asked_for_or_that_says_nonsense_is_counted() -> None:
    out = Out()
    queries = Queries(SimpleNamespace(table={}), out)  # type: ignore[arg-type]
    nonce = queries.ask_files([THERE], Now(1.0, 1.0))
    of_a_document = queries.ask("k", [THERE], Now(1.0, 1.0))
    assert out.sent[0] == FilesQuery(nonce)
    nonsense = TroubledFile("a", "/a", "fine", 0, "")
    packet: Any = SimpleNamespace(origin=THERE)
    queries.on_files_answer(FilesAnswer(nonce + 1, 0, 0, ()), packet)
    queries.on_files_answer(FilesAnswer(of_a_document, 0, 0, ()), packet)
    queries.on_files_answer(FilesAnswer(nonce, 1, 1, (nonsense,)), packet)
    assert out.counted == ["rx_unasked_response"] * 3 and not out.events
    queries.on_files_answer(FilesAnswer(nonce, 1, 1, (NGINX,)), packet)
    assert out.events[0].found == TroubledFiles(1, 1, (NGINX,))


@pytest.mark.parametrize("letter", ["x", "é", "\U0001f600", "\udc80"])
def test_an_answer_fits_into_a_datagram(letter: str) -> None:
    long = TroubledFile("t" * 64, f"/etc/{letter * 4000}/end", "drifted", 2**63, letter * 4000)
    found = for_an_answer(TroubledFiles(5, 5, (long,) * 5))
    assert (found.templates, found.troubled, len(found.files)) == (5, 5, 1)
    (file,) = found.files
    assert file.path.startswith("…") and file.path.endswith("/end") and len(file.path.encode()) <= 255
    assert file.error.endswith("…") and len(file.error.encode()) <= 256


def test_which_files_are_in_trouble(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1_700_000_000_000]
    monkeypatch.setattr(Rendered, "now_ms", staticmethod(lambda: now[0]))

    async def made() -> Rendered:
        return Rendered(TemplateConfig("nginx", "/s", "/etc/nginx/nginx.conf"))

    # Before Python 3.10, a part of it belongs to the loop in which it was made.
    rendered = asyncio.run(made())

    def told() -> tuple[str, str] | None:
        trouble = rendered.trouble()
        return trouble and (trouble.state, trouble.error)

    assert told() is None, "it has just started"
    now[0] += 59_999
    assert told() is None
    now[0] += 1
    assert told() == ("pending", "not rendered yet")
    rendered.settle("applied")
    assert told() is None
    rendered.settle("failed", "validate: exit status 1")
    assert told() == ("failed", "validate: exit status 1")
    rendered.settle("applied")
    rendered.drift = "its mode is 0777"
    assert told() == ("drifted", "its mode is 0777")


def test_the_api_tells_of_them(tmp_path: Path) -> None:
    class Fleet(FakeNodeList):
        """A member that knows of others' files."""

        async def troubled_files(self, timeout: float) -> FleetFiles:
            self.waited = timeout
            who = {"addr": "198.18.0.12", "port": 8000, "name": "host2"}
            file = {"template": "nginx", "path": "/a", "state": "failed", "error": "e"}
            file["since"] = "2026-11-29T11:00:00.000Z"
            return FleetFiles(3, 2, 4, [{**who, **file}], 1, [{**who, "name": "host3", "version": "0.1.0"}])

    async def main() -> None:
        fake = Fleet()
        async with serving(fake, tmp_path) as (api, _server):
            api: Api
            found = (await api("GET", "/v1/rendered/fleet")).json
            assert (found["members"], found["answered"], found["untold"], fake.waited) == (3, 2, 1, 2.0)
            assert (found["files"][0]["name"], found["silent"][0]["name"]) == ("host2", "host3")
            await api("GET", "/v1/rendered/fleet", params="timeout=0.5")
            assert fake.waited == 0.5
            for wrong in ("timeout=61", "timeout=soon", "wait=all"):
                assert (await api("GET", "/v1/rendered/fleet", params=wrong)).status == 400

    asyncio.run(main())
