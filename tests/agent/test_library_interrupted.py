# SPDX-License-Identifier: MIT
"""Calls of the library that are given up, doubled or overtaken: nothing is left half done, held or waiting."""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.keys import KEY
from xdp_gossip import AsyncNodeList, Node, NodeList
from xdp_gossip.core.events import Warned
from xdp_gossip.nodelist import NotReadyError
from xdp_gossip.store.sqlite import StoreError

AGENT = Path(__file__).resolve().parents[2] / "agent"
#: Tests of this file run in several processes at once.
ADDR = f"127.0.9.{os.getpid() % 250 + 1}"
NODE = Node(ADDR, 18_350, "a")
#: Steps of the event loop after which something is given up: from before its begin to after its end.
STEPS = range(12)


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    """No thread of a node list lives on."""
    yield
    for thread in threading.enumerate():
        if thread.name.startswith("xdp-gossip") and thread.is_alive():  # Python lists what never started, too
            thread.join(20)
            assert not thread.is_alive(), thread.name


def a_list(directory: Path, **more: Any) -> AsyncNodeList:
    found = AsyncNodeList(listen_addr=ADDR, state_dir=directory, secret_key=KEY, **more)
    found.new(NODE)
    return found


async def steps(number: int) -> None:
    for _ in range(number):
        await asyncio.sleep(0)


async def given_up(task: asyncio.Task[Any]) -> None:
    task.cancel()
    await asyncio.wait([task])


async def joins_and_closes(directory: Path) -> None:
    """Store and port are free."""
    again = a_list(directory)
    await again.join()
    await again.close()


@pytest.mark.parametrize("number", STEPS)
def test_a_join_that_is_given_up(tmp_path: Path, number: int) -> None:
    async def main() -> None:
        node_list = a_list(tmp_path)
        joining = asyncio.ensure_future(node_list.join())
        await steps(number)
        await given_up(joining)
        if joining.cancelled():
            await node_list.join()
        await node_list.close()
        await joins_and_closes(tmp_path)

    asyncio.run(main())


@pytest.mark.parametrize("number", STEPS)
def test_a_join_that_a_close_overtakes(tmp_path: Path, number: int) -> None:
    async def main() -> None:
        node_list = a_list(tmp_path)
        joining = asyncio.ensure_future(node_list.join())
        await steps(number)
        await node_list.close()
        await joins_and_closes(tmp_path)
        await asyncio.wait([joining])
        assert joining.exception() is None or isinstance(joining.exception(), NotReadyError)
        with pytest.raises(NotReadyError):
            node_list.get()
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(main())


def test_a_join_whose_last_step_fails(tmp_path: Path) -> None:
    """It is taken back whole: the sockets too."""

    class Failing(random.Random):
        fails = True

        def random(self) -> float:
            if self.fails:
                raise OSError("no randomness")
            return super().random()

    async def main() -> None:
        source = Failing()
        node_list = a_list(tmp_path, rng=source)
        with pytest.raises(OSError, match="no randomness"):
            await node_list.join()
        source.fails = False
        await node_list.join()
        await node_list.close()

    asyncio.run(main())


@pytest.mark.parametrize("number", STEPS)
def test_a_close_that_is_given_up(tmp_path: Path, number: int) -> None:
    async def main() -> None:
        node_list = a_list(tmp_path)
        await node_list.join()
        await node_list.publish(b"v", "k")
        closing = asyncio.ensure_future(node_list.close())
        await steps(number)
        await given_up(closing)
        await node_list.close()
        await joins_and_closes(tmp_path)

    asyncio.run(main())


def test_a_node_list_that_many_threads_close(tmp_path: Path) -> None:
    node_list = NodeList(listen_addr=ADDR, state_dir=tmp_path)
    node_list.new(NODE)
    node_list.join()
    errors: list[BaseException] = []

    def close() -> None:
        try:
            node_list.close()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=close) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    with NodeList(listen_addr=ADDR, state_dir=tmp_path) as again:
        again.new(NODE)
        again.join()


