# SPDX-License-Identifier: MIT
"""Every parameter of the library, and eight or more wrong values of each: an error that names it, and nothing done.

The table has to name every parameter that there is: a new one without wrong values fails.
"""

from __future__ import annotations

import asyncio
import dataclasses
import inspect
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.keys import KEY, OTHER_KEY
from xdp_gossip import AsyncNodeList, Document, Limits, Node, NodeList, ProtocolError, Signer, State, Version, Write
from xdp_gossip.core.interface import InvalidError
from xdp_gossip.core.shown import cut, shown
from xdp_gossip.core.types import Address

NAN, INF = math.nan, math.inf
NO_TEXT = (5, 1.5, True, b"x", ["x"], ("x",), {"x": 1}, object())
#: Keys and the like also must not be these.
IMPOSSIBLE = ("", "a//b", "../a", "a/./b", "a\nb", "\ud800", "x" * 2000)
NO_NUMBER = ("3", b"3", True, [3], {3}, object(), NAN, INF, -INF, -1, 1e15)
NO_INTEGER = ("3", b"3", True, [3], object(), NAN, INF, 1.5, 3.0, -1, 10**15)
NO_FLAG = (None, 0, 1, "yes", "", [], 1.0, object())
NO_FUNCTION = (None, 5, "x", b"x", True, [], {}, object())
_HERE = Address("198.18.0.1", 8000)
#: Made by hand, past the checks of ``Version.parse``.
NO_VERSION_BY_HAND = (
    *(Version(hlc, _HERE) for hlc in ("1", 1.0, True, None, -1, 2**64, 10**5000)),  # type: ignore[arg-type]
    *(Version(1, origin) for origin in (None, "198.18.0.1:8000", Node("198.18.0.1", 8000))),  # type: ignore[arg-type]
    *(Version(1, Address(ip, 8000)) for ip in ("", "localhost", "fe80::1%lo", None, 5)),  # type: ignore[arg-type]
    *(Version(1, Address("198.18.0.1", port)) for port in (0, 65_536, "8000", None, 1.0)),  # type: ignore[arg-type]
)
NO_VERSION = (
    *(5, 1.5, True, b"x", "", "1", "019a3c1e5b2f0000", "019a3c1e5b2f0000@", "g@198.18.0.1:1", ["x"]),
    "019a3c1e5b2f0000@198.18.0.1:" + "1" * 5000,
    *NO_VERSION_BY_HAND,
)
#: Longer than any message may be, and a number that Python does not write out.
HUGE = ("x" * 1_000_000, b"x" * 1_000_000, ["x" * 1_000_000] * 9, {"x" * 1_000_000: 1}, 10**5000, [10**5000])
NO_PATH = (5, 1.5, True, b"/tmp/x", "", "a\0b", ["/tmp"], object())
GROUPS = (Node("224.0.0.1", 8000), Node("ff02::1", 8000), Node("255.255.255.255", 8000))
NO_NODE = (
    *(*GROUPS, None, "198.18.0.1:8000", ("198.18.0.1", 8000), 5, b"", {"port": 8000}, Node),
    Address("198.18.0.1", 8000),
)
NO_WRITES = (None, "k", b"k", 5, {"k": b""}, [None], ["k"], [("k", b"v")], Write("k"))

NO_DOCUMENTS = (
    *([Document("k", version)] for version in (None, *NO_VERSION_BY_HAND)),
    [Document("k", Version(1, _HERE), base=Version(-1, _HERE))],
    [Document("k", Version(1, _HERE), ancestors=(Version(-1, _HERE),))],
    [Document("k", Version(1, _HERE), ancestors=None)],  # type: ignore[arg-type]
)

_SIGNER = Signer("alice", b"key", ("app/",))

