# SPDX-License-Identifier: MIT
"""One full member of a large fleet among modelled ones: detection at sizes that no machine plays in full.

The full member is a real engine with the real codec. The others are modelled by what it gets from them: heartbeats,
answers to its probes, and the alerts of their observers about the members of a sample. An observer in the model has
the window, the threshold and the pauses of a real one.

``python3 -m tests.sim.crowd FAULT --nodes N --seed S`` plays one.
"""

from __future__ import annotations

import argparse
import heapq
import itertools
import random
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "agent"))

from tests.support.keys import KEY
from xdp_gossip.core.engine import Engine
from xdp_gossip.core.events import MemberChanged, Rumor
from xdp_gossip.core.messages import Alert, Alerts, MemberInfo, MemberList
from xdp_gossip.core.observers.edges import FAILED_AT, REPEATED_AT_LAST, REPEATED_FIRST, SOUND_AT, WINDOW
from xdp_gossip.core.observers.rings import Rings
from xdp_gossip.core.packets import Header, PacketType
from xdp_gossip.core.registry import Message
from xdp_gossip.core.settings import Settings
from xdp_gossip.core.types import PRESENT, Address, EdgeState, Node, Now, State
from xdp_gossip.wire.keys import Keyring
from xdp_gossip.wire.native import NativeCodec

from .checks import Violation
from .detection import NOTICED_WITHIN

EPOCH_NS = 1_700_000_000 * 10**9
_CODEC = NativeCodec(Keyring.single("crowd", KEY))
#: Seconds for which the windows of all edges fill before a fault.
_BEFORE = 15.0
#: Seconds within which the full member lists all others, by their lists and their heartbeats.
_FORMED_WITHIN = 300.0
#: Share of datagrams that are lost between members that are well, and mean delay of one and of a rumor in seconds.
_LOSS, _DELAY, _SPREAD = 0.01, 0.003, 0.03
#: Share of rumors that miss a member whatever relays them; some 1 in 10,000 in fleets that are played in full.
_MISSED = 1e-4
#: Healthy members whose observers are played, too.
_SAMPLE = 200
_LISTED_AT_ONCE = 500


@dataclass(frozen=True)
class Faced:
    """What the full member saw: seconds until it removed the first and the last of the faulty (None: not all of them).

    ``healthy``: healthy members that it removed. ``returned``: how often one that it removed came back at most.
    ``sent``, ``taken``: packets of observation a second that it sent and got.
    """

    first: float | None
    last: float | None
    healthy: int
    returned: int
    sent: float
    taken: float


class _Observed:
    """The edge from a modelled observer to a subject, round after round."""

    def __init__(self) -> None:
        self._window = 0
        self._failed = False
        self._again_in = (0, 0)

    def round(self, answered: bool) -> EdgeState | None:
        """End a round. Returns the state to tell, if any."""
        self._window = (self._window << 1 | (not answered)) & ((1 << WINDOW) - 1)
        missing = bin(self._window).count("1")
        failed = missing > (SOUND_AT if self._failed else FAILED_AT - 1)
        if failed != self._failed:
            self._failed, self._again_in = failed, (REPEATED_FIRST, 2 * REPEATED_FIRST)
            return EdgeState.FAILED if failed else EdgeState.OK
        rounds, pause = self._again_in
        if not failed:
            return None
        if rounds > 1:
            self._again_in = (rounds - 1, pause)
            return None
        self._again_in = (pause, min(2 * pause, REPEATED_AT_LAST))
        return EdgeState.FAILED


