# SPDX-License-Identifier: MIT
"""The public classes of the library: a cluster's node list and documents, kept up to date by gossip.

The interface follows PekoNode's ``NodeList``. ``NodeList`` is for programs without asyncio, ``AsyncNodeList`` for
asyncio programs. Both classes accept PekoNode's parameters, with names in lower case, and further keyword parameters.

    node_list = NodeList(secret_key="a secret", is_print=True)
    node_list.new(Node("198.18.0.11", 8000, "A-server", "A"))
    node_list.set(Node("198.18.0.12", 8000))
    node_list.join()
    print(node_list.get())
    node_list.publish(b"test metadata")
    print(node_list.read())
    node_list.close()
"""

from __future__ import annotations

import asyncio
import datetime
import hashlib
import heapq
import itertools
import logging
import os
import random
import secrets
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

from . import __version__
from .common import forks
from .common.internal_errors import RECORD
from .config.settings import NodeSettings
from .core.applied import NO_FILES, Applied, TroubledFiles
from .core.documents.table import unread
from .core.events import (
    AppliedAnswered,
    CaughtUp,
    DocumentChanged,
    DocumentRefused,
    DocumentWithheld,
    Event,
    FilesAnswered,
    MemberChanged,
    MemberForgotten,
    QueryAnswered,
    ZoneChanged,
)
from .core.interface import ProtocolError
from .core.sealed import fingerprint
from .core.settings import Limits
from .core.shown import shown
from .core.signers import SignedBy, Signer
from .core.types import DEFAULT_KEY, PRESENT, Address, Document, Member, Node, State, TypeChanged, Version, Write
from .node import parameters, shapes
from .node.assembly import Assembly, keyring_of
from .node.changes import KINDS, Change, ChangeLog, Changes, Filter, Refusal, Zone
from .node.console import format_event
from .node.convergence import Convergence, Inquiry, Wanted, enough_for
from .node.fleetfiles import FilesInquiry, FleetFiles
from .node.runtime import Runtime
from .sealing.keys import KeyFileError, load_or_make, public_of
from .signing.sshsig import armored
from .store.disk import Disk
from .store.sqlite import MemoryStore, StateStore, Store, StoreError
from .transport import Transport
from .worker.contents import Contents

_log = logging.getLogger("xdp_gossip")

#: The event of a node that changes to a state other than alive.
_EVENTS = {
    State.SUSPECT: "suspected",
    State.DEAD: "removed",
    State.LEFT: "left",
    State.AGENT_DOWN: "agent_down",
}
#: The event of a node that is alive, by its former state. A new node, and a node that was gone, has joined.
_ALIVE_EVENTS = {State.ALIVE: "updated", State.SUSPECT: "recovered", State.AGENT_DOWN: "recovered"}


class NotReadyError(RuntimeError):
    """Raised if the node list cannot serve a call at this time.

    The message states the reason, such as another call that must come first.
    """


@dataclass(frozen=True)
class Published:
    """Result of a write.

    ``document``: the document after the write; None if the document has never existed on this node. ``changed``:
    whether the write created a new version. ``previous``: the current version before the write.
    """

    document: Document | None
    changed: bool
    previous: Version | None


def node_list_with(settings: NodeSettings) -> AsyncNodeList:
    """Create a node list from ``settings``, whose values the configuration reader has already checked."""
    made = AsyncNodeList.__new__(AsyncNodeList)
    made._begin(settings, random.Random())
    return made