#: Wrong values of each parameter of the constructor.
CONSTRUCTOR: dict[str, tuple[Any, ...]] = {
    "amount": (None, 0, 65, *NO_INTEGER),
    "cycle": (None, 1e-300, 1e-6, 0.049, *NO_NUMBER),
    "buffer": (None, *NO_INTEGER),
    "size": (None, 0, 4095, 65_508, *NO_INTEGER),
    "timeout": (None, *NO_NUMBER),
    "secret_key": (None, "\ud800", *NO_TEXT),
    "protocol": (None, "", "udp2", "QUIC", *NO_TEXT),
    "listen_addr": (
        *(None, "", "localhost", "fe80::1%lo", "198.18.0", "198.18.0.1:8000", "224.0.0.1", "ff02::1"),
        *NO_TEXT,
    ),
    "is_print": NO_FLAG,
    "timeout_cycles": (None, 0, *NO_INTEGER),
    "wire": (None, "", "Native", "egossip", *NO_TEXT),
    "zone": (None, "z" * 65, "\ud800", *NO_TEXT),
    "cluster": (None, "", "\ud800", "x" * 300, *NO_TEXT),
    "keys": (
        *(None, 5, "staged", [5], [("active",)], [(0, "active", KEY)], [("old", KEY)], [(True, KEY)]),
        *([("active", KEY.encode())], [("staged", KEY)], [("active", KEY), ("staged", KEY)], {"active": KEY}),
        *([("active", KEY), ("active", OTHER_KEY)], [("active", KEY[:-1])], [("active", KEY)] * 9),
    ),
    "signers": (None, 5, "alice", [5], [("alice", "key", [])], {"alice": 1}, [Signer], [_SIGNER, _SIGNER]),
    "state_dir": NO_PATH,
    "max_clock_drift": (None, 0, *NO_NUMBER),
    "limits": (None, 5, {}, {"document": 1}, "document", (1, 2, 3, 4), Limits, object()),
    "history": (None, 0, 1001, *NO_INTEGER),
    "tombstone_grace": (None, 0, *NO_NUMBER),
    "wait_for_members": NO_NUMBER,
    "expects_seeds": NO_FLAG,
    "dataplane": (None, *NO_PATH),
    "allow": (
        *(None, "10.0.0.0/8", b"x", 5, [5], [None], ["x"], ["10.0.0.1/8"], ["fe80::1%lo"], ["::ffff:a00:0/104"]),
        ["::/0"] * 257,
    ),
    "rng": (5, 1.5, "x", True, b"x", [], object(), __import__("random")),
}

