# SPDX-License-Identifier: MIT
"""First the disk, then the others: what a publish promises when the disk fails, is slow, or others write meanwhile."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Awaitable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from tests.support.keys import KEY
from tests.support.ports import free_port
from xdp_gossip.core.events import DocumentChanged
from xdp_gossip.core.interface import Known, ProtocolError
from xdp_gossip.core.settings import Limits
from xdp_gossip.core.types import Address, Document, Node, Version, Write
from xdp_gossip.node import publishing, runtime
from xdp_gossip.node.runtime import Runtime
from xdp_gossip.nodelist import AsyncNodeList, Published
from xdp_gossip.store import unsaved
from xdp_gossip.store.sqlite import MemoryStore, NotedError, StateStore, StoreError, Unread

SECRET = KEY
PORT = free_port()


class Disk(MemoryStore):
    """A disk that can be full, or held up. It outlives its member."""

    def __init__(self, history: int = 10) -> None:
        super().__init__(history)
        self.full = False
        self.fills_up_next = False  # with the next publish that it takes
        self.fails_when_done = False
        self.takes_notes = False
        self.gate = threading.Event()
        self.gate.set()

    def _check(self) -> None:
        self.gate.wait(30)
        if self.full:
            raise StoreError("/var/lib/xdp-gossip/state.db: database or disk is full")

    def save_documents(
        self, documents: Sequence[Document], withdrawn: Sequence[Document] = (), unread: Sequence[Unread] = ()
    ) -> None:
        self._check()
        super().save_documents(documents, withdrawn, unread)

    def stage(self, documents: Sequence[Document], kept: Sequence[Document] = ()) -> None:
        self._check()
        super().stage(documents, kept)
        self.full = self.fills_up_next
        if self.fails_when_done:
            raise StoreError("/var/lib/xdp-gossip/state.db: disk I/O error")

    def settle(self, kept: Sequence[Document], withdrawn: Sequence[Document]) -> int:
        if any(document in self.history(document.key) for document in withdrawn):  # else nothing is to be written
            if self.full and self.takes_notes:
                raise NotedError("/var/lib/xdp-gossip/state.db: database or disk is full")
            self._check()
        return super().settle(kept, withdrawn)

    @property
    def incarnation(self) -> int:
        return self._incarnation

    def save_incarnation(self, incarnation: int) -> None:
        self._check()
        super().save_incarnation(incarnation)

    def save_nodes(self, known: Sequence[Known]) -> None:
        if self.full:
            raise StoreError("/var/lib/xdp-gossip/state.db: database or disk is full")
        super().save_nodes(known)


class Member(AsyncNodeList):
    """One on loopback, with such a disk."""

    def __init__(self, number: int, **parameters: Any) -> None:
        super().__init__(secret_key=SECRET, cycle=0.2, listen_addr=f"127.0.0.{number}", **parameters)
        self.new(Node(f"127.0.0.{number}", PORT, f"host{number}"))
        self.disk = Disk(self.settings.history)

    def _open_store(self) -> StateStore:
        return self.disk


async def until(condition: object) -> None:
    assert callable(condition)
    async with asyncio.timeout(30) if hasattr(asyncio, "timeout") else _Never():
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.02)


class _Never:
    async def __aenter__(self) -> None:
        pass

    async def __aexit__(self, *_: object) -> None:
        pass


def run_ahead(member: Member) -> None:
    """Five seconds, which puts what it publishes above what others publish at the same time."""
    runtime, right = member._joined(), Runtime.now
    runtime.now = lambda: replace(right(), wall_ns=right().wall_ns + 5 * 10**9)  # type: ignore[method-assign]


async def pair(**parameters: Any) -> tuple[Member, Member]:
    left, right = Member(21, **parameters), Member(22)
    left.set(Node("127.0.0.22", PORT))
    await left.join()
    await right.join()
    await until(lambda: len(left.members()) == 2 and len(right.members()) == 2)
    return left, right


def test_a_publish_that_failed_has_not_happened() -> None:
    async def main() -> None:
        left, right = await pair()
        await left.publish(b"before", "k")
        await until(lambda: right.read("k") == b"before")
        left.disk.full = True
        for _ in range(2):
            with pytest.raises(StoreError, match="full"):
                await left.publish(b"after", "k")
            with pytest.raises(StoreError, match="full"):
                await left.delete("k")
        assert left.read("k") == b"before"
        assert left.status()["storage_error"]
        left.disk.full = False
        await left.publish(b"marker", "other")
        await until(lambda: right.read("other") == b"marker")
        assert left.read("k") == right.read("k") == b"before"
        assert [document.value for document in await left.history("k")] == [b"before"]
        assert left.status()["storage_error"] is None
        await left.close()
        await right.close()

    asyncio.run(main())


@pytest.mark.slow
def test_nobody_hears_of_a_publish_before_it_is_on_the_disk() -> None:
    async def main() -> None:
        left, right = await pair()
        left.disk.gate.clear()
        pending = asyncio.ensure_future(left.publish(b"v", "k"))
        heartbeats = right.status()["counters"]["rx_heartbeat"]
        await until(lambda: right.status()["counters"]["rx_heartbeat"] >= heartbeats + 5)
        assert not pending.done()
        assert left.document("k") is None and right.document("k") is None
        left.disk.gate.set()
        await pending
        await until(lambda: right.read("k") == b"v")
        await left.close()
        await right.close()

    asyncio.run(main())


@pytest.mark.slow
def test_a_member_counts_when_a_document_is_on_its_disk() -> None:
    async def main() -> None:
        left, right = await pair()
        right.disk.gate.clear()
        await left.publish(b"v", "k")
        await until(lambda: right.read("k") == b"v")
        found = await left.convergence("k", wait="all", timeout=0.0)
        assert (found.converged, found.confirmed) == (False, 1)
        assert {result["reason"] for result in found.results if not result["holds"]} == {"not on its disk yet"}
        mine = {result["addr"]: result["reason"] for result in (await right.convergence("k", timeout=0.0)).results}
        assert mine["127.0.0.22"] == "not on its disk yet"
        right.disk.gate.set()
        assert (await left.convergence("k", wait="all", timeout=30.0)).converged
        await left.close()
        await right.close()

    asyncio.run(main())


def test_what_comes_between_is_compared_with_and_overtaken_again() -> None:
    async def main() -> None:
        left, right = await pair()
        for absent, expected in ((True, b"theirs"), (False, b"mine")):
            key = f"k{absent}"
            left.disk.gate.clear()
            pending = asyncio.ensure_future(left.publish(b"mine", key, absent=absent))
            await asyncio.sleep(0)
            await right.publish(b"theirs", key)
            await until(lambda key=key: left.read(key) == b"theirs")
            left.disk.gate.set()
            if absent:
                with pytest.raises(ProtocolError, match="expected no document"):
                    await pending
            else:
                await pending
            await until(lambda key=key, expected=expected: left.read(key) == right.read(key) == expected)
            assert [d.value for d in await left.history(key)].count(b"mine") == (not absent)
        await left.close()
        await right.close()

    asyncio.run(main())


def test_publishes_of_one_key_at_once_come_one_after_the_other() -> None:
    async def main() -> None:
        left, right = await pair()
        written = await asyncio.gather(*(left.publish(b"%d" % number, "k") for number in range(20)))
        versions = [result.document.version for result in written if result.document is not None]
        assert versions == sorted(set(versions))
        assert left.read("k") == b"19"
        assert left.document("k") is not None
        assert Version(0, Address.of("127.0.0.21", PORT)) < versions[0]
        await left.close()
        await right.close()

    asyncio.run(main())


async def outcomes(*publishes: Awaitable[object]) -> list[str]:
    """What came of each: the code of its refusal, or ok."""
    done = await asyncio.gather(*publishes, return_exceptions=True)
    assert not [error for error in done if isinstance(error, BaseException) and not hasattr(error, "code")], done
    return [str(getattr(result, "code", "ok")) for result in done]


def test_publishes_at_once_share_the_room_that_is_left() -> None:
    async def main() -> None:
        one = Member(21, limits=Limits(document=64 * 1024, store=100 * 1024, documents=16))
        await one.join()
        one.disk.gate.clear()
        pending = [asyncio.ensure_future(one.publish(bytes(30 * 1024), f"k{number}")) for number in range(12)]
        pending.append(
            asyncio.ensure_future(one.publish_many([Write(f"many{number}", bytes(20 * 1024)) for number in range(3)]))
        )
        await asyncio.sleep(0)
        one.disk.gate.set()
        assert await outcomes(*pending) == ["ok"] * 3 + ["store_full"] * 10
        assert one.status()["document_bytes"] == 90 * 1024
        # What failed, or was given up, has given its room back.
        await one.publish(b"", "k0")
        one.disk.full = True
        with pytest.raises(StoreError):
            await one.publish(bytes(30 * 1024), "k1000")
        one.disk.full = False
        await one.publish(bytes(30 * 1024), "k1001")
        # Documents are counted, too: there are 4, and 16 is the most.
        assert (await outcomes(*(one.publish(b"", f"small{number}") for number in range(20)))).count("ok") == 12
        assert one.status()["documents"] == 16
        await one.close()

    asyncio.run(main())


def test_what_comes_from_others_meanwhile_may_take_the_room() -> None:
    async def main() -> None:
        left, right = await pair(limits=Limits(document=64 * 1024, store=100 * 1024))
        left.disk.gate.clear()
        pending = asyncio.ensure_future(left.publish(bytes(60 * 1024), "mine"))
        await asyncio.sleep(0)
        await right.publish(bytes(60 * 1024), "theirs")
        await until(lambda: left.document("theirs") is not None)
        left.disk.gate.set()
        assert await outcomes(pending) == ["store_full"]
        assert left.document("mine") is None
        assert await left.history("mine") == []
        await left.close()
        await right.close()

    asyncio.run(main())


async def overtaken(left: Member, right: Member, key: str = "k") -> asyncio.Future[Published]:
    """A publish of ``left``, held up on its way to the disk until another version of ``right`` has arrived.

    That one ranks below, so that the other would hold if ``left`` started again.
    """
    run_ahead(left)
    left.disk.gate.clear()
    pending = asyncio.ensure_future(left.publish(b"mine", key, absent=True))
    await asyncio.sleep(0)
    await right.publish(b"theirs", key)
    await until(lambda: left.read(key) == b"theirs")
    left.disk.gate.set()
    return pending


@pytest.mark.slow
def test_a_publish_that_lost_is_taken_from_a_disk_that_was_full_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (publishing, runtime):
        monkeypatch.setattr(module, "_RETRY", 0.1)

    async def main() -> None:
        left, right = await pair()
        left.disk.fills_up_next = True
        with pytest.raises(StoreError, match=r"is full; what was written of 'k' may still be on the disk"):
            await (await overtaken(left, right))
        assert [version.value for version in left.disk.history("k")] == [b"mine"]
        assert await left.history("k") == [], "it has not happened"
        assert left.status()["storage_error"]
        failed = left.status()["counters"]["withdrawals_failed"]
        assert failed and left.status()["counters"]["documents_withdrawn"] == 0
        await until(lambda: left.status()["counters"]["withdrawals_failed"] >= failed + 2)
        # Nothing more is written as long as that is there.
        staged = left.disk.history("other")
        with pytest.raises(StoreError, match=r"is full$"):
            await left.publish(b"v", "other")
        assert left.disk.history("other") == staged == []
        left.disk.full = left.disk.fills_up_next = False
        await until(lambda: left.status()["counters"]["documents_withdrawn"] == 1)
        await until(lambda: left.status()["storage_error"] is None)
        await left.close()
        assert [document.value for document in left.disk.load().documents] == [b"theirs"]
        await right.close()

    asyncio.run(main())


@pytest.mark.parametrize("full", [False, True])
def test_what_is_owed_to_the_disk_is_settled_at_the_end(full: bool, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        left, right = await pair()
        left.disk.fills_up_next = True
        with pytest.raises(StoreError, match="full"):
            await (await overtaken(left, right))
        left.disk.full = left.disk.fills_up_next = full
        await left.close()
        await right.close()
        held = [document.value for document in left.disk.load().documents]
        assert held == ([b"mine"] if full else [b"theirs"])
        assert full == any("it will hold after a restart" in record.message for record in caplog.records)

    asyncio.run(main())


def test_a_transaction_that_fails_when_all_is_written_leaves_nothing() -> None:
    async def main() -> None:
        one = Member(21)
        await one.join()
        await one.publish(b"before", "k")
        one.disk.fails_when_done = True
        with pytest.raises(StoreError, match=r"disk I/O error$"):
            await one.publish_many([Write("k", b"after"), Write("l", b"new")])
        assert one.read("k") == b"before"
        assert one.status()["counters"]["documents_withdrawn"] == 2
        await one.close()
        assert [document.value for document in one.disk.load().documents] == [b"before"]

    asyncio.run(main())


def test_a_publish_that_loses_takes_nobody_from_the_disk() -> None:
    """With one version to keep of each document, that is the one that holds."""

    async def main() -> None:
        left, right = await pair(history=1)
        await right.publish(b"before", "l")
        await until(lambda: left.read("l") == b"before")
        run_ahead(left)
        for key in ("k", "l"):
            expected = left.document(key)
            left.disk.gate.clear()
            version = expected.version if expected is not None else None
            pending = asyncio.ensure_future(left.publish(b"mine", key, absent=version is None, expected=version))
            await asyncio.sleep(0)
            await right.publish(b"theirs", key)
            await until(lambda key=key: left.read(key) == b"theirs")
            left.disk.gate.set()
            with pytest.raises(ProtocolError, match="expected"):
                await pending
            await until(lambda: not left.status()["storage_error"] and left._joined().unstored == {})
            assert [document.value for document in await left.history(key)] == [b"theirs"]
        await left.close()
        assert [document.value for document in left.disk.load().documents] == [b"theirs", b"theirs"]
        await right.close()

    asyncio.run(main())


def test_what_is_replaced_leaves_the_history_once_it_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publishing, "_SETTLE_AFTER", 0.1)

    async def main() -> None:
        one = Member(21, history=1)
        await one.join()
        for value in (b"1", b"2"):
            await one.publish(value, "k")
            assert [document.value for document in await one.history("k")] == [value]
        await until(lambda: len(one.disk.history("k")) == 1)
        one.disk.gate.clear()
        pending = asyncio.ensure_future(one.publish(b"3", "k"))
        await asyncio.sleep(0)
        one.disk.gate.set()
        await pending
        await one.close()
        assert [document.value for document in one.disk.history("k")] == [b"3"]

    asyncio.run(main())


def test_an_engine_that_fails_at_a_commit_leaves_nothing_on_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        one = Member(21)
        await one.join()

        def fail(*_: object) -> bool:
            raise ZeroDivisionError("a bug")

        with monkeypatch.context() as patch:
            patch.setattr(one._joined().engine.documents, "commit", fail)
            with pytest.raises(ZeroDivisionError):
                await one.publish(b"v", "k")
        assert one.disk.history("k") == []
        await one.publish(b"v", "k")
        assert one.read("k") == b"v"
        await one.close()

    asyncio.run(main())


@pytest.mark.slow
def test_versions_that_a_full_disk_did_not_take_have_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (publishing, runtime):
        monkeypatch.setattr(module, "_RETRY", 0.1)
    monkeypatch.setattr(unsaved, "_MOST", 100_000)

    async def main() -> None:
        left, right = await pair()
        left.disk.full = True
        sizes = [0]
        for number in range(60):
            await right.publish(bytes([number]) * 10_000, "k")
            await until(lambda number=number: left.read("k")[:1] == bytes([number]))
            sizes.append(waiting_bytes(left))
        assert max(sizes) < 150_000, "60 versions have 600,000 bytes"
        await right.publish(b"v", "l")
        await until(lambda: left.read("l") == b"v")
        told = "the last versions of 2 documents are in memory only"
        await until(lambda: told in (left.status()["storage_error"] or ""))
        given_up = left.status()["counters"]["versions_given_up"]
        assert 50 <= given_up < 59
        left.disk.full = False
        await until(lambda: left.status()["storage_error"] is None)
        assert left._joined().unstored == {}
        assert [version.value[:1] for version in await left.history("k")][:3] == [bytes([59]), bytes([58]), bytes([57])]
        await left.close()
        assert [document.value for document in left.disk.load().documents] == [bytes([59]) * 10_000, b"v"]
        await right.close()

    asyncio.run(main())


def waiting_bytes(member: Member) -> int:
    """Of all values that are kept in memory for the disk."""
    queue = member._joined()._unsaved
    changes = [*queue._waiting.changes.values(), *queue._taken.changes.values()]
    return sum(change.document.size for change in changes if isinstance(change, DocumentChanged))


def test_an_incarnation_that_a_full_disk_did_not_take_is_written_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "_RETRY", 0.1)

    async def main() -> None:
        one = Member(21)
        await one.join()
        one.disk.full = True
        one.stop()
        one.start()
        await until(lambda: one.status()["storage_error"])
        raised = one.status()["node"]["incarnation"]
        assert one.disk.incarnation < raised
        one.disk.full = False
        await until(lambda: one.disk.incarnation == raised and one.status()["storage_error"] is None)
        await one.close()

    asyncio.run(main())


def test_documents_that_cannot_be_stored_at_the_end_keep_no_node_from_it(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        left, right = await pair()
        monkeypatch.setattr(left.disk, "save_documents", full)
        await right.publish(b"v", "k")
        await until(lambda: left.status()["storage_error"])
        left.disk.save_nodes([])
        await left.close()
        assert [known.address.ip for known in left.disk.load().known] == ["127.0.0.22"]
        await right.close()

    def full(*_: object) -> None:
        raise StoreError("full")

    asyncio.run(main())


def test_a_disk_that_hangs_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "_HUNG", 0.05)

    async def main() -> None:
        left, right = await pair()
        left.disk.gate.clear()
        await right.publish(b"v", "k")
        pending = asyncio.ensure_future(left.publish(b"v", "l"))
        told = r"the state file has not answered for \d+ s; the last versions of 1 documents are in memory only"
        await until(lambda: re.fullmatch(told, left.status()["storage_error"] or ""))
        left.disk.gate.set()
        await pending
        await until(lambda: left.status()["storage_error"] is None)
        await left.close()
        await right.close()

    asyncio.run(main())


def test_a_publish_that_lost_and_is_noted_has_not_happened(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        left, right = await pair()
        left.disk.fills_up_next = left.disk.takes_notes = True
        with pytest.raises(ProtocolError, match="expected no document"):
            await (await overtaken(left, right))
        assert left.status()["storage_error"]
        assert [version.value for version in left.disk.history("k")] == [b"mine"]
        assert await left.history("k") == []
        await left.close()
        assert not any("it will hold after a restart" in record.message for record in caplog.records)
        await right.close()

    asyncio.run(main())


@pytest.mark.parametrize("what", ["batch", "deletion", "given up"])
def test_whatever_loses_is_withdrawn_as_a_whole(what: str) -> None:
    async def main() -> None:
        left, right = await pair(history=1)
        for key in ("k", "l"):
            await right.publish(b"before", key)
            await until(lambda key=key: left.read(key) == b"before")
        known = left.document("k")
        assert known is not None
        run_ahead(left)
        left.disk.gate.clear()
        if what == "deletion":
            pending = asyncio.ensure_future(left.delete("k", expected=known.version))
        else:
            writes = [Write("k", b"mine", expected=known.version), Write("l", b"mine"), Write("m", b"mine")]
            pending = asyncio.ensure_future(left.publish_many(writes))
        await asyncio.sleep(0)
        await right.publish(b"theirs", "k")
        await until(lambda: left.read("k") == b"theirs")
        if what == "given up":
            pending.cancel()
            await asyncio.wait([pending])
        left.disk.gate.set()
        if what != "given up":
            with pytest.raises(ProtocolError, match="expected"):
                await pending
        await left.close()
        held = {document.key: document.value for document in left.disk.load().documents}
        assert held == {"k": b"theirs", "l": b"before"}
        await right.close()

    asyncio.run(main())


@pytest.mark.slow
def test_a_disk_that_stays_full_is_logged_now_and_then_and_counted(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("_NODES_AFTER", "_NODES_EVERY", "_RETRY"):
        monkeypatch.setattr(f"xdp_gossip.node.runtime.{name}", 0.0)

    async def main() -> None:
        left, right = await pair()

        def times(what: str) -> int:
            return int(left.status()["counters"][f"{what}_not_stored"])

        def logged(what: str) -> list[str]:
            texts = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
            return [text for text in texts if text.startswith(f"{what} not stored")]

        assert times("nodes") == times("documents") == times("incarnation") == 0
        left.disk.full = True
        await right.publish(b"v", "k")
        await until(lambda: times("nodes") > 20 and times("documents") > 20)
        assert len(logged("known nodes")) == len(logged("documents")) == 1
        monkeypatch.setattr("xdp_gossip.node.runtime._DISK_QUIET", 0.0)
        await until(lambda: len(logged("known nodes")) > 1 and len(logged("documents")) > 1)
        assert "more like it before)" in logged("known nodes")[1] and "more like it before)" in logged("documents")[1]
        left.disk.full = False
        await until(lambda: left.status()["storage_error"] is None)
        await left.close()
        await right.close()

    asyncio.run(main())
