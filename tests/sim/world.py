# SPDX-License-Identifier: MIT
"""A world of nodes under one seed: the same seed gives the same events, to the byte.

Each node is a real :class:`xdp_gossip.core.engine.Engine` with the real codec, a disk (``MemoryStore``, which outlives
crashes), and a wall clock of its own. What its shell would do, :class:`SimNode` does: send, persist, wake at timers.
"""

from __future__ import annotations

import functools
import hashlib
import heapq
import itertools
import math
import random
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Callable

from tests.support.keys import KEY, OTHER_KEY
from tests.support.signer import Draft, Key, rules
from tests.support.signer import writes as signed_writes
from xdp_gossip.core.engine import Engine
from xdp_gossip.core.events import DocumentChanged, Event, IncarnationChanged, Standing, TombstonesCollected, Transmit
from xdp_gossip.core.interface import remembered
from xdp_gossip.core.packets import Header
from xdp_gossip.core.settings import Settings
from xdp_gossip.core.signatures import time_after
from xdp_gossip.core.types import Address, Document, Node, Now, Write
from xdp_gossip.store.sqlite import MemoryStore, persist
from xdp_gossip.wire.keys import Keyring
from xdp_gossip.wire.native import NativeCodec

from . import trace
from .checks import Checks, Violation
from .network import DATAGRAM, Link, Network
from .plane import ROUNDING, SimPlane

EPOCH_S = 1_700_000_000
#: Datagrams that wait for a frozen node, as in a socket's buffer.
SOCKET_BUFFER = 2000
#: Events that may follow each other without any time passing; more would go on forever.
AT_ONCE = 100_000


#: State and secret of each key with which nodes begin.
KEYS = (("active", KEY),)


@functools.lru_cache(maxsize=64)
def keyring_of(keys: tuple[tuple[str, str], ...]) -> Keyring:
    """The keyring of these pairs of state and secret."""
    return Keyring("sim", keys)


class SharedCodec(NativeCodec):
    """The real codec, which reads the copies of one packet that several nodes get only once."""

    def __init__(self) -> None:
        # Traces show packets of both keys of a rotation.
        super().__init__(keyring_of((*KEYS, ("staged", OTHER_KEY))), bytes(4))
        self._parsed: dict[bytes, Header] = {}

    def parse(self, data: bytes) -> Header:
        """See ``NativeCodec``."""
        header = self._parsed.get(data)
        if header is None:
            if len(self._parsed) > 5000:
                self._parsed.clear()
            header = self._parsed[data] = super().parse(data)
        return header


_CODEC = SharedCodec()


class RunCodec(SharedCodec):
    """Of one run of a node, which has a salt of its own, or of its data plane."""

    def __init__(self, salt: bytes, keyring: Keyring) -> None:
        NativeCodec.__init__(self, keyring, salt)
        self._parsed = _CODEC._parsed


