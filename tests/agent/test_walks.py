# SPDX-License-Identifier: MIT
"""docs/architecture.md, "Three walks": the files that a publish passes from HTTP to the disk and the wire."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from walk_tracer import PACKAGE, Route, Tracer, climbs, stations

from tests.pages import page, rows
from tests.support.keys import KEY
from tests.support.ports import free_port
from tests.tools.test_floors import floors, place
from xdp_gossip import AsyncNodeList, Node
from xdp_gossip.api.app import build_app
from xdp_gossip.api.documents import Documents
from xdp_gossip.api.server import ApiServer
from xdp_gossip.node import publishing
from xdp_gossip.store.sqlite import StateStore, Store
from xdp_gossip.wire.native import NativeCodec

SECTION = page("architecture.md").split("\n## Three walks\n")[1].split("\n## ")[0]
STATIONS = [name.strip("`") for name, _ in rows(SECTION, "| station | what it does with the publish |")]
CLIMBS = set(re.findall(r"from `([\w/.]+)` to `([\w/.]+)`", re.sub(r"\s+", " ", SECTION)))
#: Limits of the page, which says them in words.
MOST_STATIONS, MOST_CLIMBS = 10, 1
HANDLER, ENCODER = Documents.publish.__code__, NativeCodec.encode.__code__


async def publish(tracer: Tracer, directory: Path) -> None:
    """Publish a document twice over a Unix socket, and trace the second time."""
    port = free_port()
    async with AsyncNodeList(listen_addr="127.0.0.1", secret_key=KEY, state_dir=directory, cycle=60) as node_list:
        node_list.new(Node("127.0.0.1", port, "one"))
        node_list.set(Node("127.0.0.2", port, "a seed that is absent"))
        await node_list.join()
        assert node_list._disk is not None
        await node_list._disk.run(lambda store: watch(store, tracer))
        server = ApiServer(build_app(node_list, local=True))
        await server.open_unix(str(directory / "socket"))
        connector = aiohttp.UnixConnector(str(directory / "socket"))
        async with aiohttp.ClientSession(connector=connector) as client:
            for value in (b"warm", b"walk"):
                if value == b"walk":
                    tracer.start()
                async with client.put("http://agent/v1/documents/app", data=value) as answer:
                    assert answer.status == 200 and (await answer.json())["changed"]
        tracer.stop()
        await server.close()


def watch(store: StateStore, tracer: Tracer) -> None:
    """Have ``tracer`` see each statement of a store. Only the thread that opened the store may ask for that."""
    assert isinstance(store, Store) and store._database is not None
    store._database.set_trace_callback(tracer.on_statement)


def traced(directory: Path, monkeypatch: pytest.MonkeyPatch) -> list[Route]:
    """The paths of one publish, those to the disk first."""
    # The writer must wait for the publish: the settling of the first publish, a second later, would keep it busy.
    monkeypatch.setattr(publishing, "_SETTLE_AFTER", 3600.0)
    tracer = Tracer(HANDLER, ENCODER)
    tracer.install()
    try:
        asyncio.run(publish(tracer, directory))
    finally:
        tracer.remove()
    assert all(tracer.paths.values()), "the publish reaches the disk, the encoder and the socket"
    return [path for paths in tracer.paths.values() for path in paths]


def floor_of(file: str) -> int:
    """The floor of a file below the package, as the page has it."""
    table = floors()
    return table[place(file.removesuffix(".py").replace("/", "."), table)]


def test_a_publish_passes_the_stations_and_climbs_of_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = traced(tmp_path, monkeypatch)
    assert stations(paths) == STATIONS
    assert climbs(paths, floor_of) == CLIMBS
    assert len(STATIONS) <= MOST_STATIONS and len(CLIMBS) <= MOST_CLIMBS
    assert f"at most {MOST_STATIONS} stations and climbs at most once" in re.sub(r"\s+", " ", SECTION)


def test_a_station_and_a_climb_that_are_added_are_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A function in a file of the highest floor comes between the encoder and its caller."""
    names: dict[str, Any] = {"encode": NativeCodec.encode}
    source = "def detour(self, header, message):\n    return encode(self, header, message)\n"
    exec(compile(source, str(PACKAGE / "cli" / "detour.py"), "exec"), names)
    monkeypatch.setattr(NativeCodec, "encode", names["detour"])
    paths = traced(tmp_path, monkeypatch)
    assert set(stations(paths)) == {*STATIONS, "cli/detour.py"}
    assert climbs(paths, floor_of) - CLIMBS == {("core/outbox.py", "cli/detour.py")}
