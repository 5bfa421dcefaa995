# SPDX-License-Identifier: MIT
"""Accepting connections: without descriptors it pauses, counts, and says so once; a crowd leaves the loop its turns."""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from typing import Any

import pytest

from xdp_gossip.common import quiet as quiet_module
from xdp_gossip.common.quiet import Quiet, QuietFilter
from xdp_gossip.core.types import Address
from xdp_gossip.transport import accepting
from xdp_gossip.transport.accepting import Acceptor
from xdp_gossip.transport.tcp import TcpTransport


class Scarce(socket.socket):
    """A listening socket whose ``accept`` fails with ``errors`` first."""

    errors: list[int]

    def accept(self) -> tuple[socket.socket, Any]:
        if self.errors:
            number = self.errors.pop(0)
            raise OSError(number, errno.errorcode[number])
        return super().accept()


def listening(*errors: int) -> Scarce:
    sock = Scarce()
    sock.errors = list(errors)
    sock.bind(("127.0.0.1", 0))
    sock.listen(64)
    sock.setblocking(False)
    return sock


@pytest.mark.slow
@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM])
def test_without_descriptors_accepting_pauses_and_goes_on(
    number: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(accepting, "PAUSE_S", 0.01)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        taken: asyncio.Queue[socket.socket] = asyncio.Queue()
        sock = listening(*[number] * 50)
        pauses = []
        later = loop.call_later

        def call_later(delay: float, callback: Any, *args: Any, **more: Any) -> asyncio.TimerHandle:
            pauses.append(delay)
            return later(delay, callback, *args, **more)

        monkeypatch.setattr(loop, "call_later", call_later)
        counters: dict[str, int] = {}
        acceptor = Acceptor(sock, lambda connection, _peer: taken.put_nowait(connection), counters, "errors", "a port")
        assert counters == {"errors": 0}
        acceptor.start()
        try:
            with socket.create_connection(sock.getsockname()):
                (await taken.get()).close()
        finally:
            acceptor.close()
        # Each failure is one try and one pause.
        assert counters == {"errors": 50}
        assert pauses.count(0.01) == 50

    asyncio.run(main())
    lines = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert lines == [f"a port: not accepted: {errno.errorcode[number]}"]


def test_a_connection_that_fails_costs_no_other(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        taken: asyncio.Queue[socket.socket] = asyncio.Queue()
        sock = listening(errno.ECONNABORTED, errno.EPERM)
        counters: dict[str, int] = {}
        acceptor = Acceptor(sock, lambda connection, _peer: taken.put_nowait(connection), counters, "errors", "a port")
        acceptor.start()
        with socket.create_connection(sock.getsockname()):
            (await taken.get()).close()
        acceptor.close()
        acceptor.close()
        assert counters == {"errors": 2}

    asyncio.run(main())


def test_a_crowd_leaves_the_loop_its_turns() -> None:
    async def main() -> None:
        taken: list[socket.socket] = []
        sock = listening()
        crowd = [socket.create_connection(sock.getsockname()) for _ in range(3 * accepting.TURN)]
        acceptor = Acceptor(sock, lambda connection, _peer: taken.append(connection), {}, "errors", "a port")
        acceptor.start()
        seen = [0]
        while len(taken) < len(crowd):
            await asyncio.sleep(0)
            seen.append(len(taken))
        acceptor.close()
        assert max(after - before for before, after in zip(seen, seen[1:])) <= accepting.TURN
        for connection in [*crowd, *taken]:
            connection.close()

    asyncio.run(main())


def test_the_gossip_port_counts_what_it_cannot_accept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accepting, "PAUSE_S", 0.01)

    async def main() -> None:
        transport = TcpTransport(Address("127.0.0.1", 0), size=1400, buffer=8)
        sock = listening(errno.EMFILE, errno.EMFILE)
        monkeypatch.setattr(transport, "_listener", lambda: sock)
        await transport.open(lambda *_args: True)
        assert transport.counters["accept_errors"] == 0
        with socket.create_connection(sock.getsockname()):
            while not transport.counters["connections_accepted"]:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        assert transport.counters["accept_errors"] == 2
        await transport.close()

    asyncio.run(main())


def test_what_others_cause_is_said_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    now = [1000.0]
    say = Quiet(logging.getLogger("test"), clock=lambda: now[0])
    say("token", "a wrong token", "a")
    for source in "abbb":
        say("token", "a wrong token", source)
    say("other", "something else")
    now[0] += quiet_module.QUIET_S
    say("token", "a wrong token", "c")
    assert [record.getMessage() for record in caplog.records] == [
        "a wrong token, from a",
        "something else",
        "a wrong token, from c (4 more like it in 60 s, 3 of them from b)",
    ]
    # Neither kinds nor sources that others make up take memory without end.
    for number in range(10_000):
        say(f"kind {number}", "text", f"source {number}")
        say("token", "a wrong token", f"source {number}")
    assert len(say._said) <= quiet_module.MAX_KINDS + 1
    assert all(len(sources) <= quiet_module.MAX_SOURCES + 1 for sources in say._hidden.values())


def test_a_logger_says_the_same_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    now = [1000.0]
    log = logging.getLogger("test.asyncio")
    held = QuietFilter(clock=lambda: now[0])
    log.addFilter(held)
    for number in range(5):
        log.warning("socket %d failed", number)
    now[0] += quiet_module.QUIET_S
    log.warning("socket %d failed", 9)
    log.removeFilter(held)
    assert [record.getMessage() for record in caplog.records] == [
        "socket 0 failed",
        "socket 9 failed (4 more like it in 60 s)",
    ]