#: Wrong values of each parameter of each call; and what the call needs besides.
CALLS: dict[str, tuple[dict[str, tuple[Any, ...]], dict[str, Any]]] = {
    "new": ({"node": NO_NODE}, {}),
    "set": ({"node": NO_NODE}, {}),
    "unset": ({"node": NO_NODE}, {}),
    "forget": ({"address": (None, "198.18.0.1:8000", ("198.18.0.1", 8000), 5, b"", {"port": 8000}, Address, [])}, {}),
    "publish": (
        {
            "data": (None, "text", 5, 1.5, True, ["x"], {}, object()),
            "key": (None, *IMPOSSIBLE, *NO_TEXT),
            "expected": NO_VERSION,
            "absent": NO_FLAG,
            "content_type": ("x" * 300, "\ud800", *NO_TEXT),
            "author": (None, "x" * 5000, "\ud800", *NO_TEXT),
            "comment": (None, "x" * 50_000, "\ud800", *NO_TEXT),
            "expires_in": (0, *NO_NUMBER),
        },
        {"data": b"v", "key": "k"},
    ),
    "publish_many": (
        {
            "writes": NO_WRITES,
            "author": (None, "x" * 5000, "\ud800", *NO_TEXT),
            "comment": (None, "x" * 50_000, "\ud800", *NO_TEXT),
        },
        {"writes": [Write("k", b"v")]},
    ),
    "read": ({"key": (None, *IMPOSSIBLE, *NO_TEXT)}, {}),
    "delete": (
        {
            "key": (None, *IMPOSSIBLE, *NO_TEXT),
            "expected": NO_VERSION,
            "author": (None, "x" * 5000, "\ud800", *NO_TEXT),
            "comment": (None, "x" * 50_000, "\ud800", *NO_TEXT),
        },
        {"key": "k"},
    ),
    "rollback": (
        {
            "key": (None, *IMPOSSIBLE, *NO_TEXT),
            "version": (None, *NO_VERSION),
            "expected": NO_VERSION,
            "author": (None, "x" * 5000, "\ud800", *NO_TEXT),
            "comment": (None, "x" * 50_000, "\ud800", *NO_TEXT),
            "expires_in": (0, *NO_NUMBER),
        },
        {"key": "held", "version": "held"},
    ),
    "version": (
        {"key": (None, *IMPOSSIBLE, *NO_TEXT), "version": (None, *NO_VERSION)},
        {"key": "held", "version": "held"},
    ),
    "document": ({"key": (None, *IMPOSSIBLE, *NO_TEXT)}, {}),
    "documents": (
        {"prefix": (None, *NO_TEXT), "after": (None, *NO_TEXT), "limit": (0, *NO_INTEGER)},
        {},
    ),
    "history": ({"key": (None, *IMPOSSIBLE, *NO_TEXT)}, {}),
    "lineage": ({"key": (None, *IMPOSSIBLE, *NO_TEXT)}, {}),
    "replace_keys": (
        {"keys": (None, 5, "staged", [5], [], [("active", "")], [("staged", KEY)], [("active", KEY.encode())])},
        {"keys": [("active", KEY)]},
    ),
    "trust": (
        {"signers": (None, 5, "alice", [5], [("alice", "key", [])], {"alice": 1}, [Signer], [_SIGNER, _SIGNER])},
        {},
    ),
    "signed_by": ({"document": (None, 5, "x", b"x", {}, [], Write("k"), Document)}, {}),
    "signature": ({"document": (None, 5, "x", b"x", {}, [], Write("k"), Document)}, {}),
    "unread": (
        {
            "key": (None, *IMPOSSIBLE, *NO_TEXT),
            "versions": (None, 5, "x", b"x", {}, [None], ["x"], [Write("k")], *NO_DOCUMENTS),
        },
        {"key": "k", "versions": []},
    ),
    "members": ({"states": (5, "alive", b"alive", True, ["alive"], [None], {5}, object())}, {}),
    "page": (
        {
            "states": (5, "alive", b"alive", True, ["alive"], [None], {5}, object()),
            "after": (5, "198.18.0.11:8000", b"x", True, ["x"], 1.5, {}, object()),
            "limit": (0, *NO_INTEGER),
            "zones": (5, "east", b"east", True, [b"east"], [None], {5}, 1.5, object()),
        },
        {},
    ),
    "update_node": (
        {"name": ("x" * 300, "\ud800", *NO_TEXT), "private_data": ("x" * 5000, "\ud800", *NO_TEXT)},
        {},
    ),
    "changes": (
        {
            "since": (None, *NO_INTEGER[:-1], 2**64),
            "timeout": (None, *NO_NUMBER),
            "prefix": (None, *NO_TEXT),
            "kind": (None, "nodes", *NO_TEXT),
        },
        {"since": 0, "timeout": 0.0},
    ),
    "watch": (
        {"prefix": (None, *NO_TEXT), "since": (*NO_INTEGER[:-1], 2**64), "kind": (None, "nodes", *NO_TEXT)},
        {},
    ),
    "convergence": (
        {
            "key": ("", "a//b", *NO_TEXT),
            "version": NO_VERSION,
            "digest": ("", "sha256:", "x", "sha256:" + "g" * 64, "0" * 16, *NO_TEXT),
            "wait": (None, "", "some", "-1", -1, 1.5, True, b"all", ["all"]),
            "timeout": (None, *NO_NUMBER),
            "deleted": NO_FLAG,
            "applied": NO_FLAG,
        },
        {"key": "held"},
    ),
    "troubled_files": ({"timeout": (None, *NO_NUMBER)}, {}),
    "tell_applied": (
        {"source": NO_FUNCTION, "files": NO_FUNCTION},
        {"source": lambda key: None},
    ),
}
#: What parameters take however long it is.
TAKEN: dict[str, tuple[type, ...]] = {
    "publish.data": (bytes,),
    "documents.prefix": (str,),
    "documents.after": (str,),
    "changes.prefix": (str,),
    "watch.prefix": (str,),
}
#: Calls and properties without parameters of their own.
WITHOUT = {
    *("join", "get", "stop", "start", "repair", "leave", "close", "revision", "catching_up", "isolated", "healthy"),
    *("look_for_dataplane", "keys"),
    *("summary", "status", "local", "tag", "state", "documents_digest", "health"),
}


def names_it(error: BaseException, parameter: str) -> bool:
    """Whether the message says which parameter is meant."""
    return parameter in str(error)


#: Characters of the longest message.
LONGEST = 400


