# SPDX-License-Identifier: MIT
"""How a runtime uses a kernel data plane, and a null object for nodes that cannot have one."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Protocol

from ..core.events import Standing
from ..core.types import Now


class PlaneSteering(Protocol):
    """Keeps a kernel data plane in step with an engine. ``dataplane.steering.Steering`` implements it."""

    @property
    def reason(self) -> str:
        """Why no better mode is in use; "" if the requested or the best mode is."""

    def status(self) -> dict[str, Any]:
        """``dataplane`` of GET /v1/status (docs/api.md); empty without a data plane."""

    def open(self, now: Now) -> None:
        """Look for a data plane before the engine starts. Raises ``NoPlane`` when one was asked for by name."""

    def begin(self, now: Now, wake: Callable[[], None]) -> None:
        """Note that the engine runs. ``wake`` is called when :meth:`notice` has something to look at."""

    def close(self) -> None:
        """Stop following the host's interfaces and addresses. Idempotent."""

    def look(self, now: Now) -> None:
        """Look for a data plane now."""

    def notice(self, now: Now) -> None:
        """Note that interfaces or addresses have changed."""

    def next_timer(self) -> float:
        """Monotonic time at which :meth:`handle_timer` is due; infinity: never."""

    def handle_timer(self, now: Now) -> None:
        """Do what is due."""

    def attend(self, now: Now) -> None:
        """Note that the engine had an input, so its state may differ from what the kernel knows."""

    def hold(self, standing: Standing, now: Now) -> None:
        """Tell the kernel what to hold of a peer."""

    def members_changed(self, now: Now) -> None:
        """Note that members came or went."""


class WithoutPlane:
    """A node whose packets all go through sockets: nothing to steer. ``reason`` is what :class:`PlaneSteering` says."""

    def __init__(self, reason: str = "") -> None:
        self.reason = reason

    def status(self) -> dict[str, Any]:
        """Empty."""
        return {}

    def next_timer(self) -> float:
        """Never."""
        return math.inf

    def open(self, now: Now) -> None:
        """Nothing to look for."""

    def begin(self, now: Now, wake: Callable[[], None]) -> None:
        """Nothing to begin."""

    def close(self) -> None:
        """Nothing to close."""

    def look(self, now: Now) -> None:
        """Nothing to look for."""

    def notice(self, now: Now) -> None:
        """Nothing to notice."""

    def handle_timer(self, now: Now) -> None:
        """Nothing is due."""

    def attend(self, now: Now) -> None:
        """Nobody else has to know."""

    def hold(self, standing: Standing, now: Now) -> None:
        """Nobody else has to know."""

    def members_changed(self, now: Now) -> None:
        """Nobody else has to know."""
