# SPDX-License-Identifier: MIT
"""Keeps a data plane in step with the engine: who we are, whom to relay to, what to hold of each peer; and reads back
what the kernel recorded.

A data plane may come and go while the agent runs. With ``protocol: auto`` the agent takes what is there; without it,
or once its maps were taken down, it works through its sockets and looks again every few seconds. ``XDP`` and ``TC``
insist on it at the start only: to end a running agent because of a loader's restart would help nobody.
"""

from __future__ import annotations

import logging
import math
from typing import Any, Callable, Protocol

from .core.events import Standing
from .core.interface import Settings
from .core.observer import Observation
from .core.types import Address, Now
from .dataplane import headers
from .dataplane.maps import Config, DataPlane, PlaneError
from .transport import TransportError
from .transport.kernel import KernelTransport

_log = logging.getLogger("xdp_gossip.dataplane")

#: Seconds between two looks for a data plane while there is none.
LOOK_EVERY = 5.0
#: The kernel works without hearing from the agent for so many seconds, or timeouts if those are longer.
LEASE_SECONDS, LEASE_TIMEOUTS = 60.0, 10
#: From a change of the members until the ring follows: what joins together is written together.
_RING_AFTER = 0.1


class SteeredEngine(Protocol):
    """What steering needs of an engine beyond packets and timers."""

    settings: Settings

    @property
    def status(self) -> str: ...
    @property
    def incarnation(self) -> int: ...
    @property
    def state_digest(self) -> int: ...
    @property
    def clock_offset(self) -> float: ...
    @property
    def cycle(self) -> float: ...
    @property
    def timeout(self) -> float: ...
    @property
    def observation_due(self) -> float: ...
    def observe(self, rows: list[Observation], now: Now) -> None: ...
    def stop_observing(self) -> None: ...
    def set_plane(self, plane: str, now: Now) -> None: ...
    def relay_targets(self, limit: int) -> list[Address]: ...