@pytest.mark.parametrize("kind", [AsyncNodeList, NodeList])
@pytest.mark.parametrize("parameter", CONSTRUCTOR)
def test_wrong_values_of_the_constructor(kind: type, parameter: str) -> None:
    assert len(CONSTRUCTOR[parameter]) >= 8
    long_paths = {"state_dir", "dataplane"}  # which are for the system to judge
    huge = [value for value in HUGE if not (parameter in long_paths and isinstance(value, str))]
    for value in (*CONSTRUCTOR[parameter], *huge):
        with pytest.raises((TypeError, ValueError)) as refused:
            kind(**{parameter: value})
        assert names_it(refused.value, parameter), (parameter, shown(value), cut(str(refused.value)))
        assert len(str(refused.value)) < LONGEST


@pytest.mark.parametrize("parameter", [field.name for field in dataclasses.fields(Limits)])
def test_wrong_limits(parameter: str) -> None:
    for value in (None, 0, *NO_INTEGER, *HUGE):
        with pytest.raises((TypeError, ValueError), match=rf"limits\.{parameter}: ") as refused:
            Limits(**{parameter: value})
        assert len(str(refused.value)) < LONGEST


@pytest.mark.parametrize(
    ("parameter", "values"),
    [
        ("addr", ("", "localhost", "198.18.0", None, *NO_TEXT)),
        ("port", (None, 0, 65_536, *NO_INTEGER)),
        ("name", (None, "x" * 300, "\ud800", *NO_TEXT)),
        ("private_data", (None, "x" * 5000, "\ud800", *NO_TEXT)),
    ],
)
def test_wrong_nodes(parameter: str, values: tuple[Any, ...]) -> None:
    for value in (*values, *HUGE):
        with pytest.raises((TypeError, ValueError), match=f"{parameter}: ") as refused:
            Node(**{"addr": "198.18.0.1", "port": 8000, parameter: value})
        assert len(str(refused.value)) < LONGEST


def test_wrong_versions() -> None:
    for value in (None, *NO_VERSION, *HUGE):
        with pytest.raises((TypeError, ValueError), match="expected") as refused:
            Version.parse(value)
        assert len(str(refused.value)) < LONGEST


def test_the_table_has_every_parameter() -> None:
    signature = inspect.signature(AsyncNodeList.__init__)
    assert set(CONSTRUCTOR) == set(signature.parameters) - {"self"}
    public = {name for name in vars(AsyncNodeList) if not name.startswith("_")}
    assert set(CALLS) | WITHOUT == public
    for name, (wrong, _needed) in CALLS.items():
        assert set(wrong) == set(inspect.signature(getattr(AsyncNodeList, name)).parameters) - {"self"}, name
        assert all(len(values) >= 8 for values in wrong.values()), name
    for name in WITHOUT - {"revision", "catching_up", "isolated", "keys"}:
        assert set(inspect.signature(getattr(AsyncNodeList, name)).parameters) == {"self"}, name


def test_the_blocking_calls_have_the_parameters_of_the_others() -> None:
    for name in [name for name in vars(NodeList) if not name.startswith("_")]:
        blocking, other = (inspect.signature(getattr(kind, name)) for kind in (NodeList, AsyncNodeList))
        assert list(blocking.parameters.values()) == list(other.parameters.values()), name


class Both:
    """A running node list of each kind; calls go to the one or the other."""

    def __init__(self, port: int) -> None:
        self.loop = asyncio.new_event_loop()
        self.other = AsyncNodeList(listen_addr="127.0.0.1")
        self.other.new(Node("127.0.0.1", port, "a"))
        self.blocking = NodeList(listen_addr="127.0.0.1")
        self.blocking.new(Node("127.0.0.1", port + 1, "b"))
        self.loop.run_until_complete(self.other.join())
        self.blocking.join()
        self.versions = {
            False: str(self.blocking.publish(b"v", "held").document.version),  # type: ignore[union-attr]
            True: str(self.loop.run_until_complete(self.other.publish(b"v", "held")).document.version),  # type: ignore[union-attr]
        }

    def call(self, name: str, other: bool, parameters: dict[str, Any]) -> Any:
        """The outcome of a call; of ``watch`` that it began."""
        given = dict(parameters)
        if given.get("version") == "held":
            given["version"] = self.versions[other]
        found = getattr(self.other if other else self.blocking, name)(**given)
        return self.loop.run_until_complete(asyncio.wait_for(found, 60)) if inspect.iscoroutine(found) else found

    def close(self) -> None:
        """Close both."""
        self.blocking.close()
        self.loop.run_until_complete(self.other.close())
        self.loop.close()


