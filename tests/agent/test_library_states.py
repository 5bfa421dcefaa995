# SPDX-License-Identifier: MIT
"""Every call of the library in every state of a node list's life: it works, or says what is missing. None waits.

The states: without a node, before ``join``, after one that failed, running, closed (before and after ``join``), and in
a child that was forked while it ran.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.keys import KEY
from xdp_gossip import AsyncNodeList, Change, Document, Node, NodeList, TransportError, Version, Write
from xdp_gossip.nodelist import NotReadyError

KINDS = (AsyncNodeList, NodeList)
#: Tests of this file run in several processes at once.
ADDR = f"127.0.10.{os.getpid() % 250 + 1}"
NODE, OTHER = Node(ADDR, 18_330, "a"), Node(ADDR, 18_339)
VERSION = f"019a3c1e5b2f0000@{ADDR}:18330"

#: Right parameters of every call.
CALLS: dict[str, tuple[Any, ...]] = {
    "new": (NODE,),
    "set": (OTHER,),
    "unset": (OTHER,),
    "join": (),
    "get": (),
    "stop": (),
    "start": (),
    "publish": (b"v",),
    "publish_many": ([Write("k", b"v")],),
    "read": (),
    "delete": ("k",),
    "rollback": ("default", VERSION),
    "version": ("default", VERSION),
    "repair": (),
    "forget": (OTHER.address,),
    "document": ("k",),
    "documents": (),
    "history": ("k",),
    "unread": ("k", ()),
    "lineage": ("k",),
    "trust": ((),),
    "replace_keys": ([("active", KEY)],),
    "signed_by": (Document("k", Version.parse(VERSION)),),
    "signature": (Document("k", Version.parse(VERSION)),),
    "members": (),
    "local": (),
    "page": (),
    "tag": (),
    "state": (),
    "documents_digest": (),
    "update_node": ("a", "b"),
    "changes": (0, 0.0),
    "watch": (),
    "convergence": (),
    "look_for_dataplane": (),
    "troubled_files": (0.0,),
    "tell_applied": (lambda key: None,),
    "healthy": (),
    "health": (),
    "summary": (),
    "status": (),
    "leave": (),
}
#: What works before ``join``, and what works always.
BEFORE = {"set", "unset", "get", "join", "trust", "replace_keys"}
ALWAYS = {"close", "revision", "catching_up", "isolated", "keys"}


def test_the_table_has_every_call() -> None:
    assert set(CALLS) | ALWAYS == {name for name in vars(AsyncNodeList) if not name.startswith("_")}
    assert {name for name in vars(NodeList) if not name.startswith("_")} <= set(CALLS) | ALWAYS


class Subject:
    """A node list of either kind, called the same way."""

    def __init__(self, kind: type) -> None:
        self.loop = asyncio.new_event_loop()
        self.made = kind(listen_addr=ADDR)
        self.names = [name for name in CALLS if hasattr(kind, name)]

    def call(self, name: str, *parameters: Any) -> Any:
        """The outcome; a call that does not end is a failure."""
        found = getattr(self.made, name)(*parameters)
        return self.loop.run_until_complete(asyncio.wait_for(found, 60)) if inspect.iscoroutine(found) else found

    def refused(self, name: str) -> str:
        """The text of the ``NotReadyError`` that the call is answered with, "" when it works."""
        try:
            self.call(name, *CALLS[name])
        except NotReadyError as error:
            return str(error)
        except Exception as error:
            # VERSION is of no document, and OTHER is not dead.
            if getattr(error, "code", "") not in ("version_not_found", "node_not_found", "node_not_dead"):
                raise
        return ""

    def all_refused(self, but: set[str] = frozenset()) -> set[str]:  # type: ignore[assignment]
        """What the calls are answered with, those in ``but`` left out."""
        return {self.refused(name) for name in self.names if name not in but}

    def end(self) -> None:
        """Close it, twice."""
        self.call("close")
        self.call("close")
        self.loop.close()


@pytest.fixture(params=KINDS)
def subject(request: pytest.FixtureRequest) -> Any:
    made = Subject(request.param)
    yield made
    if not made.loop.is_closed():
        made.end()


def test_without_a_node(subject: Subject) -> None:
    assert subject.all_refused({"new"}) == {"call new() first: the node list does not know its local node yet"}


def test_before_join(subject: Subject) -> None:
    subject.call("new", NODE)
    assert subject.refused("new") == "new() was called before: a node list has one local node"
    assert [subject.refused(name) for name in ("set", "get", "unset")] == [""] * 3
    expected = "call join() first: the node list is not part of a cluster yet"
    assert subject.all_refused({"new", *BEFORE}) == {expected}


def test_after_a_join_that_failed(subject: Subject) -> None:
    subject.call("new", NODE)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind((NODE.addr, NODE.port))
        for _ in range(2):
            with pytest.raises(TransportError, match="18330"):
                subject.call("join")
        expected = "call join() first: the node list is not part of a cluster yet; the last join() failed: cannot"
        (told,) = subject.all_refused({"new", *BEFORE})
        assert told.startswith(expected)
        assert subject.call("get") == [NODE]
    subject.call("join")
    assert subject.call("publish", b"v").changed
    assert subject.refused("join") == "join() was called before"


def test_running(subject: Subject) -> None:
    subject.call("new", NODE)
    subject.call("join")
    assert subject.all_refused({"new", "join"}) == {""}
    subject.end()


@pytest.mark.parametrize("joined", [True, False])
def test_closed(subject: Subject, joined: bool) -> None:
    subject.call("new", NODE)
    if joined:
        subject.call("join")
    subject.call("close")
    subject.call("close")
    assert subject.all_refused() == {"the node list was closed"}


def in_a_child(work: Callable[[], object]) -> str:
    """What ``work`` returns in a forked child, as text; it has a minute."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.write(writing, str(work()).encode())
        except BaseException as error:
            os.write(writing, repr(error).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as answer:
        text = answer.read()
    os.waitpid(child, 0)
    return text


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_in_a_forked_child(subject: Subject) -> None:
    subject.call("new", NODE)
    subject.call("join")

    def child() -> set[str]:
        subject.loop = asyncio.new_event_loop()
        found = subject.all_refused()
        subject.call("close")
        subject.call("close")
        return found

    told = f"the node list belongs to process {os.getpid()}: a forked child needs one of its own"
    assert in_a_child(child) == str({told})
    assert subject.call("publish", b"the parent goes on").changed
    assert subject.call("read") == b"the parent goes on"


def test_who_forks_before_join_may_join_in_the_child(subject: Subject) -> None:
    subject.call("new", NODE)

    def child() -> bytes:
        subject.loop = asyncio.new_event_loop()
        subject.call("join")
        subject.call("publish", b"by the child")
        found = subject.call("read")
        subject.call("close")
        return bytes(found)

    assert in_a_child(child) == str(b"by the child")


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_watch_in_a_forked_child() -> None:
    """It says why there is nothing to come, and does not look as if the node list was closed."""
    with NodeList(listen_addr=ADDR) as node_list:
        node_list.new(NODE)
        node_list.join()
        watched = node_list.watch(since=0)
        assert next(watched).kind == "resync"
        told = in_a_child(lambda: list(watched))
        assert told.startswith("NotReadyError('the node list belongs to process "), told


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_an_asyncio_watch_in_a_forked_child() -> None:
    made = AsyncNodeList(listen_addr=ADDR)
    made.new(NODE)
    home = asyncio.new_event_loop()
    home.run_until_complete(made.join())
    for since in (None, 0):
        watched = made.watch(since=since)
        if since is not None:
            assert home.run_until_complete(watched.__aiter__().__anext__()).kind == "resync"

        async def child(watched: Any = watched) -> Any:
            return await asyncio.wait_for(watched.__aiter__().__anext__(), 60)

        told = in_a_child(lambda child=child: asyncio.run(child()))  # type: ignore[misc]
        assert told.startswith("NotReadyError('the node list belongs to process "), told
    home.run_until_complete(made.close())
    home.close()


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
@pytest.mark.parametrize("end", ["closes", "dies"])
def test_a_forked_child_that_lives_on_holds_nothing(tmp_path: Path, end: str) -> None:
    """Neither port nor state file of its parent, which closed them or died."""
    node_list = NodeList(listen_addr=ADDR, state_dir=tmp_path)
    node_list.new(NODE)
    held, hold = os.pipe()
    ready, tell = os.pipe()
    parent = 0 if end == "closes" else os.fork()
    if not parent:
        try:
            node_list.join()
            node_list.publish(b"of the parent", "k")
            if not os.fork():
                os.close(hold)
                os.write(tell, b"x")
                os.read(held, 1)
                os._exit(0)
        finally:
            if end == "dies":
                os._exit(0)
        node_list.close()
    else:
        os.waitpid(parent, 0)
    os.read(ready, 1)
    for descriptor in (held, ready, tell):
        os.close(descriptor)
    try:
        with NodeList(listen_addr=ADDR, state_dir=tmp_path) as again:
            again.new(NODE)
            again.join()
            assert again.read("k") == b"of the parent"
    finally:
        os.close(hold)
        if end == "closes":
            os.wait()


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_forked_child_has_none_of_the_descriptors(tmp_path: Path) -> None:
    """Nor could SQLite, which ends a transaction that it was forked in, write to the file when the child ends."""

    def opened() -> list[str]:
        found = []
        for number in os.listdir("/proc/self/fd"):
            with contextlib.suppress(OSError):
                found.append(os.readlink(f"/proc/self/fd/{number}"))
        return [target for target in found if str(tmp_path) in target]

    with NodeList(listen_addr=ADDR, state_dir=tmp_path) as node_list:
        node_list.new(NODE)
        node_list.join()
        node_list.publish(b"v", "k")
        here = opened()
        assert str(tmp_path / "state.db") in here and str(tmp_path / "state.db.lock") in here
        assert in_a_child(opened) == "[]"
        assert opened() == here
        assert node_list.publish(b"w", "k").changed


def test_in_another_event_loop() -> None:
    """Nobody would tell it of what happens in the one that join() ran in: no call waits there, each says so."""
    made = AsyncNodeList(listen_addr=ADDR)
    made.new(NODE)
    home = asyncio.new_event_loop()
    home.run_until_complete(made.join())
    watched, begun = made.watch(), made.watch(since=0)
    assert home.run_until_complete(begun.__aiter__().__anext__()).kind == "resync"

    async def call(name: str) -> str:
        try:
            found = getattr(made, name)(*CALLS.get(name, ()))
            if inspect.iscoroutine(found):
                await asyncio.wait_for(found, 60)
        except NotReadyError as error:
            return str(error)
        return ""

    async def elsewhere() -> set[str]:
        found = {await call(name) for name in [*CALLS, "close"]}
        for changes in (watched, begun):
            with pytest.raises(NotReadyError, match="event loop"):
                await asyncio.wait_for(changes.__aiter__().__anext__(), 60)
        return found

    told = "the node list belongs to the event loop that join() ran in, call it from there"
    assert asyncio.run(elsewhere()) == {told}
    assert home.run_until_complete(made.publish(b"at home")).changed
    assert made.read() == b"at home"
    home.run_until_complete(made.close())
    assert asyncio.run(call("publish")) == "the node list was closed"
    assert asyncio.run(call("close")) == ""
    home.close()


def test_a_blocking_node_list_within_an_event_loop() -> None:
    """It has a loop of its own, and works within others."""
    made = Subject(NodeList)

    async def within() -> None:
        made.call("new", NODE)
        made.call("join")
        assert made.refused("new") == "new() was called before: a node list has one local node"
        assert made.refused("join") == "join() was called before"
        assert made.all_refused({"new", "join"}) == {""}
        made.end()
        assert made.all_refused() == {"the node list was closed"}

    asyncio.run(within())


def test_the_last_changes_before_a_close_are_watched() -> None:
    for _ in range(20):
        node_list = NodeList(listen_addr=ADDR)
        node_list.new(NODE)
        node_list.join()
        late, waiting = node_list.watch(kind="document"), node_list.watch("k", kind="document")
        found: list[Change] = []
        thread = threading.Thread(target=found.extend, args=[waiting])
        thread.start()
        keys = [f"k{number}" for number in range(5)]
        for key in keys:
            node_list.publish(b"v", key)
        node_list.close()
        thread.join()
        for changes in (found, late):
            assert [change.document.key for change in changes if change.document] == keys
        assert list(late) == []


def test_what_waits_for_a_change_ends_with_the_node_list() -> None:
    async def main() -> None:
        made = AsyncNodeList(listen_addr=ADDR)
        made.new(NODE)
        await made.join()
        since = made.revision
        waiting = [
            asyncio.ensure_future(made.changes(since, 3600)),
            asyncio.ensure_future(made.convergence("default", digest="sha256:" + "0" * 64, timeout=3600)),
        ]
        watched = asyncio.ensure_future(_all_of(made))
        await asyncio.sleep(0)
        await made.close()
        outcomes = await asyncio.wait_for(asyncio.gather(*waiting, watched, return_exceptions=True), 60)
        assert outcomes[0].changes == ()
        assert str(outcomes[1]) == "the node list was closed"
        assert outcomes[2] == []

    asyncio.run(main())


async def _all_of(made: AsyncNodeList) -> list[Any]:
    return [change async for change in made.watch()]