class Steering:
    """One engine and the data plane of its transport.

    ``find`` opens the data plane or raises ``PlaneError``; ``protocol`` is the configuration's auto, XDP or TC.
    ``reason`` tells why there is no better mode than the one in use, "" when there is none.
    """

    def __init__(
        self,
        engine: SteeredEngine,
        transport: KernelTransport,
        find: Callable[[], DataPlane],
        own: Address,
        protocol: str,
    ) -> None:
        self._engine = engine
        self._transport = transport
        self._find = find
        self._own = own
        self._protocol = protocol
        self._ring = headers.constants()["XG_RING"]
        self._cycle_at = self._ring_at = math.inf
        self._look_at = math.inf
        self._shown: tuple[str, int, int] = ("", 0, 0)  # what the kernel knows of us: status, incarnation, digest
        self._lost_before = 0  # packets that found no room in the ring buffer
        self.reason = ""

    def status(self) -> dict[str, Any]:
        """``dataplane`` of GET /v1/status (docs/api.md); empty without one."""
        plane = self._transport.plane
        try:
            counters = plane.counters() if plane is not None else {}
        except OSError as error:
            _log.warning("counters of the data plane not read: %s", error)
            return {}
        if plane is None:
            return {}
        interface, directory = plane.loaded.interface, str(plane.directory)
        return {"dataplane": {"interface": interface, "directory": directory, "counters": counters}}

    # -- coming and going --------------------------------------------------------------------------------------

    def open(self, now: Now) -> None:
        """Look for a data plane before the engine starts. Raises ``TransportError`` when one was asked for by name."""
        self._look(now)
        if self._transport.plane is None and self._protocol.upper() != "AUTO":
            raise TransportError(f"protocol {self._protocol}: {self.reason}")

    def begin(self, now: Now) -> None:
        """The engine runs: let the kernel work for it."""
        if self._transport.plane is None:
            self._look_at = now.mono + LOOK_EVERY
        else:
            self._guarded(self._first, now)

    def look(self, now: Now) -> None:
        """Look for a data plane, or whether ours is still the one that is up (SIGHUP, timer)."""
        plane = self._transport.plane
        if plane is not None and not plane.there():
            self._drop("its maps were taken down", now)
        if self._transport.plane is None:
            self._look(now)
            if self._transport.plane is not None:
                self._guarded(self._first, now)

    def _look(self, now: Now) -> None:
        before = self.reason
        self._look_at = now.mono + LOOK_EVERY
        try:
            plane = self._find()
            self._transport.use(plane)
        except (PlaneError, OSError) as error:
            self.reason = str(error)
            if self.reason != before:
                _log.warning("no kernel data plane, packets go through sockets: %s", self.reason)
            return
        self._look_at = math.inf
        self.reason = plane.loaded.reason
        self._engine.set_plane(plane.mode, now)
        note = f"; no better mode: {self.reason}" if self.reason else ""
        _log.info("kernel data plane: %s on %s%s", plane.mode, plane.loaded.interface, note)

    def _first(self, plane: DataPlane, now: Now) -> None:
        """What was recorded while no agent ran comes first: those nodes are members at once."""
        self._lost_before = plane.counter("news_lost")
        self._engine.observe(plane.observations(now), now)
        self._write_all(plane, now)

    def _drop(self, why: str, now: Now) -> None:
        _log.error("kernel data plane given up, packets go through sockets: %s", why)
        self.reason = why
        self._transport.leave_plane()
        self._engine.stop_observing()
        self._engine.set_plane(self._transport.name, now)
        self._cycle_at = self._ring_at = math.inf
        self._look_at = now.mono + LOOK_EVERY

    def _guarded(self, work: Callable[[DataPlane, Now], None], now: Now) -> None:
        """Do something with the plane; one whose maps refuse is given up."""
        plane = self._transport.plane
        if plane is None:
            return
        try:
            work(plane, now)
        except OSError as error:
            self._drop(error.strerror or str(error), now)

    # -- what the runtime calls --------------------------------------------------------------------------------

    def next_timer(self) -> float:
        """Monotonic time at which :meth:`handle_timer` wants to be called."""
        if self._transport.plane is None:
            return self._look_at
        return max(0.0, min(self._cycle_at, self._ring_at, self._engine.observation_due))

    def handle_timer(self, now: Now) -> None:
        """Do what is due."""
        if self._transport.plane is None:
            if now.mono >= self._look_at:
                self.look(now)
        elif now.mono + self._engine.cycle / 3 >= self.next_timer():
            self._guarded(self._work, now)

    def _work(self, plane: DataPlane, now: Now) -> None:
        lost = 0
        # What is due soon is done now: a wake-up costs more than most of what it is for.
        soon = now.mono + self._engine.cycle / 3
        if soon >= self._cycle_at:
            if not plane.there():
                self._drop("its maps were taken down", now)
                return
            lost = plane.counter("news_lost")
        if soon >= self._engine.observation_due or lost > self._lost_before:
            self._lost_before = max(lost, self._lost_before)
            self._engine.observe(plane.observations(now), now)
        if soon >= self._cycle_at or now.mono >= self._ring_at:
            self._write_all(plane, now)

    def attend(self, now: Now) -> None:
        """After an input of the engine: what the kernel screens by must not be stale."""
        if self._transport.plane is not None and self._shown != self._state():
            self._guarded(self._write_config, now)

    def hold(self, standing: Standing, now: Now) -> None:
        """What the kernel is to hold of a peer."""

        def apply(plane: DataPlane, now: Now) -> None:
            if not plane.apply(standing, now):
                self._transport.note_no_room()

        self._guarded(apply, now)

    def members_changed(self, now: Now) -> None:
        """Members came or went: the ring follows soon."""
        if self._transport.plane is not None:
            self._ring_at = min(self._ring_at, now.mono + _RING_AFTER)

    # -- writing -----------------------------------------------------------------------------------------------

    def _write_all(self, plane: DataPlane, now: Now) -> None:
        """Once a cycle: the ring shuffled, the lease renewed, the clock as it is now."""
        six = ":" in self._own.ip
        members = self._engine.relay_targets(self._ring)
        plane.write_targets([member for member in members if (":" in member.ip) == six])
        self._write_config(plane, now)
        self._cycle_at, self._ring_at = now.mono + self._engine.cycle, math.inf

    def _state(self) -> tuple[str, int, int]:
        engine = self._engine
        return engine.status, engine.incarnation, engine.state_digest

    def _write_config(self, plane: DataPlane, now: Now) -> None:
        engine = self._engine
        self._shown = status, incarnation, digest = self._state()
        offset = engine.clock_offset
        plane.write_config(
            Config(
                running=status in ("running", "paused"),
                incarnation=incarnation,
                state_digest=digest,
                lease=now.mono + max(LEASE_SECONDS, LEASE_TIMEOUTS * engine.timeout),
                clock=now.wall_ns - int(now.mono * 1e9) + int(offset * 1e9),
                timeout=engine.timeout,
                max_clock_drift=engine.settings.max_clock_drift,
            )
        )