@pytest.fixture(scope="module")
def both() -> Iterator[Both]:
    made = Both(18_310)
    yield made
    made.close()


@pytest.mark.parametrize("name", CALLS)
def test_wrong_values_of_each_call(both: Both, name: str) -> None:
    wrong, needed = CALLS[name]
    for other in (True, False):
        if not other and not hasattr(NodeList, name):
            continue
        before = [both.call(reading, other, {}) for reading in ("documents", "members")]
        for parameter, values in wrong.items():
            huge = [value for value in HUGE if not isinstance(value, TAKEN.get(f"{name}.{parameter}", ()))]
            for value in (*values, *huge):
                with pytest.raises((TypeError, ValueError)) as refused:
                    both.call(name, other, {**needed, parameter: value})
                assert names_it(refused.value, parameter), (parameter, shown(value), cut(str(refused.value)))
                assert len(str(refused.value)) < LONGEST
        documents, members = (both.call(reading, other, {}) for reading in ("documents", "members"))
        assert documents == before[0]
        assert [(m.address, m.state, m.record) for m in members] == [(m.address, m.state, m.record) for m in before[1]]


def test_a_version_may_be_text(both: Both) -> None:
    for other in (True, False):
        held = both.call("publish", other, {"data": b"1", "key": "text"}).document
        again = both.call("publish", other, {"data": b"2", "key": "text", "expected": str(held.version)})
        assert again.changed and again.previous == held.version
        back = both.call("rollback", other, {"key": "text", "version": str(held.version)})
        assert back.document.value == b"1"
        with pytest.raises(ProtocolError, match="expected"):
            both.call("delete", other, {"key": "text", "expected": str(held.version)})
        write = Write("text", b"3", expected=str(back.document.version))  # type: ignore[arg-type]
        assert both.call("publish_many", other, {"writes": (write,)})[0].changed
        assert both.call("members", other, {"states": {State.DEAD}})[0].local


def test_an_invalid_parameter_has_a_code_too(both: Both) -> None:
    with pytest.raises(InvalidError) as refused:
        both.call("publish", False, {"data": b"1", "key": "a//b"})
    assert refused.value.code == "invalid_document"


def test_wrong_fields_of_a_write_are_named_with_their_place(both: Both) -> None:
    for field, value in (("value", "text"), ("expected", "x"), ("absent", 1), ("expires_in", "1"), ("deleted", 0)):
        writes = [Write("a"), dataclasses.replace(Write("b"), **{field: value})]
        with pytest.raises((TypeError, ValueError), match=rf"writes\[1\]\.{field}: "):
            both.call("publish_many", False, {"writes": writes})


def test_a_state_directory_that_cannot_be_made(tmp_path: Path) -> None:
    from xdp_gossip import StoreError

    (tmp_path / "file").write_text("")
    made = NodeList(listen_addr="127.0.0.1", state_dir=tmp_path / "file" / "state")
    made.new(Node("127.0.0.1", 18_320))
    with pytest.raises(StoreError, match="file/state: Not a directory"):
        made.join()


_MARK = "the-secret-of-the-test"


@pytest.mark.parametrize(
    "wrong",
    [
        {"secret_key": _MARK.encode()},
        {"secret_key": f"{_MARK}\ud800"},
        {"secret_key": [_MARK]},
        {"keys": _MARK},
        {"secret_key": f"xgk1_{_MARK}"},
        {"keys": {"active": _MARK}},
        {"keys": [("active", _MARK, 0)]},
        {"keys": [_MARK]},
        {"keys": [(_MARK, "active")]},
        {"keys": [("active", _MARK.encode())]},
        {"keys": [("active", f"{_MARK}\ud800")]},
        {"keys": [("staged", _MARK)]},
        {"keys": [("active", _MARK), ("staged", _MARK)]},
        {"keys": [("active", f"xgk1_{_MARK}")]},
    ],
)
def test_no_message_tells_a_secret(wrong: dict[str, Any]) -> None:
    """Such as one that was read as bytes, or two that changed places."""
    with pytest.raises((TypeError, ValueError), match=next(iter(wrong))) as refused:
        NodeList(**wrong)
    assert _MARK not in str(refused.value)


def test_no_part_of_the_library_shows_a_secret() -> None:
    """As tracebacks with the values of variables do."""
    node_list = NodeList(secret_key=_MARK)
    shown = repr(node_list._inner._assembly) + repr(node_list._inner.settings)
    keyring = node_list._inner._assembly.keyring
    assert keyring is not None
    keys = keyring.active
    assert _MARK not in shown and repr(keys.mac) not in repr(keys) and repr(keys.body) not in repr(keys)


