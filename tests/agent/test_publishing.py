# SPDX-License-Identifier: MIT
"""First the disk, then the others: what a publish promises when the disk fails, is slow, or others write meanwhile."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Sequence
from typing import Any

import pytest

from xdp_gossip.core.interface import ProtocolError
from xdp_gossip.core.types import Address, Document, Node, Version, Write
from xdp_gossip.nodelist import AsyncNodeList, Limits
from xdp_gossip.store import MemoryStore, StateStore, StoreError, Unread

SECRET = "a secret of sixteen bytes"


class Disk(MemoryStore):
    """A disk that can be full, or held up."""

    def __init__(self) -> None:
        super().__init__()
        self.full = False
        self.gate = threading.Event()
        self.gate.set()

    def save_documents(
        self, documents: Sequence[Document], withdrawn: Sequence[Document] = (), unread: Sequence[Unread] = ()
    ) -> None:
        self.gate.wait(30)
        if self.full:
            raise StoreError("/var/lib/xdp-gossip/state.db: database or disk is full")
        super().save_documents(documents, withdrawn, unread)

    def save_nodes(self, known: Sequence[object]) -> None:
        if self.full:
            raise StoreError("/var/lib/xdp-gossip/state.db: database or disk is full")


class Member(AsyncNodeList):
    """One on loopback, with such a disk."""

    def __init__(self, number: int, **parameters: Any) -> None:
        super().__init__(secret_key=SECRET, cycle=0.2, listen_addr=f"127.0.0.{number}", **parameters)
        self.new(Node(f"127.0.0.{number}", 28411, f"host{number}"))
        self.disk = Disk()

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


async def pair(**parameters: Any) -> tuple[Member, Member]:
    left, right = Member(21, **parameters), Member(22)
    left.set(Node("127.0.0.22", 28411))
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
        assert Version(0, Address.of("127.0.0.21", 28411)) < versions[0]
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
