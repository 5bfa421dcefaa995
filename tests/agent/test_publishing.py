# SPDX-License-Identifier: MIT
"""First the disk, then the others: what a publish promises when the disk fails, is slow, or others write meanwhile."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence

import pytest

from xdp_gossip.core.interface import ProtocolError
from xdp_gossip.core.types import Address, Document, Node, Version
from xdp_gossip.nodelist import AsyncNodeList
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

    def __init__(self, number: int) -> None:
        super().__init__(secret_key=SECRET, cycle=0.2, listen_addr=f"127.0.0.{number}")
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


async def pair() -> tuple[Member, Member]:
    left, right = Member(21), Member(22)
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