@pytest.mark.parametrize(
    "wrong",
    [
        {"wire": "pekonode", "keys": [("active", KEY)], "size": 1024},
        {"secret_key": "s", "keys": [("active", KEY)]},
        {"keys": [("active", "")]},
    ],
)
def test_keys_that_would_not_protect(wrong: dict[str, Any]) -> None:
    """Packets in clear, or a secret that is passed over, are no surprise for later."""
    with pytest.raises(ValueError, match=r"^keys(\[0\])?: "):
        NodeList(**wrong)


def test_a_zone_on_a_wire_that_has_none() -> None:
    with pytest.raises(ValueError, match=r"^zone: expected none with wire='pekonode'"):
        NodeList(wire="pekonode", zone="a", size=1024)


@pytest.mark.parametrize("addr", ["fe80::1%lo", "::1%lo0", "fe80::1%a]:1", "fe80::1%lo\n"])
def test_an_address_with_a_zone(addr: str) -> None:
    """It would join, and hear nobody."""
    with pytest.raises(ValueError, match=r"addr: expected an IP.* address"):
        Node(addr, 8000)


@pytest.mark.parametrize("kind", [AsyncNodeList, NodeList])
@pytest.mark.parametrize(
    ("listen", "addr", "fits"),
    [
        ("0.0.0.0", "198.18.0.1", True),
        ("0.0.0.0", "2001:db8::1", False),
        ("198.18.0.1", "2001:db8::1", False),
        ("::ffff:198.18.0.1", "2001:db8::1", False),
        ("2001:db8::1", "198.18.0.1", False),
        ("::1", "127.0.0.1", False),
        ("2001:db8::1", "2001:db8::1", True),
        ("::", "198.18.0.1", True),
        ("0:0::0", "198.18.0.1", True),
        ("::", "2001:db8::1", True),
        ("::ffff:198.18.0.1", "198.18.0.1", True),
    ],
)
def test_a_local_node_of_another_family_than_its_sockets(kind: type, listen: str, addr: str, fits: bool) -> None:
    """It would join, and nobody would reach it."""
    node_list = kind(listen_addr=listen)
    if fits:
        node_list.new(Node(addr, 8000))
        return
    with pytest.raises(ValueError, match=rf"^node: addr: expected an IPv. address, as listen_addr .*, got {addr}"):
        node_list.new(Node(addr, 8000))
    node_list.new(Node("127.0.0.1" if ":" in addr else "::1", 8000))  # nothing was done


@pytest.mark.parametrize("kind", [AsyncNodeList, NodeList])
@pytest.mark.parametrize("addr", ["0.0.0.0", "::", "::ffff:0.0.0.0"])
def test_an_address_that_names_no_host(kind: type, addr: str) -> None:
    """As in PekoNode's example it means this host, where all nodes are on one; else it names nobody."""
    node_list = kind()
    node_list.new(Node("198.18.0.1", 8000))
    with pytest.raises(ValueError, match=r"^node: addr: expected the address of one host, got "):
        node_list.set(Node(addr, 8001))
    assert node_list.get() == [Node("198.18.0.1", 8000)]
    for own in ("0.0.0.0", "127.0.0.1"):
        node_list = kind()
        node_list.new(Node(own, 8000))
        node_list.set(Node(addr, 8001))
        assert [node.port for node in node_list.get()] == [8000, 8001]


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("version", {"version": "019a3c1e5b2f0000@127.0.0.1:1"}),
        ("deleted", {"deleted": True}),
        ("applied", {"applied": True}),
        ("digest", {"key": "k", "deleted": True, "digest": "sha256:" + "0" * 64}),
    ],
)
def test_questions_that_make_no_sense(name: str, parameters: dict[str, Any]) -> None:
    """They were answered with yes."""

    async def main() -> None:
        own = f"127.0.9.{os.getpid() % 250 + 1}"  # these tests run in several processes at once
        async with AsyncNodeList(listen_addr=own) as node_list:
            node_list.new(Node(own, 18_349))
            await node_list.join()
            with pytest.raises(ValueError, match=f"^{name}: "):
                await node_list.convergence(**parameters)

    asyncio.run(main())