def test_a_node_list_that_many_threads_join(tmp_path: Path) -> None:
    """One joins; the others hear that join() was called before."""
    node_list = NodeList(listen_addr=ADDR, state_dir=tmp_path)
    node_list.new(NODE)
    results: list[BaseException | None] = []

    def join() -> None:
        try:
            node_list.join()
            results.append(None)
        except BaseException as error:
            results.append(error)

    threads = [threading.Thread(target=join) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results.count(None) == 1
    assert all(isinstance(result, NotReadyError) for result in results if result is not None)
    assert len(node_list.get()) == 1
    node_list.close()


@pytest.mark.parametrize("number", STEPS)
def test_a_publish_that_is_given_up(tmp_path: Path, number: int) -> None:
    """It has happened or not, and a restart changes nothing of that."""

    async def main() -> None:
        node_list = a_list(tmp_path)
        await node_list.join()
        await node_list.publish(b"old", "k")
        publishing = asyncio.ensure_future(node_list.publish(b"new", "k"))
        await steps(number)
        await given_up(publishing)
        # Behind whatever of it is on its way.
        await node_list.publish(b"other", "another key")
        held = node_list.read("k")
        assert (await node_list.history("k"))[0].value == held
        await node_list.close()
        again = a_list(tmp_path)
        await again.join()
        assert again.read("k") == held
        await again.close()

    asyncio.run(main())


@pytest.mark.parametrize("number", STEPS)
def test_publishes_that_a_close_overtakes(tmp_path: Path, number: int) -> None:
    """Each answers; what was acknowledged is there after a restart, and what failed has not happened."""

    async def main() -> None:
        node_list = a_list(tmp_path)
        await node_list.join()
        publishing = [asyncio.ensure_future(node_list.publish(b"%d" % i, f"k{i % 2}")) for i in range(6)]
        await steps(number)
        await node_list.close()
        await asyncio.wait(publishing)
        written: dict[str, bytes] = {}
        for i, task in enumerate(publishing):
            error = task.exception()
            assert error is None or isinstance(error, (StoreError, NotReadyError)), error
            if error is None:
                written[f"k{i % 2}"] = b"%d" % i
        again = a_list(tmp_path)
        await again.join()
        assert {document.key: document.value for document in again.documents()} == written
        await again.close()

    asyncio.run(main())


def test_a_handler_of_the_log_that_calls_the_node_list() -> None:
    """It runs on the node list's own thread, which cannot wait for itself."""
    import logging

    node_list = NodeList(listen_addr=ADDR)
    node_list.new(NODE)
    node_list.join()
    seen: list[object] = []
    told = threading.Event()

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            seen.append(len(node_list.get()))
            for call in (lambda: node_list.publish(b"x"), node_list.close):
                try:
                    call()
                except RuntimeError as error:
                    seen.append(str(error))
            told.set()

    handler = Handler()
    logging.getLogger("xdp_gossip").addHandler(handler)
    try:
        runtime = node_list._inner._runtime
        assert node_list._loop is not None and runtime is not None
        node_list._loop.call_soon_threadsafe(lambda: runtime._warn(Warned("test", "a warning")))
        assert told.wait(30)
    finally:
        logging.getLogger("xdp_gossip").removeHandler(handler)
        node_list.close()
    assert seen[0] == 1
    assert all("another thread" in str(said) for said in seen[1:3])


@pytest.mark.parametrize("last", ["", "node_list.publish(b'bye', 'k'); "])
def test_a_close_at_the_exit_of_the_program(tmp_path: Path, last: str) -> None:
    code = (
        "import atexit, logging, sys\n"
        "from xdp_gossip import Node, NodeList\n"
        "logging.basicConfig()\n"
        f"node_list = NodeList(listen_addr={ADDR!r}, state_dir=sys.argv[1])\n"
        f"node_list.new(Node({ADDR!r}, {NODE.port}))\n"
        "node_list.join()\n"
        f"atexit.register(lambda: ({last.rstrip('; ') or 'None'}, node_list.close()))\n"
    )
    words = (sys.executable, "-c", code, str(tmp_path))
    done = subprocess.run(words, cwd=AGENT, capture_output=True, text=True, timeout=100, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    if last:
        with NodeList(listen_addr=ADDR, state_dir=tmp_path) as again:
            again.new(NODE)
            again.join()
            assert again.read("k") == b"bye"


_SIGNALS = """
import sys, threading
from xdp_gossip import Node, NodeList
from xdp_gossip.nodelist import NotReadyError

node_list = NodeList(listen_addr=sys.argv[1], state_dir=sys.argv[2])
node_list.new(Node(sys.argv[1], int(sys.argv[3])))
calls = 0

def handler():
    global calls
    calls += 1
    try:
        node_list.get()
    except NotReadyError:
        pass

def trace(frame, event, argument):
    if event == "line":
        handler()
    return trace

def interrupted(call, *parameters):
    sys.settrace(trace)
    call(*parameters)
    sys.settrace(None)

interrupted(node_list.join)
for number in range(5):
    interrupted(node_list.publish, b"%d" % number)
interrupted(next, node_list.watch(since=0))
interrupted(node_list.close)
print(calls > 300)
"""


def test_a_handler_of_a_signal_may_call_wherever_it_interrupts(tmp_path: Path) -> None:
    """Stands for the handler: a trace, which runs between any two lines of whatever the calling thread does.

    It waited for the loop, which waited for a lock of whom it had interrupted.
    """
    words = (sys.executable, "-c", _SIGNALS, ADDR, str(tmp_path), str(NODE.port))
    done = subprocess.run(words, cwd=AGENT, capture_output=True, text=True, timeout=100, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "True\n", "")


def _closing(node_list: NodeList, line: int) -> Any:
    """A trace that closes it before the ``line``-th line that is run."""
    lines = itertools.count()

    def trace(frame: Any, event: str, argument: Any) -> Any:
        if event == "line" and next(lines) == line:
            node_list.close()
        return trace

    return trace


def test_a_handler_of_a_signal_that_closes(tmp_path: Path) -> None:
    """While the thread that it interrupts joins, at each line of that: join() says so, and all is released."""
    for line in range(0, 120, 3):
        node_list = NodeList(listen_addr=ADDR, state_dir=tmp_path)
        node_list.new(NODE)
        former = sys.gettrace()
        sys.settrace(_closing(node_list, line))
        try:
            node_list.join()
        except NotReadyError as error:
            assert "closed" in str(error)
        finally:
            sys.settrace(former)
        node_list.close()


# Python's own event loop complains of an interrupted constructor.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("after", [0.0002, 0.001, 0.002, 0.004, 0.008, 0.016])
def test_a_join_that_the_keyboard_interrupts(tmp_path: Path, after: float) -> None:
    """Whenever the signal comes: join() may be called again, and store and port are free."""
    node_list = NodeList(listen_addr=ADDR, state_dir=tmp_path)
    node_list.new(NODE)

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    former = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, after)
        try:
            node_list.join()
            joined = True
            signal.setitimer(signal.ITIMER_REAL, 0)
        except KeyboardInterrupt:
            joined = False
    except KeyboardInterrupt:
        joined = True
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, former)
    if not joined:
        node_list.join()
    assert len(node_list.get()) == 1
    node_list.close()
