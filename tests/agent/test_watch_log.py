# SPDX-License-Identifier: MIT
"""The change feed itself: what is kept, what is a gap, who is woken, and what hundreds of waiters cost."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from xdp_gossip import AsyncNodeList, Node, NotReadyError
from xdp_gossip.core.types import Address, Document, Member, State, Version
from xdp_gossip.node.changes import ALL, Change, ChangeLog, Filter, Zone

ADDRESS = Address("198.18.0.11", 8000)


def document(key: str, value: bytes = b"x") -> Document:
    return Document(key, Version(1 << 16, ADDRESS), value)


def member() -> Member:
    return Member(ADDRESS, State.ALIVE, 1, 1, None, 0.0, 0, True)


def keys(changes: Any) -> list[str]:
    return [change.document.key if change.document else change.kind for change in changes]


class Counting(ChangeLog):
    """Counts how often somebody looks at the log, and at how many changes."""

    def __init__(self, **options: int) -> None:
        super().__init__(0, **options)
        self.looks = 0

    def since(self, revision: int, wanted: Filter = ALL) -> Any:
        self.looks += 1
        return super().since(revision, wanted)


async def turns(count: int = 5) -> None:
    """Let the others go on."""
    for _ in range(count):
        await asyncio.sleep(0)


def run(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(work, 60))


def test_what_is_kept_and_what_is_a_gap() -> None:
    log = ChangeLog(1000, kept=4)
    assert log.since(1000).changes == ()
    assert not log.since(1000).gap
    assert log.since(999).gap
    assert log.since(1001).gap  # from an agent with another clock
    for number in range(10):
        log.add("document", "published", document(f"k{number}"))
        found = log.since(log.revision - 1)
        assert (found.revision, found.gap, keys(found.changes)) == (1001 + number, False, [f"k{number}"])
    assert keys(log.since(1006).changes) == ["k6", "k7", "k8", "k9"]
    assert [change.revision for change in log.since(1008).changes] == [1009, 1010]
    assert not log.since(1006).gap
    assert (log.since(1005).gap, log.since(1005).changes) == (True, ())
    assert log.since(1011).gap


def test_large_documents_shorten_what_is_kept() -> None:
    log = ChangeLog(0, kept=100, kept_bytes=1000)
    for number in range(10):
        log.add("document", "published", document(f"k{number}", bytes(300)))
        log.add("node", "joined", member=member())
    assert keys(log.since(14).changes) == ["k7", "node", "k8", "node", "k9", "node"]
    assert not log.since(13).gap
    assert log.since(12).gap
    # The last is kept however large it is: who waits for it must not be told of a gap.
    log.add("document", "published", document("large", bytes(5000)))
    assert keys(log.since(20).changes) == ["large"]
    assert log.since(19).gap
    log.add("node", "joined", member=member())
    assert keys(log.since(21).changes) == ["node"]


def test_filters() -> None:
    log = ChangeLog(0)
    log.add("document", "published", document("app/a"))
    log.add("node", "joined", member=member())
    log.add("document", "published", document("other"))
    assert keys(log.since(0, Filter("app/")).changes) == ["app/a", "node"]
    assert keys(log.since(0, Filter("app/", "document")).changes) == ["app/a"]
    assert keys(log.since(0, Filter("", "document")).changes) == ["app/a", "other"]
    assert keys(log.since(0, Filter("app/", "node")).changes) == ["node"]
    log.add("zone", "lost", zone=Zone("east", 3))
    assert [(change.event, change.zone) for change in log.since(0, Filter("", "zone")).changes] == [
        ("lost", Zone("east", 3))
    ]
    assert [change.kind for change in log.since(3, Filter("app/")).changes] == ["zone"]


def test_who_does_not_wait_for_a_change_is_not_woken_by_it() -> None:
    async def main() -> None:
        log = Counting(kept=64)
        waiting = asyncio.ensure_future(log.wait(0, 60, Filter("app/", "document")))
        await turns()
        assert log.looks == 1
        # More than are kept, and none of them of interest: no look, and no gap either.
        for number in range(500):
            log.add("document", "published", document(f"other/{number}"))
            log.add("node", "updated", member=member())
            log.wake()
            await turns(2)
        assert (log.looks, waiting.done()) == (1, False)
        log.add("document", "published", document("app/a"))
        found = await waiting
        assert log.looks == 2
        assert (found.gap, keys(found.changes), found.revision) == (False, ["app/a"], 1001)
        assert log._waiting == {}

    run(main())


@pytest.mark.slow
def test_a_wait_that_passes_over_much_ends_without_a_gap() -> None:
    async def main() -> None:
        log = ChangeLog(0, kept=64)
        waiting = asyncio.ensure_future(log.wait(0, 0.3, Filter("app/")))
        await turns()
        for number in range(500):
            log.add("document", "published", document(f"other/{number}"))
        found = await waiting
        assert (found.gap, found.changes, found.revision) == (False, (), 500)
        assert log._waiting == {}

    run(main())


@pytest.mark.slow
def test_hundreds_of_waiters_look_only_at_what_is_new() -> None:
    async def main() -> None:
        log = Counting()
        for number in range(4096):
            log.add("document", "published", document(f"k{number}"))
        seen: list[int] = []

        async def follow(prefix: str) -> None:
            revision = log.revision
            while revision < 4096 + 20:
                found = await log.wait(revision, 60, Filter(prefix))
                assert not found.gap
                seen.extend(change.revision for change in found.changes)
                revision = found.revision

        waiters = [asyncio.ensure_future(follow("app/")) for _ in range(400)]
        others = [asyncio.ensure_future(log.wait(log.revision, 60, Filter(f"other/{number}"))) for number in range(100)]
        await turns()
        log.looks = 0
        for number in range(20):
            log.add("document", "published", document(f"app/{number}"))
            await turns()
        await asyncio.gather(*waiters)
        assert sorted(seen) == sorted(list(range(4097, 4117)) * 400)
        # Each of the 400 looks once when woken and once before it waits again; the 100 others never.
        assert log.looks <= 400 * 20 * 2
        log.close()
        assert all(not found.changes for found in await asyncio.gather(*others))

    run(main())


def test_a_burst_is_one_answer() -> None:
    async def main() -> None:
        log = Counting()
        waiting = asyncio.ensure_future(log.wait(0, 60))
        await turns()
        for number in range(1000):
            log.add("document", "published", document(f"k{number}"))
        assert len((await waiting).changes) == 1000
        assert log.looks == 2

    run(main())


def test_cancelled_waiters_leave_nothing_behind() -> None:
    async def main() -> None:
        log = ChangeLog(0)
        tasks = [asyncio.ensure_future(log.wait(0, 60, Filter(f"p{number % 3}"))) for number in range(9)]
        tasks.append(asyncio.ensure_future(log.pause(60)))  # type: ignore[arg-type]
        await turns()
        assert len(log._waiting) == 3
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert (log._waiting, log._pausing) == ({}, set())

    run(main())


def test_a_slow_follower_is_told_of_the_gap_and_goes_on() -> None:
    async def main() -> None:
        log = ChangeLog(0, kept=8)
        changes = log.follow(0)
        log.add("document", "published", document("first"))
        assert keys([await changes.__anext__()]) == ["first"]
        for number in range(20):
            log.add("document", "published", document(f"k{number}"))
        gap = await changes.__anext__()
        assert (gap.kind, gap.event, gap.document, gap.member, gap.revision) == ("resync", "gap", None, None, 21)
        log.add("document", "published", document("later"))
        log.close()
        # What came before the end is still told.
        assert keys([change async for change in changes]) == ["later"]

    run(main())


def test_watching_a_node_list() -> None:
    async def main() -> None:
        node_list = AsyncNodeList(listen_addr="127.0.0.1")
        node_list.new(Node("127.0.0.1", 18_799, "A"))
        with pytest.raises(NotReadyError):
            node_list.watch()
        await node_list.join()
        with pytest.raises(ValueError, match="expected one of document, node"):
            node_list.watch(kind="nodes")
        seen: list[Change] = []

        async def follow() -> None:
            async for change in changes:
                seen.append(change)

        # From the call on, not from the first step on.
        changes = node_list.watch("app/", kind="document")
        before = node_list.revision
        await node_list.publish(b"0", "other")
        await node_list.publish(b"1", "app/a")
        task = asyncio.ensure_future(follow())
        await node_list.publish(b"2", "app/a")
        await node_list.delete("app/a")
        node_list.update_node(private_data="moved")
        await node_list.close()
        await asyncio.wait_for(task, 10)
        assert [(c.event, c.document.key, c.document.value) for c in seen if c.document] == [
            ("published", "app/a", b"1"),
            ("published", "app/a", b"2"),
            ("deleted", "app/a", b""),
        ]
        assert all(change.kind == "document" and change.revision > before for change in seen)
        with pytest.raises(NotReadyError, match="closed"):
            node_list.watch()
        with pytest.raises(NotReadyError, match="closed"):
            await node_list.changes(0, 0)

    run(main())
