# SPDX-License-Identifier: MIT
"""Keeps a kernel data plane in sync with the engine, and passes the kernel's records of other nodes to the engine.

Steering writes the local node's state, the relay targets and the state of each peer to the kernel's maps. A data plane
may appear and disappear while the agent runs. Once per cycle, steering judges the data plane in use
(``dataplane/health.py``). If the data plane does not work, steering makes the programs pass all arriving packets to the
sockets, and asks the loader to check the data plane again (``dataplane/asking.py``). After the loader has checked or
repaired the data plane, steering uses the data plane again. The protocols ``XDP`` and ``TC`` require a data plane only
when the agent starts (``service/planewait.py``). A running agent must not stop whenever the loader restarts.
"""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, NamedTuple

from ..core.events import Standing
from ..core.members.timing import ROUND_INTERVAL
from ..core.packets import FLAG_CATCHING_UP, FLAG_PAUSED, FLAG_UNSTORED
from ..core.types import Address, Now
from ..transport import NoPlane
from . import aside, headers
from .asking import TOWARD, Asking, Request
from .health import PROOFS, Finding, Health, Work, too_much
from .health import Plane as Watched
from .interfaces import Facts
from .maps import AtWork, Config, DataPlane, Loaded, PlaneError, best_mode
from .monitor import Monitor
from .transport import EVERYBODY_4, EVERYBODY_6, KernelTransport

if TYPE_CHECKING:
    from ..core.engine import Engine

_log = logging.getLogger("xdp_gossip.dataplane")

#: Seconds between two checks for a data plane while no data plane is loaded.
LOOK_EVERY = 5.0
#: Seconds between two checks for a data plane after a request, because the loader may finish at any moment.
PEEK_EVERY = 0.5
#: The agent's lease on the kernel programs lasts ``LEASE_SECONDS`` or ``LEASE_TIMEOUTS`` times the member timeout,
#: whichever is longer. When the lease expires, packets go through the network stack again.
LEASE_SECONDS, LEASE_TIMEOUTS = 60.0, 10
#: Seconds from a change of the members until the ring of relay targets is rewritten, so that one write covers several
#: changes.
_RING_AFTER = 0.1
#: Fraction of the interval between two rounds of probes by which the steering's recurring work may be late.
_GRACE = 0.15

_MAPS_GONE = Finding("maps_gone", "its maps were taken down, or others are pinned", "the loader to pin maps again")
#: After one of these findings, the agent uses a new data plane as soon as its maps are pinned. After any other finding,
#: :meth:`Asking.may_take` decides when the agent uses a data plane again.
_PINS_TELL = ("maps_gone", "taken_down")
COUNTERS = (
    *("plane_taken", "plane_judged", "plane_asked", "plane_ask_failed", "plane_stepped_down"),
    *(f"plane_stepped_down_{proof}" for proof in PROOFS),
)


class _Shown(NamedTuple):
    """What the kernel's maps say about the local node, so far as it must be written as soon as it changes."""

    status: str = ""
    incarnation: int = 0
    documents_digest: int = 0
    round: int = 0
    record_digest: int = 0
    flags: int = 0


