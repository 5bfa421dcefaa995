# SPDX-License-Identifier: MIT
"""Every call of the library in every state of a node list's life: it works, or says what is missing. None waits.

The states: without a node, before ``join``, after one that failed, running, closed (before and after ``join``), and in
a child that was forked while it ran.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import socket
from collections.abc import Callable
from typing import Any

import pytest

from xdp_gossip import AsyncNodeList, Node, NodeList, TransportError, Write
from xdp_gossip.nodelist import NotReadyError

KINDS = (AsyncNodeList, NodeList)
NODE, OTHER = Node("127.0.0.1", 18_330, "a"), Node("127.0.0.1", 18_339)
VERSION = "019a3c1e5b2f0000@127.0.0.1:18330"

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
    "repair": (),
    "document": ("k",),
    "documents": (),
    "history": ("k",),
    "unread": ("k", ()),
    "members": (),
    "update_node": ("a", "b"),
    "changes": (0, 0.0),
    "watch": (),
    "convergence": (),
    "look_for_dataplane": (),
    "tell_applied": (lambda key: None,),
    "healthy": (),
    "summary": (),
    "status": (),
    "leave": (),
}
#: What works before ``join``, and what works always.
BEFORE = {"set", "unset", "get", "join"}
ALWAYS = {"close", "revision"}


def test_the_table_has_every_call() -> None:
    assert set(CALLS) | ALWAYS == {name for name in vars(AsyncNodeList) if not name.startswith("_")}
    assert {name for name in vars(NodeList) if not name.startswith("_")} <= set(CALLS) | ALWAYS


class Subject:
    """A node list of either kind, called the same way."""

    def __init__(self, kind: type) -> None:
        self.loop = asyncio.new_event_loop()
        self.made = kind(listen_addr="127.0.0.1")
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
            if getattr(error, "code", "") != "version_not_found":  # VERSION is of no document
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


def test_what_waits_for_a_change_ends_with_the_node_list() -> None:
    async def main() -> None:
        made = AsyncNodeList(listen_addr="127.0.0.1")
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