class Crowd:
    """A full member, and ``members`` - 1 modelled ones that it knows."""

    def __init__(self, seed: int, members: int, cycle: float = 0.0) -> None:
        self.rng = random.Random(f"crowd {seed}")
        self.time = 0.0
        numbers = range(1, members)
        self.others = [Address(f"198.{18 + n // 50_000}.{n // 250 % 200}.{n % 250 + 1}", 8000) for n in numbers]
        local = Node("198.18.0.1", 8000, "full")
        self.engine = Engine(local, Settings(cycle=cycle), _CODEC, random.Random(f"{seed}/full"), 1)
        self.crashed: set[Address] = set()
        #: Member -> share of datagrams to it, and from it, that are lost.
        self.loss_in: dict[Address, float] = {}
        self.loss_out: dict[Address, float] = {}
        #: Pairs of sender and receiver between which nothing passes.
        self.blocked: set[tuple[Address, Address]] = set()
        #: Changes of states that the full member saw: time, member, state.
        self.moves: list[tuple[float, Address, State]] = []
        self.traffic: Counter[str] = Counter()
        self._runs = dict.fromkeys(self.others, 1)
        self._sequences: Counter[Address] = Counter()
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._edges: dict[tuple[Address, Address], _Observed] = defaultdict(_Observed)
        self._rings = Rings()
        self._rings.update([local.address, *self.others])
        self.engine.start(self.now)
        self._introduce()
        for observer in self.observers(local.address):
            self._at(self.rng.random(), lambda observer=observer: self._probe(observer, 1))  # type: ignore[misc]
        for other in self.others:
            self._at(self.rng.uniform(0.0, self.engine.cycle), lambda other=other: self._beat(other))  # type: ignore[misc]
        self._alarm: float | None = None
        self._collect()

    @property
    def now(self) -> Now:
        """The clocks of the full member."""
        return Now(1000.0 + self.time, EPOCH_NS + int(self.time * 1e9))

    def _introduce(self) -> None:
        first = self.others[0]
        for at in range(0, len(self.others), _LISTED_AT_ONCE):
            infos = [MemberInfo(other, 1, 1, State.ALIVE, 0, 0, 0) for other in self.others[at : at + _LISTED_AT_ONCE]]
            self._receive(first, PacketType.SWAP_RESPONSE, MemberList(tuple(infos)))

    def observers(self, subject: Address) -> list[Address]:
        """The modelled observers of a member."""
        return sorted(self._rings.observers(subject) - {self.engine.node.address})

    def play(self, subjects: list[Address]) -> None:
        """Let the observers of ``subjects`` observe them from now on."""
        for subject in subjects:
            for observer in self.observers(subject):
                pair = (observer, subject)
                self._at(self.time + self.rng.random(), lambda pair=pair: self._round(*pair))  # type: ignore[misc]

    def run(self, seconds: float) -> None:
        """Let virtual time pass."""
        end = self.time + seconds
        while self._events and self._events[0][0] <= end:
            self.time, _, action = heapq.heappop(self._events)
            action()
            self._collect()
        self.time = end

    # -- the model ---------------------------------------------------------------------------------------------

    def _at(self, when: float, action: Callable[[], None]) -> None:
        heapq.heappush(self._events, (max(when, self.time), next(self._order), action))

    def _passes(self, sender: Address, receiver: Address) -> bool:
        if sender in self.crashed or receiver in self.crashed or (sender, receiver) in self.blocked:
            return False
        kept = (1 - _LOSS) * (1 - self.loss_out.get(sender, 0.0)) * (1 - self.loss_in.get(receiver, 0.0))
        return self.rng.random() < kept

    def _delay(self) -> float:
        return self.rng.expovariate(1 / _DELAY)

    def _spread(self, origin: Address, deliver: Callable[[], None]) -> None:
        """A rumor reaches the full member if its origin got it out to one of several members."""
        heard = any(self._passes(origin, self.rng.choice(self.others)) for _ in range(4))
        if heard and self.rng.random() >= _MISSED:
            self._at(self.time + self.rng.expovariate(1 / _SPREAD), deliver)

    def _beat(self, other: Address) -> None:
        if other in self.crashed:
            return
        self._spread(other, lambda: self._receive(other, PacketType.HEARTBEAT))
        self._at(self.time + self.engine.cycle * self.rng.uniform(0.95, 1.05), lambda: self._beat(other))

    def _round(self, observer: Address, subject: Address) -> None:
        if observer in self.crashed:
            return
        answered = self._passes(observer, subject) and self._passes(subject, observer)
        state = self._edges[observer, subject].round(answered)
        if state is not None:
            alerts = Alerts((Alert(subject, self._runs[subject], state),))
            self._spread(observer, lambda: self._receive(observer, PacketType.ALERT, alerts))
        self._at(self.time + 1.0, lambda: self._round(observer, subject))

    def _probe(self, observer: Address, number: int) -> None:
        """An observer of the full member probes it."""
        if self._passes(observer, self.engine.node.address):
            self._receive(observer, PacketType.EDGE_PROBE, sequence=number)
        self._at(self.time + 1.0, lambda: self._probe(observer, number + 1))

    def _receive(self, origin: Address, kind: PacketType, message: Message | None = None, sequence: int = 0) -> None:
        self._sequences[origin] += 1
        number = sequence or self._sequences[origin] + 1
        header = Header(kind, origin, self._runs[origin], number, self.now.wall_ns, 0, 0)
        self.traffic[f"rx_{kind.name.lower()}"] += 1
        self.engine.receive(_CODEC.encode(header, message), origin, self.now)

    def _collect(self) -> None:
        """What a shell does after each input."""
        for event in self.engine.take_events():
            if isinstance(event, MemberChanged) and not event.member.local:
                self.moves.append((self.time, event.member.address, event.member.state))
        for transmit in self.engine.take_transmits():
            if isinstance(transmit, Rumor):
                continue
            header = _CODEC.parse(transmit.data)
            self.traffic[f"tx_{header.type.name.lower()}"] += 1
            if header.type is PacketType.EDGE_PROBE:
                self._probed(transmit.to, header.sequence)
        due = self.engine.next_timer()
        if due is not None and due != self._alarm:
            self._alarm = due
            self._at(due - 1000.0, lambda: self._ring(due))

    def _probed(self, to: Address, round_number: int) -> None:
        here = self.engine.node.address
        if self._passes(here, to) and self._passes(to, here):
            answer = lambda: self._receive(to, PacketType.EDGE_ACK, sequence=round_number)  # noqa: E731
            self._at(self.time + self._delay() + self._delay(), answer)

    def _ring(self, due: float) -> None:
        if due == self._alarm:
            self._alarm = None
            self.engine.handle_timer(Now(max(self.now.mono, due), self.now.wall_ns))