class Steering:
    """Synchronises an engine with the data plane that the engine's transport uses.

    ``find`` opens the data plane in ``directory``, or raises ``PlaneError``. ``protocol`` is auto, XDP or TC, from the
    configuration. ``monitor`` reports changes of interfaces and addresses.
    """

    def __init__(
        self,
        engine: Engine,
        transport: KernelTransport,
        find: Callable[[], DataPlane],
        own: Address,
        protocol: str,
        directory: Path,
        monitor: Monitor,
    ) -> None:
        self._engine = engine
        self._transport = transport
        self._find = find
        self._own = own
        self._protocol = protocol
        self._directory = directory
        self._monitor = monitor
        self._watched = (0, "")
        self._ring = headers.constants()["XG_RING"]
        self._cycle_at = self._ring_at = math.inf
        self._look_at = math.inf
        self._shown = _Shown()
        self._lost_before = 0  # number of packets that found no room in the ring buffer, as last read
        self._unknown_before = 0  # number of packets with an unknown key that the kernel dropped, as last read
        self._health: Health | None = None
        self._taken_at = 0.0
        # id of the data plane's program at the interface; the program stays attached when the agent stops using the
        # data plane
        self._program = 0
        self._stamp: tuple[int, int] | None = None  # Stamp of the loader's state file when it was last read.
        self._refused = 0.0  # Time at which the loader last verified the data plane that failed.
        # The data plane has failed, so steering must not use it again before a new check by the loader.
        self._failed = False
        self._why = self._awaited = self._said = ""
        self._carriers = (0, 0)  # Numbers of carriers sent and refused until the end of the previous cycle.
        # Reason why this node's rumors are sent as one packet per target although the data plane works.
        self._refusal = ""
        self._asking = Asking(Request(directory), transport.count)
        transport.add_counters(COUNTERS)

    @property
    def reason(self) -> str:
        """The reason why no better mode is in use, and the event that could make a better mode possible; "" if the best
        mode is in use.
        """
        plane, watched = (
            self._transport.plane,
            self._monitor.facts.interface if self._monitor.facts is not None else None,
        )
        said = [self._why] if self._why else []
        if plane is not None and watched is not None and not watched.running:
            said.append(f"{watched.name} has no carrier: waiting for it")
        elif self._awaited:
            said.append(f"waiting for {self._awaited}")
        if plane is not None and self._refusal:
            said.append(self._refusal)
        if plane is None or self._lower(plane):
            said.append(self._asking.words())
        return "; ".join(said)

    def status(self) -> dict[str, Any]:
        """The object ``dataplane`` of GET /v1/status (docs/api.md); empty without a data plane."""
        plane = self._transport.plane
        try:
            counters = plane.counters() if plane is not None else {}
        except OSError as error:
            _log.warning("counters of the data plane not read: %s", error)
            return {}
        if plane is None:
            return {}
        watched = self._monitor.facts.interface if self._monitor.facts is not None else None
        renamed = watched is not None and watched.index == plane.loaded.ifindex
        interface = watched.name if watched is not None and renamed else plane.loaded.interface
        found = {"interface": interface, "directory": str(plane.directory), "container": plane.loaded.container}
        return {"dataplane": {**found, "counters": counters}}

    # -- coming and going --------------------------------------------------------------------------------------

    def open(self, now: Now) -> None:
        """Look for a data plane before the engine starts.

        Raises ``NoPlane`` if the settings require a data plane and there is none.
        """
        self._aim()
        self._monitor.open()
        self._look(now)
        if self._transport.plane is None and self._protocol.upper() != "AUTO":
            self._monitor.close()
            raise NoPlane(f"protocol {self._protocol}: {self._why}")

    def begin(self, now: Now, wake: Callable[[], None] = lambda: None) -> None:
        """Start steering the data plane for the running engine.

        ``wake``: function that steering calls after a change of interfaces or addresses; the caller must then call
        :meth:`notice`.
        """
        self._monitor.on_change = wake
        self._follow(now)
        if self._transport.plane is None:
            self._look_at = now.mono + LOOK_EVERY
            self._asking.want(now.mono)
            self._asking.hurry(now.mono)
        else:
            self._guarded(self._first, now)

    def close(self) -> None:
        """Unsubscribe from changes of interfaces and addresses. Idempotent."""
        self._monitor.close()

    def look(self, now: Now) -> None:
        """Look for a data plane, or check that the data plane in use is still loaded.

        ``NodeList.look_for_dataplane`` calls this method, for example after a reload of the configuration.
        """
        self._failed = False
        self._look_again(now)

    def notice(self, now: Now) -> None:
        """React to changed interfaces or addresses at once, without waiting for the end of the cycle."""
        if self._follow(now):
            _log.info("interface or address changed: %s", self._monitor.facts)
            self._look_at = min(self._look_at, now.mono)
        plane = self._transport.plane
        if plane is not None and self._health is not None:
            found = self._health.notice(self._monitor.facts)
            if found is not None:
                self._step_down(found, now)
        self._ask(now)

    def _look_again(self, now: Now) -> None:
        plane = self._transport.plane
        if plane is not None and self._stamp != Loaded.stamp(self._directory):
            self._renew(plane, now)
            return
        if plane is not None and not plane.there():
            self._step_down(_MAPS_GONE, now)
        if self._transport.plane is None:
            self._look(now)
            if self._transport.plane is not None:
                self._guarded(self._first, now)

    def _look(self, now: Now) -> None:
        self._look_at = now.mono + LOOK_EVERY
        stamp = Loaded.stamp(self._directory)
        if stamp != self._stamp:
            self._asking.loader_worked(now.mono)
        self._stamp = stamp
        if self._failed and not self._asking.may_take(now.mono, Loaded.proved(self._directory) != self._refused):
            return
        try:
            plane = self._find()
        except (PlaneError, OSError) as error:
            self._none(str(error), now)
            return
        try:
            self._take(plane, now)
        except (PlaneError, OSError) as error:
            plane.close()
            self._none(str(error), now)

    def _none(self, why: str, now: Now) -> None:
        self._why, self._awaited = why, ""
        aside.stand_aside(self._directory, self._own)
        self._watch(0, Loaded.asked(self._directory))
        self._asking.want(now.mono)
        self._say(f"no kernel data plane, packets go through sockets: {self.reason}", why)

    def _watch(self, index: int, name: str) -> Facts | None:
        if (index, name) != self._watched:
            self._watched = index, name
            self._asking.other_interface()
        return self._monitor.watch(index, name)

    def _take(self, plane: DataPlane, now: Now) -> None:
        """Start to use ``plane``. Raises ``PlaneError``, ``OSError``."""
        loaded = plane.loaded
        facts = self._watch(loaded.ifindex, loaded.interface)
        health = Health(Watched(loaded.interface, loaded.ifindex, loaded.program, loaded.owners, loaded.named))
        found = health.stated(facts)
        if found is not None:
            raise PlaneError(f"the data plane cannot work: {found.text}")
        self._transport.use(plane)
        self._health, self._taken_at, self._failed = health, now.mono, False
        self._program = loaded.program
        self._look_at = math.inf
        self._why, self._awaited = loaded.reason, ""
        self._engine.set_plane(plane.mode, now)
        if self._lower(plane):
            self._asking.want(now.mono)
        self._transport.count("plane_taken")
        note = f"; no better mode: {self.reason}" if self.reason else ""
        self._say(f"kernel data plane: {plane.mode} on {loaded.interface}{note}", "", logging.INFO)

    def _renew(self, plane: DataPlane, now: Now) -> None:
        """Switch to the data plane that was just loaded, if possible without using the sockets in between."""
        self._stamp = Loaded.stamp(self._directory)
        self._asking.loader_worked(now.mono)
        if self._proved(plane):
            return
        try:
            fresh = self._find()
        except AtWork:
            self._stamp = None  # a loader is still running, so try again in the next cycle
            if not plane.there():
                self._step_down(_MAPS_GONE, now)
            return
        except (PlaneError, OSError) as error:
            self._step_down(Finding("taken_down", str(error), "a data plane"), now)
            return
        try:
            self._take(fresh, now)
        except (PlaneError, OSError) as error:
            fresh.close()
            self._step_down(Finding("taken_down", str(error), "a data plane"), now)
            return
        self._guarded(self._first, now)

    def _proved(self, plane: DataPlane) -> bool:
        """Whether the loader left ``plane`` unchanged.

        If the loader left ``plane`` unchanged, steering keeps ``plane`` and the results of the earlier health
        checks of ``plane``.
        """
        try:
            return plane.there() and Loaded.read(self._directory, self._protocol) == plane.loaded
        except PlaneError:
            return False

    def _first(self, plane: DataPlane, now: Now) -> None:
        """Synchronise the engine with a data plane that was just opened.

        The engine first gets the nodes that the kernel recorded while no agent ran, so that these nodes become members
        at once.
        """
        self._lost_before = plane.counter("news_lost")
        self._unknown_before = plane.counter("drop_unknown_key")
        self._engine.observe(plane.observations(now), now)
        self._write_all(plane, now)

    def _step_down(self, found: Finding, now: Now) -> None:
        """Stop using the data plane: send over sockets, and make the programs pass arriving packets to the sockets."""
        plane = self._transport.plane
        if plane is not None:
            # An error does not matter: if the maps are removed or refuse the write, no program reads them.
            with contextlib.suppress(OSError):
                self._engine.acknowledged(plane.acknowledgements(now), now)
            with contextlib.suppress(OSError):
                self._write_config(plane, now, running=False)
        self._why, self._awaited = found.text, found.awaited
        self._transport.leave_plane()
        self._engine.stop_observing()
        self._engine.set_plane(self._transport.name, now)
        self._cycle_at = self._ring_at = math.inf
        self._look_at = now.mono + LOOK_EVERY
        self._stamp, self._refused = Loaded.stamp(self._directory), Loaded.proved(self._directory)
        self._failed = found.proof not in _PINS_TELL
        self._transport.count("plane_stepped_down")
        self._transport.count(f"plane_stepped_down_{found.proof}")
        self._asking.failed(found.proof, now.mono)
        self._say(f"kernel data plane given up, packets go through sockets: {self.reason}", found.text, logging.ERROR)
        self._ask(now)

    def _ask(self, now: Now) -> None:
        """Send a request to the loader if one is due.

        While no data plane is in use, check often for the loader's result.
        """
        self._asking.attend(self._why, now)
        if self._transport.plane is None and now.mono < self._asking.answer_by:
            self._look_at = min(self._look_at, now.mono + PEEK_EVERY)

    def _say(self, line: str, why: str, level: int = logging.WARNING) -> None:
        """Log ``line``, unless the previous line was logged for the same reason ``why``."""
        if not why or why != self._said:
            _log.log(level, "%s", line)
        self._said = why

    def _lower(self, plane: DataPlane) -> bool:
        return bool(plane.mode != best_mode(self._protocol))

    def _aim(self) -> None:
        """Store the destinations of the node's packets.

        The routes to the stored destinations may determine the data plane's interface.
        """
        facts = self._monitor.facts
        if facts is not None and facts.ways is None:
            return
        toward = tuple(address.ip for address in self._engine.destinations(TOWARD))
        self._monitor.toward = self._asking.toward = toward

    def _follow(self, now: Now) -> bool:
        """Pass the monitor's facts to the request schedule.

        Returns True if the facts have changed, so that the loader should be asked at once.
        """
        return self._asking.follow(self._monitor.facts, self._program, now.mono)

    def _guarded(self, work: Callable[[DataPlane, Now], None], now: Now) -> None:
        """Run ``work`` on the data plane. Stop using the data plane if the kernel refuses an access to its maps."""
        plane = self._transport.plane
        if plane is None:
            return
        try:
            work(plane, now)
        except OSError as error:
            self._step_down(Finding("unreadable", error.strerror or str(error), "a data plane"), now)

    # -- what the runtime calls --------------------------------------------------------------------------------

    def next_timer(self) -> float:
        """The monotonic time at which :meth:`handle_timer` must be called next."""
        if self._transport.plane is None:
            return min(self._look_at, self._asking.due)
        # The engine's timers come first, and one wake-up serves both (:meth:`handle_timer`).
        return max(0.0, min(self._ring_at, self._due + _GRACE * ROUND_INTERVAL))

    @property
    def _due(self) -> float:
        """Monotonic time of the next work that recurs."""
        return min(self._cycle_at, self._engine.observation_due)

    def inform(self, now: Now) -> None:
        """Pass the recorded acknowledgements to the engine, before its timers end a round of probes.

        A heartbeat may bring a round that is nearly due.
        """
        if now.mono + ROUND_INTERVAL / 3 >= self._engine.edges_due:
            self._guarded(lambda plane, now: self._engine.acknowledged(plane.acknowledgements(now), now), now)

    def handle_timer(self, now: Now) -> None:
        """Do the work that is due at ``now``."""
        if self._transport.plane is None:
            self._ask(now)
            if now.mono >= self._look_at:
                self._aim()
                self._monitor.refresh()
                self._follow(now)
                self._look_again(now)
                if self._transport.plane is None and now.mono < self._asking.answer_by:
                    self._look_at = now.mono + PEEK_EVERY
        elif now.mono >= self._ring_at or now.mono + self._engine.cycle / 3 >= self._due:
            self._guarded(self._work, now)

    def _work(self, plane: DataPlane, now: Now) -> None:
        lost = 0
        # Do now all work that is due within the next third of a cycle, because an extra wake-up would cost more than
        # the work.
        soon = now.mono + self._engine.cycle / 3
        if soon >= self._cycle_at:
            if not self._carries(plane, now):
                return
            lost = plane.counter("news_lost")
        if soon >= self._engine.observation_due or lost > self._lost_before:
            self._lost_before = max(lost, self._lost_before)
            self._engine.observe(plane.observations(now), now)
        if soon >= self._cycle_at or now.mono >= self._ring_at:
            self._write_all(plane, now)

    def _carries(self, plane: DataPlane, now: Now) -> bool:
        """Judge whether the data plane worked in the cycle that ends now.

        Returns False if the data plane was replaced or is no longer in use.
        """
        self._aim()
        self._monitor.refresh()
        self._follow(now)
        self._look_again(now)
        if self._transport.plane is not plane or self._health is None:
            return False
        counters = self._transport.counters
        counted = plane.counters()
        if counted["drop_unknown_key"] > self._unknown_before:
            self._engine.dropped_unknown_keys(now)
        self._unknown_before = counted["drop_unknown_key"]
        work = Work(counted, counters["plane_passed_by"], counters["carriers_sent"], counters["carriers_lost"])
        found = self._health.judge(work, self._monitor.facts)
        self._transport.count("plane_judged")
        if found is not None:
            self._step_down(found, now)
            return False
        self._weigh_refusals(counters["carriers_sent"], counters["carriers_refused"])
        if self._lower(plane):
            self._asking.carries(self._taken_at, now.mono)
            self._asking.want(now.mono)
            self._ask(now)
        else:
            self._asking.content(self._taken_at, now.mono)
        return True

    def _weigh_refusals(self, sent: int, refused: int) -> None:
        """Log a warning if the host refuses to send this node's rumors as carriers, which the kernel would multiply.

        This is no reason to stop using the data plane: the loader cannot change a firewall, and the data plane still
        relays the rumors of other members.
        """
        (sent_before, before), self._carriers = self._carriers, (sent, refused)
        tried, refused = sent - sent_before + refused - before, refused - before
        if not tried:
            return
        former, self._refusal = self._refusal, ""
        if too_much(refused, tried):
            group = EVERYBODY_6 if ":" in self._own.ip else EVERYBODY_4
            self._refusal = (
                f"own rumors are sent one by one, as the host refuses packets to {group} ({self._transport.refusal}): "
                "let its firewall accept them"
            )
        if self._refusal and self._refusal != former:
            _log.warning("%s", self._refusal)

    def attend(self, now: Now) -> None:
        """Update the maps after the engine has processed an input, so that the kernel does not filter packets by
        outdated data.
        """
        if self._transport.plane is not None and self._shown != self._state():
            self._guarded(self._write_config, now)

    def accept_keys(self, keys: Sequence[tuple[int, bytes]], now: Now) -> None:
        """Make the kernel accept packets signed with ``keys``, too. See ``DataPlane.write_keys`` for ``keys``."""
        self._guarded(lambda plane, _: plane.add_keys(keys), now)

    def use_keys(self, keys: Sequence[tuple[int, bytes]], active: int, now: Now) -> None:
        """Make the kernel sign with the key ``active``, then remove all keys that are not among ``keys``."""

        def switch(plane: DataPlane, now: Now) -> None:
            plane.sign_with(active)
            # The kernel must sign with the new key before the old key is removed: without a key it cannot answer.
            self._write_config(plane, now)
            plane.write_keys(keys, active)

        self._guarded(switch, now)

    def hold(self, standing: Standing, now: Now) -> None:
        """Write a peer's standing (for example present, suspect or gone) to the kernel's maps."""

        def apply(plane: DataPlane, now: Now) -> None:
            if not plane.apply(standing, now):
                self._transport.note_no_room()

        self._guarded(apply, now)

    def members_changed(self, now: Now) -> None:
        """Schedule an update of the ring of relay targets, because members were added or removed."""
        if self._transport.plane is not None:
            self._ring_at = min(self._ring_at, now.mono + _RING_AFTER)

    # -- writing -----------------------------------------------------------------------------------------------

    def _write_all(self, plane: DataPlane, now: Now) -> None:
        """Write shuffled relay targets, the renewed lease and the current clock to the maps, once per cycle."""
        six = ":" in self._own.ip
        members = self._engine.relay_targets(self._ring)
        plane.write_targets([member for member in members if (":" in member.ip) == six])
        self._write_config(plane, now)
        self._cycle_at, self._ring_at = self._with_a_round(now.mono + self._engine.cycle), math.inf

    def _with_a_round(self, when: float) -> float:
        """The time of a round of probes near ``when``, so that one wake-up serves both."""
        due = self._engine.edges_due
        if due > when + ROUND_INTERVAL / 3:
            return when
        return due + math.floor((when - due) / ROUND_INTERVAL + 1 / 3) * ROUND_INTERVAL

    def _state(self) -> _Shown:
        engine = self._engine
        local = engine.local
        flags = FLAG_PAUSED if engine.status == "paused" else 0
        flags |= 0 if local.stored else FLAG_UNSTORED
        flags |= FLAG_CATCHING_UP if engine.catching_up else 0
        record = local.record.digest if local.record is not None else 0
        return _Shown(engine.status, engine.incarnation, engine.documents.digest, engine.edge_round, record, flags)

    def _write_config(self, plane: DataPlane, now: Now, running: bool = True) -> None:
        engine = self._engine
        self._shown = shown = self._state()
        offset = engine.clock_offset
        wall = now.wall_ns - int(now.mono * 1e9)
        plane.write_config(
            Config(
                running=running and shown.status in ("running", "paused"),
                incarnation=shown.incarnation,
                documents_digest=shown.documents_digest,
                lease=now.mono + max(LEASE_SECONDS, LEASE_TIMEOUTS * engine.timeout),
                clock=wall + int(offset * 1e9),
                timeout=engine.timeout,
                max_clock_drift=engine.settings.max_clock_drift,
                asked=shown.round,
                wall=wall,
                record_digest=shown.record_digest,
                renewed=now.mono,
                packet_flags=shown.flags,
            )
        )
