# SPDX-License-Identifier: MIT
"""An exception that nobody foresaw is counted, logged once a minute with its place, told, and costs only itself."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from fake_node_list import FakeNodeList

from tests.support.agents import cluster
from tests.support.ports import free_port
from tests.support.process import ROOT
from xdp_gossip import AsyncNodeList, Document, Node, NodeList, StoreError
from xdp_gossip.cli.doctor.asking import examine
from xdp_gossip.cli.doctor.look import Look
from xdp_gossip.common.internal_errors import MAX_PLACES, QUIET, RECORD, Record, guarded, watch
from xdp_gossip.core.timers import Timers
from xdp_gossip.core.types import Now
from xdp_gossip.store.sqlite import MemoryStore, StateStore

pytest_plugins = ["pytester"]


def fail(text: str = "a bug") -> None:
    raise ZeroDivisionError(text)


def failing(text: str = "a bug") -> ZeroDivisionError:
    try:
        fail(text)
    except ZeroDivisionError as error:
        return error
    raise AssertionError


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_each_is_counted_and_a_place_is_logged_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    record = Record(clock)
    with caplog.at_level(logging.ERROR, "xdp_gossip.internal_errors"):
        for _ in range(5):
            record.add("packet", failing())
            clock.now += 1.0
        assert len(caplog.messages) == 1
        assert "internal error in packet at test_internal_errors.py:" in caplog.messages[0]
        assert "in fail: ZeroDivisionError: a bug" in caplog.messages[0]
        assert caplog.records[0].exc_info is not None
        clock.now += QUIET
        record.add("packet", failing("another"))
        assert "another (4 more since the last such line)" in caplog.messages[1]
    assert record.count == 6
    [found] = record.all()
    assert (found.task, found.error, found.count) == ("packet", "ZeroDivisionError: another", 6)


def test_the_places_kept_are_bounded() -> None:
    record = Record(Clock())
    for number in range(MAX_PLACES + 50):
        record.add(f"task {number}", failing())
    assert len(record.all()) == MAX_PLACES + 1
    assert record.count == MAX_PLACES + 50
    assert record.all()[0].place == "other places"


def test_the_place_is_the_agents_own_line() -> None:
    record = Record(Clock())
    try:
        Node("nonsense", 1).address  # noqa: B018
    except ValueError as error:
        record.add("packet", error)
    assert record.all()[0].place.startswith("core/types.py:")


def test_a_callback_and_a_task_that_fail_are_recorded() -> None:
    async def scenario() -> None:
        guarded("socket", fail)()
        task = asyncio.ensure_future(asyncio.to_thread(fail))
        watch(task, "state file")
        foreseen = asyncio.ensure_future(asyncio.to_thread(fail))
        watch(foreseen, "state file", ZeroDivisionError)
        await asyncio.wait({task, foreseen})
        await asyncio.sleep(0)

    asyncio.run(scenario())
    assert [(found.task, found.count) for found in RECORD.clear()] == [("socket", 1), ("state file", 1)]


def test_a_timer_that_fails_costs_no_other_its_turn() -> None:
    timers = Timers()
    ran: list[str] = []
    timers.at(1.0, lambda now: ran.append("first"))
    timers.at(1.0, lambda now: fail())
    timers.at(1.0, lambda now: ran.append("third"))
    with pytest.raises(ZeroDivisionError):
        timers.run(Now(1.0, 0))
    assert timers.next() == 1.0
    timers.run(Now(1.0, 0))
    assert ran == ["first", "third"]
    assert timers.next() is None


@pytest.mark.slow
def test_a_node_goes_on_after_a_failing_timer_and_tells_of_it() -> None:
    async def scenario() -> None:
        async with cluster(2) as (first, second):
            runtime = first._runtime
            assert runtime is not None
            runtime.engine._timers.at(0.0, lambda now: fail())  # type: ignore[attr-defined]
            runtime._on_timer()
            status = first.status()
            assert status["counters"]["internal_errors"] == 1
            assert [found["task"] for found in status["internal_errors"]] == ["timer"]
            assert first.healthy()
            await first.publish(b"after it")
            sent = first.members()[0].sequence
            await _until(lambda: second.read() == b"after it" and first.members()[0].sequence >= sent + 3)
            assert [found.task for found in RECORD.clear()] == ["timer"]

    asyncio.run(asyncio.wait_for(scenario(), 60))


async def _until(condition: Callable[[], bool]) -> None:
    for _ in range(1000):
        if condition():
            return
        await asyncio.sleep(0.02)
    raise AssertionError("it did not happen")


def test_timers_that_fail_for_ever_are_no_health() -> None:
    async def scenario() -> None:
        async with cluster(1) as (only,):
            runtime = only._runtime
            assert runtime is not None
            times = 0
            while only.healthy():
                runtime.engine._timers.at(0.0, lambda now: fail())  # type: ignore[attr-defined]
                runtime._on_timer()
                times += 1
                assert times < 1000
            assert RECORD.clear()[0].count == times
            runtime._on_timer()
            assert only.healthy()

    asyncio.run(scenario())


def test_the_thread_of_a_node_list_records_what_its_loop_cannot_place() -> None:
    with NodeList(listen_addr="127.0.0.1") as node_list:
        node_list.new(Node("127.0.0.1", free_port()))
        node_list.join()
        assert node_list._loop is not None
        node_list._loop.call_soon_threadsafe(fail)
        assert node_list.status()["counters"]["internal_errors"] == 1
    assert [found.task for found in RECORD.clear()] == ["event loop"]


def test_doctor_names_the_place() -> None:
    status = FakeNodeList().status()
    status["internal_errors"] = [{"task": "packet", "place": "core/x.py:1 in y", "error": "TypeError: z", "count": 3}]
    findings = [found for found in examine(Look("agent.yml", status=status)) if found.level == "error"]
    assert [found.text for found in findings] == [
        "3 internal errors in packet at core/x.py:1 in y; the last: TypeError: z"
    ]


@pytest.mark.slow
@pytest.mark.parametrize("what", ["recorded", "callback", "task", "log"])
def test_a_test_fails_in_which_one_happens(pytester: pytest.Pytester, what: str) -> None:
    """The check of tests/conftest.py itself."""
    pytester.makeconftest((ROOT / "tests" / "conftest.py").read_text())
    pytester.makeini(f"[pytest]\npythonpath = {ROOT / 'agent'} {ROOT}\n")
    happens = {
        "recorded": "from xdp_gossip.common.internal_errors import guarded\n    guarded('packet', fail)()",
        "callback": "async def main():\n        asyncio.get_running_loop().call_soon(fail)\n"
        "        await asyncio.sleep(0.01)\n    asyncio.run(main())",
        "task": "async def main():\n        asyncio.ensure_future(asyncio.to_thread(fail))\n"
        "        await asyncio.sleep(0.1)\n    asyncio.run(main())\n    import gc; gc.collect()",
        "log": "(tmp_path / 'n1').mkdir()\n"
        "    (tmp_path / 'n1' / 'log').write_text('internal error in packet at x.py:1: ZeroDivisionError: a bug')",
    }[what]
    pytester.makepyfile(
        f"import asyncio\ndef fail():\n    raise ZeroDivisionError('a bug')\ndef test_x(tmp_path):\n    {happens}\n"
        "def test_sound():\n    pass\n"
    )
    done = pytester.runpytest_subprocess("-p", "no:cacheprovider")
    # In a log it is found twice: after the test, and at the end.
    done.assert_outcomes(passed=2, errors=2 if what == "log" else 1)
    done.stdout.fnmatch_lines(["*ZeroDivisionError*a bug*"])
    for log in pytester.path.rglob("log"):
        log.unlink()


class _Faulty(MemoryStore):
    """A store that fails on documents whose key begins with bad, in a way that nobody foresaw."""

    def stage(self, documents: Sequence[Document], *others: Any) -> None:
        if any(document.key.startswith("bad") for document in documents):
            fail("in the store")
        super().stage(documents, *others)

    def history(self, key: str) -> list[Document]:
        if key.startswith("bad"):
            fail("in the history")
        return super().history(key)


class _OnFaulty(AsyncNodeList):
    def _open_store(self) -> StateStore:
        return _Faulty()


def test_a_failure_on_the_disk_thread_reaches_who_waits_and_the_next_works() -> None:
    async def main() -> None:
        made = _OnFaulty(listen_addr="127.0.0.1")
        made.new(Node("127.0.0.1", free_port(), "a"))
        await made.join()
        try:
            for _ in range(2):
                with pytest.raises(StoreError, match=r"internal error in the state file: .*: in the store"):
                    await asyncio.wait_for(made.publish(b"1", "bad/1"), 60)
                with pytest.raises(StoreError, match="in the history"):
                    await asyncio.wait_for(made.history("bad/1"), 60)
                assert made.document("bad/1") is None, "a publish that failed has not happened"
                assert (await asyncio.wait_for(made.publish(b"2", "good"), 60)).document is not None
        finally:
            await made.close()

    asyncio.run(main())
    found = RECORD.clear()
    assert {each.task for each in found} == {"state file"}
    assert sum(each.count for each in found) == 4