class AsyncNodeList:
    """A member of a gossip cluster, for asyncio programs. ``async with`` closes the node list at the end of the block.

    PekoNode's parameters:

    ``amount``: number of members to which a node relays a heartbeat (fan-out).
    ``cycle``: seconds between two heartbeats, at least 0.05; 0 selects a value that depends on the size of the cluster.
    ``buffer``: maximum packets in the queue for one peer; 0 selects 3 x ``amount``.
    ``size``: maximum bytes of one datagram or frame.
    ``timeout``: seconds of silence until a member is suspect. A ``timeout`` of at most ``cycle`` selects the
      default, ``timeout_cycles`` x cycle + 2.
    ``secret_key``: the secret that all members of the cluster share.
    ``protocol``: one of UDP, TCP, auto, XDP and TC. With auto, the node uses the kernel data plane if one is loaded,
      otherwise UDP. With XDP or TC, :meth:`join` fails unless a kernel data plane in that mode is loaded.
    ``listen_addr``: the IP address on which the node receives packets.
    ``is_print``: whether to print PekoNode's console lines.

    Further parameters:

    ``wire``: the format of packets, native or pekonode.
    ``cluster``: the name of the cluster.
    ``zone``: the zone of the node, such as a data centre; members send most copies of a rumor within their own zone.
    ``keys``: cluster keys as (state, secret), instead of ``secret_key``, so that keys can be rotated. The state is
      staged, active or retiring; exactly one key is active.
    ``signers``: signers of documents, made with :func:`make_signer`. A document whose key begins with a prefix of a
      signer needs a signature of the signer.
    ``dataplane``: the directory in which the loader of the kernel data plane stores its state.
    ``allow``: networks from which packets are accepted; an empty list accepts all packets.
    ``state_dir``: directory that stores identity, nodes and documents across restarts; None: store them in memory only.
    ``history``: number of versions of each document that the node stores.
    ``tombstone_grace``: seconds during which members send a deletion to each other.
    ``wait_for_members``: seconds after the start until the node counts as caught up even if no member answers; None:
      the node waits for a member forever.
    ``expects_seeds``: whether the program will add seeds after :meth:`join`. If true, a node without seeds does not
      assume that it is the only member.
    ``max_clock_drift``: maximum seconds by which the clocks of two nodes may differ.
    ``limits``: limits on what other members can make this node store.
    ``rng``: a source of random numbers, for repeatable tests.

    docs/toolkit.md lists the defaults and ranges of all parameters; :mod:`xdp_gossip.config.settings` declares them.
    The attribute ``settings`` contains the values in use.

    Every call raises ``TypeError`` or ``ValueError`` for a wrong parameter, and names the parameter. Every call raises
    ``NotReadyError`` if another call must come first, or if :meth:`close` was called. A call in an event loop other
    than that of :meth:`join` also raises ``NotReadyError``. A call in a child process that was forked after
    :meth:`join` raises ``NotReadyError``, because sockets and threads belong to one process. If :meth:`join` fails, the
    program may call :meth:`join` again. A parameter that is a version may be a ``Version`` or its text.
    """

    def __init__(
        self,
        amount: int = NodeSettings.amount,
        cycle: float = NodeSettings.cycle,
        buffer: int = NodeSettings.buffer,
        size: int = NodeSettings.size,
        timeout: float = NodeSettings.timeout,
        secret_key: str = NodeSettings.secret_key,
        protocol: str = NodeSettings.protocol,
        listen_addr: str = NodeSettings.listen_addr,
        is_print: bool = NodeSettings.is_print,
        *,
        timeout_cycles: int = NodeSettings.timeout_cycles,
        wire: str = NodeSettings.wire,
        cluster: str = NodeSettings.cluster,
        zone: str = NodeSettings.zone,
        keys: Sequence[tuple[str, str]] = (),
        signers: Sequence[Signer] = (),
        state_dir: str | Path | None = None,
        max_clock_drift: float = NodeSettings.max_clock_drift,
        limits: Limits = NodeSettings.limits,
        history: int = NodeSettings.history,
        tombstone_grace: float = NodeSettings.tombstone_grace,
        wait_for_members: float | None = NodeSettings.wait_for_members,
        expects_seeds: bool = NodeSettings.expects_seeds,
        dataplane: str | Path = NodeSettings.dataplane.directory,
        allow: Sequence[str] = NodeSettings.dataplane.allow,
        rng: random.Random | None = None,
    ) -> None:
        # This must stay the first line, so that locals() contains only the parameters.
        given = dict(locals())
        self._begin(parameters.settings(given), parameters.generator("rng", rng))

    def _begin(self, settings: NodeSettings, rng: random.Random) -> None:
        self.settings = settings
        self._assembly = Assembly(settings)
        self.cluster = settings.cluster
        #: The public key of this host, for which documents can be sealed; None before :meth:`join`, and if the node
        #: has no state directory or its wire has no sealed documents.
        self.sealing_key: bytes | None = None
        self._rng = rng
        self._node: Node | None = None
        self._seeds: list[Node] = []
        self._runtime: Runtime | None = None
        self._join_failed = ""
        # The reason why this node cannot have a kernel data plane; "" if it can.
        self._no_plane = ""
        self._disk: Disk | None = None
        self._log = ChangeLog(time.time_ns() // 1_000_000)
        self._inquiries: set[Inquiry] = set()
        self._files_inquiries: set[FilesInquiry] = set()
        self._started = 0.0
        # Damage that was found when the state file was opened.
        self._state_problems: list[str] = []
        self._run = secrets.token_hex(8)
        # Id of the process that called join().
        self._process: int | None = None
        # Event loop in which join() was called.
        self._loop: asyncio.AbstractEventLoop | None = None
        self._contents = Contents()
        self._closed = False
        self._joining: asyncio.Future[None] | None = None
        self._print: Callable[[str], None] = _print_line
        self._console_is_gone = False

    # -- PekoNode's calls --------------------------------------------------------------------------------------

    def new(self, node: Node) -> None:
        """Declare the local node. :meth:`new` must be the first call, and cannot be called twice.

        The node's address must have the IP version of ``listen_addr``. If ``listen_addr`` is ``::``, the node's address
        may be IPv4 or IPv6.
        """
        parameters.local_node("node", node, self.settings.listen_addr)
        self._usable()
        if self._node is not None:
            raise NotReadyError("new() was called before: a node list has one local node")
        self._node = node

    def set(self, node: Node) -> None:
        """Add a seed: another node, which the local node contacts whenever the seed is not a present member.

        Works at any time.
        """
        parameters.node("node", node)
        parameters.other_node("node", node, self._local())
        if self._runtime is None:
            self._seeds.append(node)
        else:
            self._runtime.call(lambda engine, now: engine.seed(node, now))

    def unset(self, node: Node) -> None:
        """Undo :meth:`set`: no longer contact ``node`` when it is not a present member. If ``node`` is a member now, it
        stays a member.
        """
        parameters.node("node", node)
        self._local()
        if self._runtime is None:
            self._seeds = [seed for seed in self._seeds if seed.address != node.address]
        else:
            self._runtime.call(lambda engine, now: engine.unseed(node.address))

    async def join(self) -> None:
        """Open the sockets, load the stored state and start to gossip.

        Raises ``StoreError``, and ``TransportError``, for example if the address is in use.
        """
        node = self._local()
        if self._disk is not None:
            raise NotReadyError("join() was called before")
        self._disk = Disk(self._open_store)
        self._process = os.getpid()
        self._loop = asyncio.get_running_loop()
        self._joining = self._loop.create_future()
        runtime: Runtime | None = None
        try:
            incarnation, snapshot, problems = await self._disk.load(int(time.time()))
            for problem in problems:
                _log.error("stored state: %s", problem)
            self._state_problems = problems
            transport = self._make_transport(node)
            own = b"" if self.sealing_key is None else fingerprint(self.sealing_key)
            keyring = self._assembly.keyring
            engine = self._assembly.engine(node, incarnation, transport.name, self._rng, own)
            steering = self._assembly.steering(engine, transport, self._no_plane)
            runtime = Runtime(engine, transport, self._disk, self._on_event, steering, self._assembly.allow)
            await runtime.open()
            # _usable() raises an error if close() was called during open().
            self._usable()
            engine.reaches = transport.reaches
            # No await from here on: a publish must not run before the stored documents are loaded.
            for seed in self._seeds:
                engine.seed(seed, runtime.now())
            # The engine was created before the stored documents were read, and the signers may have changed since.
            engine.trust(self.settings.signers, runtime.now())
            if self._assembly.keyring is not None and self._assembly.keyring is not keyring:
                runtime.replace_keys(self._assembly.keyring)
            runtime.counters["state_file_repairs"] = len(problems)
            self._runtime = runtime
            self._started = time.monotonic()
            runtime.start(snapshot)
        except BaseException as error:
            self._join_failed = str(error)
            self._runtime = self._process = self._loop = None
            disk, self._disk = self._disk, None
            if runtime is not None:
                await runtime.abandon()
            await disk.close()
            raise
        finally:
            self._joining.set_result(None)
            self._joining = None

    async def _take_back(self) -> None:
        """Undo a :meth:`join` whose caller was interrupted, so that the program may call :meth:`join` again."""
        if self._joining is not None:
            await asyncio.wait([self._joining])
        if self._runtime is not None:
            runtime, self._runtime = self._runtime, None
            await runtime.close()
            self._disk = self._process = self._loop = None
            self._join_failed = "interrupted"

    def get(self) -> list[Node]:
        """Return all present nodes, the local node first."""
        local = self._local()
        return [local, *self._seeds] if self._runtime is None else self._present(self._runtime)

    def stop(self) -> bool:
        """Stop sending heartbeats. The other members remove this node after their timeout.

        Returns False if the node was not sending heartbeats.
        """
        return self._joined().call(lambda engine, now: engine.pause(now))

    def start(self) -> bool:
        """Send heartbeats again after :meth:`stop`. Returns False if the node was sending heartbeats already."""
        return self._joined().call(lambda engine, now: engine.resume(now))

    async def publish(
        self,
        data: bytes,
        key: str = DEFAULT_KEY,
        *,
        expected: Version | str | None = None,
        absent: bool = False,
        content_type: str | None = None,
        author: str = "",
        comment: str = "",
        expires_in: float | None = None,
    ) -> Published:
        """Write a document to the local disk, then send it to all members.

        ``content_type``: the type of ``data``, as text. If the type is text, json or yaml, invalid ``data`` raises
        ``ProtocolError`` (invalid_content). None selects the type of the current version. A document without a current
        version gets the type of the key's suffix (``.json``, ``.yaml``, ``.yml``, ``.txt``), or else raw.
        ``expires_in``: seconds until the document expires.

        ``expected``: write only if this version is current on this node. ``absent``: write only if this node has no
        such document. If the condition ``expected`` or ``absent`` is not met, the call raises ``ProtocolError``
        (version_mismatch with details ``expected`` and ``actual``). Raises ``StoreError`` if the disk fails. After a
        ``StoreError`` nothing is published, except with the wire pekonode, which sends a document before it is stored.
        A cancelled call has either taken effect before the cancellation, or never takes effect.
        """
        data = parameters.content("data", data)
        known = None if expected is None else parameters.version("expected", expected)
        write = Write(key, data, content_type, known, absent, expires_in)
        return (await self._publish([parameters.write("", write)], author, comment))[0]

    def read(self, key: str = DEFAULT_KEY) -> bytes:
        """Return the value of a document; empty if there is no document.

        Raises ``InvalidError`` for an invalid key.
        """
        held = self.document(key)
        return held.value if held else b""

    # -- beyond PekoNode ---------------------------------------------------------------------------------------

    async def delete(
        self, key: str, *, expected: Version | str | None = None, author: str = "", comment: str = ""
    ) -> Published:
        """Delete a document on all members. See :meth:`publish` for the errors.

        The history stores ``author`` and ``comment`` with the deletion.
        """
        parameters.document_key("key", key)
        known = None if expected is None else parameters.version("expected", expected)
        return (await self._publish([Write(key, expected=known, deleted=True)], author, comment))[0]

    async def publish_many(self, writes: Sequence[Write], *, author: str = "", comment: str = "") -> list[Published]:
        """Write and delete up to 64 documents, all or none.

        On each node, the changes of all documents become visible together.

        See :meth:`publish` for the errors; each error names the ``key`` in its details. The total size of all values is
        limited to the maximum size of one document.
        """
        given = parameters.sequence("writes", writes, "Write")
        return await self._publish(
            [parameters.write(f"writes[{index}].", each) for index, each in enumerate(given)], author, comment
        )

    async def _publish(self, writes: Sequence[Write], author: str, comment: str) -> list[Published]:
        parameters.instance("author", author, str, "text")
        parameters.instance("comment", comment, str, "text")
        runtime = self._joined()
        while True:
            checked = [write if write.deleted else await self._checked(write, runtime) for write in writes]
            try:
                return await self._write(checked, author, comment)
            except TypeChanged:  # another publish has changed the document's type, so check again
                continue

    async def _checked(self, write: Write, runtime: Runtime) -> Write:
        """Check the value of ``write`` against its content type. Returns ``write`` with the checked type.

        Raises ``ProtocolError``.
        """
        held = runtime.engine.documents.get(write.key)
        kind = write.type_over(held)
        try:
            await self._contents.check(write.key, write.value, kind)
        except ProtocolError as error:
            if write.content_type is not None or error.code != "invalid_content":
                raise
            source = "the version held" if held is not None else "the suffix"
            hint = f"{kind} is the type of {source}: give a content_type if the document is of another type now"
            raise ProtocolError(error.code, f"{error}; {hint}", **error.details) from None
        return replace(write, checked_as=kind)

    async def _write(self, writes: Sequence[Write], author: str, comment: str) -> list[Published]:
        runtime = self._joined()
        held = [runtime.engine.documents.get(write.key) for write in writes]
        written = await runtime.publisher.publish(writes, author, comment)
        return [
            Published(document, changed, before.version if before else None)
            for (document, changed), before in zip(written, held)
        ]

    async def rollback(
        self,
        key: str,
        version: Version | str,
        *,
        expected: Version | str | None = None,
        author: str = "",
        comment: str = "",
        expires_in: float | Literal["never"] | None = None,
    ) -> Published:
        """Publish a former ``version`` from this node's history again.

        If the former version is a deletion, delete the document.

        The new version expires at the same time as ``version``, unless ``expires_in`` gives a number of seconds or
        "never". Raises ``ProtocolError`` (version_not_found; version_expired if the time of expiry has passed), and the
        errors of :meth:`publish`.
        """
        known = None if expected is None else parameters.version("expected", expected)
        former = await self.version(key, version)
        seconds = None if expires_in == "never" else expires_in
        write = Write(key, former.value, former.content_type, known, expires_in=seconds, deleted=former.deleted)
        write = replace(parameters.write("", write), expires=former.expires if expires_in is None else 0)
        parameters.instance("comment", comment, str, "text")
        parameters.instance("author", author, str, "text")
        # The content is not checked again, so that a rollback works even if the checks have become stricter.
        return (await self._write([write], author, comment or f"rollback to {former.version}"))[0]

    def trust(self, signers: Sequence[Signer]) -> int:
        """Replace the signers of documents. See the parameter ``signers`` of the constructor.

        Documents that lack a signature which they now need stay in the history, but this node does not hold them any
        more. Returns the number of these documents, which is 0 before :meth:`join`.
        """
        found = parameters.signers("signers", signers)
        self._local()
        if found and self.settings.wire == "pekonode":
            raise ValueError("signers: expected none with wire='pekonode', which has no signed documents")
        self.settings = replace(self.settings, signers=found)
        if self._runtime is None:
            return 0  # join() will use the settings
        return self._joined().call(lambda engine, now: engine.trust(found, now))

    @property
    def keys(self) -> list[tuple[int, str]]:
        """Fingerprint (64 bits) and state of each key of this node, in the order given; empty on PekoNode's wire."""
        keyring = self._assembly.keyring
        return list(keyring.states) if keyring is not None else []

    def replace_keys(self, keys: Sequence[tuple[str, str]]) -> None:
        """Replace the cluster's keys on this node: pairs of state and secret, as the parameter ``keys``.

        Works at any time, also while the node runs. The node accepts packets signed with any of the new keys, signs the
        next packet with the new active key, and tells the other members which keys it has. Packets signed with a key
        that is not among the new ones are refused from now on. So to rotate a key, first add the new key as staged on
        every node, then make it active and the old key retiring, then remove the old key.

        Raises ``ValueError`` as the constructor does, and then changes nothing.
        """
        found = parameters.keys("keys", keys)
        if not found:
            raise ValueError("keys: expected at least one key, got none")
        self._local()
        settings = replace(self.settings, keys=found, secret_key="")
        keyring = keyring_of(settings)
        if keyring is None:
            raise ValueError("keys: expected none with wire='pekonode', which supports only secret_key")
        self.settings, self._assembly.keyring = settings, keyring
        if self._runtime is not None:  # otherwise join() will use the keys
            self._joined().replace_keys(keyring)

    def lineage(self, key: str) -> tuple[Version, ...]:
        """Return the versions that the signer of the next version of a document has read, for ``Signed.read``.

        The first is the current version, or the version of the deletion. The result is () if this node has never had
        such a document.
        """
        parameters.document_key("key", key)
        return self._joined().engine.documents.lineage(key)

    def signed_by(self, document: Document) -> SignedBy | None:
        """Return who signed ``document``, a version from this node; None if nobody did."""
        runtime = self._joined()
        if parameters.instance("document", document, Document, "a Document").signature is None:
            return None
        return runtime.engine.documents.signers.signed_by(document, runtime.now().wall_ns // 1000)

    def signature(self, document: Document) -> dict[str, str] | None:
        """Return the ``statement`` and the ``armored`` signature of ``document``, a version from this node.

        ``ssh-keygen -Y verify`` can check the signature. Returns None if nobody signed the document.
        """
        runtime = self._joined()
        signature = parameters.instance("document", document, Document, "a Document").signature
        if signature is None:
            return None
        text = runtime.engine.documents.signers.statement_of(document).decode()
        return {"statement": text, "armored": armored(signature.blob)}

    def forget(self, address: Address) -> Member:
        """Remove a dead node from this node's list, so that it no longer counts for ``majority``.

        The node returns to the list as soon as it is heard again. The removal is local and durable: other members list
        the node until they forget it, too. Returns the node as it was. Raises ``ProtocolError``: node_not_found,
        node_not_dead.
        """
        parameters.instance("address", address, Address, "an Address")
        return self._joined().call(lambda engine, now: engine.forget(address, now))

    def repair(self) -> int:
        """Sync at once with every member whose documents digest differs from this node's.

        Returns the number of members with a different digest.
        """
        return self._joined().call(lambda engine, now: engine.repair(now))

    async def leave(self) -> bool:
        """Leave the cluster. The other members remove this node at once. Returns False if the node had left already."""
        return self._joined().call(lambda engine, now: engine.leave(now))

    async def close(self) -> None:
        """Stop gossiping, and close sockets, threads and the state file.

        The other members remove this node after their timeout; call :meth:`leave` first to make them remove it at once.
        Further calls of :meth:`close`, and calls in a forked child, do nothing.
        """
        if self._forked:
            return
        self._at_home()
        self._closed = True
        if self._joining is not None:  # join() notices the close, and closes everything it has opened
            await asyncio.wait([self._joining])
        if self._runtime is not None:
            await self._runtime.close()
        await self._contents.close()
        self._log.close()
        self._loop = None

    def members(self, states: frozenset[State] | None = PRESENT) -> list[Member]:
        """Return the local node, then the other nodes in ``states`` (None: in any state)."""
        wanted = parameters.states("states", states)
        runtime = self._joined()
        found = runtime.engine.members(runtime.now())
        return [member for member in found if wanted is None or member.state in wanted or member.local]

    def local(self) -> Member:
        """Return the local node as a member. The cost does not depend on the number of members."""
        return self._joined().engine.local

    def page(
        self,
        states: frozenset[State] | None = PRESENT,
        after: Address | None = None,
        limit: int | None = None,
        zones: frozenset[str] | None = None,
    ) -> list[Member]:
        """Return the nodes in ``states`` and ``zones``, ordered by address.

        ``states``: None for all states. ``after``: return only nodes whose address comes after this address. ``limit``:
        maximum number of nodes to return. ``zones``: None for all zones; "" is the zone of nodes without one. The cost
        grows with the number of nodes up to the last returned node, not with the number of known nodes.
        """
        wanted, places = parameters.states("states", states), parameters.zones("zones", zones)
        if after is not None:
            parameters.instance("after", after, Address, "an Address, or None")
        if limit is not None:
            parameters.integer("limit", limit, 1, 2**31)
        runtime = self._joined()
        engine, now = runtime.engine, runtime.now()
        local = engine.local
        first = [local] if after is None or after < local.address else []
        merged = heapq.merge(first, engine.members_after(after, now), key=lambda member: member.address.order())
        found = (
            member
            for member in merged
            if (wanted is None or member.state in wanted) and (places is None or member.zone in places)
        )
        return list(itertools.islice(found, limit))

    def tag(self) -> str:
        """Return a text that changes whenever the result of :meth:`members` changes.

        The text does not change if a member only sends a sign of life. No other node, and no other run of this node,
        returns the same text. The cost does not depend on the number of members.
        """
        engine = self._joined().engine
        local = repr(replace(engine.local, sequence=0, stored=True))
        return f"{self._run}-{engine.revision}-{hashlib.blake2b(local.encode(), digest_size=8).hexdigest()}"

    def document(self, key: str) -> Document | None:
        """Return a document; None if this node has no document with that key."""
        parameters.document_key("key", key)
        return self._joined().engine.documents.get(key)

    def documents(self, prefix: str = "", after: str = "", limit: int | None = None) -> list[Document]:
        """Return documents whose key starts with ``prefix``, ordered by key.

        ``after``: return only documents whose key comes after this key. ``limit``: maximum number of documents to
        return (None: all). The cost grows with the number of returned documents, not with the number of documents on
        this node.
        """
        parameters.instance("prefix", prefix, str, "text")
        parameters.instance("after", after, str, "text")
        if limit is not None:
            parameters.integer("limit", limit, 1, 2**31)
        return list(itertools.islice(self._joined().engine.documents.live(prefix, after), limit))

    def documents_digest(self) -> str:
        """Return the documents digest. Members with the same documents and deletions have the same digest."""
        return f"{self._joined().engine.documents.digest:016x}"

    async def history(self, key: str) -> list[Document]:
        """Return the stored versions of a document, newest first. The node stores the latest versions that it has
        accepted. A version of the state file whose signature is wrong is left out. Raises ``StoreError``.
        """
        parameters.document_key("key", key)
        runtime = self._joined()
        assert self._disk is not None
        kept = runtime.authentic(await self._disk.history(key))
        return [version for version in kept if not runtime.publisher.undecided(version)][: self.settings.history]

    async def version(self, key: str, version: Version | str) -> Document:
        """Return a version, which may be a tombstone, from the history of a document.

        Raises ``ProtocolError`` (version_not_found) and ``StoreError``.
        """
        wanted = parameters.version("version", version)
        versions = await self.history(key)
        found = next((document for document in versions if document.version == wanted), None)
        if found is None:
            kept = f"{len(versions)} other versions" if versions else "none"
            text = f"document {key!r}: expected a version of its history here, got {wanted}; there are {kept}"
            raise ProtocolError("version_not_found", text, key=key, version=str(wanted))
        return found

    def unread(self, key: str, versions: Sequence[Document]) -> frozenset[Version]:
        """Return the conflicts among ``versions``: the versions that another author replaced without having read them.

        The result is empty on PekoNode's wire, because its documents do not list the versions that the author had read.
        """
        parameters.document_key("key", key)
        parameters.documents("versions", versions)
        engine = self._joined().engine
        if not engine.tells_ancestry:
            return frozenset()
        held = engine.documents.held(key)
        return frozenset(unread(versions, held.version if held else None, engine.local.address))

    def update_node(self, name: str | None = None, private_data: str | None = None) -> bool:
        """Change the name or the private data of this node. Returns False if both stay the same."""
        for told, value in (("name", name), ("private_data", private_data)):
            if value is not None:
                parameters.instance(told, value, str, "text")
        changed = self._joined().call(lambda engine, now: engine.update_node(now, name, private_data))
        self._node = self._joined().engine.node
        return changed

    @property
    def revision(self) -> int:
        """A number that grows with every change of a node or document on this node."""
        return self._log.revision

    async def changes(self, since: int, timeout: float, prefix: str = "", kind: str = "") -> Changes:
        """Return the changes after revision ``since``.

        If there are no such changes yet, wait up to ``timeout`` seconds for the first such change.

        ``kind``: return only changes of this kind (document, node or zone). ``prefix``: of the changes of documents,
        return only those whose key starts with ``prefix``. Raises ``NotReadyError`` after :meth:`close`.
        """
        chosen = _filter(prefix, kind)
        parameters.integer("since", since, 0, 2**63 - 1)
        return await self._open_log().wait(since, parameters.number("timeout", timeout, 0, 86_400), chosen)

    def watch(self, prefix: str = "", since: int | None = None, kind: str = "") -> AsyncIterator[Change]:
        """Return an asynchronous iterator over every change after revision ``since`` (None: the current revision).

        The parameters are those of :meth:`changes`. If changes are missing, the iterator yields one :class:`Change` of
        kind resync: the program must read everything again. Changes are missing if the program leaves more than 4,096
        changes, or 32 MiB of documents, unread, or if ``since`` comes from an earlier run. The iterator ends when the
        node list is closed. Raises ``ValueError``, and ``NotReadyError`` before :meth:`join` and after :meth:`close`.
        """
        chosen = _filter(prefix, kind)
        if since is not None:
            parameters.integer("since", since, 0, 2**63 - 1)
        log = self._open_log()
        return self._follow(log.revision if since is None else since, chosen)

    async def _follow(self, revision: int, chosen: Filter) -> AsyncIterator[Change]:
        # watch() may have been called outside the event loop, but the iterator must run in it.
        self._at_home()
        async for change in self._log.follow(revision, chosen):
            yield change
            self._at_home()

    async def convergence(
        self,
        key: str | None = None,
        version: Version | str | None = None,
        digest: str | None = None,
        wait: str | int = "all",
        timeout: float = 0.0,
        deleted: bool = False,
        applied: bool = False,
    ) -> Convergence:
        """Find out which members hold a version of a document, or the same documents as this node.

        ``key``: key of the document (None: all documents). ``version``: the version that members must hold. ``digest``:
        the digest that members must have: the content digest of the document, or the documents digest if ``key`` is
        None. If neither ``version`` nor ``digest`` is given, this node's own version and digest are used. ``deleted``:
        count members that do not hold the document. If ``deleted`` and ``version`` are given, count only members that
        know this deletion. ``wait``: stop when this number of members is confirmed (all, majority or a number), or
        after ``timeout`` seconds. All means all present members. A majority is more than half of all known nodes that
        have not left, dead nodes included. ``applied``: count a member only if its rendered files use the version, or
        if no rendered file of the member uses the document. The wait ends early once each member either is confirmed or
        reports that its rendered files rejected the version. Raises ``ProtocolError``: document_not_found; isolated, as
        soon as this node is isolated.
        """
        if key is not None:
            parameters.document_key("key", key)
        if version is not None:
            version = parameters.version("version", version)
        if digest is not None:
            parameters.digest("digest", digest, of_state=key is None)
        enough = enough_for(parameters.members_wanted("wait", wait))
        timeout = parameters.number("timeout", timeout, 0, 86_400)
        parameters.flag("deleted", deleted)
        parameters.flag("applied", applied)
        runtime = self._joined()
        for name, given in (("version", version is not None), ("deleted", deleted), ("applied", applied)):
            if given and key is None:
                raise ValueError(f"{name}: expected a key as well")
        if deleted and digest is not None:
            raise ValueError("digest: expected none together with deleted, because a deleted document has no content")
        if key is None:
            wanted = Wanted(None, None, digest or f"{runtime.engine.documents.digest:016x}")
        elif deleted:
            wanted = Wanted(key, str(version) if version is not None else None, None, deleted=True)
        elif version is None and digest is None:
            held = runtime.engine.documents.get(key)
            if held is None:
                raise ProtocolError("document_not_found", f"document {key!r}: this node has no such document", key=key)
            wanted = Wanted(key, str(held.version), held.digest)
        else:
            held = runtime.engine.documents.get(key)
            if digest is None and held is not None and str(held.version) == str(version):
                # On PekoNode's wire, a version is a time stamp, and two different values may have the same time stamp.
                digest = held.digest
            wanted = Wanted(key, str(version) if version is not None else None, digest)
        inquiry = Inquiry(runtime, self._log, replace(wanted, applied=applied))
        self._inquiries.add(inquiry)
        try:
            found = await inquiry.run(enough, timeout)
            if not found.converged:
                self._usable()
            return found
        finally:
            self._inquiries.discard(inquiry)

    def look_for_dataplane(self) -> None:
        """Look for a kernel data plane now, and use it if one is loaded.

        Without this call, the node looks for a data plane every few seconds.
        """
        runtime = self._joined()
        runtime.call(lambda _, now: runtime.steering.look(now))

    async def troubled_files(self, timeout: float = 2.0) -> FleetFiles:
        """Find the rendered files of all present members that have failed, have drifted, or are pending for too long.

        Waits up to ``timeout`` seconds for the members' answers. Raises ``ProtocolError`` (unsupported_operation) on
        wire pekonode.
        """
        timeout = parameters.number("timeout", timeout, 0, 86_400)
        inquiry = FilesInquiry(self._joined(), self._log)
        self._files_inquiries.add(inquiry)
        try:
            return await inquiry.run(timeout)
        finally:
            self._files_inquiries.discard(inquiry)

    def tell_applied(
        self, source: Callable[[str], Applied], files: Callable[[], TroubledFiles] = lambda: NO_FILES
    ) -> None:
        """Set the functions that report on the rendered files of this node, for other members and :meth:`convergence`.

        ``source`` gets a document's key, and returns the document's state in the rendered files. ``files`` returns the
        rendered files with problems (:meth:`troubled_files`).
        """
        if not callable(source):
            raise TypeError(f"source: expected a function of a key, got {shown(source)}")
        if not callable(files):
            raise TypeError(f"files: expected a function, got {shown(files)}")
        engine = self._joined().engine
        engine.applied_source, engine.files_source = source, files

    @property
    def catching_up(self) -> str:
        """The reason why this node may still lack nodes or documents that the cluster had when the node started; "" if
        the node has caught up.

        See docs/protocol.md, "Catching up".
        """
        return self._runtime.engine.catching_up if self._runtime is not None else "it has not joined yet"

    @property
    def isolated(self) -> bool:
        """Whether this node is cut off: it knows several other nodes, but none of them answers it.

        An isolated node confirms nothing: :meth:`convergence` raises ``ProtocolError`` (isolated).
        """
        return self._runtime is not None and self._runtime.engine.isolated

    def state(self) -> str:
        """Return the status of this node: new, running, paused or left.

        The cost does not depend on the number of members.
        """
        return self._joined().engine.status

    def healthy(self) -> bool:
        """Tell whether the timers of the protocol run in time and without internal errors."""
        return self._joined().healthy()

    def health(self) -> str:
        """Return the answer of ``GET /v1/health`` (docs/api.md): ok, starting, storage, missed_rotation, isolated or
        stopped.

        The cost does not depend on the number of members.
        """
        runtime = self._joined()
        word = {"running": "ok", "new": "starting"}.get(runtime.engine.status, "stopped")
        if word == "ok" and runtime.storage_error:
            return "storage"
        if word == "ok" and runtime.engine.missed_rotation:
            return "missed_rotation"
        return "isolated" if word == "ok" and runtime.engine.isolated else word

    def summary(self) -> str:
        """Describe this node's state in one line, for a service manager.

        The cost does not depend on the number of members.
        """
        engine = self._joined().engine
        counts = engine.tally()
        seen = f"{counts[State.ALIVE]} alive, {counts[State.SUSPECT]} suspect"
        if counts[State.AGENT_DOWN]:
            seen += f", {counts[State.AGENT_DOWN]} agent_down"
        word = "isolated" if engine.isolated else engine.status
        if engine.missed_rotation:
            word = "no common key, a rotation may have been missed"
        return f"{word}: {seen}, {engine.documents.totals[0]} documents"

    def status(self) -> dict[str, Any]:
        """Return the answer of ``GET /v1/status`` (docs/api.md) as a dictionary."""
        runtime = self._joined()
        engine = runtime.engine
        counts = {state.value: count for state, count in engine.tally().items()}
        documents, document_bytes = engine.documents.totals
        return {
            "version": __version__,
            "cluster": self.settings.cluster,
            "wire": self.settings.wire,
            "protocol": self.settings.protocol,
            "mode": runtime.transport.name,
            "mode_reason": runtime.steering.reason,
            "state": engine.status,
            "isolated": engine.isolated,
            "missed_rotation": engine.missed_rotation,
            "unknown_key_nodes": engine.unknown_key_nodes,
            "uptime": round(time.monotonic() - self._started, 3),
            "node": shapes.node(engine.local),
            "listen": str(runtime.transport.local),
            "cycle": engine.cycle,
            "timeout": engine.timeout,
            "amount": self.settings.amount,
            "members": counts,
            "documents": documents,
            "document_bytes": document_bytes,
            "document_bytes_limit": self.settings.limits.store,
            "digest": f"{engine.documents.digest:016x}",
            "clock_offset": round(engine.clock_offset, 6),
            "caught_up": not engine.catching_up,
            "catching_up": engine.catching_up,
            "storage_error": runtime.storage_error,
            "state_problems": self._state_problems,
            "counters": {
                "internal_errors": RECORD.count,
                **dict(sorted({**engine.counters, **runtime.counters}.items())),
                **dict(sorted(runtime.transport.counters.items())),
            },
            "internal_errors": [asdict(found) for found in RECORD.all()],
            **runtime.steering.status(),
            "api_version": 1,
        }

    async def __aenter__(self) -> AsyncNodeList:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    # -- inside ------------------------------------------------------------------------------------------------

    @property
    def _forked(self) -> bool:
        return self._process is not None and self._process != os.getpid()

    def _usable(self) -> None:
        """Raise ``NotReadyError`` if this node list is closed, or belongs to another process or event loop."""
        self._not_forked()
        if self._closed:
            raise NotReadyError("the node list was closed")
        self._at_home()

    def _not_forked(self) -> None:
        if self._forked:
            text = f"the node list belongs to process {self._process}: a forked child needs one of its own"
            raise NotReadyError(text)

    def _at_home(self) -> None:
        """Raise ``NotReadyError`` in another event loop than that of :meth:`join`.

        A call in another loop would wait forever, because nothing wakes that loop.
        """
        self._not_forked()
        if self._loop is not None and asyncio._get_running_loop() not in (None, self._loop):
            raise NotReadyError("the node list belongs to the event loop that join() ran in, call it from there")

    def _local(self) -> Node:
        self._usable()
        if self._node is None:
            raise NotReadyError("call new() first: the node list does not know its local node yet")
        return self._node

    def _joined(self) -> Runtime:
        self._local()
        if self._runtime is None:
            failed = f"; the last join() failed: {self._join_failed}" if self._join_failed else ""
            raise NotReadyError(f"call join() first: the node list is not part of a cluster yet{failed}")
        return self._runtime

    def _open_log(self) -> ChangeLog:
        self._joined()
        return self._log

    @staticmethod
    def _present(runtime: Runtime) -> list[Node]:
        members = runtime.engine.members(runtime.now())
        return [member.node for member in members if member.state in PRESENT or member.local]

    def _open_store(self) -> StateStore:
        settings = self.settings
        if not settings.state_dir:
            return MemoryStore(settings.history)
        directory = Path(settings.state_dir)
        try:
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise StoreError(f"{directory}: {error.strerror}") from None
        forks.own_file(directory / "state.db")
        store = Store.open(directory / "state.db", settings.history, settings.cluster)
        if settings.wire == "pekonode":
            return store
        try:
            # Only the public key stays in memory: the processes that open documents read the private key themselves.
            self.sealing_key = public_of(load_or_make(directory))
        except KeyFileError as error:
            store.close()
            raise StoreError(str(error)) from None
        return store

    def _make_transport(self, node: Node) -> Transport:
        transport, self._no_plane = self._assembly.transport(node)
        return transport

    def _on_event(self, event: Event) -> None:
        if isinstance(event, DocumentRefused):
            refusal = Refusal(event.key, event.version, event.reason, event.source)
            self._log.add("refusal", "refused", refusal=refusal)
        elif isinstance(event, DocumentWithheld):
            self._log.add("document", "deleted", document=replace(event.document, value=b"", deleted=True))
            refusal = Refusal(event.document.key, event.document.version, event.reason, None)
            self._log.add("refusal", "refused", refusal=refusal)
        elif isinstance(event, DocumentChanged):
            what = "deleted" if event.document.deleted else "published"
            lost = event.replaced.version if event.conflict and event.replaced is not None else None
            self._log.add("document", what, document=event.document, conflict=lost)
        elif isinstance(event, MemberChanged):
            self._log.add("node", _event_of(event), member=event.member)
        elif isinstance(event, MemberForgotten):
            self._log.add("node", "forgotten", member=event.member)
        elif isinstance(event, ZoneChanged):
            if event.lost:
                _log.warning("zone %s is lost: none of its %d members is present", shown(event.zone), event.members)
            else:
                _log.info("zone %s is back", shown(event.zone))
            self._log.add("zone", "lost" if event.lost else "returned", zone=Zone(event.zone, event.members))
        elif isinstance(event, CaughtUp):
            _log.info("caught up with the cluster: %s", event.how)
        elif isinstance(event, QueryAnswered):
            for inquiry in list(self._inquiries):
                inquiry.on_answer(event)
        elif isinstance(event, AppliedAnswered):
            for inquiry in list(self._inquiries):
                inquiry.on_applied(event)
        elif isinstance(event, FilesAnswered):
            for asked in list(self._files_inquiries):
                asked.on_answer(event)
        if self.settings.is_print and not self._console_is_gone:
            nodes = self._present(self._runtime) if self._runtime is not None else []
            line = format_event(event, nodes, datetime.datetime.now(), self.settings.listen_addr)
            if line is not None:
                self._say(line)

    def _say(self, line: str) -> None:
        """Print a line to the console. After an error, print no further lines.

        An error, such as a closed pipe, must not cause the call that printed the line to fail.
        """
        try:
            self._print(line)
        except (OSError, ValueError) as error:
            self._console_is_gone = True
            _log.warning("console lines end: %s: %s", type(error).__name__, error)


def _print_line(line: str) -> None:
    """Print a line. Characters that the console's encoding cannot represent become escape sequences."""
    try:
        print(line, flush=True)
    except UnicodeEncodeError:
        print(line.encode("ascii", "backslashreplace").decode(), flush=True)


def _event_of(event: MemberChanged) -> str:
    state, previous = event.member.state, event.previous
    if state in _EVENTS and state is not previous:
        return _EVENTS[state]
    return "joined" if previous is None else _ALIVE_EVENTS.get(previous, "joined")


def _filter(prefix: str, kind: str) -> Filter:
    parameters.instance("prefix", prefix, str, "text")
    if kind != "":
        parameters.choice("kind", kind, KINDS)
    return Filter(prefix, kind)