class SimNode:
    """A machine with an agent on it: its disk and clock last, the engine comes and goes."""

    def __init__(self, world: World, number: int) -> None:
        self.world = world
        self.number = number
        self.node = Node(
            f"198.{18 + number // 50_000}.{number // 250 % 200}.{number % 250 + 1}",
            8000,
            f"host{number}",
            f"data {number}",
        )
        self.disk = MemoryStore()
        self.engine: Engine | None = None
        self.frozen = False
        #: Seconds that its wall clock is ahead of the true time.
        self.skew = 0.0
        #: Seconds for which it was suspended, and when it was last.
        self.slept = 0.0
        self.suspended_at: float | None = None
        self.runs = 0
        self._seeds: list[SimNode] = []
        self._backlog: list[tuple[bytes, Address]] = []
        self._unsaved: list[tuple[float, DocumentChanged]] = []
        self._wake_at: float | None = None
        self.keys: tuple[tuple[str, str], ...] = KEYS
        self.plane: SimPlane | None = None
        if number in world.planes:
            rng = random.Random(f"{world.seed}/{number}/plane")
            self.plane = SimPlane(
                self.address, world.settings, RunCodec(bytes(4), keyring_of(KEYS)), lambda t: world.send(self, t), rng
            )

    @property
    def address(self) -> Address:
        """Its identity."""
        return self.node.address

    @property
    def up(self) -> bool:
        """Whether its process exists and is scheduled."""
        return self.engine is not None and not self.frozen

    @property
    def now(self) -> Now:
        """Its clocks: monotonic time differs per machine, as it does in life."""
        time = self.world.time
        return Now(self._mono_at(time), max(0, int((EPOCH_S + time + self.skew) * 1e9)), self.slept)

    def _mono_at(self, time: float) -> float:
        return 1000.0 * (self.number + 1) + time - self.slept

    def boot(self, seeds: Iterable[SimNode] = ()) -> None:
        """Start the agent with what its disk holds, and with ``seeds``.

        One that was killed before it could write down a single node needs the seeds of its first start again.
        """
        assert self.engine is None, f"node {self.number} runs already"
        self.runs += 1
        self.world.runs += 1
        now = self.now
        incarnation = self.disk.next_incarnation(now.wall_ns // 10**9)
        rng = random.Random(f"{self.world.seed}/{self.number}/{self.runs}")
        codec = RunCodec(rng.randbytes(4), keyring_of(self.keys))
        settings = replace(self.world.settings, zone=self.world.zone(self.number))
        self.engine = Engine(self.node, settings, codec, rng, incarnation, signers=self.world.signers)
        snapshot = self.disk.load()
        self.world.checks.on_boot(self, snapshot.documents)
        self._seeds = list(seeds) or self._seeds
        for other in seeds if snapshot.known else self._seeds:
            if other is not self:
                self.engine.seed(Node(other.node.addr, other.node.port), now)
        self.world.note("boot", self.number, str(incarnation).encode())
        self.engine.start(now, snapshot.known, snapshot.documents)
        if not self.world.observers:
            self.engine._edges.due = self.engine._round_at = math.inf
        self.after_input()

    def use_keys(self, *keys: tuple[str, str]) -> None:
        """A reload with other keys, in the order in which ``Runtime.replace_keys`` writes them."""
        assert self.engine is not None
        self.world.note("keys", self.number, " ".join(state for state, _ in keys).encode())
        before, self.keys = self.keys, keys
        held = {secret for _, secret in before}
        if self.plane is not None:
            more = (("staged", secret) for _, secret in keys if secret not in held)
            self.plane.model.codec.use(keyring_of((*before, *more)))
        self.engine.replace_keys(keyring_of(keys), self.now)
        self.after_input()
        if self.plane is not None:
            self.plane.model.codec.use(keyring_of(keys))

    def crash(self) -> None:
        """kill -9, or the power: what was not on the disk is gone."""
        assert self.engine is not None, f"node {self.number} does not run"
        self.world.checks.before_crash(self)
        self.world.note("crash", self.number)
        self.engine, self.frozen = None, False
        self._wake_at = None
        self._backlog.clear()
        self._unsaved.clear()

    def freeze(self) -> None:
        """SIGSTOP: packets wait in the socket, timers do not run."""
        self.world.note("freeze", self.number)
        self.frozen = True

    def suspend(self) -> None:
        """The lid is closed: nothing runs or arrives, the monotonic clock stands still, the wall clock goes on."""
        self.freeze()
        self.suspended_at = self.world.time

    def wake(self) -> None:
        """The lid is opened; the agent's timers come a moment later."""
        assert self.suspended_at is not None
        self.world.note("wake", self.number)
        self.slept += self.world.time - self.suspended_at
        self.frozen, self.suspended_at, self._wake_at = False, None, None
        self._set_alarm()

    def thaw(self) -> None:
        """SIGCONT: everything at once."""
        self.world.note("thaw", self.number)
        self.frozen = False
        backlog, self._backlog = self._backlog, []
        timer_first = self.world.rng.random() < 0.5
        if timer_first:
            self._run_timer()
        for data, source in backlog:
            self.receive(data, source)
        self._run_timer()

    def receive(self, data: bytes, source: Address, datagram: bool = False) -> None:
        """A packet arrives; a datagram comes past the kernel's data plane, if there is one."""
        if self.suspended_at is not None:
            return
        if self.plane is not None and datagram and self.plane.receive(data, source, self.now):
            if self.up:
                self.after_input()
            return
        if self.engine is None:
            return
        if self.frozen:
            if len(self._backlog) < SOCKET_BUFFER:
                self._backlog.append((data, source))
            return
        self.world.note("receive", self.number, data)
        self.engine.receive(data, source, self.now)
        self.after_input()

    def after_input(self) -> None:
        """What a shell does after each input: persist, send, set the alarm."""
        engine = self.engine
        assert engine is not None
        if self.plane is not None:
            self.plane.drain(engine, lambda: self.now)
            self.plane.steer(engine, self.now)
        for event in engine.take_events():
            self.world.tell(self.number, event)
            self.world.checks.on_event(self, event)
            if isinstance(event, DocumentChanged):
                self._persist(event)
            elif isinstance(event, TombstonesCollected):
                self._write(self._unsaved)
                self._unsaved.clear()
                self.disk.collect(event.tombstones, event.dropped)
            elif isinstance(event, IncarnationChanged):
                self.disk.save_incarnation(event.incarnation)
            elif isinstance(event, Standing) and self.plane is not None:
                self.plane.apply(event, self.now)
        self.world.checks.after_events(self)
        for transmit in engine.take_transmits():
            if isinstance(transmit, Transmit):
                self.world.send(self, transmit)
            elif self.plane is not None and len(transmit.data) <= DATAGRAM:
                self.plane.send_rumor(transmit)
            else:
                for target in transmit.targets:
                    self.world.send(self, Transmit(target, transmit.data))
        self._set_alarm()

    def stop(self) -> None:
        """A clean end: what is not written yet is written."""
        assert self.engine is not None
        now = self.now
        self.disk.save_nodes([*remembered(self.engine.members(now), now), *self.engine.former(now)])
        self._write(self._unsaved)
        self.crash()

    def _persist(self, event: DocumentChanged) -> None:
        """A local publish is on the disk before anybody hears of it; others' documents follow within a second."""
        if event.local:
            self._write([*self._unsaved, (0.0, event)])
            self._unsaved.clear()
        else:
            self._unsaved.append((self.world.time + self.world.rng.random(), event))

    def save_now(self) -> None:
        """The periodic part of persistence."""
        assert self.engine is not None
        now = self.now
        self.disk.save_nodes([*remembered(self.engine.members(now), now), *self.engine.former(now)])
        # In the order they came: what was taken later may withdraw what was taken before.
        ready = max((n + 1 for n, item in enumerate(self._unsaved) if item[0] <= self.world.time), default=0)
        self._write(self._unsaved[:ready])
        del self._unsaved[:ready]

    def _write(self, items: list[tuple[float, DocumentChanged]]) -> None:
        for _due, event in items:
            persist(self.disk, [event])

    def _set_alarm(self) -> None:
        assert self.engine is not None
        due = self.engine.next_timer()
        if due is None:
            return
        if self.plane is not None:
            due = max(self.now.mono, min(due, self.engine.observation_due))
        if due == self._wake_at:
            return
        self._wake_at = due
        run = self.runs
        self.world.at(due - 1000.0 * (self.number + 1) + self.slept, lambda: self._alarm(run, due))

    def _alarm(self, run: int, due: float) -> None:
        if run == self.runs and due == self._wake_at and self.up:
            self._run_timer()

    def _run_timer(self) -> None:
        engine = self.engine
        assert engine is not None
        self._wake_at = None
        due = engine.next_timer()
        if due is not None and due <= self.now.mono + ROUNDING:
            self.world.note("timer", self.number)
            now = self.now
            if self.plane is not None:
                self.plane.inform(engine, now)
            engine.handle_timer(replace(now, mono=max(now.mono, due)))
        self.after_input()


class World:
    """Nodes, network and time."""

    def __init__(
        self,
        seed: int,
        nodes: int,
        *,
        settings: Settings | None = None,
        link: Link | None = None,
        planes: Iterable[int] = (),
        save_every: float = 1.0,
        observers: bool = True,
        zone: Callable[[int], str] = lambda number: "",
        signs: bool = False,
        show: Callable[[str], None] | None = None,
    ) -> None:
        """``planes``: numbers of the nodes whose rumors go through a kernel data plane.

        ``save_every``: seconds between two writes of known nodes and of others' documents; more makes days cheap.
        ``observers``: False leaves the rounds of probes out, of which a day has 86,400; silence alone decides then.
        ``zone``: the zone of the node with a number.
        ``signs``: all documents are signed, by one signer whose clock is right.
        ``show`` is called with a line for each event (``trace``).
        """
        self.show = show
        self._save_every = save_every
        self.observers = observers
        self.zone = zone
        self._key = Key(seed) if signs else None
        self._signed_at = 0
        self.signers = rules(self._key.signer("signer", "")) if self._key is not None else None
        self.seed = seed
        self.planes = frozenset(planes)
        self.rng = random.Random(f"world {seed}")
        self.settings = settings or Settings(cycle=1.0)
        self.network = Network(self.rng, link or Link())
        self.checks = Checks(self)
        self.time = 0.0
        self.nodes = [SimNode(self, number) for number in range(nodes)]
        #: The node at an address, for whatever is sent there.
        self.by_address = {node.address: node for node in self.nodes}
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._trace = hashlib.blake2b(digest_size=16)
        self._at_once = 0
        #: Agents started so far, restarts included.
        self.runs = 0
        #: Packets on record, when a scenario asks for it.
        self.recording: list[tuple[SimNode, bytes]] | None = None
        self.at(save_every, self._save)

    @property
    def up(self) -> list[SimNode]:
        """Nodes whose agent runs."""
        return [node for node in self.nodes if node.up]

    @property
    def trace(self) -> str:
        """A hash over everything that happened so far."""
        return self._trace.hexdigest()

    def note(self, what: str, number: int, data: bytes = b"") -> None:
        """Take an event into the trace."""
        self._trace.update(b"%r %s %d %d " % (self.time, what.encode(), number, len(data)) + data)
        if self.show is not None:
            self.show(trace.line(_CODEC, self.time, number, what, data))

    def tell(self, number: int, event: Event) -> None:
        """Show what an engine told. It follows from the inputs, so the trace does without."""
        if self.show is not None and (line := trace.event_line(self.time, number, event)) is not None:
            self.show(line)

    def at(self, when: float, action: Callable[[], None]) -> None:
        """Do ``action`` at a time, those of one instant in the order they were asked for."""
        heapq.heappush(self._heap, (max(when, self.time), next(self._order), action))

    def run(self, seconds: float) -> None:
        """Let virtual time pass."""
        end = self.time + seconds
        while self._heap and self._heap[0][0] <= end:
            when, _order, action = heapq.heappop(self._heap)
            self._at_once = self._at_once + 1 if when == self.time else 0
            if self._at_once > AT_ONCE:
                raise Violation(f"at {when!r} s more than {AT_ONCE} events follow each other and no time passes")
            self.time = when
            action()
        self.time = end

    def run_until(self, condition: Callable[[], str | None], seconds: float, step: float = 0.25) -> float:
        """Run until ``condition`` returns None; returns how long it took. Its text says what is missing, else."""
        began = self.time
        while True:
            missing = condition()
            if missing is None:
                return self.time - began
            if self.time - began >= seconds:
                raise Violation(f"after {seconds:.0f} s: {missing}")
            self.run(step)

    def send(self, sender: SimNode, transmit: Transmit) -> None:
        """Put a packet on the network."""
        self.checks.on_transmit(sender, transmit)
        receiver = self.by_address.get(transmit.to)
        if receiver is None:
            return
        if self.recording is not None:
            self.recording.append((receiver, transmit.data))
        reliable = transmit.reliable or len(transmit.data) > DATAGRAM
        if not reliable and len(transmit.data) > self.network.mtu.get((sender.number, receiver.number), DATAGRAM):
            return
        source = sender.address
        if reliable:
            source = Address(source.ip, 40000 + receiver.number)
        run = receiver.runs
        for when in self.network.arrivals(sender.number, receiver.number, reliable, self.time):
            self.at(when, lambda: self._arrive(sender, receiver, transmit.data, source, reliable, run))

    def _arrive(
        self, sender: SimNode, receiver: SimNode, data: bytes, source: Address, reliable: bool, run: int
    ) -> None:
        # A connection does not outlive the process at its end, nor a cut.
        if reliable and (run != receiver.runs or not self.network.passes(sender.number, receiver.number, True)):
            return
        receiver.receive(data, source, datagram=not reliable)

    def _save(self) -> None:
        self.at(self.time + self._save_every, self._save)
        for node in self.up:
            node.save_now()

    # -- what scenarios do to nodes ----------------------------------------------------------------------------

    def boot_all(self, seeds: int = 2) -> None:
        """Start every node within a second, each knowing the first few."""
        for node in self.nodes:
            self.run(self.rng.uniform(0.0, 1.0 / len(self.nodes)))
            node.boot(self.nodes[:seeds])

    def publish(self, node: SimNode, key: str, value: bytes) -> Document:
        """Publish on ``node``; acknowledged when this returns."""
        assert node.engine is not None
        [(document, _changed)] = node.engine.documents.publish_many(self._signed(node, [Write(key, value)]), node.now)
        node.after_input()
        assert document is not None
        self.checks.acknowledged(node, document)
        return document

    def _signed(self, node: SimNode, writes: Sequence[Write]) -> Sequence[Write]:
        """Let the signer sign ``writes`` for ``node``, if documents are signed in this world.

        The clock of the signer is right. It reads from the node what it replaces.
        """
        if self._key is None:
            return writes
        assert node.engine is not None
        clock = int((EPOCH_S + self.time) * 1_000_000)
        lineages = [node.engine.documents.lineage(write.key) for write in writes]
        # The signer never signs twice at the same time.
        clock = max(clock, self._signed_at + 1)
        signed_at = self._signed_at = max(time_after(read[0] if read else None, clock) for read in lineages)
        drafts = []
        for write, read in zip(writes, lineages):
            expires = 0 if write.expires_in is None else signed_at // 1000 + int(write.expires_in * 1000)
            drafts.append(Draft(write.key, write.value, read, deleted=write.deleted, expires=expires))
        signed = signed_writes(self._key, signed_at, *drafts)
        return [replace(each, expected=write.expected, absent=write.absent) for each, write in zip(signed, writes)]

    def write(self, node: SimNode, writes: Sequence[Write]) -> list[Document | None]:
        """Publish or delete several documents at once on ``node``; None for those that did not change."""
        assert node.engine is not None
        written = node.engine.documents.publish_many(self._signed(node, writes), node.now)
        node.after_input()
        changed = [document if news else None for document, news in written]
        for document in changed:
            if document is not None:
                self.checks.acknowledged(node, document)
        return changed

    def delete(self, node: SimNode, key: str) -> None:
        """Delete on ``node``."""
        assert node.engine is not None
        writes = self._signed(node, [Write(key, deleted=True)])
        [(document, changed)] = node.engine.documents.publish_many(writes, node.now)
        node.after_input()
        if changed and document is not None:
            self.checks.acknowledged(node, document)

    def update(self, node: SimNode, private_data: str) -> None:
        """Change a node's private data."""
        assert node.engine is not None
        node.node = Node(node.node.addr, node.node.port, node.node.name, private_data)
        node.engine.update_node(node.now, private_data=private_data)
        node.after_input()

    def leave(self, node: SimNode) -> None:
        """Leave, and end the process a moment later."""
        assert node.engine is not None
        node.engine.leave(node.now)
        node.after_input()
        self.run(0.05)
        node.stop()

    def pause(self, node: SimNode) -> None:
        """PekoNode's Stop."""
        assert node.engine is not None
        node.engine.pause(node.now)
        node.after_input()

    def resume(self, node: SimNode) -> None:
        """PekoNode's Start."""
        assert node.engine is not None
        node.engine.resume(node.now)
        node.after_input()