def _faulty(crowd: Crowd, fault: str) -> list[Address]:
    count = 10 if fault == "crash" else max(1, len(crowd.others) // 100)
    return crowd.rng.sample(crowd.others, min(count, 10))


def play(fault: str, seed: int, members: int, seconds: float, cycle: float = 0.0) -> Faced:
    """Play one fault of :data:`FAULTS` for ``seconds`` of virtual time. Raises ``Violation``."""
    crowd = Crowd(seed, members, cycle)
    faulty = _faulty(crowd, fault)
    healthy = crowd.rng.sample(sorted(set(crowd.others) - set(faulty)), min(_SAMPLE, len(crowd.others) // 2))
    crowd.play([*faulty, *healthy])
    while (listed := crowd.engine.tally()[State.ALIVE]) != members:
        if crowd.time > _FORMED_WITHIN:
            raise Violation(f"{listed} of {members} members are listed before the fault")
        crowd.run(1.0)
    crowd.run(_BEFORE)
    crowd.moves.clear()
    crowd.traffic.clear()
    since = crowd.time
    FAULTS[fault](crowd, faulty, seconds)
    return _faced(crowd, set(faulty), since)


def _faced(crowd: Crowd, faulty: set[Address], since: float) -> Faced:
    removed = [(when, member) for when, member, state in crowd.moves if state not in PRESENT]
    times: dict[Address, float] = {}
    for when, member in removed:
        times.setdefault(member, when - since)
    ours = [times[member] for member in faulty if member in times]
    back = Counter(member for _, member, state in crowd.moves if state is State.ALIVE and member in times)
    lasted = crowd.time - since
    return Faced(
        min(ours, default=None),
        max(ours) if len(ours) == len(faulty) else None,
        len({member for _, member in removed} - faulty),
        max(back.values(), default=0),
        (crowd.traffic["tx_edge_probe"] + crowd.traffic["tx_edge_ack"]) / lasted,
        (crowd.traffic["rx_edge_probe"] + crowd.traffic["rx_edge_ack"]) / lasted,
    )


def _crash(crowd: Crowd, faulty: list[Address], seconds: float) -> None:
    crowd.crashed.update(faulty)
    crowd.run(seconds)


def _loss(which: str, share: float, crowd: Crowd, faulty: list[Address], seconds: float) -> None:
    getattr(crowd, which).update(dict.fromkeys(faulty, share))
    crowd.run(seconds)


#: Ten members crash at once; ten members get nothing, send nothing that arrives, or lose four of five datagrams.
FAULTS: dict[str, Callable[[Crowd, list[Address], float], None]] = {
    "crash": _crash,
    "loss_in": lambda *args: _loss("loss_in", 1.0, *args),
    "loss_out": lambda *args: _loss("loss_out", 1.0, *args),
    "loss_80": lambda *args: _loss("loss_out", 0.8, *args),
}


def judge(faced: Faced) -> None:
    """Exactly the faulty members were removed, in time, and did not come back. Raises ``Violation``."""
    if faced.healthy:
        raise Violation(f"{faced.healthy} healthy members were removed")
    if faced.last is None or faced.last > NOTICED_WITHIN:
        raise Violation(f"the faulty members were removed after {faced.first} to {faced.last} s")
    if faced.returned > 1:
        raise Violation(f"a member came back {faced.returned} times")


def main() -> int:
    """Play what the command line asks for; 1 when a seed failed."""
    parser = argparse.ArgumentParser(prog="python3 -m tests.sim.crowd", description="Play faults of very large fleets.")
    parser.add_argument("fault", choices=sorted(FAULTS))
    parser.add_argument("--nodes", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0, help="first seed")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=60.0, help="virtual")
    args = parser.parse_args()
    failed = 0
    for seed in range(args.seed, args.seed + args.seeds):
        began = time.process_time()
        faced = play(args.fault, seed, args.nodes, args.seconds)
        try:
            judge(faced)
            outcome = ""
        except Violation as violation:
            failed += 1
            outcome = f"FAILED {violation}; "
        print(f"{args.fault} {seed}: {outcome}{faced}; {time.process_time() - began:.0f} s of processor", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
