# SPDX-License-Identifier: MIT
"""An agent that insists on a kernel data plane waits for it, and neither ends nor asks the loader all the time."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import socket
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from tests.support.agents import SECRET, agent
from tests.support.patience import patient
from xdp_gossip.core.types import Node
from xdp_gossip.nodelist import AsyncNodeList, NotReadyError
from xdp_gossip.service import planewait
from xdp_gossip.service.planewait import PlaneWait
from xdp_gossip.transport import NoPlane, TransportError


class Joining:
    """A node list: ``lacking`` is what join() says that there is not, "" when it succeeds."""

    def __init__(self, lacking: str = "protocol XDP: none is loaded") -> None:
        self.lacking = lacking
        self.error: Exception | None = None
        self.tries = 0

    async def join(self) -> None:
        self.tries += 1
        if self.error is not None:
            raise self.error
        if self.lacking:
            raise NoPlane(self.lacking)


class Rig:
    """A directory as the loader leaves it, and what was told."""

    def __init__(self, directory: Path) -> None:
        (directory / "ask").mkdir()
        self.directory, self.joining, self.told = directory, Joining(), 0
        self.wait = PlaneWait(self.joining, directory, "127.0.0.1", self._tell)

    def _tell(self) -> None:
        self.told += 1

    @property
    def request(self) -> Path:
        return self.directory / "ask" / "request"

    def loader_works(self, lacking: str) -> None:
        """It takes the request away, and leaves its state."""
        self.request.unlink(missing_ok=True)
        self.joining.lacking = lacking
        fresh = self.directory / "fresh"
        fresh.write_text("{}")
        os.replace(fresh, self.directory / "state.json")


async def until(there: Callable[[], object]) -> None:
    """Wait for something that happens soon."""
    deadline = time.monotonic() + patient(20)
    while not there():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


def run(rig_in: Path, scene: Callable[[Rig, asyncio.Task[bool]], Awaitable[None]]) -> bool:
    """Play a scene beside join(); returns its result."""

    async def play() -> bool:
        rig = Rig(rig_in)
        joins = asyncio.ensure_future(rig.wait.join())
        await until(lambda: rig.joining.tries)
        await scene(rig, joins)
        return await asyncio.wait_for(joins, patient(20))

    return asyncio.run(play())


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looks are cheap here."""
    monkeypatch.setattr(planewait, "PEEK_EVERY", 0.02)
    monkeypatch.setattr(planewait, "LOOK_EVERY", 0.02)


def test_it_joins_as_soon_as_the_loader_has_put_one_up(tmp_path: Path) -> None:
    async def scene(rig: Rig, joins: asyncio.Task[bool]) -> None:
        await until(rig.request.exists)
        assert rig.wait.waiting == "a kernel data plane (protocol XDP: none is loaded)"
        assert not joins.done()
        rig.loader_works("")
        await until(joins.done)
        assert (rig.wait.waiting, rig.told) == ("", 1)

    assert run(tmp_path, scene)


def test_one_that_fails_again_and_again_is_said_once_and_asked_for_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The loader works some seconds for each request: it is not asked at each failure, but after 5 s, 10 s, ..."""

    async def scene(rig: Rig, joins: asyncio.Task[bool]) -> None:
        await until(rig.request.exists)
        for _ in range(5):
            tries = rig.joining.tries
            rig.loader_works(rig.joining.lacking)
            await until(lambda tries=tries: rig.joining.tries > tries)
            assert not rig.request.exists()
        assert rig.told == 1
        rig.loader_works("protocol XDP: the loader waits: no interface has this address")
        await until(lambda: "no interface" in rig.wait.waiting)
        assert rig.told == 2
        for lacking in ("protocol XDP: is a loader at work?", "protocol XDP: none is loaded") * 3:
            rig.loader_works(lacking)
            await until(lambda lacking=lacking: lacking in rig.wait.waiting)
        rig.wait.stop()

    with caplog.at_level(logging.INFO, "xdp_gossip.dataplane"):
        assert not run(tmp_path, scene)
    lines = [record.getMessage() for record in caplog.records if "no member until there is one" in record.getMessage()]
    assert [line.split(";")[0] for line in lines] == [
        "protocol XDP: none is loaded",
        "protocol XDP: the loader waits: no interface has this address",
        "protocol XDP: is a loader at work?",
    ]
    assert "the loader is asked every 5 to 300 s" in lines[0]


def test_it_tries_again_when_it_is_told_to(tmp_path: Path) -> None:
    """Another agent that had the plane may have gone, which the loader's state does not tell."""

    async def scene(rig: Rig, joins: asyncio.Task[bool]) -> None:
        await until(lambda: rig.told)
        rig.joining.lacking = ""
        rig.wait.look()

    assert run(tmp_path, scene)


def test_what_waiting_does_not_help_is_raised(tmp_path: Path) -> None:
    async def scene(rig: Rig, joins: asyncio.Task[bool]) -> None:
        await until(lambda: rig.told)
        rig.joining.error = TransportError("198.18.0.1:8000 is in use")
        rig.wait.look()

    with pytest.raises(TransportError, match="in use"):
        run(tmp_path, scene)


def test_a_call_after_a_failed_join_says_why(tmp_path: Path) -> None:
    async def call() -> None:
        async with AsyncNodeList(protocol="TC", secret_key=SECRET, dataplane=tmp_path) as made:
            made.new(Node("127.0.0.1", 8000))
            with pytest.raises(NoPlane):
                await made.join()
            with pytest.raises(NotReadyError, match=r"last join\(\) failed: protocol TC: no kernel data plane"):
                made.status()

    asyncio.run(call())


@pytest.mark.slow
def test_the_process_stays_and_says_what_it_waits_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    manager.settimeout(patient(20))
    manager.bind(str(tmp_path / "notify"))
    plane = tmp_path / "plane"
    (plane / "ask").mkdir(parents=True)
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    monkeypatch.setenv("WATCHDOG_USEC", "200000")
    settings = {"protocol": "XDP", "dataplane": {"directory": str(plane)}}
    with manager, agent(tmp_path / "a", ready="no member until there is one", **settings) as waits:
        told = manager.recv(4096).decode()
        assert "READY=1" in told, "nobody who starts the unit is kept waiting"
        assert f"waiting for a kernel data plane (protocol XDP: no kernel data plane is loaded: {plane}" in told
        fed = 0
        while fed < 3:
            fed += "WATCHDOG=1" in manager.recv(4096).decode()
        waits.wait_until_logged("asked the loader to look again")
        assert json.loads((plane / "ask" / "request").read_text())["reason"].startswith("a kernel data plane")
        answer = waits.command("status")
        assert answer.returncode != 0
        assert b"protocol XDP: no kernel data plane is loaded" in answer.stderr
        (tmp_path / "a" / "agent.yml").write_text(
            (tmp_path / "a" / "agent.yml").read_text().replace('"name": "a"', '"name": "b"')
        )
        waits.process.send_signal(signal.SIGHUP)
        waits.wait_until_logged("configuration reloaded")
        assert "node.name or node.private_data, as it is no member yet" in waits.log_text()
        assert waits.log_text().count("no member until there is one") == 1
        assert waits.stop() == 0
    assert "Traceback" not in waits.log_text()
